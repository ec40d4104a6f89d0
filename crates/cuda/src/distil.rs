//! The student's objective on a device: cross-entropy and what it learns from combinations of teachers.
//!
//! Combining, softening and the gradient are one kernel, which reads a row a few times and writes it once.

mod groups;

pub use groups::Groups;

use mkg::QuerySet;
use recipe::Precision;
use stage::Result;

use crate::Gpu;
use crate::kernel;
use crate::memory::{Array, DeviceMatrix, List, Lists, PADDED};
use crate::model::Model;
use crate::network::{Inputs, Standard};
use crate::teachers::{Sources, Teachers};
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
    /// A target and the rest apart, for each target.
    Dkd,
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
    teachers: Option<Teachers<'a>>,
    /// What stands for the teachers' scores where there are none.
    nobody: DeviceMatrix,
    /// Of the step to come.
    groups: Groups,
    lists: Lists,
    of_combinations: Array<f32>,
    /// Scores of the tails, then gradients of the tails; then three factors of each target, where each is a group.
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

/// The groups of a step, on the device.
struct Sent {
    starts: List,
    group_starts: List,
    target_starts: List,
    targets: List,
}

impl<'a> Distil<'a> {
    /// For a student that learns from `sources`, or alone; products are those of the teachers' models.
    pub fn new(gpu: &Gpu, terms: Terms, sources: Option<Sources<'a>>, precision: Precision) -> Self {
        Distil {
            gpu: gpu.clone(),
            terms,
            teachers: sources.map(|sources| Teachers::new(gpu, sources, precision)),
            nobody: DeviceMatrix::new(gpu),
            groups: Groups::default(),
            lists: Lists::new(gpu),
            of_combinations: Array::new(gpu),
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

    /// The device.
    pub fn gpu(&self) -> &Gpu {
        &self.gpu
    }

    /// Says which batch comes after the next one: what of it is copied up is sent while the device works on that.
    pub fn announce(&mut self, batch: &[u32]) {
        if let Some(teachers) = &mut self.teachers {
            teachers.announce(batch);
        }
    }

    /// Each teacher's scores `(query, entity)` of a batch, which the step on it then finds there.
    ///
    /// # Errors
    /// If the device fails.
    pub fn scores(&mut self, queries: &QuerySet, batch: &[u32], standard: Standard) -> Result<Inputs<'_>> {
        let Some(teachers) = &mut self.teachers else { return Ok(Inputs::of(&[], standard)) };
        let count = teachers.count();
        let scores = teachers.scores(queries, batch)?;
        let of_teacher = |teacher| scores.rows_at(teacher * batch.len()..(teacher + 1) * batch.len());
        Ok(Inputs::new((0..count).map(of_teacher), standard))
    }

    /// Each teacher's query vectors `(query, 2k)` of a batch.
    ///
    /// # Errors
    /// If the device fails.
    pub fn vectors(&mut self, queries: &QuerySet, batch: &[u32], standard: Standard) -> Result<Inputs<'_>> {
        let Some(teachers) = &mut self.teachers else { return Ok(Inputs::of(&[], standard)) };
        Ok(Inputs::of(teachers.vectors(queries, batch)?, standard))
    }

    /// Bytes of the device's memory beside the trainer's, for so many teachers of these widths. A cache is copied up in
    /// halves, into two buffers.
    pub fn memory(entities: usize, relations: usize, queries: usize, widths: &[usize], cached: bool) -> u64 {
        let entities = entities.next_multiple_of(PADDED);
        let scores = (widths.len() * queries * entities) as u64;
        // A model's scores go to the one matrix of all teachers', its query vectors stay its own.
        let model =
            |width: &usize| Model::memory(entities, relations, *width, 0) + 4 * (queries * width) as u64;
        if cached { 8 * scores } else { 4 * scores + widths.iter().map(model).sum::<u64>() }
    }

    /// Sends the groups, and makes room for what is found of them. `pairs` of query and tail are in the batch.
    fn send(&mut self, pairs: usize) -> Result<Sent> {
        let Groups { starts, weights, trust, target_starts, targets, .. } = &self.groups;
        self.group_starts.clear();
        let mut room = 0;
        for (query, tails) in self.tails.iter().enumerate() {
            for _ in starts[query]..starts[query + 1] {
                self.group_starts.push(room);
                room += tails;
            }
        }
        let lists = &mut self.lists;
        lists.clear();
        let sent = Sent {
            starts: lists.add(starts.iter().copied()),
            group_starts: lists.add(self.group_starts.iter().map(|start| *start as u32)),
            target_starts: lists.add(target_starts.iter().copied()),
            targets: lists.add(targets.iter().copied()),
        };
        lists.send()?;
        self.of_combinations.write(&[trust.as_slice(), weights].concat())?;
        self.of_pairs.resize(if self.terms.term == Term::Dkd { 5 } else { 2 } * pairs)?;
        self.of_groups.resize(3 * trust.len())?;
        self.group_scores.resize(room)?;
        self.of_queries.resize(3 * self.tails.len())?;
        Ok(sent)
    }

    /// The kernel's arguments.
    fn arguments(
        &self,
        visit: &Visit<'_>,
        (scores, teachers): (&DeviceMatrix, &DeviceMatrix),
        sent: &Sent,
        scale: f64,
    ) -> kernel::Distil {
        let (queries, groups) = (visit.numbers.len(), self.groups.len());
        let Distil { lists, of_combinations, of_pairs, of_groups, of_queries, terms, .. } = self;
        kernel::Distil {
            scores: scores.at(0),
            teachers: teachers.at(0),
            starts: visit.starts,
            tails: visit.tails,
            groups: lists.at(sent.starts, 0),
            group_starts: lists.at(sent.group_starts, 0),
            target_starts: lists.at(sent.target_starts, 0),
            targets: lists.at(sent.targets, 0),
            trust: of_combinations.at(0),
            weights: of_combinations.at(groups),
            of_tails: of_pairs.at(0),
            tail_gradients: of_pairs.at(visit.pairs),
            of_targets: of_pairs.at(2 * visit.pairs),
            shifts: of_groups.at(0),
            factors: of_groups.at(groups),
            log_sums: of_groups.at(2 * groups),
            group_scores: self.group_scores.at(0),
            cross_entropies: of_queries.at(0),
            values: of_queries.at(queries),
            log_sums_exp: of_queries.at(2 * queries),
            entities: scores.columns() as u64,
            stride: scores.stride() as u64,
            teacher_stride: teachers.stride() as u64,
            queries: queries as u64,
            members: self.groups.teachers() as u64,
            objective: match terms.term {
                Term::None => 0,
                Term::Kd => 1,
                Term::Ndkd => 2,
                Term::Dkd => 3,
            },
            mean: u64::from(terms.mean),
            tau: terms.tau,
            alpha: terms.alpha,
            beta: terms.beta,
            scale,
            weight: terms.weight,
        }
    }
}

impl Objective for Distil<'_> {
    type Rows = Taught;

    fn gradient(&mut self, visit: &Visit<'_>, scores: &mut DeviceMatrix, scale: f64) -> Result<()> {
        let queries = visit.numbers.len();
        if self.teachers.is_none() {
            self.groups = Groups::alone(queries);
        }
        assert_eq!(self.groups.starts.len(), queries + 1, "groups of every query of the batch");
        self.tails = visit.numbers.iter().map(|query| visit.queries.tails(*query as usize).len()).collect();
        let sent = self.send(visit.pairs)?;
        if let Some(teachers) = &mut self.teachers {
            teachers.scores(visit.queries, visit.numbers)?;
        }
        let teachers = self.teachers.as_ref().map_or(&self.nobody, Teachers::at_hand);
        let arguments = self.arguments(visit, (scores, teachers), &sent, scale);
        visit.gpu.launch(queries, &arguments)
    }

    fn results(&mut self) -> Result<(f64, Taught)> {
        if let Some(teachers) = &mut self.teachers {
            teachers.send_ahead()?;
        }
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
