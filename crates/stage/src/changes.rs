//! Reasons why a stage is stale: changed parameters, changed inputs, and inputs whose own stage is stale.

use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use crate::manifest::{FILE, FileRecord, Manifest};
use crate::{Error, Result, Run};

/// The stage folders inside the run that hold at least one of `inputs`.
pub(crate) fn stages_of(run: &Run, inputs: &[FileRecord]) -> BTreeSet<PathBuf> {
    let paths = inputs.iter().map(|record| run.root().join(&record.path));
    paths
        .filter_map(|path| Some(path.parent()?.to_owned()))
        .filter(|folder| folder.starts_with(run.root()) && folder.join(FILE).is_file())
        .collect()
}

/// The stages that wrote at least one of `inputs` and are stale, each with the reason.
pub(crate) fn stale_stages(run: &Run, inputs: &[FileRecord]) -> impl Iterator<Item = String> {
    stages_of(run, inputs).into_iter().filter_map(move |folder| {
        let name = folder.strip_prefix(run.root()).unwrap_or(&folder).display();
        let reason = Manifest::read(&folder).ok()?.stale(run)?;
        Some(format!("`{name}` is stale: {reason}"))
    })
}

impl Manifest {
    /// The reason why this stage is out of date, if it is: an input changed, or the stage that wrote an input is stale.
    pub fn stale(&self, run: &Run) -> Option<String> {
        for record in &self.inputs {
            let path = run.root().join(&record.path);
            let above = path.parent()?;
            let (Ok(current), Some(name)) = (Manifest::read(above), path.file_name()) else { continue };
            if !current.wrote(record, &name.to_string_lossy()) {
                return Some(format!("its input `{}` changed", record.path));
            }
        }
        stale_stages(run, &self.inputs).next()
    }

    /// Refuses the stage in `folder` if the stage, or a stage that it read, was made from another graph than the run
    /// has now: its ids would name wrong entities. A stage that recorded no file of a graph passes.
    ///
    /// # Errors
    /// [`crate::Kind::Data`] if the digest of a file of the graph is not the digest that the stage recorded;
    /// [`crate::Kind::Missing`] if the run has no graph.
    pub fn require_same_graph(&self, run: &Run, folder: &Path) -> Result<()> {
        let Some(input) = self.foreign_graph(run, &Manifest::read(&run.graph())?) else { return Ok(()) };
        let message = format!("made from another graph: `{input}` is not the file that was read then");
        let hint = format!("rerun `{}`, or put the graph back that it was made from", self.program);
        Err(Error::data(message).at(folder).hint(hint))
    }

    /// The first input, of this stage or a stage that it read, in the graph's folder that `graph` did not write.
    fn foreign_graph(&self, run: &Run, graph: &Manifest) -> Option<String> {
        self.inputs.iter().find_map(|record| {
            let path = run.root().join(&record.path);
            let (above, name) = (path.parent()?, path.file_name()?.to_str()?);
            if above == run.graph() {
                return (!graph.wrote(record, name)).then(|| record.path.clone());
            }
            // A stage that was written anew since then does not show which graph its old outputs came from.
            let above = Manifest::read(above).ok().filter(|above| above.wrote(record, name))?;
            above.foreign_graph(run, graph)
        })
    }

    /// Tells whether this stage's output `name` has the bytes of `record`.
    fn wrote(&self, record: &FileRecord, name: &str) -> bool {
        self.outputs.iter().any(|output| output.path == name && output.sha256 == record.sha256)
    }
}

pub(crate) fn changed_inputs(before: &[FileRecord], now: &[FileRecord]) -> Vec<String> {
    let [before, now] = [before, now].map(|records| -> BTreeMap<String, &String> {
        records.iter().map(|record| (record.path.clone(), &record.sha256)).collect()
    });
    let changes = differences(&before, &now).map(|(path, was, is)| match (was, is) {
        (None, _) => format!("input `{path}` is new"),
        (_, None) => format!("input `{path}` is gone"),
        _ => format!("input `{path}` changed"),
    });
    changes.collect()
}

pub(crate) fn changed_parameters(before: &Value, now: &Value) -> Vec<String> {
    let (before, now) = (flatten(before), flatten(now));
    let show = |value: Option<&Value>| value.map_or("unset".to_owned(), Value::to_string);
    differences(&before, &now)
        .map(|(name, was, is)| format!("parameter `{name}` was {}, now {}", show(was), show(is)))
        .collect()
}

/// The keys whose values differ between the two maps, each with its value in both maps.
fn differences<'a, V: PartialEq>(
    before: &'a BTreeMap<String, V>,
    now: &'a BTreeMap<String, V>,
) -> impl Iterator<Item = (&'a String, Option<&'a V>, Option<&'a V>)> {
    let keys: BTreeSet<&String> = before.keys().chain(now.keys()).collect();
    keys.into_iter().map(|key| (key, before.get(key), now.get(key))).filter(|(_, was, is)| was != is)
}

/// Flattens `{"a": {"b": 1}}` to `{"a.b": 1}` and leaves out null values.
fn flatten(value: &Value) -> BTreeMap<String, Value> {
    let mut flat = BTreeMap::new();
    for (name, value) in value.as_object().into_iter().flatten() {
        if value.is_object() {
            flat.extend(flatten(value).into_iter().map(|(inner, value)| (format!("{name}.{inner}"), value)));
        } else if !value.is_null() {
            flat.insert(name.clone(), value.clone());
        }
    }
    flat
}
