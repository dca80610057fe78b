//! What the tables are to say of addresses: identities count only as far as their labels are known,
//! because without these no policy can tell who it is.

use super::State;
use crate::netmap::NetMap;
use ipnet::IpNet;
use std::collections::{BTreeSet, HashSet};
use std::net::{IpAddr, Ipv4Addr};
use wire::Identity;

/// Who is behind a prefix, and the node to send it to.
pub(crate) type Place = (Identity, Option<IpAddr>);

/// Prefixes whose identity has no labels.
#[derive(Debug, Default)]
pub(super) struct Unlabelled {
    prefixes: BTreeSet<(Identity, IpNet)>,
    identities: NetMap<Identity>,
    /// Identities that gained or lost their labels and are not looked at yet.
    relabelled: HashSet<Identity>,
}

impl Unlabelled {
    /// The labels of an identity came or went.
    pub(super) fn relabel(&mut self, identity: Identity) {
        self.relabelled.insert(identity);
    }

    fn set(&mut self, prefix: IpNet, identity: Option<Identity>) {
        if let Some(old) = self.identities.remove(&prefix) {
            self.prefixes.remove(&(old, prefix));
        }
        if let Some(identity) = identity {
            self.identities.insert(prefix, identity);
            self.prefixes.insert((identity, prefix));
        }
    }

    fn of_identity(&self, identity: Identity) -> impl Iterator<Item = IpNet> {
        let first = IpNet::new_assert(Ipv4Addr::UNSPECIFIED.into(), 0);
        let prefixes = self.prefixes.range((identity, first)..);
        prefixes.take_while(move |(of, _)| *of == identity).map(|(_, prefix)| *prefix)
    }
}

impl State {
    /// Prefixes of which the tables may have to say something else since the last call; `None`: there
    /// is nothing to say.
    pub(crate) fn take_addresses(&mut self) -> Vec<(IpNet, Option<Place>)> {
        let relabelled = std::mem::take(&mut self.unlabelled.relabelled).into_iter();
        let (gained, lost): (HashSet<_>, HashSet<_>) =
            relabelled.partition(|identity| self.selectors.labels(*identity).is_some());
        for identity in gained {
            self.ipcache.mark(self.unlabelled.of_identity(identity));
        }
        if !lost.is_empty() {
            self.ipcache.mark_identities(&lost);
        }
        let changed = self.ipcache.take_changed();
        changed.into_iter().map(|prefix| (prefix, self.place(prefix))).collect()
    }

    fn place(&mut self, prefix: IpNet) -> Option<Place> {
        let resolved = self.ipcache.resolve(prefix);
        let place = resolved.map(|resolved| (resolved.identity, resolved.host));
        let nameless =
            |identity: &Identity| !identity.is_reserved() && self.selectors.labels(*identity).is_none();
        let unlabelled = place.map(|(identity, _)| identity).filter(nameless);
        self.unlabelled.set(prefix, unlabelled);
        place.map(|(identity, host)| (unlabelled.map_or(identity, |_| Identity::UNKNOWN), host))
    }
}
