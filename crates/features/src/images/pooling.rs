//! Several images of one entity become one row: their mean.

/// Rows of entities that come one after the other, each from one or more vectors.
#[derive(Debug, Default)]
pub struct Pooled(Vec<Row>);

/// Entities, each with its row.
pub type EntityRows = Vec<(usize, Vec<f32>)>;

#[derive(Debug)]
struct Row {
    entity: usize,
    /// How many vectors went into it.
    count: usize,
    sum: Vec<f32>,
}

impl Pooled {
    /// Adds one vector of `entity`; an entity's vectors follow each other.
    pub fn add(&mut self, entity: usize, vector: &[f32]) {
        match self.0.last_mut().filter(|row| row.entity == entity) {
            None => self.0.push(Row { entity, count: 1, sum: vector.to_vec() }),
            Some(row) => {
                row.sum.iter_mut().zip(vector).for_each(|(sum, x)| *sum += x);
                row.count += 1;
            }
        }
    }

    /// The entities with their rows.
    pub fn rows(self) -> EntityRows {
        let mean = |row: Row| (row.entity, row.sum.iter().map(|sum| sum / row.count as f32).collect());
        self.0.into_iter().map(mean).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_the_mean_of_an_entitys_vectors() {
        let mut pooled = Pooled::default();
        for (entity, vector) in [(3, [1.0, -2.0]), (3, [3.0, -6.0]), (5, [1.0, 1.0])] {
            pooled.add(entity, &vector);
        }
        assert_eq!(pooled.rows(), [(3, vec![2.0, -4.0]), (5, vec![1.0, 1.0])]);
    }
}
