//! Measurements over networks: every variant has namespaces of its own, wired alike, and all of
//! them stand at the same time, so that measuring in turns costs no rebuilding.
//!
//! What is built here is removed when dropped, also by a panic or Ctrl-C.

pub mod agent;
pub mod arena;
pub mod connections;
pub mod echo;
pub mod frames;
mod iperf3;
pub mod kernel;
pub mod latency;
pub mod nft;
pub mod raw;
pub mod requirements;
pub mod streams;
pub mod throughput;
pub mod traffic;

pub use arena::{Arena, Endpoint};
pub use traffic::Rate;

/// Sizes of what packets are judged and translated by.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Load {
    /// Services, one backend each.
    pub services: u32,
    /// Rules for the receiver, of which the last allows the traffic.
    pub rules: u32,
}
