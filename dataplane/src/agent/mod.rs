//! The running agent: everything wired together, and what API, monitor and metrics ask.

pub mod config;

pub use config::{Config, Poll};

use crate::api::model::{ConntrackStatus, DatapathStatus, EndpointAdd, EndpointInfo, PoolStatus};
use crate::worker::WorkerShared;
use crossbeam::queue::ArrayQueue;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicU8;
use std::time::Instant;

/// A running agent.
pub struct Agent {
    /// What it was told, defaults filled in.
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
    /// Which optional events somebody listens to (`worker::INTEREST_*` bits).
    pub interest: Arc<AtomicU8>,
    /// When it started.
    pub started: Instant,
}

/// Why something could not be done, in words for the user.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Error(pub String);

impl Agent {
    /// Starts an agent; when this returns, workers run and restored endpoints are connected.
    pub async fn start(config: Config) -> Result<Arc<Agent>, Error> {
        let _ = config;
        todo!()
    }
    /// Connects a pod.
    pub async fn endpoint_add(&self, add: EndpointAdd) -> Result<EndpointInfo, Error> {
        let _ = add;
        todo!()
    }
    /// Disconnects a pod.
    pub async fn endpoint_delete(&self, id: u16) -> Result<(), Error> {
        let _ = id;
        todo!()
    }
    /// All local pods by ascending id.
    pub fn endpoints(&self) -> Vec<EndpointInfo> {
        todo!()
    }
    /// Address pools.
    pub fn ipam(&self) -> Vec<PoolStatus> {
        todo!()
    }
    /// Workers and links.
    pub fn datapath(&self) -> DatapathStatus {
        todo!()
    }
    /// Conntrack totals.
    pub fn conntrack(&self) -> ConntrackStatus {
        todo!()
    }
    /// Stops workers and control; pods, pins and conntrack stay for the next run.
    pub async fn stop(&self) {
        todo!()
    }
}

/// Removes everything that agents with this state-dir made; refuses while one runs.
pub async fn cleanup(state_dir: &Path, bpffs: &Path) -> Result<(), Error> {
    let _ = (state_dir, bpffs);
    todo!()
}
