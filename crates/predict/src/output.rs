//! Answers as a table for people, TSV, JSON lines or Parquet, with the columns that `docs/predict.md` lists.

use arrow::array::{ArrayRef, BooleanArray, Float32Array, Float64Array, StringArray, UInt64Array};
use mkg::{EntityId, RelationId, Triple, Vocabulary};
use program::{printable, table};
use serde::Serialize;
use stage::{Error, Result};
use std::path::Path;
use std::sync::Arc;

use crate::answer::{Answer, Reply};
use crate::question::Question;
use crate::why::Explanation;

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Format {
    /// A table of text for people.
    Table,
    /// A header, and one line per answer.
    Tsv,
    /// One JSON object per answer.
    Json,
    /// A table with typed columns.
    Parquet,
}

/// The ending of a file's name without its dot, in lower case; empty if the name has none.
pub(crate) fn ending(path: &Path) -> String {
    path.extension().unwrap_or_default().to_string_lossy().to_lowercase()
}

/// One answer with all keys and names that identify it.
#[derive(Serialize)]
pub(crate) struct Row<'a> {
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
#[derive(Serialize)]
struct Why<'a> {
    ranks: &'a [(String, f64, u32)],
    policy: Option<&'a [(String, f32)]>,
    facts: Vec<[&'a str; 3]>,
}

/// The key of an entity or a relation, and its name if there is one.
pub(crate) type Label<'a> = (&'a str, Option<&'a str>);

fn entity(vocabulary: &Vocabulary, id: EntityId) -> Label<'_> {
    let entity = &vocabulary.entities[id.index()];
    (&entity.key, entity.name.as_deref())
}

fn relation(vocabulary: &Vocabulary, id: RelationId) -> Label<'_> {
    let relation = &vocabulary.relations[id.index()];
    (&relation.key, relation.name.as_deref())
}

/// Keys and names of a triple.
fn labels(vocabulary: &Vocabulary, Triple { head, relation: id, tail }: Triple) -> [Label<'_>; 3] {
    [entity(vocabulary, head), relation(vocabulary, id), entity(vocabulary, tail)]
}

impl<'a> Why<'a> {
    fn new(vocabulary: &'a Vocabulary, Explanation { policy, answers }: &'a Explanation, at: usize) -> Self {
        let facts = answers[at].facts.iter();
        let facts = facts.map(|fact| labels(vocabulary, fact.triple).map(|(key, _)| key)).collect();
        Why { ranks: &answers[at].ranks, policy: policy.as_deref(), facts }
    }
}

impl<'a> Row<'a> {
    /// Keys and names of the head, the relation and the tail.
    fn labels(&self) -> [Label<'a>; 3] {
        [
            (self.head_key, self.head_name),
            (self.relation_key, self.relation_name),
            (self.tail_key, self.tail_name),
        ]
    }

    fn tsv(&self) -> String {
        let Row { question, asked, rank, score, probability, known, .. } = self;
        let texts =
            self.labels().map(|(key, name)| format!("{}\t{}", cell(key), cell(name.unwrap_or_default())));
        let texts = texts.join("\t");
        format!("{question}\t{asked}\t{texts}\t{rank}\t{score}\t{probability}\t{known}\n")
    }

    /// The cells after the rank in the table for people.
    fn figures(&self) -> [String; 3] {
        let known = if self.known { "known" } else { "" };
        [known.to_owned(), format!("{:.4}", self.score), format!("{:.2} %", 100.0 * self.probability)]
    }
}

const COLUMNS: &str = "question\tasked\thead_key\thead_name\trelation_key\trelation_name\ttail_key\ttail_name\trank\tscore\tprobability\tknown\n";

/// A text in which tabs and line breaks are escaped, so that it fits one cell.
pub fn cell(text: &str) -> String {
    printable(text).replace('\t', "\\t").replace('\n', "\\n")
}

/// The rows of all answers, question by question.
pub(crate) fn rows<'a>(vocabulary: &'a Vocabulary, replies: &'a [Reply]) -> Vec<Row<'a>> {
    let mut rows = Vec::new();
    for (question, reply) in (1..).zip(replies) {
        for (i, &Answer { triple, rank, score, probability, known }) in reply.answers.iter().enumerate() {
            let [(head_key, head_name), (relation_key, relation_name), (tail_key, tail_name)] =
                labels(vocabulary, triple);
            rows.push(Row {
                question,
                asked: reply.question.asked(),
                head_key,
                head_name,
                relation_key,
                relation_name,
                tail_key,
                tail_name,
                rank,
                score,
                probability,
                known,
                why: reply.explanation.as_ref().map(|of| Why::new(vocabulary, of, i)),
            });
        }
    }
    rows
}

pub(crate) fn lines(rows: &[Row], format: Format) -> Result<String> {
    let mut text = if format == Format::Tsv { COLUMNS.to_owned() } else { String::new() };
    for row in rows {
        text += &match format {
            Format::Tsv => row.tsv(),
            _ => serde_json::to_string(row).map_err(|e| Error::data(e.to_string()))? + "\n",
        };
    }
    Ok(text)
}

/// Writes the rows as Parquet, atomically.
pub(crate) fn write_parquet(path: &Path, rows: &[Row]) -> Result<()> {
    let columns: [ArrayRef; 12] = [
        Arc::new(UInt64Array::from_iter_values(rows.iter().map(|row| row.question))),
        texts(rows, |row| Some(row.asked)),
        texts(rows, |row| Some(row.head_key)),
        texts(rows, |row| row.head_name),
        texts(rows, |row| Some(row.relation_key)),
        texts(rows, |row| row.relation_name),
        texts(rows, |row| Some(row.tail_key)),
        texts(rows, |row| row.tail_name),
        Arc::new(Float64Array::from_iter_values(rows.iter().map(|row| row.rank))),
        Arc::new(Float32Array::from_iter_values(rows.iter().map(|row| row.score))),
        Arc::new(Float64Array::from_iter_values(rows.iter().map(|row| row.probability))),
        Arc::new(rows.iter().map(|row| Some(row.known)).collect::<BooleanArray>()),
    ];
    // Only names may be missing.
    let columns = COLUMNS.trim_end().split('\t').zip(columns);
    let columns = columns.map(|(name, values)| (name, values, name.ends_with("_name")));
    mkg::graph::write_table(path, columns.collect())
}

fn texts<'a>(rows: &[Row<'a>], get: fn(&Row<'a>) -> Option<&'a str>) -> ArrayRef {
    Arc::new(rows.iter().map(get).collect::<StringArray>())
}

/// The answers for people: one table per question, or one table of all triples if all are given.
pub(crate) fn render(vocabulary: &Vocabulary, replies: &[Reply], rows: &[Row]) -> String {
    if replies.iter().all(|reply| reply.question.is_whole()) {
        return render_triples(rows);
    }
    let (mut text, mut rest) = (String::new(), rows);
    for reply in replies {
        let (of_reply, others) = rest.split_at(reply.answers.len());
        rest = others;
        let lead = if text.is_empty() { "" } else { "\n\n" };
        text += &format!("{lead}{}\n{}", title(vocabulary, reply.question), render_list(of_reply));
        text.extend(reply.explanation.iter().map(|of| of.render(vocabulary, reply)));
    }
    text
}

fn title(vocabulary: &Vocabulary, Question { head, relation: between, tail }: Question) -> String {
    let [head, tail] = [head, tail].map(|id| id.map(|id| entity(vocabulary, id)));
    let labels = [head, between.map(|id| relation(vocabulary, id)), tail];
    labels.map(|label| cell(label.map_or("?", |(key, name)| name.unwrap_or(key)))).join(" · ")
}

fn render_list(rows: &[Row]) -> String {
    let mut table = table(&["rank", "name", "key", "", "score", "probability"], 4);
    for row in rows {
        let [head, relation, tail] = row.labels();
        let (key, name) = match row.asked {
            "head" => head,
            "relation" => relation,
            _ => tail,
        };
        let label = [row.rank.to_string(), cell(name.unwrap_or_default()), cell(key)];
        table.add_row(label.into_iter().chain(row.figures()));
    }
    table.to_string()
}

fn render_triples(rows: &[Row]) -> String {
    let mut table = table(&["head", "relation", "tail", "rank", "", "score", "probability"], 3);
    for row in rows {
        let labels = row.labels().map(|(key, name)| cell(name.unwrap_or(key)));
        table.add_row(labels.into_iter().chain([row.rank.to_string()]).chain(row.figures()));
    }
    table.to_string()
}

/// Sentences that name the answers missing from the lists.
pub(crate) fn notes(vocabulary: &Vocabulary, replies: &[Reply]) -> Vec<String> {
    let known: usize = replies.iter().map(|reply| reply.known).sum();
    let itself: Vec<&Reply> = replies.iter().filter(|reply| reply.itself).collect();
    let whom = match itself.as_slice() {
        [] => None,
        [Reply { question, .. }] => {
            let id = question.head.or(question.tail);
            id.map(|id| format!("{} itself", cell(vocabulary.entities[id.index()].label())))
        }
        several => Some(format!("{} times the entity asked about", several.len())),
    };
    let known = (known > 0)
        .then(|| format!("left out: {known} known from train or valid (--include-known lists them)"));
    let itself = whom.map(|whom| format!("left out: {whom}, as train has no such fact (--loops lists it)"));
    [known, itself].into_iter().flatten().collect()
}
