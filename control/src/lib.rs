//! What should be: the etcd of every cluster, manifests and local pods become tables.
//!
//! `mesh` (etcd side) turns the stores of all clusters into [`update::Update`]s; `state` folds
//! them with manifests and local endpoints; `compile` and `services` turn the state into tables;
//! `agent` runs the loop and is what the binary talks to. Nothing here sees a packet.

pub mod agent;
pub mod compile;
pub mod filter;
pub mod ipcache;
pub mod labels;
pub mod manifests;
pub mod mesh;
pub mod model;
pub mod objects;
pub mod policy;
pub mod records;
pub mod selectors;
pub mod services;
pub mod state;
#[cfg(test)]
mod testing;
pub mod update;

pub use agent::{Control, ControlConfig, DropQuery, PolicyMode, StartError};
