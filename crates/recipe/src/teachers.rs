//! `[teachers]`, and the training keys that all models share.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;

use stage::Modality;

/// The scorer of a model; the crate `kge` has the equations.
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

    /// The backbone's word in recipes and in model files.
    pub fn word(self) -> &'static str {
        match self {
            Backbone::ComplEx => "complex",
            Backbone::DistMult => "distmult",
            Backbone::TransE => "transe",
            Backbone::RotatE => "rotate",
            Backbone::TuckER => "tucker",
        }
    }

    /// The backbone with this word.
    pub fn of_word(word: &str) -> Option<Backbone> {
        Backbone::ALL.into_iter().find(|backbone| backbone.word() == word)
    }

    /// Tells whether the backbone scores by a distance, in which a zero embedding does not score zero.
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
    /// The largest number of passes over the training queries.
    pub epochs: usize,
    /// Triples per step (each query is in a step with all its triples).
    pub batch: usize,
    /// Adagrad's learning rate.
    pub learning_rate: f64,
    /// Weight of the N3 regulariser.
    pub n3: f64,
    /// Epochs between validations.
    pub validate_every: usize,
    /// Number of validations without a better MRR after which training stops.
    pub patience: usize,
    /// The precision of matrix products with scores.
    pub precision: Precision,
}

/// The precision of matrix products: products with scores, and an encoder's products on a device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// Single precision.
    #[default]
    F32,
    /// Factors rounded to 11 bits on a CUDA device (Ampere or later); the CPU computes `F32` instead.
    Tf32,
    /// Factors rounded to bf16, sums in single precision, if the processor supports it; otherwise `F32`.
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

/// The handling of an entity without features by a modality's teacher.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Absent {
    /// A zero embedding: the entity's score is zero, and all scores of its queries are zero.
    #[default]
    Zero,
    /// One learned embedding that all such entities share.
    Learned,
    /// Features drawn from N(0, 1), as in MoSE: a baseline.
    Noise,
}

/// The keys of one modality's teacher that differ; a missing key has its value from [`Teachers`].
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
    /// The handling of an entity without features.
    pub absent: Absent,
    /// Share of entities whose features are hidden, with a separate draw for each modality (0: none).
    pub missing_rate: f64,
    /// The seed that decides which entities are hidden.
    pub missing_seed: u64,
    /// The differing keys of each modality's teacher.
    pub modality: BTreeMap<Modality, TeacherOverride>,
}

impl Teachers {
    /// The table of the teacher of `modality`: this table with the teacher's differing keys applied.
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
