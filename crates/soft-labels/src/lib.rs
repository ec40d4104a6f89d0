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
//! | `vector_<modality>` | fixed-size list of f16 | the teacher's query vector `e_h ∘ w_r`, `[re | im]` |
//!
//! Lists of numbers are written without dictionary, statistics or compression: they hardly compress, every reader of
//! Parquet takes them as numbers, and training reads their rows where they lie in the mapped file.
//!
//! Half precision keeps 11 bits of each number: a relative error of at most 2⁻¹¹ for magnitudes from 6e-5 to 65504,
//! and an absolute one of at most 3e-8 below. Scores and vectors beyond are refused. A vector's product with an
//! embedding therefore differs from the score by about as much as the score's own rounding.

mod labels;
mod pages;
mod part;
mod schema;
#[cfg(test)]
mod tests;
mod write;

pub use labels::{Opened, SoftLabels};
pub use write::{Teacher, write_labels, write_part};

use mkg::Vocabulary;
use stage::manifest;
use stage::recipe::Recipe;
use stage::task::Task;
use stage::{Common, Error, Modality, Result, Run, resources};
use training::{Data, open_model};

/// Writes the soft labels, unless they are fresh.
pub fn run(common: &Common, recipe: &Recipe) -> Result<()> {
    let (run, options) = (common.run(), &recipe.soft_labels);
    let parameters = serde_json::json!({
        "format": schema::FORMAT, "teachers": options.teachers, "rows_per_file": options.rows_per_file,
    });
    let mut task = Task::new(&run, "dsom-soft-labels", run.soft_labels(), &parameters, recipe.seed);
    let data = Data::open(&run, &mut task)?;
    let teachers = open_teachers(&run, recipe, &mut task, &data.vocabulary)?;
    let fits = || require_room(&run, &data, &teachers, options.rows_per_file);
    let Some((work, ())) = common.begin(task, fits)? else { return Ok(()) };
    write_labels(&work, &data, &teachers, options.rows_per_file)?;
    let names: Vec<&Modality> = teachers.iter().map(|teacher| &teacher.modality).collect();
    work.finish(serde_json::json!({
        "rows": data.queries.len(), "entities": data.entities(), "teachers": names,
    }))?;
    Ok(())
}

/// Refuses a cache that the disk cannot hold or memory cannot write.
fn require_room(run: &Run, data: &Data, teachers: &[Teacher], rows_per_file: usize) -> Result<()> {
    let layout = write::layout(data, teachers);
    let queries = data.queries.len();
    let parts_at_once = queries.div_ceil(rows_per_file).min(rayon::current_num_threads()) as u64;
    let bytes = parts_at_once * layout.memory(rows_per_file);
    resources::require_memory(bytes, "writing the soft labels", "lower --threads")?;
    let knob = "name fewer `soft_labels.teachers`";
    resources::require_disk(run.root(), layout.bytes(queries), "the soft labels", knob)
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

/// Checks row count, order of rows, layout and digests of a run's finished soft labels; returns the row count.
pub fn verify(run: &Run) -> Result<usize> {
    let folder = run.soft_labels();
    let manifest = manifest::verify(&folder)?;
    let opened = Opened::find(&manifest, &folder)?;
    let mut task = Task::new(run, "dsom-soft-labels", folder, &(), 0);
    let data = Data::open(run, &mut task)?;
    opened.read(&data)?;
    Ok(data.queries.len())
}
