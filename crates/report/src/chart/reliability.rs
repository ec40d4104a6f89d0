//! Reliability diagrams: how often a model is right when it is so sure (Guo et al., 2017).

use maud::{Markup, html};

use super::{HEIGHT, MARGINS, Scale, axes, figure, horizontal, px, vertical};

/// Number of bins of confidence, of equal width.
const BINS: usize = 10;
/// Share of the drawing's height, below the top, that shows how many answers each bin has.
const STRIP: f64 = 26.0;

/// The answers of one range of confidence.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Bin {
    /// Their number.
    pub count: usize,
    /// Their mean confidence.
    pub confidence: f64,
    /// The share of them that is right.
    pub accuracy: f64,
}

/// Sorts answers into bins of equal width by confidence; each comes with how right it is, 1 or 0 or a share.
pub fn bins(answers: impl Iterator<Item = (f64, f64)>) -> Vec<Bin> {
    let mut bins = vec![Bin::default(); BINS];
    for (confidence, right) in answers {
        let bin = &mut bins[((confidence * BINS as f64) as usize).min(BINS - 1)];
        bin.count += 1;
        bin.confidence += confidence;
        bin.accuracy += right;
    }
    for bin in &mut bins {
        bin.confidence /= bin.count.max(1) as f64;
        bin.accuracy /= bin.count.max(1) as f64;
    }
    bins
}

/// The mean distance of accuracy and confidence over all answers.
pub fn expected_calibration_error(bins: &[Bin]) -> f64 {
    let total: usize = bins.iter().map(|bin| bin.count).sum();
    let apart = |bin: &Bin| bin.count as f64 * (bin.accuracy - bin.confidence).abs();
    bins.iter().map(apart).sum::<f64>() / total.max(1) as f64
}

/// The diagram: a bar up to each bin's accuracy, the line of a model that knows how sure to be, and on top the share of
/// answers in each bin.
pub fn reliability(id: &str, title: &str, class: &str, bins: &[Bin]) -> Markup {
    let total = bins.iter().map(|bin| bin.count).sum::<usize>().max(1) as f64;
    let (x, y) = (horizontal(0.0, 100.0), vertical(Scale::exact(0.0, 100.0)));
    let y = y.onto(HEIGHT - MARGINS.bottom, MARGINS.top + STRIP);
    let width = x.place(100.0 / BINS as f64) - x.place(0.0);
    let left = |i: usize| x.place(100.0 * i as f64 / BINS as f64);
    let tell = |bin: &Bin| {
        format!(
            "{} answers: confidence {:.1} %, right {:.1} %",
            bin.count,
            100.0 * bin.confidence,
            100.0 * bin.accuracy
        )
    };
    let note = format!("expected calibration error {:.1} %", 100.0 * expected_calibration_error(bins));
    let drawing = html! {
        (axes(&x, &y, "confidence in %", "right in %"))
        @for (i, bin) in bins.iter().enumerate().filter(|(_, bin)| bin.count > 0) {
            rect.fill.(class) x=(px(left(i) + 1.0)) width=(px(width - 2.0))
                y=(px(y.place(100.0 * bin.accuracy))) height=(px(y.place(0.0) - y.place(100.0 * bin.accuracy)))
                opacity="0.85" { title { (tell(bin)) } }
            rect.fill.s7 x=(px(left(i) + 1.0)) width=(px(width - 2.0))
                y=(px(STRIP - STRIP * bin.count as f64 / total)) height=(px(STRIP * bin.count as f64 / total)) {
                title { (format!("{:.1} % of the answers", 100.0 * bin.count as f64 / total)) }
            }
        }
        line.axis x1=(px(left(0))) x2=(px(left(BINS))) y1=(STRIP) y2=(STRIP) {}
        path.guide d={ "M" (px(x.place(0.0))) " " (px(y.place(0.0))) "L" (px(x.place(100.0))) " " (px(y.place(100.0))) } {}
    };
    let described: Vec<String> = bins.iter().filter(|bin| bin.count > 0).map(tell).collect();
    figure(id, title, &note, html! {}, &described.join("; "), drawing)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_binned_and_compared_by_hand() {
        let answers = [(0.12, 1.0), (0.18, 0.0), (1.0, 1.0), (0.95, 0.5)];
        let bins = bins(answers.into_iter());
        assert_eq!(bins[1], Bin { count: 2, confidence: 0.15, accuracy: 0.5 });
        assert_eq!((bins[9].count, bins[9].accuracy), (2, 0.75));
        // (2 · 0.35 + 2 · 0.225) / 4
        assert!((expected_calibration_error(&bins) - 0.2875).abs() < 1e-12);
        assert_eq!(expected_calibration_error(&super::bins(std::iter::empty())), 0.0);
    }

    #[test]
    fn empty_bins_are_not_drawn() {
        let bins = bins([(0.5, 1.0)].into_iter());
        let drawn = reliability("r", "student", "s0", &bins).into_string();
        assert_eq!(drawn.matches("<rect").count(), 2);
        assert!(drawn.contains("expected calibration error 50.0 %"));
    }
}
