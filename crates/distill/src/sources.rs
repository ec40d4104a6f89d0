use dsom_soft_labels::SoftLabels;
use kge::Model;
use kge::checkpoint::TensorReader;
use stage::manifest::Manifest;
use stage::{Error, Result, Run};
use training::{Data, MODEL};

/// Source of the teachers' scores of a student on a device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum FromWhere {
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
        if self == FromWhere::Cache {
            return Ok(None);
        }
        let may_copy = self == FromWhere::Auto && labels.is_whole();
        if let Some(reason) = stale {
            if may_copy {
                tracing::info!("teachers' scores: from the cache ({reason})");
                return Ok(None);
            }
            let error = Error::data(format!("the teachers are not those of the soft labels: {reason}"));
            return Err(error.hint("rerun `dsom-soft-labels`"));
        }
        let mut models = Vec::new();
        for modality in labels.teachers() {
            let reader = TensorReader::open(&run.teacher(modality).join(MODEL))?;
            models.push(Model::from_reader(&reader, data.entities(), data.relations())?);
        }
        let width = models.iter().map(Model::width).sum::<usize>() / models.len().max(1);
        if may_copy && width > WIDEST {
            tracing::info!("teachers' scores: from the cache (embeddings of {width} numbers)");
            return Ok(None);
        }
        tracing::info!("teachers' scores: computed anew on the device");
        Ok(Some(models))
    }
}
