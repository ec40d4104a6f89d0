//! MulDE's Senior: it integrates all teachers for a query. `dsom_distill`'s senior has the mathematics and learns.

use candle_core::{D, Result, Tensor};

use crate::objective::TailLists;

/// The way in which the teachers' scores are integrated.
pub(crate) struct BatchIntegration {
    /// `s_m (query, teacher)`.
    scales: Tensor,
    /// `a_m (query, teacher)`.
    pub(crate) attention: Tensor,
}

impl BatchIntegration {
    /// Computes the attention from the divergence of each teacher, scaled by its column of `scales (query, teacher)`, from
    /// the student's scores, all softened by `tau`.
    pub(crate) fn new(
        teachers: &[Tensor],
        scales: Tensor,
        student: &Tensor,
        tau: f64,
        temperature: f64,
    ) -> Result<BatchIntegration> {
        let student = (student / tau)?;
        let of_student = log_softmax(&student)?;
        let divergences = teachers.iter().enumerate().map(|(teacher, scores)| {
            let scale = (scales.narrow(1, teacher, 1)? / tau)?.to_dtype(scores.dtype())?;
            let of_teacher = log_softmax(&scores.broadcast_mul(&scale)?)?;
            let terms = (of_teacher.exp()? * (&of_teacher - &of_student)?)?;
            terms.sum_keepdim(1)?.to_dtype(scales.dtype())
        });
        let logits = (Tensor::cat(&divergences.collect::<Result<Vec<_>>>()?, 1)? / -temperature)?;
        Ok(BatchIntegration { attention: log_softmax(&logits)?.exp()?, scales })
    }

    /// Factors of each teacher's scores: `a_m s_m`.
    pub(crate) fn weights(&self) -> Result<Tensor> {
        &self.attention * &self.scales
    }

    /// The gradient of each query's `w (query, teacher)`, given the `combined (query, entity)` scores.
    pub(crate) fn gradient(
        &self,
        teachers: &[Tensor],
        combined: &Tensor,
        lists: &TailLists,
    ) -> Result<Tensor> {
        let wide = self.scales.dtype();
        let probabilities = log_softmax(combined)?.exp()?;
        let excesses = teachers.iter().map(|scores| {
            let expected = (&probabilities * scores)?.sum_keepdim(1)?.to_dtype(wide)?;
            let of_tails = scores.gather(&lists.tails, 1)?.sum_keepdim(1)?.to_dtype(wide)?;
            (&lists.counts * expected)? - of_tails
        });
        let excesses = Tensor::cat(&excesses.collect::<Result<Vec<_>>>()?, 1)?;
        let slopes = (&self.scales * ((&self.scales * -0.5)? + 1.0)?)?;
        (&self.attention * slopes)? * excesses
    }
}

fn log_softmax(xs: &Tensor) -> Result<Tensor> {
    let shifted = xs.broadcast_sub(&xs.max_keepdim(D::Minus1)?)?;
    shifted.broadcast_sub(&shifted.exp()?.sum_keepdim(D::Minus1)?.log()?)
}
