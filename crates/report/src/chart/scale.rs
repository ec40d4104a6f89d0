//! Axes: values become places, with round ticks.

/// Maps values onto a stretch of the drawing, evenly or by their logarithm.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Scale {
    from: f64,
    to: f64,
    start: f64,
    end: f64,
    logarithmic: bool,
}

/// About how many ticks an axis has.
const TICKS: f64 = 4.0;

impl Scale {
    /// Makes an axis from one value to another; equal ones are moved apart.
    pub fn exact(from: f64, to: f64) -> Scale {
        let to = if to > from { to } else { from + 1.0 };
        Scale { from, to, start: 0.0, end: 1.0, logarithmic: false }
    }

    /// Widened to the next round values, so that ticks stand at both ends.
    pub fn round(from: f64, to: f64) -> Scale {
        // A wider range may have a wider step, whose ticks stand elsewhere.
        (0..3).fold(Scale::exact(from, to), |Scale { from, to, .. }, _| {
            let step = step((to - from) / TICKS);
            let (first, last) = ((from / step + 1e-9).floor(), (to / step - 1e-9).ceil());
            Scale::exact(first * step, last * step)
        })
    }

    /// The same by logarithms; both ends must be above zero.
    pub fn logarithmic(self) -> Scale {
        Scale { logarithmic: self.from > 0.0, ..self }
    }

    /// Onto places from `start` to `end`, which may lie before it.
    pub fn onto(self, start: f64, end: f64) -> Scale {
        Scale { start, end, ..self }
    }

    /// The place of a value.
    pub fn place(&self, value: f64) -> f64 {
        let share = if self.logarithmic {
            (value / self.from).ln() / (self.to / self.from).ln()
        } else {
            (value - self.from) / (self.to - self.from)
        };
        self.start + share * (self.end - self.start)
    }

    /// Round values in range with their texts.
    pub fn ticks(&self) -> Vec<(f64, String)> {
        if self.logarithmic {
            return self.powers();
        }
        let step = step((self.to - self.from) / TICKS);
        let digits = digits(step);
        let first = (self.from / step - 1e-9).ceil() as i64;
        let last = (self.to / step + 1e-9).floor() as i64;
        let text = |value: f64| match format!("{value:.digits$}") {
            zero if zero.trim_matches(['-', '0', '.']).is_empty() => "0".to_owned(),
            text => text,
        };
        (first..=last).map(|i| i as f64 * step).map(|value| (value, text(value))).collect()
    }

    /// Doubled from tick to tick where the range is short, ten times where it is long.
    fn powers(&self) -> Vec<(f64, String)> {
        let base: f64 = if self.to / self.from < 100.0 { 2.0 } else { 10.0 };
        let first = (self.from.ln() / base.ln() - 1e-9).ceil() as i32;
        let last = (self.to.ln() / base.ln() + 1e-9).floor() as i32;
        (first..=last).map(|power| base.powi(power)).map(|value| (value, value.to_string())).collect()
    }
}

/// Number of digits after the point that a multiple of `step` needs.
fn digits(step: f64) -> usize {
    let whole = |digits: &usize| {
        let scaled = step * 10f64.powi(*digits as i32);
        (scaled - scaled.round()).abs() < 1e-6 * scaled
    };
    (0..12).find(whole).unwrap_or(12)
}

/// The smallest of 1, 2, 2.5, 5 times a power of ten that is at least `wanted`.
fn step(wanted: f64) -> f64 {
    let power = 10f64.powf(wanted.log10().floor());
    let found = [1.0, 2.0, 2.5, 5.0]
        .map(|factor| factor * power)
        .into_iter()
        .find(|step| *step >= wanted * 0.999_999);
    found.unwrap_or(10.0 * power)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(scale: Scale) -> Vec<String> {
        scale.ticks().into_iter().map(|(_, text)| text).collect()
    }

    #[test]
    fn ticks_are_round() {
        assert_eq!(texts(Scale::round(0.0, 41.3)), ["0", "20", "40", "60"]);
        assert_eq!(texts(Scale::round(0.12, 0.31)), ["0.1", "0.2", "0.3", "0.4"]);
        assert_eq!(texts(Scale::round(-10.0, 1.0)), ["-10", "-5", "0", "5"]);
        assert_eq!(texts(Scale::round(0.0, 10.0)), ["0", "2.5", "5.0", "7.5", "10.0"]);
        assert_eq!(texts(Scale::round(0.02, 0.1)), ["0.02", "0.04", "0.06", "0.08", "0.10"]);
        assert_eq!(texts(Scale::exact(3.0, 60.0)), ["20", "40", "60"]);
        assert_eq!(texts(Scale::exact(64.0, 2000.0).logarithmic()), ["64", "128", "256", "512", "1024"]);
        assert_eq!(texts(Scale::exact(1.0, 1000.0).logarithmic()), ["1", "10", "100", "1000"]);
    }

    #[test]
    fn values_find_their_place() {
        let scale = Scale::exact(0.0, 10.0).onto(100.0, 0.0);
        assert_eq!([0.0, 2.5, 10.0].map(|value| scale.place(value)), [100.0, 75.0, 0.0]);
        let scale = Scale::exact(1.0, 100.0).logarithmic().onto(0.0, 2.0);
        assert!((scale.place(10.0) - 1.0).abs() < 1e-12);
    }

    #[test]
    fn a_single_value_is_no_trap() {
        let scale = Scale::round(5.0, 5.0).onto(0.0, 1.0);
        assert!(scale.place(5.0).is_finite() && !scale.ticks().is_empty());
    }
}
