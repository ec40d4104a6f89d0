//! A model's history, epoch by epoch: its `events.jsonl`.

use serde_json::{Map, Value};
use stage::files::read_text;
use stage::{Error, Result};
use std::path::Path;

use super::Stage;

/// The log beside a model.
const EVENTS: &str = "events.jsonl";

/// One line of the log.
pub struct Epoch {
    /// Its number, from 1.
    pub epoch: f64,
    figures: Map<String, Value>,
}

/// All epochs of one model.
pub struct History {
    /// The model's name.
    pub model: String,
    /// The epoch whose model was kept.
    pub best_epoch: Option<f64>,
    /// Epochs, in order.
    pub epochs: Vec<Epoch>,
}

impl History {
    /// The log of a stage's model, if the stage keeps one.
    pub fn read(root: &Path, stage: &Stage) -> Result<Option<History>> {
        let path = root.join(&stage.folder).join(EVENTS);
        if !path.is_file() {
            return Ok(None);
        }
        let epoch = |(i, line): (usize, &str)| {
            let broken = |message: String| Error::data(message).at(&path).line(i as u64 + 1);
            let figures: Map<String, Value> =
                serde_json::from_str(line).map_err(|e| broken(e.to_string()))?;
            let epoch = figures.get("epoch").and_then(Value::as_f64);
            Ok(Epoch { epoch: epoch.ok_or_else(|| broken("no `epoch`".into()))?, figures })
        };
        let epochs = read_text(&path)?.lines().enumerate().map(epoch).collect::<Result<_>>()?;
        let best_epoch = stage.manifest.summary["best_epoch"].as_f64();
        Ok(Some(History { model: stage.name().to_owned(), best_epoch, epochs }))
    }

    /// A figure by epoch, where there is one.
    pub fn curve(&self, figure: &str) -> Vec<(f64, f64)> {
        let point = |epoch: &Epoch| Some((epoch.epoch, epoch.number(figure)?));
        self.epochs.iter().filter_map(point).collect()
    }

    /// The names of all figures that are numbers.
    pub fn figures(&self) -> Vec<&str> {
        let mut names: Vec<&str> = Vec::new();
        for (name, value) in self.epochs.iter().flat_map(|epoch| &epoch.figures) {
            if value.is_number() && name != "epoch" && !names.contains(&name.as_str()) {
                names.push(name);
            }
        }
        names
    }

    /// The names of the strategies whose shares are logged.
    pub fn strategies(&self) -> Vec<&str> {
        let first = self.epochs.first().and_then(|epoch| epoch.figures.get("strategies"));
        first
            .and_then(Value::as_object)
            .into_iter()
            .flat_map(|shares| shares.keys().map(String::as_str))
            .collect()
    }
}

impl Epoch {
    /// A figure of this epoch.
    pub fn number(&self, figure: &str) -> Option<f64> {
        self.figures.get(figure)?.as_f64()
    }

    /// The share of a strategy among this epoch's actions.
    pub fn share(&self, strategy: &str) -> f64 {
        self.figures.get("strategies").and_then(|shares| shares[strategy].as_f64()).unwrap_or_default()
    }
}
