//! Calibration: a comparison of the models' confidence with their share of right answers.

use dsom_evaluate::table::RankTable;
use maud::{Markup, html};

use super::UNEVALUATED;
use crate::Report;
use crate::chart::{Plot, Scale, TOP, figure, px};
use crate::format::share;
use crate::page::{absent, table};

/// The number of bins of confidence, of equal width.
const BINS: usize = 10;
/// The height of the strip at the top of the drawing, which shows the number of answers in each bin.
const STRIP: f64 = 26.0;

/// Some answers: their number, their mean confidence, and their share of right answers.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Bin {
    count: f64,
    pub(super) confidence: f64,
    pub(super) right: f64,
}

/// A model's answers, all together and in bins of confidence.
pub(super) struct Calibration {
    pub(super) all: Bin,
    bins: [Bin; BINS],
}

impl Calibration {
    /// Reads a model's answers; none if the evaluation did not record confidences.
    pub(super) fn of(table: &RankTable) -> Option<Calibration> {
        let confidences = table.confidences.iter().map(|confidence| f64::from(*confidence));
        let calibration = Calibration::new(confidences.zip(table.hits_at_first()));
        (calibration.all.count > 0.0).then_some(calibration)
    }

    /// Sorts answers into bins by confidence; each has a confidence and a correctness, which is 1, 0 or a share.
    fn new(answers: impl Iterator<Item = (f64, f64)>) -> Calibration {
        let (mut all, mut bins) = (Bin::default(), [Bin::default(); BINS]);
        for (confidence, right) in answers {
            let place = (confidence * BINS as f64) as usize;
            for bin in [&mut all, &mut bins[place.min(BINS - 1)]] {
                bin.count += 1.0;
                bin.confidence += confidence;
                bin.right += right;
            }
        }
        for bin in bins.iter_mut().chain([&mut all]) {
            bin.confidence /= bin.count.max(1.0);
            bin.right /= bin.count.max(1.0);
        }
        Calibration { all, bins }
    }

    /// The expected calibration error: the mean distance between correctness and confidence over all answers.
    pub(super) fn error(&self) -> f64 {
        let apart = self.bins.iter().map(|bin| bin.count * (bin.right - bin.confidence).abs());
        apart.sum::<f64>() / self.all.count.max(1.0)
    }

    /// The reliability diagram (Guo et al., 2017): a bar up to each bin's share of right answers, the line of a
    /// perfectly calibrated model, and at the top the share of answers in each bin.
    fn diagram(&self, id: &str, title: &str, class: &str) -> Markup {
        let plot = Plot::below(TOP + STRIP, Scale::exact(0.0, 100.0), Scale::exact(0.0, 100.0));
        let [left, right] = [0.0, 100.0].map(|confidence| plot.x.place(confidence));
        let bottom = plot.y.place(0.0);
        let width = (right - left) / BINS as f64;
        let mut words = Vec::new();
        let mut bars = Vec::new();
        for (i, bin) in (0u8..).map(f64::from).zip(self.bins).filter(|(_, bin)| bin.count > 0.0) {
            let (top, share) = (plot.y.place(100.0 * bin.right), bin.count / self.all.count);
            let told = format!(
                "{} answers: confidence {:.1} %, right {:.1} %",
                bin.count,
                100.0 * bin.confidence,
                100.0 * bin.right
            );
            bars.push(html! {
                rect.fill.(class) x=(px(left + width * i + 1.0)) width=(px(width - 2.0))
                    y=(px(top)) height=(px(bottom - top)) opacity="0.85" { title { (told) } }
                rect.fill.s7 x=(px(left + width * i + 1.0)) width=(px(width - 2.0))
                    y=(px(STRIP - STRIP * share)) height=(px(STRIP * share)) {
                    title { (format!("{:.1} % of the answers", 100.0 * share)) }
                }
            });
            words.push(told);
        }
        let drawing = html! {
            (plot.axes("confidence in %", "right in %"))
            @for bar in bars { (bar) }
            line.axis x1=(px(left)) x2=(px(right)) y1=(STRIP) y2=(STRIP) {}
            path.guide d=(plot.way([(0.0, 0.0), (100.0, 100.0)].into_iter())) {}
        };
        let note = format!("expected calibration error {:.1} %", 100.0 * self.error());
        figure(id, title, &note, html! {}, &words.join("; "), drawing)
    }
}

pub(crate) fn body(report: &Report) -> Markup {
    let Some(split) = report.data.shown() else { return absent(UNEVALUATED) };
    let models =
        report.data.ranks_on(split).filter_map(|table| Some((&table.model, Calibration::of(table)?)));
    let models: Vec<(&String, Calibration)> = models.collect();
    if models.is_empty() {
        return absent(
            "An earlier version evaluated this run and did not write down how sure the models are: run dsom-evaluate again.",
        );
    }
    let rows = models.iter().map(|(model, of)| {
        [(*model).clone(), share(of.all.confidence), share(of.all.right), share(of.error())]
    });
    html! {
        p.soft { "A model's confidence is the softmax probability of its first candidate, among the candidates that the filter "
            "leaves; it is right if that candidate is the answer. On the dashed line a model is right as often as it is "
            "sure. The grey bars on top show how its answers spread over confidence. Split " (split) "." }
        div.charts { @for (model, of) in &models {
            (of.diagram(&format!("calibration-{model}"), model, report.data.class(model)))
        } }
        (table(&["model", "mean confidence", "right", "expected calibration error"], 1, rows))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_binned_and_compared_by_hand() {
        let of = Calibration::new([(0.12, 1.0), (0.18, 0.0), (1.0, 1.0), (0.95, 0.5)].into_iter());
        assert_eq!(of.bins[1], Bin { count: 2.0, confidence: 0.15, right: 0.5 });
        assert_eq!((of.bins[9].count, of.bins[9].right), (2.0, 0.75));
        assert_eq!((of.all.count, of.all.right), (4.0, 0.625));
        // (2 · 0.35 + 2 · 0.225) / 4
        assert!((of.error() - 0.2875).abs() < 1e-12);
        assert_eq!(Calibration::new(std::iter::empty()).error(), 0.0);
    }

    #[test]
    fn empty_bins_are_not_drawn() {
        let of = Calibration::new([(0.5, 1.0)].into_iter());
        let drawn = of.diagram("r", "student", "s0").into_string();
        assert_eq!(drawn.matches("<rect").count(), 2);
        assert!(drawn.contains("expected calibration error 50.0 %"));
    }
}
