//! Sweeps, rewards and strategies of an experiment.

use dsom_evaluate::models::STUDENT;
use dsom_experiment::Metric;
use dsom_experiment::spec::Sweep;
use dsom_experiment::table::{OfDataset, Row};
use maud::{Markup, html};

use super::{Experiment, Student};
use crate::chart::{Line, LineChart, Mark, legend, series};
use crate::page::absent;
use crate::run::{Choices, Shares};
use crate::sections::strategies::{bars, student};
use crate::strategies::Shown;

/// The largest number of lines in a chart of rewards.
const LINES: usize = 8;

pub(super) fn sweeps(experiment: &Experiment) -> Markup {
    let sweeps = &experiment.record.experiment.sweep;
    if sweeps.is_empty() {
        return absent("This experiment sweeps nothing.");
    }
    let table = &experiment.record.table;
    let metric = table.metrics.first().copied().unwrap_or(Metric::Mrr);
    html! {
        p.soft { "Means over seeds; the band is the interval over queries." }
        div.charts { @for sweep in sweeps { @for dataset in &table.datasets { (sweep_chart(sweep, dataset, metric)) } } }
    }
}

fn sweep_chart(sweep: &Sweep, dataset: &OfDataset, metric: Metric) -> Markup {
    let lines = sweep.models.iter().enumerate().map(|(i, model)| {
        let (name, class) = match model.as_str() {
            STUDENT => (model.clone(), series(0)),
            _ => (format!("{model} of teachers"), series(8 - i.clamp(1, 7))),
        };
        Line { name, class, ..sweep_line(sweep, dataset, metric, model) }
    });
    let chart = LineChart {
        id: &format!("sweep-{}-{}", sweep.name, dataset.name),
        title: &format!("{} by {}", metric.title(), sweep.label),
        note: &dataset.title,
        x: &sweep.label,
        y: metric.title(),
        logarithmic: sweep.logarithmic,
        lines: lines.collect(),
        ..LineChart::default()
    };
    chart.render()
}

/// A line without a name: a model's figures at the values of a sweep.
fn sweep_line(sweep: &Sweep, dataset: &OfDataset, metric: Metric, model: &str) -> Line {
    let placed = dataset.rows.iter().filter_map(|row| Some((row.place.as_ref()?, row)));
    let swept = placed.filter(|(place, _)| place.sweep == sweep.name && place.model == model);
    let mut rows: Vec<(f64, &Row)> = swept.map(|(place, row)| (place.value, row)).collect();
    rows.sort_by(|a, b| a.0.total_cmp(&b.0));
    let mut line = Line { dots: true, ..Line::default() };
    for (value, row) in rows {
        if let Some(figure) = row.figures.get(&metric) {
            line.points.push((value, figure.mean));
            line.band.extend(figure.interval.map(|i| (i.low, i.high)));
        }
    }
    line
}

type WithPolicy<'a> = (&'a Student, &'a Choices);

/// The students of the first seed whose policy has a choice.
fn with_policy<'a>(experiment: &'a Experiment, dataset: &str) -> Vec<WithPolicy<'a>> {
    let first = experiment.record.experiment.seeds.first();
    let students = experiment.students.iter();
    let students = students.filter(|of| of.cell.dataset == dataset && Some(&of.cell.seed) == first);
    let with_choices = students.filter_map(|student| Some((student, student.choices.as_ref()?)));
    with_choices.filter(|(_, choices)| choices.strategies.len() > 1).collect()
}

/// The reward curves of all variants with a policy, one chart for each dataset.
pub(super) fn rewards(experiment: &Experiment) -> Markup {
    let mut charts = Vec::new();
    for dataset in &experiment.record.experiment.dataset {
        let students = with_policy(experiment, &dataset.name).into_iter().take(LINES);
        let lines = students.enumerate().map(|(i, (student, _))| Line {
            name: experiment.label(&student.cell.variant),
            class: series(i),
            points: student.history.as_ref().map_or(Vec::new(), |history| history.curve("reward")),
            ..Line::default()
        });
        let (id, title) = (format!("reward-{}", dataset.name), dataset.title());
        let (note, x, y, lines) = ("mean reward", "epoch", "reward", lines.collect::<Vec<_>>());
        if !lines.is_empty() {
            charts.push(LineChart { id: &id, title, note, x, y, lines, ..LineChart::default() }.render());
        }
    }
    if charts.is_empty() {
        return absent("No variant has a policy, so none is rewarded.");
    }
    html! {
        p.soft { "The mean reward of the strategies drawn, epoch by epoch (Eq. 8), with the first seed." }
        div.charts { @for chart in charts { (chart) } }
    }
}

/// The strategies that the policies choose: all variants side by side, then the first one's by relation and entity.
pub(super) fn strategies(experiment: &Experiment) -> Markup {
    let datasets = experiment.record.experiment.dataset.iter();
    let of = datasets.map(|dataset| (dataset.title(), with_policy(experiment, &dataset.name)));
    let of: Vec<(&str, Vec<WithPolicy>)> = of.filter(|(_, students)| !students.is_empty()).collect();
    if of.is_empty() {
        return absent("No variant has a policy, so nobody chooses.");
    }
    html! {
        p.soft { "What the policies would draw for training triples, both directions, with the first seed." }
        @for (title, students) in &of {
            h3 { (title) }
            (side_by_side(experiment, students))
            details { summary { "By relation, by entity, by name" } (student(students[0].1)) }
        }
    }
}

/// A bar for each student; a new legend begins wherever the strategies change.
fn side_by_side(experiment: &Experiment, students: &[WithPolicy]) -> Markup {
    html! { @for alike in students.chunk_by(|(_, this), (_, that)| this.strategies == that.strategies) {
        @let rows = alike.iter().map(|(student, choices)| (experiment.label(&student.cell.variant), choices.shares(&choices.queries)));
        @let rows: Vec<(String, Shares)> = rows.collect();
        @let shown = Shown::of(&alike[0].1.strategies, &rows[0].1.0);
        (legend(Mark::Area, &shown.names))
        (bars(&shown, "model", &rows))
    } }
}
