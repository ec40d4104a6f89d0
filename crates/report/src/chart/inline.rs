//! Small drawings in the cells of tables, where words are the table's.

use maud::{Markup, html};

use super::{Scale, px};

/// A bar of shares that add up to one or less: `(share, class, what to say when pointed at)`.
pub fn share_bar<'a>(parts: impl Iterator<Item = (f64, String, &'a str)>) -> Markup {
    let mut from = 0.0;
    let placed: Vec<(f64, f64, String, &str)> = parts
        .map(|(share, class, name)| {
            let begin = from;
            from += 100.0 * share;
            (begin, 100.0 * share, class, name)
        })
        .collect();
    let words: Vec<String> =
        placed.iter().map(|(_, share, _, name)| format!("{name} {share:.0} %")).collect();
    html! {
        svg viewBox="0 0 100 10" preserveAspectRatio="none" role="img" aria-label=(words.join(", ")) {
            rect.track width="100" height="10" {}
            @for (from, share, class, name) in &placed {
                rect.fill.(class) x=(format!("{from:.2}")) width=(format!("{share:.2}")) height="10" {
                    title { (name) " " (format!("{share:.1}")) " %" }
                }
            }
        }
    }
}

/// A value with its interval on a scale from `from` to `to`.
pub fn interval(low: f64, value: f64, high: f64, (from, to): (f64, f64), class: &str) -> Markup {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_follow_each_other_and_are_said() {
        let parts = [(0.25, "s1".to_owned(), "structural"), (0.5, "s2".to_owned(), "<textual>")];
        let drawn = share_bar(parts.into_iter()).into_string();
        assert!(drawn.contains("x=\"25.00\" width=\"50.00\""), "{drawn}");
        assert!(drawn.contains("aria-label=\"structural 25 %, &lt;textual&gt; 50 %\""), "{drawn}");
    }

    #[test]
    fn an_interval_is_on_its_scale() {
        let drawn = interval(10.0, 20.0, 30.0, (0.0, 40.0), "s0").into_string();
        assert!(drawn.contains("M42 8.5H118") && drawn.contains("cx=\"80\""), "{drawn}");
    }
}
