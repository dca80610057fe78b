//! Local pods: connecting, disconnecting, remembering them.

use super::{Error, conntrack};
use crate::api::model::{EndpointAdd, EndpointInfo, PoolStatus};
use crate::ipam::Ipam;
use crate::net::links::Links;
use crate::net::netns::Netns;
use crate::net::pod::{self, PodLink};
use crate::offload::Offload;
use crate::state::{Endpoint, State, StateDir};
use bpf::Bpf;
use control::Control;
use control::model::{EndpointStatus, LocalEndpoint};
use flow::Table;
use ipnet::IpNet;
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use wire::MacAddr;

mod request;

/// How long `endpoint add` waits until the pod has its identity and its policy; it gets them later
/// if that takes longer.
const READY_WAIT: Duration = Duration::from_secs(3);
/// Pause between two looks at it.
const READY_POLL: Duration = Duration::from_millis(10);

/// All pods of this node.
pub(super) struct Endpoints {
    pub(super) links: Links,
    pub(super) bpf: Arc<Bpf>,
    pub(super) control: Arc<Control>,
    pub(super) flows: &'static Table,
    pub(super) offload: Arc<Offload>,
    /// Start of the alias of every link of this agent.
    pub(super) alias: String,
    /// MTU of pods in bytes.
    pub(super) mtu: u16,
    /// Largest packet in bytes that pods leave to others to segment.
    pub(super) gso: u32,
    /// Pod CIDRs with their gateways.
    pub(super) pods: Vec<(IpNet, IpAddr)>,
    pub(super) dir: StateDir,
    /// Held while an endpoint is added or deleted: one at a time.
    pub(super) changing: tokio::sync::Mutex<()>,
    pub(super) known: Mutex<Known>,
}

/// What is known of the pods.
pub(super) struct Known {
    pub(super) state: State,
    pub(super) ipam: Ipam,
    /// Endpoints whose interface is gone.
    pub(super) gone: BTreeSet<u16>,
}

impl Endpoints {
    /// Connects a pod; either all of it is done or nothing.
    pub(super) async fn add(&self, add: EndpointAdd) -> Result<EndpointInfo, Error> {
        request::check(&add)?;
        let _changing = self.changing.lock().await;
        let netns = Netns::open(&add.netns)?;
        if netns.is_current()? {
            return Err(Error::new(format!("network namespace {}: is the agent's own", add.netns)));
        }
        let (mut endpoint, mac) = self.reserve(add)?;
        if let Err(error) = self.connect(&netns, &mut endpoint, mac).await {
            self.known().ipam.release(endpoint.pod.id);
            return Err(error);
        }
        let pod = &endpoint.pod;
        tracing::info!(id = pod.id, pod = pod_name(pod), addresses = ?pod.addresses, "endpoint added");
        self.control.upsert_endpoint(pod.clone()).await;
        let deadline = Instant::now() + READY_WAIT;
        while Instant::now() < deadline && !self.ready(pod.id) {
            tokio::time::sleep(READY_POLL).await;
        }
        Ok(self.info(&endpoint, false))
    }

    /// Disconnects a pod.
    pub(super) async fn delete(&self, id: u16) -> Result<(), Error> {
        let _changing = self.changing.lock().await;
        let endpoint = self.known().state.endpoints.iter().find(|e| e.pod.id == id).cloned();
        let Some(Endpoint { pod, host_ifname, .. }) = endpoint else {
            return Err(super::no_endpoint(id));
        };
        self.control.remove_endpoint(id).await;
        self.disconnect(pod.ifindex, &host_ifname).await?;
        let (flows, offload, addresses) = (self.flows, self.offload.clone(), pod.addresses.clone());
        let forget = move || {
            conntrack::forget(flows, &addresses);
            offload.forget_removed();
        };
        tokio::task::spawn_blocking(forget).await.map_err(|e| Error::new(format!("endpoint {id}: {e}")))?;
        let mut known = self.known();
        known.state.endpoints.retain(|endpoint| endpoint.pod.id != id);
        known.ipam.release(id);
        known.gone.remove(&id);
        self.dir.save(&known.state)?;
        tracing::info!(id, pod = pod_name(&pod), "endpoint deleted");
        Ok(())
    }

    /// Takes note that a link is gone, perhaps with the network namespace of its pod: the endpoint
    /// leaves the tables but stays listed.
    pub(super) async fn link_gone(&self, ifindex: u32) -> Result<(), Error> {
        let _changing = self.changing.lock().await;
        let pod =
            self.known().state.endpoints.iter().find(|e| e.pod.ifindex == ifindex).map(|e| e.pod.clone());
        let Some(pod) = pod else { return Ok(()) };
        tracing::warn!(id = pod.id, pod = pod_name(&pod), "the pod's interface is gone");
        self.known().gone.insert(pod.id);
        self.control.remove_endpoint(pod.id).await;
        Ok(self.bpf.detach_pod(ifindex)?)
    }

    /// Remembers the identities that pods have got since the last call.
    pub(super) fn remember_identities(&self) -> Result<(), Error> {
        let mut known = self.known();
        let mut changed = false;
        for Endpoint { pod, .. } in &mut known.state.endpoints {
            let identity = self.identity(pod.id).or(pod.identity);
            changed |= std::mem::replace(&mut pod.identity, identity) != identity;
        }
        if changed {
            self.dir.save(&known.state)?;
        }
        Ok(())
    }

    /// All endpoints by ascending id.
    pub(super) fn list(&self) -> Vec<EndpointInfo> {
        let known = self.known();
        let endpoints = known.state.endpoints.iter();
        let mut list: Vec<_> = endpoints.map(|e| self.info(e, known.gone.contains(&e.pod.id))).collect();
        list.sort_by_key(|info| info.endpoint.id);
        list
    }

    /// Address pools and how full they are.
    pub(super) fn pools(&self) -> Vec<PoolStatus> {
        let count = |n: u128| u64::try_from(n).unwrap_or(u64::MAX);
        let pool = |(cidr, used, all): (IpNet, u128, u128)| PoolStatus {
            cidr: cidr.to_string(),
            allocated: count(used),
            capacity: count(all),
        };
        self.known().ipam.usage().map(pool).collect()
    }

    /// Gives a new pod its number, addresses and names.
    fn reserve(&self, add: EndpointAdd) -> Result<(Endpoint, MacAddr), Error> {
        let mut known = self.known();
        let endpoints = &known.state.endpoints;
        let same = |e: &&Endpoint| e.pod.namespace == add.namespace && e.pod.name == add.name;
        if let Some(other) = endpoints.iter().find(same) {
            let (pod, id) = (pod_name(&other.pod), other.pod.id);
            return Err(Error::new(format!(
                "pod {pod}: is endpoint {id} already: `dataplane endpoint delete {id}` first"
            )));
        }
        let taken: BTreeSet<u16> = endpoints.iter().map(|e| e.pod.id).collect();
        let id = free_id(&taken, rand::random())
            .ok_or_else(|| Error::new("endpoints: all 65535 numbers are in use"))?;
        let addresses = known.ipam.allocate(id, &add.addresses)?;
        // The first byte says "locally administered" and is neither the gateway's nor a mark.
        let [a, b, c, d, e] = rand::random();
        let mac = MacAddr([0x02, a, b, c, d, e]);
        let pod = LocalEndpoint {
            id,
            namespace: add.namespace,
            name: add.name,
            addresses,
            labels: add.labels,
            service_account: add.service_account,
            named_ports: add.named_ports,
            ifindex: 0,
            mac: mac.to_string(),
            identity: None,
        };
        let host_ifname = format!("dp{id}");
        Ok((Endpoint { pod, netns: add.netns, ifname: add.ifname, host_ifname }, mac))
    }

    /// Makes the pod's link and remembers it; undoes what was done if something fails.
    async fn connect(&self, netns: &Netns, endpoint: &mut Endpoint, mac: MacAddr) -> Result<(), Error> {
        let link = self.link(endpoint, mac);
        let ifindex = pod::create(&self.links, netns, &link).await?;
        endpoint.pod.ifindex = ifindex;
        let connected = async {
            // Before the link is up: not one packet of the pod may pass by the programs.
            self.bpf.attach_pod(ifindex)?;
            pod::activate(&self.links, netns, ifindex, &link).await?;
            let mut known = self.known();
            known.state.endpoints.push(endpoint.clone());
            self.dir.save(&known.state).inspect_err(|_| drop(known.state.endpoints.pop()))?;
            Ok(())
        };
        let result: Result<(), Error> = connected.await;
        if result.is_err()
            && let Err(error) = self.disconnect(ifindex, &endpoint.host_ifname).await
        {
            tracing::error!(%error, link = endpoint.host_ifname, "cannot undo a failed endpoint add");
        }
        result
    }

    /// Deletes a pod's link, then its programs: the other way round the pod would talk to the
    /// host's stack meanwhile.
    async fn disconnect(&self, ifindex: u32, host_ifname: &str) -> Result<(), Error> {
        if self.links.by_name(host_ifname).await?.is_some_and(|link| link.index == ifindex) {
            self.links.delete(ifindex).await?;
        }
        Ok(self.bpf.detach_pod(ifindex)?)
    }

    fn link(&self, endpoint: &Endpoint, mac: MacAddr) -> PodLink {
        let pod = &endpoint.pod;
        let gateway =
            |ip: &IpAddr| self.pods.iter().find(|(cidr, _)| cidr.contains(ip)).map(|&(_, via)| (*ip, via));
        PodLink {
            host_ifname: endpoint.host_ifname.clone(),
            alias: request::alias(&self.alias, &pod_name(pod)),
            ifname: endpoint.ifname.clone(),
            mac,
            mtu: self.mtu.into(),
            gso: self.gso,
            addresses: pod.addresses.iter().filter_map(gateway).collect(),
        }
    }

    fn info(&self, endpoint: &Endpoint, gone: bool) -> EndpointInfo {
        let mut pod = endpoint.pod.clone();
        let status = match self.control.endpoint_status(pod.id) {
            Some(status) if !gone => status,
            _ => EndpointStatus {
                id: pod.id,
                identity: pod.identity,
                labels: Vec::new(),
                ingress_enforced: false,
                egress_enforced: false,
                state: "not-ready".into(),
                error: gone
                    .then(|| format!("interface {} is gone: delete the endpoint", endpoint.host_ifname)),
            },
        };
        pod.identity = status.identity;
        EndpointInfo {
            endpoint: pod,
            netns: endpoint.netns.clone(),
            ifname: endpoint.ifname.clone(),
            host_ifname: endpoint.host_ifname.clone(),
            status,
        }
    }

    fn ready(&self, id: u16) -> bool {
        self.control.endpoint_status(id).is_some_and(|status| status.state == "ready")
    }

    fn identity(&self, id: u16) -> Option<u32> {
        self.control.endpoint_status(id)?.identity
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Connects the pods of the run before again and returns them; those whose interface is gone only
/// stay listed.
pub(super) async fn restore(
    links: &Links,
    bpf: &Bpf,
    known: &mut Known,
) -> Result<Vec<LocalEndpoint>, Error> {
    let mut pods = Vec::new();
    for Endpoint { pod, host_ifname, .. } in &known.state.endpoints {
        known.ipam.claim(pod.id, &pod.addresses).map_err(|error| {
            let what = format!("endpoint {} of the run before: {error}", pod.id);
            Error::new(format!("{what}: use the same --pod-cidr, or `dataplane cleanup` first"))
        })?;
        if links.by_name(host_ifname).await?.is_some_and(|link| link.index == pod.ifindex) {
            bpf.attach_pod(pod.ifindex)?;
            pods.push(pod.clone());
        } else {
            tracing::warn!(id = pod.id, pod = pod_name(pod), "the pod's interface is gone");
            known.gone.insert(pod.id);
        }
    }
    Ok(pods)
}

/// Removes pods' links that no state knows of, such as one whose agent was killed while it made it.
/// Nothing would ever pass them, and their pods could not be connected again.
pub(super) async fn remove_unknown(
    links: &Links,
    bpf: &Bpf,
    alias: &str,
    state: &State,
) -> Result<(), Error> {
    let of_pod = format!("{alias} ");
    let known: BTreeSet<u32> = state.endpoints.iter().map(|endpoint| endpoint.pod.ifindex).collect();
    for link in links.all().await? {
        let ours = link.alias.as_deref().is_some_and(|alias| alias.starts_with(&of_pod));
        if ours && !known.contains(&link.index) {
            tracing::warn!(link = link.name, alias = link.alias, "removed a link of no known endpoint");
            links.delete(link.index).await?;
            bpf.detach_pod(link.index)?;
        }
    }
    Ok(())
}

fn pod_name(pod: &LocalEndpoint) -> String {
    format!("{}/{}", pod.namespace, pod.name)
}

/// A number that is not taken: the next one from a random place on, so that numbers are not
/// reused while somebody still remembers what they were.
fn free_id(taken: &BTreeSet<u16>, from: u16) -> Option<u16> {
    (from..=u16::MAX).chain(1..from).find(|id| *id != 0 && !taken.contains(id))
}
