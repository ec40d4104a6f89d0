//! Charts as inline SVG, drawn here and not by a library.
//!
//! A report is one file that must read well on a light and a dark screen, on paper and on a phone. So shapes take
//! their colours from the page's style sheet by class (`s0` to `s7`), texts are set in the page's font, and a chart is
//! 360 units wide, about a phone's width, so that its text keeps its size there. Libraries that draw for files fix
//! colours and measure fonts themselves; those that draw in the browser need scripts. What is left to do is little:
//! scales with round ticks, lines, bands, stacked shares, bars. Every chart is named and described for screen readers,
//! and every mark tells its numbers when it is pointed at.

mod inline;
mod lines;
mod reliability;
mod scale;
mod shares;

pub use inline::{interval, share_bar};
pub use lines::{Line, LineChart, short};
pub use reliability::{Bin, bins, expected_calibration_error, reliability};
pub use scale::Scale;
pub use shares::{Layer, stacked};

use maud::{Markup, html};

/// Number of series that have a colour of their own.
pub const SERIES: usize = 8;
/// The width of a chart in its own units.
const WIDTH: f64 = 360.0;
/// Its height.
const HEIGHT: f64 = 230.0;

/// The space around the plot.
struct Margins {
    left: f64,
    right: f64,
    top: f64,
    bottom: f64,
}

/// The usual space: numbers on the left, numbers and a name below.
const MARGINS: Margins = Margins { left: 50.0, right: 14.0, top: 8.0, bottom: 36.0 };

/// The class of a series' colour.
pub fn series(number: usize) -> String {
    format!("s{}", number % SERIES)
}

/// A figure: its title, a legend if there are several names, and the drawing with words for who cannot see it.
fn figure(id: &str, title: &str, note: &str, legend: Markup, describe: &str, drawing: Markup) -> Markup {
    html! {
        figure {
            figcaption id={ (id) "-title" } { (title) @if !note.is_empty() { small { (note) } } }
            (legend)
            svg viewBox={ "0 0 " (WIDTH) " " (HEIGHT) } role="img" aria-labelledby={ (id) "-title " (id) "-words" } {
                desc id={ (id) "-words" } { (describe) }
                (drawing)
            }
        }
    }
}

/// Names beside the marks that stand for them.
pub fn legend<'a>(entries: impl Iterator<Item = (&'a str, String, Mark)>) -> Markup {
    html! {
        ul.legend {
            @for (name, class, mark) in entries {
                li {
                    svg viewBox="0 0 22 11" aria-hidden="true" { (mark.draw(&class)) }
                    (name)
                }
            }
        }
    }
}

/// The mark beside a name in a legend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mark {
    /// A line.
    Line,
    /// A filled square.
    Area,
}

impl Mark {
    fn draw(self, class: &str) -> Markup {
        match self {
            Mark::Line => html! { path.line.(class) d="M1 5.5H21" {} },
            Mark::Area => html! { rect.fill.(class) x="5" y="0" width="11" height="11" rx="2" {} },
        }
    }
}

/// The frame of a plot: grid lines and numbers on both axes, and their names.
fn axes(x: &Scale, y: &Scale, x_name: &str, y_name: &str) -> Markup {
    let (left, right) = (MARGINS.left, WIDTH - MARGINS.right);
    let (top, bottom) = (MARGINS.top, HEIGHT - MARGINS.bottom);
    html! {
        @for (value, text) in y.ticks() {
            line.grid x1=(left) x2=(right) y1=(px(y.place(value))) y2=(px(y.place(value))) {}
            text x=(left - 6.0) y=(px(y.place(value) + 3.8)) text-anchor="end" { (text) }
        }
        @for (value, text) in x.ticks() {
            text x=(px(x.place(value))) y=(bottom + 14.0) text-anchor="middle" { (text) }
        }
        line.axis x1=(left) x2=(right) y1=(bottom) y2=(bottom) {}
        text x=((left + right) / 2.0) y=(HEIGHT - 4.0) text-anchor="middle" { (x_name) }
        text transform={ "translate(8 " ((top + bottom) / 2.0) ") rotate(-90)" } text-anchor="middle" { (y_name) }
    }
}

/// The plot's horizontal scale.
fn horizontal(from: f64, to: f64) -> Scale {
    Scale::exact(from, to).onto(MARGINS.left, WIDTH - MARGINS.right)
}

/// The plot's vertical scale, from below to above.
fn vertical(scale: Scale) -> Scale {
    scale.onto(HEIGHT - MARGINS.bottom, MARGINS.top)
}

/// A coordinate with as many digits as can be seen: files stay small, and the same everywhere.
fn px(value: f64) -> String {
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
    fn texts_are_escaped() {
        let drawn = figure("x", "<b>&", "", html! {}, "a \"<script>\"", html! {}).into_string();
        assert!(drawn.contains("&lt;b&gt;&amp;") && drawn.contains("&lt;script&gt;"), "{drawn}");
        assert!(!drawn.contains("<script>"));
    }

    #[test]
    fn legends_show_what_they_name() {
        let entries = [("a", series(2), Mark::Line), ("b", series(9), Mark::Area)];
        let drawn = legend(entries.into_iter()).into_string();
        assert!(drawn.contains("line s2") && drawn.contains("fill s1"), "{drawn}");
    }
}
