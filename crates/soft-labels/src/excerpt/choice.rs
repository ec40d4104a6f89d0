//! Choice of the entities that a row keeps beside its neighbours.

use mkg::EntityId;

/// Chooses entities, row after row, in the same memory.
#[derive(Default)]
pub(crate) struct Choice {
    /// One teacher's order; see [`key`].
    keys: Vec<u64>,
    /// Each teacher's highest entities, best first, one teacher after another.
    best: Vec<u32>,
    /// True if an entity is a neighbour or chosen.
    taken: Vec<bool>,
}

impl Choice {
    /// The `top` entities outside the `neighbours` that rank highest with any of the teachers, whose scores of all
    /// entities are `rows`: everyone's first, then everyone's second, and so on, in the order of the teachers. Of equal
    /// scores the lower id ranks higher. If fewer entities are left, neighbours fill the places. Ids ascend.
    pub(crate) fn of(&mut self, rows: &[&[f32]], neighbours: &[EntityId], top: usize) -> Vec<u32> {
        let entities = rows[0].len();
        let wanted = top.min(entities - neighbours.len());
        self.taken.clear();
        self.taken.resize(entities, false);
        neighbours.iter().for_each(|neighbour| self.taken[neighbour.index()] = true);
        self.best.clear();
        rows.iter().for_each(|scores| self.rank(scores, neighbours, wanted));
        let mut chosen = Vec::with_capacity(top);
        for place in 0..wanted {
            for teacher in 0..rows.len() {
                let entity = self.best[teacher * wanted + place];
                if chosen.len() < wanted && !std::mem::replace(&mut self.taken[entity as usize], true) {
                    chosen.push(entity);
                }
            }
        }
        chosen.extend(neighbours.iter().take(top - wanted).map(|neighbour| neighbour.0));
        chosen.sort_unstable();
        chosen
    }

    /// Appends the `wanted` highest entities outside the neighbours.
    fn rank(&mut self, scores: &[f32], neighbours: &[EntityId], wanted: usize) {
        if wanted == 0 {
            return;
        }
        self.keys.clear();
        self.keys.extend(scores.iter().enumerate().map(|(entity, score)| key(*score, entity as u32)));
        neighbours.iter().for_each(|neighbour| self.keys[neighbour.index()] = u64::MAX);
        self.keys.select_nth_unstable(wanted - 1);
        let best = &mut self.keys[..wanted];
        best.sort_unstable();
        self.best.extend(best.iter().map(|key| *key as u32));
    }
}

/// Lower for higher scores and, of equal ones, for lower ids.
fn key(score: f32, entity: u32) -> u64 {
    // Adding zero makes -0 equal to 0.
    let bits = (score + 0.0).to_bits();
    // Without the sign, bits of floats are ordered as their magnitudes are.
    let descending = if bits >> 31 == 0 { !bits & (u32::MAX >> 1) } else { bits };
    u64::from(descending) << 32 | u64::from(entity)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ids(ids: &[u32]) -> Vec<EntityId> {
        ids.iter().map(|id| EntityId(*id)).collect()
    }

    #[test]
    fn a_choice_worked_out_by_hand() {
        let first = [0.0, 9.0, 5.0, -1.0, 5.0, 7.0f32];
        let second = [8.0, 1.0, -2.0, 3.0, 1.0, 0.0f32];
        let chosen =
            |neighbours: &[u32], top| Choice::default().of(&[&first, &second], &ids(neighbours), top);
        // Without 1, the first teacher's order is 5 2 4 0 3, the second's 0 3 4 5 2.
        assert_eq!(chosen(&[1], 1), [5]);
        assert_eq!(chosen(&[1], 3), [0, 2, 5]);
        assert_eq!(chosen(&[1], 4), [0, 2, 3, 5]);
        assert_eq!(chosen(&[1], 5), [0, 2, 3, 4, 5]);
        // There is no sixth: the neighbour takes the place.
        assert_eq!(chosen(&[1], 6), [0, 1, 2, 3, 4, 5]);
        assert_eq!(chosen(&[0, 1, 2, 3, 4, 5], 2), [0, 1]);
    }

    proptest! {
        #[test]
        fn a_teachers_choice_equals_a_sort(
            scores in prop::collection::vec(prop::sample::select(vec![-3.0f32, -0.5, -0.0, 0.0, 1e-30, 2.0, 7.5]), 1..60),
            neighbours in prop::collection::btree_set(0u32..60, 0..20),
            top in 1usize..60,
        ) {
            let neighbours: Vec<u32> = neighbours.into_iter().filter(|id| (*id as usize) < scores.len()).collect();
            let top = top.min(scores.len());
            let mut order: Vec<u32> =
                (0..scores.len() as u32).filter(|id| !neighbours.contains(id)).collect();
            // Stable, so of equal scores the lower id comes first; -0 and 0 are equal.
            order.sort_by(|a, b| scores[*b as usize].partial_cmp(&scores[*a as usize]).unwrap());
            order.extend(&neighbours);
            let mut expected = order[..top].to_vec();
            expected.sort_unstable();
            prop_assert_eq!(Choice::default().of(&[&scores], &ids(&neighbours), top), expected);
        }
    }
}
