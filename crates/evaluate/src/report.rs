//! `metrics.json` and the table that is printed from it.
//!
//! ```text
//! { "model": "student",
//!   "test": { "both": { "mrr", "mr", "hits_at_1", "hits_at_3", "hits_at_10", "triples",
//!                       "optimistic": { .. }, "pessimistic": { .. } },
//!             "head": { .. }, "tail": { .. },
//!             "slices": { "relation": { .. }, "relation_type": { .. }, "entity": { .. }, "overlap": { .. } } },
//!   "models": { "student": { "test": { .. } }, "structural": { .. } } }
//! ```
//!
//! The first model's splits stand at the top, so that a reader who wants one number finds it at `test.both.mrr` under
//! any model name. `tail` predicts the tail of `(h, r, ?)`, `head` predicts the head.

use mkg::Split;
use program::table;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use stage::files::read_json;
use stage::{Error, Result};
use std::path::Path;

use crate::Ranked;
use crate::metrics::{AllRules, Direction, Slicer, Slices};
use crate::models::ModelName;

/// The figures of one model on one split.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SplitMetrics {
    /// The figures of both directions, pooled.
    pub both: AllRules,
    /// The figures of head prediction.
    pub head: AllRules,
    /// The figures of tail prediction.
    pub tail: AllRules,
    /// The figures of parts of the split.
    pub slices: Slices,
}

/// The content of `metrics.json`.
pub(crate) fn metrics(slicer: &Slicer, ranked: &[Ranked]) -> Result<Value> {
    let mut models = json!({});
    for Ranked { model, split, judged } in ranked {
        let metrics = serde_json::to_value(SplitMetrics {
            both: AllRules::of(judged, &Direction::BOTH),
            head: AllRules::of(judged, &[Direction::Head]),
            tail: AllRules::of(judged, &[Direction::Tail]),
            slices: slicer.slices(*split, judged),
        });
        models[model][split.as_str()] = metrics.map_err(|e| Error::data(e.to_string()))?;
    }
    let mut top = json!({});
    if let Some((name, splits)) = object(&models).next() {
        top["model"] = name.as_str().into();
        object(splits).for_each(|(split, figures)| top[split] = figures.clone());
    }
    top["models"] = models;
    Ok(top)
}

/// The figures of one model by split, in the order of `metrics.json`.
pub type OfModel = Vec<(Split, SplitMetrics)>;

/// Reads `metrics.json`: the name and figures of every model, in the order of reports.
pub fn read(path: &Path) -> Result<Vec<(String, OfModel)>> {
    let metrics: Value = read_json(path)?;
    let mut models = Vec::new();
    for (model, splits) in object(&metrics["models"]) {
        let mut of_model = Vec::new();
        for (split, figures) in object(splits) {
            let figures = serde_json::from_value(figures.clone());
            let broken =
                |e: serde_json::Error| Error::data(e.to_string()).at(path).hint("rerun `dsom-evaluate`");
            of_model.push((split.parse()?, figures.map_err(broken)?));
        }
        models.push((model.clone(), of_model));
    }
    Ok(models)
}

/// The entries of an object; none for any other value.
fn object(value: &Value) -> impl Iterator<Item = (&String, &Value)> {
    value.as_object().into_iter().flatten()
}

/// The first model's figures on test, or on the last split if test was not evaluated.
pub(crate) fn summary(metrics: &Value, splits: &[Split]) -> Value {
    let last = splits.last().copied().unwrap_or(Split::Test);
    let split = if splits.contains(&Split::Test) { Split::Test } else { last };
    let mut summary = json!({ "model": metrics["model"], "split": split.as_str() });
    for figure in ["mrr", "mr", "hits_at_1", "hits_at_3", "hits_at_10", "triples"] {
        summary[figure] = metrics[split.as_str()]["both"][figure].clone();
    }
    summary
}

/// The table of `metrics.json` for people, one line per model and split.
pub(crate) fn render(metrics: &Value) -> String {
    let mut table = table(&["model", "split", "MRR", "MR", "H@1", "H@3", "H@10", "head MRR", "tail MRR"], 2);
    let mut notes = String::new();
    for (model, splits) in object(&metrics["models"]) {
        for (split, figures) in object(splits) {
            table.add_row(row(model, split, figures));
            notes.extend(overlap(model, split, &figures["slices"]["overlap"]));
        }
    }
    let legend = "Filtered ranks, in percent but for the mean rank MR; both directions, ties realistic.";
    format!("{table}\n{legend}{notes}{}", verdict(metrics).unwrap_or_default())
}

/// Compares the first student's test MRR with the best teacher's and with every other student's.
fn verdict(metrics: &Value) -> Option<String> {
    let mut figures: Vec<(ModelName, f64)> = Vec::new();
    for (name, splits) in object(&metrics["models"]) {
        figures.push((name.parse().ok()?, splits["test"]["both"]["mrr"].as_f64()?));
    }
    let (ModelName::Student(student), mrr) = figures.first()? else { return None };
    let teachers = figures.iter().filter(|(name, _)| matches!(name, ModelName::Teacher(_)));
    let best = teachers.max_by(|a, b| a.1.total_cmp(&b.1)).into_iter();
    let students = figures[1..].iter().filter(|(name, _)| matches!(name, ModelName::Student(_)));
    let others =
        best.map(|other| ("the best teacher here, ", other)).chain(students.map(|other| ("", other)));
    let sides = others.map(|(lead, (name, other))| {
        let points = 100.0 * (mrr - other);
        let side = if points < 0.0 { "below" } else { "above" };
        format!("{:.2} points {side} {lead}{name}", points.abs())
    });
    let sides = sides.collect::<Vec<_>>().join(", ");
    (!sides.is_empty()).then(|| format!("\nOn test, the MRR of {student} is {sides}."))
}

/// Reports the MRR of the test triples that no earlier split has, if some test triples are in an earlier split.
fn overlap(model: &str, split: &str, slices: &Value) -> Option<String> {
    let repeated = slices["repeated"]["triples"].as_u64().filter(|_| split == Split::Test.as_str())?;
    let new = &slices["new"];
    let count = new["triples"].as_u64().unwrap_or(0);
    let mrr = new["mrr"].as_f64().map_or("none".to_owned(), |mrr| format!("{:.2}", 100.0 * mrr));
    let of = count + repeated;
    Some(format!(
        "\n{repeated} of {of} test triples stand in train or valid; MRR of {model} on the other {count}: {mrr}"
    ))
}

fn row(model: &str, split: &str, figures: &Value) -> Vec<String> {
    let columns = [
        ("both", "mrr"),
        ("both", "mr"),
        ("both", "hits_at_1"),
        ("both", "hits_at_3"),
        ("both", "hits_at_10"),
        ("head", "mrr"),
        ("tail", "mrr"),
    ];
    let mut row = vec![model.to_owned(), split.to_owned()];
    row.extend(columns.map(|(direction, figure)| {
        let number = figures[direction][figure].as_f64().unwrap_or(f64::NAN);
        if figure == "mr" { format!("{number:.1}") } else { format!("{:.2}", 100.0 * number) }
    }));
    row
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::Graph;
    use kge::{Judged, Rank};
    use mkg::Triple;

    fn metrics_of_two() -> Value {
        let triples = vec![Triple::new(0, 0, 1)];
        let graph = Graph::unnamed(4, 1, [triples.clone(), Vec::new(), triples]);
        let ranked = |model: &str, above: u32| {
            let sides = [0, 2].map(|tied| Judged { rank: Rank { above, tied }, confidence: 0.5 });
            Ranked { model: model.into(), split: Split::Test, judged: vec![sides] }
        };
        metrics(&Slicer::new(&graph), &[ranked("student", 0), ranked("average", 2)]).unwrap()
    }

    #[test]
    fn the_last_line_says_whether_the_student_is_worth_it() {
        let figures = |mrr: f64| json!({ "test": { "both": { "mrr": mrr } } });
        let models = json!({ "models": {
            "student": figures(0.5), "student-alone": figures(0.55), "average": figures(0.9),
            "structural": figures(0.25), "textual": figures(0.375),
        } });
        let said = "\nOn test, the MRR of student is 12.50 points above the best teacher here, textual, 5.00 points below student-alone.";
        assert_eq!(verdict(&models).unwrap(), said);
        assert_eq!(verdict(&json!({ "models": { "student": figures(0.5) } })), None);
    }

    #[test]
    fn the_first_model_stands_at_the_top() {
        let metrics = metrics_of_two();
        assert_eq!(metrics["model"], "student");
        assert_eq!(metrics["test"]["both"]["mrr"], 0.75);
        assert_eq!(metrics["test"]["head"]["optimistic"]["mrr"], 1.0);
        assert_eq!(metrics["test"], metrics["models"]["student"]["test"]);
        assert_eq!(metrics["models"]["average"]["test"]["tail"]["mr"], 3.0);
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("metrics.json");
        stage::files::write_json(&path, &metrics).unwrap();
        let models = read(&path).unwrap();
        assert_eq!(models.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), ["student", "average"]);
        let (split, average) = &models[1].1[0];
        assert_eq!((*split, average.tail.realistic.mr), (Split::Test, 3.0));
        let summary = summary(&metrics, &[Split::Test]);
        assert_eq!((&summary["model"], &summary["mr"]), (&"student".into(), &1.5.into()));
    }

    #[test]
    fn the_table_reads_like_a_paper() {
        let text = render(&metrics_of_two());
        let cells: Vec<&str> = text.lines().nth(2).unwrap().split_whitespace().collect();
        assert_eq!(cells.join(" "), "student test 75.00 1.5 50.00 100.00 100.00 50.00 100.00");
        let last = text.lines().last().unwrap();
        assert_eq!(last, "1 of 1 test triples stand in train or valid; MRR of average on the other 0: none");
    }
}
