//! Lines over numbers: learning curves, rewards, sweeps.

use maud::{Markup, html};

use super::{HEIGHT, horizontal};
use super::{MARGINS, Mark, Scale, WIDTH, axes, figure, legend, px, vertical};

/// A named line.
#[derive(Clone, Debug, Default)]
pub struct Line {
    /// The name in the legend.
    pub name: String,
    /// Class of its colour.
    pub class: String,
    /// Its points, ascending in x.
    pub points: Vec<(f64, f64)>,
    /// Around each point, from where to where it plausibly lies; empty if that is not known.
    pub band: Vec<(f64, f64)>,
    /// The number of the point to mark, such as the best epoch.
    pub marked: Option<usize>,
    /// True if every point gets a dot: for a few measured values, not for a curve.
    pub dots: bool,
}

/// A chart of lines over common axes.
#[derive(Clone, Debug, Default)]
pub struct LineChart<'a> {
    /// Unique in the page.
    pub id: &'a str,
    /// Its title.
    pub title: &'a str,
    /// A sentence that says how to read it.
    pub note: &'a str,
    /// Name of the horizontal axis.
    pub x: &'a str,
    /// Name of the vertical axis.
    pub y: &'a str,
    /// True if the horizontal axis is logarithmic.
    pub logarithmic: bool,
    /// True if the vertical axis begins at zero.
    pub from_zero: bool,
    /// True if marked points have their number beside them.
    pub labelled: bool,
    /// The lines.
    pub lines: Vec<Line>,
}

impl LineChart<'_> {
    /// The chart as a figure; nothing if no line has a point.
    pub fn render(&self) -> Markup {
        let drawn: Vec<&Line> = self.lines.iter().filter(|line| !line.points.is_empty()).collect();
        let Some((x, y)) = self.scales(&drawn) else { return html! {} };
        let names = html! {
            @if drawn.len() > 1 {
                (legend(drawn.iter().map(|line| (line.name.as_str(), line.class.clone(), Mark::Line))))
            }
        };
        let drawing = html! {
            (axes(&x, &y, self.x, self.y))
            @for line in &drawn { (band(line, &x, &y)) }
            @for line in &drawn {
                path.line.(line.class) d=(path(&line.points, &x, &y)) { title { (line.name) } }
            }
            @for line in &drawn { (self.dots(line, &x, &y)) }
        };
        figure(self.id, self.title, self.note, names, &self.describe(&drawn), drawing)
    }

    fn scales(&self, lines: &[&Line]) -> Option<(Scale, Scale)> {
        let points = || lines.iter().flat_map(|line| line.points.iter().copied());
        let bands = lines.iter().flat_map(|line| line.band.iter()).flat_map(|(low, high)| [*low, *high]);
        let (left, right) = extent(points().map(|(x, _)| x))?;
        let (low, high) = extent(points().map(|(_, y)| y).chain(bands))?;
        let x = horizontal(left, right);
        let low = if self.from_zero { low.min(0.0) } else { low };
        let y = vertical(Scale::round(low, high));
        Some((if self.logarithmic { x.logarithmic() } else { x }, y))
    }

    fn dots(&self, line: &Line, x: &Scale, y: &Scale) -> Markup {
        let tell = |(of_x, of_y): (f64, f64)| {
            format!("{}: {} {}, {} {}", line.name, self.x, short(of_x), self.y, short(of_y))
        };
        html! {
            @for (i, point) in line.points.iter().enumerate() {
                @if line.dots || line.marked == Some(i) || line.points.len() == 1 {
                    circle.dot.(line.class) cx=(px(x.place(point.0))) cy=(px(y.place(point.1))) r="3.6" {
                        title { (tell(*point)) }
                    }
                }
            }
            @if let Some(point) = line.marked.filter(|_| self.labelled).and_then(|i| line.points.get(i)) {
                (label(&short(point.1), x.place(point.0), y.place(point.1)))
            }
        }
    }

    fn describe(&self, lines: &[&Line]) -> String {
        let of = |line: &&Line| match (line.points.first(), line.points.last()) {
            (Some(first), Some(last)) => format!(
                "{}: {} at {} {} to {} at {} {}",
                line.name,
                short(first.1),
                self.x,
                short(first.0),
                short(last.1),
                self.x,
                short(last.0)
            ),
            _ => line.name.clone(),
        };
        let lines: Vec<String> = lines.iter().map(of).collect();
        format!("{} by {}. {}.", self.y, self.x, lines.join("; "))
    }
}

/// A number beside its point, kept inside the drawing.
fn label(text: &str, x: f64, y: f64) -> Markup {
    let anchor = if x > WIDTH - MARGINS.right - 20.0 { "end" } else { "middle" };
    let y = if y < MARGINS.top + 14.0 { y + 15.0 } else { y - 8.0 };
    html! { text.strong x=(px(x)) y=(px(y.min(HEIGHT))) text-anchor=(anchor) { (text) } }
}

fn band(line: &Line, x: &Scale, y: &Scale) -> Markup {
    let at = |side: fn(&(f64, f64)) -> f64| {
        line.points.iter().zip(&line.band).map(move |((of_x, _), band)| (*of_x, side(band)))
    };
    let mut points: Vec<(f64, f64)> = at(|band| band.1).collect();
    points.extend(at(|band| band.0).collect::<Vec<_>>().into_iter().rev());
    html! { @if points.len() > 2 { path.band.(line.class) d={ (path(&points, x, y)) "Z" } {} } }
}

pub(super) fn path(points: &[(f64, f64)], x: &Scale, y: &Scale) -> String {
    let step = |(i, (of_x, of_y)): (usize, &(f64, f64))| {
        format!("{}{} {}", if i == 0 { "M" } else { "L" }, px(x.place(*of_x)), px(y.place(*of_y)))
    };
    points.iter().enumerate().map(step).collect()
}

/// The smallest and the largest of the finite values.
fn extent(values: impl Iterator<Item = f64>) -> Option<(f64, f64)> {
    values.filter(|value| value.is_finite()).fold(None, |extent, value| match extent {
        None => Some((value, value)),
        Some((low, high)) => Some((value.min(low), value.max(high))),
    })
}

/// A number with three or four digits.
pub fn short(value: f64) -> String {
    let digits = match value.abs() {
        0.0 => 0,
        magnitude if magnitude >= 100.0 => 0,
        magnitude if magnitude >= 10.0 => 1,
        magnitude if magnitude >= 1.0 => 2,
        _ => 3,
    };
    let text = format!("{value:.digits$}");
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(name: &str, points: &[(f64, f64)]) -> Line {
        Line { name: name.into(), class: "s0".into(), points: points.to_vec(), ..Line::default() }
    }

    #[test]
    fn a_line_goes_through_its_points() {
        let lines = vec![Line { marked: Some(1), ..line("student", &[(0.0, 0.0), (10.0, 40.0)]) }];
        let chart = LineChart { id: "c", title: "t", x: "epoch", y: "MRR", lines, ..LineChart::default() };
        let drawn = chart.render().into_string();
        assert!(drawn.contains("d=\"M50 194L346 8\""), "{drawn}");
        assert!(drawn.contains("<title>student: epoch 10, MRR 40</title>"), "{drawn}");
        assert!(drawn.contains("MRR by epoch. student: 0 at epoch 0 to 40 at epoch 10."), "{drawn}");
        assert!(!drawn.contains("legend"));
    }

    #[test]
    fn several_lines_have_a_legend_and_none_no_chart() {
        let lines = vec![line("a", &[(1.0, 1.0), (2.0, 2.0)]), line("b", &[(1.0, 3.0)]), line("c", &[])];
        let drawn = LineChart { id: "c", lines, ..LineChart::default() }.render().into_string();
        assert_eq!(drawn.matches("<li>").count(), 2);
        assert_eq!(
            LineChart { id: "c", lines: vec![line("a", &[])], ..LineChart::default() }.render().into_string(),
            ""
        );
    }

    #[test]
    fn numbers_are_short() {
        assert_eq!(
            [0.0, 0.1234, 2.5, 41.26, 1234.5, -0.5].map(short),
            ["0", "0.123", "2.5", "41.3", "1234", "-0.5"]
        );
    }
}
