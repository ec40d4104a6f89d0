//! Keys of the recipe as `--set KEY=VALUE`, as a person would type them.

use toml::{Table, Value};

use crate::spec::Level;

impl Level {
    /// The level of a section; an unknown section is refused when the recipe is read.
    fn of(key: &str) -> Level {
        match key {
            "import" => Level::Import,
            "features" => Level::Features,
            "teachers" => Level::Teachers,
            "soft_labels" => Level::SoftLabels,
            _ => Level::Distill,
        }
    }
}

/// Keys of the recipe with their values, nested as in a recipe.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Overrides(Table);

impl Overrides {
    /// Merges some tables; later tables override earlier ones, as recipes do.
    pub(crate) fn of<'a>(tables: impl IntoIterator<Item = &'a Table>) -> Overrides {
        let mut overrides = Table::new();
        tables.into_iter().for_each(|table| recipe::merge(&mut overrides, table.clone()));
        Overrides(overrides)
    }

    /// Keeps the sections up to `level`.
    pub(crate) fn up_to(&self, level: Level) -> Overrides {
        let kept = self.0.iter().filter(|(key, _)| Level::of(key) <= level);
        Overrides(kept.map(|(key, value)| (key.clone(), value.clone())).collect())
    }

    pub(crate) fn sets(&self) -> Vec<String> {
        let mut sets = Vec::new();
        list(&self.0, "", &mut sets);
        sets
    }
}

fn list(table: &Table, prefix: &str, into: &mut Vec<String>) {
    for (name, value) in table {
        match value {
            Value::Table(table) => list(table, &format!("{prefix}{name}."), into),
            value => into.push(format!("{prefix}{name}={}", plain(value))),
        }
    }
}

/// A value as a person types it: text has no quotation marks unless it could be mistaken for another type.
fn plain(value: &Value) -> String {
    match value {
        Value::String(text) if format!("v = {text}").parse::<Table>().is_err() => text.clone(),
        value => value.to_string(),
    }
}

/// An argument as a shell accepts it.
pub(crate) fn quoted(argument: &str) -> String {
    let is_plain = argument.chars().all(|c| c.is_ascii_alphanumeric() || "-_./=+:,@%".contains(c));
    if is_plain && !argument.is_empty() {
        return argument.to_owned();
    }
    format!("'{}'", argument.replace('\'', "'\\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn overrides(text: &str) -> Overrides {
        Overrides::of([&text.parse::<Table>().unwrap()])
    }

    #[test]
    fn later_tables_win_and_another_kind_replaces_what_was_said_of_the_first() {
        let first: Table = "distill.term = { kind = \"dkd\", alpha = 2 }\nteachers.rank = 8".parse().unwrap();
        let second: Table =
            "distill.term.alpha = 8.5\nsoft_labels.teachers = [\"structural\"]".parse().unwrap();
        let third: Table = "distill.term = { kind = \"kd\", tau = 2 }".parse().unwrap();
        let sets = Overrides::of([&first, &second]).sets();
        assert!(sets.contains(&"distill.term.alpha=8.5".to_owned()), "{sets:?}");
        let sets = Overrides::of([&first, &second, &third]).sets();
        let expected = [
            "distill.term.kind=kd",
            "distill.term.tau=2",
            "soft_labels.teachers=[\"structural\"]",
            "teachers.rank=8",
        ];
        assert_eq!(sets, expected);
    }

    #[test]
    fn levels_reach_down() {
        let all =
            overrides("teachers.rank = 8\ndistill.rank = 8\nsoft_labels.teachers = []\nimport.name = \"x\"");
        assert_eq!(all.up_to(Level::Features).sets(), ["import.name=x"]);
        assert_eq!(all.up_to(Level::SoftLabels).sets().len(), 3);
    }

    #[test]
    fn what_the_recipe_reads_is_what_was_meant() {
        let written = overrides(
            "import.name = \"12\"\nimport.validation = \"holdout:0.2\"\ndistill.selection.kind = \"all\"",
        );
        assert_eq!(
            written.sets(),
            ["distill.selection.kind=all", "import.name=\"12\"", "import.validation=holdout:0.2"]
        );
        let recipe = recipe::Recipe::load(&[], &written.sets()).unwrap();
        assert_eq!(recipe.import.name.as_deref(), Some("12"));
    }

    #[test]
    fn shells_get_quotes_where_they_need_them() {
        assert_eq!(["a=1", "a=[\"b\"]", "it's", ""].map(quoted), ["a=1", "'a=[\"b\"]'", "'it'\\''s'", "''"]);
    }
}
