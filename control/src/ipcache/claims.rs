//! Who claims one prefix, in little memory: nearly all prefixes have a single claim, and most of what is
//! said of a pod is said of others, too.

use super::{Claim, Owner, Source};
use crate::intern::Interner;
use crate::records::NamedPort;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use wire::Identity;

/// Where a claim comes from, and what it says of where the address is.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) struct Place {
    pub(super) owner: Owner,
    pub(super) host: Option<IpAddr>,
}

/// What is said of a pod, its end of the name aside: Kubernetes names the pods of a workload like it, with
/// something short behind the last '-'.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) struct Workload {
    pub(super) identity: Identity,
    /// `None`: it has none.
    named_ports: Option<Arc<Vec<NamedPort>>>,
    /// Beginning of `namespace/pod`.
    pod: Option<Box<str>>,
}

impl Workload {
    pub(super) fn named_ports(&self) -> &[NamedPort] {
        self.named_ports.as_deref().map_or(&[], Vec::as_slice)
    }
}

/// The end of a pod's name, filled up with NUL.
type End = [u8; 8];

/// `namespace/pod`, in two parts.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct PodName<'a>(&'a str, &'a str);

impl fmt::Display for PodName<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.0, self.1)
    }
}

/// A [`Claim`] and who made it.
#[derive(Clone, Debug)]
pub(super) struct Kept {
    pub(super) place: Arc<Place>,
    pub(super) workload: Arc<Workload>,
    end: End,
}

impl Kept {
    pub(super) fn identity(&self) -> Identity {
        self.workload.identity
    }

    pub(super) fn pod(&self) -> Option<PodName<'_>> {
        let len = self.end.iter().position(|byte| *byte == 0).unwrap_or(self.end.len());
        let end = std::str::from_utf8(&self.end[..len]).unwrap_or_default();
        self.workload.pod.as_deref().map(|start| PodName(start, end))
    }

    /// What an index by identity says of it. Addresses of other clusters without named ports are not in it:
    /// they are no backends of this cluster's services, and no rule is about their ports by name.
    pub(super) fn indexed(&self) -> Option<(Identity, Option<Arc<Vec<NamedPort>>>)> {
        let Workload { identity, named_ports, .. } = &*self.workload;
        let wanted = self.place.owner.source != Source::Clustermesh || named_ports.is_some();
        wanted.then(|| (*identity, named_ports.clone()))
    }
}

/// Keeps claims small.
#[derive(Debug, Default)]
pub(super) struct Shared {
    places: Interner<Place>,
    workloads: Interner<Workload>,
    named_ports: Interner<Vec<NamedPort>>,
}

impl Shared {
    pub(super) fn keep(&mut self, owner: Owner, claim: Claim) -> Kept {
        let Claim { identity, host, pod, named_ports } = claim;
        let (start, end) = pod.as_deref().map_or(("", End::default()), split);
        let pod = pod.is_some().then(|| start.into());
        let named_ports = (!named_ports.is_empty()).then(|| self.named_ports.get(named_ports));
        Kept {
            place: self.places.get(Place { owner, host }),
            workload: self.workloads.get(Workload { identity, named_ports, pod }),
            end,
        }
    }
}

/// Splits a pod's name behind its last '-', if what follows is short enough.
fn split(pod: &str) -> (&str, End) {
    let (start, rest) = pod.split_at(pod.rfind('-').map_or(0, |dash| dash + 1));
    let mut end = End::default();
    match end.get_mut(..rest.len()) {
        Some(part) if !rest.contains('\0') => {
            part.copy_from_slice(rest.as_bytes());
            (start, end)
        }
        _ => (pod, end),
    }
}

/// The claims on one prefix; there is one at least.
#[derive(Debug)]
pub(super) enum Claims {
    One(Kept),
    /// Best first.
    #[expect(clippy::box_collection, reason = "small")]
    Several(Box<Vec<Kept>>),
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
            Claims::One(old) => Box::new(vec![old]),
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
        std::mem::replace(self, Claims::Several(Box::default()))
    }
}
