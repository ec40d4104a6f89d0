//! What memory a student takes, estimated before it begins.

use dsom_soft_labels::SoftLabels;
use kge::Model;
use recipe::{Distill, PolicyState};
use stage::Result;
use training::{Data, Place, Shapes, shape};

use crate::asks_validation;
use crate::inputs;
use crate::policy::Policy;

/// Refuses a student that memory does not hold, on the host or on the device.
pub(crate) fn require(
    place: &Place,
    data: &Data,
    distill: &Distill,
    labels: Option<&SoftLabels>,
    teachers: Option<&[Model<f32>]>,
) -> Result<()> {
    let training = &distill.training;
    let shapes = Shapes {
        shape: shape(training),
        entities: data.entities(),
        features: 0,
        queries: data.queries.len(),
        batch: training.batch,
    };
    let knob = "lower `distill.selection.hidden`, `distill.batch` or `distill.rank`, or set `distill.selection.state = \"query\"`";
    let more = |queries: usize| match place {
        Place::Cpu(_) => of_teaching(data, distill, labels, queries),
        Place::Device(..) => on_device(data, distill, (labels, teachers), queries),
    };
    if place.gpu().is_some() {
        let queries = data.largest_batch(training.batch);
        // Two batches' rows of a cache, page-locked, on their way up.
        let on_their_way = match (labels, teachers) {
            (Some(labels), None) => 4 * (labels.teachers().len() * queries * data.entities()) as u64,
            _ => 0,
        };
        let bytes = of_teaching(data, distill, labels, queries) + on_their_way;
        stage::resources::require_memory(bytes, "what teaches the student", knob)?;
    }
    place.require_memory(shapes, more, "distillation", ("distill", knob))
}

/// Bytes of what teaches the student, on a device; `teachers` are those whose scores are computed there.
fn on_device(
    data: &Data,
    distill: &Distill,
    (labels, teachers): (Option<&SoftLabels>, Option<&[Model<f32>]>),
    queries: usize,
) -> u64 {
    let of_labels = labels.map_or(0, |labels| labels.teachers().len());
    let widths = teachers.map(|models| models.iter().map(|model| model.width()).collect());
    let widths: Vec<usize> = widths.unwrap_or_else(|| vec![0; of_labels]);
    let (entities, relations) = (data.entities(), data.relations());
    let mut bytes = cuda::Distil::memory(entities, relations, queries, &widths, teachers.is_none());
    if let (Some(labels), Some(policy)) = (labels, distill.selection.policy()) {
        let widths = inputs::widths(policy.state, labels);
        bytes += cuda::Network::memory(&widths, policy.hidden, queries);
        if policy.state == PolicyState::Query {
            // What it sees is there for it alone.
            bytes += 4 * (queries * widths.iter().sum::<usize>()) as u64;
        }
    }
    bytes
}

/// Bytes of what teaches the student, on the CPU.
fn of_teaching(data: &Data, distill: &Distill, labels: Option<&SoftLabels>, queries: usize) -> u64 {
    let mut bytes = 0;
    if let (Some(labels), Some(policy)) = (labels, distill.selection.policy()) {
        let widths = inputs::widths(policy.state, labels);
        bytes += Policy::<f32>::memory(&widths, policy.hidden, queries);
    }
    if let (Some(labels), true) = (labels, asks_validation(distill)) {
        let queries = (2 * data.valid.len()) as u64;
        bytes += SoftLabels::memory(queries, labels.teachers().len() as u64, data.entities() as u64);
    }
    bytes
}
