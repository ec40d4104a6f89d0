//! The model for other programs, read back.

use kge::complex::compose;
use kge::{Matrix, Model};
use mkg::Query;

use crate::lab::{Lab, fails, perfect, succeeds};

/// A matrix from NumPy's format.
fn npy(bytes: &[u8]) -> Matrix<f32> {
    assert_eq!(&bytes[..8], b"\x93NUMPY\x01\x00");
    let start = 10 + usize::from(u16::from_le_bytes([bytes[8], bytes[9]]));
    let header = std::str::from_utf8(&bytes[10..start]).unwrap();
    assert!(start % 64 == 0 && header.ends_with('\n') && header.contains("'<f4'"), "{header}");
    let shape = header.split(['(', ')']).nth(1).unwrap();
    let shape: Vec<usize> = shape.split(", ").map(|n| n.parse().unwrap()).collect();
    let values = bytes[start..].chunks(4).map(|b| f32::from_le_bytes(b.try_into().unwrap()));
    Matrix::from_values(shape[0], shape[1], values.collect())
}

/// Words and numbers from word2vec's text.
fn word2vec(text: &str) -> (Vec<String>, Matrix<f32>) {
    let mut lines = text.lines();
    let shape: Vec<usize> = lines.next().unwrap().split(' ').map(|n| n.parse().unwrap()).collect();
    let (mut words, mut values) = (Vec::new(), Vec::new());
    for line in lines {
        let mut cells = line.split(' ');
        words.push(cells.next().unwrap().to_owned());
        values.extend(cells.map(|cell| cell.parse::<f32>().unwrap()));
    }
    (words, Matrix::from_values(shape[0], shape[1], values))
}

#[test]
fn arrays_and_word2vec_have_the_same_scores() {
    let lab = Lab::new();
    succeeds(&lab.predict(&["--export", &lab.name("export")]));
    let bytes = |name: &str| std::fs::read(lab.path("export").join(name)).unwrap();
    let text = |name: &str| String::from_utf8(bytes(name)).unwrap();
    let arrays = Model::complex(npy(&bytes("entities.npy")), npy(&bytes("relations.npy")));
    let (entities, relations) = (word2vec(&text("entities.vec")), word2vec(&text("relations.vec")));
    assert_eq!(relations.0, ["P0", "P1", "P2", "P0⁻¹", "P1⁻¹", "P2⁻¹"]);
    let (model, words) = (perfect(), Model::complex(entities.1, relations.1));
    assert_eq!((&arrays, &words), (&model, &model));
    let query = Query { head: mkg::EntityId(5), relation: mkg::RelationId(1) };
    assert_eq!(arrays.score(query, mkg::EntityId(0)), 1.0);
    let keys = text("entities.tsv");
    assert_eq!(keys.lines().nth(7).unwrap(), "6\tQ6\ttab\\tline\\nescape\\u001b[31m %");
}

#[test]
fn pykeen_has_pairs_of_numbers_and_inverses_beside_their_relations() {
    let lab = Lab::new();
    succeeds(&lab.predict(&["--export", &lab.name("export")]));
    let bytes = std::fs::read(lab.path("export/pykeen/model.safetensors")).unwrap();
    let tensors = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let table = |name: &str| -> Vec<f32> {
        let tensor = tensors.tensor(&format!("{name}_representations.0._embeddings.weight")).unwrap();
        tensor.data().chunks(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect()
    };
    let (entity, relation, model) = (table("entity"), table("relation"), perfect());
    let width = model.width();
    // Real parts, then imaginary ones, of a row.
    let halves = |table: &[f32], row: usize| -> Vec<f32> {
        let row = &table[row * width..(row + 1) * width];
        row.iter().step_by(2).chain(row.iter().skip(1).step_by(2)).copied().collect()
    };
    assert_eq!(halves(&entity, 5), model.entity.row(5));
    // Relation 1 and its inverse, number 4 here.
    for (theirs, ours) in [(2, 1), (3, 4)] {
        let mut vectors = [vec![0.0; width], vec![0.0; width]];
        compose(&halves(&entity, 5), &halves(&relation, theirs), &mut vectors[0]);
        compose(model.entity.row(5), model.relation.row(ours), &mut vectors[1]);
        assert_eq!(vectors[0], vectors[1]);
    }
    let ids = std::fs::read_to_string(lab.path("export/pykeen/relation_to_id.tsv")).unwrap();
    assert_eq!(ids, "id\tlabel\n0\tP0\n1\tP1\n2\tP2\n");
}

#[test]
fn only_one_model_has_embeddings() {
    let lab = Lab::new();
    lab.teacher("textual", &perfect());
    let call = lab.predict(&["--model", "average", "--export", &lab.name("export")]);
    fails(&call, 2, &["`average` is made of 2 models"]);
    assert!(!lab.path("export").exists());
}
