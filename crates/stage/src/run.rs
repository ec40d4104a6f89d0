//! The run directory: one folder per stage.

use std::path::{Path, PathBuf};

use crate::files::folders;
use crate::{Error, Modality, Result};

/// The directory of one run. Each stage writes one folder in it:
///
/// ```text
/// runs/<name>/
///   graph/              entities.parquet relations.parquet train.parquet valid.parquet test.parquet audit.json
///   features/<modality> features.safetensors
///   teachers/<modality> model.safetensors events.jsonl
///   soft-labels/        part-00000.parquet ...
///   <student>/          model.safetensors policy.safetensors events.jsonl
///   <ensemble>/         ensemble.safetensors
///   evaluation/         ranks.parquet metrics.json
/// ```
#[derive(Clone, Debug)]
pub struct Run {
    root: PathBuf,
}

impl Run {
    /// The run in `root`. The folder need not exist yet.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Run { root: root.into() }
    }

    /// The directory itself.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Stage 1's folder.
    pub fn graph(&self) -> PathBuf {
        self.root.join("graph")
    }

    /// Stage 2's folder for one modality.
    pub fn features(&self, modality: &Modality) -> PathBuf {
        self.root.join("features").join(modality.as_str())
    }

    /// Stage 3's folder for one teacher.
    pub fn teacher(&self, modality: &Modality) -> PathBuf {
        self.root.join("teachers").join(modality.as_str())
    }

    /// Stage 4's folder.
    pub fn soft_labels(&self) -> PathBuf {
        self.root.join("soft-labels")
    }

    /// Stage 5's folder; `name` is `student` unless several students share the run.
    pub fn student(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    /// The folder of the ensemble, beside stage 5; `name` is `ensemble` unless several ensembles share the run.
    pub fn ensemble(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    /// Tells whether `name` is a folder of the given kind: `student`, or `student-…`.
    ///
    /// ```
    /// use stage::Run;
    /// assert!(Run::is_one_of("student", "student") && Run::is_one_of("student", "student-2"));
    /// assert!(!Run::is_one_of("student", "students") && !Run::is_one_of("student", "student-2/x"));
    /// ```
    pub fn is_one_of(kind: &str, name: &str) -> bool {
        let rest = name.strip_prefix(kind);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('-')) && !name.contains(['/', '\\'])
    }

    /// Stage 6's folder.
    pub fn evaluation(&self) -> PathBuf {
        self.root.join("evaluation")
    }

    /// The modalities whose folder under `parent` (`features` or `teachers`) holds a finished stage, in order.
    ///
    /// # Errors
    /// Failed reads: an unreadable stage does not count as absent.
    pub fn finished(&self, parent: &str) -> Result<Vec<Modality>> {
        let parent = self.root.join(parent);
        let mut modalities = Vec::new();
        for modality in folders::<Modality>(&parent)? {
            let manifest = parent.join(modality.to_string()).join(crate::manifest::FILE);
            if manifest.try_exists().map_err(|e| Error::io(&manifest, e))? {
                modalities.push(modality);
            }
        }
        modalities.sort();
        Ok(modalities)
    }
}
