//! Excerpts of the rows of a row group, and their columns.

use arrow::array::{ArrayRef, Float32Builder, Float64Array, ListBuilder};
use arrow::datatypes::DataType;
use kge::Matrix;
use mkg::graph::list_item;
use mkg::{EntityId, QuerySet};
use rayon::prelude::*;
use std::ops::Range;
use std::sync::Arc;

use super::Rest;
use super::choice::Choice;

/// Rows of some queries as a lossy cache has them.
pub(crate) struct Excerpt {
    /// The entities kept, `(query, top)`.
    pub(crate) top: Vec<u32>,
    /// Numbers of each teacher.
    pub(crate) teachers: Vec<TeacherColumns>,
}

/// One teacher's part of it.
#[derive(Default)]
pub(crate) struct TeacherColumns {
    /// The scores of the entities kept, `(query, top)`.
    pub(crate) scores: Vec<f32>,
    /// The scores of each query's neighbours.
    neighbours: Vec<Vec<f32>>,
    rests: Vec<Rest>,
}

/// One query's part of it.
struct QueryExcerpt {
    top: Vec<u32>,
    /// Numbers of each teacher: scores of the entities kept, of the neighbours, and the rest.
    teachers: Vec<(Vec<f32>, Vec<f32>, Rest)>,
}

impl Excerpt {
    /// Excerpt of all teachers' `scores (query, entity)` of the queries `rows`, with `top` entities a row.
    pub(crate) fn of(scores: &[Matrix<f32>], queries: &QuerySet, rows: Range<usize>, top: usize) -> Excerpt {
        let excerpts: Vec<QueryExcerpt> = (0..rows.len())
            .into_par_iter()
            .map_init(
                || (Choice::default(), Vec::new()),
                |(choice, buffer), row| {
                    let of_teachers: Vec<&[f32]> = scores.iter().map(|scores| scores.row(row)).collect();
                    QueryExcerpt::of(&of_teachers, queries.tails(rows.start + row), top, choice, buffer)
                },
            )
            .collect();
        let mut whole = Excerpt { top: Vec::with_capacity(rows.len() * top), teachers: Vec::new() };
        whole.teachers.resize_with(scores.len(), TeacherColumns::default);
        for row in excerpts {
            whole.top.extend(row.top);
            for (teacher, (scores, neighbours, rest)) in whole.teachers.iter_mut().zip(row.teachers) {
                teacher.scores.extend(scores);
                teacher.neighbours.push(neighbours);
                teacher.rests.push(rest);
            }
        }
        whole
    }

    /// Each teacher's columns that are no lists of one width.
    pub(crate) fn columns(&self) -> Vec<ArrayRef> {
        self.teachers.iter().flat_map(TeacherColumns::columns).collect()
    }
}

impl TeacherColumns {
    fn columns(&self) -> [ArrayRef; 3] {
        let mut neighbours = ListBuilder::new(Float32Builder::new()).with_field(list_item(DataType::Float32));
        for scores in &self.neighbours {
            neighbours.values().append_slice(scores);
            neighbours.append(true);
        }
        let numbers = |of: fn(&Rest) -> f64| Float64Array::from_iter_values(self.rests.iter().map(of));
        [
            Arc::new(neighbours.finish()),
            Arc::new(numbers(|rest| rest.log_sum)),
            Arc::new(numbers(|rest| rest.mean)),
        ]
    }
}

impl QueryExcerpt {
    fn of(
        scores: &[&[f32]],
        neighbours: &[EntityId],
        top: usize,
        choice: &mut Choice,
        buffer: &mut Vec<f32>,
    ) -> QueryExcerpt {
        let top = choice.of(scores, neighbours, top);
        let mut kept: Vec<u32> = top.iter().copied().chain(neighbours.iter().map(|id| id.0)).collect();
        kept.sort_unstable();
        kept.dedup();
        buffer.resize(scores[0].len(), 0.0);
        let count = buffer.len() - kept.len();
        let of_teacher = |scores: &&[f32]| {
            let of_top = top.iter().map(|entity| scores[*entity as usize]).collect();
            let of_neighbours = neighbours.iter().map(|entity| scores[entity.index()]).collect();
            (of_top, of_neighbours, Rest::of(scores, &kept, count, buffer))
        };
        let teachers = scores.iter().map(of_teacher).collect();
        QueryExcerpt { top, teachers }
    }
}
