//! The objective: replaces a row of the student's scores by the gradient of cross-entropy plus distillation.
//!
//! All distillation terms compare the softened probabilities `p = softmax(scores / τ)` of a combination of teachers and
//! of the student. The decoupled terms split the entities into a group `G` (the neighbours for NDKD, one target for
//! DKD) and the rest `R`:
//!
//! ```text
//! α · KL([b, 1-b]_tea ‖ [b, 1-b]_stu) + β · KL(q_tea ‖ q_stu)      (Eq. 12)
//! b = p_G, or p_G / |G| for the mean;   q = p on R, renormalised
//! ```
//!
//! With `u = p / p_G` on `G` and `K = α · ∂KL_b/∂b · ∂b/∂p_G · p_G p_R`, the gradient with respect to the student's
//! scores is
//!
//! ```text
//! on G:  K u / τ                     on R:  ((β - K) q_stu - β q_tea) / τ
//! ```
//!
//! A query's tails are its neighbours, so a row is split into tails (few, handled one by one in `f64`) and all other
//! entities (handled by vectorised passes with the tails masked). The probabilities of the rest are summed directly,
//! never as one minus the others, so a confident student loses no digits.

use device::{Divergence, Terms};
use kge::Real;
use kge::row::{self, Power};
use mkg::EntityId;
use recipe::{Neighbours, Term};

/// The parameters of a recipe's term; the weight is 0 for a student that learns alone.
pub(crate) fn terms(term: &Term) -> Terms {
    let (divergence, neighbours) = match *term {
        Term::Ndkd { neighbours, .. } | Term::Nekd { neighbours, .. } => (Divergence::Ndkd, neighbours),
        Term::Nnkd { .. } => (Divergence::Ndkd, Neighbours::Mean),
        Term::Dkd { .. } => (Divergence::Dkd, Neighbours::Mean),
        Term::Kd(_) | Term::None => (Divergence::Kd, Neighbours::Mean),
    };
    let (tau, weight) = term.softening().map_or((1.0, 0.0), |of| (of.tau, of.weight()));
    let (alpha, beta) = term.parts();
    Terms { term: divergence, mean: neighbours == Neighbours::Mean, tau, alpha, beta, weight }
}

/// `ln(e^a + e^b)`.
fn log_add(a: f64, b: f64) -> f64 {
    let (high, low) = if a > b { (a, b) } else { (b, a) };
    if high == f64::NEG_INFINITY { high } else { high + (low - high).exp().ln_1p() }
}

fn log_sum(xs: &[f64]) -> f64 {
    xs.iter().copied().fold(f64::NEG_INFINITY, log_add)
}

/// `x ln x - x ln y` from the logarithms; 0 for `x = 0`.
fn divergence(log_x: f64, log_y: f64) -> f64 {
    if log_x == f64::NEG_INFINITY { 0.0 } else { log_x.exp() * (log_x - log_y) }
}

/// Softened scores of one side, teacher or student (Eq. 11): tails one by one, other entities as a sum. All are
/// relative to the side's shift, so that exponentials stay in range; only differences within a side matter.
struct SoftenedSide {
    /// `(score - shift) / τ` of each tail.
    tails: Vec<f64>,
    /// `ln Σ exp((score - shift) / τ)` over all other entities.
    others: f64,
    /// The largest score of an entity that is not a tail.
    shift: f64,
}

impl SoftenedSide {
    /// Makes a side from the tails' scores and the sum `Σ exp((score - shift) / τ)` over the others.
    fn new(of_tails: &[f64], shift: f64, tau: f64, sum: f64) -> SoftenedSide {
        let tails = of_tails.iter().map(|score| (score - shift) / tau).collect();
        SoftenedSide { tails, others: sum.ln(), shift }
    }

    fn total(&self) -> f64 {
        log_add(self.others, log_sum(&self.tails))
    }
}

/// A group and its complement, as log-sums.
#[derive(Clone, Copy)]
struct GroupLogSums {
    group: f64,
    rest: f64,
}

/// The work on one row: [`Pass::new`] takes the scores, [`Pass::distil`] any number of teacher combinations, and
/// [`Pass::finish`] ends it.
pub(crate) struct Pass<'a, T> {
    scores: &'a mut [T],
    tails: &'a [EntityId],
    buffers: &'a mut RowBuffers<T>,
    terms: Terms,
    of_tails: Vec<f64>,
    student: SoftenedSide,
    /// `ln Σ exp(score)` over all entities: cross-entropy is this number minus the tail's score.
    log_sum_exp: f64,
    tail_gradients: Vec<f64>,
    /// The factor of `exp((score - shift) / τ)` in the other entities' gradient.
    softened_factor: f64,
    /// The factor of `exp((teacher - shift) / τ)` for the last combination; earlier combinations are in the buffer.
    teacher_factor: f64,
    power: Power,
}

/// Rows of numbers that a thread needs besides the row of scores.
pub(crate) struct RowBuffers<T> {
    /// `exp((student - shift) / τ)`.
    softened: Vec<T>,
    /// `exp((teacher - shift) / τ)` of the current combination.
    teacher: Vec<T>,
    /// The gradient of all earlier combinations.
    gradient: Vec<T>,
    combinations: usize,
}

impl<T: Real> RowBuffers<T> {
    pub(crate) fn new(entities: usize) -> Self {
        let row = vec![T::ZERO; entities];
        RowBuffers { softened: row.clone(), teacher: row.clone(), gradient: row, combinations: 0 }
    }
}

impl<'a, T: Real> Pass<'a, T> {
    /// Begins a pass with the student's `scores (entity)` of a query with these `tails`.
    pub(crate) fn new(
        scores: &'a mut [T],
        tails: &'a [EntityId],
        terms: Terms,
        buffers: &'a mut RowBuffers<T>,
    ) -> Self {
        let of_tails = mask(scores, tails);
        // Without a distillation term, a temperature of 1 softens nothing: the same pass gives the plain exponentials.
        let tau = terms.tau;
        let (shift, power, rate) = (shift(scores, &of_tails), Power::of(tau), T::from_f64(1.0 / tau));
        let [soft, sum] = row::soften(scores, T::from_f64(shift), rate, power, &mut buffers.softened);
        let student = SoftenedSide::new(&of_tails, shift, tau, soft.to_f64());
        let others = shift + sum.to_f64().ln();
        buffers.combinations = 0;
        Pass {
            tail_gradients: vec![0.0; tails.len()],
            softened_factor: 0.0,
            teacher_factor: 0.0,
            log_sum_exp: log_add(others, log_sum(&of_tails)),
            power,
            scores,
            tails,
            buffers,
            terms,
            of_tails,
            student,
        }
    }

    /// The student's cross-entropy (Eq. 1) for the tail at `position` among the query's tails.
    pub(crate) fn cross_entropy(&self, position: usize) -> f64 {
        self.log_sum_exp - self.of_tails[position]
    }

    /// Adds the distillation from a combination of teachers for the tails at `positions`. Overwrites the combination's
    /// scores `teacher (entity)`. Scales the gradient by `scale` times the term's weight. Returns the term's value,
    /// summed over the positions, without the weight.
    pub(crate) fn distil(&mut self, teacher: &mut [T], positions: &[usize], scale: f64) -> f64 {
        let tau = self.terms.tau;
        let of_tails = mask(teacher, self.tails);
        let count = positions.len() as f64;
        let RowBuffers { teacher: softened, gradient, combinations, .. } = &mut *self.buffers;
        // Clears the buffer for a second combination; most rows have only one.
        if *combinations == 1 {
            gradient.fill(T::ZERO);
        }
        if *combinations > 0 {
            row::add_scaled(gradient, T::from_f64(self.teacher_factor), softened);
        }
        *combinations += 1;
        let (shift, rate) = (shift(teacher, &of_tails), T::from_f64(1.0 / tau));
        let sums = row::soften_against(teacher, self.scores, T::from_f64(shift), rate, softened);
        let [sum, gap] = sums.map(Real::to_f64);
        let side = SoftenedSide::new(&of_tails, shift, tau, sum);
        // The mean of (c - z) / τ over the others, weighted by exp(c / τ); each score is relative to its shift.
        let gap = (gap / sum - (side.shift - self.student.shift)) / tau;
        let gap = if side.others == f64::NEG_INFINITY { 0.0 } else { gap };
        let scale = scale * self.terms.weight / tau;
        let (value, student_factor, teacher_factor) = match self.terms.term {
            Divergence::Kd => self.plain(&side, gap, count, scale),
            Divergence::Ndkd => self.by_neighbours(&side, gap, count, scale),
            Divergence::Dkd => self.by_target(&side, gap, positions, scale),
        };
        self.softened_factor += student_factor;
        self.teacher_factor = teacher_factor;
        value
    }

    /// Adds KD (Eq. 2). Returns the value and both sides' factors of `exp((score - shift) / τ)` for the others.
    fn plain(&mut self, teacher: &SoftenedSide, gap: f64, count: f64, scale: f64) -> (f64, f64, f64) {
        let (log_student, log_teacher) = (self.student.total(), teacher.total());
        let mut gap = (teacher.others - log_teacher).exp() * gap;
        for (i, (c, z)) in teacher.tails.iter().zip(&self.student.tails).enumerate() {
            let (p_teacher, p_student) = ((c - log_teacher).exp(), (z - log_student).exp());
            gap += p_teacher * (c - z);
            self.tail_gradients[i] += count * scale * (p_student - p_teacher);
        }
        let value = count * (gap - log_teacher + log_student);
        (value, count * scale * (-log_student).exp(), -count * scale * (-log_teacher).exp())
    }

    /// Adds NDKD (Eq. 12): the tails are the group, all other entities the rest.
    fn by_neighbours(&mut self, teacher: &SoftenedSide, gap: f64, count: f64, scale: f64) -> (f64, f64, f64) {
        let student = GroupLogSums { group: log_sum(&self.student.tails), rest: self.student.others };
        let teacher = GroupLogSums { group: log_sum(&teacher.tails), rest: teacher.others };
        let group = self.tails.len() as f64;
        let (binary, k) = self.binary(student, teacher, group);
        for (gradient, z) in self.tail_gradients.iter_mut().zip(&self.student.tails) {
            *gradient += count * scale * k * (z - student.group).exp();
        }
        let (alpha, beta) = (self.terms.alpha, self.terms.beta);
        // If all entities are in the group, there is no rest to compare.
        let rest = if student.rest == f64::NEG_INFINITY { 0.0 } else { gap - teacher.rest + student.rest };
        let value = count * (alpha * binary + beta * rest);
        let [student, teacher] = [(student.rest, beta - k), (teacher.rest, -beta)]
            .map(|(log, by)| if log == f64::NEG_INFINITY { 0.0 } else { count * scale * by * (-log).exp() });
        (value, student, teacher)
    }

    /// Adds DKD (Eq. 12): each target is its own group; the query's other tails belong to the rest.
    fn by_target(
        &mut self,
        teacher: &SoftenedSide,
        gap: f64,
        positions: &[usize],
        scale: f64,
    ) -> (f64, f64, f64) {
        let (rests_student, rests_teacher) = (rests(&self.student), rests(teacher));
        let (mut value, mut of_student, mut of_teacher) = (0.0, 0.0, 0.0);
        let (alpha, beta) = (self.terms.alpha, self.terms.beta);
        for &target in positions {
            let student = GroupLogSums { group: self.student.tails[target], rest: rests_student[target] };
            let teaching = GroupLogSums { group: teacher.tails[target], rest: rests_teacher[target] };
            let (binary, k) = self.binary(student, teaching, 1.0);
            let mut gap = (teacher.others - teaching.rest).exp() * gap;
            for other in (0..self.tails.len()).filter(|other| *other != target) {
                let (c, z) = (teacher.tails[other], self.student.tails[other]);
                // Exponentials of differences: the exponential of a tail alone may be infinite.
                let (p_student, p_teacher) = ((z - student.rest).exp(), (c - teaching.rest).exp());
                gap += p_teacher * (c - z);
                self.tail_gradients[other] += scale * ((beta - k) * p_student - beta * p_teacher);
            }
            self.tail_gradients[target] += scale * k;
            value += alpha * binary + beta * (gap - teaching.rest + student.rest);
            of_student += scale * (beta - k) * (-student.rest).exp();
            of_teacher -= scale * beta * (-teaching.rest).exp();
        }
        (value, of_student, of_teacher)
    }

    /// The binary divergence between group and rest, and `K` (see the module's documentation).
    fn binary(&self, student: GroupLogSums, teacher: GroupLogSums, size: f64) -> (f64, f64) {
        let mean = self.terms.mean && size > 1.0;
        let divisor = if mean { size } else { 1.0 };
        // ln b and ln(1 - b); for the mean, 1 - b = (n - 1 + p_R) / n without cancellation.
        let [(b_student, not_student), (b_teacher, not_teacher)] = [student, teacher].map(|parts| {
            let total = log_add(parts.group, parts.rest);
            let rest = parts.rest - total;
            let complement = if mean { ((size - 1.0 + rest.exp()) / size).ln() } else { rest };
            (parts.group - total - divisor.ln(), complement)
        });
        let value = divergence(b_teacher, b_student) + divergence(not_teacher, not_student);
        let total = log_add(student.group, student.rest);
        let (p_group, p_rest) = ((student.group - total).exp(), (student.rest - total).exp());
        let ratio = if mean { p_rest / (size - 1.0 + p_rest) } else { 1.0 };
        let k = -b_teacher.exp() * p_rest + not_teacher.exp() * p_group * ratio;
        (value, self.terms.alpha * k)
    }

    /// Replaces the scores by the gradient: `scale` times the gradient of every tail's cross-entropy, plus the
    /// distillation's gradient. Returns the cross-entropy, summed over the tails.
    pub(crate) fn finish(self, scale: f64) -> f64 {
        let count = self.tails.len() as f64;
        let shift = T::from_f64(self.student.shift);
        let factor = count * scale * (self.student.shift - self.log_sum_exp).exp();
        let factors = [factor, self.softened_factor, self.teacher_factor].map(T::from_f64);
        let RowBuffers { softened, teacher, gradient, combinations } = &*self.buffers;
        row::blend(self.scores, shift, self.power, softened, teacher, factors);
        if *combinations > 1 {
            row::add_scaled(self.scores, T::ONE, gradient);
        }
        let mut cross_entropy = 0.0;
        for (i, tail) in self.tails.iter().enumerate() {
            let log_p = self.of_tails[i] - self.log_sum_exp;
            cross_entropy -= log_p;
            let gradient = scale * (count * log_p.exp() - 1.0) + self.tail_gradients[i];
            self.scores[tail.index()] = T::from_f64(gradient);
        }
        cross_entropy
    }
}

/// Removes some entities' scores from a row and returns them: a masked entry adds nothing to any sum.
pub(crate) fn mask<T: Real>(scores: &mut [T], tails: &[EntityId]) -> Vec<f64> {
    tails.iter().map(|tail| std::mem::replace(&mut scores[tail.index()], T::MASKED).to_f64()).collect()
}

/// The largest score of an entity that is not a tail, or of a tail if all are tails.
fn shift<T: Real>(scores: &[T], of_tails: &[f64]) -> f64 {
    let others = row::max(scores);
    if others > T::MASKED {
        others.to_f64()
    } else {
        of_tails.iter().copied().fold(f64::NEG_INFINITY, f64::max)
    }
}

/// The log-sum over everything but one tail, for each tail, from prefix and suffix sums without subtraction.
fn rests(side: &SoftenedSide) -> Vec<f64> {
    let mut rests = vec![side.others; side.tails.len()];
    let mut before = f64::NEG_INFINITY;
    for (rest, tail) in rests.iter_mut().zip(&side.tails) {
        *rest = log_add(*rest, before);
        before = log_add(before, *tail);
    }
    let mut after = f64::NEG_INFINITY;
    for (rest, tail) in rests.iter_mut().zip(&side.tails).rev() {
        *rest = log_add(*rest, after);
        after = log_add(after, *tail);
    }
    rests
}

#[cfg(test)]
mod tests;
