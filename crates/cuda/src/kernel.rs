//! The kernels' arguments: twins of the structures in `kernels.cu`, field by field.

use std::ffi::c_void;

use crate::memory::Address;

/// Elements that a block of an element-wise kernel has; as in `kernels.cu`.
pub(crate) const SPAN: usize = 4096;

/// Rows that a block of a kernel over short rows has; as in `kernels.cu`.
pub(crate) const ROWS: usize = 4;

/// A kernel: its name on a device, and what runs one block of it on the emulator.
#[derive(Clone, Copy)]
pub(crate) struct Kernel {
    #[cfg_attr(not(feature = "cuda"), expect(dead_code, reason = "only a device finds kernels by name"))]
    pub(crate) name: &'static str,
    pub(crate) emulated: unsafe extern "C" fn(*const c_void, u64),
}

/// The arguments of one kernel.
pub(crate) trait Arguments: Copy {
    const KERNEL: Kernel;
}

macro_rules! kernels {
    ($($(#[$doc:meta])* $Type:ident $name:literal $symbol:ident { $($field:ident: $kind:ty,)* })*) => {
        #[expect(unsafe_code, reason = "the emulator's kernels are C")]
        mod symbols {
            unsafe extern "C" {
                $(pub(super) fn $symbol(arguments: *const std::ffi::c_void, block: u64);)*
            }
        }
        $(
            $(#[$doc])*
            #[repr(C)]
            #[derive(Clone, Copy, Debug)]
            pub(crate) struct $Type { $(pub(crate) $field: $kind,)* }

            impl Arguments for $Type {
                const KERNEL: Kernel = Kernel { name: $name, emulated: symbols::$symbol };
            }
        )*
        /// All names, to find them when the kernels were compiled.
        #[cfg(feature = "cuda")]
        pub(crate) const NAMES: &[&str] = &[$($name),*];
    };
}

kernels! {
    /// A block per row.
    Gather "gather" dsom_gather { table: Address, rows: Address, into: Address, width: u64, }
    /// A block per number.
    AddRows "add_rows" dsom_add_rows {
        gradient: Address, used: Address, rows: Address, width: u64, first: u64,
    }
    /// A block per query.
    Compose "compose" dsom_compose {
        heads: Address, relations: Address, head_of: Address, relation_of: Address, vectors: Address, rank: u64,
    }
    /// A block per number.
    Flow "flow" dsom_flow {
        vector_gradient: Address, other: Address, own: Address, other_of: Address, own_of: Address,
        starts: Address, positions: Address, pairs: Address, gradient: Address, values: Address,
        rank: u64, weight: f64,
    }
    /// A block per [`SPAN`] elements.
    Adagrad "adagrad" dsom_adagrad {
        parameters: Address, squares: Address, gradient: Address, count: u64, rate: f32,
    }
    /// A block per number.
    AdagradRows "adagrad_rows" dsom_adagrad_rows {
        parameters: Address, squares: Address, gradient: Address, rows: Address, width: u64, rate: f32,
    }
    /// A block per query.
    CrossEntropy "cross_entropy" dsom_cross_entropy {
        scores: Address, starts: Address, tails: Address, losses: Address, entities: u64, stride: u64,
        scale: f64,
    }
    /// A block per query.
    Ranks "ranks" dsom_ranks {
        scores: Address, target_starts: Address, targets: Address, known_starts: Address, known: Address,
        of_targets: Address, above: Address, tied: Address, confidence: Address, finite: Address, entities: u64,
        stride: u64,
    }
    /// A block per row.
    Widen "widen" dsom_widen { from: Address, into: Address, width: u64, stride: u64, }
    /// A block per query.
    Distil "distil" dsom_distil {
        scores: Address, teachers: Address, starts: Address, tails: Address, groups: Address,
        group_starts: Address, target_starts: Address, targets: Address, trust: Address, weights: Address,
        of_tails: Address, tail_gradients: Address, of_targets: Address, shifts: Address, factors: Address,
        log_sums: Address, group_scores: Address, cross_entropies: Address, values: Address, log_sums_exp: Address,
        entities: u64, stride: u64, teacher_stride: u64, queries: u64, members: u64, objective: u64, mean: u64,
        tau: f64, alpha: f64, beta: f64, scale: f64, weight: f64,
    }
    /// A block per row.
    Activate "activate" dsom_activate { xs: Address, bias: Address, width: u64, activation: u64, }
    /// A block per row.
    Standardise "standardise" dsom_standardise {
        from: Address, rows: Address, into: Address, width: u64, from_stride: u64, into_stride: u64, kind: u64,
    }
    /// A block per [`SPAN`] elements.
    ReluGradient "relu_gradient" dsom_relu_gradient { gradient: Address, hidden: Address, count: u64, }
    /// A block per query.
    LogSoftmax "log_softmax" dsom_log_softmax { logits: Address, bias: Address, width: u64, }
    /// A block per [`SPAN`] elements.
    Adam "adam" dsom_adam {
        parameters: Address, means: Address, squares: Address, gradient: Address, count: u64,
        mean_decay: f32, mean_share: f32, square_decay: f32, square_share: f32, rate: f32, correction: f32,
        epsilon: f32,
    }
    /// A block per token.
    Embed "embed" dsom_embed {
        table: Address, rows: Address, positions: Address, places: Address, into: Address, width: u64,
    }
    /// A block per [`ROWS`] rows.
    Normalise "normalise" dsom_normalise {
        states: Address, bias: Address, weight: Address, shift: Address, into: Address,
        rows: u64, width: u64, epsilon: f32,
    }
    /// A block per [`ROWS`] rows.
    Softmax "softmax" dsom_softmax { scores: Address, rows: u64, width: u64, }
    /// A block per sequence.
    Means "means" dsom_means { states: Address, firsts: Address, ends: Address, into: Address, width: u64, }
}
