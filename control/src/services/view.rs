//! Services as people see them.

use super::catalog::Catalog;
use super::{Merged, MergedBackend, local_backends, remote_backends};
use crate::model::{BackendView, ServiceView};
use crate::objects::Readiness;
use crate::state::{Name, State};
use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use wire::Protocol;

/// Stands for the address of what has no frontend here.
const NO_FRONTEND: &str = "None";

impl Catalog {
    /// A row for each frontend, ascending by number; before these, one for each service that has none:
    /// headless ones and those that only other clusters have.
    pub(crate) fn views(&self, state: &State) -> Vec<ServiceView> {
        let all: BTreeSet<&Name> = state.services.keys().chain(state.remote_services.keys()).collect();
        let mut rows = Vec::new();
        for name in all {
            match self.merged.get(name).filter(|merged| !merged.is_empty()) {
                Some(merged) => rows.extend(merged.iter().map(|merged| self.frontend(state, name, merged))),
                None => rows.push(without_frontend(state, name)),
            }
        }
        rows.sort_by_key(|row| row.id);
        rows
    }

    fn frontend(&self, state: &State, name: &Name, merged: &Merged) -> ServiceView {
        let frontend = merged.frontend;
        let whole: f64 = merged.backends.values().map(|backend| f64::from(backend.weight)).sum();
        // In tenths of a percent; without backends for new flows nobody has any.
        let share = |weight: u32| (f64::from(weight) * 1000.0 / whole.max(1.0)).round() / 10.0;
        let backend = |(&(ip, port), backend): (&(IpAddr, u16), &MergedBackend)| BackendView {
            address: address(ip, port, frontend.proto),
            state: if backend.quarantined { "quarantined" } else { state_name(backend.state) }.into(),
            cluster: backend.cluster.to_string(),
            preferred: backend.preferred,
            share: share(backend.weight),
        };
        ServiceView {
            id: self.frontends.get(&frontend).map_or(0, |(id, _)| *id),
            frontend: address(frontend.address.ip(), frontend.port, frontend.proto),
            backends: merged.backends.iter().map(backend).collect(),
            ..row(state, name)
        }
    }
}

fn row(state: &State, name: &Name) -> ServiceView {
    let here = state.services.get(name);
    ServiceView {
        id: 0,
        namespace: name.0.clone(),
        name: name.1.clone(),
        frontend: NO_FRONTEND.into(),
        kind: "ClusterIP".into(),
        global: here.is_none_or(|service| service.mesh.global),
        remote: here.is_none(),
        backends: Vec::new(),
    }
}

/// With the backends of all clusters, as a DNS server needs them.
fn without_frontend(state: &State, name: &Name) -> ServiceView {
    let mut row = row(state, name);
    let backend = |ip, port, proto, state: &str, cluster: &str| BackendView {
        address: address(ip, port, proto),
        state: state.into(),
        cluster: cluster.into(),
        preferred: false,
        share: 0.0,
    };
    let local = local_backends(state, name);
    let local = local
        .iter()
        .filter(|b| b.endpoint.state != Readiness::NotReady)
        .map(|b| backend(b.address, b.port, b.proto, state_name(b.endpoint.state), &state.own.cluster));
    let remote = state.remote_services.get(name).into_iter().flatten();
    let remote = remote.filter(|(_, record)| row.global && record.shared).flat_map(|(cluster, record)| {
        let state = if state.stale.contains(cluster) { "quarantined" } else { "active" };
        remote_backends(record).map(move |(ip, _, proto, port)| backend(ip, port, proto, state, cluster))
    });
    row.backends = local.chain(remote).collect();
    row
}

fn address(ip: IpAddr, port: u16, proto: Protocol) -> String {
    format!("{}/{proto}", SocketAddr::new(ip, port))
}

fn state_name(state: Readiness) -> &'static str {
    match state {
        Readiness::Ready => "active",
        Readiness::Terminating => "terminating",
        Readiness::NotReady => "not-ready",
    }
}
