//! AF_XDP sockets: frames that are owned by exactly one side at any time, rings, bounded wakeups
//! with errno kept, and a counter for every way a frame can be lost.
//!
//! A worker owns one [`Pool`] (the UMEM) and its [`Socket`]s; a [`Frame`] is a chunk of the pool
//! that the kernel does not hold. Nothing here blocks, allocates or locks once it is created.

mod assembly;
mod device;
mod error;
mod pool;
mod socket;
mod stats;
mod wakeup;

pub use device::{Waiter, queues};
pub use error::Error;
pub use pool::{Frame, Pool, largest_mtu};
pub use socket::{BURST, Batch, Mode, RING, Socket};
pub use stats::Stats;
pub use wakeup::Dead;
