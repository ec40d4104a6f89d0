//! The book: its summary names every page, and all links have a target.

use dsom_tests::root;
use std::path::{Path, PathBuf};

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The targets of the links of a page.
fn links(text: &str) -> impl Iterator<Item = &str> {
    text.split("](").skip(1).filter_map(|rest| rest.split(')').next()).filter(|link| !link.contains("://"))
}

/// The name of a heading in a link: in lower case, with hyphens between words and without other marks.
fn anchor(heading: &str) -> String {
    let kept = |c: char| c.is_alphanumeric() || "-_ ".contains(c);
    heading.to_lowercase().chars().filter(|c| kept(*c)).collect::<String>().replace(' ', "-")
}

fn has_heading(page: &str, name: &str) -> bool {
    page.lines()
        .filter_map(|line| line.trim_start_matches('#').strip_prefix(' '))
        .any(|heading| anchor(heading) == name)
}

#[test]
fn every_page_is_in_the_summary_and_every_link_leads_somewhere() {
    let docs = root().join("docs");
    let files =
        std::fs::read_dir(&docs).expect("the book is there").map(|entry| entry.expect("an entry").path());
    let pages: Vec<PathBuf> =
        files.filter(|path| path.extension().is_some_and(|ending| ending == "md")).collect();
    let summary = read(&docs.join("SUMMARY.md"));
    for page in pages.iter().cloned().chain(["README.md", "CONTRIBUTING.md"].map(|name| root().join(name))) {
        let (text, folder) = (read(&page), page.parent().expect("pages lie in folders"));
        let is_of_the_book = folder == docs;
        let name = page.file_name().and_then(|name| name.to_str()).expect("a name in UTF-8");
        assert!(
            !is_of_the_book || name == "SUMMARY.md" || links(&summary).any(|link| link == name),
            "{name} is not in the summary"
        );
        for link in links(&text) {
            let (file, heading) = link.split_once('#').unwrap_or((link, ""));
            let target = if file.is_empty() { page.clone() } else { folder.join(file) };
            assert!(target.exists(), "{name}: nothing is at {link}");
            assert!(!is_of_the_book || !file.contains('/'), "{name}: {link} leads out of the book");
            assert!(
                heading.is_empty() || has_heading(&read(&target), heading),
                "{name}: no heading for {link}"
            );
        }
    }
}
