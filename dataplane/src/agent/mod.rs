//! The running agent: everything wired together, and what API, monitor and metrics ask.

pub mod config;

mod cleanup;
mod conntrack;
mod endpoints;
mod instance;
mod node;
mod preflight;
mod start;
mod status;
mod watch;

pub use cleanup::cleanup;
pub use config::{Config, Poll};

use crate::api::model::{EndpointAdd, EndpointInfo, PoolStatus};
use crate::offload::{Manager, Offload};
use crate::worker::{WorkerShared, Workers};
use bpf::{Bpf, XdpMode};
use crossbeam::queue::ArrayQueue;
use endpoints::Endpoints;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::atomic::AtomicU8;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;
use tokio::task::AbortHandle;

/// A running agent.
pub struct Agent {
    /// What it was told.
    pub config: Config,
    /// Name of this node.
    pub node_name: String,
    /// Addresses of this node, IPv4 first.
    pub node_addresses: Vec<IpAddr>,
    /// Control: identities, policy, services, mesh.
    pub control: Arc<control::Control>,
    /// The tables.
    pub publisher: Arc<tables::Publisher>,
    /// Conntrack.
    pub flows: &'static flow::Table,
    /// What workers show of themselves.
    pub workers: Vec<Arc<WorkerShared>>,
    /// One queue of monitor events per worker.
    pub events: Vec<Arc<ArrayQueue<engine::Event>>>,
    /// Which events somebody listens to (`worker::INTEREST_*` bits).
    pub interest: Arc<AtomicU8>,
    /// The verdict cache.
    pub offload: Arc<Offload>,
    /// When it started.
    pub started: Instant,
    bpf: Arc<Bpf>,
    endpoints: Arc<Endpoints>,
    /// Where XDP runs on the hub and the uplinks, by interface name.
    xdp: Vec<(String, XdpMode)>,
    /// Stopped in this order.
    threads: Mutex<Option<(Workers, Manager)>>,
    tasks: Vec<AbortHandle>,
}

/// Why something could not be done, in words for the user: the thing, its value, and what would
/// be right.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Error(pub String);

impl Error {
    fn new(message: impl Into<String>) -> Error {
        Error(message.into())
    }
}

/// There is no endpoint with this number.
pub fn no_endpoint(id: u16) -> Error {
    Error::new(format!("endpoint {id}: no such endpoint: see `dataplane endpoint list`"))
}

/// Errors that say all themselves.
macro_rules! from {
    ($($error:ty),+ $(,)?) => {
        $(impl From<$error> for Error {
            fn from(error: $error) -> Error {
                Error(error.to_string())
            }
        })+
    };
}

from!(
    crate::net::Error,
    crate::state::StateError,
    crate::ipam::IpamError,
    crate::worker::Error,
    bpf::Error,
    control::agent::StartError,
);

impl Agent {
    /// Connects a pod: link, programs, addresses, identity. Waits a little for the identity.
    pub async fn endpoint_add(&self, add: EndpointAdd) -> Result<EndpointInfo, Error> {
        self.endpoints.add(add).await
    }

    /// Disconnects a pod.
    pub async fn endpoint_delete(&self, id: u16) -> Result<(), Error> {
        self.endpoints.delete(id).await
    }

    /// All local pods by ascending id.
    pub fn endpoints(&self) -> Vec<EndpointInfo> {
        self.endpoints.list()
    }

    /// Address pools.
    pub fn ipam(&self) -> Vec<PoolStatus> {
        self.endpoints.pools()
    }

    /// Names of the clusters that are known, by id.
    pub fn clusters(&self) -> BTreeMap<u32, String> {
        let remotes = self.control.status().remotes;
        let own = (self.config.cluster_id.into(), self.config.cluster_name.clone());
        remotes
            .into_iter()
            .filter_map(|remote| Some((remote.cluster_id?, remote.name)))
            .chain([own])
            .collect()
    }

    /// Stops workers and control. Pods, programs and connections stay for the next run.
    pub async fn stop(&self) {
        self.tasks.iter().for_each(AbortHandle::abort);
        if let Some((workers, manager)) = self.threads.lock().unwrap_or_else(PoisonError::into_inner).take() {
            workers.stop();
            drop(manager);
        }
        if let Err(error) = self.endpoints.remember_identities() {
            tracing::error!(%error, "identities of endpoints are not remembered");
        }
        self.control.shutdown().await;
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.tasks.iter().for_each(AbortHandle::abort);
    }
}

#[cfg(test)]
mod tests;
