//! Stage 6: filtered ranks of students, teachers and the teachers' average.
//!
//! `dsom-evaluate` is the only program that opens the test split: it ranks the test triples, and it filters them by the
//! known answers of all splits. The known answers of train and valid alone filter the ranks of these two splits.
//! `dsom-predict` asks a model by name and sees only train and valid.
//!
//! | file | content |
//! |---|---|
//! | `metrics.json` | the first model's figures by split at the top, every model's under `models` ([`report`]) |
//! | `ranks.parquet` | one row per model, split, triple and direction ([`table`]) |
//! | `examples.json` | predictions by name, if any were asked for ([`examples`]) |

pub mod command;
pub mod examples;
mod graph;
pub mod metrics;
pub mod models;
pub mod report;
pub mod table;

use kge::Judged;
use mkg::{QuerySet, Split};
use program::{Common, Progress, print_line};
use recipe::{Precision, Recipe};
use serde_json::json;
use stage::files::{read_json, write_json};
use stage::manifest::Manifest;
use stage::task::Task;
use stage::work::Work;
use stage::{Error, Result, interrupt};
use training::Place;

use examples::Example;
use graph::Graph;
use metrics::Slicer;
use models::{Catalogue, ModelName, Models};

/// The file of the figures.
pub const METRICS: &str = "metrics.json";
/// The file of every rank.
pub const RANKS: &str = "ranks.parquet";
/// The file of predictions by name.
pub const EXAMPLES: &str = "examples.json";

struct Ranked {
    model: String,
    split: Split,
    /// The ranks and confidences of the tail and the head of each of the split's triples.
    judged: Vec<[Judged; 2]>,
}

/// Evaluates the recipe's models on its splits, unless the evaluation is fresh; prints the figures in either case.
fn run(common: &Common, recipe: &Recipe) -> Result<()> {
    let run = common.run();
    let splits = parse_splits(&recipe.evaluate.splits)?;
    Manifest::read(&run.graph())?;
    let catalogue = Catalogue::of(&run)?;
    let names = catalogue.choose(&recipe.evaluate.models)?;
    let examples = recipe.evaluate.examples;
    // The teachers of `average` are recorded: the models' files alone do not show that they changed.
    let average = names.contains(&ModelName::Average).then_some(catalogue.averaged.as_slice());
    let models: Vec<String> = names.iter().map(ModelName::to_string).collect();
    let parameters = json!({
        "format": table::FORMAT, "models": models, "average": average, "splits": splits, "examples": examples,
    });
    let mut task = Task::new(&run, "dsom-evaluate", run.evaluation(), &parameters, recipe.seed);
    let graph = Graph::open(&run, &mut task)?;
    graph.require(&splits)?;
    let models = catalogue.open(&names, &mut task, &graph.vocabulary)?;

    let ready = || Place::choose(common.device(), Precision::F32);
    if let Some((work, place)) = common.begin(task, ready)? {
        evaluate(work, &graph, &models, &place, &splits, recipe)?;
    }
    if !common.is_status() && !common.is_quiet() {
        print_line(&report::render(&read_json(&run.evaluation().join(METRICS))?))?;
        if examples > 0 {
            let examples: Vec<Example> = read_json(&run.evaluation().join(EXAMPLES))?;
            print_line("")?;
            examples.iter().try_for_each(|example| print_line(&example.render()))?;
        }
    }
    Ok(())
}

fn parse_splits(names: &[String]) -> Result<Vec<Split>> {
    let splits = once(names.iter().map(|name| name.parse()))?;
    if splits.is_empty() {
        return Err(Error::usage("no split to evaluate").hint("--split valid --split test"));
    }
    Ok(splits)
}

/// Every item without repetition, in the order of first occurrence.
fn once<T: PartialEq>(items: impl Iterator<Item = Result<T>>) -> Result<Vec<T>> {
    let mut once = Vec::new();
    for item in items {
        let item = item?;
        if !once.contains(&item) {
            once.push(item);
        }
    }
    Ok(once)
}

fn evaluate(
    work: Work,
    graph: &Graph,
    models: &Models,
    place: &Place,
    splits: &[Split],
    recipe: &Recipe,
) -> Result<()> {
    let ranked = rank_all(graph, models, place, splits)?;
    let metrics = report::metrics(&Slicer::new(graph), &ranked)?;
    table::write(&work.path(RANKS), graph, &ranked)?;
    let examples = recipe.evaluate.examples;
    if let (true, Some(last)) = (examples > 0, splits.last()) {
        let drawn = examples::draw(graph, &models.scorer(0), *last, examples, recipe.seed);
        write_json(&work.path(EXAMPLES), &drawn)?;
    }
    write_json(&work.path(METRICS), &metrics)?;
    let mut summary = report::summary(&metrics, splits);
    summary["products"] = place.products().into();
    work.finish(summary)
}

fn rank_all(graph: &Graph, models: &Models, place: &Place, splits: &[Split]) -> Result<Vec<Ranked>> {
    let mut ranked = Vec::new();
    for (i, model) in models.names().iter().enumerate() {
        for &split in splits {
            let triples = graph.triples(split);
            let (relations, known) = (graph.relations(), graph.known(split));
            let queries = QuerySet::new(triples, relations).len();
            let progress = Progress::new(format!("{model}, {split}"), queries, "queries");
            let mut advance = |queries: usize| {
                progress.advance(queries);
                interrupt::check()
            };
            // An ensemble weighs its teachers on the CPU, even if the other work runs on a device.
            let (scorer, averages) = (models.scorer(i), models.averaged(i));
            let judged = place
                .judge_triples(&scorer, averages, triples, relations, known, &mut advance)
                .map_err(|e| e.hint(format!("retrain `{model}` with a lower learning rate")))?;
            ranked.push(Ranked { model: model.to_string(), split, judged });
        }
    }
    Ok(ranked)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn splits_are_named_once_and_at_least_one() {
        let parse =
            |names: &[&str]| parse_splits(&names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>());
        assert_eq!(parse(&["test", "valid", "test"]).unwrap(), [Split::Test, Split::Valid]);
        for wrong in [&[][..], &["tset"]] {
            assert_eq!(parse(wrong).unwrap_err().kind(), stage::Kind::Usage);
        }
    }
}
