//! What people see: views of the state.

use super::Control;
use super::run::{Core, Shared};
use crate::filter;
use crate::ipcache::Resolved;
use crate::labels::{Label, Labels};
use crate::model::*;
use tables::Direction;
use wire::Identity;

/// So many prefixes that several clusters claim are named one by one.
const CONTESTED: usize = 10;

impl Shared {
    /// Whether the first complete view is in the tables: own store, objects, reachable remotes; of
    /// a store that cannot be reached, what an earlier run knew.
    pub(super) fn synced(&self) -> bool {
        let (remotes, away) = (self.mesh.remote_status(), self.mesh.lives_on_restored());
        let core = self.core();
        let state = &core.state;
        let in_or_away = |remote: &RemoteStatus| {
            state.synced.contains(&remote.name) || (!remote.connected && remote.num_failures > 0)
        };
        let own = state.synced.contains(&state.own.cluster) || away;
        state.restored && state.objects_synced && own && remotes.iter().all(in_or_away)
    }
}

impl Shared {
    /// How old what is known of a cluster may be, in words.
    pub(super) fn freshness(&self, own: &str, cluster: &str) -> String {
        if cluster == own {
            return format!("the store of {cluster}: {}", self.mesh.kvstore_status().status);
        }
        let remotes = self.mesh.remote_status();
        let remote = remotes.iter().find(|remote| remote.name == cluster);
        remote.map_or_else(|| format!("{cluster} is not connected"), last_synced)
    }
}

fn last_synced(remote: &RemoteStatus) -> String {
    let RemoteStatus { name, status, .. } = remote;
    match remote.last_contact_seconds {
        Some(seconds) => format!("{name} last synced {seconds} s ago"),
        None => format!("{name} has not synced yet: {status}"),
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

    /// The numbers of all known identities, ascending.
    pub fn identity_numbers(&self) -> Vec<Identity> {
        self.0.core().state.selectors.identities().map(|(id, _)| id).collect()
    }

    /// An identity, if it is known.
    pub fn identity(&self, id: Identity) -> Option<IdentityView> {
        let core = self.0.core();
        let labels = core.state.selectors.labels(id)?;
        Some(IdentityView { id: id.0, labels: label_list(labels) })
    }

    /// All service frontends by id.
    pub fn services(&self) -> Vec<ServiceView> {
        let core = self.0.core();
        core.compiler.services.views(&core.state)
    }

    /// Policies in force.
    pub fn policies(&self) -> Vec<PolicyView> {
        self.0.core().policies().collect()
    }

    /// Address → identity as published.
    pub fn ipcache(&self) -> Vec<IpcacheView> {
        let core = self.0.core();
        // What holds is in the tables: the loop publishes with the lock held.
        let row = |(prefix, resolved): (ipnet::IpNet, Resolved<'_>)| IpcacheView {
            prefix: prefix.to_string(),
            identity: resolved.identity.0,
            tunnel_endpoint: resolved.host,
            source: resolved.source.name().into(),
            cluster: resolved.cluster.map(Into::into),
            pod: resolved.pod.map(|pod| pod.to_string()),
        };
        core.state.ipcache.iter().map(row).collect()
    }

    /// Stores, manifests, conflicts.
    pub fn status(&self) -> ControlStatus {
        let synced = self.0.synced();
        let mesh = &self.0.mesh;
        let (kvstore, remotes, mut conflicts) =
            (mesh.kvstore_status(), mesh.remote_status(), mesh.conflicts());
        let core = self.0.core();
        conflicts.extend(core.state.ipcache.conflicts(CONTESTED));
        conflicts.extend(core.selectors_that_match_nothing());
        conflicts.extend(core.annotations_that_do_not_count());
        conflicts.extend(core.compiler.services.contested_frontends());
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

    fn annotations_that_do_not_count(&self) -> impl Iterator<Item = String> {
        self.state.services.iter().filter_map(|((namespace, name), service)| {
            Some(format!("service {namespace}/{name}: {}", service.mesh.warning.as_ref()?))
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

fn label_list(labels: &Labels) -> Vec<String> {
    labels
        .iter()
        .map(|Label { key, source, value }| match value.is_empty() {
            true => format!("{source}:{key}"),
            false => format!("{source}:{key}={value}"),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cluster_has_synced_once_all_of_it_was_known() {
        let [name, status] = ["west", "waiting for identities"].map(String::from);
        let mut remote = RemoteStatus { name, status, connected: true, ..RemoteStatus::default() };
        assert_eq!(last_synced(&remote), "west has not synced yet: waiting for identities");
        remote.last_contact_seconds = Some(7);
        assert_eq!(last_synced(&remote), "west last synced 7 s ago");
    }
}
