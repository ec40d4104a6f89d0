//! Calibration: models are as sure as they are right, or not.

use dsom_evaluate::table::RankTable;
use maud::{Markup, html};

use super::UNEVALUATED;
use crate::Report;
use crate::chart::{Bin, bins, expected_calibration_error, reliability};
use crate::format::share;
use crate::page::{absent, table};

/// A model's confidence and accuracy.
pub(super) struct Calibration {
    /// Its answers by confidence.
    bins: Vec<Bin>,
    /// Mean confidence.
    pub(super) sure: f64,
    /// Share of right answers.
    pub(super) right: f64,
}

impl Calibration {
    /// Reads a model's answers; nothing if the evaluation did not write down how sure it was.
    pub(super) fn of(table: &RankTable) -> Option<Calibration> {
        let confidences = || table.confidences.iter().map(|confidence| f64::from(*confidence));
        let count = table.confidences.len() as f64;
        (count > 0.0).then(|| Calibration {
            bins: bins(confidences().zip(table.hits_at_first())),
            sure: confidences().sum::<f64>() / count,
            right: table.hits_at_first().sum::<f64>() / count,
        })
    }

    /// The expected calibration error.
    pub(super) fn error(&self) -> f64 {
        expected_calibration_error(&self.bins)
    }
}

pub(crate) fn body(report: &Report) -> Markup {
    let Some(split) = report.data.shown() else { return absent(UNEVALUATED) };
    let with_calibration = |table| Some((table, Calibration::of(table)?));
    let models: Vec<(&RankTable, Calibration)> =
        report.data.ranks_on(split).filter_map(with_calibration).collect();
    if models.is_empty() {
        return absent(
            "An earlier version evaluated this run and did not write down how sure the models are: run dsom-evaluate again.",
        );
    }
    let rows = models
        .iter()
        .map(|(table, of)| [table.model.clone(), share(of.sure), share(of.right), share(of.error())]);
    html! {
        p.soft { "A model's confidence is the softmax probability of its first candidate, among the candidates that the filter "
            "leaves; it is right if that candidate is the answer. On the dashed line a model is right as often as it is "
            "sure. The grey bars on top show how its answers spread over confidence. Split " (split) "." }
        div.charts {
            @for (table, of) in &models {
                @let id = format!("calibration-{}", table.model);
                (reliability(&id, &table.model, &report.data.class(&table.model), &of.bins))
            }
        }
        (table(&["model", "mean confidence", "right", "expected calibration error"], 1, rows))
    }
}
