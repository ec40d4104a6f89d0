//! What became of a modality's source, and the stage's folder that tells it: all of it, or a shard's share.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use stage::files::{read_json, write_json};
use stage::work::Work;
use stage::{Error, Modality, Result};
use std::path::Path;

use crate::images::Report;
use crate::{FeatureTable, journal, table};

/// What a shard's folder holds beside the rows.
const SHARD: &str = "shard.json";

/// Features, and what is told of how they were made.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// The features.
    pub table: FeatureTable,
    /// Which entities were looked at here.
    pub covered: Covered,
    /// For the summary: the same in all shards.
    pub about: Value,
    /// What became of the images, where it was images.
    pub report: Option<Report>,
}

/// Which entities were looked at.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Covered {
    /// Their ids. Some may have turned out to be absent.
    pub entities: Vec<usize>,
    /// How many there are to look at in all shards together.
    pub of: usize,
}

/// The content of [`SHARD`]; row i of the shard's table is the i-th covered entity's.
#[derive(Serialize, Deserialize)]
struct Share {
    covered: Covered,
    about: Value,
    report: Option<Report>,
}

impl Outcome {
    /// Writes the table and finishes the stage's folder.
    pub fn finish(self, modality: &Modality, work: Work) -> Result<()> {
        let table = &self.table;
        table.write(&work.path(table::FILE), modality)?;
        let mut summary = json!({
            "entities": table.entities(),
            "present": table.count_present(),
            "coverage": table.coverage(),
            "width": table.width,
        });
        let report = self.report.as_ref().map_or(json!({}), Report::summary);
        for about in [self.about, report] {
            if let (Value::Object(summary), Value::Object(about)) = (&mut summary, about) {
                summary.extend(about);
            }
        }
        if let Some(report) = &self.report {
            report.write(&work, modality)?;
        }
        let (present, entities, width) = (table.count_present(), table.entities(), table.width);
        tracing::info!("{modality}: {present} of {entities} entities, width {width}");
        close(work, summary)
    }

    /// Writes the rows of the covered entities and finishes the shard's folder.
    pub fn finish_shard(self, modality: &Modality, work: Work) -> Result<()> {
        let entities = &self.covered.entities;
        let mut rows = FeatureTable::absent(entities.len(), self.table.width);
        for (row, entity) in entities.iter().enumerate() {
            if self.table.present[*entity] {
                rows.set(row, self.table.row(*entity));
            }
        }
        rows.write(&work.path(table::FILE), modality)?;
        let summary =
            json!({ "covered": entities.len(), "of": self.covered.of, "present": rows.count_present() });
        tracing::info!("{modality}: {} of {} entities to encode", entities.len(), self.covered.of);
        let share = Share { covered: self.covered, about: self.about, report: self.report };
        write_json(&work.path(SHARD), &share)?;
        close(work, summary)
    }

    /// What the finished shards in `folders` are together, of a graph with so many `entities`.
    ///
    /// # Errors
    /// [`stage::Kind::Data`] where an entity is in no shard or in two, or shards do not fit each other.
    pub fn merge(folders: &[impl AsRef<Path>], entities: usize) -> Result<Outcome> {
        let (mut merged, mut reports) = (None::<Outcome>, Vec::new());
        let mut owner: Vec<Option<&Path>> = vec![None; entities];
        for folder in folders.iter().map(AsRef::as_ref) {
            let mut share: Share = read_json(&folder.join(SHARD))?;
            let ids = &share.covered.entities;
            for id in ids {
                let owner = owner.get_mut(*id);
                let owner = owner.ok_or_else(|| {
                    Error::data(format!("entity {id}, but the graph has {entities}")).at(folder)
                })?;
                if let Some(other) = owner.replace(folder) {
                    let message = format!("entity {id} is in {} as well", other.display());
                    return Err(Error::data(message).at(folder));
                }
            }
            let rows = FeatureTable::read(&folder.join(table::FILE), ids.len())?;
            let whole = merged.get_or_insert_with(|| Outcome {
                table: FeatureTable::absent(entities, rows.width),
                covered: Covered { entities: Vec::new(), of: share.covered.of },
                about: share.about.clone(),
                report: None,
            });
            reports.extend(share.report.take());
            whole.add(&rows, share.covered).map_err(|e| e.at(folder))?;
        }
        let mut merged = merged.ok_or_else(|| Error::usage("no shards to merge"))?;
        merged.report = Some(reports).filter(|reports| !reports.is_empty()).map(Report::of_groups);
        match (merged.covered.entities.len(), merged.covered.of) {
            (found, of) if found != of => {
                Err(Error::data(format!("{} shards cover {found} of {of} entities", folders.len())))
            }
            _ => Ok(merged),
        }
    }

    fn add(&mut self, rows: &FeatureTable, covered: Covered) -> Result<()> {
        let differ = |what: &str, a: usize, b: usize| {
            let message = format!("{what} {a}, in the shards before it {b}");
            Err(Error::data(message).hint("make all shards with the same recipe, encoder and program"))
        };
        if rows.width != self.table.width {
            return differ("width", rows.width, self.table.width);
        }
        if covered.of != self.covered.of {
            return differ("entities to encode", covered.of, self.covered.of);
        }
        for (row, entity) in covered.entities.iter().enumerate().filter(|(row, _)| rows.present[*row]) {
            self.table.set(*entity, rows.row(row));
        }
        self.covered.entities.extend(covered.entities);
        Ok(())
    }
}

/// Ends the stage; the finished batches are in its outputs now.
fn close(work: Work, summary: Value) -> Result<()> {
    let journal = work.path(journal::FILE);
    work.finish(summary)?;
    match std::fs::remove_file(&journal) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(Error::io(&journal, e)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn share(folder: &Path, ids: &[usize], of: usize, width: usize) {
        let mut rows = FeatureTable::absent(ids.len(), width);
        ids.iter().enumerate().skip(1).for_each(|(row, id)| rows.set(row, &vec![*id as f32 + 1.0; width]));
        std::fs::create_dir_all(folder).unwrap();
        rows.write(&folder.join(table::FILE), &"visual".parse().unwrap()).unwrap();
        let covered = Covered { entities: ids.to_vec(), of };
        let report = Report { copies: 1, ..Report::default() };
        let share = Share { covered, about: json!({ "encoder": "x" }), report: Some(report) };
        write_json(&folder.join(SHARD), &share).unwrap();
    }

    /// Merges shards that cover these entities of 4 to encode, in a graph of 6.
    fn merged(shards: &[&[usize]]) -> Result<Outcome> {
        let dir = tempfile::tempdir().unwrap();
        let folders: Vec<_> = (0..shards.len()).map(|i| dir.path().join(i.to_string())).collect();
        folders.iter().zip(shards).for_each(|(folder, ids)| share(folder, ids, 4, 2));
        Outcome::merge(&folders, 6)
    }

    #[test]
    fn shards_become_one_table_and_one_report() {
        let outcome = merged(&[&[4, 0], &[5, 2]]).unwrap();
        assert_eq!(outcome.table.present, [true, false, true, false, false, false]);
        assert_eq!((outcome.table.row(0), outcome.table.row(2)), ([1.0; 2].as_slice(), [3.0; 2].as_slice()));
        assert_eq!((outcome.report.unwrap().copies, outcome.about["encoder"].as_str()), (2, Some("x")));
    }

    #[test]
    fn an_entity_in_no_shard_or_in_two_or_beyond_the_graph_is_named() {
        let message = |shards: &[&[usize]]| merged(shards).unwrap_err().to_string();
        assert!(message(&[&[4, 0], &[5]]).ends_with("2 shards cover 3 of 4 entities"));
        let twice = message(&[&[4, 0], &[0, 2]]);
        assert!(twice.contains("entity 0 is in ") && twice.ends_with("0 as well"), "{twice}");
        assert!(message(&[&[4, 9], &[0, 2]]).ends_with("entity 9, but the graph has 6"));
        assert_eq!(merged(&[]).unwrap_err().kind(), stage::Kind::Usage);
    }

    #[test]
    fn shards_that_do_not_fit_each_other_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let folders = ["a", "b"].map(|name| dir.path().join(name));
        share(&folders[0], &[0, 1], 4, 2);
        share(&folders[1], &[2, 3], 4, 3);
        let error = Outcome::merge(&folders, 6).unwrap_err().to_string();
        assert!(error.ends_with("b: width 3, in the shards before it 2"), "{error}");
        share(&folders[1], &[2, 3], 5, 2);
        let error = Outcome::merge(&folders, 6).unwrap_err().to_string();
        assert!(error.ends_with("entities to encode 5, in the shards before it 4"), "{error}");
    }
}
