//! What a device holds, on the host: for checkpoints, and for whoever asks for the model.

use kge::checkpoint::{Reader, Tensors, require_finite};
use kge::{Matrix, Model};
use stage::Result;

use super::Trainer;
use super::projected::Entities;
use crate::memory::DeviceMatrix;

/// The parameters and squares on the host, as they were last read.
pub(super) struct Mirror {
    pub(super) fresh: bool,
    pub(super) model: Model<f32>,
    pub(super) projection: Matrix<f32>,
    pub(super) squares: Matrix<f32>,
    pub(super) relation_squares: Matrix<f32>,
}

impl Mirror {
    /// Of what was never read.
    pub(super) fn new() -> Mirror {
        let empty = || Matrix::zeros(0, 0);
        Mirror {
            fresh: false,
            model: Model::complex(empty(), empty()),
            projection: empty(),
            squares: empty(),
            relation_squares: empty(),
        }
    }
}

impl Trainer {
    /// Reads parameters and squares, unless they were read since the last step.
    fn read(&mut self) -> Result<()> {
        if self.mirror.fresh {
            return Ok(());
        }
        self.write_table()?;
        self.entity.read(&mut self.mirror.model.entity)?;
        self.relation.read(&mut self.mirror.model.relation)?;
        self.relation_squares.read(&mut self.mirror.relation_squares)?;
        match &self.entities {
            Entities::Free(squares) => squares.read(&mut self.mirror.squares)?,
            Entities::Projected(projected) => {
                projected.projection.read(&mut self.mirror.projection)?;
                projected.squares.read(&mut self.mirror.squares)?;
            }
        }
        self.mirror.fresh = true;
        Ok(())
    }

    /// The model as it stands, and the trained projection, if there is one.
    pub fn parts(&mut self) -> Result<(&Model<f32>, Option<&Matrix<f32>>)> {
        self.read()?;
        let projected = matches!(self.entities, Entities::Projected(_));
        Ok((&self.mirror.model, projected.then_some(&self.mirror.projection)))
    }

    /// Everything needed to go on, here or on the CPU: as [`kge::Trainer::state`].
    pub fn state(&mut self) -> Result<Tensors<'_>> {
        self.read()?;
        let Mirror { model, projection, squares, relation_squares, .. } = &self.mirror;
        let parameters = match &self.entities {
            Entities::Free(_) => &model.entity,
            Entities::Projected(_) => projection,
        };
        Ok(Tensors::default()
            .matrix("parameters", parameters)
            .matrix("relation", &model.relation)
            .matrix("parameters_squares", squares)
            .matrix("relation_squares", relation_squares))
    }

    /// Takes up a state saved under `prefix.`, by either device.
    pub fn restore(&mut self, reader: &Reader, prefix: &str) -> Result<()> {
        self.mirror.fresh = false;
        let load = |name: &str, into: &mut DeviceMatrix| {
            let mut matrix = Matrix::zeros(into.rows(), into.columns());
            reader.load(&format!("{prefix}.{name}"), &mut matrix)?;
            into.write(&matrix)
        };
        let (parameters, squares) = match &mut self.entities {
            Entities::Free(squares) => (&mut self.entity, squares),
            Entities::Projected(projected) => {
                projected.stale = true;
                (&mut projected.projection, &mut projected.squares)
            }
        };
        load("parameters", parameters)?;
        load("relation", &mut self.relation)?;
        load("parameters_squares", squares)?;
        load("relation_squares", &mut self.relation_squares)
    }

    /// Refuses parameters that are no longer finite.
    pub fn require_finite(&mut self) -> Result<()> {
        let (model, _) = self.parts()?;
        require_finite("entity", &model.entity)?;
        require_finite("relation", &model.relation)
    }
}
