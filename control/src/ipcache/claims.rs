//! Who claims one prefix, in little memory: nearly all prefixes have a single claim, and most of what is
//! said of a pod is said of others, too.

use super::{Claim, Owner, Source};
use crate::intern::Interner;
use crate::records::NamedPort;
use std::net::IpAddr;
use std::sync::Arc;
use wire::Identity;

/// Where a claim comes from, and what it says of where the address is.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) struct Place {
    pub(super) owner: Owner,
    pub(super) host: Option<IpAddr>,
}

/// A [`Claim`] and who made it.
#[derive(Clone, Debug)]
pub(super) struct Kept {
    pub(super) place: Arc<Place>,
    /// `None`: it has none.
    named_ports: Option<Arc<Vec<NamedPort>>>,
    pub(super) pod: Option<Box<str>>,
    pub(super) identity: Identity,
}

impl Kept {
    pub(super) fn named_ports(&self) -> &[NamedPort] {
        self.named_ports.as_deref().map_or(&[], Vec::as_slice)
    }

    /// What an index by identity says of it. Addresses of other clusters without named ports are not in it:
    /// they are no backends of this cluster's services, and no rule is about their ports by name.
    pub(super) fn indexed(&self) -> Option<(Identity, Option<Arc<Vec<NamedPort>>>)> {
        let wanted = self.place.owner.source != Source::Clustermesh || self.named_ports.is_some();
        wanted.then(|| (self.identity, self.named_ports.clone()))
    }
}

/// Keeps claims small.
#[derive(Debug, Default)]
pub(super) struct Shared {
    places: Interner<Place>,
    named_ports: Interner<Vec<NamedPort>>,
}

impl Shared {
    pub(super) fn keep(&mut self, owner: Owner, claim: Claim) -> Kept {
        let Claim { identity, host, pod, named_ports } = claim;
        Kept {
            place: self.places.get(Place { owner, host }),
            named_ports: (!named_ports.is_empty()).then(|| self.named_ports.get(named_ports)),
            pod: pod.map(String::into_boxed_str),
            identity,
        }
    }
}

/// The claims on one prefix; there is one at least.
#[derive(Debug)]
pub(super) enum Claims {
    One(Kept),
    /// Best first.
    Several(Vec<Kept>),
}

impl Claims {
    /// The one that holds.
    pub(super) fn best(&self) -> &Kept {
        match self {
            Claims::One(kept) => kept,
            Claims::Several(all) => &all[0],
        }
    }

    /// The clusters that claim it, best first.
    pub(super) fn clusters(&self) -> impl Iterator<Item = &str> {
        let mut clusters: Vec<&str> = match self {
            Claims::One(kept) => vec![&kept.place.owner.cluster],
            Claims::Several(all) => all.iter().map(|kept| kept.place.owner.cluster.as_str()).collect(),
        };
        clusters.dedup();
        clusters.into_iter()
    }

    /// More than one cluster claims it.
    pub(super) fn contested(&self) -> bool {
        matches!(self, Claims::Several(_)) && self.clusters().nth(1).is_some()
    }

    /// Adds a claim, or replaces that of the same owner.
    pub(super) fn set(&mut self, new: Kept) {
        let mut all = match self.take() {
            Claims::One(old) if old.place.owner == new.place.owner => {
                *self = Claims::One(new);
                return;
            }
            Claims::One(old) => vec![old],
            Claims::Several(all) => all,
        };
        match all.binary_search_by(|kept| kept.place.owner.cmp(&new.place.owner)) {
            Ok(at) => all[at] = new,
            Err(at) => all.insert(at, new),
        }
        *self = Claims::Several(all);
    }

    /// Takes back what an owner claims; false, and nothing else, if there would be no claim left.
    pub(super) fn remove(&mut self, owner: &Owner) -> bool {
        *self = match self.take() {
            Claims::One(kept) => {
                let stays = kept.place.owner != *owner;
                *self = Claims::One(kept);
                return stays;
            }
            Claims::Several(mut all) => {
                all.retain(|kept| kept.place.owner != *owner);
                match all.len() {
                    1 => Claims::One(all.swap_remove(0)),
                    _ => Claims::Several(all),
                }
            }
        };
        true
    }

    /// Leaves something invalid, to be replaced at once.
    fn take(&mut self) -> Claims {
        std::mem::replace(self, Claims::Several(Vec::new()))
    }
}
