//! The paper's equations, unchanged, in double precision: slow and obvious, for tests only. `σ` is the softmax of one
//! query's scores of all entities.

use recipe::{Neighbours, Term};

/// The softened probabilities (Eq. 11): `exp(F_e / τ) / Σ exp(F / τ)`; with temperature 1, the `σ` of other equations.
pub(crate) fn softmax(scores: &[f64], tau: f64) -> Vec<f64> {
    let total: f64 = scores.iter().map(|score| (score / tau).exp()).sum();
    scores.iter().map(|score| (score / tau).exp() / total).collect()
}

/// The cross-entropy of one triple (Eqs. 1 and 3): `-ln σ(F)_t`.
pub(crate) fn cross_entropy(scores: &[f64], target: usize) -> f64 {
    -softmax(scores, 1.0)[target].ln()
}

/// The divergence `KL(p ‖ q) = Σ p ln(p / q)`.
fn divergence(p: &[f64], q: &[f64]) -> f64 {
    p.iter().zip(q).map(|(p, q)| p * (p / q).ln()).sum()
}

/// The term KD (Eq. 2): `KL(p_tea ‖ p_stu)`.
fn kd(teacher: &[f64], student: &[f64], tau: f64) -> f64 {
    divergence(&softmax(teacher, tau), &softmax(student, tau))
}

/// The binary probabilities (Eq. 12): `b`, the sum or the mean of the probabilities in `group`, and `1 - b`.
fn binary(p: &[f64], group: &[usize], neighbours: Neighbours) -> [f64; 2] {
    let sum: f64 = group.iter().map(|entity| p[*entity]).sum();
    let b = if neighbours == Neighbours::Mean { sum / group.len() as f64 } else { sum };
    [b, 1.0 - b]
}

/// The `p̂` or `p̃` of Eq. 12: the probabilities outside the `group`, renormalised.
fn rest(p: &[f64], group: &[usize]) -> Vec<f64> {
    let rest: Vec<f64> =
        (0..p.len()).filter(|entity| !group.contains(entity)).map(|entity| p[entity]).collect();
    let total: f64 = rest.iter().sum();
    rest.iter().map(|p| p / total).collect()
}

/// A query's distillation term for one of its tails, without the weight: Eq. 2, or Eq. 12 with the neighbours (NDKD) or
/// the target (DKD) as the group, `α KL(b_tea ‖ b_stu) + β KL(p̃_tea ‖ p̃_stu)`.
pub(crate) fn term(term: &Term, teacher: &[f64], student: &[f64], tails: &[usize], target: usize) -> f64 {
    let tau = term.softening().map_or(1.0, |softening| softening.tau);
    let (alpha, beta) = term.parts();
    let decoupled = |group: &[usize], neighbours: Neighbours| {
        let (p, q) = (softmax(teacher, tau), softmax(student, tau));
        let of_group = divergence(&binary(&p, group, neighbours), &binary(&q, group, neighbours));
        alpha * of_group + beta * divergence(&rest(&p, group), &rest(&q, group))
    };
    match *term {
        Term::None => 0.0,
        Term::Kd(_) => kd(teacher, student, tau),
        Term::Dkd { .. } => decoupled(&[target], Neighbours::Sum),
        Term::Ndkd { neighbours, .. } | Term::Nekd { neighbours, .. } => decoupled(tails, neighbours),
        Term::Nnkd { .. } => decoupled(tails, Neighbours::Mean),
    }
}

/// The student's loss (Eq. 4) without the policy's, summed over a query's tails with `teachers (tail, entity)`.
pub(crate) fn student_loss(kind: &Term, teachers: &[Vec<f64>], student: &[f64], tails: &[usize]) -> f64 {
    let weight = kind.softening().map_or(0.0, |softening| softening.weight());
    let of_tail = |(teacher, target): (&Vec<f64>, &usize)| {
        cross_entropy(student, *target) + weight * term(kind, teacher, student, tails, *target)
    };
    teachers.iter().zip(tails).map(of_tail).sum()
}

/// The state (Eq. 5): the concatenation of all teachers' scores.
pub(crate) fn state(teachers: &[Vec<f64>]) -> Vec<f64> {
    teachers.concat()
}

/// The policy (Eq. 6): `σ(W₂ relu(W₁ s + b₁) + b₂)`, with weights `(input, output)`.
pub(crate) fn policy(state: &[f64], layers: [(&[Vec<f64>], &[f64]); 2]) -> Vec<f64> {
    let affine = |xs: &[f64], (weights, bias): (&[Vec<f64>], &[f64])| -> Vec<f64> {
        (0..bias.len())
            .map(|j| bias[j] + xs.iter().zip(weights).map(|(x, row)| x * row[j]).sum::<f64>())
            .collect()
    };
    let hidden: Vec<f64> = affine(state, layers[0]).into_iter().map(|x| x.max(0.0)).collect();
    softmax(&affine(&hidden, layers[1]), 1.0)
}

/// The combination (Eq. 7): the mean of the chosen teachers' scores.
pub(crate) fn combination(teachers: &[Vec<f64>], chosen: &[usize]) -> Vec<f64> {
    let mean = |entity: usize| chosen.iter().map(|m| teachers[*m][entity]).sum::<f64>() / chosen.len() as f64;
    (0..teachers[0].len()).map(mean).collect()
}

/// The reward (Eq. 8), with the paper's values.
pub(crate) fn reward(teachers: &[f64], student: &[f64], target: usize) -> f64 {
    if cross_entropy(teachers, target) < cross_entropy(student, target) { 1.0 } else { -10.0 }
}

/// The policy loss (Eq. 10): `-mean(δ ln π(a))` over triples; its gradient is the gradient of Eq. 9, times `δ`.
pub(crate) fn policy_loss(advantages: &[f64], probabilities: &[f64]) -> f64 {
    let sum: f64 = advantages.iter().zip(probabilities).map(|(delta, p)| delta * p.ln()).sum();
    -sum / advantages.len() as f64
}

#[cfg(test)]
mod tests;
