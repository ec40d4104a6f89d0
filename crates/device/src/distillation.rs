//! The student's objective: cross-entropy and distillation from combinations of teachers. It also compares teachers
//! with the student for the rewards.

use candle_core::{D, Result, Tensor};
use kge::Matrix;
use kge::matrix::index;

use crate::host::{bytes, list, read_numbers, select, upload};
use crate::objective::{BatchObjective, BatchTails, ScoreGradient, TailLists};
use crate::teachers::DeviceTeachers;
use crate::terms::{Divergence, Side, SplitScores, TermGradient, Terms, differentiate};

/// A combination of teachers for some of a query's tails.
#[derive(Clone, Debug)]
pub struct Combination {
    /// Each teacher's weight in the sum of scores (Eq. 7).
    pub weights: Vec<f32>,
    /// The positions, among the query's tails, of the tails that this combination is for.
    pub tails: Vec<usize>,
}

/// The teachers of a batch.
#[derive(Clone, Debug)]
pub enum Guidance {
    /// Combinations of teachers.
    Combined {
        /// The combinations of each query; every tail is in one combination.
        combinations: Vec<Vec<Combination>>,
        /// Weights of each query's baseline `(query, teacher)`, if rewards are wanted.
        baseline: Option<Matrix<f32>>,
    },
    /// All teachers, integrated by MulDE's Senior.
    Integrated {
        /// Each query's scales `(query, teacher)`.
        scales: Matrix<f32>,
        /// The attention's temperature.
        temperature: f64,
    },
}

/// Comparisons of teachers with the student on a pair of query and tail: lower cross-entropy is better (Eq. 8).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Comparison {
    /// True if the combination chosen for the pair is better than the student.
    pub chosen: bool,
    /// True if the baseline is better than the student.
    pub baseline: bool,
}

/// Figures of a batch for the caller.
#[derive(Clone, Debug, Default)]
pub struct BatchFigures {
    /// The distillation term, summed over pairs of query and tail, without its weight.
    pub distillation: f64,
    /// Comparisons of every pair, in the batch's order, if rewards are wanted.
    pub answers: Vec<Comparison>,
    /// The Senior's attention to each teacher and the gradient of its weights, both `(query, teacher)`.
    pub integration: Option<[Matrix<f64>; 2]>,
}

/// The student's objective for one batch.
pub struct BatchDistillation<'a, 'b> {
    terms: Terms,
    teachers: &'a mut DeviceTeachers<'b>,
    guidance: &'a Guidance,
    left: Left,
}

/// The tensors from which [`BatchFigures`] is read.
#[derive(Default)]
struct Left {
    distillation: Option<Tensor>,
    /// Comparisons of every pair: for the combination and for the baseline.
    answers: Option<[Tensor; 2]>,
    integration: Option<[Tensor; 2]>,
}

impl<'a, 'b> BatchDistillation<'a, 'b> {
    /// Makes the objective with `terms`, from the scores of `teachers` combined according to `guidance`.
    pub fn new(terms: Terms, teachers: &'a mut DeviceTeachers<'b>, guidance: &'a Guidance) -> Self {
        BatchDistillation { terms, teachers, guidance, left: Left::default() }
    }

    /// Bytes of the device's memory besides the trainer's, for batches of `queries` queries with at most `most` tails
    /// each: the teachers' scores and the working tensors of one combination, each `(query, entity)`; double-precision
    /// numbers of tails, `(query, most)`; for DKD also a matrix `(most, most)`.
    pub fn memory(terms: Terms, entities: usize, queries: usize, teachers: usize, most: usize) -> u64 {
        const AT_HAND: usize = 8;
        const OF_TAILS: usize = 2 * 24;
        let square = if terms.term == Divergence::Dkd { bytes(&[3, most, most]) } else { 0 };
        let of_tails = bytes(&[OF_TAILS, queries, most]).saturating_add(square);
        bytes(&[queries, entities, teachers + AT_HAND]).saturating_add(of_tails)
    }

    /// Makes one combination of all teachers for each query, and stores the figures from which the Senior learns.
    fn integrate(
        &mut self,
        batch: &BatchTails<'_>,
        scores: &Tensor,
        scales: &Matrix<f32>,
        temperature: f64,
    ) -> Result<Round> {
        let said = self.teachers.scores(batch.queries, batch.numbers)?;
        let scales = upload(scores.device(), scales)?.to_dtype(batch.lists.counts.dtype())?;
        let attention = attention(said, &scales, scores, self.terms.tau, temperature)?;
        let round = Round::whole(batch, (&attention * &scales)?.to_dtype(scores.dtype())?);
        let combined = round.combine(said)?;
        let gradient = scales_gradient(said, &scales, &attention, &combined, &batch.lists)?;
        self.left.integration = Some([attention, gradient]);
        Ok(round)
    }
}

impl BatchObjective for BatchDistillation<'_, '_> {
    type Left = BatchFigures;

    fn gradient(&mut self, batch: &BatchTails<'_>, scores: &Tensor, scale: f64) -> Result<ScoreGradient> {
        let mut lesson = BatchLesson::new(self.terms, &batch.lists, scores, scale)?;
        let (rounds, baseline) = match self.guidance {
            Guidance::Combined { combinations, baseline } => {
                // One round has each query's first combination, the next one each second combination, and so on.
                let most = combinations.iter().map(Vec::len).max().unwrap_or(0);
                let rounds = (0..most).map(|number| Round::new(batch, scores, combinations, number));
                (rounds.collect::<Result<_>>()?, baseline.as_ref())
            }
            Guidance::Integrated { scales, temperature } => {
                (vec![self.integrate(batch, scores, scales, *temperature)?], None)
            }
        };
        let said = self.teachers.scores(batch.queries, batch.numbers)?;
        for round in &rounds {
            lesson.take(round, &round.combine(said)?, baseline.is_some())?;
        }
        if let Some(weights) = baseline {
            let weights = upload(scores.device(), weights)?.to_dtype(scores.dtype())?;
            let baseline = Round::whole(batch, weights);
            let split = SplitScores::new(&baseline.combine(said)?, &batch.lists)?;
            let baseline = lesson.answers(&baseline, split)?;
            let places = batch.places()?;
            let chosen = lesson.chosen.flatten_all()?.index_select(&places, 0)?;
            self.left.answers = Some([chosen, baseline.flatten_all()?.index_select(&places, 0)?]);
        }
        self.left.distillation = Some(lesson.values.sum_all()?);
        lesson.finish(&batch.lists)
    }

    fn left(&mut self) -> Result<BatchFigures> {
        let Left { distillation, answers, integration } = std::mem::take(&mut self.left);
        let mut taught = BatchFigures::default();
        if let Some(distillation) = distillation {
            taught.distillation = read_numbers(&distillation)?[0];
        }
        if let Some([chosen, baseline]) = answers {
            let pairs = read_numbers(&chosen)?.into_iter().zip(read_numbers(&baseline)?);
            let pairs = pairs.map(|of| Comparison { chosen: of.0 > 0.5, baseline: of.1 > 0.5 });
            taught.answers = pairs.collect();
        }
        if let Some([attention, gradient]) = integration {
            let (rows, columns) = attention.dims2()?;
            let [attention, gradient] = [read_numbers(&attention)?, read_numbers(&gradient)?];
            taught.integration =
                Some([attention, gradient].map(|numbers| Matrix::from_values(rows, columns, numbers)));
        }
        Ok(taught)
    }
}

/// One combination for each query of a batch, or for each of some queries.
struct Round {
    /// The queries' rows in the batch; `None` stands for all rows, in order.
    rows: Option<Tensor>,
    /// Weights `(row, teacher)`.
    weights: Tensor,
    lists: TailLists,
    /// 1 for the tails that the combination is for, else 0: `(row, most)`.
    targets: Tensor,
}

impl Round {
    /// The round of all tails of all queries, with weights `(query, teacher)`.
    fn whole(batch: &BatchTails<'_>, weights: Tensor) -> Round {
        let lists = batch.lists.clone();
        Round { rows: None, weights, targets: lists.is_tail.clone(), lists }
    }

    /// The round of combination number `number` of each query that has such a combination.
    fn new(
        batch: &BatchTails<'_>,
        scores: &Tensor,
        combinations: &[Vec<Combination>],
        number: usize,
    ) -> Result<Round> {
        assert_eq!(combinations.len(), batch.numbers.len(), "combinations for every query of the batch");
        let device = scores.device();
        let there = (0u32..).zip(combinations).filter_map(|(row, of)| Some((row, of.get(number)?)));
        let (rows, there): (Vec<u32>, Vec<&Combination>) = there.unzip();
        let weights: Vec<f32> = there.iter().flat_map(|of| of.weights.iter().copied()).collect();
        let weights = Tensor::from_vec(weights, (rows.len(), ()), device)?.to_dtype(scores.dtype())?;
        let counts: Vec<usize> = batch.counts().collect();
        let is_whole = rows.iter().zip(&there).all(|(row, of)| of.tails.len() == counts[index(*row)]);
        let rows = (rows.len() < combinations.len()).then(|| list(device, &rows)).transpose()?;
        let lists = batch.lists.select(rows.as_ref())?;
        let targets = if is_whole {
            lists.is_tail.clone()
        } else {
            let most = lists.tails.dim(1)?;
            let mut targets = vec![0f32; most * there.len()];
            for (row, combination) in targets.chunks_exact_mut(most).zip(there) {
                combination.tails.iter().for_each(|tail| row[*tail] = 1.0);
            }
            Tensor::from_vec(targets, ((), most), device)?.to_dtype(lists.counts.dtype())?
        };
        Ok(Round { rows, weights, lists, targets })
    }

    /// The sums of the teachers' scores with the round's weights, `(row, entity)` (Eq. 7).
    fn combine(&self, teachers: &[Tensor]) -> Result<Tensor> {
        let mut weighted = teachers.iter().enumerate().map(|(teacher, scores)| {
            select(scores, self.rows.as_ref())?.broadcast_mul(&self.weights.narrow(1, teacher, 1)?)
        });
        let Some(first) = weighted.next() else { candle_core::bail!("a combination of no teachers") };
        weighted.try_fold(first?, |sum, next| sum + next?)
    }

    /// Adds numbers of the round's queries to the same queries' numbers in the batch.
    fn add(&self, sum: &mut Tensor, of_rows: &Tensor) -> Result<()> {
        *sum = match &self.rows {
            Some(rows) => sum.index_add(rows, of_rows, 0)?,
            None => (&*sum + of_rows)?,
        };
        Ok(())
    }
}

/// The work on a batch of rows: cross-entropy first, then any number of combinations.
struct BatchLesson {
    terms: Terms,
    scale: f64,
    student: Side,
    of_tails: Tensor,
    /// `ln Σ exp` of the student's scores `(query, 1)`.
    log_sum: Tensor,
    /// The student's softened exponentials `(query, entity)`, and their factor in the gradient `(query, 1)`.
    exponentials: Tensor,
    factor: Tensor,
    /// The gradient of all entities but the tails, summed so far, and the distillation's gradient of the tails.
    gradient: Tensor,
    tails: Tensor,
    /// The distillation term `(query, 1)`.
    values: Tensor,
    /// 1 for the tails that the chosen combination answers better than the student, else 0: `(query, most)`.
    chosen: Tensor,
}

impl BatchLesson {
    fn new(terms: Terms, lists: &TailLists, scores: &Tensor, scale: f64) -> Result<BatchLesson> {
        let split = SplitScores::new(scores, lists)?;
        let (plain, side) = Side::new(split.clone(), 1.0)?;
        let log_sum = side.log_sum_exp()?;
        let share = (split.shift.to_dtype(log_sum.dtype())? - &log_sum)?.exp()?;
        let share = ((share * &lists.counts)? * scale)?.to_dtype(scores.dtype())?;
        let (of_tails, gradient) = (split.of_tails.clone(), plain.broadcast_mul(&share)?);
        let (exponentials, student) = Side::new(split, terms.tau)?;
        Ok(BatchLesson {
            terms,
            scale,
            student,
            factor: log_sum.zeros_like()?,
            tails: of_tails.zeros_like()?,
            values: log_sum.zeros_like()?,
            chosen: of_tails.zeros_like()?,
            of_tails,
            log_sum,
            exponentials,
            gradient,
        })
    }

    /// Adds the distillation from a round's `combined (row, entity)` scores.
    fn take(&mut self, round: &Round, combined: &Tensor, rewarded: bool) -> Result<()> {
        let student = self.student.select(round.rows.as_ref())?;
        let split = SplitScores::new(combined, &round.lists)?;
        if rewarded {
            let answers = self.answers(round, split.clone())?;
            round.add(&mut self.chosen, &answers)?;
        }
        let (exponentials, teachers) = Side::new(split, self.terms.tau)?;
        let term =
            differentiate(self.terms, &student, &teachers, &exponentials, &round.lists, &round.targets)?;
        let scale = self.scale * self.terms.weight / self.terms.tau;
        let TermGradient { value, student, teachers, tails } = term;
        round.add(&mut self.values, &value)?;
        round.add(&mut self.factor, &(student * scale)?)?;
        round.add(&mut self.tails, &(tails * scale)?)?;
        let factor = (teachers * scale)?.to_dtype(exponentials.dtype())?;
        round.add(&mut self.gradient, &exponentials.broadcast_mul(&factor)?)
    }

    /// 1 for targets whose cross-entropy by the combined scores is lower than by the student's (Eq. 8), `(row, most)`.
    fn answers(&self, round: &Round, combined: SplitScores) -> Result<Tensor> {
        let student = select(&self.of_tails.broadcast_sub(&self.log_sum)?, round.rows.as_ref())?;
        let (_, combined) = Side::new(combined, 1.0)?;
        let teachers = combined.split.of_tails.broadcast_sub(&combined.log_sum_exp()?)?;
        teachers.gt(&student)?.to_dtype(student.dtype())? * &round.targets
    }

    fn finish(self, lists: &TailLists) -> Result<ScoreGradient> {
        let kind = self.gradient.dtype();
        let factor = self.factor.to_dtype(kind)?;
        let gradient = (self.gradient + self.exponentials.broadcast_mul(&factor)?)?;
        let probabilities = self.of_tails.broadcast_sub(&self.log_sum)?.exp()?;
        let of_tails = ((probabilities.broadcast_mul(&lists.counts)? - 1.0)? * self.scale)?;
        gradient.scatter_set(&lists.tails, &(of_tails + self.tails)?.to_dtype(kind)?, 1)?;
        let of_tails = (self.of_tails * &lists.is_tail)?.sum_keepdim(1)?;
        let cross_entropy = ((&lists.counts * &self.log_sum)? - of_tails)?;
        Ok(ScoreGradient { scores: gradient, losses: (cross_entropy + (self.values * self.terms.weight)?)? })
    }
}

/// The attention `a_m (query, teacher)` of MulDE's Senior, from the divergence between each teacher and the student,
/// all softened by `tau`; a teacher is scaled by its column of `scales (query, teacher)`. The senior in `dsom_distill`
/// has the mathematics and learns.
fn attention(
    teachers: &[Tensor],
    scales: &Tensor,
    student: &Tensor,
    tau: f64,
    temperature: f64,
) -> Result<Tensor> {
    let of_student = log_softmax(&(student / tau)?)?;
    let divergences = teachers.iter().enumerate().map(|(teacher, scores)| {
        let scale = (scales.narrow(1, teacher, 1)? / tau)?.to_dtype(scores.dtype())?;
        let of_teacher = log_softmax(&scores.broadcast_mul(&scale)?)?;
        let terms = (of_teacher.exp()? * (&of_teacher - &of_student)?)?;
        terms.sum_keepdim(1)?.to_dtype(scales.dtype())
    });
    let logits = (Tensor::cat(&divergences.collect::<Result<Vec<_>>>()?, 1)? / -temperature)?;
    log_softmax(&logits)?.exp()
}

/// The gradient of the Senior's parameters `w (query, teacher)`, which give `scales`, with `combined (query, entity)`.
fn scales_gradient(
    teachers: &[Tensor],
    scales: &Tensor,
    attention: &Tensor,
    combined: &Tensor,
    lists: &TailLists,
) -> Result<Tensor> {
    let wide = scales.dtype();
    let probabilities = log_softmax(combined)?.exp()?;
    let excesses = teachers.iter().map(|scores| {
        let expected = (&probabilities * scores)?.sum_keepdim(1)?.to_dtype(wide)?;
        let of_tails = scores.gather(&lists.tails, 1)?.sum_keepdim(1)?.to_dtype(wide)?;
        (&lists.counts * expected)? - of_tails
    });
    let excesses = Tensor::cat(&excesses.collect::<Result<Vec<_>>>()?, 1)?;
    let slopes = (scales * ((scales * -0.5)? + 1.0)?)?;
    (attention * slopes)? * excesses
}

fn log_softmax(xs: &Tensor) -> Result<Tensor> {
    let shifted = xs.broadcast_sub(&xs.max_keepdim(D::Minus1)?)?;
    shifted.broadcast_sub(&shifted.exp()?.sum_keepdim(D::Minus1)?.log()?)
}

#[cfg(test)]
mod tests;
