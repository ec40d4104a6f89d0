//! Questions and triples as people write them, on the command line or in a file. The reader finds each named entity or
//! relation, or suggests the nearest names.

use mkg::{EntityId, Query, RelationId, Triple, Vocabulary};
use serde::Deserialize;
use stage::files::{read_text, text};
use stage::{Error, Result};
use std::collections::HashMap;
use std::io::Read;
use std::path::Path;

use crate::output::{Label, ending};

/// The number of unclear rows that a message shows.
const SHOWN: usize = 5;
/// The number of candidates or suggestions that a message names.
const LISTED: usize = 8;

/// A triple in which the place that is asked for is none. Without such a place, it is a triple to score.
#[derive(Clone, Copy)]
pub(crate) struct Question {
    pub(crate) head: Option<EntityId>,
    /// The relation itself, never its inverse.
    pub(crate) relation: Option<RelationId>,
    pub(crate) tail: Option<EntityId>,
}

impl Question {
    /// The query whose answer is the tail, or the head if the question asks for the head; none if it asks for a
    /// relation. For a whole triple, the query of its tail.
    pub(crate) fn query(self, relations: usize) -> Option<Query> {
        match self {
            Question { head: Some(head), relation: Some(relation), .. } => Some(Query { head, relation }),
            Question { relation: Some(relation), tail: Some(tail), .. } => {
                Some(Query { head: tail, relation: relation.inverse(relations) })
            }
            _ => None,
        }
    }

    pub(crate) fn asked(self) -> &'static str {
        match self {
            Question { head: None, .. } => "head",
            Question { relation: None, .. } => "relation",
            _ => "tail",
        }
    }

    /// Returns whether no place is asked for.
    pub(crate) fn is_whole(self) -> bool {
        self.head.is_some() && self.relation.is_some() && self.tail.is_some()
    }

    /// For a triple that answers the question: the entity asked about, and the answer.
    pub(crate) fn sides(self, Triple { head, tail, .. }: Triple) -> [EntityId; 2] {
        if self.head.is_some() { [head, tail] } else { [tail, head] }
    }
}

/// The kinds of rows in a file: a question asks for one place, a triple for none.
#[derive(Clone, Copy)]
pub(crate) enum Rows {
    Questions,
    Triples,
}

/// Head, relation and tail as written; none for a place that is asked for.
type Words = [Option<String>; 3];

/// The reason why a row is unclear: its form, or one of its words.
enum Problem<'a> {
    Form(String),
    Word(Unclear<'a>),
}

/// A reader that finds the entities and relations that words name.
pub(crate) struct Reader<'a> {
    entities: Names<'a>,
    relations: Names<'a>,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(vocabulary: &'a Vocabulary) -> Self {
        let entities = vocabulary.entities.iter().map(|e| (e.key.as_str(), e.name.as_deref()));
        let relations = vocabulary.relations.iter().map(|r| (r.key.as_str(), r.name.as_deref()));
        Reader { entities: Names::new("entity", entities), relations: Names::new("relation", relations) }
    }

    /// The question of a command line: `HEAD RELATION`, or three words with one `?`.
    pub(crate) fn question<'w>(&self, words: impl IntoIterator<Item = &'w str>) -> Result<Question> {
        let words = split(words).and_then(|words| require(words, Rows::Questions));
        Ok(self.resolve(&words.map_err(Error::usage)?)?)
    }

    pub(crate) fn relation(&self, word: &str) -> Result<RelationId> {
        Ok(RelationId(self.relations.find(word)?))
    }

    /// Reads all rows of a file, as JSON lines if its extension says so, else as TSV; `-` is standard input.
    pub(crate) fn file(&self, path: &Path, rows: Rows) -> Result<Vec<Question>> {
        let json = ["json", "jsonl", "ndjson"].contains(&ending(path).as_str());
        let headers = if json { &[][..] } else { &["head\trelation", "head\trelation\ttail"] };
        understand(path, headers, |line| {
            let words = if json { of_json(line) } else { split(line.split('\t')) };
            let words = words.and_then(|words| require(words, rows)).map_err(Problem::Form)?;
            self.resolve(&words).map_err(Problem::Word)
        })
    }

    /// Reads the entities of a file with one key or name per line; ascending, without repetition.
    pub(crate) fn candidates(&self, path: &Path) -> Result<Vec<EntityId>> {
        let mut ids =
            understand(path, &[], |line| self.entities.find(line).map(EntityId).map_err(Problem::Word))?;
        ids.sort_unstable();
        ids.dedup();
        Ok(ids)
    }

    fn resolve(&self, [head, relation, tail]: &Words) -> Result<Question, Unclear<'_>> {
        Ok(Question {
            head: find("head: ", &self.entities, head)?.map(EntityId),
            relation: find("relation: ", &self.relations, relation)?.map(RelationId),
            tail: find("tail: ", &self.entities, tail)?.map(EntityId),
        })
    }
}

fn find<'a>(at: &'static str, names: &'a Names, word: &Option<String>) -> Result<Option<u32>, Unclear<'a>> {
    word.as_ref().map(|word| names.find(word)).transpose().map_err(|unclear| Unclear { place: at, ..unclear })
}

impl Problem<'_> {
    fn tell(self) -> String {
        match self {
            Problem::Form(reason) => reason,
            Problem::Word(unclear) => {
                let (place, error) = (unclear.place, Error::from(unclear));
                format!("{place}{error}; {}", error.hint_text().unwrap_or_default())
            }
        }
    }
}

/// Reads every line of a file except empty lines and a header.
fn understand<'a, T>(
    path: &Path,
    headers: &[&str],
    read: impl Fn(&str) -> Result<T, Problem<'a>>,
) -> Result<Vec<T>> {
    let text = text_of(path)?;
    let (mut understood, mut shown, mut wrong) = (Vec::new(), String::new(), 0);
    let lines = text.lines().enumerate();
    for (i, line) in lines.filter(|(i, line)| !(line.is_empty() || *i == 0 && headers.contains(line))) {
        match read(line) {
            Ok(row) => understood.push(row),
            Err(problem) => {
                wrong += 1;
                if wrong <= SHOWN {
                    shown += &format!("\n  line {}: {}", i + 1, problem.tell());
                }
            }
        }
    }
    if wrong > SHOWN {
        shown += &format!("\n  and {} more", wrong - SHOWN);
    }
    match (understood.len() + wrong, wrong) {
        (0, _) => Err(Error::data("no row").at(path)),
        (_, 0) => Ok(understood),
        (rows, _) => {
            Err(Error::data(format!("{wrong} of {rows} rows cannot be understood:{shown}")).at(path))
        }
    }
}

fn text_of(path: &Path) -> Result<String> {
    if path != Path::new("-") {
        return read_text(path);
    }
    let (mut bytes, standard) = (Vec::new(), "standard input");
    std::io::stdin().read_to_end(&mut bytes).map_err(|e| Error::io(standard, e))?;
    text(bytes).map_err(|e| e.at(standard))
}

/// The words of two or three cells; without a third cell, the tail is asked for.
fn split<'w>(cells: impl IntoIterator<Item = &'w str>) -> Result<Words, String> {
    let mut cells: Vec<Option<String>> = cells.into_iter().map(word).collect();
    let found = cells.len();
    if found == 2 {
        cells.push(None);
    }
    let message = |_| format!("{found} cells, but head, relation and perhaps tail were expected");
    Words::try_from(cells).map_err(message)
}

/// The text of a cell; none if the cell is asked for.
fn word(cell: &str) -> Option<String> {
    (!["", "?"].contains(&cell)).then(|| cell.to_owned())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Fields {
    head: Option<String>,
    relation: Option<String>,
    tail: Option<String>,
}

fn of_json(line: &str) -> Result<Words, String> {
    let fields: Fields = serde_json::from_str(line).map_err(|e| format!("{e}; a line has one object"))?;
    Ok([fields.head, fields.relation, fields.tail].map(|field| field.as_deref().and_then(word)))
}

fn require(words: Words, rows: Rows) -> Result<Words, String> {
    let reason = match (words.iter().filter(|word| word.is_none()).count(), rows) {
        (1, Rows::Questions) | (0, Rows::Triples) => return Ok(words),
        (0, Rows::Questions) => {
            "nothing is asked for: write `?` for the place that is asked for; `--score` takes whole triples"
        }
        (_, Rows::Questions) => "two places must be known, and one asked for",
        (_, Rows::Triples) => "head, relation and tail must all be given",
    };
    Err(reason.to_owned())
}

struct Names<'a> {
    what: &'static str,
    labels: Vec<Label<'a>>,
    /// The ids of a text by each rule: the exact key, the exact name, key or name in any case.
    rules: [HashMap<String, Vec<u32>>; 3],
}

/// A text that names nothing, or several things.
struct Unclear<'a> {
    names: &'a Names<'a>,
    text: String,
    found: &'a [u32],
    /// The place of the text in a row, such as `head: `, which comes before the reason in a list of rows.
    place: &'static str,
}

impl<'a> Names<'a> {
    /// The names of the things with these labels, by id; messages call one of the things `what`.
    fn new(what: &'static str, labels: impl Iterator<Item = Label<'a>>) -> Self {
        let labels: Vec<Label> = labels.collect();
        let mut rules = <[HashMap<String, Vec<u32>>; 3]>::default();
        for (id, (key, name)) in (0..).zip(&labels) {
            let keys = [(0, (*key).to_owned()), (2, key.to_lowercase())];
            let names = name.iter().flat_map(|name| [(1, (*name).to_owned()), (2, name.to_lowercase())]);
            for (rule, text) in keys.into_iter().chain(names) {
                let found = rules[rule].entry(text).or_default();
                if found.last() != Some(&id) {
                    found.push(id);
                }
            }
        }
        Names { what, labels, rules }
    }

    /// The id of the thing that `text` names, by the strictest rule that finds one.
    fn find(&self, text: &str) -> Result<u32, Unclear<'_>> {
        let [keys, names, either] = &self.rules;
        let found = keys.get(text).or_else(|| names.get(text)).or_else(|| either.get(&text.to_lowercase()));
        match found.map_or(&[][..], Vec::as_slice) {
            [only] => Ok(*only),
            found => Err(Unclear { names: self, text: text.to_owned(), found, place: "" }),
        }
    }

    /// Labels for people: names, with the keys in brackets.
    fn shown(&self, ids: impl Iterator<Item = usize>) -> Vec<String> {
        let labels = ids.map(|id| match self.labels[id] {
            (key, Some(name)) => format!("{name} ({key})"),
            (key, None) => key.to_owned(),
        });
        labels.take(LISTED).collect()
    }
}

/// Lists the several things with their keys, or similar names, for which it compares every name.
impl From<Unclear<'_>> for Error {
    fn from(Unclear { names, text, found, .. }: Unclear<'_>) -> Error {
        let what = names.what;
        if !found.is_empty() {
            let mut shown = names.shown(found.iter().map(|id| *id as usize));
            if found.len() > LISTED {
                shown.push(format!("and {} more", found.len() - LISTED));
            }
            let error = Error::usage(format!("`{text}` is the name of several: {}", shown.join(", ")));
            return error.hint(format!("give the {what}'s key, which stands in brackets"));
        }
        let lower = text.to_lowercase();
        let all = names.labels.iter().map(|label| likeness(label, &lower)).enumerate();
        let mut closest: Vec<(usize, f64)> = all.filter(|(_, likeness)| *likeness > 0.75).collect();
        closest.sort_by(|a, b| b.1.total_cmp(&a.1));
        let shown = names.shown(closest.into_iter().map(|(id, _)| id));
        Error::usage(format!("no {what} is called `{text}`")).hint(match shown.is_empty() {
            true => format!("they are like {}", names.shown(0..names.labels.len()).join(", ")),
            false => format!("did you mean: {}", shown.join(", ")),
        })
    }
}

/// The similarity of a label to `lower`, at most 2: a label that contains `lower` beats any similarity of letters.
fn likeness((key, name): &Label, lower: &str) -> f64 {
    let texts = [Some(*key), *name].into_iter().flatten().map(str::to_lowercase);
    let likeness = texts.map(|text| {
        let contains = lower.len() > 1 && text.contains(lower);
        strsim::jaro_winkler(&text, lower) + f64::from(contains)
    });
    likeness.fold(0.0, f64::max)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LABELS: [Label; 5] = [
        ("Q90", Some("Paris")),
        ("Q830149", Some("Paris")),
        ("Q7", Some("paris")),
        ("Paris", None),
        ("Q142", Some("France")),
    ];

    #[test]
    fn the_stricter_rule_wins() {
        let names = Names::new("entity", LABELS.into_iter());
        let found = ["Paris", "paris", "q90", "france", "PARIS", ""].map(|text| names.find(text).ok());
        assert_eq!(found, [Some(3), Some(2), Some(0), Some(4), None, None]);
    }

    #[test]
    fn several_names_are_listed_with_their_keys_and_the_unknown_gets_suggestions() {
        for (labels, text, message, hint) in [
            (
                &LABELS[..2],
                "PARIS",
                "`PARIS` is the name of several: Paris (Q90), Paris (Q830149)",
                "give the entity's key",
            ),
            (
                &LABELS,
                "ari",
                "no entity is called `ari`",
                "did you mean: Paris (Q90), Paris (Q830149), paris",
            ),
            (&LABELS, "Frnace", "no entity is called `Frnace`", "did you mean: France (Q142)"),
            (&LABELS, "zzz", "no entity is called `zzz`", "they are like Paris (Q90)"),
        ] {
            let names = Names::new("entity", labels.iter().copied());
            let error = names.find(text).map_err(Error::from).unwrap_err();
            assert_eq!((error.to_string().as_str(), error.kind()), (message, stage::Kind::Usage));
            let found = error.hint_text().unwrap();
            assert!(found.starts_with(hint), "{text}: {found}");
        }
    }
}
