//! The steps between the matrix products: each one pass over a tensor's rows, in place, on the CPU.
//!
//! candle's own take as much time as a third of the products: its `erf` is a call per number, its sums run on one
//! lane, and a bias, a residual or a scale is a tensor of its own each time.

use candle_core::{CpuStorage, InplaceOp1, InplaceOp2, Layout, Result, Tensor, bail};
use kge::row;
use pulp::Arch;

/// `xs + bias`, to every row.
pub(super) fn add_bias(xs: Tensor, bias: &Tensor) -> Result<Tensor> {
    in_place_with(xs, bias, |row, bias| row::add_scaled(row, 1.0, bias))
}

/// `xs + ys`; of one shape.
pub(super) fn add(xs: Tensor, ys: &Tensor) -> Result<Tensor> {
    // The whole of it is one row.
    let shape = xs.shape().clone();
    in_place_with(xs.flatten_all()?, &ys.flatten_all()?, |xs, ys| row::add_scaled(xs, 1.0, ys))?
        .reshape(shape)
}

/// `gelu(xs + bias)`, with the error function.
pub(super) fn add_bias_and_gelu(xs: Tensor, bias: &Tensor) -> Result<Tensor> {
    in_place_with(xs, bias, |row, bias| {
        Arch::new().dispatch(
            #[inline(always)]
            || row.iter_mut().zip(bias).for_each(|(x, bias)| *x = gelu(*x + bias)),
        )
    })
}

/// `softmax(xs)` over the last axis.
pub(super) fn softmax(xs: Tensor) -> Result<Tensor> {
    in_place(xs, |row| {
        let sum = row::exp_and_sum(row, row::max(row));
        row::scale(row, 1.0 / sum);
    })
}

/// `(xs - mean) / sqrt(variance + epsilon) · weight + bias`, each row with its own mean and variance; `scale` is the
/// weight and the bias, `(2, column)`.
pub(super) fn normalise(xs: Tensor, scale: &Tensor, epsilon: f64) -> Result<Tensor> {
    let epsilon = epsilon as f32;
    in_place_with(xs, scale, |row, scale| {
        let mean = row::sum(row) / row.len() as f32;
        let variance = row::sum_squares(row, mean) / row.len() as f32;
        let (rate, (weight, bias)) = ((variance + epsilon).sqrt().recip(), scale.split_at(row.len()));
        let parts = row.iter_mut().zip(weight).zip(bias);
        Arch::new().dispatch(
            #[inline(always)]
            || parts.for_each(|((x, weight), bias)| *x = (*x - mean) * rate * weight + bias),
        )
    })
}

/// `x · Φ(x)`, with the distribution function of the normal distribution.
#[inline(always)]
fn gelu(x: f32) -> f32 {
    0.5 * x * (1.0 + erf(x * std::f32::consts::FRAC_1_SQRT_2))
}

/// The error function as a quotient of polynomials (Eigen's), within 5e-7, written so that loops over it vectorise.
#[inline(always)]
fn erf(x: f32) -> f32 {
    // Beyond 4 it is 1 to the last place.
    let x = if x > 4.0 { 4.0 } else { x };
    let x = if x < -4.0 { -4.0 } else { x };
    let square = x * x;
    let mut over = -2.726_142_3e-10;
    over = over * square + 2.770_681_4e-8;
    over = over * square + -2.101_024e-6;
    over = over * square + -5.692_506_4e-5;
    over = over * square + -7.349_906e-4;
    over = over * square + -2.954_6e-3;
    over = over * square + -1.609_603_3e-2;
    let mut under = -1.456_607_2e-5;
    under = under * square + -2.133_740_6e-4;
    under = under * square + -1.682_827e-3;
    under = under * square + -7.373_329e-3;
    under = under * square + -1.426_473_9e-2;
    x * over / under
}

/// Calls `step` with every row of `xs`.
fn in_place(xs: Tensor, step: impl Fn(&mut [f32])) -> Result<Tensor> {
    xs.inplace_op1(&Rows(step))?;
    Ok(xs)
}

/// Calls `step` with every row of `xs` and the whole of `other`.
fn in_place_with(xs: Tensor, other: &Tensor, step: impl Fn(&mut [f32], &[f32])) -> Result<Tensor> {
    xs.inplace_op2(other, &RowsWith(step))?;
    Ok(xs)
}

struct Rows<F>(F);

impl<F: Fn(&mut [f32])> InplaceOp1 for Rows<F> {
    fn name(&self) -> &'static str {
        "rows-in-place"
    }

    fn cpu_fwd(&self, xs: &mut CpuStorage, layout: &Layout) -> Result<()> {
        rows_of(xs, layout)?.for_each(&self.0);
        Ok(())
    }
}

struct RowsWith<F>(F);

impl<F: Fn(&mut [f32], &[f32])> InplaceOp2 for RowsWith<F> {
    fn name(&self) -> &'static str {
        "rows-in-place-with"
    }

    fn cpu_fwd(
        &self,
        xs: &mut CpuStorage,
        layout: &Layout,
        other: &CpuStorage,
        other_layout: &Layout,
    ) -> Result<()> {
        let (CpuStorage::F32(values), Some((start, end))) = (other, other_layout.contiguous_offsets()) else {
            bail!("{WANTED}")
        };
        rows_of(xs, layout)?.for_each(|row| (self.0)(row, &values[start..end]));
        Ok(())
    }
}

const WANTED: &str = "passes are over contiguous f32";

fn rows_of<'a>(xs: &'a mut CpuStorage, layout: &Layout) -> Result<impl Iterator<Item = &'a mut [f32]>> {
    let (CpuStorage::F32(values), Some((start, end))) = (xs, layout.contiguous_offsets()) else {
        bail!("{WANTED}")
    };
    let width = layout.dims().last().copied().unwrap_or(1).max(1);
    Ok(values[start..end].chunks_exact_mut(width))
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::{D, Device};

    /// `(row, column)`, from about -9 to 9.
    fn numbers(shift: f32) -> Tensor {
        let value = |i: u32| ((i * 7919 % 1801) as f32 / 100.0 - 9.0) + shift;
        Tensor::from_vec((0..5 * 45).map(value).collect(), (5, 45), &Device::Cpu).unwrap()
    }

    fn assert_close(ours: &Tensor, candle: &Tensor) {
        let difference = (ours - candle).unwrap().abs().unwrap().max_all().unwrap();
        assert!(difference.to_scalar::<f32>().unwrap() < 2e-6, "{difference}\n{ours}\n{candle}");
    }

    #[test]
    fn every_pass_gives_what_candle_gives() {
        let (xs, ys) = (numbers(0.0), numbers(0.3));
        let (weight, bias) = (ys.get(1).unwrap(), ys.get(2).unwrap());
        let fresh = || xs.copy().unwrap();
        let sum = xs.broadcast_add(&bias).unwrap();
        assert_close(&add_bias(fresh(), &bias).unwrap(), &sum);
        assert_close(&add(fresh(), &ys).unwrap(), &(&xs + &ys).unwrap());
        assert_close(&add_bias_and_gelu(fresh(), &bias).unwrap(), &sum.gelu_erf().unwrap());
        assert_close(&softmax(fresh()).unwrap(), &candle_nn::ops::softmax(&xs, D::Minus1).unwrap());
        let expected = candle_nn::ops::layer_norm(&xs, &weight, &bias, 1e-5).unwrap();
        let ours = normalise(fresh(), &Tensor::stack(&[&weight, &bias], 0).unwrap(), 1e-5).unwrap();
        assert_close(&(ours / 10.0).unwrap(), &(expected / 10.0).unwrap());
        assert_close(&xs, &numbers(0.0));
    }

    #[test]
    fn the_error_function_is_within_its_bound_everywhere() {
        for i in -60_000..=60_000 {
            let x = i as f32 * 1e-4;
            let exact = candle_core::cpu::erf::erf_f64(f64::from(x));
            assert!((f64::from(erf(x)) - exact).abs() < 5e-7, "erf({x}) = {}, not {exact}", erf(x));
        }
        assert_eq!((erf(f32::INFINITY), erf(f32::NEG_INFINITY)), (erf(4.0), erf(-4.0)));
        assert!(erf(f32::NAN).is_nan());
    }
}
