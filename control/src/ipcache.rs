//! Who is behind an address: the claims of all sources, and which of them holds.
//!
//! Each source owns its claims and can only take back its own, so a late delete never removes what
//! a newer owner said (`cilium-interop` 3.6).

mod claims;
mod prefixes;
#[cfg(test)]
mod tests;

use crate::netmap::NetMap;
use crate::policy::cidr;
use crate::records::NamedPort;
pub use claims::PodName;
use claims::{Claims, Kept, Shared};
use ipnet::IpNet;
use prefixes::Prefixes;
use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::net::{IpAddr, Ipv4Addr};
use wire::Identity;

/// Where a claim comes from, best first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Source {
    /// This node.
    Local,
    /// The store of this cluster.
    Kvstore,
    /// The store of another cluster.
    Clustermesh,
    /// Policy, or the pod CIDR of a node.
    Generated,
}

impl Source {
    /// The name that `ipcache list` shows.
    pub fn name(self) -> &'static str {
        match self {
            Source::Local => "local",
            Source::Kvstore => "kvstore",
            Source::Clustermesh => "clustermesh",
            Source::Generated => "generated",
        }
    }
}

/// Who made a claim. The first in order wins, so that all nodes agree whatever they heard first.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Owner {
    /// Kind of source.
    pub source: Source,
    /// Number of its cluster: where pod CIDRs overlap, the lower one wins.
    pub cluster_id: u32,
    /// Its cluster.
    pub cluster: String,
    /// Node or endpoint, where the source has several.
    pub part: String,
}

impl Owner {
    /// It is of another cluster, and of one that comes first.
    fn outranks(&self, other: &Owner) -> bool {
        self.cluster != other.cluster && self < other
    }
}

/// What is said of an address or prefix.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Claim {
    /// Who is behind it.
    pub identity: Identity,
    /// The node that hosts it, if it is another one.
    pub host: Option<IpAddr>,
    /// `namespace/pod`.
    pub pod: Option<String>,
    /// Its named ports.
    pub named_ports: Vec<NamedPort>,
}

/// What holds for an address or prefix.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Resolved<'a> {
    /// Who is behind it.
    pub identity: Identity,
    /// The node to send it to.
    pub host: Option<IpAddr>,
    /// Which source decided.
    pub source: Source,
    /// Its cluster, if a store is the source.
    pub cluster: Option<&'a str>,
    /// `namespace/pod`.
    pub pod: Option<PodName<'a>>,
}

/// All claims.
#[derive(Debug, Default)]
pub struct IpCache {
    dual_stack: bool,
    /// Pod CIDRs of this node.
    own: Vec<IpNet>,
    claims: NetMap<Claims>,
    shared: Shared,
    /// Pod CIDRs of other nodes: where addresses go that nobody claims.
    nodes: Prefixes<BTreeMap<Owner, IpAddr>>,
    /// Prefixes that policies name.
    cidrs: Prefixes<Identity>,
    last_cidr: u32,
    /// Prefixes whose claim is of this cluster or has named ports, by identity.
    by_identity: BTreeSet<(Identity, IpNet)>,
    /// In how many prefixes an identity has the best claim; those that have it in none are not there.
    counts: HashMap<Identity, u32>,
    /// Prefixes that several clusters claim, or one that is not believed.
    contested: BTreeSet<IpNet>,
    changed: HashSet<IpNet>,
    moved: HashSet<Identity>,
}

/// Numbers of identities for prefixes (`cilium-interop` 3.1).
const CIDR_IDS: std::ops::RangeInclusive<u32> = 0x0100_0001..=0x01ff_ffff;

impl IpCache {
    /// Nothing is claimed. `dual_stack`: the world has one identity per family; `own`: the pod CIDRs
    /// of this node.
    pub fn new(dual_stack: bool, own: Vec<IpNet>) -> Self {
        let own = own.iter().map(IpNet::trunc).collect();
        IpCache { dual_stack, own, last_cidr: CIDR_IDS.start() - 1, ..IpCache::default() }
    }

    /// Sets (`Some`) or takes back (`None`) what an owner says of a prefix.
    pub fn claim(&mut self, prefix: IpNet, owner: Owner, claim: Option<Claim>) {
        self.changed.insert(prefix);
        let old = self.best(prefix).map(Kept::identity);
        let new = claim.map(|claim| self.shared.keep(owner.clone(), claim));
        let indexed = |ipcache: &Self| ipcache.best(prefix).and_then(Kept::indexed);
        let before = indexed(self);
        match (self.claims.get_mut(&prefix), new) {
            (None, None) => return,
            (None, Some(new)) => _ = self.claims.insert(prefix, Claims::One(new)),
            (Some(claims), Some(new)) => claims.set(new),
            (Some(claims), None) => {
                if !claims.remove(&owner) {
                    self.claims.remove(&prefix);
                }
            }
        }
        let after = indexed(self);
        self.review(prefix);
        self.recount(old, self.best(prefix).map(Kept::identity));
        if before == after {
            return;
        }
        if let Some((identity, _)) = before {
            self.by_identity.remove(&(identity, prefix));
            self.moved.insert(identity);
        }
        if let Some((identity, _)) = after {
            self.by_identity.insert((identity, prefix));
            self.moved.insert(identity);
        }
    }

    /// Other claims are made on a prefix, or others are believed.
    fn review(&mut self, prefix: IpNet) {
        let contested = |claims: &Claims| claims.contested() || self.blocker(claims.best(), prefix).is_some();
        match self.claims.get(&prefix).is_some_and(contested) {
            true => _ = self.contested.insert(prefix),
            false => _ = self.contested.remove(&prefix),
        }
    }

    /// One prefix has another best claim.
    fn recount(&mut self, old: Option<Identity>, new: Option<Identity>) {
        if old == new {
            return;
        }
        if let Some(new) = new {
            *self.counts.entry(new).or_default() += 1;
        }
        if let Some(old) = old
            && let Entry::Occupied(mut count) = self.counts.entry(old)
        {
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
            }
        }
    }

    /// Sets or takes back the node that a pod CIDR is on.
    pub fn route(&mut self, prefix: IpNet, owner: Owner, node: Option<IpAddr>) {
        let mut nodes = self.nodes.remove(&prefix).unwrap_or_default();
        match node {
            Some(node) => nodes.insert(owner, node),
            None => nodes.remove(&owner),
        };
        if !nodes.is_empty() {
            self.nodes.insert(prefix, nodes);
        }
        let within: Vec<_> = self.claims.within(prefix).collect();
        within.into_iter().for_each(|claimed| self.review(claimed));
        self.mark_within(prefix);
    }

    /// Makes these the prefixes that policies name; gives those that came and went with their
    /// identities. Prefixes of length 0 are the world itself and get none.
    pub fn set_cidrs(&mut self, wanted: &BTreeSet<IpNet>) -> (Vec<(IpNet, Identity)>, Vec<Identity>) {
        let gone = self.cidrs.iter().filter(|(prefix, _)| !wanted.contains(*prefix));
        let gone: Vec<_> = gone.map(|(prefix, identity)| (*prefix, *identity)).collect();
        gone.iter().for_each(|(prefix, _)| _ = self.cidrs.remove(prefix));
        let mut new = Vec::new();
        let missing = wanted.iter().filter(|prefix| prefix.prefix_len() > 0);
        for prefix in missing.copied().filter(|prefix| !self.cidrs.contains(prefix)).collect::<Vec<_>>() {
            let Some(identity) = self.free_cidr_id() else {
                tracing::error!(%prefix, "no number left for the identity of a prefix; it counts as world");
                break;
            };
            self.cidrs.insert(prefix, identity);
            new.push((prefix, identity));
        }
        for prefix in gone.iter().chain(&new).map(|(prefix, _)| *prefix) {
            self.mark_within(prefix);
        }
        (new, gone.into_iter().map(|(_, identity)| identity).collect())
    }

    /// The next number in turn that is free, so that a number is not reused soon.
    fn free_cidr_id(&mut self) -> Option<Identity> {
        let used: HashSet<u32> = self.cidrs.iter().map(|(_, identity)| identity.0).collect();
        let turn = (self.last_cidr + 1..=*CIDR_IDS.end()).chain(CIDR_IDS);
        self.last_cidr = turn.take(used.len() + CIDR_IDS.count()).find(|id| !used.contains(id))?;
        Some(Identity(self.last_cidr))
    }

    /// What holds for a prefix: the best claim; else what the pod CIDR around it or policy says. What
    /// lies in a pod CIDR is a pod that is not known yet: rules about addresses are never about pods.
    pub fn resolve(&self, prefix: IpNet) -> Option<Resolved<'_>> {
        let route = || self.nodes.around(prefix).next()?.first_key_value();
        if let Some(kept) = self.believed(prefix) {
            let Owner { source, cluster, .. } = &kept.place.owner;
            let elsewhere = *source != Source::Local;
            return Some(Resolved {
                identity: kept.identity(),
                host: kept.place.host.or_else(|| route().filter(|_| elsewhere).map(|(_, node)| *node)),
                source: *source,
                cluster: elsewhere.then_some(cluster),
                pod: kept.pod(),
            });
        }
        if !self.nodes.contains(&prefix) && !self.cidrs.contains(&prefix) {
            return None;
        }
        let route = route();
        let outside = || self.cidrs.around(prefix).next().copied().unwrap_or_else(|| self.world(&prefix));
        Some(Resolved {
            identity: if route.is_some() { Identity::UNKNOWN } else { outside() },
            host: route.map(|(_, node)| *node),
            source: Source::Generated,
            cluster: route.map(|(owner, _)| owner.cluster.as_str()),
            pod: None,
        })
    }

    /// Who claims a prefix, and for whom.
    pub fn claimed(&self, prefix: IpNet) -> Option<(&Owner, Identity)> {
        self.believed(prefix).map(|kept| (&kept.place.owner, kept.identity()))
    }

    /// The node whose pod CIDR a prefix lies in.
    pub fn node_of(&self, prefix: IpNet) -> Option<&Owner> {
        self.nodes.around(prefix).next()?.keys().next()
    }

    /// Something else may hold for these prefixes.
    pub fn mark(&mut self, prefixes: impl Iterator<Item = IpNet>) {
        self.changed.extend(prefixes);
    }

    /// Something else may hold for the prefixes that have one of these identities. Looks at all claims
    /// until those are found: mostly addresses go before their identity, and there are none.
    pub fn mark_identities(&mut self, identities: &HashSet<Identity>) {
        let count = identities.iter().filter_map(|identity| self.counts.get(identity)).sum::<u32>();
        let concerned =
            self.claims.iter().filter(|(_, claims)| identities.contains(&claims.best().identity()));
        self.changed.extend(concerned.map(|(prefix, _)| prefix).take(count as usize));
    }

    /// What holds for every prefix of which anything is known, in order.
    pub fn iter(&self) -> impl Iterator<Item = (IpNet, Resolved<'_>)> {
        let claimed = self.claims.iter().map(|(prefix, _)| prefix);
        let nodes = self.nodes.iter().map(|(prefix, _)| *prefix);
        let cidrs = self.cidrs.iter().map(|(prefix, _)| *prefix);
        let mut prefixes: Vec<IpNet> = claimed.chain(nodes).chain(cidrs).collect();
        prefixes.sort_unstable();
        prefixes.dedup();
        prefixes.into_iter().filter_map(|prefix| Some((prefix, self.resolve(prefix)?)))
    }

    /// Prefixes for which something may have changed since the last call.
    pub fn take_changed(&mut self) -> HashSet<IpNet> {
        std::mem::take(&mut self.changed)
    }

    /// Identities that gained or lost a prefix in [`IpCache::of_identity`], or whose named ports changed
    /// there, since the last call.
    pub fn take_moved(&mut self) -> HashSet<Identity> {
        std::mem::take(&mut self.moved)
    }

    /// The prefixes that have this identity, with their named ports. Of other clusters only those that
    /// have any.
    pub fn of_identity(&self, identity: Identity) -> impl Iterator<Item = (IpNet, &[NamedPort])> {
        let first = IpNet::new_assert(Ipv4Addr::UNSPECIFIED.into(), 0);
        let prefixes = self.by_identity.range((identity, first)..).take_while(move |(of, _)| *of == identity);
        prefixes.filter_map(|(_, prefix)| Some((*prefix, self.best(*prefix)?.workload.named_ports())))
    }

    /// What several clusters claim, and claims that are not believed, in words; at most so many, and how
    /// many more there are.
    pub fn conflicts(&self, limit: usize) -> Vec<String> {
        let claims = self.contested.iter().filter_map(|prefix| Some((*prefix, self.claims.get(prefix)?)));
        let mut conflicts: Vec<_> =
            claims.take(limit).map(|(prefix, claims)| self.conflict(prefix, claims)).collect();
        let more = self.contested.len() - conflicts.len();
        if more > 0 {
            conflicts.push(format!("{more} more prefixes are claimed in vain or by several clusters"));
        }
        conflicts
    }

    fn conflict(&self, prefix: IpNet, claims: &Claims) -> String {
        let clusters: Vec<_> = claims.clusters().collect();
        let claimants = match clusters.as_slice() {
            [cluster] => format!("cluster {cluster}"),
            clusters => format!("clusters {}", clusters.join(", ")),
        };
        let outcome = match self.blocker(claims.best(), prefix) {
            Some(whose) => format!("none counts, as it overlaps a pod CIDR of {whose}"),
            None => format!("{} counts", clusters[0]),
        };
        format!("{prefix} is claimed by {claimants}; {outcome}")
    }

    /// Whose pod CIDR is why a claim is not believed: that of a cluster that comes before its own has it
    /// inside, or this node's overlaps it. A pod there that is not known yet would be taken for one of theirs.
    fn blocker(&self, kept: &Kept, prefix: IpNet) -> Option<&str> {
        let claimant = &kept.place.owner;
        if claimant.source != Source::Clustermesh {
            return None;
        }
        if self.own.iter().any(|own| own.contains(&prefix) || prefix.contains(own)) {
            return Some("this node");
        }
        let mut owners = self.nodes.around(prefix).flat_map(BTreeMap::keys);
        owners.find(|owner| owner.outranks(claimant)).map(|owner| owner.cluster.as_str())
    }

    fn believed(&self, prefix: IpNet) -> Option<&Kept> {
        self.best(prefix).filter(|kept| self.blocker(kept, prefix).is_none())
    }

    fn best(&self, prefix: IpNet) -> Option<&Kept> {
        self.claims.get(&prefix).map(Claims::best)
    }

    fn world(&self, prefix: &IpNet) -> Identity {
        match cidr::world(prefix, self.dual_stack) {
            "world-ipv4" => Identity::WORLD_IPV4,
            "world-ipv6" => Identity::WORLD_IPV6,
            _ => Identity::WORLD,
        }
    }

    fn mark_within(&mut self, outer: IpNet) {
        self.changed.insert(outer);
        self.changed.extend(self.claims.within(outer));
        self.changed.extend(self.nodes.within(outer));
        self.changed.extend(self.cidrs.within(outer));
    }
}
