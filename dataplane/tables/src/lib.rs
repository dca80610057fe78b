//! What we were told: immutable snapshots of endpoints, identities, policy, services and routes.
//!
//! Control builds them through [`Publisher::edit`]; each worker owns a [`Reader`] and pins one
//! snapshot per burst. Every part is shared copy-on-write, so an edit costs what it touches.

pub mod difference;
pub mod endpoint;
pub mod hop;
pub mod ipcache;
pub mod maglev;
pub mod policy;
pub mod publish;
pub mod service;
mod shard;
mod sharded;
pub mod snapshot;

pub use difference::Difference;
pub use endpoint::{Endpoint, Endpoints};
pub use hop::{Hop, HopId, Hops, NextHop};
pub use ipcache::{IpCache, IpEntry};
pub use policy::{Decision, Direction, Match, Peers, Policy, PolicySpec, PortMatch, RuleEntry, RuleId};
pub use publish::{Changes, Publisher, Reader};
pub use service::{Backend, Frontend, Service, ServiceSpec, Services};
pub use snapshot::{Node, Snapshot, Uplink};
