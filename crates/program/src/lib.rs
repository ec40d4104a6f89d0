//! The parts that make a stage a program: its arguments, its log, progress, tables, and the device flag.

mod args;
mod device;
mod printable;
mod progress;
mod shard;
mod table;

pub use args::{Common, exit, main, print_line};
pub use device::Device;
pub use printable::printable;
pub use progress::{Progress, init_logging};
pub use shard::{Shard, Shards, Sharing};
pub use table::table;
