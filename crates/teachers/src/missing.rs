//! Missing modalities: hiding features for experiments, and a teacher's handling of entities without features.
//!
//! The choice of hidden entities depends only on the seed, the modality and the entity's key. So every program that
//! calls [`is_hidden`] gets the same answer, features need not be made again, and entities that are hidden at one rate
//! are hidden at every higher rate.

use dsom_features::FeatureTable;
use kge::Matrix;
use kge::model::normal;
use mkg::graph::Entity;
use rand::RngExt;
use recipe::{Absent, Teachers};
use stage::{Error, Modality, Result, seed};

/// Tells whether an experiment with this `rate` hides the entity's modality.
fn is_hidden(rate: f64, seed: u64, modality: &Modality, key: &str) -> bool {
    seed::generator(seed, &format!("missing/{modality}/{key}"), 0).random::<f64>() < rate
}

/// Clears the rows of entities whose modality the recipe hides, and returns their number. An error if no entity keeps
/// its features, unless noise replaces them.
pub(crate) fn hide(
    table: &mut FeatureTable,
    teachers: &Teachers,
    modality: &Modality,
    entities: &[Entity],
) -> Result<usize> {
    let before = table.count_present();
    for (i, entity) in entities.iter().enumerate() {
        if table.present[i] && is_hidden(teachers.missing_rate, teachers.missing_seed, modality, &entity.key)
        {
            table.clear(i);
        }
    }
    if table.count_present() == 0 && teachers.absent != Absent::Noise {
        let message = format!("no entity of {} with features of `{modality}` keeps them", entities.len());
        return Err(Error::data(message).hint("lower `teachers.missing_rate`"));
    }
    Ok(before - table.count_present())
}

/// Refuses entities without features if the backbone scores by a distance and their embedding is zero. A zero embedding
/// is neutral in a product, but in a distance it is a point like any other, and the nearest to all small embeddings.
pub(crate) fn require_place(table: &FeatureTable, teachers: &Teachers, modality: &Modality) -> Result<()> {
    let (backbone, absent) = (teachers.training.backbone, table.entities() - table.count_present());
    if !backbone.is_distance() || teachers.absent != Absent::Zero || absent == 0 {
        return Ok(());
    }
    let message =
        format!("{absent} entities have no features of `{modality}`: {backbone} has no place for nothing");
    Err(Error::usage(message).hint("set `teachers.absent` to \"learned\", or another `teachers.backbone`"))
}

/// The rows to project, `(entity, width)`, of Euclidean norm 1.
///
/// An absent entity's row is zero, or noise of variance 1 before the division by its norm. The learned embedding that
/// absent entities share is the projection of a separate feature: a last column that is 1 for them and 0 for all
/// others. `seed` is the run's: noise depends on the seed, the modality and the entity's id.
pub(crate) fn feature_matrix(
    table: &FeatureTable,
    teachers: &Teachers,
    modality: &Modality,
    seed: u64,
) -> Matrix<f32> {
    let learned = teachers.absent == Absent::Learned;
    let mut features = Matrix::zeros(table.entities(), table.width + usize::from(learned));
    for (entity, present) in table.present.iter().enumerate() {
        let row = features.row_mut(entity);
        match teachers.absent {
            Absent::Noise if !present => {
                let mut generator = seed::generator(seed, &format!("noise/{modality}"), entity as u64);
                row.copy_from_slice(normal(1, table.width, 1.0, &mut generator).values());
            }
            _ => row[..table.width].copy_from_slice(table.row(entity)),
        }
        normalise(row);
        if learned && !present {
            row[table.width] = 1.0;
        }
    }
    features
}

/// Divides a row by its Euclidean norm; a zero row stays zero. In f64, no square of an f32 overflows or becomes 0.
pub(crate) fn normalise(row: &mut [f32]) {
    let norm = row.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>().sqrt();
    if norm > 0.0 {
        row.iter_mut().for_each(|x| *x = (f64::from(*x) / norm) as f32);
    }
}

/// Tells whether all entities with features have nearly the same row, so that a teacher cannot tell them apart.
pub(crate) fn is_collapsed(features: &Matrix<f32>, table: &FeatureTable) -> bool {
    let mut rows = (0..table.entities()).filter(|i| table.present[*i]).map(|i| features.row(i));
    let Some(first) = rows.next() else { return false };
    table.count_present() > 1 && rows.all(|row| row.iter().zip(first).all(|(x, y)| (x - y).abs() < 1e-6))
}

/// The presence of each entity's features, `(entity, 1)` of 1 and 0, as saved beside the model.
pub(crate) fn presence(table: &FeatureTable) -> Matrix<f32> {
    let values = table.present.iter().map(|present| f32::from(*present));
    Matrix::from_values(table.entities(), 1, values.collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use recipe::Backbone;

    fn visual() -> Modality {
        "visual".parse().unwrap()
    }

    fn table() -> FeatureTable {
        let mut table = FeatureTable::absent(4, 2);
        table.set(0, &[3.0, 4.0]);
        table.set(2, &[1.0, 0.0]);
        table
    }

    fn rows(absent: Absent) -> Matrix<f32> {
        let teachers = Teachers { absent, ..Teachers::default() };
        feature_matrix(&table(), &teachers, &visual(), 5)
    }

    #[test]
    fn rows_of_any_size_keep_their_direction() {
        for (scale, tolerance) in [(1e20, 1e-6), (1e-30, 1e-6), (8e37, 1e-6), (1e-44, 0.2)] {
            let mut row = [3.0 * scale, 4.0 * scale];
            normalise(&mut row);
            assert!((row[0] - 0.6).abs() < tolerance && (row[1] - 0.8).abs() < tolerance, "{scale}: {row:?}");
        }
    }

    #[test]
    fn rows_that_differ_by_a_factor_alone_collapse() {
        let collapsed = |last: [f32; 2]| {
            let mut table = FeatureTable::absent(3, 2);
            table.set(0, &[1.0, 2.0]);
            table.set(2, &last);
            let teachers = Teachers { absent: Absent::Learned, ..Teachers::default() };
            is_collapsed(&feature_matrix(&table, &teachers, &visual(), 5), &table)
        };
        assert!(collapsed([100.0, 200.0]) && !collapsed([1.0, 2.1]));
    }

    #[test]
    fn absent_entities_are_zero_or_share_a_feature_of_their_own() {
        assert_eq!(rows(Absent::Zero).values(), [0.6, 0.8, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0]);
        let learned = [0.6, 0.8, 0.0, 0.0, 0.0, 1.0, 1.0, 0.0, 0.0, 0.0, 0.0, 1.0];
        assert_eq!(rows(Absent::Learned).values(), learned);
    }

    #[test]
    fn noise_is_normal_and_depends_on_seed_modality_and_entity_alone() {
        let noise = rows(Absent::Noise);
        assert_eq!(noise.row(0), [0.6, 0.8]);
        assert!(noise.row(1) != noise.row(3) && noise.values().iter().all(|x| x.is_finite()));
        assert_eq!(noise, rows(Absent::Noise));
        let teachers = Teachers { absent: Absent::Noise, ..Teachers::default() };
        let of = |seed, modality: &str| {
            feature_matrix(&FeatureTable::absent(500, 20), &teachers, &modality.parse().unwrap(), seed)
        };
        assert!(of(1, "visual") != of(2, "visual") && of(1, "visual") != of(1, "textual"));
        // All directions are equally likely: the mean of 500 rows of norm 1 is short.
        let wide = of(1, "visual");
        let column = |j: usize| (0..500).map(|i| f64::from(wide.row(i)[j])).sum::<f64>() / 500.0;
        let mean: Vec<f64> = (0..20).map(column).collect();
        assert!(mean.iter().map(|x| x * x).sum::<f64>().sqrt() < 0.1, "{mean:?}");
    }

    #[test]
    fn a_distance_needs_a_place_for_every_entity() {
        let mut teachers = Teachers::default();
        let refused = |teachers: &Teachers| require_place(&table(), teachers, &visual()).err();
        assert!(refused(&teachers).is_none());
        teachers.training.backbone = Backbone::TransE;
        let error = refused(&teachers).unwrap();
        assert!(error.kind() == stage::Kind::Usage && error.to_string().contains("2 entities"), "{error}");
        teachers.absent = Absent::Learned;
        assert!(refused(&teachers).is_none());
    }

    #[test]
    fn more_is_hidden_at_a_higher_rate_and_all_of_what_was_hidden_before() {
        let keys: Vec<String> = (0..4000).map(|i| format!("Q{i}")).collect();
        let hidden = |rate, seed, modality: &str| -> Vec<bool> {
            let modality = modality.parse().unwrap();
            keys.iter().map(|key| is_hidden(rate, seed, &modality, key)).collect()
        };
        let share = |hidden: &[bool]| hidden.iter().filter(|hidden| **hidden).count() as f64 / 4000.0;
        let (few, many) = (hidden(0.2, 1, "visual"), hidden(0.4, 1, "visual"));
        assert!((share(&few) - 0.2).abs() < 0.03 && (share(&many) - 0.4).abs() < 0.03);
        assert!(few.iter().zip(&many).all(|(few, many)| *many || !few));
        assert!(few != hidden(0.2, 2, "visual") && few != hidden(0.2, 1, "textual"));
        // This value is frozen: published experiments must hide the same entities in later versions.
        let first: Vec<usize> = (0..30).filter(|i| few[*i]).collect();
        assert_eq!(first, [2, 3, 19, 29]);
    }

    #[test]
    fn hidden_entities_lose_their_row_and_somebody_must_keep_theirs() {
        let entities: Vec<Entity> =
            (0..4).map(|i| Entity { key: format!("Q{i}"), ..Entity::default() }).collect();
        let mut whole = table();
        let mut teachers = Teachers::default();
        assert_eq!(hide(&mut whole, &teachers, &visual(), &entities).unwrap(), 0);
        assert_eq!(whole, table());
        teachers.missing_rate = 1.0;
        let error = hide(&mut whole, &teachers, &visual(), &entities).unwrap_err();
        assert_eq!(error.kind(), stage::Kind::Data);
        teachers.absent = Absent::Noise;
        assert_eq!(hide(&mut table(), &teachers, &visual(), &entities).unwrap(), 2);
        whole.check().unwrap();
        assert_eq!(presence(&table()).values(), [1.0, 0.0, 1.0, 0.0]);
    }
}
