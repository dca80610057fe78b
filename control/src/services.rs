//! Global services: the backends of all clusters merged under this cluster's frontends
//! (`cilium-interop` 4), and what this cluster exports.

use crate::labels::{CLUSTER, NAMESPACE};
use crate::objects::{Readiness, Service, ServicePort, SliceEndpoint, TargetPort};
use crate::policy::Peer;
use crate::policy::selector::Selector;
use crate::records;
use crate::state::{Name, State};
use shift::Shift;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;
use tables::Frontend;
use wire::{Address, Protocol};

pub mod catalog;
pub mod shift;

mod shares;
#[cfg(test)]
mod tests;
mod view;

/// A backend of this cluster.
#[derive(Clone, PartialEq, Debug)]
pub struct LocalBackend {
    /// Address of the pod.
    pub address: IpAddr,
    /// Name of the service port it serves.
    pub port_name: String,
    /// Protocol.
    pub proto: Protocol,
    /// Port of the pod.
    pub port: u16,
    /// Whether it takes flows, and what its slice says of it.
    pub endpoint: SliceEndpoint,
}

/// A frontend with everything that can serve it.
#[derive(Clone, PartialEq, Debug)]
pub struct Merged {
    /// What clients connect to.
    pub frontend: Frontend,
    /// What can serve it.
    pub backends: Backends,
    /// Which clusters do, and since when.
    pub shift: Shift,
}

/// Backends by address and port.
pub type Backends = BTreeMap<(IpAddr, u16), MergedBackend>;

/// A backend of a frontend.
#[derive(Clone, PartialEq, Debug)]
pub struct MergedBackend {
    /// The cluster it is in.
    pub cluster: Arc<str>,
    /// Ready or terminating.
    pub state: Readiness,
    /// Its cluster has been away for too long: the last resort.
    pub quarantined: bool,
    /// It is of the side that new flows should go to.
    pub preferred: bool,
    /// Parts of a million of the new flows; 0 keeps only the flows it has.
    pub weight: u32,
}

/// What decides who serves a service.
#[derive(Clone, Copy, Debug)]
pub struct Sources<'a> {
    /// The service as this cluster has it.
    pub service: &'a Service,
    /// Name of the own cluster.
    pub own: &'a str,
    /// Its backends.
    pub local: &'a [LocalBackend],
    /// What other clusters export under this name.
    pub remote: &'a BTreeMap<String, records::Service>,
    /// Clusters that are a last resort.
    pub stale: &'a BTreeSet<String>,
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

/// The backends in this cluster, in order: of the service's slices if there are any, else the pods
/// that match its selector (which must be in use in `state.selectors`).
pub fn local_backends(state: &State, name: &Name) -> Vec<LocalBackend> {
    let Some(service) = state.services.get(name) else { return Vec::new() };
    let mut best: BTreeMap<(IpAddr, &str, Protocol, u16), SliceEndpoint> = BTreeMap::new();
    if let Some(slices) = state.slices.get(name) {
        for slice in slices.values() {
            for (address, endpoint) in &slice.endpoints {
                for (port_name, proto, port) in &slice.ports {
                    let known =
                        best.entry((*address, port_name, *proto, *port)).or_insert_with(|| endpoint.clone());
                    known.state = known.state.min(endpoint.state);
                }
            }
        }
    } else if let Some(peer) = pods(service, &state.own.cluster) {
        let identities = state.selectors.members(&peer);
        let claims = identities.iter().flat_map(|identity| state.ipcache.of_identity(*identity));
        for (prefix, named) in claims.filter(|(prefix, _)| prefix.prefix_len() == prefix.max_prefix_len()) {
            for port in &service.ports {
                if let Some(number) = target(port, named) {
                    let endpoint = SliceEndpoint { state: Readiness::Ready, hostname: None, zone: None };
                    best.insert((prefix.addr(), &port.name, port.proto, number), endpoint);
                }
            }
        }
    }
    let backend = |((address, name, proto, port), endpoint): ((_, &str, _, _), _)| LocalBackend {
        address,
        port_name: name.into(),
        proto,
        port,
        endpoint,
    };
    best.into_iter().map(backend).collect()
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

/// Merges the backends of all clusters under the service's frontends. `old` is what came of it the
/// last time: shifts go on from there.
pub fn merge(sources: &Sources<'_>, old: &[Merged], now: Instant) -> Vec<Merged> {
    let service = sources.service;
    let fronts = service.cluster_ips.iter().flat_map(|ip| service.ports.iter().map(move |port| (ip, port)));
    let merged = fronts.map(|(address, port)| {
        let frontend = Frontend { address: Address::from(*address), port: port.port, proto: port.proto };
        let mut backends = candidates(sources, frontend.address.is_v4(), port);
        let ready = |backend: &&MergedBackend| backend.state == Readiness::Ready && !backend.quarantined;
        let serving = backends.values().filter(ready).map(|backend| backend.cluster.clone()).collect();
        let before = old.iter().find(|old| old.frontend == frontend).map(|old| &old.shift);
        let shift = before.unwrap_or(&Shift::default()).advance(&serving, service.mesh.shift, now);
        let rising = |cluster: &str| shift.progress(cluster, now);
        let rules = shares::Rules { own: sources.own, mesh: &service.mesh, rising: &rising };
        shares::divide(&mut backends, &rules);
        Merged { frontend, backends, shift }
    });
    merged.collect()
}

/// All that can serve a port over one address family (4.3); nobody has a weight yet.
fn candidates(sources: &Sources<'_>, ipv4: bool, port: &ServicePort) -> Backends {
    let fits = |ip: &IpAddr, proto: Protocol, name: &str| {
        let same_name = port.name.is_empty() || name.is_empty() || name == port.name;
        Address::from(*ip).is_v4() == ipv4 && proto == port.proto && same_name
    };
    let new = |cluster: &Arc<str>, state| MergedBackend {
        cluster: cluster.clone(),
        state,
        quarantined: sources.stale.contains(&**cluster),
        preferred: false,
        weight: 0,
    };
    let mut backends = Backends::new();
    let own = Arc::from(sources.own);
    let usable = sources.local.iter().filter(|b| b.endpoint.state != Readiness::NotReady);
    for b in usable.filter(|b| fits(&b.address, b.proto, &b.port_name)) {
        let known = backends.entry((b.address, b.port)).or_insert_with(|| new(&own, b.endpoint.state));
        known.state = known.state.min(b.endpoint.state);
    }
    let global = sources.service.mesh.global;
    for (cluster, record) in sources.remote.iter().filter(|(_, record)| global && record.shared) {
        let cluster = Arc::from(&**cluster);
        for (ip, name, proto, number) in remote_backends(record) {
            if fits(&ip, proto, name) {
                // A backend that this cluster has itself stays its own.
                backends.entry((ip, number)).or_insert_with(|| new(&cluster, Readiness::Ready));
            }
        }
    }
    backends
}

/// The backends of another cluster: address, port name, protocol, port.
fn remote_backends(record: &records::Service) -> impl Iterator<Item = (IpAddr, &str, Protocol, u16)> {
    let address = |ip: &str| Some(ip.parse::<IpAddr>().ok()?.to_canonical());
    let addresses = record.backends.iter().filter_map(move |(ip, ports)| Some((address(ip)?, ports)));
    addresses.flat_map(|(ip, ports)| {
        ports.iter().filter_map(move |(name, port)| {
            Some((ip, name.as_str(), crate::objects::protocol(&port.protocol).ok()?, port.port))
        })
    })
}

/// What other clusters get to see of a service; `None` if it is not offered.
pub fn export(
    service: &Service,
    cluster: &str,
    cluster_id: u32,
    local: &[LocalBackend],
) -> Option<records::Service> {
    if !service.mesh.shared {
        return None;
    }
    let record = |proto: Protocol, port: u16| records::Port { protocol: proto.to_string(), port };
    let frontend = |ip: &IpAddr| {
        let ports = service.ports.iter().map(|port| (port.name.clone(), record(port.proto, port.port)));
        (ip.to_string(), ports.collect::<records::Ports>())
    };
    let mut exported = records::Service {
        cluster: cluster.into(),
        namespace: service.namespace.clone(),
        name: service.name.clone(),
        frontends: service.cluster_ips.iter().map(frontend).collect(),
        labels: Some(service.labels.clone()),
        selector: Some(service.selector.clone()),
        include_external: true,
        shared: true,
        cluster_id,
        ..records::Service::default()
    };
    for b in local.iter().filter(|b| b.endpoint.state != Readiness::NotReady) {
        let address = b.address.to_string();
        let SliceEndpoint { hostname, zone, .. } = b.endpoint.clone();
        exported.hostnames.extend(hostname.map(|hostname| (address.clone(), hostname)));
        exported.zones.extend(zone.map(|zone| (address.clone(), zone)));
        let ports = exported.backends.entry(address).or_default();
        ports.insert(b.port_name.clone(), record(b.proto, b.port));
    }
    Some(exported)
}
