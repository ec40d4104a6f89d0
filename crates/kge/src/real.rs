//! The two floating-point types over which everything here is generic.

use std::fmt::Debug;
use std::ops::{Add, AddAssign, Div, Mul, MulAssign, Neg, Sub, SubAssign};

/// A floating-point type: `f32` in programs, `f64` in tests that compare digits.
pub trait Real:
    bytemuck::Pod
    + Debug
    + Default
    + PartialOrd
    + Send
    + Sync
    + Add<Output = Self>
    + Sub<Output = Self>
    + Mul<Output = Self>
    + Div<Output = Self>
    + Neg<Output = Self>
    + AddAssign
    + SubAssign
    + MulAssign
{
    /// 0.
    const ZERO: Self;
    /// 1.
    const ONE: Self;
    /// The score of a masked entry. It acts like minus infinity, but the difference of two such scores is 0, not NaN.
    const MASKED: Self;

    /// The nearest value of this type.
    fn from_f64(x: f64) -> Self;
    /// The same value as `f64`.
    fn to_f64(self) -> f64;
    /// `e^x`, written so that loops over it vectorise. In `f32` it is 0 below -87 and finite for every large number.
    fn exp(self) -> Self;
    /// Square root.
    fn sqrt(self) -> Self;
    /// Sine and cosine.
    fn sin_cos(self) -> (Self, Self);

    /// The larger of two numbers.
    #[inline(always)]
    fn larger(self, other: Self) -> Self {
        if self > other { self } else { other }
    }
}

impl Real for f64 {
    const ZERO: Self = 0.0;
    const ONE: Self = 1.0;
    const MASKED: Self = -1e30;

    fn from_f64(x: f64) -> Self {
        x
    }

    fn to_f64(self) -> f64 {
        self
    }

    #[inline(always)]
    fn exp(self) -> Self {
        f64::exp(self)
    }

    #[inline(always)]
    fn sqrt(self) -> Self {
        f64::sqrt(self)
    }

    fn sin_cos(self) -> (Self, Self) {
        f64::sin_cos(self)
    }
}

impl Real for f32 {
    const ZERO: Self = 0.0;
    const ONE: Self = 1.0;
    const MASKED: Self = -1e30;

    #[inline(always)]
    fn from_f64(x: f64) -> Self {
        x as f32
    }

    #[inline(always)]
    fn to_f64(self) -> f64 {
        f64::from(self)
    }

    /// `2^n · e^r` with `n` the nearest integer to `x / ln 2` and a polynomial for `e^r` (Cephes' `expf`), within
    /// 2 units in the last place. The library's own `expf` would be called once per element. Multiplications are fused
    /// with additions, which every processor of the last ten years does in one instruction.
    #[inline(always)]
    fn exp(self) -> Self {
        // Adding 1.5 · 2^23 leaves the nearest integer in the low bits of the mantissa.
        const ROUND: f32 = 12_582_912.0;
        const LN2_HIGH: f32 = 0.693_359_4;
        const LN2_LOW: f32 = -2.121_944_4e-4;
        let x = if self > 88.0 { 88.0 } else { self };
        let clamped = if x < -87.0 { -87.0 } else { x };
        let shifted = clamped.mul_add(std::f32::consts::LOG2_E, ROUND);
        let n = shifted - ROUND;
        let r = (-n).mul_add(LN2_LOW, (-n).mul_add(LN2_HIGH, clamped));
        let mut p = 1.987_569_1e-4f32;
        p = p.mul_add(r, 1.398_199_9e-3);
        p = p.mul_add(r, 8.333_452e-3);
        p = p.mul_add(r, 4.166_579_6e-2);
        p = p.mul_add(r, 1.666_666_5e-1);
        p = p.mul_add(r, 5e-1);
        let e_r = (p * r).mul_add(r, r) + 1.0;
        let power = f32::from_bits(shifted.to_bits().wrapping_sub(ROUND.to_bits()).wrapping_add(127) << 23);
        // Below -87 the exact result is near or below the smallest normal number: 0 makes masked entries add nothing.
        if x < -87.0 { 0.0 } else { e_r * power }
    }

    #[inline(always)]
    fn sqrt(self) -> Self {
        f32::sqrt(self)
    }

    fn sin_cos(self) -> (Self, Self) {
        f32::sin_cos(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_is_within_two_units_in_the_last_place_and_harmless_at_the_extreme() {
        for i in -86_999..88_000 {
            let x = i as f32 * 1e-3;
            let (ours, exact) = (Real::exp(x), f64::from(x).exp());
            let unit = f64::from(exact as f32) * f64::from(f32::EPSILON);
            assert!((f64::from(ours) - exact).abs() <= 2.0 * unit, "exp({x}) = {ours}, exactly {exact}");
        }
        assert_eq!(Real::exp(f32::MASKED), 0.0);
        assert_eq!(Real::exp(f32::NEG_INFINITY), 0.0);
        assert!(Real::exp(1e30f32).is_finite());
        assert_eq!(Real::exp(0f32), 1.0);
    }
}
