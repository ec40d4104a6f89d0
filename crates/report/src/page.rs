//! The frame of every report: one file with its style sheet, contents and sections.

use maud::{DOCTYPE, Markup, PreEscaped, html};
use stage::manifest::version;

const STYLE: &str = include_str!("style.css");
/// The content policy that a browser enforces for a page: nothing outside its own file.
const ALONE: &str =
    "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:";

/// A part of a report: its anchor, its heading, which the contents repeat, and its body.
pub(crate) type Section = (&'static str, &'static str, Markup);

/// The whole file. `kind` names its subject, `lead` stands below the heading.
pub(crate) fn page(kind: &str, heading: &str, lead: &str, sections: &[Section]) -> String {
    let body = html! {
        div.frame {
            nav aria-label="Contents" {
                p.kicker { "Contents" }
                ol { @for (id, title, _) in sections { li { a href={ "#" (id) } { (title) } } } }
            }
            main {
                header { p.kicker { (kind) } h1 { (heading) } p.soft { (lead) } }
                @for (id, title, body) in sections { section id=(id) { h2 { (title) } (body) } }
                footer { p { "Written by dsom-report " (version()) "." } }
            }
        }
    };
    document(&format!("{heading} · {kind}"), "", &body)
}

/// The file around a body, with the style sheet and an additional `style`.
pub(crate) fn document(title: &str, style: &str, body: &Markup) -> String {
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                meta http-equiv="Content-Security-Policy" content=(ALONE);
                title { (title) }
                // The page requests nothing, not even an icon.
                link rel="icon" href="data:,";
                style { (PreEscaped(STYLE)) (PreEscaped(style)) }
            }
            body { (body) }
        }
    };
    page.into_string()
}

/// A sentence in place of missing data.
pub(crate) fn absent(sentence: &str) -> Markup {
    html! { p.absent { (sentence) } }
}

/// A table that scrolls if it is wider than the page.
pub(crate) fn scroll(head: Markup, rows: Markup) -> Markup {
    html! { div.scroll tabindex="0" { table { thead { (head) } tbody { (rows) } } } }
}

/// A table of plain text; columns after the first `texts` hold numbers.
pub(crate) fn table(
    header: &[&str],
    texts: usize,
    rows: impl IntoIterator<Item: IntoIterator<Item = String>>,
) -> Markup {
    let number = |i: usize| (i >= texts).then_some("n");
    let head =
        html! { tr { @for (i, name) in header.iter().enumerate() { th class=[number(i)] { (name) } } } };
    let cells = html! { @for row in rows { tr {
        @for (i, cell) in row.into_iter().enumerate() {
            td class=[if i == 0 { Some("name") } else { number(i) }] { (cell) }
        }
    } } };
    scroll(head, cells)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_one_file_that_asks_for_nothing() {
        let drawn = table(&["name", "n"], 1, [["<i>".into(), "1".into()]]);
        let page = page("Run", "x & y", "", &[("a", "First <one>", drawn)]);
        let cells = "<td class=\"name\">&lt;i&gt;</td><td class=\"n\">1</td>";
        for within in ["<!DOCTYPE html>", "x &amp; y", "href=\"#a\"", "First &lt;one&gt;", cells] {
            assert!(page.contains(within), "no {within}: {page}");
        }
        for outside in ["http://", "https://", "<script", "<link rel=\"stylesheet", "url(", "@import"] {
            assert!(!page.contains(outside), "{outside}");
        }
    }
}
