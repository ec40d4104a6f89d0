//! The student's objective on a device: cross-entropy and what it learns from combinations of teachers.
//!
//! Teachers' scores of a batch are either computed anew from their models, which lie on the device, or copied up from a
//! cache of halves. Combining, softening and the gradient are one kernel, which reads a row a few times and writes it once.

use mkg::{Query, QuerySet};
use stage::Result;
use stage::recipe::Precision;

use crate::Gpu;
use crate::kernel;
use crate::memory::{Array, DeviceMatrix, Lists};
use crate::model::Model;
use crate::train::{Objective, Visit};

/// Which distillation term.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Term {
    /// None: cross-entropy alone.
    None,
    /// Between all probabilities.
    Kd,
    /// Neighbours and the rest apart. Half of it is had with a weight of 0.
    Ndkd,
}

/// The term's parameters: names as in the recipe.
#[derive(Clone, Copy, Debug)]
pub struct Terms {
    /// Which.
    pub term: Term,
    /// Whether neighbours have the mean of their probabilities, or their sum.
    pub mean: bool,
    /// Temperature.
    pub tau: f64,
    /// Weight of the neighbours' part.
    pub alpha: f64,
    /// Weight of the rest's part.
    pub beta: f64,
    /// Weight of the whole.
    pub weight: f64,
}

/// Combinations of teachers for each query of a batch.
#[derive(Clone, Debug, Default)]
pub struct Groups {
    teachers: usize,
    /// Query number `i`'s groups are those from `starts[i]` to `starts[i + 1]`.
    starts: Vec<u32>,
    weights: Vec<f32>,
    counts: Vec<u32>,
}

impl Groups {
    /// Of no query yet; groups of so many teachers.
    pub fn new(teachers: usize) -> Groups {
        Groups { teachers, starts: vec![0], weights: Vec::new(), counts: Vec::new() }
    }

    /// So many queries without any.
    fn alone(queries: usize) -> Groups {
        Groups { starts: vec![0; queries + 1], ..Groups::default() }
    }

    /// Of how many teachers.
    pub fn teachers(&self) -> usize {
        self.teachers
    }

    /// Adds a combination to the next query: every teacher's weight, and for how many of the query's tails it is. One for
    /// none is not distilled, but its scores and log-sum are found. Returns its number.
    ///
    /// # Panics
    /// If there are other than so many weights.
    pub fn add(&mut self, weights: impl IntoIterator<Item = f32>, count: usize) -> usize {
        self.weights.extend(weights);
        self.counts.push(count as u32);
        assert_eq!(self.weights.len(), self.teachers * self.counts.len(), "a weight for every teacher");
        self.counts.len() - 1
    }

    /// The query has all its groups.
    pub fn end_query(&mut self) {
        self.starts.push(self.counts.len() as u32);
    }
}

/// Where teachers' scores come from.
pub enum Sources<'a> {
    /// From their models, computed anew for every batch.
    Models(Vec<Model>),
    /// From a cache: the bits of the half-precision scores of all entities, of a training query by a teacher.
    Cache(Box<dyn Fn(usize, usize) -> &'a [u16] + Sync + 'a>),
}

/// What a step leaves behind.
#[derive(Clone, Debug, Default)]
pub struct Taught {
    /// The distillation term, summed over tails, without its weight.
    pub distillation: f64,
    /// The student's cross-entropy of every pair of query and tail, in the batch's order.
    pub cross_entropies: Vec<f64>,
    /// `ln Σ exp` of every group's scores of all entities.
    pub log_sums: Vec<f64>,
    /// Every group's scores of its query's tails; those of group `g` begin at `starts[g]`.
    pub scores: Vec<f64>,
    /// See `scores`.
    pub starts: Vec<usize>,
}

/// The student's objective.
pub struct Distil<'a> {
    gpu: Gpu,
    terms: Terms,
    precision: Precision,
    sources: Option<Sources<'a>>,
    /// Of the step to come.
    groups: Groups,
    lists: Lists,
    weights: Array<f32>,
    /// Teachers' scores `(teacher · query, entity)`.
    teachers: DeviceMatrix,
    halves: Array<u16>,
    staged: Vec<u16>,
    /// Scores of the tails, then gradients of the tails.
    of_pairs: Array<f64>,
    /// Shifts, factors, log-sums.
    of_groups: Array<f64>,
    group_scores: Array<f64>,
    /// Cross-entropies, values, log-sums.
    of_queries: Array<f64>,
    /// The last batch's tails, query by query, and where each group's scores begin.
    tails: Vec<usize>,
    group_starts: Vec<usize>,
}

impl<'a> Distil<'a> {
    /// For a student that learns from `sources`, or alone; products are those of the teachers' models.
    pub fn new(gpu: &Gpu, terms: Terms, sources: Option<Sources<'a>>, precision: Precision) -> Self {
        Distil {
            gpu: gpu.clone(),
            terms,
            precision,
            sources,
            groups: Groups::default(),
            lists: Lists::new(gpu),
            weights: Array::new(gpu),
            teachers: DeviceMatrix::new(gpu),
            halves: Array::new(gpu),
            staged: Vec::new(),
            of_pairs: Array::new(gpu),
            of_groups: Array::new(gpu),
            group_scores: Array::new(gpu),
            of_queries: Array::new(gpu),
            tails: Vec::new(),
            group_starts: Vec::new(),
        }
    }

    /// The combinations for the next batch, in its order; a student that learns alone has none.
    pub fn set_groups(&mut self, groups: Groups) {
        self.groups = groups;
    }

    /// Bytes of the device's memory beside the trainer's, for so many teachers of these widths. A cache is copied up in
    /// halves.
    pub fn memory(entities: usize, relations: usize, queries: usize, widths: &[usize], cached: bool) -> u64 {
        let scores = (widths.len() * queries * entities) as u64;
        // A model's scores go to the one matrix of all teachers', its query vectors stay its own.
        let model =
            |width: &usize| Model::memory(entities, relations, *width, 0) + 4 * (queries * width) as u64;
        if cached { 6 * scores } else { 4 * scores + widths.iter().map(model).sum::<u64>() }
    }

    /// Has the teachers' scores of a batch on the device.
    fn ask(&mut self, queries: &QuerySet, numbers: &[u32], entities: usize) -> Result<()> {
        let Some(sources) = &self.sources else { return Ok(()) };
        let teachers = self.groups.teachers;
        self.teachers.resize(teachers * numbers.len(), entities)?;
        match sources {
            Sources::Models(models) => {
                let asked: Vec<Query> =
                    numbers.iter().map(|number| queries.query(*number as usize)).collect();
                for (teacher, model) in models.iter().enumerate() {
                    let into = self.teachers.at(teacher * numbers.len());
                    model.write_scores(&asked, self.precision, into)?;
                }
                Ok(())
            }
            Sources::Cache(row) => {
                self.staged.clear();
                for teacher in 0..teachers {
                    numbers.iter().for_each(|number| {
                        self.staged.extend_from_slice(row(*number as usize, teacher));
                    });
                }
                self.halves.write(&self.staged)?;
                let count = self.staged.len();
                let widen =
                    kernel::Widen { from: self.halves.at(0), into: self.teachers.at(0), count: count as u64 };
                self.gpu.launch_over(count, &widen)
            }
        }
    }
}

impl Objective for Distil<'_> {
    type Rows = Taught;

    fn gradient(&mut self, visit: &Visit<'_>, scores: &mut DeviceMatrix, scale: f64) -> Result<()> {
        let (queries, entities) = (visit.numbers.len(), scores.columns());
        if self.sources.is_none() {
            self.groups = Groups::alone(queries);
        }
        assert_eq!(self.groups.starts.len(), queries + 1, "groups of every query of the batch");
        self.ask(visit.queries, visit.numbers, entities)?;
        self.tails = visit.numbers.iter().map(|query| visit.queries.tails(*query as usize).len()).collect();
        let Groups { teachers, starts, weights, counts } = &self.groups;
        self.group_starts.clear();
        let mut room = 0;
        for (query, tails) in self.tails.iter().enumerate() {
            for _ in starts[query]..starts[query + 1] {
                self.group_starts.push(room);
                room += tails;
            }
        }
        self.lists.clear();
        let of_queries = self.lists.add(starts.iter().copied());
        let of_groups = self.lists.add(self.group_starts.iter().map(|start| *start as u32));
        let count = self.lists.add(counts.iter().copied());
        self.lists.send()?;
        self.weights.write(weights)?;
        self.of_pairs.resize(2 * visit.pairs)?;
        self.of_groups.resize(3 * counts.len())?;
        self.group_scores.resize(room)?;
        self.of_queries.resize(3 * queries)?;
        let term = match self.terms.term {
            Term::None => 0,
            Term::Kd => 1,
            Term::Ndkd => 2,
        };
        let arguments = kernel::Distil {
            scores: scores.at(0),
            teachers: self.teachers.at(0),
            starts: visit.starts,
            tails: visit.tails,
            groups: self.lists.at(of_queries, 0),
            group_starts: self.lists.at(of_groups, 0),
            weights: self.weights.at(0),
            counts: self.lists.at(count, 0),
            of_tails: self.of_pairs.at(0),
            tail_gradients: self.of_pairs.at(visit.pairs),
            shifts: self.of_groups.at(0),
            factors: self.of_groups.at(counts.len()),
            log_sums: self.of_groups.at(2 * counts.len()),
            group_scores: self.group_scores.at(0),
            cross_entropies: self.of_queries.at(0),
            values: self.of_queries.at(queries),
            log_sums_exp: self.of_queries.at(2 * queries),
            entities: entities as u64,
            queries: queries as u64,
            members: *teachers as u64,
            objective: term,
            mean: u64::from(self.terms.mean),
            tau: self.terms.tau,
            alpha: self.terms.alpha,
            beta: self.terms.beta,
            scale,
            weight: self.terms.weight,
        };
        visit.gpu.launch(queries, &arguments)
    }

    fn results(&mut self) -> Result<(f64, Taught)> {
        let (of_queries, of_pairs) = (self.of_queries.to_vec()?, self.of_pairs.to_vec()?);
        let (of_groups, scores) = (self.of_groups.to_vec()?, self.group_scores.to_vec()?);
        let queries = self.tails.len();
        let cross_entropy: f64 = of_queries[..queries].iter().sum();
        let distillation: f64 = of_queries[queries..2 * queries].iter().sum();
        let log_sums_exp = &of_queries[2 * queries..];
        let of_tails = self.tails.iter().zip(log_sums_exp);
        let log_sum_of_pairs = of_tails.flat_map(|(tails, log_sum)| std::iter::repeat_n(*log_sum, *tails));
        let cross_entropies = log_sum_of_pairs.zip(&of_pairs).map(|(log_sum, score)| log_sum - score);
        let taught = Taught {
            distillation,
            cross_entropies: cross_entropies.collect(),
            log_sums: of_groups[2 * of_groups.len() / 3..].to_vec(),
            scores,
            starts: self.group_starts.clone(),
        };
        Ok((cross_entropy + self.terms.weight * distillation, taught))
    }
}

#[cfg(test)]
mod tests;
