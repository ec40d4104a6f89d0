//! Combinations of teachers for each query of a batch.

/// Combinations of teachers for each query of a batch.
#[derive(Clone, Debug, Default)]
pub struct Groups {
    teachers: usize,
    /// Query number `i`'s groups are those from `starts[i]` to `starts[i + 1]`.
    pub(super) starts: Vec<u32>,
    /// `(group, teacher)`.
    pub(super) weights: Vec<f32>,
    /// Of a group's distillation.
    pub(super) trust: Vec<f32>,
    /// A group's targets are those from `target_starts[group]` to `target_starts[group + 1]`.
    pub(super) target_starts: Vec<u32>,
    /// Positions among the query's tails.
    pub(super) targets: Vec<u32>,
}

impl Groups {
    /// Of no query yet; groups of so many teachers.
    pub fn new(teachers: usize) -> Groups {
        Groups { teachers, starts: vec![0], target_starts: vec![0], ..Groups::default() }
    }

    /// So many queries without any.
    pub(super) fn alone(queries: usize) -> Groups {
        Groups { starts: vec![0; queries + 1], ..Groups::new(0) }
    }

    /// Of how many teachers.
    pub fn teachers(&self) -> usize {
        self.teachers
    }

    /// How many, of all queries.
    pub(super) fn len(&self) -> usize {
        self.trust.len()
    }

    /// Adds a combination to the next query: every teacher's weight; the positions, among the query's tails, of those it is
    /// for; and the weight of its distillation. One for no tails is not distilled, but its scores and log-sum are found.
    /// Returns its number.
    ///
    /// # Panics
    /// If there are other than so many weights.
    pub fn add(
        &mut self,
        weights: impl IntoIterator<Item = f32>,
        targets: impl IntoIterator<Item = usize>,
        trust: f64,
    ) -> usize {
        self.weights.extend(weights);
        self.targets.extend(targets.into_iter().map(|target| target as u32));
        self.target_starts.push(self.targets.len() as u32);
        self.trust.push(trust as f32);
        assert_eq!(self.weights.len(), self.teachers * self.len(), "a weight for every teacher");
        self.len() - 1
    }

    /// The query has all its groups.
    pub fn end_query(&mut self) {
        self.starts.push(self.len() as u32);
    }
}
