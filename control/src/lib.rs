//! What should be: the etcd of every cluster, manifests and local pods become tables.
//!
//! `mesh` (etcd side) turns the stores of all clusters into [`update::Update`]s, `manifests` turns
//! files into [`objects::ObjectEvent`]s; `state` folds both with the local pods. `policy` is the one
//! model of all kinds of policies, `selectors` knows whom they match, `ipcache` who is behind an
//! address, `services` merges what all clusters offer. `compile` turns what changed into tables;
//! `agent` runs the loop and is what the binary talks to. Nothing here sees a packet.

pub mod admin;
pub mod agent;
pub mod compile;
mod directory;
pub mod filter;
pub mod heap;
mod intern;
pub mod ipcache;
pub mod labels;
pub mod manifests;
pub mod mesh;
pub mod model;
mod netmap;
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
