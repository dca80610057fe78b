//! What people see: views of the state.

use super::Control;
use super::run::{Core, Shared};
use crate::compile::state_name;
use crate::filter;
use crate::model::*;
use std::net::SocketAddr;
use tables::Direction;

impl Shared {
    /// Whether the first complete view is in the tables: own store, objects, reachable remotes.
    pub(super) fn synced(&self) -> bool {
        let remotes = self.mesh.remote_status();
        let core = self.core();
        let state = &core.state;
        let in_or_away = |remote: &RemoteStatus| {
            state.synced.contains(&remote.name) || (!remote.connected && remote.num_failures > 0)
        };
        state.objects_synced && state.synced.contains(&state.own.cluster) && remotes.iter().all(in_or_away)
    }
}

impl Control {
    /// What is known of a local pod.
    pub fn endpoint_status(&self, id: u16) -> Option<EndpointStatus> {
        let core = self.0.core();
        let endpoint = core.state.endpoints.get(&id)?;
        let policy = core.compiler.endpoints.get(&id).map(|published| &published.policy.spec);
        let labels = endpoint.identity.as_ref().map_or(&endpoint.wanted, |(_, labels)| labels);
        Some(EndpointStatus {
            id,
            identity: endpoint.identity.as_ref().map(|(identity, _)| identity.0),
            labels: label_list(labels),
            ingress_enforced: policy.is_some_and(|spec| spec.ingress.is_some()),
            egress_enforced: policy.is_some_and(|spec| spec.egress.is_some()),
            state: match (policy, &endpoint.identity) {
                (Some(_), _) => "ready",
                (None, Some(_)) => "waiting-for-policies",
                (None, None) => "waiting-for-identity",
            }
            .into(),
            error: endpoint.error.clone(),
        })
    }

    /// Nodes of all clusters, by name.
    pub fn nodes(&self) -> Vec<NodeView> {
        self.0.core().state.node_views()
    }

    /// All known identities, ascending.
    pub fn identities(&self) -> Vec<IdentityView> {
        let core = self.0.core();
        let identities = core.state.selectors.identities();
        identities.map(|(id, labels)| IdentityView { id: id.0, labels: label_list(labels) }).collect()
    }

    /// All service frontends by id.
    pub fn services(&self) -> Vec<ServiceView> {
        let core = self.0.core();
        let mut rows: Vec<_> = core.services().collect();
        rows.sort_by_key(|row| row.id);
        rows
    }

    /// Policies in force.
    pub fn policies(&self) -> Vec<PolicyView> {
        self.0.core().policies().collect()
    }

    /// Address → identity as published.
    pub fn ipcache(&self) -> Vec<IpcacheView> {
        let core = self.0.core();
        let row = |(prefix, resolved): (&ipnet::IpNet, &crate::ipcache::Resolved)| IpcacheView {
            prefix: prefix.to_string(),
            identity: resolved.identity.0,
            tunnel_endpoint: resolved.host,
            source: resolved.source.name().into(),
            cluster: resolved.cluster.clone(),
            pod: resolved.pod.clone(),
        };
        core.compiler.ipcache.iter().map(row).collect()
    }

    /// Stores, manifests, conflicts.
    pub fn status(&self) -> ControlStatus {
        let synced = self.0.synced();
        let mesh = &self.0.mesh;
        let (kvstore, remotes, mut conflicts) =
            (mesh.kvstore_status(), mesh.remote_status(), mesh.conflicts());
        let core = self.0.core();
        conflicts.extend(core.selectors_that_match_nothing());
        conflicts.extend(core.compiler.contested_frontends());
        ControlStatus {
            kvstore,
            remotes,
            conflicts,
            manifest_errors: core.state.manifest_errors.clone(),
            objects: core.state.object_counts(),
            synced,
        }
    }
}

impl Core {
    fn services(&self) -> impl Iterator<Item = ServiceView> {
        let frontends =
            self.compiler.services.iter().flat_map(|(name, merged)| merged.iter().map(move |m| (name, m)));
        frontends.map(|((namespace, name), merged)| {
            let frontend = merged.frontend;
            let address = |ip, port| format!("{}/{}", SocketAddr::new(ip, port), frontend.proto);
            let key = (namespace.clone(), name.clone());
            ServiceView {
                id: self.compiler.frontends.get(&frontend).map_or(0, |(id, _)| *id),
                namespace: namespace.clone(),
                name: name.clone(),
                frontend: address(frontend.address.ip(), frontend.port),
                kind: "ClusterIP".into(),
                global: self.state.services.get(&key).is_some_and(|service| service.global),
                backends: merged
                    .backends
                    .iter()
                    .map(|(&(ip, port), backend)| BackendView {
                        address: address(ip, port),
                        state: state_name(backend.state).into(),
                        cluster: backend.cluster.clone(),
                        preferred: backend.selectable,
                    })
                    .collect(),
            }
        })
    }

    fn policies(&self) -> impl Iterator<Item = PolicyView> {
        self.state.policies.iter().map(|(key, (policy, source))| {
            let enforces = |direction| policy.rules.iter().any(|rule| rule.default_deny(direction));
            let named = [(Direction::Ingress, "ingress"), (Direction::Egress, "egress")];
            let selected = self.state.endpoints.iter().filter(|(_, endpoint)| {
                let labels = endpoint.identity.as_ref().map(|(_, labels)| labels);
                labels.is_some_and(|labels| policy.rules.iter().any(|rule| rule.subject.matches(labels)))
            });
            PolicyView {
                kind: key.kind.into(),
                namespace: key.namespace.clone(),
                name: key.name.clone(),
                endpoints: selected.map(|(id, _)| *id).collect(),
                enforces: named
                    .iter()
                    .filter(|(d, _)| enforces(*d))
                    .map(|(_, name)| name.to_string())
                    .collect(),
                rules: policy.rules.iter().map(|rule| rule.entries.len()).sum(),
                source: source.clone(),
                spec: policy.spec.clone(),
            }
        })
    }

    /// Services that look for labels which are not part of identities (`cilium-interop` 3.4).
    fn selectors_that_match_nothing(&self) -> impl Iterator<Item = String> {
        let without_slices =
            self.state.services.iter().filter(|(name, _)| !self.state.slices.contains_key(*name));
        without_slices.filter_map(|((namespace, name), service)| {
            let key = service.selector.keys().find(|key| !filter::relevant(key))?;
            Some(format!(
                "service {namespace}/{name}: selector {key}: not an identity label, so it matches no pod; \
                 use another label or give EndpointSlices"
            ))
        })
    }
}

fn label_list(labels: &crate::labels::Labels) -> Vec<String> {
    labels
        .0
        .iter()
        .map(|(key, label)| match label.value.is_empty() {
            true => format!("{}:{key}", label.source),
            false => format!("{}:{key}={}", label.source, label.value),
        })
        .collect()
}
