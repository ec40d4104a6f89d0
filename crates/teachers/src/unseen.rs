//! The embedding of an entity outside the graph, from a teacher of features.

use kge::backbone::distance::close_entity;
use kge::checkpoint::TensorReader;
use kge::{Matrix, Model};
use stage::manifest::Manifest;
use stage::{Error, Modality, Result, Run};
use training::MODEL;

use crate::missing::normalise;

/// The embedding `(1, width)` of an entity with this feature in `model`, the teacher of `modality`: its projection.
///
/// # Errors
/// If the teacher was trained on other features than the run has now, or the feature has another width.
pub fn place(run: &Run, modality: &Modality, model: &Model<f32>, feature: &[f32]) -> Result<Matrix<f32>> {
    let folder = run.teacher(modality);
    let manifest = Manifest::read(&folder)?;
    if let Some(reason) = manifest.stale(run) {
        let message = format!("it learned from other features than the run has now: {reason}");
        return Err(Error::data(message).at(folder).hint("rerun `dsom-teachers`"));
    }
    let projection = TensorReader::open(&folder.join(MODEL))?.matrix("projection")?;
    // If entities without features have a learned embedding, the last row of the projection is that embedding.
    let width = projection.rows() - usize::from(manifest.parameters["absent"] == "learned");
    if feature.len() != width {
        let message =
            format!("a feature of {} numbers, but `{modality}` learned from {width}", feature.len());
        return Err(Error::data(message).at(folder));
    }
    let mut row = feature.to_vec();
    normalise(&mut row);
    row.resize(projection.rows(), 0.0);
    let (row, mut entity) = (Matrix::from_values(1, row.len(), row), Matrix::zeros(1, projection.columns()));
    entity.product(false, row.view(), projection.view());
    if model.backbone.is_distance() {
        close_entity(entity.row_mut(0));
    }
    Ok(entity)
}
