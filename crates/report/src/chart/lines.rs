//! Lines over numbers: learning curves, rewards and sweeps; and shares of a whole over epochs.

use maud::{Markup, html};

use super::{HEIGHT, Mark, Named, Plot, RIGHT, Scale, TOP, figure, legend, px};
use crate::format::short;

#[derive(Default)]
pub(crate) struct Line {
    pub(crate) name: String,
    pub(crate) class: &'static str,
    /// The line's points, in ascending order of x.
    pub(crate) points: Vec<(f64, f64)>,
    /// The lower and upper end of each point's interval; empty if there are no intervals.
    pub(crate) band: Vec<(f64, f64)>,
    /// The number of the point to mark, such as the best epoch.
    pub(crate) marked: Option<usize>,
    /// True if every point gets a dot: for few measured values, not for a curve.
    pub(crate) dots: bool,
}

#[derive(Default)]
pub(crate) struct LineChart<'a> {
    /// The figure's id, unique in the page.
    pub(crate) id: &'a str,
    pub(crate) title: &'a str,
    /// A sentence that explains how to read the chart.
    pub(crate) note: &'a str,
    /// The names of the axes.
    pub(crate) x: &'a str,
    pub(crate) y: &'a str,
    pub(crate) logarithmic: bool,
    /// True if the vertical axis begins at zero.
    pub(crate) from_zero: bool,
    /// True if marked points show their numbers.
    pub(crate) labelled: bool,
    pub(crate) lines: Vec<Line>,
}

impl LineChart<'_> {
    /// The chart as a figure; nothing if no line has a point.
    pub(crate) fn render(mut self) -> Markup {
        self.lines.retain(|line| !line.points.is_empty());
        let Some(plot) = self.plot() else { return html! {} };
        let names: Vec<Named> = self.lines.iter().map(|line| (line.name.clone(), line.class)).collect();
        let drawing = html! {
            (plot.axes(self.x, self.y))
            @for line in &self.lines { (band(line, &plot)) }
            @for line in &self.lines {
                path.line.(line.class) d=(plot.way(line.points.iter().copied())) { title { (line.name) } }
            }
            @for line in &self.lines { (self.dots(line, &plot)) }
        };
        let legend = html! { @if names.len() > 1 { (legend(Mark::Line, &names)) } };
        figure(self.id, self.title, self.note, legend, &self.describe(), drawing)
    }

    fn plot(&self) -> Option<Plot> {
        let points = self.lines.iter().flat_map(|line| &line.points);
        let bands = self.lines.iter().flat_map(|line| &line.band).flat_map(|(low, high)| [*low, *high]);
        let (left, right) = extent(points.clone().map(|(x, _)| *x))?;
        let (low, high) = extent(points.map(|(_, y)| *y).chain(bands))?;
        let low = if self.from_zero { low.min(0.0) } else { low };
        let x = Scale::exact(left, right);
        let x = if self.logarithmic { x.logarithmic() } else { x };
        Some(Plot::below(TOP, x, Scale::round(low, high)))
    }

    fn dots(&self, Line { name, class, points, marked, dots, .. }: &Line, plot: &Plot) -> Markup {
        html! {
            @for (i, &(x, y)) in points.iter().enumerate() {
                @if *dots || *marked == Some(i) || points.len() == 1 {
                    circle.dot.(class) cx=(px(plot.x.place(x))) cy=(px(plot.y.place(y))) r="3.6" {
                        title { (name) ": " (self.x) " " (short(x)) ", " (self.y) " " (short(y)) }
                    }
                }
            }
            @if let Some((x, y)) = marked.filter(|_| self.labelled).and_then(|i| points.get(i)) {
                (label(&short(*y), plot.x.place(*x), plot.y.place(*y)))
            }
        }
    }

    fn describe(&self) -> String {
        let mut ways = Vec::new();
        for Line { name, points, .. } in &self.lines {
            let ends = [points[0], points[points.len() - 1]];
            let [first, last] = ends.map(|(x, y)| format!("{} at {} {}", short(y), self.x, short(x)));
            ways.push(format!("{name}: {first} to {last}"));
        }
        format!("{} by {}. {}.", self.y, self.x, ways.join("; "))
    }
}

/// A number beside its point, kept inside the drawing.
fn label(text: &str, x: f64, y: f64) -> Markup {
    let anchor = if x > RIGHT - 20.0 { "end" } else { "middle" };
    let y = if y < TOP + 14.0 { y + 15.0 } else { y - 8.0 };
    html! { text.strong x=(px(x)) y=(px(y.min(HEIGHT))) text-anchor=(anchor) { (text) } }
}

fn band(line: &Line, plot: &Plot) -> Markup {
    let around = line.points.iter().zip(&line.band);
    let above = around.clone().map(|((x, _), (_, high))| (*x, *high));
    let below = around.map(|((x, _), (low, _))| (*x, *low)).rev();
    html! { @if line.band.len() > 1 { path.band.(line.class) d={ (plot.way(above.chain(below))) "Z" } {} } }
}

/// The smallest and the largest of the finite values.
fn extent(values: impl Iterator<Item = f64>) -> Option<(f64, f64)> {
    let finite = values.filter(|value| value.is_finite()).map(|value| (value, value));
    finite.reduce(|(low, high), (value, _)| (low.min(value), high.max(value)))
}

/// Layers over `epochs`, the first name at the bottom; `shares[epoch][name]` is from 0 to 1.
pub(crate) fn stacked(id: &str, title: &str, names: &[Named], epochs: &[f64], shares: &[Vec<f64>]) -> Markup {
    let (Some(first), Some(last)) = (epochs.first(), epochs.last()) else { return html! {} };
    let plot = Plot::below(TOP, Scale::exact(*first, *last), Scale::exact(0.0, 100.0));
    let mut below = vec![0.0; epochs.len()];
    let (mut areas, mut words) = (Vec::new(), Vec::new());
    for (i, (name, class)) in names.iter().enumerate() {
        let percent: Vec<f64> = shares.iter().map(|shares| 100.0 * shares[i]).collect();
        let above: Vec<f64> = below.iter().zip(&percent).map(|(below, share)| below + share).collect();
        let outline = epochs.iter().zip(&above).chain(epochs.iter().zip(&below).rev());
        areas.push((name, class, plot.way(outline.map(|(x, y)| (*x, *y)))));
        words.push(format!("{name} from {:.0} % to {:.0} %", percent[0], percent[percent.len() - 1]));
        below = above;
    }
    let drawing = html! {
        @for (name, class, way) in areas { path.fill.edge.(class) d={ (way) "Z" } { title { (name) } } }
        (plot.axes("epoch", "share in %"))
    };
    let note = "share of the training queries' actions";
    let described = format!("Shares: {}.", words.join("; "));
    figure(id, title, note, legend(Mark::Area, names), &described, drawing)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(name: &str, points: &[(f64, f64)]) -> Line {
        Line { name: name.into(), class: "s0", points: points.to_vec(), ..Line::default() }
    }

    fn chart(lines: Vec<Line>) -> String {
        LineChart { id: "c", x: "epoch", y: "MRR", lines, ..LineChart::default() }.render().into_string()
    }

    #[test]
    fn a_line_goes_through_its_points() {
        let drawn = chart(vec![Line { marked: Some(1), ..line("student", &[(0.0, 0.0), (10.0, 40.0)]) }]);
        assert!(drawn.contains("d=\"M50 194L346 8\""), "{drawn}");
        assert!(drawn.contains("<title>student: epoch 10, MRR 40</title>"), "{drawn}");
        assert!(drawn.contains("MRR by epoch. student: 0 at epoch 0 to 40 at epoch 10."), "{drawn}");
        assert!(!drawn.contains("legend"));
    }

    #[test]
    fn several_lines_have_a_legend_and_none_no_chart() {
        let lines = vec![line("a", &[(1.0, 1.0), (2.0, 2.0)]), line("b", &[(1.0, 3.0)]), line("c", &[])];
        assert_eq!(chart(lines).matches("<li>").count(), 2);
        assert_eq!(chart(vec![line("a", &[])]), "");
    }

    #[test]
    fn layers_stand_on_each_other() {
        let names = [("a".into(), "s1"), ("b".into(), "s1")];
        let shares = [vec![0.25, 0.75], vec![0.5, 0.5]];
        let drawn = stacked("s", "t", &names, &[1.0, 2.0], &shares).into_string();
        // 0 % is at 194, 100 % at 8.
        assert!(drawn.contains("d=\"M50 147.5L346 101L346 194L50 194Z\""), "{drawn}");
        assert!(drawn.contains("d=\"M50 8L346 8L346 101L50 147.5Z\""), "{drawn}");
        assert!(drawn.contains("a from 25 % to 50 %; b from 75 % to 50 %."));
    }
}
