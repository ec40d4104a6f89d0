//! The models' histories, epoch by epoch.

use maud::{Markup, html};

use crate::Report;
use crate::chart::{Layer, Line, LineChart, stacked};
use crate::format::{percent, seconds, short};
use crate::page::absent;
use crate::run::History;
use crate::strategies::Shown;

/// Curves of students that have a figure: what it is called in the log, its title, how to read it.
const CURVES: [(&str, &str, &str); 4] = [
    ("reward", "Reward", "mean of the chosen strategies' rewards (Eq. 8)"),
    ("with_advantage", "Triples with an advantage", "share whose reward differs from that of all teachers"),
    ("policy_loss", "Policy loss", "−mean δ log π (Eq. 10)"),
    ("distillation", "Distillation term", "before its weight γ, a training triple's mean"),
];

pub(crate) fn body(report: &Report) -> Markup {
    let histories = &report.data.histories;
    if histories.is_empty() {
        return absent("No model has been trained yet.");
    }
    html! {
        p.soft { "The dot is the epoch whose model was kept: the one with the best validation MRR." }
        div.charts {
            (chart(report, "valid_mrr", "Validation MRR", "in percent, filtered by train and valid", "MRR", 100.0))
            (chart(report, "loss", "Training loss", "a training triple's mean; a student's has its distillation term", "loss", 1.0))
            @for (figure, title, note) in CURVES { (chart(report, figure, title, note, "mean", 1.0)) }
            @for history in histories { (strategies(history)) }
        }
        (table(histories))
    }
}

fn chart(report: &Report, figure: &str, title: &str, note: &str, y: &str, factor: f64) -> Markup {
    let line = |history: &History| {
        let points: Vec<(f64, f64)> =
            history.curve(figure).into_iter().map(|(epoch, value)| (epoch, factor * value)).collect();
        let marked = points.iter().position(|(epoch, _)| Some(*epoch) == history.best_epoch);
        let class = report.data.class(&history.model);
        Line { name: history.model.clone(), class, marked, points, ..Line::default() }
    };
    let lines = report.data.histories.iter().map(line).collect();
    let id = format!("curve-{figure}");
    LineChart {
        id: &id,
        title,
        note,
        x: "epoch",
        y,
        labelled: figure == "valid_mrr",
        lines,
        ..LineChart::default()
    }
    .render()
}

/// The shares of sampled strategies by epoch.
fn strategies(history: &History) -> Markup {
    let names = history.strategies();
    if names.len() < 2 || history.curve("reward").is_empty() {
        return html! {};
    }
    let of = |epoch: &crate::run::Epoch| names.iter().map(|name| epoch.share(name)).collect::<Vec<f64>>();
    let last = history.epochs.last().map(of).unwrap_or_default();
    let shown = Shown::of(&names, &last);
    let pooled: Vec<Vec<f64>> = history.epochs.iter().map(|epoch| shown.pool(&of(epoch))).collect();
    let layer = |(i, (name, class)): (usize, &(String, String))| Layer {
        name: name.clone(),
        class: class.clone(),
        shares: pooled.iter().map(|shares| shares[i]).collect(),
    };
    let layers: Vec<Layer> = shown.names.iter().enumerate().map(layer).collect();
    let epochs: Vec<f64> = history.epochs.iter().map(|epoch| epoch.epoch).collect();
    let title = format!("Strategies that {} drew", history.model);
    let id = format!("drawn-{}", history.model);
    stacked(&id, &title, "share of the training queries' actions", "epoch", &epochs, &layers)
}

fn table(histories: &[History]) -> Markup {
    let row = |history: &History| {
        let spent: f64 = history.curve("seconds").iter().map(|(_, seconds)| seconds).sum();
        let epochs = history.epochs.len();
        let best = history.best_epoch.map_or("–".to_owned(), short);
        let mrr = history.curve("valid_mrr").into_iter().map(|(_, mrr)| mrr).fold(0.0, f64::max);
        [
            history.model.clone(),
            epochs.to_string(),
            best,
            percent(mrr),
            seconds(spent / epochs.max(1) as f64),
            seconds(spent),
        ]
    };
    let header = ["model", "epochs", "best epoch", "its validation MRR", "an epoch took", "all epochs"];
    crate::page::table(&header, 1, histories.iter().map(row))
}
