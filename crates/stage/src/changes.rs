//! Reasons why a stage is stale: changed parameters, changed inputs, and inputs whose own stage is stale.

use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::Run;
use crate::manifest::{FILE, FileRecord, Manifest};

/// The stage folders inside the run that hold any of `inputs`.
pub(crate) fn stages_of(run: &Run, inputs: &[FileRecord]) -> Vec<PathBuf> {
    let mut folders: Vec<PathBuf> = inputs
        .iter()
        .map(|record| run.root().join(&record.path))
        .filter_map(|path| Some(path.parent()?.to_owned()))
        .filter(|folder| folder.starts_with(run.root()) && folder.join(FILE).is_file())
        .collect();
    folders.sort();
    folders.dedup();
    folders
}

/// The reason why a finished stage no longer matches the stages it read from, if so; looks all the way up.
pub(crate) fn upstream_change(run: &Run, folder: &Path) -> Option<String> {
    inputs_change(run, &Manifest::read(folder).ok()?)
}

/// The same of a stage whose manifest was read.
pub(crate) fn inputs_change(run: &Run, manifest: &Manifest) -> Option<String> {
    for record in &manifest.inputs {
        let path = run.root().join(&record.path);
        let above = path.parent()?;
        let (Ok(current), Some(name)) = (Manifest::read(above), path.file_name()) else { continue };
        match current.outputs.iter().find(|output| *output.path == *name.to_string_lossy()) {
            Some(output) if output.sha256 == record.sha256 => {}
            _ => return Some(format!("its input `{}` changed", record.path)),
        }
    }
    stages_of(run, &manifest.inputs).iter().find_map(|above| {
        let name = above.strip_prefix(run.root()).unwrap_or(above).display();
        upstream_change(run, above).map(|reason| format!("`{name}` is stale: {reason}"))
    })
}

/// The input of `manifest`, or of a stage that it came from, that lies in the graph's folder and is not what `graph` wrote.
pub(crate) fn foreign_graph(run: &Run, manifest: &Manifest, graph: &Manifest) -> Option<String> {
    let wrote = |stage: &Manifest, record: &FileRecord, name: &str| {
        stage.outputs.iter().any(|output| output.path == name && output.sha256 == record.sha256)
    };
    manifest.inputs.iter().find_map(|record| {
        let path = run.root().join(&record.path);
        let (above, name) = (path.parent()?, path.file_name()?.to_str()?);
        if above == run.graph() {
            return (!wrote(graph, record, name)).then(|| record.path.clone());
        }
        // What a stage wrote anew since then tells nothing of what was read.
        let above = Manifest::read(above).ok().filter(|above| wrote(above, record, name))?;
        foreign_graph(run, &above, graph)
    })
}

pub(crate) fn changed_inputs(before: &[FileRecord], now: &[FileRecord]) -> Vec<String> {
    let by_path = |records: &[FileRecord]| -> BTreeMap<String, String> {
        records.iter().map(|record| (record.path.clone(), record.sha256.clone())).collect()
    };
    let (before, now) = (by_path(before), by_path(now));
    let changed = now.iter().filter_map(|(path, sha256)| match before.get(path) {
        None => Some(format!("input `{path}` is new")),
        Some(was) if was != sha256 => Some(format!("input `{path}` changed")),
        Some(_) => None,
    });
    let gone =
        before.keys().filter(|path| !now.contains_key(*path)).map(|path| format!("input `{path}` is gone"));
    changed.chain(gone).collect()
}

pub(crate) fn changed_parameters(before: &Value, now: &Value) -> Vec<String> {
    let (before, now) = (flatten(before), flatten(now));
    let names: std::collections::BTreeSet<&String> = before.keys().chain(now.keys()).collect();
    let show = |value: Option<&Value>| value.map_or("unset".to_owned(), Value::to_string);
    names
        .into_iter()
        .filter(|name| before.get(*name) != now.get(*name))
        .map(|name| format!("parameter `{name}` was {}, now {}", show(before.get(name)), show(now.get(name))))
        .collect()
}

/// `{"a": {"b": 1}}` as `{"a.b": 1}`.
fn flatten(value: &Value) -> BTreeMap<String, Value> {
    fn walk(prefix: &str, value: &Value, into: &mut BTreeMap<String, Value>) {
        match value {
            Value::Object(fields) => fields.iter().for_each(|(name, value)| {
                let path = if prefix.is_empty() { name.clone() } else { format!("{prefix}.{name}") };
                walk(&path, value, into);
            }),
            Value::Null => {}
            other => {
                into.insert(prefix.to_owned(), other.clone());
            }
        }
    }
    let mut flat = BTreeMap::new();
    walk("", value, &mut flat);
    flat
}
