//! Command line of `dsom predict`.

use clap::{ArgGroup, Args};
use dsom_evaluate::models::STUDENT;
use dsom_features::unseen::Unseen;
use mkg::{Entity, EntityId, Vocabulary};
use program::print_line;
use stage::{Error, Result, Run, files};
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use training::Data;

use crate::answer::{Listing, Reply};
use crate::output::{self, Format};
use crate::question::{Question, Reader, Rows};
use crate::{Session, export, task};

/// Ask a model of a run: which entities complete (HEAD, RELATION, ?)
///
/// HEAD and RELATION are names or keys, in any case where that is unambiguous. With TAIL, a `?` (in quotes, for the
/// shell) marks the place that is asked for: `'?' borders France`, `France '?' Spain`. Answers that train or valid
/// already have are left out unless requested, and so is an entity as the answer about itself; the test split is never
/// read. The probability is the softmax over all entities. To ask about an entity that the graph does not have, give
/// its --text or --image and a --relation. docs/predict.md has the columns and examples.
#[derive(Args)]
#[command(group = ArgGroup::new("unseen")
    .args(["text", "image", "vector"]).requires("relation")
    .conflicts_with_all(["words", "questions", "score", "export", "why"]))]
pub struct Arguments {
    /// Directory of the run
    #[arg(long, value_name = "DIR", env = "DSOM_RUN")]
    run: PathBuf,
    /// A student's or ensemble's folder, a teacher's modality, `average` of the teachers, or the mean of some as
    /// `structural+textual` [default: student; of --text, --image and --vector the teacher that learned from such things]
    #[arg(long, value_name = "NAME")]
    model: Option<String>,
    /// Number of answers
    #[arg(long, value_name = "N", default_value = "10")]
    top: NonZeroUsize,
    /// List known answers too, with a mark
    #[arg(long)]
    include_known: bool,
    /// List an entity as the answer about itself, even where the relation has no such fact in train
    #[arg(long)]
    loops: bool,
    /// Ask for (?, RELATION, HEAD): who has this relation to HEAD
    #[arg(long, conflicts_with_all = ["questions", "score", "export"])]
    inverse: bool,
    /// Let only these entities answer: a file with one key or name per line
    #[arg(long, value_name = "FILE", conflicts_with = "range")]
    candidates: Option<PathBuf>,
    /// Let only those entities answer that stand in that place of the relation in train
    #[arg(long)]
    range: bool,
    /// Show the evidence for each answer: the teachers' ranks, the policy, and known facts that resemble the answer
    #[arg(long, conflicts_with_all = ["questions", "score", "export"])]
    why: bool,
    /// Answer all questions of a file: TSV `head relation` or `head relation tail` with one cell empty or `?`, or JSON
    /// lines (.jsonl, .json) with these fields; `-` is standard input
    #[arg(long, value_name = "FILE")]
    questions: Option<PathBuf>,
    /// Score and rank the triples of a file: TSV `head relation tail`, or JSON lines; `-` is standard input
    #[arg(long, value_name = "FILE", conflicts_with_all = ["questions", "candidates", "range", "include_known", "loops"])]
    score: Option<PathBuf>,
    /// Write the model into a folder as .npy, as word2vec text and, for ComplEx, as PyKEEN's weights
    #[arg(long, value_name = "DIR", conflicts_with_all = ["questions", "score", "format", "json", "output"])]
    export: Option<PathBuf>,
    /// Ask about an entity that the graph does not have, by its text in the graph's form: name, full stop, description
    #[arg(long, value_name = "TEXT")]
    text: Option<String>,
    /// Ask about such an entity by an image (repeatable: the mean of several)
    #[arg(long, value_name = "FILE")]
    image: Vec<PathBuf>,
    /// Ask about such an entity by a vector, one row: .npy, .npz, .safetensors, or PyTorch
    #[arg(long, value_name = "FILE", conflicts_with = "encoder")]
    vector: Option<PathBuf>,
    /// The relation between that entity and the answer
    #[arg(long, value_name = "RELATION", requires = "unseen")]
    relation: Option<String>,
    /// The encoder that the features were made with, if it is a folder
    #[arg(long, value_name = "MODEL", requires = "unseen")]
    encoder: Option<String>,
    /// Format of the answers [default: by the name of --output, else table]
    #[arg(long, value_name = "FORMAT")]
    format: Option<Format>,
    /// Short for --format json: a JSON object per answer
    #[arg(long, conflicts_with = "format")]
    json: bool,
    /// Write the answers to a file; `-` is standard output
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// The question: HEAD RELATION, or HEAD RELATION TAIL with one '?'
    #[arg(value_names = ["HEAD", "RELATION", "TAIL"], num_args = 2..=3,
        required_unless_present_any = ["questions", "score", "export", "unseen"],
        conflicts_with_all = ["questions", "score", "export"])]
    words: Vec<String>,
}

/// Runs the program and returns its exit code.
pub fn main(arguments: Arguments) -> ExitCode {
    program::init_logging(0);
    program::exit(run(&arguments))
}

fn run(arguments: &Arguments) -> Result<()> {
    let format = arguments.format()?;
    let run = Run::new(&arguments.run);
    let mut task = task(&run);
    let mut data = Data::open(&run, &mut task)?;
    // Questions that cannot be understood are reported before a model is read.
    let (questions, listing) = arguments.asked(&data.vocabulary)?;
    let unseen = arguments.unseen();
    let model = match (&arguments.model, &unseen) {
        (Some(name), _) => name.clone(),
        (None, None) => STUDENT.to_owned(),
        (None, Some(unseen)) => unseen.teacher(&run)?.to_string(),
    };
    let mut session = Session::open(&run, task, &data, &model, arguments.why)?;
    if let Some(folder) = &arguments.export {
        export::export(folder, session.model()?, &data.vocabulary)?;
        return print_line(&format!("written to {}", folder.display()));
    }
    let mut replies = match &unseen {
        Some(unseen) => session.answer_unseen(unseen, arguments.encoder.as_deref(), &questions, &listing)?,
        None => session.answer(&questions, &listing)?,
    };
    session.warn(&questions, &replies);
    if arguments.why {
        replies.first_mut().map_or(Ok(()), |reply| session.explain(reply))?;
    }
    let entities = &mut data.vocabulary.entities;
    entities.extend(unseen.map(|unseen| Entity { name: Some(unseen.label()), ..Entity::default() }));
    write(&data.vocabulary, &replies, format, arguments.output())
}

/// Writes the answers to a file or prints them; notes on missing answers stand below a table, else in the log.
fn write(vocabulary: &Vocabulary, replies: &[Reply], format: Format, path: Option<&Path>) -> Result<()> {
    let (rows, notes) = (output::rows(vocabulary, replies), output::notes(vocabulary, replies));
    if format != Format::Table {
        notes.iter().for_each(|note| tracing::info!("{note}"));
    }
    let text = match (format, path) {
        (Format::Parquet, Some(path)) => return output::write_parquet(path, &rows),
        (Format::Table, _) => {
            [vec![output::render(vocabulary, replies, &rows)], notes].concat().join("\n") + "\n"
        }
        _ => output::lines(&rows, format)?,
    };
    match path {
        Some(path) => files::write_bytes(path, text.as_bytes()),
        // JSON lines have no empty line.
        None if text.is_empty() => Ok(()),
        None => print_line(text.trim_end_matches('\n')),
    }
}

/// The format that matches the ending of the output's name.
fn by_name(output: Option<&Path>) -> Result<Format> {
    let ending = output.map(output::ending).unwrap_or_default();
    match ending.as_str() {
        "tsv" => Ok(Format::Tsv),
        "json" | "jsonl" | "ndjson" => Ok(Format::Json),
        "parquet" => Ok(Format::Parquet),
        "" | "txt" => Ok(Format::Table),
        _ => {
            let error = Error::usage(format!("--output: no format has names in .{ending}"));
            Err(error.hint("name it .tsv, .jsonl, .parquet or .txt, or give --format"))
        }
    }
}

impl Arguments {
    fn unseen(&self) -> Option<Unseen> {
        let images = (!self.image.is_empty()).then(|| Unseen::Images(self.image.clone()));
        let text = self.text.clone().map(Unseen::Text);
        text.or(images).or(self.vector.clone().map(Unseen::Vector))
    }

    /// The file to write; none for standard output.
    fn output(&self) -> Option<&Path> {
        self.output.as_deref().filter(|path| *path != Path::new("-"))
    }

    fn format(&self) -> Result<Format> {
        let chosen = if self.json { Some(Format::Json) } else { self.format };
        match chosen.map_or_else(|| by_name(self.output()), Ok)? {
            Format::Parquet if self.output().is_none() => {
                Err(Error::usage("Parquet is not for a terminal").hint("name a file with --output"))
            }
            Format::Tsv | Format::Parquet if self.why => {
                Err(Error::usage("--why is told as a table or as JSON").hint("--format json"))
            }
            format => Ok(format),
        }
    }

    /// The questions, and the rules for the answers to list.
    fn asked(&self, vocabulary: &Vocabulary) -> Result<(Vec<Question>, Listing)> {
        let reader = Reader::new(vocabulary);
        let questions = match (&self.questions, &self.score, self.words.as_slice()) {
            (Some(path), ..) => reader.file(path, Rows::Questions)?,
            (_, Some(path), _) => reader.file(path, Rows::Triples)?,
            (_, _, []) => self.about_unseen(vocabulary, &reader)?.into_iter().collect(),
            (_, _, [head, relation]) if self.inverse => vec![reader.question(["?", relation, head])?],
            (_, _, [_, _, _]) if self.inverse => {
                return Err(Error::usage(
                    "--inverse is of HEAD RELATION; with three words write `?` for what is asked",
                ));
            }
            (_, _, words) => vec![reader.question(words.iter().map(String::as_str))?],
        };
        let candidates = self.candidates.as_ref().map(|path| reader.candidates(path)).transpose()?;
        let (top, range) = (self.top.get(), self.range);
        let listing =
            Listing { top, include_known: self.include_known, loops: self.loops, candidates, range };
        Ok((questions, listing))
    }

    /// The question about the entity that the graph does not have; its id is the number of entities.
    fn about_unseen(&self, vocabulary: &Vocabulary, reader: &Reader) -> Result<Option<Question>> {
        let Some(word) = &self.relation else { return Ok(None) };
        let (relation, id) = (Some(reader.relation(word)?), EntityId(vocabulary.entities.len() as u32));
        let [head, tail] = if self.inverse { [None, Some(id)] } else { [Some(id), None] };
        Ok(Some(Question { head, relation, tail }))
    }
}
