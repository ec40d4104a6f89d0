//! Sources of the teachers' scores of a student on a device: their models, or the soft labels.

use dsom_soft_labels::SoftLabels;
use kge::Model;
use kge::checkpoint::TensorReader;
use stage::manifest::Manifest;
use stage::{Error, Modality, Result, Run};
use training::{Data, MODEL};

/// Source of the teachers' scores of a student on a device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum FromWhere {
    /// The faster one for the shapes, as far as can be told beforehand
    #[default]
    Auto,
    /// The soft labels, copied to the device batch by batch
    Cache,
    /// The teachers' models on the device, computed anew for every batch
    Recompute,
}

/// Up to this width of an embedding, a device computes scores faster than it gets them: 2 bytes of a score at 8 GB/s take
/// as long as 5,000 multiplications and additions at 20 TFLOP/s. Estimated from data sheets, not measured.
const WIDEST: usize = 5000;

impl FromWhere {
    /// The teachers' models, if scores are to be computed anew.
    pub(crate) fn teachers(
        self,
        run: &Run,
        data: &Data,
        labels: &SoftLabels,
    ) -> Result<Option<Vec<Model<f32>>>> {
        if self == FromWhere::Cache && !labels.is_whole() {
            let error = Error::usage("a device cannot copy soft labels that keep only the top");
            return Err(error.hint("--soft-labels recompute, or --device cpu"));
        }
        let stale = Manifest::read(&run.soft_labels())?.stale(run);
        match (self, stale) {
            (FromWhere::Cache, _) => return Ok(None),
            (FromWhere::Auto, Some(reason)) if labels.is_whole() => {
                tracing::info!("teachers' scores: from the cache ({reason})");
                return Ok(None);
            }
            (_, Some(reason)) => {
                let error = Error::data(format!("the teachers are not those of the soft labels: {reason}"));
                return Err(error.hint("rerun `dsom-soft-labels`"));
            }
            (_, None) => {}
        }
        let open = |modality: &Modality| {
            let reader = TensorReader::open(&run.teacher(modality).join(MODEL))?;
            Model::from_reader(&reader, data.entities(), data.relations())
        };
        let models = labels.teachers().iter().map(open).collect::<Result<Vec<_>>>()?;
        let width = models.iter().map(|model| model.width()).sum::<usize>() / models.len().max(1);
        if self == FromWhere::Auto && labels.is_whole() && width > WIDEST {
            tracing::info!("teachers' scores: from the cache (embeddings of {width} numbers)");
            return Ok(None);
        }
        tracing::info!("teachers' scores: computed anew on the device");
        Ok(Some(models))
    }
}
