//! Stage 4: each teacher's scores of all entities for every training query, cached as Parquet.
//!
//! The cache has one row per distinct query, in the order of [`mkg::QuerySet`]:
//!
//! | column | type | |
//! |---|---|---|
//! | `head`, `relation` | u32 | ids; a relation from `R` on is an inverse |
//! | `head_name`, `relation_name` | text | names, or keys where there are none; inverses end in `⁻¹` |
//! | `neighbours` | list of u32 | the query's known train tails, ascending |
//! | `vector_<modality>` | fixed-size list of f16 | the teacher's query vector, for ComplEx `e_h ∘ w_r`, `[re \| im]` |
//! | `scores_<modality>` | fixed-size list of f16 | the teacher's score of every entity, by id |
//!
//! With `soft_labels.top = k` the cache is lossy: a row keeps the scores of its neighbours and of `k` other entities,
//! and two numbers per teacher for all other entities, the rest:
//!
//! | column | type | |
//! |---|---|---|
//! | `neighbour_scores_<modality>` | list of f32 | the teacher's scores of the `neighbours` |
//! | `rest_<modality>` | f64 | `ln Σ exp` of the teacher's scores of the rest, exact; −∞ if the rest is empty |
//! | `rest_mean_<modality>` | f64 | the mean of these scores; 0 if the rest is empty |
//! | `top` | fixed-size list of u32 | the entities outside the neighbours that some teacher ranks highest, by id |
//! | `scores_<modality>` | fixed-size list of f16 | the teacher's scores of the entities in `top` |
//!
//! `top` takes each teacher's first entity, then each teacher's second, and so on, until there are `k`. Of equal scores
//! the lower id ranks higher. If fewer than `k` entities are left, neighbours fill the list.
//!
//! Fixed-size lists are written without dictionary, statistics or compression: they hardly compress, every Parquet
//! reader takes them as numbers, and training reads their rows in place in the mapped file.
//!
//! Half precision keeps 11 bits of each number: a relative error of at most 2⁻¹¹ for magnitudes from 6e-5 to 65504, and
//! an absolute error of at most 3e-8 for smaller ones. Larger scores and vectors are refused. The product of a vector
//! and an embedding differs from the score by about as much as the score's own rounding.

pub mod command;
mod excerpt;
mod labels;
mod pages;
mod part;
mod schema;
#[cfg(test)]
mod tests;
mod write;

pub use labels::SoftLabels;
pub use write::{TrainedTeacher, query_columns, scored, write_part};

use mkg::Vocabulary;
use program::{Common, Shards, Sharing};
use recipe::{Precision, Recipe};
use stage::manifest;
use stage::task::Task;
use stage::{Error, Modality, Result, Run, resources};
use std::num::NonZeroUsize;
use std::path::Path;
use training::{Data, Place, open_model};

use crate::command::Arguments;
use crate::schema::Layout;
use crate::write::{Part, write_labels};

/// Writes the soft labels, or one shard of them, or merges the shards, unless the result is fresh.
fn run(arguments: &Arguments, recipe: &Recipe) -> Result<()> {
    let (common, options) = (&arguments.common, &recipe.soft_labels);
    let run = common.run();
    let parameters = serde_json::json!({
        "format": schema::FORMAT, "teachers": options.teachers, "rows_per_file": options.rows_per_file,
        "top": options.top,
    });
    let mut task = Task::new(&run, "dsom-soft-labels", run.soft_labels(), &parameters, recipe.seed);
    let data = Data::open(&run, &mut task)?;
    let teachers = open_teachers(&run, recipe, &mut task, &data.vocabulary)?;
    let Sharing { shard, merge } = arguments.sharing;
    if let Some(count) = merge {
        return put_together(common, task, count);
    }
    let Some(task) = common.share(task, shard) else { return Ok(()) };
    let mut parts = write::parts(data.queries.len(), options.rows_per_file);
    parts.retain(|part| shard.is_none_or(|shard| shard.has(part.number)));
    let folder = task.folder().to_owned();
    let models: Vec<_> = teachers.iter().map(|teacher| &teacher.model).collect();
    let begun = common.begin(task, || {
        if options.top > data.entities() {
            let (top, entities) = (options.top, data.entities());
            let message =
                format!("recipe: `soft_labels.top` is {top}, but the graph has {entities} entities");
            return Err(Error::usage(message).hint("0 keeps the scores of all"));
        }
        let layout = write::layout(&data, &teachers, options.top);
        require_room(&folder, &data, &layout, &parts)?;
        let place = Place::choose(common.device(), Precision::F32)?;
        place.require_scoring(&models, layout.rows_per_group(), "scoring with the teachers")?;
        Ok(place)
    })?;
    let Some((work, place)) = begun else { return Ok(()) };
    let scorers = models.iter().map(|model| place.scorer(model)).collect::<Result<Vec<_>>>()?;
    let scored: Vec<_> = teachers.iter().zip(scorers.iter().map(|scorer| &**scorer)).collect();
    write_labels(&work, &data, &scored, options.top, &parts)?;
    let names: Vec<&Modality> = teachers.iter().map(|teacher| &teacher.modality).collect();
    work.finish(serde_json::json!({
        "rows": data.queries.len(), "entities": data.entities(), "teachers": names, "products": place.products(),
    }))?;
    Ok(())
}

/// Merges `count` finished shards into the soft labels.
fn put_together(common: &Common, task: Task, count: NonZeroUsize) -> Result<()> {
    let whole = task.clone();
    if let Some((work, shards)) = common.begin(task, || Shards::of(&whole, count))? {
        shards.files().try_for_each(|file| {
            let name = file.file_name().unwrap_or_default().to_string_lossy();
            link(&file, &work.path(&name))
        })?;
        work.finish(shards.manifest().summary.clone())?;
    }
    common.after_merging(&whole, count)
}

/// Gives a finished file a second name, or copies the file if the file system allows only one name.
fn link(file: &Path, to: &Path) -> Result<()> {
    // Removes the file of an interrupted call.
    let _ = std::fs::remove_file(to);
    std::fs::hard_link(file, to).or_else(|_| std::fs::copy(file, to).map(drop)).map_err(|e| Error::io(to, e))
}

/// Refuses files in `folder` that do not fit on the disk, or whose writing does not fit in memory.
fn require_room(folder: &Path, data: &Data, layout: &Layout, parts: &[Part]) -> Result<()> {
    let rows = || parts.iter().map(|part| part.rows.len());
    let at_once = parts.len().min(rayon::current_num_threads());
    let bytes = layout.memory(at_once, rows().max().unwrap_or_default());
    resources::require_memory(bytes, "writing the soft labels", "lower --threads")?;
    let knob = "set `soft_labels.top`, or name fewer `soft_labels.teachers`";
    let pairs = parts.iter().flat_map(|part| part.rows.clone()).map(|row| data.queries.tails(row).len());
    // Existing files are kept, or removed first.
    let more = layout.bytes(rows().sum(), pairs.sum()).saturating_sub(resources::occupied(folder));
    resources::require_disk(folder, more, "the soft labels", knob)
}

/// The recipe's teachers, or all finished teachers.
pub fn open_teachers(
    run: &Run,
    recipe: &Recipe,
    task: &mut Task,
    vocabulary: &Vocabulary,
) -> Result<Vec<TrainedTeacher>> {
    let mut modalities = match recipe.soft_labels.teachers.as_slice() {
        [] => run.finished("teachers")?,
        chosen => chosen.to_vec(),
    };
    modalities.sort();
    if modalities.is_empty() {
        return Err(Error::missing("no teacher has finished")
            .at(run.root().join("teachers"))
            .hint("run `dsom-teachers`"));
    }
    let mut teachers = Vec::with_capacity(modalities.len());
    for modality in modalities {
        let model = open_model(task, &run.teacher(&modality), vocabulary)?;
        teachers.push(TrainedTeacher { modality, model });
    }
    Ok(teachers)
}

/// Checks the row count, order of rows, layout and digests of a run's finished soft labels; returns the row count.
fn verify(run: &Run) -> Result<usize> {
    let folder = run.soft_labels();
    let manifest = manifest::verify(&folder)?;
    let (files, teachers) = labels::parts(&manifest, &folder)?;
    let mut task = Task::new(run, "dsom-soft-labels", folder, &(), 0);
    let data = Data::open(run, &mut task)?;
    SoftLabels::map(&files, teachers, &data)?;
    Ok(data.queries.len())
}
