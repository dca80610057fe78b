//! Bytes ↔ types: addresses, checksums, the flow key, the one parser.
//!
//! Everything here is pure, allocates nothing and cannot panic on input.
#![no_std]

pub mod addr;
pub mod hub;
pub mod tuple;

pub use addr::{Address, Identity, MacAddr, Protocol};
pub use tuple::Tuple;
