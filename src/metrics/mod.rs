//! The instance's numbers, in memory that every process maps: one table of
//! families, and for each process one block of words that it alone writes.
//!
//! ```text
//! region   header | names that came with experiments | their shares | blocks | board
//! block    header | cells of the families | cells of the names
//! ```
//! A worker slot owns two blocks, as it owns two rings: a successor counts on in
//! the block that its predecessor is not draining on, and sums never go back.
//! One writer a block makes every update a plain load and store; nothing locks.
//!
//! To add a metric: one row in [`FAMILIES`].

pub mod audit;
mod block;
pub mod board;
mod families;
pub mod histogram;
mod labels;
pub mod names;
pub mod pace;
pub mod render;
pub mod shares;
mod table;

pub use block::{Block, Life, State};
pub use families::*;
pub use labels::*;
pub use table::{LOGGER_BLOCK, MASTER_BLOCK, Table, TableFault, block_count, region_size, worker_block};
