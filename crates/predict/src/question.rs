//! Questions and triples as people write them: on the command line, or many in a file.

use mkg::{EntityId, Query, RelationId, Vocabulary};
use serde::Deserialize;
use stage::files::read_text;
use stage::{Error, Result};
use std::fmt::Write;
use std::io::Read;
use std::path::Path;

use crate::names::Names;

/// Number of rows that cannot be understood which a message shows.
const SHOWN: usize = 5;

/// A triple with one place to be filled, or with none: one that is to be scored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Question {
    /// Head; none if it is asked for.
    pub head: Option<EntityId>,
    /// Relation; never an inverse, none if it is asked for.
    pub relation: Option<RelationId>,
    /// Tail; none if it is asked for.
    pub tail: Option<EntityId>,
}

impl Question {
    /// The query whose answer is the tail, or the head if that is asked for; none of a relation. Of a whole triple it is
    /// the tail's.
    pub fn query(self, relations: usize) -> Option<Query> {
        match self {
            Question { head: Some(head), relation: Some(relation), .. } => Some(Query { head, relation }),
            Question { relation: Some(relation), tail: Some(tail), .. } => {
                Some(Query { head: tail, relation: relation.inverse(relations) })
            }
            _ => None,
        }
    }

    /// The place that is asked for.
    pub fn asked(self) -> &'static str {
        match self {
            Question { head: None, .. } => "head",
            Question { relation: None, .. } => "relation",
            _ => "tail",
        }
    }
}

/// Number of places of a row that are asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rows {
    /// Questions: one.
    Questions,
    /// Triples: none.
    Triples,
}

/// Head, relation, tail as written; none where they are asked for.
type Words = [Option<String>; 3];

/// Finds the meaning of words in a graph.
pub struct Reader<'a> {
    entities: Names<'a>,
    relations: Names<'a>,
}

impl<'a> Reader<'a> {
    /// Reader for the graph with this vocabulary.
    pub fn new(vocabulary: &'a Vocabulary) -> Self {
        Reader { entities: Names::entities(vocabulary), relations: Names::relations(vocabulary) }
    }

    /// The question of a command line: `HEAD RELATION`, or three words with one `?`.
    ///
    /// # Errors
    /// If a word is not known, or not one place is asked for.
    pub fn question(&self, words: &[String]) -> Result<Question> {
        let words = split(words.iter().map(String::as_str)).map_err(Error::usage)?;
        require(&words, Rows::Questions).map_err(Error::usage)?;
        self.resolve(&words).map_err(|(_, error)| error)
    }

    /// The relation that is called so.
    ///
    /// # Errors
    /// If none is.
    pub fn relation(&self, word: &str) -> Result<RelationId> {
        self.relations.find(word).map(|id| RelationId(id as u32))
    }

    /// All rows of a file of TSV or, by its extension, JSON lines; `-` is standard input.
    ///
    /// # Errors
    /// If any row cannot be understood: they are counted, and the first ones shown.
    pub fn file(&self, path: &Path, rows: Rows) -> Result<Vec<Question>> {
        let json = path.extension().is_some_and(|end| ["json", "jsonl", "ndjson"].iter().any(|e| end == *e));
        let parse = if json { of_json } else { of_tsv };
        let is_header = |line: &str| !json && ["head\trelation", "head\trelation\ttail"].contains(&line);
        understand(path, is_header, |line, tell| {
            let words = parse(line)?;
            require(&words, rows)?;
            self.read(&words, tell)
        })
    }

    /// The entities of a file with a key or name a line.
    ///
    /// # Errors
    /// As [`Reader::file`].
    pub fn candidates(&self, path: &Path) -> Result<Vec<EntityId>> {
        understand(
            path,
            |_| false,
            |line, tell| {
                let found = self.entities.position(line).map(|i| EntityId(i as u32));
                found.ok_or_else(|| reason(tell, || self.entities.find(line).err()))
            },
        )
    }

    /// The ids behind the words, or why there are none if `tell`.
    fn read(&self, words: &Words, tell: bool) -> std::result::Result<Question, String> {
        let names = [&self.entities, &self.relations, &self.entities];
        let is_known = |(word, names): (&Option<String>, &Names)| {
            word.as_ref().is_none_or(|word| names.position(word).is_some())
        };
        if !tell && !words.iter().zip(names).all(is_known) {
            return Err(String::new());
        }
        self.resolve(words).map_err(|(field, error)| format!("{field}: {}", with_hint(&error)))
    }

    fn resolve(
        &self,
        [head, relation, tail]: &Words,
    ) -> std::result::Result<Question, (&'static str, Error)> {
        let find = |field, names: &Names, word: &Option<String>| {
            let found = word.as_ref().map(|word| names.find(word)).transpose();
            found.map(|id| id.map(|id| id as u32)).map_err(|error| (field, error))
        };
        Ok(Question {
            head: find("head", &self.entities, head)?.map(EntityId),
            relation: find("relation", &self.relations, relation)?.map(RelationId),
            tail: find("tail", &self.entities, tail)?.map(EntityId),
        })
    }
}

fn reason(tell: bool, error: impl FnOnce() -> Option<Error>) -> String {
    tell.then(error).flatten().map_or(String::new(), |error| with_hint(&error))
}

fn with_hint(error: &Error) -> String {
    error.hint_text().map_or(error.to_string(), |hint| format!("{error}; {hint}"))
}

/// Reads every line of a file but empty ones. `read` is asked for a reason as long as reasons are shown.
fn understand<T>(
    path: &Path,
    is_header: impl Fn(&str) -> bool,
    read: impl Fn(&str, bool) -> std::result::Result<T, String>,
) -> Result<Vec<T>> {
    let text = text_of(path)?;
    let (mut understood, mut shown, mut wrong) = (Vec::new(), String::new(), 0);
    let lines = text.lines().enumerate().filter(|(i, line)| !(line.is_empty() || *i == 0 && is_header(line)));
    for (i, line) in lines {
        match read(line, wrong < SHOWN) {
            Ok(row) => understood.push(row),
            Err(reason) => {
                if wrong < SHOWN {
                    let _ = write!(shown, "\n  line {}: {reason}", i + 1);
                }
                wrong += 1;
            }
        }
    }
    finish(path, understood, &shown, wrong)
}

fn finish<T>(path: &Path, understood: Vec<T>, shown: &str, wrong: usize) -> Result<Vec<T>> {
    let rows = understood.len() + wrong;
    let more = if wrong > SHOWN { format!("\n  and {} more", wrong - SHOWN) } else { String::new() };
    match (rows, wrong) {
        (0, _) => Err(Error::data("no row").at(path)),
        (_, 0) => Ok(understood),
        _ => Err(Error::data(format!("{wrong} of {rows} rows cannot be understood:{shown}{more}")).at(path)),
    }
}

fn text_of(path: &Path) -> Result<String> {
    if path != Path::new("-") {
        return read_text(path);
    }
    let mut text = String::new();
    let read = std::io::stdin().lock().read_to_string(&mut text);
    read.map_err(|e| Error::data("not readable as text").at("standard input").because(e))?;
    Ok(text)
}

fn of_tsv(line: &str) -> std::result::Result<Words, String> {
    split(line.split('\t'))
}

/// The words of two or three cells; the tail is asked for where there is no third one.
fn split<'w>(cells: impl IntoIterator<Item = &'w str>) -> std::result::Result<Words, String> {
    let mut cells: Vec<Option<String>> = cells.into_iter().map(word).collect();
    let found = cells.len();
    if found == 2 {
        cells.push(None);
    }
    Words::try_from(cells)
        .map_err(|_| format!("{found} cells, but head, relation and perhaps tail were expected"))
}

/// Content of a cell, if it is not the one that is asked for.
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

fn of_json(line: &str) -> std::result::Result<Words, String> {
    let fields: Fields = serde_json::from_str(line).map_err(|e| e.to_string())?;
    Ok([fields.head, fields.relation, fields.tail].map(|field| field.as_deref().and_then(word)))
}

fn require(words: &Words, rows: Rows) -> std::result::Result<(), String> {
    match (words.iter().filter(|word| word.is_none()).count(), rows) {
        (1, Rows::Questions) | (0, Rows::Triples) => Ok(()),
        (0, Rows::Questions) => Err("nothing is asked for: leave one place empty or write `?`".to_owned()),
        (_, Rows::Questions) => Err("two places must be known, and one asked for".to_owned()),
        (_, Rows::Triples) => Err("head, relation and tail must all be given".to_owned()),
    }
}
