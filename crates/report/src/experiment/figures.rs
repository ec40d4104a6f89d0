//! Sweeps, rewards and strategies of an experiment.

use dsom_experiment::Metric;
use dsom_experiment::spec::{STUDENT, Sweep};
use dsom_experiment::table::{OfDataset, Row};
use maud::{Markup, html};

use super::{Experiment, Student};
use crate::chart::{Line, LineChart, Mark, legend, series};
use crate::page::absent;
use crate::run::Choices;
use crate::sections::strategies::{bar, student};
use crate::strategies::Shown;

/// A chart for every sweep and dataset.
pub(super) fn sweeps(experiment: &Experiment) -> Markup {
    let sweeps = &experiment.record.experiment.sweep;
    if sweeps.is_empty() {
        return absent("This experiment sweeps nothing.");
    }
    let datasets = &experiment.record.table.datasets;
    let metric = experiment.record.table.metrics.first().copied().unwrap_or(Metric::Mrr);
    html! {
        p.soft { "Means over seeds; the band is the interval over queries." }
        div.charts { @for sweep in sweeps { @for dataset in datasets { (sweep_chart(sweep, dataset, metric)) } } }
    }
}

fn sweep_chart(sweep: &Sweep, dataset: &OfDataset, metric: Metric) -> Markup {
    let line = |(i, model): (usize, &String)| {
        let of = |row: &&Row| {
            row.place.as_ref().is_some_and(|place| place.sweep == sweep.name && place.model == *model)
        };
        let mut rows: Vec<&Row> = dataset.rows.iter().filter(of).collect();
        let value = |row: &Row| row.place.as_ref().map_or(0.0, |place| place.value);
        rows.sort_by(|a, b| value(a).total_cmp(&value(b)));
        let figure = |row: &Row| row.figures.get(&metric).copied();
        let points = rows.iter().filter_map(|row| Some((value(row), figure(row)?.mean))).collect();
        let band = rows.iter().filter_map(|row| figure(row)?.interval.map(|i| (i.low, i.high))).collect();
        let name = if model == STUDENT { "student".to_owned() } else { format!("{model} of teachers") };
        let class = series(if model == STUDENT { 0 } else { 8 - i.clamp(1, 7) });
        Line { name, class, points, band, dots: true, marked: None }
    };
    let chart = LineChart {
        id: &format!("sweep-{}-{}", sweep.name, dataset.name),
        title: &format!("{} by {}", metric.title(), sweep.label),
        note: &dataset.title,
        x: &sweep.label,
        y: metric.title(),
        logarithmic: sweep.logarithmic,
        from_zero: false,
        labelled: false,
        lines: sweep.models.iter().enumerate().map(line).collect(),
    };
    chart.render()
}

/// The students of the first seed whose policy has a choice.
fn with_policy<'a>(experiment: &'a Experiment, dataset: &'a str) -> impl Iterator<Item = &'a Student> {
    let first = experiment.record.experiment.seeds.first().copied();
    let of_first = experiment
        .students
        .iter()
        .filter(move |student| student.cell.dataset == dataset && Some(student.cell.seed) == first);
    of_first.filter(|student| student.choices.as_ref().is_some_and(|choices| choices.strategies.len() > 1))
}

/// The datasets of the experiment by name.
fn datasets(experiment: &Experiment) -> impl Iterator<Item = &str> {
    experiment.record.experiment.dataset.iter().map(|dataset| dataset.name.as_str())
}

/// Reward curves of all variants with a policy, a chart for each dataset.
pub(super) fn rewards(experiment: &Experiment) -> Markup {
    let charts: Vec<Markup> =
        datasets(experiment).filter_map(|dataset| reward_chart(experiment, dataset)).collect();
    if charts.is_empty() {
        return absent("No variant has a policy, so none is rewarded.");
    }
    html! {
        p.soft { "The mean reward of the strategies drawn, epoch by epoch (Eq. 8), with the first seed." }
        div.charts { @for chart in charts { (chart) } }
    }
}

/// The most lines of one chart.
const LINES: usize = 8;

fn reward_chart(experiment: &Experiment, dataset: &str) -> Option<Markup> {
    let line = |(i, student): (usize, &Student)| Line {
        name: experiment.label(&student.cell.variant),
        class: series(i),
        points: student.history.as_ref().map_or(Vec::new(), |history| history.curve("reward")),
        ..Line::default()
    };
    let lines: Vec<Line> = with_policy(experiment, dataset).take(LINES).enumerate().map(line).collect();
    let id = format!("reward-{dataset}");
    let title = experiment.title(dataset);
    (!lines.is_empty()).then(|| {
        LineChart {
            id: &id,
            title,
            note: "mean reward",
            x: "epoch",
            y: "reward",
            lines,
            ..LineChart::default()
        }
        .render()
    })
}

/// Whom the policies choose: all variants side by side, then the first one's by relation and entity.
pub(super) fn strategies(experiment: &Experiment) -> Markup {
    let of: Vec<(&str, Vec<&Student>)> = datasets(experiment)
        .map(|dataset| {
            (dataset, with_policy(experiment, dataset).filter(|of| of.choices.is_some()).collect())
        })
        .filter(|(_, students): &(_, Vec<_>)| !students.is_empty())
        .collect();
    if of.is_empty() {
        return absent("No variant has a policy, so nobody chooses.");
    }
    html! {
        p.soft { "What the policies would draw for training triples, both directions, with the first seed." }
        @for (dataset, students) in &of {
            h3 { (experiment.title(dataset)) }
            (side_by_side(experiment, students))
            @for first in students.iter().take(1).filter_map(|student| student.choices.as_ref()) {
                details { summary { "By relation, by entity, by name" } (student(first)) }
            }
        }
    }
}

/// A bar for each student, below a legend wherever the strategies are others than before.
fn side_by_side(experiment: &Experiment, students: &[&Student]) -> Markup {
    let chosen: Vec<(&Student, &Choices)> =
        students.iter().filter_map(|student| Some((*student, student.choices.as_ref()?))).collect();
    html! { @for alike in chosen.chunk_by(|(_, this), (_, that)| this.strategies == that.strategies) {
        @let (overall, _) = alike[0].1.shares(|_| true);
        @let shown = Shown::of(&alike[0].1.strategies, &overall);
        (legend(shown.names.iter().map(|(name, class)| (name.as_str(), class.clone(), Mark::Area))))
        div.scroll tabindex="0" { table {
            thead { tr { th { "model" } th { "strategies" } th { "favourite" } th.n { "triples" } } }
            tbody { @for (student, choices) in alike {
                (bar(&shown, &experiment.label(&student.cell.variant), &choices.shares(|_| true)))
            } }
        } }
    } }
}
