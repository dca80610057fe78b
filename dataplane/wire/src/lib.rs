//! Bytes ↔ types: addresses, checksums, the flow key, the one parser.
//!
//! Everything here is pure, allocates nothing (but for `craft`, which only tests and benches
//! use) and cannot panic on input.
#![no_std]

#[cfg(any(test, feature = "craft"))]
extern crate alloc;

pub mod addr;
pub mod checksum;
#[cfg(any(test, feature = "craft"))]
pub mod craft;
mod glimpse;
pub mod hub;
pub mod parse;
pub mod plain;
mod prefetch;
pub mod quoted;
pub mod tuple;

pub use addr::{Address, Identity, MacAddr, Protocol};
pub use glimpse::glimpse;
pub use parse::{Fragment, L4, Malformed, Network, Packet, parse, parse_split};
pub use plain::{Plain, plain};
pub use prefetch::prefetch;
pub use quoted::Quoted;
pub use tuple::Tuple;
