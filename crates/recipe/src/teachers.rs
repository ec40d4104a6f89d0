//! `[teachers]`, and how any model is trained.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;

use stage::Modality;

/// The scorer of a model; its equations are in the crate `kge`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Backbone {
    /// Trouillon et al. (2016).
    #[default]
    ComplEx,
    /// Yang et al. (2015).
    DistMult,
    /// Bordes et al. (2013), by squared distance.
    TransE,
    /// Sun et al. (2019), by squared distance.
    RotatE,
    /// Balažević et al. (2019).
    TuckER,
}

impl Backbone {
    /// All backbones.
    pub const ALL: [Backbone; 5] =
        [Backbone::ComplEx, Backbone::DistMult, Backbone::TransE, Backbone::RotatE, Backbone::TuckER];

    /// Its word in recipes and in files of models.
    pub fn word(self) -> &'static str {
        match self {
            Backbone::ComplEx => "complex",
            Backbone::DistMult => "distmult",
            Backbone::TransE => "transe",
            Backbone::RotatE => "rotate",
            Backbone::TuckER => "tucker",
        }
    }

    /// The backbone that a word names.
    pub fn of_word(word: &str) -> Option<Backbone> {
        Backbone::ALL.into_iter().find(|backbone| backbone.word() == word)
    }

    /// Returns whether it scores by a distance, so that no embedding scores nothing.
    pub fn is_distance(self) -> bool {
        matches!(self, Backbone::TransE | Backbone::RotatE)
    }
}

impl fmt::Display for Backbone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// The training of a model: teachers and student alike.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Training {
    /// The scorer.
    pub backbone: Backbone,
    /// Complex rank k: an entity's embedding is 2k reals, whatever the backbone.
    pub rank: usize,
    /// Passes over the training queries, at most.
    pub epochs: usize,
    /// Triples per step (a query brings all its triples).
    pub batch: usize,
    /// Adagrad's learning rate.
    pub learning_rate: f64,
    /// Weight of the N3 regulariser.
    pub n3: f64,
    /// Epochs between validations.
    pub validate_every: usize,
    /// Validations without a better MRR after which training stops.
    pub patience: usize,
    /// The precision of matrix products with scores.
    pub precision: Precision,
}

/// The precision of matrix products: those with scores, an encoder's on a device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// Single precision.
    #[default]
    F32,
    /// Factors rounded to 11 bits on a CUDA device (Ampere or later); on the CPU as `F32`.
    Tf32,
    /// Factors rounded to bf16, sums in single precision, where the processor can; else as `F32`.
    Bf16,
}

impl Default for Training {
    fn default() -> Self {
        Training {
            backbone: Backbone::default(),
            rank: 256,
            epochs: 60,
            batch: 1000,
            learning_rate: 0.1,
            n3: 0.01,
            validate_every: 3,
            patience: 4,
            precision: Precision::default(),
        }
    }
}

/// The meaning of an entity without features for a modality's teacher.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Absent {
    /// Nothing: its embedding is zero, so it scores zero, and so does every answer to its queries.
    #[default]
    Zero,
    /// One embedding, learned, that all such entities share.
    Learned,
    /// Features drawn from N(0, 1): MoSE's way, a baseline.
    Noise,
}

/// Differences of one modality's teacher; what is left out is as in [`Teachers`].
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct TeacherOverride {
    /// See [`Training::backbone`].
    pub backbone: Option<Backbone>,
    /// See [`Training::rank`].
    pub rank: Option<usize>,
    /// See [`Training::epochs`].
    pub epochs: Option<usize>,
    /// See [`Training::learning_rate`].
    pub learning_rate: Option<f64>,
    /// See [`Training::n3`].
    pub n3: Option<f64>,
    /// See [`Training::patience`].
    pub patience: Option<usize>,
    /// See [`Teachers::absent`].
    pub absent: Option<Absent>,
    /// See [`Teachers::missing_rate`].
    pub missing_rate: Option<f64>,
}

/// Stage 3.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Teachers {
    /// The training of each teacher.
    #[serde(flatten)]
    pub training: Training,
    /// The meaning of an entity without features.
    pub absent: Absent,
    /// Share of the entities whose features are hidden, in each modality others of them (0: none).
    pub missing_rate: f64,
    /// The seed that decides which ones.
    pub missing_seed: u64,
    /// Differences by modality.
    pub modality: BTreeMap<Modality, TeacherOverride>,
}

impl Teachers {
    /// The table of the teacher of `modality`: the same, with its differences in their place.
    pub fn of(&self, modality: &Modality) -> Teachers {
        let mut teachers = self.clone();
        if let Some(own) = self.modality.get(modality) {
            let training = &mut teachers.training;
            training.backbone = own.backbone.unwrap_or(training.backbone);
            training.rank = own.rank.unwrap_or(training.rank);
            training.epochs = own.epochs.unwrap_or(training.epochs);
            training.learning_rate = own.learning_rate.unwrap_or(training.learning_rate);
            training.n3 = own.n3.unwrap_or(training.n3);
            training.patience = own.patience.unwrap_or(training.patience);
            teachers.absent = own.absent.unwrap_or(teachers.absent);
            teachers.missing_rate = own.missing_rate.unwrap_or(teachers.missing_rate);
        }
        teachers
    }
}
