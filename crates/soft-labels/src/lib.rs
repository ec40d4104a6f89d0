//! Stage 4: each teacher's scores of all entities for every training query, cached as Parquet.
//!
//! One row per distinct query, in the order of [`mkg::QuerySet`]:
//!
//! | column | type | |
//! |---|---|---|
//! | `head`, `relation` | u32 | ids; a relation from `R` on is an inverse |
//! | `head_name`, `relation_name` | text | names, or keys where there are none; inverses end in `⁻¹` |
//! | `neighbours` | list of u32 | the query's known train tails, ascending |
//! | `scores_<modality>` | fixed-size list of f16 | the teacher's score of every entity, by id |
//!
//! Scores are written without dictionary, statistics or compression: they hardly compress, and every reader of
//! Parquet takes them as numbers. Half precision keeps 11 bits of each score.

mod labels;
mod part;
mod schema;
mod write;

pub use labels::SoftLabels;
pub use write::{Teacher, write_labels};

use mkg::Vocabulary;
use stage::manifest;
use stage::recipe::Recipe;
use stage::task::Task;
use stage::{Common, Error, Modality, Result, Run, resources};
use training::{Data, open_model};

/// Writes the soft labels, unless they are fresh.
pub fn run(common: &Common, recipe: &Recipe) -> Result<()> {
    let run = common.run();
    let mut task = Task::new(&run, "dsom-soft-labels", run.soft_labels(), &recipe.soft_labels, recipe.seed);
    let data = Data::open(&run, &mut task)?;
    let teachers = open_teachers(&run, recipe, &mut task, &data.vocabulary)?;
    let bytes = schema::scores_bytes(data.queries.len(), data.entities(), teachers.len());
    let fits =
        || resources::require_disk(run.root(), bytes, "the soft labels", "name fewer `soft_labels.teachers`");
    let Some((work, ())) = common.begin(task, fits)? else { return Ok(()) };
    write_labels(&work, &data, &teachers, recipe.soft_labels.rows_per_file)?;
    let names: Vec<&Modality> = teachers.iter().map(|teacher| &teacher.modality).collect();
    work.finish(serde_json::json!({
        "rows": data.queries.len(), "entities": data.entities(), "teachers": names,
    }))?;
    Ok(())
}

/// The recipe's teachers, or all that are finished.
fn open_teachers(
    run: &Run,
    recipe: &Recipe,
    task: &mut Task,
    vocabulary: &Vocabulary,
) -> Result<Vec<Teacher>> {
    let mut modalities = match recipe.soft_labels.teachers.as_slice() {
        [] => run.finished("teachers"),
        chosen => chosen.to_vec(),
    };
    modalities.sort();
    if modalities.is_empty() {
        return Err(Error::missing("no teacher has finished")
            .at(run.root().join("teachers"))
            .hint("run `dsom-teachers`"));
    }
    let open = |modality: Modality| {
        let model = open_model(task, &run.teacher(&modality), vocabulary)?;
        Ok(Teacher { modality, model })
    };
    modalities.into_iter().map(open).collect()
}

/// Checks row count, order of rows, schema and digests of a run's finished soft labels; returns the row count.
pub fn verify(run: &Run) -> Result<usize> {
    let folder = run.soft_labels();
    let manifest = manifest::verify(&folder)?;
    let mut task = Task::new(run, "dsom-soft-labels", folder, &(), 0);
    let data = Data::open(run, &mut task)?;
    let labels = SoftLabels::files(&manifest, &run.soft_labels());
    let mut rows = 0;
    for file in &labels {
        rows += part::check(file, &data, rows)?;
    }
    if rows != data.queries.len() {
        let message = format!("{rows} rows, but the graph has {} training queries", data.queries.len());
        return Err(Error::data(message).at(run.soft_labels()).hint("rerun `dsom-soft-labels`"));
    }
    Ok(rows)
}
