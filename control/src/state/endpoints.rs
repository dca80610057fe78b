//! Local pods and their identities.

use super::{Endpoint, State};
use crate::filter;
use crate::ipcache::Claim;
use crate::labels::Labels;
use crate::model::LocalEndpoint;
use std::collections::BTreeMap;
use wire::Identity;

impl State {
    /// Adds or changes a local pod. An identity from before a restart is its own at once.
    pub fn upsert_endpoint(&mut self, spec: LocalEndpoint) {
        let id = spec.id;
        let old = self.endpoints.get(&id).map(|old| old.spec.addresses.clone()).unwrap_or_default();
        for address in old.into_iter().filter(|address| !spec.addresses.contains(address)) {
            self.ipcache.claim(address.into(), self.local_owner(&id.to_string()), None);
        }
        let mut endpoint = self.derive(spec);
        (endpoint.identity, endpoint.confirmed) = match self.endpoints.remove(&id) {
            Some(old) => (old.identity, old.confirmed),
            None => {
                // Unless it is of another cluster: the agent may have been given a new id.
                let restored = endpoint.spec.identity.map(Identity);
                let restored = restored.filter(|identity| identity.cluster() == self.own.cluster_id);
                (restored.map(|identity| (identity, endpoint.wanted.clone())), false)
            }
        };
        let identity = endpoint.identity.as_ref().map(|(identity, _)| *identity);
        self.endpoints.insert(id, endpoint);
        self.claim_endpoint(id);
        identity.into_iter().for_each(|identity| self.refresh_identity(identity));
    }

    /// The store gives an identity to these labels: local pods that got it for others are without one
    /// until they have a new one, as everybody else takes them for what they are not.
    pub(super) fn refuse_identity(&mut self, identity: Identity, labels: &Labels) {
        let refused = |endpoint: &Endpoint| {
            let held = endpoint.identity.as_ref().filter(|_| endpoint.confirmed);
            held.is_some_and(|(held, own)| *held == identity && Labels::parse(&own.to_string()) != *labels)
        };
        let ids: Vec<u16> =
            self.endpoints.iter().filter(|(_, endpoint)| refused(endpoint)).map(|(id, _)| *id).collect();
        for id in ids {
            let Some(endpoint) = self.endpoints.get_mut(&id) else { continue };
            (endpoint.identity, endpoint.confirmed) = (None, false);
            for address in endpoint.spec.addresses.clone() {
                self.ipcache.claim(address.into(), self.local_owner(&id.to_string()), None);
            }
        }
    }

    /// Removes a local pod; gives the identity that it had from the allocator.
    pub fn remove_endpoint(&mut self, id: u16) -> Option<Identity> {
        let endpoint = self.endpoints.remove(&id)?;
        for address in endpoint.spec.addresses {
            self.ipcache.claim(address.into(), self.local_owner(&id.to_string()), None);
        }
        let (identity, _) = endpoint.identity?;
        self.refresh_identity(identity);
        Some(identity).filter(|_| endpoint.confirmed)
    }

    /// Gives a local pod its identity, if it still is the pod with these labels. Returns the
    /// identity that is of no use any more: the one it had from the allocator before, or this one.
    pub fn assign(&mut self, id: u16, identity: Identity, labels: &Labels) -> Option<Identity> {
        let Some(endpoint) = self.endpoints.get_mut(&id).filter(|endpoint| endpoint.wanted == *labels) else {
            return Some(identity);
        };
        let old = endpoint.identity.replace((identity, labels.clone())).map(|(old, _)| old);
        let held = old.filter(|_| endpoint.confirmed);
        (endpoint.confirmed, endpoint.error) = (true, None);
        self.claim_endpoint(id);
        old.into_iter().chain([identity]).for_each(|identity| self.refresh_identity(identity));
        held
    }

    /// What the pod's manifest and its namespace add to an endpoint.
    fn derive(&self, spec: LocalEndpoint) -> Endpoint {
        let pod = self.pods.get(&(spec.namespace.clone(), spec.name.clone()));
        let service_account = spec.service_account.clone().or_else(|| pod?.service_account.clone());
        let labels = match pod {
            Some(pod) if spec.labels.is_empty() => &pod.labels,
            _ => &spec.labels,
        };
        let named_ports = match pod {
            Some(pod) if spec.named_ports.is_empty() => pod.named_ports.clone(),
            _ => spec.named_ports.clone(),
        };
        let unknown = BTreeMap::from([("kubernetes.io/metadata.name".to_string(), spec.namespace.clone())]);
        let namespace = self.namespaces.get(&spec.namespace).map_or(&unknown, |namespace| &namespace.labels);
        let account = service_account.as_deref();
        let wanted = filter::identity_labels(&self.own.cluster, &spec.namespace, namespace, account, labels);
        Endpoint { wanted, service_account, named_ports, identity: None, confirmed: false, error: None, spec }
    }

    /// Repeats [`State::derive`] for the pods of a namespace.
    pub(super) fn rederive(&mut self, namespace: &str) {
        let ids: Vec<_> =
            self.endpoints.iter().filter(|(_, e)| e.spec.namespace == namespace).map(|(id, _)| *id).collect();
        for id in ids {
            let Some(old) = self.endpoints.remove(&id) else { continue };
            let mut new = self.derive(old.spec);
            new.confirmed = old.confirmed;
            new.identity = old.identity.map(|(identity, labels)| match old.confirmed {
                true => (identity, labels),
                // From before a restart, when the pod had the same labels as now.
                false => (identity, new.wanted.clone()),
            });
            let identity = new.identity.as_ref().map(|(identity, _)| *identity);
            self.endpoints.insert(id, new);
            self.claim_endpoint(id);
            identity.into_iter().for_each(|identity| self.refresh_identity(identity));
        }
    }

    fn claim_endpoint(&mut self, id: u16) {
        let Some(Endpoint { identity: Some((identity, _)), spec, named_ports, .. }) = self.endpoints.get(&id)
        else {
            return;
        };
        let claim = Claim {
            identity: *identity,
            host: None,
            pod: Some(format!("{}/{}", spec.namespace, spec.name)),
            named_ports: named_ports.clone(),
        };
        for address in spec.addresses.clone() {
            self.ipcache.claim(address.into(), self.local_owner(&id.to_string()), Some(claim.clone()));
        }
    }
}
