//! The running control plane: what the binary starts, feeds with local pods and asks for views.

use crate::model::*;
use ipnet::IpNet;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tables::{Direction, Publisher, RuleId};
use wire::{Identity, Protocol};

/// What control has to know of the node it runs on.
#[derive(Clone, Debug)]
pub struct ControlConfig {
    /// Name of this cluster (`cilium-interop` 1.1).
    pub cluster_name: String,
    /// Number of this cluster, 1–255.
    pub cluster_id: u8,
    /// Name of this node, unique in its cluster.
    pub node_name: String,
    /// Addresses that other nodes reach this node by.
    pub node_addresses: Vec<IpAddr>,
    /// Gateway addresses of the pods on this node.
    pub gateways: Vec<IpAddr>,
    /// Pod CIDRs of this node.
    pub pod_cidrs: Vec<IpNet>,
    /// etcd client YAML of this cluster; `None` = in-memory store, single node.
    pub kvstore_config: Option<PathBuf>,
    /// Directory of etcd client YAMLs, one per remote cluster.
    pub clustermesh_config: Option<PathBuf>,
    /// Pods from before a restart. They are given here and not one by one later, because records
    /// of pods that control does not know are withdrawn from the store.
    pub endpoints: Vec<LocalEndpoint>,
    /// Directory of manifests.
    pub manifests: Option<PathBuf>,
    /// Which pods are in default deny.
    pub policy_mode: PolicyMode,
    /// After this long without its store, everything learned from a remote cluster is dropped.
    pub cache_ttl: Duration,
    /// After this long without its store, backends of a remote cluster leave load balancing.
    pub service_grace: Duration,
}

/// Which pods are in default deny (`cilium-interop` 5.7).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum PolicyMode {
    /// Those that a rule selects, in the directions it has.
    #[default]
    Default,
    /// All of them in both directions.
    Always,
    /// None: policy is not enforced.
    Never,
}

/// A policy drop that wants an explanation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DropQuery {
    /// Direction as seen from the endpoint.
    pub direction: Direction,
    /// The endpoint whose policy dropped.
    pub endpoint: u16,
    /// The other side.
    pub peer: Identity,
    /// Protocol.
    pub proto: Protocol,
    /// Destination port, or the ICMP type.
    pub port: u16,
    /// The deny rule, if one matched.
    pub rule: Option<RuleId>,
}

/// Why control did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A value of the configuration is wrong.
    #[error("{name}: {value:?}: {expected}")]
    Invalid {
        /// Which value.
        name: &'static str,
        /// What it is.
        value: String,
        /// What would be right.
        expected: &'static str,
    },
}

/// The control plane of one node.
#[derive(Debug)]
pub struct Control {}

impl Control {
    /// Reads the manifests, starts the mesh and the loop. Returns before remote data is in; see
    /// [`Control::wait_synced`]. The node must be in the publisher's tables already.
    pub async fn start(
        _config: ControlConfig,
        _publisher: Arc<Publisher>,
    ) -> Result<Arc<Control>, StartError> {
        todo!()
    }
    /// Adds or changes a local pod. It gets into the tables as soon as it has an identity: at
    /// once if it brings one from before a restart.
    pub async fn upsert_endpoint(&self, _endpoint: LocalEndpoint) {
        todo!()
    }
    /// Removes a local pod.
    pub async fn remove_endpoint(&self, _id: u16) {
        todo!()
    }
    /// What is known of a local pod.
    pub fn endpoint_status(&self, _id: u16) -> Option<EndpointStatus> {
        todo!()
    }
    /// Nodes of all clusters, this one first.
    pub fn nodes(&self) -> Vec<NodeView> {
        todo!()
    }
    /// All known identities, ascending.
    pub fn identities(&self) -> Vec<IdentityView> {
        todo!()
    }
    /// All service frontends by id.
    pub fn services(&self) -> Vec<ServiceView> {
        todo!()
    }
    /// Policies in force.
    pub fn policies(&self) -> Vec<PolicyView> {
        todo!()
    }
    /// Address → identity as published.
    pub fn ipcache(&self) -> Vec<IpcacheView> {
        todo!()
    }
    /// Stores, manifests, conflicts.
    pub fn status(&self) -> ControlStatus {
        todo!()
    }
    /// Waits until the own store, the manifests and all reachable remote clusters are in the
    /// tables; false if that took longer than `limit`.
    pub async fn wait_synced(&self, _limit: Duration) -> bool {
        todo!()
    }
    /// Why a packet was dropped by policy, in words.
    pub fn explain(&self, _drop: &DropQuery) -> String {
        todo!()
    }
    /// What a rule is called, `rule 2 of default/deny-x (ingressDeny)`.
    pub fn rule(&self, _rule: RuleId) -> Option<String> {
        todo!()
    }
    /// Stops the loop and leaves the mesh; records of this node stay until their lease ends.
    pub async fn shutdown(&self) {
        todo!()
    }
}
