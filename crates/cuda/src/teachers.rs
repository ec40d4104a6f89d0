//! What teachers say of a batch, on a device: computed anew from their models, or copied up from a cache of halves.
//!
//! It is asked for once a batch, whoever needs it: the policy before a step, the student in it. What is copied up can be
//! sent ahead: while the device works on one batch, the rows of the next are copied into page-locked memory and from
//! there, beside the device's work, into the other of two buffers.

use mkg::{Query, QuerySet};
use rayon::prelude::*;
use recipe::Precision;
use stage::Result;

use crate::Gpu;
use crate::backend::Lane;
use crate::kernel;
use crate::memory::{Array, DeviceMatrix};
use crate::model::Model;

/// Where teachers' scores come from.
pub enum Sources<'a> {
    /// From their models, computed anew for every batch.
    Models(Vec<Model>),
    /// From a cache.
    Cache(Cache<'a>),
}

/// The bits of half-precision numbers, of a training query by a teacher.
pub type Halves<'a> = Box<dyn Fn(usize, usize) -> &'a [u16] + Sync + 'a>;

/// What teachers say of training queries, in half precision.
pub struct Cache<'a> {
    /// How many teachers.
    pub teachers: usize,
    /// Scores of all entities.
    pub scores: Halves<'a>,
    /// Query vectors.
    pub vectors: Halves<'a>,
}

impl Sources<'_> {
    /// How many teachers.
    pub(crate) fn teachers(&self) -> usize {
        match self {
            Sources::Models(models) => models.len(),
            Sources::Cache(cache) => cache.teachers,
        }
    }
}

/// What the teachers say of the last batch that was asked about.
pub(crate) struct Teachers<'a> {
    gpu: Gpu,
    sources: Sources<'a>,
    precision: Precision,
    /// The batches whose scores, and whose vectors, are there.
    scored: Vec<u32>,
    composed: Vec<u32>,
    /// `(teacher · query, entity)`.
    scores: DeviceMatrix,
    /// Of each teacher `(query, 2k)`.
    vectors: Vec<DeviceMatrix>,
    /// A teacher's query vectors on their way.
    halves: Array<u16>,
    stream: Stream,
}

impl<'a> Teachers<'a> {
    /// Whose scores are computed, if they are, by products in this precision.
    pub(crate) fn new(gpu: &Gpu, sources: Sources<'a>, precision: Precision) -> Self {
        let vectors = (0..sources.teachers()).map(|_| DeviceMatrix::new(gpu)).collect();
        Teachers {
            gpu: gpu.clone(),
            sources,
            precision,
            scored: Vec::new(),
            composed: Vec::new(),
            scores: DeviceMatrix::padded(gpu),
            vectors,
            halves: Array::new(gpu),
            stream: Stream::new(gpu),
        }
    }

    /// How many.
    pub(crate) fn count(&self) -> usize {
        self.sources.teachers()
    }

    /// The scores `(teacher · query, entity)` of the queries numbered `batch`.
    pub(crate) fn scores(&mut self, queries: &QuerySet, batch: &[u32]) -> Result<&DeviceMatrix> {
        if self.scored != batch {
            self.scored.clear();
            match &self.sources {
                Sources::Models(models) => {
                    let asked = asked(queries, batch);
                    let entities = models.first().map_or(0, Model::entities);
                    self.scores.resize(models.len() * batch.len(), entities)?;
                    for (teacher, model) in models.iter().enumerate() {
                        let into = (self.scores.at(teacher * batch.len()), self.scores.stride());
                        model.write_scores(&asked, self.precision, into)?;
                    }
                }
                Sources::Cache(cache) => self.stream.arrive(cache, batch, &mut self.scores)?,
            }
            self.scored.extend_from_slice(batch);
        }
        Ok(&self.scores)
    }

    /// The scores that were asked for last.
    pub(crate) fn at_hand(&self) -> &DeviceMatrix {
        &self.scores
    }

    /// The query vectors `(query, 2k)` of each teacher.
    pub(crate) fn vectors(&mut self, queries: &QuerySet, batch: &[u32]) -> Result<&[DeviceMatrix]> {
        if self.composed != batch {
            self.composed.clear();
            match &self.sources {
                Sources::Models(models) => {
                    let asked = asked(queries, batch);
                    let mut each = models.iter().zip(&mut self.vectors);
                    each.try_for_each(|(model, into)| model.write_vectors(&asked, into))?;
                }
                Sources::Cache(cache) => {
                    for (teacher, into) in self.vectors.iter_mut().enumerate() {
                        let row = |number: &u32| (cache.vectors)(*number as usize, teacher);
                        let halves: Vec<u16> = batch.iter().flat_map(row).copied().collect();
                        let width = halves.len() / batch.len().max(1);
                        self.halves.write(&halves)?;
                        widen(&self.gpu, &self.halves, (batch.len(), width), into)?;
                    }
                }
            }
            self.composed.extend_from_slice(batch);
        }
        Ok(&self.vectors)
    }

    /// Says which batch will be asked about after this one.
    pub(crate) fn announce(&mut self, batch: &[u32]) {
        self.stream.next = batch.to_vec();
    }

    /// Begins to send up the batch that was announced, if its scores are in a cache.
    pub(crate) fn send_ahead(&mut self) -> Result<()> {
        match &self.sources {
            Sources::Models(_) => Ok(()),
            Sources::Cache(cache) => self.stream.send_ahead(cache),
        }
    }
}

fn asked(queries: &QuerySet, batch: &[u32]) -> Vec<Query> {
    batch.iter().map(|number| queries.query(*number as usize)).collect()
}

/// `into (row, width)` = halves, in rows of this width.
fn widen(
    gpu: &Gpu,
    halves: &Array<u16>,
    (rows, width): (usize, usize),
    into: &mut DeviceMatrix,
) -> Result<()> {
    into.resize(rows, width)?;
    let arguments = kernel::Widen {
        from: halves.at(0),
        into: into.at(0),
        width: width as u64,
        stride: into.stride() as u64,
    };
    gpu.launch(rows, &arguments)
}

/// Rows of a cache on their way up.
struct Stream {
    gpu: Gpu,
    /// Made when first used.
    buffers: Vec<Buffer>,
    /// The buffer to fill next.
    turn: usize,
    /// The batch to be sent ahead; empty if there is none.
    next: Vec<u32>,
    /// The batch that was sent ahead, and its buffer.
    sent: Option<(Vec<u32>, usize)>,
}

/// Page-locked memory and its copy on the device. When they are dropped the lane goes first: it waits for a copy under way.
struct Buffer {
    lane: Box<dyn Lane>,
    halves: Array<u16>,
}

impl Stream {
    fn new(gpu: &Gpu) -> Stream {
        Stream { gpu: gpu.clone(), buffers: Vec::new(), turn: 0, next: Vec::new(), sent: None }
    }

    /// The scores of a batch, which was sent ahead or is sent now.
    fn arrive(&mut self, cache: &Cache<'_>, batch: &[u32], scores: &mut DeviceMatrix) -> Result<()> {
        let buffer = match self.sent.take() {
            Some((sent, buffer)) if sent == batch => buffer,
            _ => self.send(cache, batch)?,
        };
        let rows = cache.teachers * batch.len();
        let Buffer { lane, halves } = &mut self.buffers[buffer];
        lane.arrive()?;
        widen(&self.gpu, halves, (rows, halves.len() / rows.max(1)), scores)?;
        lane.release()
    }

    fn send_ahead(&mut self, cache: &Cache<'_>) -> Result<()> {
        let batch = std::mem::take(&mut self.next);
        if !batch.is_empty() {
            let buffer = self.send(cache, &batch)?;
            self.sent = Some((batch, buffer));
        }
        Ok(())
    }

    /// Begins to copy the rows of a batch, teacher by teacher, and says into which buffer.
    fn send(&mut self, cache: &Cache<'_>, batch: &[u32]) -> Result<usize> {
        while self.buffers.len() < 2 {
            let (lane, halves) = (self.gpu.backend().lane()?, Array::new(&self.gpu));
            self.buffers.push(Buffer { lane, halves });
        }
        let buffer = self.turn;
        self.turn = 1 - buffer;
        let Buffer { lane, halves } = &mut self.buffers[buffer];
        let Some(&first) = batch.first() else { return halves.resize(0).map(|()| buffer) };
        let width = (cache.scores)(first as usize, 0).len();
        let count = cache.teachers * batch.len() * width;
        let room = bytemuck::cast_slice_mut(lane.room(count * size_of::<u16>())?);
        room.par_chunks_mut(width).enumerate().for_each(|(i, into)| {
            let (teacher, number) = (i / batch.len(), batch[i % batch.len()]);
            into.copy_from_slice((cache.scores)(number as usize, teacher));
        });
        halves.resize(count)?;
        lane.start(halves.at(0), count * size_of::<u16>())?;
        Ok(buffer)
    }
}
