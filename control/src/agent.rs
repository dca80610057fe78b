//! The running control plane: what the binary starts, feeds with local pods and asks for views.

mod run;
#[cfg(test)]
mod tests;
mod views;

use crate::compile::Compiler;
use crate::manifests;
use crate::mesh::{Mesh, MeshConfig, MeshError};
use crate::model::{Lexicon, LocalEndpoint};
use crate::objects::ObjectEvent;
use crate::state::{Own, State};
use ipnet::IpNet;
use run::Shared;
use std::collections::{BTreeMap, HashMap};
use std::io;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tables::{Direction, PolicySpec, Publisher, RuleId, Snapshot};
use tokio::sync::mpsc;
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
    /// After this long without its store, everything learned from a remote cluster is dropped; zero: never.
    pub cache_ttl: Duration,
    /// After this long without its store, backends of a remote cluster leave load balancing.
    pub service_grace: Duration,
    /// How long what this agent writes into the store outlives it.
    pub lease_ttl: Duration,
    /// File in which what was learned from the stores is kept for the next run; `None` = nowhere.
    pub learned: Option<PathBuf>,
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
    /// Its address.
    pub address: IpAddr,
    /// Protocol.
    pub proto: Protocol,
    /// Destination port, or the ICMP type.
    pub port: u16,
    /// The deny rule, if one matched.
    pub rule: Option<RuleId>,
}

/// The tables at one instant, with what they were compiled from.
#[derive(Clone, Debug)]
pub struct Compiled {
    /// As published.
    pub tables: Arc<Snapshot>,
    /// The different policies of local pods.
    pub policies: Vec<PolicySpec>,
    /// Position in `policies` by endpoint number.
    pub policy_of: BTreeMap<u16, usize>,
    /// What is called how.
    pub names: Lexicon,
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
    /// The mesh cannot be started with this configuration.
    #[error(transparent)]
    Mesh(#[from] MeshError),
    /// The directory of manifests cannot be watched.
    #[error("manifests: {}: {error}", path.display())]
    Manifests {
        /// The directory.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
}

/// Updates that may wait for the loop; a store that is faster is slowed down.
const QUEUE: usize = 4096;

/// The control plane of one node.
#[derive(Debug)]
pub struct Control(Arc<Shared>);

impl Control {
    /// Starts the mesh, the reading of manifests and the loop. Returns before remote data is in; see
    /// [`Control::wait_synced`]. The node must be in the publisher's tables already.
    pub async fn start(config: ControlConfig, publisher: Arc<Publisher>) -> Result<Arc<Control>, StartError> {
        check(&config)?;
        let dual_stack = publisher.current().node.dual_stack;
        let mut state = State::new(Own {
            cluster: config.cluster_name.clone(),
            cluster_id: config.cluster_id.into(),
            node: config.node_name.clone(),
            addresses: config.node_addresses.clone(),
            gateways: config.gateways,
            pod_cidrs: config.pod_cidrs,
            dual_stack,
        });
        config.endpoints.into_iter().for_each(|endpoint| state.upsert_endpoint(endpoint));
        let node = state.own_node();
        let (updates, updated) = mpsc::channel(QUEUE);
        let mesh = Mesh::start(
            MeshConfig {
                cluster_name: config.cluster_name.clone(),
                cluster_id: config.cluster_id,
                node_name: config.node_name,
                node_addresses: config.node_addresses,
                kvstore_config: config.kvstore_config,
                clustermesh_config: config.clustermesh_config,
                service_grace: config.service_grace,
                cache_ttl: config.cache_ttl,
                lease_ttl: config.lease_ttl,
                learned: config.learned,
            },
            updates,
        )
        .await?;
        mesh.set_node(node);
        let (objects, changed) = mpsc::channel(QUEUE);
        match config.manifests {
            Some(path) => manifests::watch(path.clone(), config.cluster_name, objects)
                .map_err(|error| StartError::Manifests { path, error })?,
            None => state.object(ObjectEvent::Synced),
        }
        let shared = Arc::new(Shared::new(state, Compiler::new(config.policy_mode), mesh, publisher));
        tokio::spawn(shared.clone().run(updated, changed));
        Ok(Arc::new(Control(shared)))
    }

    /// Adds or changes a local pod. It gets into the tables as soon as it has an identity: at
    /// once if it brings one from before a restart.
    pub async fn upsert_endpoint(&self, endpoint: LocalEndpoint) {
        self.0.core().state.upsert_endpoint(endpoint);
        self.0.kick();
    }

    /// Removes a local pod.
    pub async fn remove_endpoint(&self, id: u16) {
        let released = self.0.core().state.remove_endpoint(id);
        self.0.kick();
        if let Some(identity) = released {
            self.0.mesh.release_identity(identity).await;
        }
    }

    /// Waits until what an earlier run knew is in the tables, however long that takes.
    pub async fn wait_restored(&self) {
        self.wait(|control| control.core().state.restored).await;
    }

    /// Waits until the own store, the manifests and all reachable remote clusters are in the
    /// tables, or what an earlier run knew of them; false if that took longer than `limit`.
    pub async fn wait_synced(&self, limit: Duration) -> bool {
        tokio::time::timeout(limit, self.wait(Shared::synced)).await.is_ok()
    }

    async fn wait(&self, condition: impl Fn(&Shared) -> bool) {
        while !condition(&self.0) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Why a packet was dropped by policy, in words.
    pub fn explain(&self, drop: &DropQuery) -> String {
        let core = self.0.core();
        let text = core.compiler.explain(&core.state, drop);
        if drop.rule.is_some() || drop.peer != Identity::UNKNOWN {
            return text;
        }
        let (prefix, ipcache) = (drop.address.into(), &core.state.ipcache);
        match ipcache.claimed(prefix).map(|(owner, _)| owner).or_else(|| ipcache.node_of(prefix)) {
            Some(owner) => format!("{text}; {}", self.0.freshness(&core.state.own.cluster, &owner.cluster)),
            None => text,
        }
    }

    /// What a rule is called, `rule 2 of default/deny-x (ingressDeny)`.
    pub fn rule(&self, rule: RuleId) -> Option<String> {
        self.0.core().compiler.rules.describe(rule)
    }

    /// The tables with what they were compiled from.
    pub fn compiled(&self) -> Compiled {
        let core = self.0.core();
        let (mut policies, mut policy_of) = (Vec::new(), BTreeMap::new());
        let mut seen = HashMap::new();
        for (&id, published) in &core.compiler.endpoints {
            // Pods with the same labels share one.
            let position = *seen.entry(Arc::as_ptr(&published.policy)).or_insert_with(|| {
                policies.push(published.policy.spec.clone());
                policies.len() - 1
            });
            policy_of.insert(id, position);
        }
        let names = core.compiler.lexicon(&core.state);
        // The loop publishes with the lock held, so these are the tables made of all this.
        Compiled { tables: self.0.publisher.current(), policies, policy_of, names }
    }

    /// Stops the loop and leaves the mesh; records of this node stay until their lease ends.
    pub async fn shutdown(&self) {
        self.0.stop();
        self.0.mesh.shutdown().await;
    }
}

fn check(config: &ControlConfig) -> Result<(), StartError> {
    let invalid =
        |name, value: &str, expected| Err(StartError::Invalid { name, value: value.into(), expected });
    if config.node_name.is_empty() || config.node_name.contains(['/', '\0']) {
        return invalid("node name", &config.node_name, "must not be empty and not contain '/'");
    }
    if config.node_addresses.is_empty() {
        return invalid("node addresses", "", "at least one address that other nodes reach this node by");
    }
    Ok(())
}
