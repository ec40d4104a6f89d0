//! Passes over one row of scores: vectorised for the instruction set found at run time.
//!
//! A row of `E` scores fits the second-level cache. Several short passes therefore cost little compared with the matrix
//! products, and are easier to read than one long pass. Sums use a fixed number of lanes: the order of additions, and
//! so the result, depends only on the length.

use crate::{Real, widest};

/// Number of partial sums per pass; a multiple of the widest vector.
const LANES: usize = 32;

/// Folds `step` over the elements of `$xs` (and of the other slices) in lanes, then over the lanes.
macro_rules! fold {
    ($start:expr, $join:expr, |$acc:ident, $($x:ident in $xs:ident),+| $step:expr) => {{
        widest!({
            let mut lanes = [$start; LANES];
            let whole = fold!(@len $($xs),+) / LANES * LANES;
            $(let $x = &$xs[..];)+
            let mut from = 0;
            while from < whole {
                let to = from + LANES;
                fold!(@chunk lanes, from, to, |$acc, $($x),+| $step);
                from = to;
            }
            let rest = fold!(@len $($xs),+) - whole;
            for lane in 0..rest {
                let $acc = lanes[lane];
                $(let $x = $x[whole + lane];)+
                lanes[lane] = $step;
            }
            lanes.into_iter().fold($start, $join)
        })
    }};
    (@len $first:expr $(, $rest:expr)*) => { $first.len() };
    (@chunk $lanes:ident, $from:ident, $to:ident, |$acc:ident, $($x:ident),+| $step:expr) => {{
        $(let $x: &[_; LANES] = $x[$from..$to].try_into().expect("a chunk has LANES elements");)+
        for lane in 0..LANES {
            let $acc = $lanes[lane];
            $(let $x = $x[lane];)+
            $lanes[lane] = $step;
        }
    }};
}

/// The largest element; [`Real::MASKED`] if there is no element.
pub fn max<T: Real>(xs: &[T]) -> T {
    fold!(T::MASKED, |a: T, b: T| a.larger(b), |acc, x in xs| x.larger(acc))
}

/// `Σ x`.
pub fn sum<T: Real>(xs: &[T]) -> T {
    fold!(T::ZERO, |a: T, b: T| a + b, |acc, x in xs| acc + x)
}

/// `Σ exp((x - shift) · rate)`.
pub fn sum_exp<T: Real>(xs: &[T], shift: T, rate: T) -> T {
    fold!(T::ZERO, |a: T, b: T| a + b, |acc, x in xs| acc + ((x - shift) * rate).exp())
}

/// `Σ x y`; panics if the lengths differ.
pub fn dot<T: Real>(xs: &[T], ys: &[T]) -> T {
    assert_eq!(xs.len(), ys.len(), "rows of one length");
    fold!(T::ZERO, |a: T, b: T| a + b, |acc, x in xs, y in ys| acc + x * y)
}

/// `Σ (x - mean)²`.
pub fn sum_squares<T: Real>(xs: &[T], mean: T) -> T {
    fold!(T::ZERO, |a: T, b: T| a + b, |acc, x in xs| acc + (x - mean) * (x - mean))
}

/// `Σ |re + i im|³`; panics if the lengths differ.
pub fn sum_cubed_moduli<T: Real>(re: &[T], im: &[T]) -> T {
    assert_eq!(re.len(), im.len(), "rows of one length");
    fold!(T::ZERO, |a: T, b: T| a + b, |acc, x in re, y in im| {
        let square = x * x + y * y;
        acc + square * square.sqrt()
    })
}

/// `Σ |x|³`.
pub fn sum_cubes<T: Real>(xs: &[T]) -> T {
    fold!(T::ZERO, |a: T, b: T| a + b, |acc, x in xs| {
        let square = x * x;
        acc + square * square.sqrt()
    })
}

/// Counts the elements greater than `x`, and the elements equal to `x`.
pub fn count_above_and_equal<T: Real>(xs: &[T], x: T) -> (u32, u32) {
    widest!({
        // 32-bit counters use as many lanes as 32-bit scores.
        let (mut above, mut equal) = (0u32, 0u32);
        for &other in xs {
            above += u32::from(other > x);
            equal += u32::from(other == x);
        }
        (above, equal)
    })
}

/// Tells whether every element is finite.
pub fn all_finite<T: Real>(xs: &[T]) -> bool {
    // x · 0 is 0 for finite x and NaN otherwise.
    fold!(T::ZERO, |a: T, b: T| a + b, |acc, x in xs| acc + x * T::ZERO) == T::ZERO
}

/// Writes the first result of `step(x, y)` to `out` and sums the other two, in lanes.
#[inline(always)]
fn write_and_sum<T: Real>(xs: &[T], ys: &[T], out: &mut [T], step: impl Fn(T, T) -> [T; 3]) -> [T; 2] {
    assert!(xs.len() == ys.len() && xs.len() == out.len(), "rows of one length");
    let mut sums = [[T::ZERO; LANES]; 2];
    let whole = xs.len() / LANES * LANES;
    let (xs, xs_rest) = xs.split_at(whole);
    let (ys, ys_rest) = ys.split_at(whole);
    let (out, out_rest) = out.split_at_mut(whole);
    for ((xs, ys), out) in xs.chunks_exact(LANES).zip(ys.chunks_exact(LANES)).zip(out.chunks_exact_mut(LANES))
    {
        for lane in 0..LANES {
            let [written, first, second] = step(xs[lane], ys[lane]);
            out[lane] = written;
            sums[0][lane] += first;
            sums[1][lane] += second;
        }
    }
    for (lane, ((&x, &y), out)) in xs_rest.iter().zip(ys_rest).zip(out_rest).enumerate() {
        let [written, first, second] = step(x, y);
        *out = written;
        sums[0][lane] += first;
        sums[1][lane] += second;
    }
    sums.map(|lanes| lanes.into_iter().fold(T::ZERO, |a, b| a + b))
}

/// The way to compute `e^x` from `e^(x / τ)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Power {
    /// `τ = 1`.
    First,
    /// `τ = 2`.
    Second,
    /// `τ = 4`.
    Fourth,
    /// Any other `τ`: `e^x` is computed anew.
    Other,
}

impl Power {
    /// The way for temperature `tau`.
    pub fn of(tau: f64) -> Power {
        match tau {
            1.0 => Power::First,
            2.0 => Power::Second,
            4.0 => Power::Fourth,
            _ => Power::Other,
        }
    }
}

/// Evaluates `$body`; `$full` is a function from a shifted score and its softened exponential to `e^x`.
macro_rules! with_power {
    ($power:expr, |$full:ident| $body:expr) => {
        match $power {
            Power::First => {
                let $full = |_x: T, soft: T| soft;
                $body
            }
            Power::Second => {
                let $full = |_x: T, soft: T| soft * soft;
                $body
            }
            Power::Fourth => {
                let $full = |_x: T, soft: T| (soft * soft) * (soft * soft);
                $body
            }
            Power::Other => {
                let $full = |x: T, _soft: T| x.exp();
                $body
            }
        }
    };
}

/// `out = exp((x - shift) / τ)`; returns `Σ out` and `Σ exp(x - shift)`. `rate` is `1 / τ`.
pub fn soften<T: Real>(xs: &[T], shift: T, rate: T, power: Power, out: &mut [T]) -> [T; 2] {
    with_power!(power, |full| widest!(write_and_sum(xs, xs, out, |x, _| {
        let soft = ((x - shift) * rate).exp();
        [soft, soft, full(x - shift, soft)]
    })))
}

/// `out = exp((x - shift) · rate)`; returns `Σ out` and `Σ out (x - y)`.
pub fn soften_against<T: Real>(xs: &[T], ys: &[T], shift: T, rate: T, out: &mut [T]) -> [T; 2] {
    widest!({
        write_and_sum(xs, ys, out, |x, y| {
            let soft = ((x - shift) * rate).exp();
            [soft, soft, soft * (x - y)]
        })
    })
}

/// `x = a · exp(x - shift) + b · soft + c · y`, where `soft` is the output of [`soften`].
pub fn blend<T: Real>(xs: &mut [T], shift: T, power: Power, soft: &[T], ys: &[T], [a, b, c]: [T; 3]) {
    assert!(xs.len() == soft.len() && xs.len() == ys.len(), "rows of one length");
    with_power!(power, |full| widest!({
        for ((x, &soft), &y) in xs.iter_mut().zip(soft).zip(ys) {
            *x = a * full(*x - shift, soft) + b * soft + c * y;
        }
    }));
}

/// `x = exp(x - shift)`; returns their sum.
pub fn exp_and_sum<T: Real>(xs: &mut [T], shift: T) -> T {
    widest!({
        let mut sums = [T::ZERO; LANES];
        let (chunks, rest) = xs.split_at_mut(xs.len() / LANES * LANES);
        for chunk in chunks.chunks_exact_mut(LANES) {
            for lane in 0..LANES {
                chunk[lane] = (chunk[lane] - shift).exp();
                sums[lane] += chunk[lane];
            }
        }
        for (x, sum) in rest.iter_mut().zip(&mut sums) {
            *x = (*x - shift).exp();
            *sum += *x;
        }
        sums.into_iter().fold(T::ZERO, |a, b| a + b)
    })
}

/// `x = a · x`.
pub fn scale<T: Real>(xs: &mut [T], a: T) {
    widest!(xs.iter_mut().for_each(|x| *x *= a));
}

/// `x = (x - shift) · rate`.
pub fn shift_and_scale<T: Real>(xs: &mut [T], shift: T, rate: T) {
    widest!(xs.iter_mut().for_each(|x| *x = (*x - shift) * rate));
}

/// `x = x + a · y`.
pub fn add_scaled<T: Real>(xs: &mut [T], a: T, ys: &[T]) {
    assert_eq!(xs.len(), ys.len(), "rows of one length");
    widest!({
        for (x, &y) in xs.iter_mut().zip(ys) {
            *x += a * y;
        }
    });
}

/// The position of the largest element; the first of equal elements.
pub fn argmax<T: Real>(xs: &[T]) -> usize {
    (0..xs.len()).fold(0, |best, i| if xs[i] > xs[best] { i } else { best })
}

/// `ln Σ exp(x · rate)`, without overflow.
pub fn log_sum_exp<T: Real>(xs: &[T], rate: T) -> f64 {
    let shift = max(xs);
    shift.to_f64() * rate.to_f64() + sum_exp(xs, shift, rate).to_f64().ln()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn close(a: f64, b: f64) -> bool {
        (a - b).abs() <= 1e-12 * b.abs().max(1e-3)
    }

    proptest! {
        #[test]
        fn passes_equal_their_definitions(
            xs in prop::collection::vec(-30f64..30.0, 1..200),
            tau in prop::sample::select(vec![1.0, 2.0, 3.0, 4.0]),
        ) {
            let narrow: Vec<f32> = xs.iter().map(|x| *x as f32).collect();
            prop_assert_eq!(max(&narrow), narrow.iter().copied().fold(f32::MIN, f32::max));
            let log_sum = xs.iter().map(|x| (x / tau).exp()).sum::<f64>().ln();
            prop_assert!((log_sum_exp(&xs, 1.0 / tau) - log_sum).abs() < 1e-12);
            prop_assert!((log_sum_exp(&narrow, 1.0 / tau as f32) - log_sum).abs() < 1e-5);
            let above = xs.iter().filter(|x| **x > xs[0]).count() as u32;
            let equal = xs.iter().filter(|x| **x == xs[0]).count() as u32;
            prop_assert_eq!(count_above_and_equal(&xs, xs[0]), (above, equal));

            let (power, shift) = (Power::of(tau), 30.0);
            let soft: Vec<f64> = xs.iter().map(|x| ((x - shift) / tau).exp()).collect();
            let full: Vec<f64> = xs.iter().map(|x| (x - shift).exp()).collect();
            let (sum_of_soft, sum_of_full) = (soft.iter().sum(), full.iter().sum());
            let mut out = vec![0.0; xs.len()];
            let [of_soft, of_full] = soften(&xs, shift, 1.0 / tau, power, &mut out);
            prop_assert!(close(of_soft, sum_of_soft) && close(of_full, sum_of_full));
            let ys: Vec<f64> = xs.iter().map(|x| x.sin()).collect();
            let mut blended = xs.clone();
            blend(&mut blended, shift, power, &out, &ys, [2.0, 3.0, 5.0]);
            let mut exponentials = xs.clone();
            prop_assert!(close(exp_and_sum(&mut exponentials, shift), sum_of_full));
            for i in 0..xs.len() {
                prop_assert!(close(out[i], soft[i]) && close(exponentials[i], full[i]));
                prop_assert!(close(blended[i], 2.0 * full[i] + 3.0 * soft[i] + 5.0 * ys[i]));
            }
            let [of_soft, gap] = soften_against(&xs, &ys, shift, 1.0 / tau, &mut out);
            let expected: f64 = (0..xs.len()).map(|i| soft[i] * (xs[i] - ys[i])).sum();
            prop_assert!(close(of_soft, sum_of_soft) && (gap - expected).abs() < 1e-9);
            let direct: f64 = (0..xs.len()).map(|i| soft[i] * full[i]).sum();
            prop_assert!(close(dot(&soft, &full), direct));
        }
    }

    #[test]
    fn masked_entries_count_for_nothing_and_what_is_not_finite_is_found() {
        let log_sum = log_sum_exp(&[1.0f32, f32::MASKED, 1.0], 0.25);
        assert!((log_sum - (0.25 + 2f64.ln())).abs() < 1e-6);
        let mut xs = vec![1f32; 100];
        assert!(all_finite(&xs));
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            xs[99] = bad;
            assert!(!all_finite(&xs));
        }
    }
}
