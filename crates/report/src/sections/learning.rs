//! The models' histories, epoch by epoch.

use dsom_experiment::statistics::mean;
use maud::{Markup, html};

use crate::Report;
use crate::chart::{Line, LineChart, stacked};
use crate::format::{or_dash, percent, seconds, short};
use crate::page::{absent, table};
use crate::run::History;
use crate::strategies::Shown;

const MRR: &str = "valid_mrr";

/// The figures that get curves of models: the name in the log, the title, and a reading aid.
const CURVES: [(&str, &str, &str); 6] = [
    (MRR, "Validation MRR", "in percent, filtered by train and valid"),
    ("loss", "Training loss", "a training triple's mean; a student's has its distillation term"),
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
    let header = ["model", "epochs", "best epoch", "its validation MRR", "an epoch took", "all epochs"];
    html! {
        p.soft { "The dot is the epoch whose model was kept: the one with the best validation MRR." }
        div.charts {
            @for (figure, title, note) in CURVES { (chart(report, figure, title, note)) }
            @for history in histories { (strategies(history)) }
        }
        (table(&header, 1, histories.iter().map(row)))
    }
}

fn chart(report: &Report, figure: &str, title: &str, note: &str) -> Markup {
    let (y, unit) = match figure {
        MRR => ("MRR", 100.0),
        "loss" => ("loss", 1.0),
        _ => ("mean", 1.0),
    };
    let lines = report.data.histories.iter().map(|history| {
        let curve = history.curve(figure);
        Line {
            name: history.model.clone(),
            class: report.data.class(&history.model),
            marked: curve.iter().position(|(epoch, _)| Some(*epoch) == history.best_epoch),
            points: curve.into_iter().map(|(epoch, value)| (epoch, unit * value)).collect(),
            ..Line::default()
        }
    });
    let (id, labelled, lines) = (format!("curve-{figure}"), figure == MRR, lines.collect());
    let chart = LineChart { id: &id, title, note, x: "epoch", y, labelled, lines, ..LineChart::default() };
    chart.render()
}

fn strategies(history: &History) -> Markup {
    let names = history.strategies();
    if names.len() < 2 || history.curve("reward").is_empty() {
        return html! {};
    }
    let drawn = history.epochs.iter().map(|epoch| names.iter().map(|name| epoch.share(name)).collect());
    let drawn: Vec<Vec<f64>> = drawn.collect();
    let shown = Shown::of(&names, &drawn[drawn.len() - 1]);
    let pooled: Vec<Vec<f64>> = drawn.iter().map(|shares| shown.pool(shares)).collect();
    let epochs: Vec<f64> = history.epochs.iter().map(|epoch| epoch.number).collect();
    let (id, title) = (format!("drawn-{}", history.model), format!("Strategies that {} drew", history.model));
    stacked(&id, &title, &shown.names, &epochs, &pooled)
}

fn row(history: &History) -> [String; 6] {
    let [took, mrrs] =
        ["seconds", MRR].map(|name| history.curve(name).into_iter().map(|(_, y)| y).collect::<Vec<f64>>());
    [
        history.model.clone(),
        history.epochs.len().to_string(),
        or_dash(history.best_epoch.map(short)),
        percent(mrrs.into_iter().fold(0.0, f64::max)),
        seconds(mean(&took)),
        seconds(took.iter().sum()),
    ]
}
