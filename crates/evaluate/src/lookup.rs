//! Finding an entity or relation by what a person typed.

use stage::{Error, Result};

/// How many candidates or suggestions a message names.
const LISTED: usize = 8;

/// What something is called.
#[derive(Clone, Copy, Debug)]
pub struct Label<'a> {
    /// The dataset's own identifier.
    pub key: &'a str,
    /// The name, if there is one.
    pub name: Option<&'a str>,
}

impl Label<'_> {
    fn show(&self) -> String {
        match self.name {
            Some(name) => format!("{name} ({})", self.key),
            None => self.key.to_owned(),
        }
    }
}

/// The position of what `text` means: the key as written, else the name as written, else either in any case.
///
/// ```
/// use dsom_evaluate::lookup::{Label, find};
/// let labels = [Label { key: "Q142", name: Some("France") }, Label { key: "Q29", name: Some("Spain") }];
/// assert_eq!(find("entity", &labels, "spain").unwrap(), 1);
/// assert_eq!(find("entity", &labels, "q142").unwrap(), 0);
/// let error = find("entity", &labels, "Frnace").unwrap_err();
/// assert_eq!(error.hint_text(), Some("did you mean: France (Q142)"));
/// ```
pub fn find(what: &str, labels: &[Label], text: &str) -> Result<usize> {
    let lower = text.to_lowercase();
    let rules: [&dyn Fn(&Label) -> bool; 3] =
        [&|label| label.key == text, &|label| label.name == Some(text), &|label| {
            label.key.to_lowercase() == lower || label.name.is_some_and(|name| name.to_lowercase() == lower)
        }];
    for rule in rules {
        let found: Vec<usize> = (0..labels.len()).filter(|i| rule(&labels[*i])).collect();
        match found.as_slice() {
            [] => {}
            [only] => return Ok(*only),
            several => return Err(ambiguous(what, labels, text, several)),
        }
    }
    Err(unknown(what, labels, &lower, text))
}

fn ambiguous(what: &str, labels: &[Label], text: &str, found: &[usize]) -> Error {
    let mut shown: Vec<String> = found.iter().take(LISTED).map(|i| labels[*i].show()).collect();
    if found.len() > LISTED {
        shown.push(format!("and {} more", found.len() - LISTED));
    }
    let message = format!("`{text}` is the name of several: {}", shown.join(", "));
    Error::usage(message).hint(format!("give the {what}'s key, which stands in brackets"))
}

fn unknown(what: &str, labels: &[Label], lower: &str, text: &str) -> Error {
    let mut closest: Vec<(f64, usize)> = labels
        .iter()
        .enumerate()
        .map(|(i, label)| (likeness(label, lower), i))
        .filter(|(likeness, _)| *likeness > 0.75)
        .collect();
    closest.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
    let shown: Vec<String> = closest.iter().take(LISTED).map(|(_, i)| labels[*i].show()).collect();
    let error = Error::usage(format!("no {what} is called `{text}`"));
    if shown.is_empty() {
        return error.hint(format!("the {what} table in graph/ lists all keys and names"));
    }
    error.hint(format!("did you mean: {}", shown.join(", ")))
}

/// How much a label looks like `lower`, at most 2: containing it counts more than any likeness of letters.
fn likeness(label: &Label, lower: &str) -> f64 {
    let of = |text: &str| {
        let text = text.to_lowercase();
        let contains = lower.len() > 1 && text.contains(lower);
        strsim::jaro_winkler(&text, lower) + f64::from(u8::from(contains))
    };
    of(label.key).max(label.name.map_or(0.0, of))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LABELS: [Label; 4] = [
        Label { key: "Q90", name: Some("Paris") },
        Label { key: "Q830149", name: Some("Paris") },
        Label { key: "Q7", name: Some("paris") },
        Label { key: "Paris", name: None },
    ];

    #[test]
    fn the_stricter_rule_wins() {
        assert_eq!(find("entity", &LABELS, "Paris").unwrap(), 3);
        assert_eq!(find("entity", &LABELS, "paris").unwrap(), 2);
        assert_eq!(find("entity", &LABELS, "q90").unwrap(), 0);
    }

    #[test]
    fn several_of_one_name_are_listed_with_their_keys() {
        let error = find("entity", &LABELS[..2], "PARIS").unwrap_err();
        assert_eq!(error.to_string(), "`PARIS` is the name of several: Paris (Q90), Paris (Q830149)");
        assert_eq!(error.kind(), stage::Kind::Usage);
    }

    #[test]
    fn the_unknown_gets_suggestions_if_anything_is_close() {
        let hint = |text: &str| find("entity", &LABELS, text).unwrap_err().hint_text().unwrap().to_owned();
        assert!(hint("ari").starts_with("did you mean: Paris (Q90)"), "{}", hint("ari"));
        assert!(hint("zzz").starts_with("the entity table"), "{}", hint("zzz"));
    }
}
