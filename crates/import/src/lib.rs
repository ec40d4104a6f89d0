//! Stage 1: makes a graph from a published dataset.
//!
//! Reads a raw folder in any published format ([`mkg::raw`]), decides which triples are validation,
//! [audits](mkg::audit) the oddities of the dataset, and writes `graph/`: Parquet tables of entities, relations and
//! triples, and `audit.json`.

pub mod command;
pub mod report;

use mkg::Split;
use mkg::audit::{self, Audit};
use mkg::graph::write_triples;
use mkg::raw::{Dataset, ImageFile, Plan, SplitTriples};
use program::print_line;
use serde_json::{Value, json};
use stage::files::write_json;
use stage::task::Task;
use stage::{Error, Result, interrupt};
use std::path::Path;

use command::Arguments;
use report::render;

/// The largest number of image files that are separate inputs; a larger folder is one input, a listing with sizes.
const SINGLE_IMAGES: usize = 2000;

/// Reads the raw folder of `args` and writes the graph, unless it is fresh.
pub(crate) fn import(args: &Arguments) -> Result<()> {
    let recipe = args.common.recipe()?;
    let mut import = recipe.import.clone();
    import.validation = args.validation.unwrap_or(import.validation);
    import.format = args.format.unwrap_or(import.format);
    let plan = Plan::resolve(&args.raw, &import)?;
    let run = args.common.run();
    let mut task = Task::new(&run, "dsom-import", run.graph(), &import, recipe.seed);
    // The digests come before the reading, so a file that changes in between makes the graph stale.
    for file in plan.files() {
        task.external_input(&plan.path(&file), label(&file))?;
    }
    let dataset = Dataset::read(&plan)?;
    interrupt::check()?;
    let parts = SplitTriples::choose(&dataset, &import, recipe.seed)?;
    let audit = Audit::new(&dataset, &parts);
    add_images(&plan, &dataset.image_files, &mut task)?;
    let Some((work, images)) = args.common.begin(task, || images_root(&plan))? else { return Ok(()) };
    dataset.vocabulary.write(&work.path(""))?;
    for (split, triples) in Split::ALL.into_iter().zip([&parts.train, &parts.valid, &parts.test]) {
        interrupt::check()?;
        write_triples(&work.path(&split.file()), triples)?;
    }
    write_json(&work.path(audit::FILE), &audit)?;
    work.finish(summary(images, &dataset, &parts, &audit))?;
    if args.common.is_quiet() {
        audit.warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
        return Ok(());
    }
    print_line(&render(&audit))
}

/// Adds the images as inputs: one by one, or as a listing if there are many.
fn add_images(plan: &Plan, images: &[ImageFile], task: &mut Task) -> Result<()> {
    let folder = plan.import.images.as_deref().unwrap_or("images".as_ref());
    if images.len() > SINGLE_IMAGES {
        let lines = images.iter().map(|file| format!("{:?}\t{}\n", file.path, file.bytes));
        task.external_listing(&lines.collect::<String>(), label(&folder.join("(listing)")));
        return Ok(());
    }
    for file in images.iter().map(|file| folder.join(&file.path)) {
        task.external_input(&plan.path(&file), label(&file))?;
    }
    Ok(())
}

/// A raw file's name relative to the raw folder, so that a moved folder is still the same input.
fn label(file: &Path) -> String {
    format!("raw/{}", file.display())
}

/// The absolute path of the image folder, for later stages.
fn images_root(plan: &Plan) -> Result<Option<String>> {
    let Some(folder) = &plan.import.images else { return Ok(None) };
    let path = plan.path(folder);
    let path = path.canonicalize().map_err(|e| Error::io(&path, e))?;
    let root = path.to_str().map(str::to_owned);
    let error = || Error::usage("the path of the images is not UTF-8").at(&path).hint("rename its folders");
    root.ok_or_else(error).map(Some)
}

fn summary(images: Option<String>, dataset: &Dataset, parts: &SplitTriples, audit: &Audit) -> Value {
    json!({
        "name": dataset.name,
        "entities": audit.entities,
        "entities_listed": dataset.listed,
        "relations": audit.relations,
        "train": parts.train.len(),
        "valid": parts.valid.len(),
        "test": parts.test.len(),
        "validation": String::from(parts.validation.used),
        "names": audit.coverage.names,
        "descriptions": audit.coverage.descriptions,
        "captions": audit.coverage.captions,
        "entities_with_images": audit.coverage.entities_with_images,
        "images": audit.coverage.images,
        "images_root": images,
    })
}
