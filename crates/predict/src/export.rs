//! A model for other programs.
//!
//! | file | content |
//! |---|---|
//! | `model.json` | backbone, rank, counts, and how a score is made of the tables |
//! | `entities.npy`, `relations.npy` | f32, a row an id; relations, then their inverses; TuckER's `core.npy` |
//! | `entities.tsv`, `relations.tsv` | `id`, `key`, `name`, in the order of the rows; an inverse's key ends in `⁻¹` |
//! | `entities.vec`, `relations.vec` | the same rows as word2vec's text, by key |
//! | `pykeen/` | of ComplEx: weights in PyKEEN's layout, `entity_to_id.tsv`, `relation_to_id.tsv` |
//!
//! Words of word2vec end at white space: there `%` and white space in a key are written as URLs have them (`%25`, `%20`).
//! PyKEEN pairs real and imaginary parts, and with `create_inverse_triples` relation `r` and its inverse are rows `2r` and
//! `2r + 1`.

use kge::checkpoint::NamedTensors;
use kge::{Backbone, Matrix, Model};
use mkg::Vocabulary;
use serde_json::json;
use stage::files::{write_atomically, write_bytes, write_json};
use stage::{Error, Result};
use std::fmt::Write as _;
use std::io::Write;
use std::path::Path;

use crate::output::cell;

/// Writes all files of a model into `folder`.
///
/// # Errors
/// If a file cannot be written.
pub fn export(folder: &Path, model: &Model<f32>, vocabulary: &Vocabulary) -> Result<()> {
    let (entities, relations) = (entity_labels(vocabulary), relation_labels(vocabulary));
    for (name, table, labels) in
        [("entities", &model.entity, &entities), ("relations", &model.relation, &relations)]
    {
        write_npy(&folder.join(format!("{name}.npy")), table)?;
        write_labels(&folder.join(format!("{name}.tsv")), labels)?;
        write_word2vec(&folder.join(format!("{name}.vec")), labels, table)?;
    }
    if model.backbone == Backbone::TuckER {
        write_npy(&folder.join("core.npy"), &model.core)?;
    }
    if model.backbone == Backbone::ComplEx {
        write_pykeen(&folder.join("pykeen"), model, vocabulary)?;
    }
    let about = json!({
        "backbone": model.backbone.word(), "rank": model.rank(),
        "entities": vocabulary.entities.len(), "relations": vocabulary.relations.len(),
        "score": score(model.backbone),
    });
    write_json(&folder.join("model.json"), &about)
}

/// The score of head, relation and tail by their rows.
fn score(backbone: Backbone) -> &'static str {
    match backbone {
        Backbone::ComplEx => "Re <h, r, conj(t)>; rows are [real | imaginary]",
        Backbone::DistMult => "<h, r, t>",
        Backbone::TransE => {
            "-|h + r - t|^2; the last two columns of an entity are -|t|^2 and 1, not its embedding"
        }
        Backbone::RotatE => {
            "-|h exp(i r) - t|^2; entities are [real | imaginary | -|t|^2, 1], relations are phases"
        }
        Backbone::TuckER => "sum r_a h_i t_j core[a * columns + i, j]",
    }
}

/// Key and name of each row.
type Labels = Vec<[String; 2]>;

fn entity_labels(vocabulary: &Vocabulary) -> Labels {
    vocabulary.entities.iter().map(|e| [e.key.clone(), e.name.clone().unwrap_or_default()]).collect()
}

fn relation_labels(vocabulary: &Vocabulary) -> Labels {
    let relations =
        || vocabulary.relations.iter().map(|r| [r.key.clone(), r.name.clone().unwrap_or_default()]);
    let inverse = |label: String| if label.is_empty() { label } else { format!("{label}⁻¹") };
    relations().chain(relations().map(|labels| labels.map(inverse))).collect()
}

fn write_labels(path: &Path, labels: &Labels) -> Result<()> {
    let mut text = "id\tkey\tname\n".to_owned();
    for (id, [key, name]) in labels.iter().enumerate() {
        let _ = writeln!(text, "{id}\t{}\t{}", cell(key), cell(name));
    }
    write_bytes(path, text.as_bytes())
}

/// NumPy's format 1.0.
fn write_npy(path: &Path, matrix: &Matrix<f32>) -> Result<()> {
    let (rows, columns) = (matrix.rows(), matrix.columns());
    let mut header = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({rows}, {columns}), }}");
    // The magic bytes and this header are a multiple of 64 bytes, the last of which ends a line.
    header.push_str(&" ".repeat((header.len() + 11).next_multiple_of(64) - header.len() - 11));
    header.push('\n');
    write_atomically(path, |file| {
        let start =
            [&b"\x93NUMPY\x01\x00"[..], &(header.len() as u16).to_le_bytes(), header.as_bytes()].concat();
        let mut write = |bytes: &[u8]| file.write_all(bytes).map_err(|e| Error::io(path, e));
        write(&start)?;
        matrix.values().iter().try_for_each(|value| write(&value.to_le_bytes()))
    })
}

/// A line with the counts of words and columns, then a line a word; numbers are such that they read back exactly.
fn write_word2vec(path: &Path, labels: &Labels, table: &Matrix<f32>) -> Result<()> {
    write_atomically(path, |file| {
        let mut line = format!("{} {}\n", table.rows(), table.columns());
        for (row, [key, _]) in labels.iter().enumerate() {
            line.push_str(&word(key));
            for value in table.row(row) {
                let _ = write!(line, " {value}");
            }
            line.push('\n');
            file.write_all(line.as_bytes()).map_err(|e| Error::io(path, e))?;
            line.clear();
        }
        Ok(())
    })
}

/// A key without white space, from which it can be told.
fn word(key: &str) -> String {
    let mut word = String::with_capacity(key.len());
    for c in key.chars() {
        if c == '%' || c.is_whitespace() || c.is_control() {
            c.encode_utf8(&mut [0; 4]).bytes().for_each(|byte| word.push_str(&format!("%{byte:02X}")));
        } else {
            word.push(c);
        }
    }
    word
}

fn write_pykeen(folder: &Path, model: &Model<f32>, vocabulary: &Vocabulary) -> Result<()> {
    let relations = vocabulary.relations.len();
    let entity = interleaved(&model.entity, 0..model.entity.rows());
    let relation = interleaved(&model.relation, (0..relations).flat_map(|r| [r, r + relations]));
    let tensors = NamedTensors::default()
        .matrix("entity_representations.0._embeddings.weight", &entity)
        .matrix("relation_representations.0._embeddings.weight", &relation);
    tensors.write(&folder.join("model.safetensors"))?;
    let ids = |keys: Vec<&String>| {
        let lines = keys.iter().enumerate().map(|(id, key)| format!("{id}\t{}\n", cell(key)));
        "id\tlabel\n".to_owned() + &lines.collect::<String>()
    };
    let entities = ids(vocabulary.entities.iter().map(|entity| &entity.key).collect());
    write_bytes(&folder.join("entity_to_id.tsv"), entities.as_bytes())?;
    let relations = ids(vocabulary.relations.iter().map(|relation| &relation.key).collect());
    write_bytes(&folder.join("relation_to_id.tsv"), relations.as_bytes())
}

/// These rows, each real part beside its imaginary one.
fn interleaved(table: &Matrix<f32>, rows: impl Iterator<Item = usize>) -> Matrix<f32> {
    let rank = table.columns() / 2;
    let pairs = |row: usize| (0..rank).flat_map(move |i| [table.row(row)[i], table.row(row)[rank + i]]);
    Matrix::from_values(table.rows(), table.columns(), rows.flat_map(pairs).collect())
}
