//! Axes: they turn values into places, with round ticks.

use std::iter::successors;

/// A map from values to a stretch of the drawing, linear or logarithmic.
#[derive(Clone, Copy)]
pub(crate) struct Scale {
    from: f64,
    to: f64,
    start: f64,
    end: f64,
    logarithmic: bool,
}

/// The approximate number of ticks of an axis.
const TICKS: f64 = 4.0;

impl Scale {
    /// Makes an axis from one value to another; equal values are moved apart.
    pub(crate) fn exact(from: f64, to: f64) -> Scale {
        let to = if to > from { to } else { from + 1.0 };
        Scale { from, to, start: 0.0, end: 1.0, logarithmic: false }
    }

    /// Makes an axis that ends at the next round values, so that both ends have ticks.
    pub(crate) fn round(from: f64, to: f64) -> Scale {
        // A wider range may have a wider step, which moves the ticks.
        (0..3).fold(Scale::exact(from, to), |Scale { from, to, .. }, _| {
            let step = step((to - from) / TICKS);
            let (first, last) = ((from / step + 1e-9).floor(), (to / step - 1e-9).ceil());
            Scale::exact(first * step, last * step)
        })
    }

    /// Places values by their logarithms, if both ends are above zero.
    pub(crate) fn logarithmic(self) -> Scale {
        Scale { logarithmic: self.from > 0.0, ..self }
    }

    /// Maps onto places from `start` to `end`; `end` may be smaller.
    pub(crate) fn onto(self, start: f64, end: f64) -> Scale {
        Scale { start, end, ..self }
    }

    pub(crate) fn place(&self, value: f64) -> f64 {
        let share = if self.logarithmic {
            (value / self.from).ln() / (self.to / self.from).ln()
        } else {
            (value - self.from) / (self.to - self.from)
        };
        self.start + share * (self.end - self.start)
    }

    /// The round values in range, with their texts. On a logarithmic axis, each tick is twice the one before if the
    /// range is short, and ten times if it is long.
    pub(crate) fn ticks(&self) -> Vec<(f64, String)> {
        if self.logarithmic {
            let base: f64 = if self.to / self.from < 100.0 { 2.0 } else { 10.0 };
            let powers = whole(self.from.ln() / base.ln(), self.to.ln() / base.ln());
            return powers.map(|power| base.powf(power)).map(|value| (value, value.to_string())).collect();
        }
        let step = step((self.to - self.from) / TICKS);
        let digits = digits(step);
        let values = whole(self.from / step, self.to / step).map(|i| i * step);
        // Zero has no digits after the point and no sign.
        let texts = values.map(|x| (x, if x == 0.0 { "0".to_owned() } else { format!("{x:.digits$}") }));
        texts.collect()
    }
}

/// The whole numbers between two values that rounding may have changed a little. The count is limited, because for very
/// large values one more is the same number and the sequence never ends.
fn whole(from: f64, to: f64) -> impl Iterator<Item = f64> {
    successors(Some((from - 1e-9).ceil()), |i| Some(i + 1.0)).take_while(move |i| *i <= to + 1e-9).take(100)
}

/// The number of digits after the point that a multiple of `step` needs.
fn digits(step: f64) -> usize {
    let mut scaled = successors(Some(step), |scaled| Some(10.0 * scaled)).take(12);
    scaled.position(|scaled| (scaled - scaled.round()).abs() < 1e-6 * scaled).unwrap_or(12)
}

/// The smallest of 1, 2, 2.5, 5 times a power of ten that is at least `wanted`.
fn step(wanted: f64) -> f64 {
    let power = 10f64.powf(wanted.log10().floor());
    let steps = [1.0, 2.0, 2.5, 5.0].map(|factor| factor * power);
    steps.into_iter().find(|step| *step >= wanted * 0.999_999).unwrap_or(10.0 * power)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round() {
        for (scale, expected) in [
            (Scale::round(0.0, 41.3), "0 20 40 60"),
            (Scale::round(0.12, 0.31), "0.1 0.2 0.3 0.4"),
            (Scale::round(-10.0, 1.0), "-10 -5 0 5"),
            (Scale::round(0.0, 10.0), "0 2.5 5.0 7.5 10.0"),
            (Scale::round(0.02, 0.1), "0.02 0.04 0.06 0.08 0.10"),
            (Scale::exact(3.0, 60.0), "20 40 60"),
            (Scale::exact(64.0, 2000.0).logarithmic(), "64 128 256 512 1024"),
            (Scale::exact(1.0, 1000.0).logarithmic(), "1 10 100 1000"),
        ] {
            let texts: Vec<String> = scale.ticks().into_iter().map(|(_, text)| text).collect();
            assert_eq!(texts.join(" "), expected);
        }
    }

    #[test]
    fn values_find_their_place() {
        let scale = Scale::exact(0.0, 10.0).onto(100.0, 0.0);
        assert_eq!([0.0, 2.5, 10.0].map(|value| scale.place(value)), [100.0, 75.0, 0.0]);
        let scale = Scale::exact(1.0, 100.0).logarithmic().onto(0.0, 2.0);
        assert!((scale.place(10.0) - 1.0).abs() < 1e-12);
        // A range of a single value works.
        let scale = Scale::round(5.0, 5.0);
        assert!(scale.place(5.0).is_finite() && !scale.ticks().is_empty());
    }
}
