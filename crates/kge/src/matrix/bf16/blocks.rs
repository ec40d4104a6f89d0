//! Blocks of a product that fit the caches, and their distribution to the cores.
//!
//! The operand with fewer panels is packed once and shared by all cores. A task owns some panels of the other operand,
//! packs them itself while they are in its caches, and multiplies them with the whole shared operand, in chunks of the
//! depth: a panel of the right operand stays in the first-level cache while panels of the left operand pass by.
//!
//! Between chunks, a block of the product is stored to memory and loaded again into the kernel's sums. This is exact:
//! the sums run over the depth in one order, however the product is cut and whichever thread computes it.

use std::cell::Cell;
use std::ops::Range;

use rayon::prelude::*;

use super::pack::{Operand, OperandSide, PANEL, Tile};
use super::{Kernel, KernelSession};

/// Maximum number of tiles along the depth in a chunk; each takes 2 KiB of a panel.
const CHUNK: usize = 32;
/// Maximum number of panels that a task owns.
const OWN: usize = 8;
/// Number of values of the product that a task keeps in its second-level cache from chunk to chunk.
const HELD: usize = 1 << 17;

thread_local! {
    static SHARED: Cell<Vec<Tile>> = const { Cell::new(Vec::new()) };
    static OWNED: Cell<Vec<Tile>> = const { Cell::new(Vec::new()) };
}

/// Runs `work` with a buffer of `tiles` tiles. The thread keeps the buffer: fresh memory costs more than packing.
fn with_buffer<R>(
    kept: &'static std::thread::LocalKey<Cell<Vec<Tile>>>,
    tiles: usize,
    work: impl FnOnce(&mut [Tile]) -> R,
) -> R {
    let mut buffer = kept.take();
    if buffer.len() < tiles {
        buffer.resize(tiles, Tile::ZERO);
    }
    let result = work(&mut buffer[..tiles]);
    kept.set(buffer);
    result
}

#[derive(Clone, Copy)]
pub(super) struct BlockTarget {
    pub(super) values: *mut f32,
    pub(super) rows: usize,
    pub(super) columns: usize,
    /// True if the product is added to the target's values.
    pub(super) keep: bool,
}

/// The depth, cut into chunks of nearly equal size.
#[derive(Clone, Copy)]
struct Depth {
    tiles: usize,
    chunks: usize,
}

impl Depth {
    fn new(tiles: usize) -> Self {
        Depth { tiles, chunks: tiles.div_ceil(CHUNK) }
    }

    fn chunk(self, i: usize) -> Range<usize> {
        i * self.tiles / self.chunks..(i + 1) * self.tiles / self.chunks
    }
}

/// Computes `target += left · right` (or `=`) on the pool's threads, or on the calling thread if `threads` is 1.
pub(super) fn product(
    kernel: Kernel,
    threads: usize,
    target: BlockTarget,
    left: Operand<'_>,
    right: Operand<'_>,
) {
    let (own, shared) = if left.panels() >= right.panels() { (left, right) } else { (right, left) };
    let depth = Depth::new(own.depth_tiles());
    with_buffer(&SHARED, 2 * depth.tiles * shared.panels(), |tiles| {
        pack_shared(kernel, threads, &shared, depth, tiles);
        let width = own.panels().div_ceil(threads).min(OWN);
        let task = ProductTask { kernel, target, own, shared, depth, tiles };
        for_each(threads, (0..own.panels()).step_by(width).collect(), |start| {
            task.run(start..own.panels().min(start + width));
        });
    });
}

/// Packs the shared operand chunk by chunk, and each chunk panel by panel.
fn pack_shared(kernel: Kernel, threads: usize, shared: &Operand<'_>, depth: Depth, mut tiles: &mut [Tile]) {
    let mut parts = Vec::new();
    for chunk in (0..depth.chunks).map(|i| depth.chunk(i)) {
        for start in (0..shared.panels()).step_by(OWN) {
            let panels = start..shared.panels().min(start + OWN);
            let (first, rest) = tiles.split_at_mut(2 * panels.len() * chunk.len());
            parts.push((panels, chunk.clone(), first));
            tiles = rest;
        }
    }
    for_each(threads, parts, |(panels, chunk, tiles)| kernel.pack(shared, panels, chunk, tiles));
}

fn for_each<T: Send>(threads: usize, items: Vec<T>, work: impl Fn(T) + Sync + Send) {
    match threads {
        1 => items.into_iter().for_each(work),
        _ => items.into_par_iter().with_max_len(1).for_each(work),
    }
}

struct ProductTask<'a> {
    kernel: Kernel,
    target: BlockTarget,
    own: Operand<'a>,
    shared: Operand<'a>,
    depth: Depth,
    /// The shared operand, packed.
    tiles: &'a [Tile],
}

#[expect(unsafe_code, reason = "tasks write to different blocks of one matrix")]
// SAFETY: tasks own different panels, and therefore write to different rows or columns of the target.
unsafe impl Sync for ProductTask<'_> {}

impl ProductTask<'_> {
    /// Computes the blocks of the panels `own` with all panels of the shared operand.
    fn run(&self, own: Range<usize>) {
        let most = (HELD / (own.len() * PANEL * PANEL)).max(1);
        // With several groups, the panels packed for the first group serve the others. Groups have nearly equal size,
        // so that none is too small for the panels that it reads again.
        let groups = self.shared.panels().div_ceil(most);
        let (group, kept) = (self.shared.panels().div_ceil(groups), groups > 1);
        let deepest = if kept { self.depth.tiles } else { self.depth.tiles.div_ceil(self.depth.chunks) };
        with_buffer(&OWNED, 2 * deepest * own.len(), |packed| {
            let session = self.kernel.begin();
            for start in (0..self.shared.panels()).step_by(group) {
                let group = start..self.shared.panels().min(start + group);
                for chunk in (0..self.depth.chunks).map(|i| self.depth.chunk(i)) {
                    let from = if kept { 2 * chunk.start * own.len() } else { 0 };
                    let packed = &mut packed[from..from + 2 * chunk.len() * own.len()];
                    if start == 0 {
                        self.kernel.pack(&self.own, own.clone(), chunk.clone(), packed);
                    }
                    self.blocks(&session, &chunk, (own.start, packed), group.clone());
                }
            }
        });
    }

    /// Adds one chunk of the depth to the blocks of `own` panels, numbered from `first`, with some shared ones.
    fn blocks(
        &self,
        session: &KernelSession,
        chunk: &Range<usize>,
        own: (usize, &[Tile]),
        shared: Range<usize>,
    ) {
        let (size, (first, own)) = (2 * chunk.len(), own);
        let start = 2 * chunk.start * self.shared.panels();
        let shared = (shared.start, &self.tiles[start + shared.start * size..start + shared.end * size]);
        let (left, right) = match self.own.side {
            OperandSide::Left => ((first, own), shared),
            OperandSide::Right => (shared, (first, own)),
        };
        let fresh = chunk.start == 0 && !self.target.keep;
        for (i, a) in left.1.chunks_exact(size).enumerate() {
            for (j, b) in right.1.chunks_exact(size).enumerate() {
                self.block(session, (left.0 + i, a), (right.0 + j, b), fresh);
            }
        }
    }

    /// Computes the block of one panel of each operand.
    #[expect(unsafe_code, reason = "writes to a block of the product")]
    fn block(
        &self,
        session: &KernelSession,
        (i, a): (usize, &[Tile]),
        (j, b): (usize, &[Tile]),
        fresh: bool,
    ) {
        let BlockTarget { values, rows, columns, .. } = self.target;
        let (height, width) = ((rows - i * PANEL).min(PANEL), (columns - j * PANEL).min(PANEL));
        let c = values.wrapping_add(i * PANEL * columns + j * PANEL);
        if (height, width) == (PANEL, PANEL) {
            // SAFETY: 32 x 32 values from row `32 i` and column `32 j` on lie in the matrix; only this task uses them.
            unsafe { session.block(a, b, fresh, c, columns) };
            return;
        }
        let mut block = [[0f32; PANEL]; PANEL];
        let row = |i: usize| {
            // SAFETY: `height` rows of `width` values lie in the matrix, and only this task uses them.
            unsafe { std::slice::from_raw_parts_mut(c.wrapping_add(i * columns), width) }
        };
        if !fresh {
            block.iter_mut().enumerate().take(height).for_each(|(i, of)| of[..width].copy_from_slice(row(i)));
        }
        // SAFETY: the block is 32 x 32 values of our own.
        unsafe { session.block(a, b, fresh, block.as_mut_ptr().cast(), PANEL) };
        block.iter().enumerate().take(height).for_each(|(i, of)| row(i).copy_from_slice(&of[..width]));
    }
}
