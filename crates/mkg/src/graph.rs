//! The graph's folder: Parquet files that ordinary tools can open.
//!
//! | file | columns |
//! |---|---|
//! | `entities.parquet` | `id` u32, `key`, `name`, `description`, `caption` (nullable text), `images` (list of paths) |
//! | `relations.parquet` | `id` u32, `key`, `name` |
//! | `train.parquet`, `valid.parquet`, `test.parquet` | `head`, `relation`, `tail` u32 |
//!
//! Each split is a separate file, so that a stage's inputs show that it does not open the test split.

use arrow::array::{
    Array as _, ArrayRef, ArrowPrimitiveType, AsArray, ListBuilder, PrimitiveArray, RecordBatch, StringArray,
    StringBuilder, UInt32Array,
};
use arrow::datatypes::Field;
use bytes::Bytes;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::arrow::{ArrowWriter, ProjectionMask};
use parquet::basic::{Compression, ZstdLevel};
use parquet::errors::ParquetError;
use parquet::file::properties::WriterProperties;
use stage::files::{read_bytes, write_atomically};
use stage::{Error, Kind, Result, caught};
use std::path::Path;
use std::sync::Arc;

use crate::{RelationId, Triple};

/// The file of the entity table.
pub const ENTITIES: &str = "entities.parquet";
/// The file of the relation table.
pub const RELATIONS: &str = "relations.parquet";

/// An entity with its texts and images. An absent text is `None`, never empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Entity {
    /// The dataset's own identifier.
    pub key: String,
    /// A human-readable name.
    pub name: Option<String>,
    /// A description.
    pub description: Option<String>,
    /// A sentence that a vision-language model wrote from the entity's images.
    pub caption: Option<String>,
    /// Image files, relative to the dataset's image folder.
    pub images: Vec<String>,
}

impl Entity {
    /// The name, or the key if there is no name.
    pub fn label(&self) -> &str {
        self.name.as_deref().unwrap_or(&self.key)
    }
}

/// A relation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Relation {
    /// The dataset's own identifier.
    pub key: String,
    /// A human-readable name.
    pub name: Option<String>,
}

impl Relation {
    /// The name, or the key if there is no name.
    pub fn label(&self) -> &str {
        self.name.as_deref().unwrap_or(&self.key)
    }
}

/// Entities and relations, each at the position of its id.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Vocabulary {
    /// All entities.
    pub entities: Vec<Entity>,
    /// All relations, without inverses.
    pub relations: Vec<Relation>,
}

impl Vocabulary {
    /// The label of a relation or an inverse; an inverse's label ends in `⁻¹`.
    pub fn relation_label(&self, relation: RelationId) -> String {
        let (base, inverted) = relation.base(self.relations.len());
        let label = self.relations[base.index()].label();
        if inverted { format!("{label}⁻¹") } else { label.to_owned() }
    }

    /// Writes both tables into `folder`.
    pub fn write(&self, folder: &Path) -> Result<()> {
        let entities = &self.entities;
        let mut images = ListBuilder::new(StringBuilder::new());
        for entity in entities {
            entity.images.iter().for_each(|path| images.values().append_value(path));
            images.append(true);
        }
        let columns = vec![
            ("id", id_column((0..).take(entities.len())), false),
            ("key", text_column(entities, |entity| Some(&entity.key)), false),
            ("name", text_column(entities, |entity| entity.name.as_deref()), true),
            ("description", text_column(entities, |entity| entity.description.as_deref()), true),
            ("caption", text_column(entities, |entity| entity.caption.as_deref()), true),
            ("images", Arc::new(images.finish()), false),
        ];
        write_table(&folder.join(ENTITIES), columns)?;
        let columns = vec![
            ("id", id_column((0..).take(self.relations.len())), false),
            ("key", text_column(&self.relations, |relation| Some(&relation.key)), false),
            ("name", text_column(&self.relations, |relation| relation.name.as_deref()), true),
        ];
        write_table(&folder.join(RELATIONS), columns)
    }

    /// Reads both tables from `folder`.
    pub fn read(folder: &Path) -> Result<Vocabulary> {
        Ok(Vocabulary {
            entities: read_entities(&folder.join(ENTITIES))?,
            relations: read_relations(&folder.join(RELATIONS))?,
        })
    }
}

fn read_entities(path: &Path) -> Result<Vec<Entity>> {
    let mut entities = Vec::new();
    for_each_batch(path, |batch| {
        ids_continue(batch, entities.len())?;
        let texts = owned(batch, "key")?.zip(owned(batch, "name")?).zip(owned(batch, "description")?);
        let images = column(batch, "images")?.as_list_opt::<i32>().ok_or_else(no_list)?;
        for (i, (((key, name), description), caption)) in texts.zip(owned(batch, "caption")?).enumerate() {
            let files = images.value(i);
            let files = files.as_string_opt::<i32>().ok_or_else(no_list)?;
            let images = files.iter().flatten().map(str::to_owned).collect();
            entities.push(Entity { key: key.unwrap_or_default(), name, description, caption, images });
        }
        Ok(())
    })?;
    Ok(entities)
}

fn no_list() -> Error {
    Error::data("column `images` is no list of text")
}

fn read_relations(path: &Path) -> Result<Vec<Relation>> {
    let mut relations = Vec::new();
    for_each_batch(path, |batch| {
        ids_continue(batch, relations.len())?;
        let named = owned(batch, "key")?.zip(owned(batch, "name")?);
        relations.extend(named.map(|(key, name)| Relation { key: key.unwrap_or_default(), name }));
        Ok(())
    })?;
    Ok(relations)
}

fn id_column(ids: impl Iterator<Item = u32>) -> ArrayRef {
    Arc::new(UInt32Array::from_iter_values(ids))
}

fn text_column<T>(rows: &[T], text: fn(&T) -> Option<&str>) -> ArrayRef {
    Arc::new(rows.iter().map(text).collect::<StringArray>())
}

/// Writes one split's triples.
pub fn write_triples(path: &Path, triples: &[Triple]) -> Result<()> {
    let columns = vec![
        ("head", id_column(triples.iter().map(|t| t.head.0)), false),
        ("relation", id_column(triples.iter().map(|t| t.relation.0)), false),
        ("tail", id_column(triples.iter().map(|t| t.tail.0)), false),
    ];
    write_table(path, columns)
}

/// Reads one split's triples and checks that every id is in a graph of `entities` entities and `relations` relations.
pub fn read_triples(path: &Path, entities: usize, relations: usize) -> Result<Vec<Triple>> {
    let mut triples = Vec::new();
    for_each_batch(path, |batch| {
        let (heads, tails) = (ids(batch, "head", entities)?, ids(batch, "tail", entities)?);
        let relations = ids(batch, "relation", relations)?;
        let rows = heads.values().iter().zip(relations.values()).zip(tails.values());
        triples.extend(rows.map(|((&head, &relation), &tail)| Triple::new(head, relation, tail)));
        Ok(())
    })?;
    Ok(triples)
}

/// Writes one Parquet file of named columns `(name, values, nullable)`, compressed, atomically.
pub fn write_table(path: &Path, columns: Vec<(&str, ArrayRef, bool)>) -> Result<()> {
    let batch = RecordBatch::try_from_iter_with_nullable(columns);
    write_batches(path, [batch.map_err(|e| in_table(path, e))])
}

/// Writes one Parquet file of record batches with one schema, compressed, atomically; no file if there is no batch.
pub fn write_batches(path: &Path, batches: impl IntoIterator<Item = Result<RecordBatch>>) -> Result<()> {
    let mut batches = batches.into_iter();
    let Some(first) = batches.next().transpose()? else { return Ok(()) };
    let compression = Compression::ZSTD(ZstdLevel::default());
    let properties = WriterProperties::builder().set_compression(compression).build();
    let failed = |e| Error::new(Kind::Io, "cannot write Parquet").because(e);
    write_atomically(path, |file| {
        let mut writer = ArrowWriter::try_new(file, first.schema(), Some(properties)).map_err(failed)?;
        writer.write(&first).map_err(failed)?;
        for batch in batches {
            writer.write(&batch?).map_err(failed)?;
        }
        writer.close().map(drop).map_err(failed)
    })
}

/// Passes every record batch of a Parquet file to `each`; errors name the file.
pub fn for_each_batch(path: &Path, each: impl FnMut(&RecordBatch) -> Result<()>) -> Result<()> {
    // The whole file is read first, so that a failed read gives another error than a file that is not a table.
    for_each_batch_of(Bytes::from(read_bytes(path)?), path, None, each)
}

/// The same as [`for_each_batch`] for the `bytes` of the file at `path`, with only `columns`.
pub fn for_each_batch_of(
    bytes: Bytes,
    path: &Path,
    columns: Option<&[&str]>,
    mut each: impl FnMut(&RecordBatch) -> Result<()>,
) -> Result<()> {
    // The reader panics on some damaged files.
    let panicked = || ParquetError::General("its reader panicked".to_owned());
    let opened = caught(|| {
        let builder = ParquetRecordBatchReaderBuilder::try_new(bytes)?;
        let schema = builder.parquet_schema();
        let all = ProjectionMask::all();
        let mask = columns.map_or(all, |names| ProjectionMask::columns(schema, names.iter().copied()));
        builder.with_projection(mask).build()
    });
    let mut batches = opened.unwrap_or_else(|| Err(panicked())).map_err(|e| in_table(path, e))?;
    while let Some(batch) = caught(|| batches.next()).unwrap_or_else(|| Some(Err(panicked().into()))) {
        each(&batch.map_err(|e| in_table(path, e))?).map_err(|e| e.at(path))?;
    }
    Ok(())
}

/// A column by name.
pub fn column<'a>(batch: &'a RecordBatch, name: &str) -> Result<&'a ArrayRef> {
    batch.column_by_name(name).ok_or_else(|| Error::data(format!("no column `{name}`")))
}

/// A column of text.
pub fn texts<'a>(batch: &'a RecordBatch, name: &str) -> Result<&'a StringArray> {
    let column = column(batch, name)?.as_string_opt();
    column.ok_or_else(|| Error::data(format!("column `{name}` is no text")))
}

/// A column of numbers of one type.
pub fn numbers<'a, T: ArrowPrimitiveType>(
    batch: &'a RecordBatch,
    name: &str,
) -> Result<&'a PrimitiveArray<T>> {
    match column(batch, name)?.as_primitive_opt() {
        Some(column) if column.null_count() == 0 => Ok(column),
        Some(_) => Err(Error::data(format!("column `{name}` has empty cells"))),
        None => Err(Error::data(format!("column `{name}` is not {}", T::DATA_TYPE))),
    }
}

fn in_table(path: &Path, error: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::data("not a readable Parquet file").at(path).because(error)
}

fn owned<'a>(batch: &'a RecordBatch, name: &str) -> Result<impl Iterator<Item = Option<String>> + use<'a>> {
    Ok(texts(batch, name)?.iter().map(|text| text.map(str::to_owned)))
}

fn ids<'a>(batch: &'a RecordBatch, name: &str, count: usize) -> Result<&'a UInt32Array> {
    let column: &UInt32Array = numbers(batch, name)?;
    match column.values().iter().enumerate().find(|(_, id)| **id as usize >= count) {
        Some((row, id)) => Err(Error::data(format!("{name} {id} is out of range 0..{count}")).row(row)),
        None => Ok(column),
    }
}

/// Refuses ids that do not continue after the `first` ids of earlier batches.
fn ids_continue(batch: &RecordBatch, first: usize) -> Result<()> {
    let ids: &UInt32Array = numbers(batch, "id")?;
    match (first..).zip(ids.values()).find(|(row, id)| **id as usize != *row) {
        Some((row, _)) => Err(Error::data("ids do not count up from 0").row(row)),
        None => Ok(()),
    }
}

/// The type of a list column's items in all our tables.
pub fn list_item(data_type: arrow::datatypes::DataType) -> Arc<Field> {
    Arc::new(Field::new("item", data_type, false))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(triples: &[Triple]) -> (tempfile::TempDir, std::path::PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("train.parquet");
        write_triples(&path, triples).unwrap();
        (folder, path)
    }

    #[test]
    fn tables_survive_a_round_trip() {
        let triples = [Triple::new(0, 0, 1), Triple::new(1, 0, 1)];
        let (folder, path) = written(&triples);
        assert_eq!(read_triples(&path, 2, 1).unwrap(), triples);
        let images = ["a.png", "b.jpg"].map(str::to_owned).to_vec();
        let named = Entity { key: "Q1".into(), name: Some("Čapek".into()), images, ..Entity::default() };
        let entities = vec![named, Entity { key: "Q2".into(), ..Entity::default() }];
        let vocabulary = Vocabulary { entities, relations: vec![Relation { key: "P1".into(), name: None }] };
        vocabulary.write(folder.path()).unwrap();
        assert_eq!(Vocabulary::read(folder.path()).unwrap(), vocabulary);
    }

    #[test]
    fn an_id_out_of_range_is_named_with_its_row() {
        let (_folder, path) = written(&[Triple::new(0, 0, 1), Triple::new(0, 0, 9)]);
        let error = read_triples(&path, 2, 1).unwrap_err().to_string();
        assert!(error.ends_with("train.parquet: row 1: tail 9 is out of range 0..2"), "{error}");
    }

    #[test]
    fn an_empty_cell_is_no_number() {
        let (_folder, path) = written(&[]);
        let ids: ArrayRef = Arc::new(UInt32Array::from(vec![Some(1), None]));
        let all = ["head", "relation", "tail"].map(|name| (name, ids.clone(), true));
        write_table(&path, all.into()).unwrap();
        let error = read_triples(&path, 2, 2).unwrap_err().to_string();
        assert!(error.ends_with("train.parquet: column `head` has empty cells"), "{error}");
    }

    #[test]
    fn damaged_files_are_errors_or_other_triples_but_no_panic() {
        let triples: Vec<Triple> = (0..500).map(|i| Triple::new(i % 7, i % 3, i % 11)).collect();
        let (_folder, path) = written(&triples);
        let bytes = std::fs::read(&path).unwrap();
        for at in 0..bytes.len() {
            for flipped in [0x01, 0x40, 0xff] {
                let mut damaged = bytes.clone();
                damaged[at] ^= flipped;
                std::fs::write(&path, damaged).unwrap();
                let _ = read_triples(&path, 11, 3);
            }
        }
        for length in [0, 3, bytes.len() / 2, bytes.len() - 1] {
            std::fs::write(&path, &bytes[..length]).unwrap();
            let error = read_triples(&path, 11, 3).unwrap_err();
            assert_eq!(error.kind(), Kind::Data, "{length} bytes: {error}");
        }
    }
}
