//! The cache in training: any row can be read, in any order, also if the cache is larger than memory.

use bytes::Bytes;
use half::f16;
use half::slice::HalfFloatSliceExt;
use kge::{Matrix, Model, Scorer};
use mkg::{EntityId, Query};
use rayon::prelude::*;
use stage::manifest::Manifest;
use stage::task::Task;
use stage::{Error, Modality, Result, Run, interrupt};
use std::path::{Path, PathBuf};
use training::Data;

use crate::excerpt::{Excerpts, Kept, TeacherExcerpt};
use crate::pages::Stored;
use crate::part::CacheFile;
use crate::schema::{TOP, scores_column, vector_column};
use crate::write::require_half;

/// Number of queries that models score at once.
const BLOCK: usize = 512;

/// All teachers' scores and query vectors for all training queries.
///
/// The Parquet files are mapped, and rows are read in place: nothing is copied, and the operating system keeps in
/// memory as much as fits.
pub struct SoftLabels {
    teachers: Vec<Modality>,
    entities: usize,
    files: Vec<Bytes>,
    scores: Vec<CachedColumn>,
    vectors: Vec<CachedColumn>,
    /// The entities whose scores a lossy cache keeps, and its numbers besides their scores.
    lossy: Option<(CachedColumn, Excerpts)>,
}

/// A column, with the places of its rows.
struct CachedColumn {
    width: usize,
    places: Vec<RowStart>,
}

impl CachedColumn {
    /// A column of `rows` half-precision rows in one file; the first begins at number `begin`, each next `stride` on.
    fn regular(file: usize, rows: usize, width: usize, begin: usize, stride: usize) -> CachedColumn {
        let offsets = (0..rows).map(|row| size_of::<f16>() * (begin + row * stride));
        CachedColumn { width, places: offsets.map(|offset| RowStart { file, offset }).collect() }
    }
}

#[derive(Clone, Copy)]
struct RowStart {
    file: usize,
    offset: usize,
}

/// Numbers in memory that can be read like a file.
struct Numbers(Vec<f16>);

impl AsRef<[u8]> for Numbers {
    fn as_ref(&self) -> &[u8] {
        bytemuck::cast_slice(&self.0)
    }
}

impl SoftLabels {
    /// Finds the files and teachers of a run's finished soft labels, and records the files as inputs of `task`.
    pub fn find(run: &Run, task: &mut Task) -> Result<(Vec<PathBuf>, Vec<Modality>)> {
        let folder = run.soft_labels();
        let (files, teachers) = parts(&Manifest::read(&folder)?, &folder)?;
        for file in &files {
            task.stage_input(&folder, &file.file_name().unwrap_or_default().to_string_lossy())?;
        }
        Ok((files, teachers))
    }

    /// Maps the files of the cache, in order, finds every row, and checks that queries and entities are those of the
    /// graph.
    pub fn map(files: &[PathBuf], teachers: Vec<Modality>, data: &Data) -> Result<SoftLabels> {
        let parts: Vec<CacheFile> = files.iter().map(|file| CacheFile::open(file)).collect::<Result<_>>()?;
        let begins = begins(&parts, data)?;
        parts.par_iter().zip(&begins).try_for_each(|(part, first)| {
            interrupt::check()?;
            part.check_queries(data, *first)
        })?;
        let columns = |name: fn(&Modality) -> String| -> Result<Vec<CachedColumn>> {
            teachers.iter().map(|modality| rows::<f16>(&parts, &name(modality))).collect()
        };
        let (scores, vectors) = (columns(scores_column)?, columns(vector_column)?);
        let is_lossy = parts.first().is_some_and(|part| part.has(TOP));
        let lossy = is_lossy.then(|| read_excerpts(&parts, &begins, &teachers, data)).transpose()?;
        let expected = lossy.as_ref().map_or(data.entities(), |(top, _)| top.width);
        if let Some(other) = scores.iter().map(|rows| rows.width).find(|width| *width != expected) {
            let message = match lossy {
                Some(_) => format!("{other} scores a row of {expected} entities kept"),
                None => format!("{other} scores a row, the graph has {expected} entities"),
            };
            return Err(Error::data(message).hint("rerun `dsom-soft-labels`"));
        }
        let files = parts.into_iter().map(|part| part.bytes).collect();
        Ok(SoftLabels { teachers, entities: data.entities(), files, scores, vectors, lossy })
    }

    /// Makes soft labels in memory from `rows (query, teacher, entity)`, without query vectors.
    ///
    /// # Panics
    /// Panics if `rows` does not hold whole rows.
    pub fn from_rows(teachers: Vec<Modality>, entities: usize, rows: Vec<f16>) -> SoftLabels {
        let row = teachers.len() * entities;
        assert_eq!(rows.len() % row, 0, "whole rows");
        let scores = (0..teachers.len())
            .map(|i| CachedColumn::regular(0, rows.len() / row, entities, i * entities, row))
            .collect();
        let files = vec![Bytes::from_owner(Numbers(rows))];
        SoftLabels { teachers, entities, files, scores, vectors: Vec::new(), lossy: None }
    }

    /// Soft labels of `queries` without a cache, computed by `models` in memory, with the query vectors.
    ///
    /// # Errors
    /// Fails if a number does not fit half precision, and on interruption.
    pub fn of_models(
        teachers: Vec<Modality>,
        models: &[&Model<f32>],
        queries: &[Query],
    ) -> Result<SoftLabels> {
        let entities = models.first().map_or(0, |model| model.entity.rows());
        let row = teachers.len() * entities;
        let mut rows = vec![f16::ZERO; queries.len() * row];
        let (mut scores, mut vectors) = (Matrix::default(), vec![Matrix::default(); models.len()]);
        for (teacher, (model, vectors)) in models.iter().zip(&mut vectors).enumerate() {
            model.queries(queries, vectors);
            require_half(vectors, "query vectors", &teachers[teacher])?;
            for (block, queries) in queries.chunks(BLOCK).enumerate() {
                interrupt::check()?;
                model.scores(queries, &mut scores);
                require_half(&scores, "scores", &teachers[teacher])?;
                let rows = rows[block * BLOCK * row..].par_chunks_mut(row);
                rows.zip(scores.values().par_chunks(entities)).for_each(|(into, scores)| {
                    into[teacher * entities..][..entities].convert_from_f32_slice(scores);
                });
            }
        }
        Ok(SoftLabels::from_rows(teachers, entities, rows).with_vectors(&vectors))
    }

    /// Adds each teacher's query vectors `(query, width)`.
    pub fn with_vectors(mut self, vectors: &[Matrix<f32>]) -> SoftLabels {
        for vectors in vectors {
            let (rows, width) = (vectors.rows(), vectors.columns());
            self.vectors.push(CachedColumn::regular(self.files.len(), rows, width, 0, width));
            let numbers = vectors.values().iter().map(|x| f16::from_f32(*x)).collect();
            self.files.push(Bytes::from_owner(Numbers(numbers)));
        }
        self
    }

    /// The teachers, in the order of the bits of strategies.
    pub fn teachers(&self) -> &[Modality] {
        &self.teachers
    }

    /// Number of entities with scores.
    pub fn entities(&self) -> usize {
        self.entities
    }

    /// Tells whether the cache has the scores of all entities.
    pub fn is_whole(&self) -> bool {
        self.lossy.is_none()
    }

    /// Writes a teacher's scores of all entities for a query. Left-out entities of a lossy cache have one common score:
    /// softened at `tau`, it has the sum of their true scores; for an infinite `tau` it is their mean.
    ///
    /// # Panics
    /// Panics if the length of `into` is not [`SoftLabels::entities`].
    pub fn fill(&self, query: usize, teacher: usize, tau: f64, into: &mut [f32]) {
        assert_eq!(into.len(), self.entities, "a row of all entities");
        match &self.lossy {
            None => self.stored(query, teacher).convert_to_f32_slice(into),
            Some((top, excerpts)) => excerpts.fill(self.kept(top, query, teacher), teacher, tau, into),
        }
    }

    /// A teacher's score of one entity for a query; a left-out entity has the common score at temperature 1.
    pub fn score(&self, query: usize, teacher: usize, entity: EntityId) -> f32 {
        match &self.lossy {
            None => self.stored(query, teacher)[entity.index()].to_f32(),
            Some((top, excerpts)) => excerpts.score(self.kept(top, query, teacher), teacher, entity),
        }
    }

    /// A teacher's stored scores in a row: of all entities, or of those that a lossy cache keeps.
    pub fn stored(&self, query: usize, teacher: usize) -> &[f16] {
        bytemuck::cast_slice(self.row::<f16>(&self.scores[teacher], query))
    }

    /// A teacher's query vector (for ComplEx `q = e_h ∘ w_r`, `[re | im]`); times an entity's row, it is the score.
    pub fn vector(&self, query: usize, teacher: usize) -> &[f16] {
        bytemuck::cast_slice(self.row::<f16>(&self.vectors[teacher], query))
    }

    /// A teacher's query vectors `(query, width)`.
    pub fn vectors(&self, teacher: usize) -> Matrix<f32> {
        let CachedColumn { width, places } = &self.vectors[teacher];
        let mut matrix = Matrix::zeros(places.len(), *width);
        for query in 0..places.len() {
            self.vector(query, teacher).convert_to_f32_slice(matrix.row_mut(query));
        }
        matrix
    }

    fn kept(&self, top: &CachedColumn, query: usize, teacher: usize) -> Kept<'_> {
        Kept { query, top: self.row::<u32>(top, query), scores: self.stored(query, teacher) }
    }

    fn row<S: Stored>(&self, rows: &CachedColumn, query: usize) -> &[u8] {
        let RowStart { file, offset } = rows.places[query];
        &self.files[file][offset..offset + size_of::<S>() * rows.width]
    }
}

/// Reads the columns of a lossy cache without a fixed width, and checks that every kept entity is in the graph. Each
/// part begins with the row of the same position in `begins`.
fn read_excerpts(
    parts: &[CacheFile],
    begins: &[usize],
    teachers: &[Modality],
    data: &Data,
) -> Result<(CachedColumn, Excerpts)> {
    let top = rows::<u32>(parts, TOP)?;
    let by_part = parts.par_iter().zip(begins).map(|(part, first)| -> Result<Vec<TeacherExcerpt>> {
        interrupt::check()?;
        let places = &top.places[*first..first + part.rows()];
        part.check_top(places.iter().map(|place| place.offset), top.width, data.entities(), *first)?;
        teachers.iter().map(|modality| part.excerpts(modality, data, *first)).collect()
    });
    let by_part: Vec<Result<_>> = by_part.collect();
    let mut whole = vec![TeacherExcerpt::default(); teachers.len()];
    for part in by_part {
        // Of several errors the first by row is returned, whichever thread finished first.
        for (whole, part) in whole.iter_mut().zip(part?) {
            whole.neighbours.extend(part.neighbours);
            whole.rests.extend(part.rests);
        }
    }
    let excerpts = Excerpts { entities: data.entities(), queries: data.queries.clone(), teachers: whole };
    Ok((top, excerpts))
}

/// The parts of finished soft labels, in order, and their teachers.
pub(crate) fn parts(manifest: &Manifest, folder: &Path) -> Result<(Vec<PathBuf>, Vec<Modality>)> {
    let teachers = manifest.summary_field(folder, "teachers")?;
    let parts = manifest.outputs.iter().filter(|output| output.path.ends_with(".parquet"));
    Ok((parts.map(|output| folder.join(&output.path)).collect(), teachers))
}

/// The number of each part's first row; an error unless there are as many rows as the graph has queries.
fn begins(parts: &[CacheFile], data: &Data) -> Result<Vec<usize>> {
    let mut rows: usize = 0;
    let mut begins = Vec::with_capacity(parts.len());
    for part in parts {
        begins.push(rows);
        rows = part.rows().saturating_add(rows);
    }
    if rows == data.queries.len() {
        return Ok(begins);
    }
    let message = format!("{rows} rows, but the graph has {} training queries", data.queries.len());
    let at = parts.first().and_then(|part| part.path.parent()).unwrap_or(Path::new(""));
    Err(Error::data(message).at(at).hint("rerun `dsom-soft-labels`"))
}

/// The rows of a list column in all parts.
fn rows<S: Stored>(parts: &[CacheFile], name: &str) -> Result<CachedColumn> {
    let width = parts.first().map_or(Ok(0), |part| part.width::<S>(name))?;
    let by_part = parts.par_iter().enumerate().map(|(file, part)| {
        if part.width::<S>(name)? != width {
            return Err(Error::data(format!("lists of `{name}` differ in width between the parts")));
        }
        Ok(part.places::<S>(name)?.into_iter().map(|offset| RowStart { file, offset }).collect())
    });
    let places: Vec<Vec<RowStart>> = by_part.collect::<Result<_>>()?;
    Ok(CachedColumn { width, places: places.concat() })
}
