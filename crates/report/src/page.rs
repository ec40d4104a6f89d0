//! The frame of every report: one file with its style sheet, contents and sections.

use maud::{DOCTYPE, Markup, PreEscaped, html};
use stage::manifest::version;

/// The one style sheet.
const STYLE: &str = include_str!("style.css");
/// The policy that a browser holds a page to: nothing beyond its own file.
const ALONE: &str =
    "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:";

/// A part of a report.
pub(crate) struct Section {
    /// Its anchor.
    pub(crate) id: &'static str,
    /// Its heading, also in the contents.
    pub(crate) title: &'static str,
    /// Its content.
    pub(crate) body: Markup,
}

impl Section {
    /// A section.
    pub(crate) fn new(id: &'static str, title: &'static str, body: Markup) -> Section {
        Section { id, title, body }
    }
}

/// The whole file. `kind` says what it is about, `lead` stands below the heading.
pub(crate) fn page(kind: &str, heading: &str, lead: &Markup, sections: &[Section]) -> String {
    let body = html! {
        div.frame {
            nav aria-label="Contents" {
                p.kicker { "Contents" }
                ol { @for section in sections { li { a href={ "#" (section.id) } { (section.title) } } } }
            }
            main {
                header {
                    p.kicker { (kind) }
                    h1 { (heading) }
                    (lead)
                }
                @for section in sections {
                    section id=(section.id) { h2 { (section.title) } (section.body) }
                }
                footer { p { "Written by dsom-report " (version()) "." } }
            }
        }
    };
    document(&format!("{heading} · {kind}"), &[], &body)
}

/// The file around a body, with the style sheet and `styles` that go beyond it.
pub(crate) fn document(title: &str, styles: &[&str], body: &Markup) -> String {
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                meta http-equiv="Content-Security-Policy" content=(ALONE);
                title { (title) }
                // The page asks for nothing, not even an icon.
                link rel="icon" href="data:,";
                style { (PreEscaped(STYLE)) @for style in styles { (PreEscaped(style)) } }
            }
            body { (body) }
        }
    };
    page.into_string()
}

/// A sentence in place of what is not there.
pub(crate) fn absent(sentence: &str) -> Markup {
    html! { p.absent { (sentence) } }
}

/// The class of a cell in column `i`.
fn class(i: usize, texts: usize) -> Option<&'static str> {
    match (i == 0, i >= texts) {
        (true, true) => Some("name n"),
        (true, false) => Some("name"),
        (false, true) => Some("n"),
        (false, false) => None,
    }
}

/// A table of plain text that scrolls where it is wider than the page; columns after the first `texts` hold numbers.
pub(crate) fn table<R, C>(header: &[&str], texts: usize, rows: R) -> Markup
where
    R: IntoIterator,
    R::Item: IntoIterator<Item = C>,
    C: AsRef<str>,
{
    html! {
        div.scroll tabindex="0" {
            table {
                thead { tr { @for (i, name) in header.iter().enumerate() { th class=[(i >= texts).then_some("n")] { (name) } } } }
                tbody {
                    @for row in rows {
                        tr { @for (i, cell) in row.into_iter().enumerate() {
                            td class=[class(i, texts)] { (cell.as_ref()) }
                        } }
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_one_file_that_asks_for_nothing() {
        let sections = [Section::new("a", "First <one>", absent("nothing"))];
        let page = page("Run", "x & y", &html! {}, &sections);
        assert!(page.starts_with("<!DOCTYPE html>") && page.contains("x &amp; y"), "{page}");
        assert!(page.contains("href=\"#a\"") && page.contains("First &lt;one&gt;"));
        for outside in ["http://", "https://", "<script", "<link rel=\"stylesheet", "url(", "@import"] {
            assert!(!page.contains(outside), "{outside}");
        }
    }

    #[test]
    fn cells_are_escaped() {
        let drawn = table(&["name", "n"], 1, [["<i>", "1"]]).into_string();
        assert!(drawn.contains("<td class=\"name\">&lt;i&gt;</td><td class=\"n\">1</td>"), "{drawn}");
    }
}
