//! Keys of the recipe as `--set KEY=VALUE`, as a person would type them.

use toml::{Table, Value};

/// The stages that a section of the recipe reaches: its own and all after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Level {
    /// `[import]`.
    Import,
    /// `[features]`.
    Features,
    /// `[teachers]`.
    Teachers,
    /// `[soft_labels]`.
    SoftLabels,
    /// `[distill]`.
    Distill,
}

impl Level {
    /// The level of a key; keys that no section owns are refused when the recipe is read.
    fn of(key: &str) -> Level {
        match key.split('.').next() {
            Some("import") => Level::Import,
            Some("features") => Level::Features,
            Some("teachers") => Level::Teachers,
            Some("soft_labels") => Level::SoftLabels,
            _ => Level::Distill,
        }
    }
}

/// Overrides in order; a later one of the same key replaces an earlier one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Overrides(Vec<(String, String)>);

impl Overrides {
    /// Of nested tables, later ones over earlier ones.
    pub fn of<'a>(tables: impl IntoIterator<Item = &'a Table>) -> Overrides {
        let mut overrides = Overrides::default();
        tables.into_iter().for_each(|table| overrides.add("", table));
        overrides
    }

    fn add(&mut self, prefix: &str, table: &Table) {
        for (name, value) in table {
            let key = if prefix.is_empty() { name.clone() } else { format!("{prefix}.{name}") };
            match value {
                Value::Table(table) => self.add(&key, table),
                value => {
                    self.0.retain(|(other, _)| *other != key);
                    self.0.push((key, plain(value)));
                }
            }
        }
    }

    /// Those of the sections up to `level`.
    pub fn up_to(&self, level: Level) -> Overrides {
        Overrides(self.0.iter().filter(|(key, _)| Level::of(key) <= level).cloned().collect())
    }

    /// As `KEY=VALUE`.
    pub fn sets(&self) -> Vec<String> {
        self.0.iter().map(|(key, value)| format!("{key}={value}")).collect()
    }
}

/// A value as one types it: text without quotation marks where it cannot be mistaken for something else.
fn plain(value: &Value) -> String {
    match value {
        Value::String(text) if format!("v = {text}").parse::<Table>().is_err() => text.clone(),
        value => value.to_string(),
    }
}

/// An argument as a shell takes it.
pub fn quoted(argument: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=+:,@%".contains(c);
    match !argument.is_empty() && argument.chars().all(plain) {
        true => argument.to_owned(),
        false => format!("'{}'", argument.replace('\'', "'\\''")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn overrides(text: &str) -> Overrides {
        Overrides::of([&text.parse::<Table>().unwrap()])
    }

    #[test]
    fn later_tables_win_and_keep_the_order_of_their_keys() {
        let first: Table = "distill = { gamma = 2, tau = 4 }".parse().unwrap();
        let second: Table = "distill.gamma = 8.5\nsoft_labels.teachers = [\"structural\"]".parse().unwrap();
        let sets = Overrides::of([&first, &second]).sets();
        assert_eq!(sets, ["distill.tau=4", "distill.gamma=8.5", "soft_labels.teachers=[\"structural\"]"]);
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
            "import.name = \"12\"\nimport.validation = \"holdout:0.2\"\ndistill.selection = \"all\"",
        );
        assert_eq!(
            written.sets(),
            ["distill.selection=all", "import.name=\"12\"", "import.validation=holdout:0.2"]
        );
        let recipe = recipe::Recipe::load(&[], &written.sets()).unwrap();
        assert_eq!(recipe.import.name.as_deref(), Some("12"));
    }

    #[test]
    fn shells_get_quotes_where_they_need_them() {
        assert_eq!(["a=1", "a=[\"b\"]", "it's", ""].map(quoted), ["a=1", "'a=[\"b\"]'", "'it'\\''s'", "''"]);
    }
}
