//! The work: find, read, check, write.

use mkg::Split;
use mkg::audit::Audit;
use mkg::graph::write_triples;
use mkg::raw::{Dataset, Plan, SplitTriples};
use program::print_line;
use recipe::Import;
use serde_json::{Value, json};
use stage::task::Task;
use stage::work::Work;
use stage::{Error, Result, interrupt};
use std::fmt::Write;
use std::path::{Path, PathBuf};

use crate::command::Arguments;
use crate::report::render;

/// Up to so many image files are inputs of their own; beyond, a listing with their sizes stands for all.
const SINGLE_IMAGES: usize = 2000;

/// Reads the raw folder that `args` name and writes the graph, unless it is fresh.
pub(crate) fn import(args: &Arguments) -> Result<()> {
    let (recipe, import) = args.recipe()?;
    let plan = Plan::resolve(&args.raw, &import)?;
    let source = Source::read(&plan, &import, recipe.seed)?;
    let run = args.common.run();
    let mut task = Task::new(&run, "dsom-import", run.graph(), &import, recipe.seed);
    source.add_inputs(&plan, &mut task)?;
    let Some((work, ())) = args.common.begin(task, || Ok(()))? else { return Ok(()) };
    source.write(&work)?;
    work.finish(source.summary(&plan)?)?;
    if args.common.is_quiet() {
        source.audit.warnings.iter().for_each(|warning| tracing::warn!("{warning}"))
    } else {
        print_line(&render(&source.audit))
    }
    Ok(())
}

/// A dataset, read and checked: all that will be written.
struct Source {
    dataset: Dataset,
    parts: SplitTriples,
    audit: Audit,
}

impl Source {
    fn read(plan: &Plan, import: &Import, seed: u64) -> Result<Source> {
        let dataset = Dataset::read(plan)?;
        interrupt::check()?;
        let parts = SplitTriples::choose(&dataset, import, seed)?;
        let audit = Audit::new(&dataset, &parts);
        Ok(Source { dataset, parts, audit })
    }

    /// Names every raw file relative to the raw folder, so that a folder that moved is the same input.
    fn add_inputs(&self, plan: &Plan, task: &mut Task) -> Result<()> {
        let label = |file: &Path| format!("raw/{}", file.display());
        for file in plan.files() {
            task.external_input(&plan.path(&file), label(&file))?;
        }
        let Some(folder) = &plan.import.images else { return Ok(()) };
        let files = &self.dataset.image_files;
        if files.len() <= SINGLE_IMAGES {
            for file in files {
                let file = folder.join(&file.path);
                task.external_input(&plan.path(&file), label(&file))?;
            }
            return Ok(());
        }
        let mut listing = String::new();
        for file in files {
            let _ = writeln!(listing, "{:?}\t{}", file.path, file.bytes);
        }
        task.external_listing(&listing, label(&folder.join("(listing)")));
        Ok(())
    }

    fn write(&self, work: &Work) -> Result<()> {
        let folder = work.path("");
        self.dataset.vocabulary.write(&folder)?;
        let SplitTriples { train, valid, test, .. } = &self.parts;
        for (split, triples) in Split::ALL.into_iter().zip([train, valid, test]) {
            interrupt::check()?;
            write_triples(&work.path(&split.file()), triples)?;
        }
        self.audit.write(&folder)
    }

    fn summary(&self, plan: &Plan) -> Result<Value> {
        Ok(json!({
            "name": self.dataset.name,
            "entities": self.audit.entities,
            "entities_listed": self.dataset.listed,
            "relations": self.audit.relations,
            "train": self.parts.train.len(),
            "valid": self.parts.valid.len(),
            "test": self.parts.test.len(),
            "validation": String::from(self.parts.validation.used),
            "names": self.audit.coverage.names,
            "descriptions": self.audit.coverage.descriptions,
            "captions": self.audit.coverage.captions,
            "entities_with_images": self.audit.coverage.entities_with_images,
            "images": self.audit.coverage.images,
            "images_root": self.images_root(plan)?,
        }))
    }

    /// The folder in which the paths in the entity table begin.
    fn images_root(&self, plan: &Plan) -> Result<Option<PathBuf>> {
        let Some(folder) = &plan.import.images else { return Ok(None) };
        let path = plan.path(folder);
        Ok(Some(path.canonicalize().map_err(|e| Error::io(&path, e))?))
    }
}
