//! Answers as a table for people, TSV, JSON lines or Parquet.
//!
//! | column | type | |
//! |---|---|---|
//! | `question` | u64 | its number, from 1 |
//! | `asked` | text | the place that was asked for: `head`, `relation` or `tail` (also of a given triple, whose tail is ranked) |
//! | `head_key`, `head_name` | text | of the entity; a name may be missing |
//! | `relation_key`, `relation_name` | text | of the relation; never an inverse |
//! | `tail_key`, `tail_name` | text | of the entity |
//! | `rank` | f64 | position in the list; of a given triple the filtered rank of its tail, ties realistic |
//! | `score` | f32 | the model's score |
//! | `probability` | f64 | softmax of the scores of all that could stand in this place, listed or not |
//! | `known` | bool | whether train or valid has the triple |
//!
//! In TSV control characters of names are escaped, tabs and line ends among them (`\t`, `\n`).

use arrow::array::{ArrayRef, BooleanArray, Float32Array, Float64Array, StringArray, UInt64Array};
use dsom_evaluate::report::table;
use mkg::{Triple, Vocabulary};
use program::printable;
use serde::Serialize;
use stage::{Error, Result};
use std::fmt::Write;
use std::path::Path;
use std::sync::Arc;

use crate::answer::{Answer, Reply};
use crate::question::Question;
use crate::why::{Explanation, Fact};

/// Format of the answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// Columns of text for people.
    Table,
    /// A header, and a line per answer.
    Tsv,
    /// A JSON object per answer.
    Json,
    /// A table with types.
    Parquet,
}

/// One answer with all that names it.
#[derive(Clone, Debug, Serialize)]
pub struct Row<'a> {
    question: u64,
    asked: &'static str,
    head_key: &'a str,
    head_name: Option<&'a str>,
    relation_key: &'a str,
    relation_name: Option<&'a str>,
    tail_key: &'a str,
    tail_name: Option<&'a str>,
    rank: f64,
    score: f32,
    probability: f64,
    known: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    why: Option<Why<'a>>,
}

/// Evidence for an answer, as JSON.
#[derive(Clone, Debug, Serialize)]
struct Why<'a> {
    ranks: &'a [(String, f64, u32)],
    policy: Option<&'a [(String, f32)]>,
    facts: Vec<[&'a str; 3]>,
}

impl<'a> Row<'a> {
    fn new(vocabulary: &'a Vocabulary, number: usize, reply: &Reply, answer: &Answer) -> Self {
        let Triple { head, relation, tail } = answer.triple;
        let (head, tail) = (&vocabulary.entities[head.index()], &vocabulary.entities[tail.index()]);
        let relation = &vocabulary.relations[relation.index()];
        Row {
            question: number as u64 + 1,
            asked: reply.question.asked(),
            head_key: &head.key,
            head_name: head.name.as_deref(),
            relation_key: &relation.key,
            relation_name: relation.name.as_deref(),
            tail_key: &tail.key,
            tail_name: tail.name.as_deref(),
            rank: answer.rank,
            score: answer.score,
            probability: answer.probability,
            known: answer.known,
            why: None,
        }
    }

    /// Key and name of what was asked for.
    fn answer(&self) -> [&'a str; 2] {
        let (key, name) = match self.asked {
            "head" => (self.head_key, self.head_name),
            "relation" => (self.relation_key, self.relation_name),
            _ => (self.tail_key, self.tail_name),
        };
        [key, name.unwrap_or_default()]
    }

    fn tsv(&self) -> String {
        let Row { question, asked, rank, score, probability, known, .. } = self;
        let (head, relation) = (self.head_name.unwrap_or_default(), self.relation_name.unwrap_or_default());
        let texts = [
            self.head_key,
            head,
            self.relation_key,
            relation,
            self.tail_key,
            self.tail_name.unwrap_or_default(),
        ];
        let texts = texts.map(cell).join("\t");
        format!("{question}\t{asked}\t{texts}\t{rank}\t{score}\t{probability}\t{known}\n")
    }
}

/// The header of TSV.
const COLUMNS: &str = "question\tasked\thead_key\thead_name\trelation_key\trelation_name\ttail_key\ttail_name\trank\tscore\tprobability\tknown\n";

/// A text that stays in its cell.
pub fn cell(text: &str) -> String {
    printable(text).replace('\t', "\\t").replace('\n', "\\n")
}

/// All answers, question by question; `explanation` is that of a single question.
pub fn rows<'a>(
    vocabulary: &'a Vocabulary,
    replies: &[Reply],
    explanation: Option<&'a Explanation>,
) -> Vec<Row<'a>> {
    let each =
        replies.iter().enumerate().flat_map(|(i, reply)| reply.answers.iter().map(move |a| (i, reply, a)));
    let mut rows: Vec<Row> = each.map(|(i, reply, answer)| Row::new(vocabulary, i, reply, answer)).collect();
    let keys = |fact: &Fact| {
        let Triple { head, relation, tail } = fact.triple;
        let entity = |id: mkg::EntityId| vocabulary.entities[id.index()].key.as_str();
        [entity(head), vocabulary.relations[relation.index()].key.as_str(), entity(tail)]
    };
    if let Some(Explanation { policy, answers }) = explanation {
        for (row, why) in rows.iter_mut().zip(answers) {
            let facts = why.facts.iter().map(keys).collect();
            row.why = Some(Why { ranks: &why.ranks, policy: policy.as_deref(), facts });
        }
    }
    rows
}

/// The rows as lines of text.
///
/// # Errors
/// None but those of JSON, which has no number that is not finite.
pub fn lines(rows: &[Row], format: Format) -> Result<String> {
    let mut text = if format == Format::Tsv { COLUMNS.to_owned() } else { String::new() };
    for row in rows {
        match format {
            Format::Tsv => text.push_str(&row.tsv()),
            _ => {
                let _ =
                    writeln!(text, "{}", serde_json::to_string(row).map_err(|e| Error::data(e.to_string()))?);
            }
        }
    }
    Ok(text)
}

/// Writes the rows as Parquet, atomically.
pub fn write_parquet(path: &Path, rows: &[Row]) -> Result<()> {
    let texts = |get: fn(&Row) -> Option<String>| -> ArrayRef {
        Arc::new(rows.iter().map(get).collect::<StringArray>())
    };
    let key = |get: fn(&Row) -> Option<String>| (texts(get), false);
    let name = |get: fn(&Row) -> Option<String>| (texts(get), true);
    let numbers: ArrayRef = Arc::new(UInt64Array::from_iter_values(rows.iter().map(|row| row.question)));
    let scores: ArrayRef = Arc::new(Float32Array::from_iter_values(rows.iter().map(|row| row.score)));
    let doubles =
        |get: fn(&Row) -> f64| -> ArrayRef { Arc::new(Float64Array::from_iter_values(rows.iter().map(get))) };
    let known: ArrayRef = Arc::new(rows.iter().map(|row| Some(row.known)).collect::<BooleanArray>());
    let columns = [
        (numbers, false),
        key(|row| Some(row.asked.to_owned())),
        key(|row| Some(row.head_key.to_owned())),
        name(|row| row.head_name.map(str::to_owned)),
        key(|row| Some(row.relation_key.to_owned())),
        name(|row| row.relation_name.map(str::to_owned)),
        key(|row| Some(row.tail_key.to_owned())),
        name(|row| row.tail_name.map(str::to_owned)),
        (doubles(|row| row.rank), false),
        (scores, false),
        (doubles(|row| row.probability), false),
        (known, false),
    ];
    let names = COLUMNS.trim_end().split('\t');
    let columns = names.zip(columns).map(|(name, (values, nullable))| (name, values, nullable));
    mkg::graph::write_table(path, columns.collect())
}

/// The answers for people: a table a question, or one of all given triples.
pub fn render(vocabulary: &Vocabulary, replies: &[Reply], explanation: Option<&Explanation>) -> String {
    let rows = rows(vocabulary, replies, None);
    let is_whole =
        |reply: &Reply| reply.question.head.and(reply.question.relation).and(reply.question.tail).is_some();
    if replies.iter().all(is_whole) {
        return render_triples(&rows);
    }
    let mut rest = rows.as_slice();
    let tables = replies.iter().map(|reply| {
        let (of_reply, others) = rest.split_at(reply.answers.len());
        rest = others;
        format!("{}\n{}", title(vocabulary, reply.question), render_list(of_reply))
    });
    let mut text = tables.collect::<Vec<_>>().join("\n\n");
    if let Some(explanation) = explanation {
        text.push_str(&explanation.render(vocabulary, replies));
    }
    text
}

fn title(vocabulary: &Vocabulary, Question { head, relation, tail }: Question) -> String {
    let entity = |id: mkg::EntityId| vocabulary.entities[id.index()].label();
    let relation = relation.map(|id| vocabulary.relations[id.index()].label());
    [head.map(entity), relation, tail.map(entity)].map(|label| cell(label.unwrap_or("?"))).join(" · ")
}

fn render_list(rows: &[Row]) -> String {
    let mut table = table(&["rank", "name", "key", "", "score", "probability"], 4);
    for row in rows {
        let [key, name] = row.answer().map(cell);
        table.add_row([vec![row.rank.to_string(), name, key], figures(row)].concat());
    }
    table.to_string()
}

fn render_triples(rows: &[Row]) -> String {
    let mut table = table(&["head", "relation", "tail", "rank", "", "score", "probability"], 3);
    for row in rows {
        let labels = [
            (row.head_name, row.head_key),
            (row.relation_name, row.relation_key),
            (row.tail_name, row.tail_key),
        ];
        let mut cells = labels.map(|(name, key)| cell(name.unwrap_or(key))).to_vec();
        cells.push(row.rank.to_string());
        table.add_row([cells, figures(row)].concat());
    }
    table.to_string()
}

fn figures(row: &Row) -> Vec<String> {
    let known = if row.known { "known" } else { "" };
    vec![known.to_owned(), format!("{:.4}", row.score), format!("{:.2} %", 100.0 * row.probability)]
}

/// Sentences that say what the lists leave out.
pub fn notes(vocabulary: &Vocabulary, replies: &[Reply]) -> Vec<String> {
    let known: usize = replies.iter().map(|reply| reply.known).sum();
    let itself: Vec<&Reply> = replies.iter().filter(|reply| reply.itself).collect();
    let whom = match itself.as_slice() {
        [] => None,
        [one] => one
            .question
            .head
            .or(one.question.tail)
            .map(|id| format!("{} itself", cell(vocabulary.entities[id.index()].label()))),
        several => Some(format!("{} times the entity asked about", several.len())),
    };
    let known = (known > 0)
        .then(|| format!("left out: {known} known from train or valid (--include-known lists them)"));
    let itself = whom.map(|whom| format!("left out: {whom}, as train has no such fact (--loops lists it)"));
    [known, itself].into_iter().flatten().collect()
}
