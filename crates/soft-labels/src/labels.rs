//! The cache as training reads it: any row at once, in any order, whatever the size of memory.

use half::f16;
use memmap2::{Mmap, MmapMut};
use mkg::graph::count_rows;
use rayon::prelude::*;
use stage::manifest::Manifest;
use stage::progress::Progress;
use stage::task::Task;
use stage::{Error, Modality, Result, Run, interrupt, resources};
use std::path::{Path, PathBuf};
use training::Data;

use crate::{part, schema};

/// All teachers' scores for all training queries.
///
/// Parquet is for people and tools; a random row of it costs the decoding of a page. So the scores are copied once
/// into a nameless scratch file laid out `(query, teacher, entity)` and mapped: the operating system keeps in
/// memory what fits, and drops the file with the process.
pub struct SoftLabels {
    teachers: Vec<Modality>,
    entities: usize,
    scores: Mmap,
}

/// The finished soft labels of a run, not read yet.
pub struct Opened {
    files: Vec<PathBuf>,
    teachers: Vec<Modality>,
}

impl SoftLabels {
    /// Finds a run's finished soft labels and records them as inputs of `task`.
    pub fn open(run: &Run, task: &mut Task) -> Result<Opened> {
        let folder = run.soft_labels();
        let manifest = Manifest::read(&folder)?;
        let teachers = manifest.summary_field(&folder, "teachers")?;
        let files = Self::files(&manifest, &folder);
        for file in &files {
            task.stage_input(&folder, &file.file_name().unwrap_or_default().to_string_lossy())?;
        }
        Ok(Opened { files, teachers })
    }

    /// The parts, in order.
    pub(crate) fn files(manifest: &Manifest, folder: &Path) -> Vec<PathBuf> {
        let parts = manifest.outputs.iter().filter(|output| output.path.ends_with(".parquet"));
        parts.map(|output| folder.join(&output.path)).collect()
    }

    /// Soft labels from memory, `rows` laid out `(query, teacher, entity)`.
    ///
    /// # Panics
    /// If `rows` does not hold whole rows.
    pub fn from_rows(teachers: Vec<Modality>, entities: usize, rows: &[f16]) -> Result<SoftLabels> {
        assert_eq!(rows.len() % (teachers.len() * entities), 0, "whole rows");
        let bytes: &[u8] = bytemuck::cast_slice(rows);
        let io = |e| Error::io("soft labels in memory", e);
        let mut map = MmapMut::map_anon(bytes.len()).map_err(io)?;
        map.copy_from_slice(bytes);
        Ok(SoftLabels { teachers, entities, scores: map.make_read_only().map_err(io)? })
    }

    /// The teachers, in the order of strategies' bits.
    pub fn teachers(&self) -> &[Modality] {
        &self.teachers
    }

    /// A teacher's scores of all entities for a query.
    pub fn scores(&self, query: usize, teacher: usize) -> &[f16] {
        let scores: &[f16] = bytemuck::cast_slice(&self.scores);
        let from = (query * self.teachers.len() + teacher) * self.entities;
        &scores[from..from + self.entities]
    }
}

impl Opened {
    /// The teachers, in the order of strategies' bits.
    pub fn teachers(&self) -> &[Modality] {
        &self.teachers
    }

    /// Copies the scores into a scratch file on the disk of `run`, checking every row against the graph.
    pub fn read(self, run: &Run, data: &Data) -> Result<SoftLabels> {
        let Opened { files, teachers } = self;
        let entities = data.entities();
        let bytes = schema::scores_bytes(data.queries.len(), entities, teachers.len());
        let folder = run.root();
        resources::require_disk(
            folder,
            bytes,
            "the scratch copy of the soft labels",
            "free some disk space",
        )?;
        let mut map = scratch(folder, bytes)?;
        copy(&files, &teachers, data, &mut map)?;
        let scores = map.make_read_only().map_err(|e| Error::io(folder, e))?;
        Ok(SoftLabels { teachers, entities, scores })
    }
}

#[expect(unsafe_code, reason = "mapping a file is unsafe: another process could change it")]
fn scratch(folder: &Path, bytes: u64) -> Result<MmapMut> {
    let file = tempfile::tempfile_in(folder).map_err(|e| Error::io(folder, e))?;
    file.set_len(bytes).map_err(|e| Error::io(folder, e))?;
    // SAFETY: the file has no name, so no other process can open it.
    unsafe { MmapMut::map_mut(&file) }.map_err(|e| Error::io(folder, e))
}

fn copy(files: &[PathBuf], teachers: &[Modality], data: &Data, map: &mut MmapMut) -> Result<()> {
    let progress = Progress::new("reading soft labels", data.queries.len() as u64, "queries");
    let row = teachers.len() * data.entities();
    let mut rest: &mut [f16] = bytemuck::cast_slice_mut(map);
    let mut slots = Vec::new();
    let mut first = 0;
    for file in files {
        let rows = count_rows(file)?;
        if rows * row > rest.len() {
            return Err(too_many(data));
        }
        let (slot, after) = rest.split_at_mut(rows * row);
        slots.push((file, first, slot));
        (rest, first) = (after, first + rows);
    }
    if first != data.queries.len() {
        let message =
            format!("{first} rows in all, but the graph has {} training queries", data.queries.len());
        return Err(Error::data(message)
            .at(files.first().map_or(Path::new(""), |f| f))
            .hint("rerun `dsom-soft-labels`"));
    }
    slots.into_par_iter().try_for_each(|(file, first, slot)| {
        interrupt::check()?;
        let rows = part::for_each_scores(file, data, first, teachers, |query, teacher, scores| {
            let from = (query - first) * row + teacher * data.entities();
            slot[from..from + data.entities()].copy_from_slice(scores);
        })?;
        progress.advance(rows as u64);
        Ok(())
    })
}

fn too_many(data: &Data) -> Error {
    Error::data(format!("more rows than the graph's {} training queries", data.queries.len()))
        .hint("rerun `dsom-soft-labels`")
}
