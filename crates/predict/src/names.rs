//! Finding an entity or relation by what a person typed.

use mkg::Vocabulary;
use stage::{Error, Result};
use std::collections::HashMap;

/// Number of candidates or suggestions that a message names.
const LISTED: usize = 8;

/// Key and name of an entity or a relation.
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

/// All entities, or all relations, by what they are called.
pub struct Names<'a> {
    what: &'static str,
    labels: Vec<Label<'a>>,
    /// The positions of a text by each rule, the strictest first.
    rules: [HashMap<String, Vec<usize>>; 3],
}

impl<'a> Names<'a> {
    /// Those with these labels; `what` is what one of them is.
    ///
    /// ```
    /// use dsom_predict::names::{Label, Names};
    /// let labels = [Label { key: "Q142", name: Some("France") }, Label { key: "Q29", name: Some("Spain") }];
    /// let names = Names::new("entity", labels.to_vec());
    /// assert_eq!(names.find("spain").unwrap(), 1);
    /// assert_eq!(names.find("q142").unwrap(), 0);
    /// assert_eq!(names.find("Frnace").unwrap_err().hint_text(), Some("did you mean: France (Q142)"));
    /// ```
    pub fn new(what: &'static str, labels: Vec<Label<'a>>) -> Self {
        let mut rules = [HashMap::new(), HashMap::new(), HashMap::new()];
        for (i, Label { key, name }) in labels.iter().enumerate() {
            let either = [Some(key.to_lowercase()), name.map(str::to_lowercase)];
            let texts = [vec![Some((*key).to_owned())], vec![name.map(str::to_owned)], either.to_vec()];
            for (rule, texts) in rules.iter_mut().zip(texts) {
                for text in texts.into_iter().flatten() {
                    let found: &mut Vec<usize> = rule.entry(text).or_default();
                    if found.last() != Some(&i) {
                        found.push(i);
                    }
                }
            }
        }
        Names { what, labels, rules }
    }

    /// The entities of a graph.
    pub fn entities(vocabulary: &'a Vocabulary) -> Self {
        let label = |e: &'a mkg::Entity| Label { key: &e.key, name: e.name.as_deref() };
        Names::new("entity", vocabulary.entities.iter().map(label).collect())
    }

    /// The relations of a graph, without inverses.
    pub fn relations(vocabulary: &'a Vocabulary) -> Self {
        let label = |r: &'a mkg::Relation| Label { key: &r.key, name: r.name.as_deref() };
        Names::new("relation", vocabulary.relations.iter().map(label).collect())
    }

    /// The position of what `text` means: the key as written, else the name as written, else either in any case.
    ///
    /// # Errors
    /// If nothing is called so, with those whose names are near; if several are, with their keys.
    pub fn find(&self, text: &str) -> Result<usize> {
        match self.all(text) {
            [only] => Ok(*only),
            [] => Err(self.unknown(text)),
            several => Err(self.ambiguous(text, several)),
        }
    }

    /// The same without a reason, which takes a look at every name.
    pub fn position(&self, text: &str) -> Option<usize> {
        <[usize; 1]>::try_from(self.all(text)).ok().map(|[only]| only)
    }

    fn all(&self, text: &str) -> &[usize] {
        let lower = text.to_lowercase();
        let [keys, names, either] = &self.rules;
        keys.get(text).or_else(|| names.get(text)).or_else(|| either.get(&lower)).map_or(&[], Vec::as_slice)
    }

    fn ambiguous(&self, text: &str, found: &[usize]) -> Error {
        let mut shown: Vec<String> = found.iter().take(LISTED).map(|i| self.labels[*i].show()).collect();
        if found.len() > LISTED {
            shown.push(format!("and {} more", found.len() - LISTED));
        }
        let message = format!("`{text}` is the name of several: {}", shown.join(", "));
        Error::usage(message).hint(format!("give the {}'s key, which stands in brackets", self.what))
    }

    fn unknown(&self, text: &str) -> Error {
        let (what, lower) = (self.what, text.to_lowercase());
        let mut closest: Vec<(f64, usize)> = (0..self.labels.len())
            .map(|i| (likeness(&self.labels[i], &lower), i))
            .filter(|(likeness, _)| *likeness > 0.75)
            .collect();
        closest.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
        let shown: Vec<String> = closest.iter().take(LISTED).map(|(_, i)| self.labels[*i].show()).collect();
        let error = Error::usage(format!("no {what} is called `{text}`"));
        if shown.is_empty() {
            error.hint(format!("the {what} table in graph/ lists all keys and names"))
        } else {
            error.hint(format!("did you mean: {}", shown.join(", ")))
        }
    }
}

/// Likeness of a label to `lower`, at most 2: containing it counts more than any likeness of letters.
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
        let names = Names::new("entity", LABELS.to_vec());
        assert_eq!(["Paris", "paris", "q90"].map(|text| names.find(text).unwrap()), [3, 2, 0]);
        assert_eq!(
            (names.position("q7"), names.position("PARIS"), names.position("")),
            (Some(2), None, None)
        );
    }

    #[test]
    fn several_of_one_name_are_listed_with_their_keys() {
        let error = Names::new("entity", LABELS[..2].to_vec()).find("PARIS").unwrap_err();
        assert_eq!(error.to_string(), "`PARIS` is the name of several: Paris (Q90), Paris (Q830149)");
        assert_eq!(error.kind(), stage::Kind::Usage);
    }

    #[test]
    fn the_unknown_gets_suggestions_if_anything_is_close() {
        let names = Names::new("entity", LABELS.to_vec());
        let hint = |text: &str| names.find(text).unwrap_err().hint_text().unwrap().to_owned();
        assert!(hint("ari").starts_with("did you mean: Paris (Q90)"), "{}", hint("ari"));
        assert!(hint("zzz").starts_with("the entity table"), "{}", hint("zzz"));
    }
}
