//! Reading a recipe: defaults, then files, then `--set`. Errors name a key, its file and its line.

use std::path::PathBuf;

use stage::{Error, Result, files};
use toml::de::DeTable;
use toml::{Table, Value};

use crate::Recipe;
use crate::check::{Problem, Valid};

/// Keys whose value decides which other keys their table has.
const TAGS: [&str; 2] = ["kind", "from"];
/// The hint of every error about a key or a value.
const HINT: &str = "pipelines/default.toml lists every key";

impl Recipe {
    /// Reads recipe files, each overriding the files before it, then the `KEY=VALUE` overrides.
    ///
    /// # Errors
    /// [`stage::Kind::Usage`] for a key that does not exist or a value that no stage can use.
    pub fn load(paths: &[PathBuf], sets: &[String]) -> Result<Recipe> {
        let mut table = Table::try_from(Recipe::default()).expect("a recipe is plain data");
        for path in paths {
            let text = files::read_text(path)?;
            let overlay = text.parse().map_err(|e: toml::de::Error| {
                let line = e.span().map(|span| line_at(&text, span.start));
                Error::usage(e.message()).at(path).hint(HINT).maybe_line(line)
            })?;
            // Each file is read separately, so that an error names the right file.
            read_over(&mut table, &overlay).map_err(|problem| {
                let error = Error::usage(problem.to_string()).at(path).hint(HINT);
                error.maybe_line(line_of(&text, &problem.key))
            })?;
        }
        let mut overlay = Table::new();
        for set in sets {
            merge(&mut overlay, assignment(set)?);
        }
        read_over(&mut table, &overlay).map_err(|problem| Error::usage(problem.to_string()).hint(HINT))
    }
}

/// Merges a recipe's table into another one, key by key. A table with another `kind` (or `from`) replaces the old
/// table, because its keys differ.
pub fn merge(into: &mut Table, from: Table) {
    for (key, value) in from {
        match (into.get_mut(&key), value) {
            (Some(Value::Table(below)), Value::Table(above)) if !is_other_kind(below, &above) => {
                merge(below, above);
            }
            (_, value) => {
                into.insert(key, value);
            }
        }
    }
}

fn is_other_kind(below: &Table, above: &Table) -> bool {
    TAGS.iter().any(|tag| matches!((below.get(*tag), above.get(*tag)), (Some(a), Some(b)) if a != b))
}

/// Merges `overlay` into `table` and reads the recipe.
fn read_over(table: &mut Table, overlay: &Table) -> Valid<Recipe> {
    let base = table.clone();
    merge(table, overlay.clone());
    read(table).map_err(|mut problem| {
        if problem.key.is_empty() {
            problem.key = culprit(&base, overlay, &problem.message).unwrap_or_default();
        }
        problem
    })
}

fn read(table: &Table) -> Valid<Recipe> {
    let recipe: Recipe =
        table.clone().try_into().map_err(|e: toml::de::Error| Problem::new("", e.message()))?;
    // The recipe as JSON has every known key, also keys without a value; any other key does not exist.
    let known = serde_json::to_value(&recipe).expect("a recipe is plain data");
    refuse_unknown_keys(&Value::Table(table.clone()), &known, "")?;
    recipe.check()?;
    Ok(recipe)
}

/// Refuses a key of `written` that `known` does not have.
fn refuse_unknown_keys(written: &Value, known: &serde_json::Value, path: &str) -> Valid {
    match written {
        Value::Table(table) => table.iter().try_for_each(|(name, value)| {
            let key = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
            match known.get(name) {
                Some(known) => refuse_unknown_keys(value, known, &key),
                None => Err(Problem::new(&key, &format!("no such key; there are: {}", names(known)))),
            }
        }),
        Value::Array(items) => {
            let mut pairs = items.iter().zip(known.as_array().into_iter().flatten());
            pairs.try_for_each(|(item, known)| refuse_unknown_keys(item, known, path))
        }
        _ => Ok(()),
    }
}

fn names(known: &serde_json::Value) -> String {
    known.as_object().into_iter().flat_map(|keys| keys.keys()).cloned().collect::<Vec<_>>().join(", ")
}

/// The key of `overlay` that causes this message: without it, the recipe does not fail with the message. Of several
/// such keys, the first whose table alone causes the message, or else the first.
fn culprit(base: &Table, overlay: &Table, message: &str) -> Option<String> {
    let mut keys = keys_of(overlay, "");
    keys.retain(|key| {
        let mut without = overlay.clone();
        remove(&mut without, key);
        !fails_alike(base, without, message)
    });
    let alone = keys.iter().position(|key| fails_alike(base, table_of(overlay, key), message));
    keys.into_iter().nth(alone.unwrap_or_default())
}

fn fails_alike(base: &Table, overlay: Table, message: &str) -> bool {
    let mut table = base.clone();
    merge(&mut table, overlay);
    read(&table).is_err_and(|problem| problem.message == message)
}

/// A copy of `table` with only the inner table that holds `key`.
fn table_of(table: &Table, key: &str) -> Table {
    let Some((name, rest)) = key.split_once('.') else { return table.clone() };
    let inner = table.get(name).and_then(Value::as_table);
    inner.map(|inner| (name.to_owned(), Value::Table(table_of(inner, rest)))).into_iter().collect()
}

/// The keys of a table, tags last; the keys of an inner table come before the inner table's own key.
fn keys_of(table: &Table, prefix: &str) -> Vec<String> {
    let (tags, others): (Vec<_>, Vec<_>) = table.iter().partition(|(name, _)| TAGS.contains(&name.as_str()));
    let keys = others.into_iter().chain(tags).flat_map(|(name, value)| {
        let key = format!("{prefix}{name}");
        let inner = value.as_table().map(|inner| keys_of(inner, &format!("{key}.")));
        inner.into_iter().flatten().chain([key]).collect::<Vec<_>>()
    });
    keys.collect()
}

fn remove(table: &mut Table, key: &str) {
    match key.split_once('.') {
        None => drop(table.remove(key)),
        Some((name, rest)) => {
            if let Some(Value::Table(table)) = table.get_mut(name) {
                remove(table, rest);
            }
        }
    }
}

/// The line of a key, or of the innermost existing table on its path.
fn line_of(text: &str, key: &str) -> Option<usize> {
    let document = DeTable::parse(text).ok()?;
    let (mut table, mut start) = (document.get_ref(), None);
    for name in key.split('.') {
        let Some((found, value)) = table.iter().find(|(key, _)| key.get_ref() == name) else { break };
        start = Some(found.span().start);
        let Some(inner) = value.get_ref().as_table() else { break };
        table = inner;
    }
    start.map(|start| line_at(text, start))
}

fn line_at(text: &str, byte: usize) -> usize {
    1 + text[..byte].matches('\n').count()
}

/// Parses `a.b=1` as `{ a: { b: 1 } }`; a value that is not valid TOML becomes a string.
fn assignment(text: &str) -> Result<Table> {
    let (key, value) = text.split_once('=').ok_or_else(|| {
        Error::usage(format!("`--set {text}`: expected KEY=VALUE"))
            .hint("for example --set distill.term.gamma=4")
    })?;
    // A second line of the value would define another key.
    let parsed = format!("v = {value}").parse::<Table>().ok().filter(|table| table.len() == 1);
    let parsed = parsed.and_then(|mut table| table.remove("v"));
    let value = parsed.unwrap_or_else(|| Value::String(value.to_owned()));
    let table = |name: &str, value| Table::from_iter([(name.to_owned(), value)]);
    let mut names = key.rsplit('.');
    let innermost = table(names.next().unwrap_or_default(), value);
    Ok(names.fold(innermost, |inner, name| table(name, Value::Table(inner))))
}

#[cfg(test)]
mod tests;
