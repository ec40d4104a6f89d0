//! Several images of one entity become one row.

use recipe::Pool;

/// Rows of entities that come one after the other, each from one or more vectors.
#[derive(Debug)]
pub struct Pooled {
    pool: Pool,
    rows: Vec<Row>,
}

/// Entities, each with its row.
pub type EntityRows = Vec<(usize, Vec<f32>)>;

#[derive(Debug)]
struct Row {
    entity: usize,
    /// How many vectors went into it.
    count: usize,
    values: Vec<f32>,
}

impl Pooled {
    /// No rows yet.
    pub fn new(pool: Pool) -> Self {
        Pooled { pool, rows: Vec::new() }
    }

    /// Adds one vector of `entity`; an entity's vectors follow each other.
    pub fn add(&mut self, entity: usize, vector: &[f32]) {
        match self.rows.last_mut().filter(|row| row.entity == entity) {
            None => self.rows.push(Row { entity, count: 1, values: vector.to_vec() }),
            Some(row) => {
                let pairs = row.values.iter_mut().zip(vector);
                match self.pool {
                    Pool::Mean => pairs.for_each(|(sum, x)| *sum += x),
                    Pool::Max => pairs.for_each(|(most, x)| *most = most.max(*x)),
                    Pool::First => {}
                }
                row.count += 1;
            }
        }
    }

    /// The entities with their rows.
    pub fn rows(self) -> EntityRows {
        let pool = self.pool;
        let finished = |mut row: Row| {
            if pool == Pool::Mean {
                row.values.iter_mut().for_each(|x| *x /= row.count as f32);
            }
            (row.entity, row.values)
        };
        self.rows.into_iter().map(finished).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pooled(pool: Pool) -> Vec<(usize, Vec<f32>)> {
        let mut pooled = Pooled::new(pool);
        for (entity, vector) in [(3, [1.0, -2.0]), (3, [3.0, -6.0]), (5, [1.0, 1.0])] {
            pooled.add(entity, &vector);
        }
        pooled.rows()
    }

    #[test]
    fn each_way_of_pooling_gives_its_row() {
        assert_eq!(pooled(Pool::Mean), [(3, vec![2.0, -4.0]), (5, vec![1.0, 1.0])]);
        assert_eq!(pooled(Pool::Max), [(3, vec![3.0, -2.0]), (5, vec![1.0, 1.0])]);
        assert_eq!(pooled(Pool::First), [(3, vec![1.0, -2.0]), (5, vec![1.0, 1.0])]);
    }
}
