//! Global services: the backends of all clusters merged under this cluster's frontends
//! (`cilium-interop` 4), and what this cluster exports.

use crate::labels::{CLUSTER, NAMESPACE};
use crate::objects::{Affinity, Readiness, Service, ServicePort, TargetPort};
use crate::policy::Peer;
use crate::policy::selector::Selector;
use crate::records;
use crate::state::{Name, State};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use tables::Frontend;
use wire::{Address, Protocol};

#[cfg(test)]
mod tests;

/// A backend of this cluster.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct LocalBackend {
    /// Address of the pod.
    pub address: IpAddr,
    /// Name of the service port it serves.
    pub port_name: String,
    /// Protocol.
    pub proto: Protocol,
    /// Port of the pod.
    pub port: u16,
    /// Whether it takes flows.
    pub state: Readiness,
}

/// A frontend with everything that can serve it.
#[derive(Clone, PartialEq, Debug)]
pub struct Merged {
    /// What clients connect to.
    pub frontend: Frontend,
    /// Backends, by address and port.
    pub backends: BTreeMap<(IpAddr, u16), MergedBackend>,
}

/// A backend of a frontend.
#[derive(Clone, PartialEq, Debug)]
pub struct MergedBackend {
    /// The cluster it is in.
    pub cluster: String,
    /// Ready or terminating.
    pub state: Readiness,
    /// New flows may be sent to it.
    pub selectable: bool,
}

/// The selector of a service as one of this cluster's pods; `None` if it has none.
pub fn pods(service: &Service, cluster: &str) -> Option<Arc<Peer>> {
    if service.selector.is_empty() {
        return None;
    }
    let scope =
        Selector::default().require("k8s", NAMESPACE, &service.namespace).require("k8s", CLUSTER, cluster);
    let selector =
        service.selector.iter().fold(scope, |selector, (key, value)| selector.require("k8s", key, value));
    Some(Arc::new(Peer::Labels(selector)))
}

/// The backends in this cluster: of the service's slices if there are any, else the pods that
/// match its selector (which must be in use in `state.selectors`).
pub fn local_backends(state: &State, name: &Name) -> BTreeSet<LocalBackend> {
    let Some(service) = state.services.get(name) else { return BTreeSet::new() };
    if let Some(slices) = state.slices.get(name) {
        let mut best: BTreeMap<(IpAddr, &str, Protocol, u16), Readiness> = BTreeMap::new();
        for slice in slices.values() {
            for (address, readiness) in &slice.endpoints {
                for (port_name, proto, port) in &slice.ports {
                    let entry = best.entry((*address, port_name, *proto, *port)).or_insert(*readiness);
                    *entry = (*entry).min(*readiness);
                }
            }
        }
        let backend = |((address, name, proto, port), state): ((_, &str, _, _), _)| LocalBackend {
            address,
            port_name: name.into(),
            proto,
            port,
            state,
        };
        return best.into_iter().map(backend).collect();
    }
    let Some(peer) = pods(service, &state.own.cluster) else { return BTreeSet::new() };
    let mut backends = BTreeSet::new();
    for identity in state.selectors.members(&peer).iter() {
        for (prefix, _, claim) in state.ipcache.of_identity(*identity) {
            for port in &service.ports {
                if let Some(number) = target(port, &claim.named_ports).filter(|_| is_host(&prefix)) {
                    backends.insert(LocalBackend {
                        address: prefix.addr(),
                        port_name: port.name.clone(),
                        proto: port.proto,
                        port: number,
                        state: Readiness::Ready,
                    });
                }
            }
        }
    }
    backends
}

fn is_host(prefix: &ipnet::IpNet) -> bool {
    prefix.prefix_len() == prefix.max_prefix_len()
}

/// The port a selected pod serves a service port on; `None` if it has no port of that name.
fn target(port: &ServicePort, named: &[records::NamedPort]) -> Option<u16> {
    match &port.target {
        TargetPort::Number(number) => Some(*number),
        TargetPort::Name(name) => {
            let proto = port.proto.to_string();
            named.iter().find(|named| named.name == *name && named.protocol == proto).map(|named| named.port)
        }
    }
}

/// Merges the backends of all clusters under the service's frontends. `stale` clusters are a last resort.
pub fn merge(
    service: &Service,
    cluster: &str,
    local: &BTreeSet<LocalBackend>,
    remote: &BTreeMap<String, records::Service>,
    stale: &BTreeSet<String>,
) -> Vec<Merged> {
    let mut merged = Vec::new();
    for (address, port) in
        service.cluster_ips.iter().flat_map(|ip| service.ports.iter().map(move |port| (ip, port)))
    {
        let fits = |ip: &IpAddr, proto: Protocol, name: &str| {
            let same_name = port.name.is_empty() || name.is_empty() || name == port.name;
            ip.is_ipv4() == address.is_ipv4() && proto == port.proto && same_name
        };
        let mut backends: BTreeMap<(IpAddr, u16), MergedBackend> = BTreeMap::new();
        let usable = local.iter().filter(|b| b.state != Readiness::NotReady);
        for b in usable.filter(|b| fits(&b.address, b.proto, &b.port_name)) {
            let new = MergedBackend { cluster: cluster.into(), state: b.state, selectable: false };
            let known = backends.entry((b.address, b.port)).or_insert(new);
            known.state = known.state.min(b.state);
        }
        for (cluster, record) in remote.iter().filter(|(_, record)| service.global && record.shared) {
            for (ip, ports) in &record.backends {
                let Ok(ip) = ip.parse::<IpAddr>() else { continue };
                for (name, remote) in ports {
                    let proto = crate::objects::protocol(&remote.protocol);
                    if proto.is_ok_and(|proto| fits(&ip, proto, name)) {
                        // A backend that this cluster has itself stays its own.
                        backends.entry((ip, remote.port)).or_insert_with(|| MergedBackend {
                            cluster: cluster.clone(),
                            state: Readiness::Ready,
                            selectable: false,
                        });
                    }
                }
            }
        }
        choose(&mut backends, service.affinity, cluster, stale);
        let frontend = Frontend { address: Address::from(*address), port: port.port, proto: port.proto };
        merged.push(Merged { frontend, backends });
    }
    merged
}

/// Marks the backends for new flows (4.4): active ones of the preferred side; failing these the
/// other side's, then terminating ones, then those of clusters that have been away for too long.
fn choose(
    backends: &mut BTreeMap<(IpAddr, u16), MergedBackend>,
    affinity: Affinity,
    cluster: &str,
    stale: &BTreeSet<String>,
) {
    let side = |backend: &MergedBackend| match affinity {
        Affinity::None => 0,
        Affinity::Local => u8::from(backend.cluster != cluster),
        Affinity::Remote => u8::from(backend.cluster == cluster),
    };
    let rank = |backend: &MergedBackend| {
        (stale.contains(&backend.cluster), backend.state != Readiness::Ready, side(backend))
    };
    let Some(best) = backends.values().map(rank).min() else { return };
    for backend in backends.values_mut() {
        backend.selectable = rank(backend) == best;
    }
}

/// What other clusters get to see of a service; `None` if it is not offered.
pub fn export(
    service: &Service,
    cluster: &str,
    cluster_id: u32,
    local: &BTreeSet<LocalBackend>,
) -> Option<records::Service> {
    if !service.global || !service.shared {
        return None;
    }
    let record = |proto: Protocol, port: u16| records::Port { protocol: proto.to_string(), port };
    let frontend = |ip: &IpAddr| {
        let ports = service.ports.iter().map(|port| (port.name.clone(), record(port.proto, port.port)));
        (ip.to_string(), ports.collect::<records::Ports>())
    };
    let mut backends: BTreeMap<String, records::Ports> = BTreeMap::new();
    for b in local.iter().filter(|b| b.state != Readiness::NotReady) {
        let ports = backends.entry(b.address.to_string()).or_default();
        ports.insert(b.port_name.clone(), record(b.proto, b.port));
    }
    Some(records::Service {
        cluster: cluster.into(),
        namespace: service.namespace.clone(),
        name: service.name.clone(),
        frontends: service.cluster_ips.iter().map(frontend).collect(),
        backends,
        labels: Some(service.labels.clone()),
        selector: Some(service.selector.clone()),
        include_external: true,
        shared: true,
        cluster_id,
        ..records::Service::default()
    })
}
