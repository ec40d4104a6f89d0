//! The distillation terms as tensors: the objective in `dsom_distill` has the mathematics and the gradients.
//!
//! As in that objective, a row is split. Its few tails are handled one by one in double precision. The probabilities of
//! all other entities are summed directly, never as one minus the tails' probabilities.

use candle_core::{DType, Result, Tensor};
use kge::Real;

use crate::host::select;
use crate::objective::TailLists;
use crate::rank::masked;

/// A distillation term.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Divergence {
    /// KL divergence over all entities (Eq. 2).
    Kd,
    /// Neighbours and the rest separately (Eq. 12); a weight of 0 leaves only one of the two parts.
    Ndkd,
    /// A target and the rest separately, for each target.
    Dkd,
}

/// The term's parameters, named as in the recipe.
#[derive(Clone, Copy, Debug)]
pub struct Terms {
    /// The term.
    pub term: Divergence,
    /// True if a row takes the mean of its neighbours' probabilities, false if it takes their sum.
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

/// The logarithm of zero: its exponential is 0, but the difference of two such logarithms is finite.
const NOTHING: f64 = -1e30;

/// Rows of scores, separated from their tails.
#[derive(Clone, Debug)]
pub(crate) struct SplitScores {
    /// Scores `(row, entity)`, masked at the tails.
    pub(crate) masked: Tensor,
    /// The largest masked score, `(row, 1)`; the largest score of a tail where all entities are tails.
    pub(crate) shift: Tensor,
    /// The tails' scores `(row, most)`, in double precision.
    pub(crate) of_tails: Tensor,
}

/// One side of a term, teachers or student: its scores, and softened logarithms relative to their shift.
#[derive(Clone, Debug)]
pub(crate) struct Side {
    pub(crate) split: SplitScores,
    /// `(score - shift) / τ` of the tails, `(row, most)`.
    tails: Tensor,
    /// `ln Σ exp((score - shift) / τ)` of all other entities, `(row, 1)`.
    others: Tensor,
}

/// A term's value for each row, and the parts of its gradient, to be multiplied by the term's weight over `τ`.
pub(crate) struct TermGradient {
    /// The value, `(row, 1)`.
    pub(crate) value: Tensor,
    /// The factor of the student's exponentials, `(row, 1)`.
    pub(crate) student: Tensor,
    /// The factor of the teachers' exponentials, `(row, 1)`.
    pub(crate) teachers: Tensor,
    /// The gradients of the tails, `(row, most)`.
    pub(crate) tails: Tensor,
}

impl SplitScores {
    pub(crate) fn new(scores: &Tensor, lists: &TailLists) -> Result<SplitScores> {
        let (kind, wide) = (scores.dtype(), lists.counts.dtype());
        let nothing = ((&lists.is_tail - 1.0)? * -NOTHING)?;
        let of_tails = (scores.gather(&lists.tails, 1)?.to_dtype(wide)? + nothing)?;
        let masked = masked(scores, &lists.tails)?;
        let highest = masked.max_keepdim(1)?;
        let of_highest_tail = of_tails.max_keepdim(1)?.to_dtype(kind)?;
        let shift = highest.le(f64::MASKED)?.where_cond(&of_highest_tail, &highest)?;
        Ok(SplitScores { masked, shift, of_tails })
    }
}

impl Side {
    /// Softens the scores. Returns `exp((score - shift) / τ)` of all but the tails, `(row, entity)`, and the side.
    pub(crate) fn new(split: SplitScores, tau: f64) -> Result<(Tensor, Side)> {
        let wide = split.of_tails.dtype();
        let exponentials = (split.masked.broadcast_sub(&split.shift)? / tau)?.exp()?;
        let others = log(&exponentials.sum_keepdim(1)?.to_dtype(wide)?)?;
        let tails = (split.of_tails.broadcast_sub(&split.shift.to_dtype(wide)?)? / tau)?;
        Ok((exponentials, Side { split, tails, others }))
    }

    /// `ln Σ exp((score - shift) / τ)` over all entities.
    fn total(&self) -> Result<Tensor> {
        log_add(&self.others, &log_sum(&self.tails)?)
    }

    /// `ln Σ exp(score)` over all entities, `(row, 1)`, for a side softened at temperature 1.
    pub(crate) fn log_sum_exp(&self) -> Result<Tensor> {
        self.total()? + self.split.shift.to_dtype(self.tails.dtype())?
    }

    pub(crate) fn select(&self, rows: Option<&Tensor>) -> Result<Side> {
        let SplitScores { masked, shift, of_tails } = &self.split;
        let (masked, shift, of_tails) =
            (select(masked, rows)?, select(shift, rows)?, select(of_tails, rows)?);
        let split = SplitScores { masked, shift, of_tails };
        Ok(Side { split, tails: select(&self.tails, rows)?, others: select(&self.others, rows)? })
    }
}

/// The term between the teachers, with their softened `exponentials`, and the student, for the tails marked with 1 in
/// `targets (row, most)`; all others are 0.
pub(crate) fn differentiate(
    terms: Terms,
    student: &Side,
    teachers: &Side,
    exponentials: &Tensor,
    lists: &TailLists,
    targets: &Tensor,
) -> Result<TermGradient> {
    let gap = gap(terms.tau, student, teachers, exponentials)?;
    let compared = Compared { terms, student, teachers, gap };
    let counts = targets.sum_keepdim(1)?;
    match terms.term {
        Divergence::Kd => compared.plain(&counts),
        Divergence::Ndkd => compared.by_neighbours(lists, &counts),
        Divergence::Dkd => compared.by_target(targets),
    }
}

/// The mean of `(c - z) / τ` over all but the tails, weighted by `exp(c / τ)`, each relative to its shift; 0 if empty.
fn gap(tau: f64, student: &Side, teachers: &Side, exponentials: &Tensor) -> Result<Tensor> {
    let wide = teachers.split.of_tails.dtype();
    let differences = (&teachers.split.masked - &student.split.masked)?;
    let sum = (exponentials * differences)?.sum_keepdim(1)?.to_dtype(wide)?;
    let shifts = (&teachers.split.shift - &student.split.shift)?.to_dtype(wide)?;
    let mean = (sum * inverse(&teachers.others)?)?;
    ((mean - shifts)? * is_there(&teachers.others)?)? / tau
}

struct Compared<'a> {
    terms: Terms,
    student: &'a Side,
    teachers: &'a Side,
    gap: Tensor,
}

impl Compared<'_> {
    /// The KL divergence over all entities (Eq. 2).
    fn plain(&self, counts: &Tensor) -> Result<TermGradient> {
        let (log_student, log_teachers) = (self.student.total()?, self.teachers.total()?);
        let of_student = self.student.tails.broadcast_sub(&log_student)?.exp()?;
        let of_teachers = self.teachers.tails.broadcast_sub(&log_teachers)?.exp()?;
        let of_tails = (&of_teachers * (&self.teachers.tails - &self.student.tails)?)?.sum_keepdim(1)?;
        let of_others = ((&self.teachers.others - &log_teachers)?.exp()? * &self.gap)?;
        let value = (((of_tails + of_others)? - &log_teachers)? + &log_student)?;
        Ok(TermGradient {
            value: (counts * value)?,
            student: (counts * log_student.neg()?.exp()?)?,
            teachers: (counts * log_teachers.neg()?.exp()?)?.neg()?,
            tails: (of_student - of_teachers)?.broadcast_mul(counts)?,
        })
    }

    /// The neighbours' term (Eq. 12): the tails are the group, all other entities the rest.
    fn by_neighbours(&self, lists: &TailLists, counts: &Tensor) -> Result<TermGradient> {
        let beta = self.terms.beta;
        let (group_student, group_teachers) = (log_sum(&self.student.tails)?, log_sum(&self.teachers.tails)?);
        let (rest_student, rest_teachers) = (&self.student.others, &self.teachers.others);
        let (student, teachers) = ([&group_student, rest_student], [&group_teachers, rest_teachers]);
        let (binary, k) = self.binary(student, teachers, &lists.counts)?;
        // If all entities are in the group, there is no rest to compare.
        let rest = (((&self.gap - rest_teachers)? + rest_student)? * is_there(rest_student)?)?;
        let value = ((binary * self.terms.alpha)? + (rest * beta)?)?;
        Ok(TermGradient {
            value: (counts * value)?,
            student: ((counts * (k.neg()? + beta)?)? * inverse(rest_student)?)?,
            teachers: (counts * (inverse(rest_teachers)? * -beta)?)?,
            tails: self.student.tails.broadcast_sub(&group_student)?.exp()?.broadcast_mul(&(counts * k)?)?,
        })
    }

    /// The DKD term: each target is its own group; the query's other tails belong to the rest.
    fn by_target(&self, targets: &Tensor) -> Result<TermGradient> {
        let (alpha, beta) = (self.terms.alpha, self.terms.beta);
        let (z, c) = (&self.student.tails, &self.teachers.tails);
        let rest_student = log_add(&self.student.others, &log_of_others(z)?)?;
        let rest_teachers = log_add(&self.teachers.others, &log_of_others(c)?)?;
        let (binary, k) = self.binary([z, &rest_student], [c, &rest_teachers], &targets.ones_like()?)?;
        let (shares_student, shares_teachers) =
            (Shares::new(z, &rest_student)?, Shares::new(c, &rest_teachers)?);
        let others = rest_teachers.broadcast_sub(&self.teachers.others)?.neg()?.exp()?;
        let gaps = (shares_teachers.over_tails(&(c - z)?)? + others.broadcast_mul(&self.gap)?)?;
        let rest = ((gaps - &rest_teachers)? + &rest_student)?;
        let value = (targets * ((binary * alpha)? + (rest * beta)?)?)?;
        let (of_student, of_teachers) = ((targets * (k.neg()? + beta)?)?, (targets * -beta)?);
        let of_others =
            (shares_student.over_rests(&of_student)? + shares_teachers.over_rests(&of_teachers)?)?;
        Ok(TermGradient {
            value: value.sum_keepdim(1)?,
            student: (of_student * inverse(&rest_student)?)?.sum_keepdim(1)?,
            teachers: (of_teachers * inverse(&rest_teachers)?)?.sum_keepdim(1)?,
            tails: (of_others + (targets * k)?)?,
        })
    }

    /// The binary divergence between groups of `sizes` entities and the rest, given as log-sums (Eq. 11), and the
    /// factor `α · ∂KL_b/∂b · ∂b/∂p_G · p_G p_R`.
    fn binary(
        &self,
        student: [&Tensor; 2],
        teachers: [&Tensor; 2],
        sizes: &Tensor,
    ) -> Result<(Tensor, Tensor)> {
        let sizes = if self.terms.mean { sizes.clone() } else { sizes.ones_like()? };
        let [in_student, outside_student] = log_binary(student, &sizes)?;
        let [in_teachers, outside_teachers] = log_binary(teachers, &sizes)?;
        let value =
            (divergence(&in_teachers, &in_student)? + divergence(&outside_teachers, &outside_student)?)?;
        let total = log_add(student[0], student[1])?;
        let (group, rest) = ((student[0] - &total)?.exp()?, (student[1] - &total)?.exp()?);
        // ∂(1 - b)/∂p_R divided by (1 - b), if the mean is taken: p_R / (n - 1 + p_R), or 1 if n = 1.
        let ratio = (&rest / ((&sizes - 1.0)? + &rest)?)?;
        let ratio = sizes.eq(1.0)?.where_cond(&ratio.ones_like()?, &ratio)?;
        let k = ((outside_teachers.exp()? * group)? * ratio)?;
        let k = ((k - (in_teachers.exp()? * rest)?)? * self.terms.alpha)?;
        Ok((value, k))
    }
}

/// The shares `e^(x_j - rest_i)` of each tail `j` in the rest of each other tail `i`, as factors of at most 1. The
/// highest tail has separate factors: its rest may be far below all other rests, which contain that tail.
struct Shares {
    /// `e^(highest - rest_i)`, or 0 for the highest tail.
    rests: Tensor,
    /// `e^(x_j - highest)`.
    tails: Tensor,
    /// `e^(x_j - rest)` in the rest of the highest tail, or 0 for the highest tail itself.
    of_highest: Tensor,
    /// 1 for the highest tail, else 0.
    is_highest: Tensor,
}

impl Shares {
    /// The shares of the tails with scores `xs` in their `rests`, all logarithms `(row, most)`.
    fn new(xs: &Tensor, rests: &Tensor) -> Result<Shares> {
        let place = xs.argmax_keepdim(1)?;
        let (highest, rest) = (xs.gather(&place, 1)?, rests.gather(&place, 1)?);
        let is_highest = xs.zeros_like()?.scatter(&place, &highest.ones_like()?, 1)?;
        let is_other = (1.0 - &is_highest)?;
        Ok(Shares {
            rests: (rests.broadcast_sub(&highest)?.neg()?.minimum(0.0)?.exp()? * &is_other)?,
            tails: xs.broadcast_sub(&highest)?.exp()?,
            of_highest: (xs.broadcast_sub(&rest)?.minimum(0.0)?.exp()? * is_other)?,
            is_highest,
        })
    }

    /// `Σ_j e^(x_j - rest_i) y_j`, for each rest.
    fn over_tails(&self, ys: &Tensor) -> Result<Tensor> {
        let of_highest = (&self.of_highest * ys)?.sum_keepdim(1)?;
        (&self.rests * sum_of_others(&(&self.tails * ys)?)?)? + self.is_highest.broadcast_mul(&of_highest)?
    }

    /// `Σ_i e^(x_j - rest_i) y_i`, for each tail.
    fn over_rests(&self, ys: &Tensor) -> Result<Tensor> {
        let of_highest = (&self.is_highest * ys)?.sum_keepdim(1)?;
        (&self.tails * sum_of_others(&(&self.rests * ys)?)?)? + self.of_highest.broadcast_mul(&of_highest)?
    }
}

/// The logarithms of `b = p_G / n` and `1 - b = (n - 1 + p_R) / n`, without cancellation.
fn log_binary([group, rest]: [&Tensor; 2], sizes: &Tensor) -> Result<[Tensor; 2]> {
    let total = log_add(group, rest)?;
    let rest = (rest - &total)?;
    let outside = log(&(((sizes - 1.0)? + rest.exp()?)? / sizes)?)?;
    // For a single entity the logarithm itself is known, however small.
    let outside = sizes.eq(1.0)?.where_cond(&rest, &outside)?;
    Ok([((group - total)? - sizes.log()?)?, outside])
}

/// `x ln x - x ln y`, from the logarithms.
fn divergence(log_x: &Tensor, log_y: &Tensor) -> Result<Tensor> {
    log_x.exp()? * (log_x - log_y)?
}

fn log(xs: &Tensor) -> Result<Tensor> {
    xs.log()?.maximum(NOTHING)
}

/// `ln(e^a + e^b)`, with `a (row, 1)`.
fn log_add(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    let high = b.broadcast_maximum(a)?;
    let sum = (a.broadcast_sub(&high)?.exp()? + (b - &high)?.exp()?)?;
    high + sum.log()?
}

/// `ln Σ exp` of each row.
fn log_sum(xs: &Tensor) -> Result<Tensor> {
    let high = xs.max_keepdim(1)?;
    let sum = xs.broadcast_sub(&high)?.exp()?.sum_keepdim(1)?;
    high + sum.log()?
}

/// `ln Σ exp` of the other elements in the row of each element.
fn log_of_others(xs: &Tensor) -> Result<Tensor> {
    let place = xs.argmax_keepdim(1)?;
    let high = xs.gather(&place, 1)?;
    let sums = sum_of_others(&xs.broadcast_sub(&high)?.exp()?)?;
    // The other elements may be too far below the highest element to have visible exponentials.
    let of_highest = log_sum(&xs.scatter(&place, &(high.ones_like()? * NOTHING)?, 1)?)?;
    log(&sums)?.broadcast_add(&high)?.scatter(&place, &of_highest, 1)?.maximum(NOTHING)
}

/// The sum of the other elements in the row of each element, without any subtraction.
fn sum_of_others(xs: &Tensor) -> Result<Tensor> {
    let most = xs.dim(1)?;
    let others = Tensor::eye(most, DType::U8, xs.device())?.eq(0u8)?;
    xs.matmul(&others.to_dtype(xs.dtype())?)
}

/// 1 where `log` is the logarithm of more than zero, else 0.
fn is_there(log: &Tensor) -> Result<Tensor> {
    log.gt(NOTHING * 1e-6)?.to_dtype(log.dtype())
}

/// `e^-log`, or 0 for the logarithm of zero.
fn inverse(log: &Tensor) -> Result<Tensor> {
    let is_there = is_there(log)?;
    (log * &is_there)?.neg()?.exp()? * is_there
}
