//! Charts as inline SVG, drawn by this module without a library.
//!
//! A report is one file that must be readable on a light and a dark screen, on paper and on a phone. So shapes take
//! their colours from the page's style sheet by class (`s0` to `s7`), texts use the page's font, and a chart is 360
//! units wide, about a phone's width, so that its text keeps its size there. Every chart has a name and a description
//! for screen readers, and every mark shows its numbers under the pointer.

mod lines;
mod scale;

pub(crate) use lines::{Line, LineChart, stacked};
pub(crate) use scale::Scale;

use dsom_experiment::statistics::Interval;
use maud::{Markup, html};

/// The size of a chart in its own units.
const WIDTH: f64 = 360.0;
const HEIGHT: f64 = 230.0;
/// The edges of the plot: numbers stand to the left, numbers and a name below.
const LEFT: f64 = 50.0;
const RIGHT: f64 = WIDTH - 14.0;
pub(crate) const TOP: f64 = 8.0;
const BOTTOM: f64 = HEIGHT - 36.0;

pub(crate) fn series(number: usize) -> &'static str {
    const CLASSES: [&str; 8] = ["s0", "s1", "s2", "s3", "s4", "s5", "s6", "s7"];
    CLASSES[number % CLASSES.len()]
}

/// A name and the class of its colour.
pub(crate) type Named = (String, &'static str);

#[derive(Clone, Copy)]
pub(crate) enum Mark {
    Line,
    Area,
}

/// Names next to the marks that they explain.
pub(crate) fn legend(mark: Mark, names: &[Named]) -> Markup {
    html! { ul.legend { @for (name, class) in names { li {
        svg viewBox="0 0 22 11" aria-hidden="true" { @match mark {
            Mark::Line => path.line.(class) d="M1 5.5H21" {},
            Mark::Area => rect.fill.(class) x="5" y="0" width="11" height="11" rx="2" {},
        } }
        (name)
    } } } }
}

/// A figure: its title, a legend if there are several names, and the drawing with a description for screen readers.
pub(crate) fn figure(id: &str, title: &str, note: &str, legend: Markup, words: &str, svg: Markup) -> Markup {
    html! {
        figure {
            figcaption id={ (id) "-title" } { (title) @if !note.is_empty() { small { (note) } } }
            (legend)
            svg viewBox={ "0 0 " (WIDTH) " " (HEIGHT) } role="img" aria-labelledby={ (id) "-title " (id) "-words" } {
                desc id={ (id) "-words" } { (words) }
                (svg)
            }
        }
    }
}

/// The area between the axes, in which values are drawn.
pub(crate) struct Plot {
    pub(crate) x: Scale,
    pub(crate) y: Scale,
}

impl Plot {
    /// A plot whose values begin below `top`.
    pub(crate) fn below(top: f64, x: Scale, y: Scale) -> Plot {
        Plot { x: x.onto(LEFT, RIGHT), y: y.onto(BOTTOM, top) }
    }

    /// The grid lines and numbers of both axes, and the axes' names.
    pub(crate) fn axes(&self, x_name: &str, y_name: &str) -> Markup {
        html! {
            @for (value, text) in self.y.ticks() {
                @let y = self.y.place(value);
                line.grid x1=(LEFT) x2=(RIGHT) y1=(px(y)) y2=(px(y)) {}
                text x=(LEFT - 6.0) y=(px(y + 3.8)) text-anchor="end" { (text) }
            }
            @for (value, text) in self.x.ticks() {
                text x=(px(self.x.place(value))) y=(BOTTOM + 14.0) text-anchor="middle" { (text) }
            }
            line.axis x1=(LEFT) x2=(RIGHT) y1=(BOTTOM) y2=(BOTTOM) {}
            text x=((LEFT + RIGHT) / 2.0) y=(HEIGHT - 4.0) text-anchor="middle" { (x_name) }
            text transform={ "translate(8 " ((TOP + BOTTOM) / 2.0) ") rotate(-90)" } text-anchor="middle" { (y_name) }
        }
    }

    /// The line through points, for a `path`.
    pub(crate) fn way(&self, points: impl Iterator<Item = (f64, f64)>) -> String {
        let places = points.map(|(x, y)| format!("{} {}", px(self.x.place(x)), px(self.y.place(y))));
        format!("M{}", places.collect::<Vec<_>>().join("L"))
    }
}

/// A bar of shares with a sum of at most one: `(share, class, text under the pointer)`.
pub(crate) fn share_bar<'a>(parts: impl Iterator<Item = (f64, &'a str, &'a str)>) -> Markup {
    let mut end = 0.0;
    let (mut words, mut placed) = (Vec::new(), Vec::new());
    for (share, class, name) in parts {
        let (begin, width) = (end, 100.0 * share);
        end += width;
        words.push(format!("{name} {width:.0} %"));
        placed.push((begin, width, class, name));
    }
    html! {
        svg viewBox="0 0 100 10" preserveAspectRatio="none" role="img" aria-label=(words.join(", ")) {
            rect.track width="100" height="10" {}
            @for (from, width, class, name) in placed {
                rect.fill.(class) x=(format!("{from:.2}")) width=(format!("{width:.2}")) height="10" {
                    title { (name) " " (format!("{width:.1}")) " %" }
                }
            }
        }
    }
}

/// A value with its interval on a scale from `from` to `to`.
pub(crate) fn interval(of: Interval, value: f64, (from, to): (f64, f64), class: &str) -> Markup {
    let Interval { low, high } = of;
    let scale = Scale::exact(from, to).onto(4.0, 156.0);
    let [low_at, at, high_at] = [low, value, high].map(|value| px(scale.place(value)));
    let words = format!("{value:.2}, interval from {low:.2} to {high:.2}");
    html! {
        svg viewBox="0 0 160 17" role="img" aria-label=(words) {
            title { (words) }
            line.grid x1="4" x2="156" y1="8.5" y2="8.5" {}
            path.whisker.(class) d={ "M" (low_at) " 8.5H" (high_at) } {}
            path.thin.(class) d={ "M" (low_at) " 5v7M" (high_at) " 5v7" } {}
            circle.dot.(class) cx=(at) cy="8.5" r="4" {}
        }
    }
}

/// The range of several intervals: from the lowest to the highest end, with a small margin.
pub(crate) fn around(intervals: impl Iterator<Item = Interval>) -> Option<(f64, f64)> {
    let ends = intervals.map(|i| (i.low, i.high));
    let (low, high) = ends.reduce(|this, that| (this.0.min(that.0), this.1.max(that.1)))?;
    let room = 0.02 * (high - low);
    Some((low - room, high + room))
}

/// A coordinate with only the digits that are visible: files stay small, and are equal on every machine.
pub(crate) fn px(value: f64) -> String {
    let text = format!("{value:.1}");
    text.strip_suffix(".0").map(str::to_owned).unwrap_or(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn coordinates_are_short() {
        assert_eq!([px(3.0), px(3.04), px(3.25), px(-0.5)], ["3", "3", "3.2", "-0.5"]);
    }

    #[test]
    fn figures_escape_texts_and_show_what_they_name() {
        let names = legend(Mark::Line, &[("a".into(), series(2))]);
        let drawn = figure("x", "<b>&", "", names, "a \"<script>\"", html! {}).into_string();
        assert!(drawn.contains("&lt;b&gt;&amp;") && drawn.contains("&lt;script&gt;"), "{drawn}");
        assert!(!drawn.contains("<script>") && drawn.contains("line s2"), "{drawn}");
        assert!(legend(Mark::Area, &[("b".into(), series(9))]).into_string().contains("fill s1"));
    }

    #[test]
    fn parts_of_a_bar_follow_each_other_and_are_said() {
        let parts = [(0.25, "s1", "structural"), (0.5, "s2", "<textual>")];
        let drawn = share_bar(parts.into_iter()).into_string();
        assert!(drawn.contains("x=\"25.00\" width=\"50.00\""), "{drawn}");
        assert!(drawn.contains("aria-label=\"structural 25 %, &lt;textual&gt; 50 %\""), "{drawn}");
    }

    #[test]
    fn an_interval_is_on_its_scale() {
        let drawn = interval(Interval { low: 10.0, high: 30.0 }, 20.0, (0.0, 40.0), "s0").into_string();
        assert!(drawn.contains("M42 8.5H118") && drawn.contains("cx=\"80\""), "{drawn}");
    }
}
