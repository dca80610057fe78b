//! The per-node agent and its command line: wiring around `engine`, `tables`, `flow`, `xsk`,
//! `bpf` and `control`.

pub mod agent;
pub mod api;
pub mod cli;
pub mod ipam;
pub mod metrics;
pub mod monitor;
pub mod names;
pub mod net;
pub mod offload;
pub mod state;
pub mod worker;
