//! Who matches what: every peer selector that is in use, with the identities it matches, kept up to
//! date as identities come and go.

use crate::labels::Labels;
use crate::policy::Peer;
use std::cell::OnceCell;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use wire::Identity;

/// All identities known and all selectors in use.
#[derive(Debug, Default)]
pub struct Selectors {
    identities: BTreeMap<Identity, Labels>,
    cached: HashMap<Arc<Peer>, Members>,
    changed: HashSet<Arc<Peer>>,
}

#[derive(Debug, Default)]
struct Members {
    set: BTreeSet<Identity>,
    /// The same, as policies share it; rebuilt on demand.
    shared: OnceCell<Arc<[Identity]>>,
}

impl Selectors {
    /// The labels of an identity.
    pub fn labels(&self, identity: Identity) -> Option<&Labels> {
        self.identities.get(&identity)
    }

    /// All identities, ascending.
    pub fn identities(&self) -> impl Iterator<Item = (Identity, &Labels)> {
        self.identities.iter().map(|(identity, labels)| (*identity, labels))
    }

    /// Adds an identity or changes its labels; `None` removes it. False if nothing changed.
    pub fn set(&mut self, identity: Identity, labels: Option<&Labels>) -> bool {
        if self.identities.get(&identity) == labels {
            return false;
        }
        for (peer, members) in &mut self.cached {
            let changed = match labels {
                Some(labels) if peer.matches(labels) => members.set.insert(identity),
                _ => members.set.remove(&identity),
            };
            if changed {
                members.shared.take();
                self.changed.insert(peer.clone());
            }
        }
        match labels {
            Some(labels) => self.identities.insert(identity, labels.clone()),
            None => self.identities.remove(&identity),
        };
        true
    }

    /// Makes these the selectors in use.
    pub fn retain(&mut self, wanted: &HashSet<Arc<Peer>>) {
        self.cached.retain(|peer, _| wanted.contains(peer));
        for peer in wanted {
            if !self.cached.contains_key(peer) {
                let set = self
                    .identities
                    .iter()
                    .filter(|(_, labels)| peer.matches(labels))
                    .map(|(id, _)| *id)
                    .collect();
                self.cached.insert(peer.clone(), Members { set, shared: OnceCell::new() });
            }
        }
    }

    /// The identities that a selector in use matches, ascending.
    pub fn members(&self, peer: &Arc<Peer>) -> Arc<[Identity]> {
        match self.cached.get(peer) {
            Some(members) => members.shared.get_or_init(|| members.set.iter().copied().collect()).clone(),
            None => Arc::from([]),
        }
    }

    /// The selectors whose members changed since the last call.
    pub fn take_changed(&mut self) -> HashSet<Arc<Peer>> {
        std::mem::take(&mut self.changed)
    }
}
