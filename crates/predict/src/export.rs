//! Writes a model for other programs, in the files that `docs/elsewhere.md` lists.
//!
//! White space ends a word of word2vec: there `%` and white space in a key are written as in URLs (`%25`, `%20`).
//! PyKEEN pairs real and imaginary parts. With `create_inverse_triples`, relation `r` and its inverse are rows `2r` and
//! `2r + 1`.

use kge::checkpoint::NamedTensors;
use kge::{Backbone, Matrix, Model};
use mkg::Vocabulary;
use serde_json::json;
use stage::files::{write_atomically, write_bytes, write_json};
use stage::{Error, Result};
use std::fmt::Write as _;
use std::io::{ErrorKind, Write};
use std::path::Path;

use crate::output::cell;

const ABOUT: &str = "model.json";
/// The files of `pykeen/`.
const PYKEEN: [&str; 3] = ["model.safetensors", "entity_to_id.tsv", "relation_to_id.tsv"];

/// Key and name of each row.
type Labels = [[String; 2]];

/// Writes all files of a model into `folder`.
pub(crate) fn export(folder: &Path, model: &Model<f32>, vocabulary: &Vocabulary) -> Result<()> {
    let entities = vocabulary.entities.iter().map(|e| [e.key.clone(), e.name.clone().unwrap_or_default()]);
    let relations = vocabulary.relations.iter().map(|r| [r.key.clone(), r.name.clone().unwrap_or_default()]);
    let inverses = relations
        .clone()
        .map(|labels| labels.map(|label| if label.is_empty() { label } else { format!("{label}⁻¹") }));
    let (entities, relations): (Vec<_>, Vec<_>) = (entities.collect(), relations.chain(inverses).collect());
    for (name, table, labels) in
        [("entities", &model.entity, &entities), ("relations", &model.relation, &relations)]
    {
        write_npy(&folder.join(format!("{name}.npy")), table)?;
        let rows = labels.iter().map(|label| label.each_ref().map(|text| cell(text)).join("\t"));
        write_tsv(&folder.join(format!("{name}.tsv")), "key\tname", rows)?;
        write_word2vec(&folder.join(format!("{name}.vec")), labels, table)?;
    }
    remove_older(folder)?;
    if model.backbone == Backbone::TuckER {
        write_npy(&folder.join("core.npy"), &model.core)?;
    }
    if model.backbone == Backbone::ComplEx {
        write_pykeen(&folder.join("pykeen"), model, &entities, &relations[..vocabulary.relations.len()])?;
    }
    let about = json!({
        "backbone": model.backbone.word(), "rank": model.rank(),
        "entities": vocabulary.entities.len(), "relations": vocabulary.relations.len(),
        "score": score(model.backbone),
    });
    write_json(&folder.join(ABOUT), &about)
}

/// Removes the files of an older export that depend on its backbone.
fn remove_older(folder: &Path) -> Result<()> {
    if !folder.join(ABOUT).is_file() {
        return Ok(());
    }
    let pykeen = PYKEEN.map(|name| folder.join("pykeen").join(name));
    for path in pykeen.into_iter().chain([folder.join("core.npy")]) {
        match std::fs::remove_file(&path) {
            Err(e) if e.kind() != ErrorKind::NotFound => return Err(Error::io(&path, e)),
            _ => {}
        }
    }
    // The folder may have files of other programs.
    let _ = std::fs::remove_dir(folder.join("pykeen"));
    Ok(())
}

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

fn write_tsv(path: &Path, header: &str, rows: impl Iterator<Item = String>) -> Result<()> {
    let lines = rows.enumerate().map(|(id, row)| format!("{id}\t{row}\n"));
    write_bytes(path, (format!("id\t{header}\n") + &lines.collect::<String>()).as_bytes())
}

/// Writes a matrix in NumPy's format 1.0.
fn write_npy(path: &Path, matrix: &Matrix<f32>) -> Result<()> {
    let (rows, columns) = (matrix.rows(), matrix.columns());
    let mut header = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({rows}, {columns}), }}");
    // The magic bytes and this header take a multiple of 64 bytes, and the last byte ends a line.
    header.push_str(&" ".repeat((header.len() + 11).next_multiple_of(64) - header.len() - 11));
    header.push('\n');
    let length = (header.len() as u16).to_le_bytes();
    write_atomically(path, |file| {
        let written = file.write_all(&[b"\x93NUMPY\x01\x00", &length[..], header.as_bytes()].concat());
        let mut values = matrix.values().iter();
        let written =
            written.and_then(|()| values.try_for_each(|value| file.write_all(&value.to_le_bytes())));
        written.map_err(|e| Error::io(path, e))
    })
}

/// Writes a line with the counts of words and columns, then one line per word; the numbers read back exactly.
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

/// A key without white space, from which the key can be restored.
fn word(key: &str) -> String {
    let mut word = String::with_capacity(key.len());
    for c in key.chars() {
        if c == '%' || c.is_whitespace() || c.is_control() {
            c.encode_utf8(&mut [0; 4]).bytes().for_each(|byte| word += &format!("%{byte:02X}"));
        } else {
            word.push(c);
        }
    }
    word
}

fn write_pykeen(folder: &Path, model: &Model<f32>, entities: &Labels, relations: &Labels) -> Result<()> {
    let entity = interleaved(&model.entity, 0..entities.len());
    let relation = interleaved(&model.relation, (0..relations.len()).flat_map(|r| [r, r + relations.len()]));
    let tensors = NamedTensors::default()
        .matrix("entity_representations.0._embeddings.weight", &entity)
        .matrix("relation_representations.0._embeddings.weight", &relation);
    let [weights, tables @ ..] = PYKEEN;
    tensors.write(&folder.join(weights))?;
    for (name, labels) in tables.into_iter().zip([entities, relations]) {
        write_tsv(&folder.join(name), "label", labels.iter().map(|[key, _]| cell(key)))?;
    }
    Ok(())
}

/// The rows of `rows`, with each real part next to its imaginary part.
fn interleaved(table: &Matrix<f32>, rows: impl Iterator<Item = usize>) -> Matrix<f32> {
    let rank = table.columns() / 2;
    let pairs =
        rows.flat_map(|row| (0..rank).flat_map(move |i| [table.row(row)[i], table.row(row)[rank + i]]));
    Matrix::from_values(table.rows(), table.columns(), pairs.collect())
}
