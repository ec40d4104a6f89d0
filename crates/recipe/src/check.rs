//! Checks of values that no stage can use: numbers out of range, and undeclared modalities.

use std::fmt;
use std::ops::RangeInclusive;

use stage::Modality;

use crate::{Distill, Ensemble, Features, Import, Recipe, Selection, Softening, Teachers, Training};

/// An error of a recipe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Problem {
    /// The key, with its tables; empty while it is unknown.
    pub(crate) key: String,
    pub(crate) message: String,
}

/// A value, or the problem with the value.
pub(crate) type Valid<T = ()> = Result<T, Problem>;

impl Problem {
    pub(crate) fn new(key: &str, message: &str) -> Problem {
        Problem { key: key.to_owned(), message: message.to_owned() }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.key.is_empty() {
            write!(f, "recipe: {}", self.message)
        } else {
            write!(f, "recipe: `{}`: {}", self.key, self.message)
        }
    }
}

/// The largest width of a model or a network: products of a few such numbers fit 64 bits in memory estimates.
const WIDEST: usize = 1 << 20;
/// The largest value of numbers that are counts and not factors.
const MOST: usize = 1 << 30;
/// The largest number of tokens of a text: each position is a row of an encoder's table.
const TOKENS: usize = 1 << 16;

fn require(holds: bool, key: &str, message: &str) -> Valid {
    if holds { Ok(()) } else { Err(Problem::new(key, message)) }
}

fn count(key: &str, value: usize, allowed: RangeInclusive<usize>) -> Valid {
    let message = format!("must lie between {} and {}, but is {value}", allowed.start(), allowed.end());
    require(allowed.contains(&value), key, &message)
}

fn positive(key: &str, value: f64) -> Valid {
    require(value > 0.0 && value.is_finite(), key, &format!("must be a number above zero, but is {value}"))
}

fn not_negative(key: &str, value: f64) -> Valid {
    let message = format!("must be a number that is not negative, but is {value}");
    require(value >= 0.0 && value.is_finite(), key, &message)
}

fn share(key: &str, value: f64) -> Valid {
    require((0.0..=1.0).contains(&value), key, &format!("must lie between 0 and 1, but is {value}"))
}

impl Recipe {
    /// Refuses values that no stage can use.
    pub(crate) fn check(&self) -> Valid {
        self.import.check()?;
        for (modality, features) in &self.features {
            let message = "needs no features: the structural teacher learns its embeddings";
            require(!modality.is_structural(), "features.structural", message)?;
            let (key, message) =
                (format!("features.{modality}"), "is the name of a model that is no teacher");
            require(!["student", "ensemble", "average"].contains(&modality.as_str()), &key, message)?;
            features.check(&key)?;
        }
        self.teachers.check()?;
        count("soft_labels.rows_per_file", self.soft_labels.rows_per_file, 1..=MOST)?;
        count("soft_labels.top", self.soft_labels.top, 0..=MOST)?;
        self.distill.check()?;
        self.ensemble.check()?;
        count("evaluate.examples", self.evaluate.examples, 0..=MOST)?;
        self.check_modalities()
    }

    /// Refuses modalities that are neither structural nor declared.
    fn check_modalities(&self) -> Valid {
        for modality in self.teachers.modality.keys() {
            self.check_modality(&format!("teachers.modality.{modality}"), modality)?;
        }
        let (key, teachers) = ("soft_labels.teachers", &self.soft_labels.teachers);
        for (i, modality) in teachers.iter().enumerate() {
            self.check_modality(key, modality)?;
            require(!teachers[..i].contains(modality), key, &format!("names `{modality}` twice"))?;
        }
        if let Selection::Fixed { teachers } = &self.distill.selection {
            let key = "distill.selection.teachers";
            require(!teachers.is_empty(), key, "names nobody")?;
            teachers.iter().try_for_each(|modality| self.check_modality(key, modality))?;
        }
        Ok(())
    }

    fn check_modality(&self, key: &str, modality: &Modality) -> Valid {
        let declared = self.features.keys().map(Modality::as_str);
        let there: Vec<&str> = ["structural"].into_iter().chain(declared).collect();
        let message =
            format!("no [features.{modality}] declares `{modality}`; there are: {}", there.join(", "));
        require(there.contains(&modality.as_str()), key, &message)
    }
}

impl Import {
    fn check(&self) -> Valid {
        share("import.overlap_threshold", self.overlap_threshold)?;
        let fraction = self.holdout_fraction;
        let message = format!("must lie between 0 and 1, and be neither, but is {fraction}");
        require(fraction > 0.0 && fraction < 1.0, "import.holdout_fraction", &message)
    }
}

impl Features {
    fn check(&self, section: &str) -> Valid {
        let batch = match self {
            Features::Text { max_tokens, batch, .. } => {
                count(&format!("{section}.max_tokens"), *max_tokens, 1..=TOKENS)?;
                batch
            }
            Features::Images { batch, .. } => batch,
            Features::File { .. } | Features::Words { .. } => return Ok(()),
        };
        count(&format!("{section}.batch"), *batch, 1..=MOST)
    }
}

impl Teachers {
    fn check(&self) -> Valid {
        self.training.check("teachers")?;
        share("teachers.missing_rate", self.missing_rate)?;
        for modality in self.modality.keys() {
            let (teachers, section) = (self.of(modality), format!("teachers.modality.{modality}"));
            teachers.training.check(&section)?;
            share(&format!("{section}.missing_rate"), teachers.missing_rate)?;
        }
        Ok(())
    }
}

impl Training {
    fn check(&self, section: &str) -> Valid {
        count(&format!("{section}.rank"), self.rank, 1..=WIDEST)?;
        for (name, value) in [
            ("epochs", self.epochs),
            ("batch", self.batch),
            ("validate_every", self.validate_every),
            ("patience", self.patience),
        ] {
            count(&format!("{section}.{name}"), value, 1..=MOST)?;
        }
        positive(&format!("{section}.learning_rate"), self.learning_rate)?;
        not_negative(&format!("{section}.n3"), self.n3)
    }
}

impl Distill {
    fn check(&self) -> Valid {
        self.training.check("distill")?;
        if let Some(Softening { gamma, tau, .. }) = self.term.softening() {
            not_negative("distill.term.gamma", *gamma)?;
            positive("distill.term.tau", *tau)?;
        }
        let (alpha, beta) = self.term.parts();
        not_negative("distill.term.alpha", alpha)?;
        not_negative("distill.term.beta", beta)?;
        let Some(policy) = self.selection.policy() else { return Ok(()) };
        count("distill.selection.hidden", policy.hidden, 1..=WIDEST)?;
        positive("distill.selection.learning_rate", policy.learning_rate)?;
        let (reward, penalty) = (policy.reward, policy.penalty);
        require(reward.is_finite(), "distill.selection.reward", "must be a number")?;
        let message = format!("must be a number below `reward`, {reward}, but is {penalty}");
        require(penalty.is_finite() && penalty < reward, "distill.selection.penalty", &message)
    }
}

impl Ensemble {
    fn check(&self) -> Valid {
        let Ensemble::Policy(policy) = self else { return Ok(()) };
        count("ensemble.hidden", policy.hidden, 1..=WIDEST)?;
        positive("ensemble.learning_rate", policy.learning_rate)?;
        count("ensemble.epochs", policy.epochs, 1..=10_000)?;
        count("ensemble.folds", policy.folds, 2..=100)
    }
}
