//! Who is behind an address: the claims of all sources, and which of them holds.
//!
//! Each source owns its claims and can only take back its own, so a late delete never removes what
//! a newer owner said (`cilium-interop` 3.6).

use crate::policy::cidr;
use crate::records::NamedPort;
use ipnet::IpNet;
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::net::IpAddr;
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
    /// Its cluster.
    pub cluster: String,
    /// Node or endpoint, where the source has several.
    pub part: String,
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
#[derive(Clone, PartialEq, Debug)]
pub struct Resolved {
    /// Who is behind it.
    pub identity: Identity,
    /// The node to send it to.
    pub host: Option<IpAddr>,
    /// Which source decided.
    pub source: Source,
    /// Its cluster, if a store is the source.
    pub cluster: Option<String>,
    /// `namespace/pod`.
    pub pod: Option<String>,
}

/// All claims.
#[derive(Debug, Default)]
pub struct IpCache {
    dual_stack: bool,
    /// Pod CIDRs of this node.
    own: Vec<IpNet>,
    claims: BTreeMap<IpNet, BTreeMap<Owner, Claim>>,
    /// Pod CIDRs of other nodes: where addresses go that nobody claims.
    nodes: BTreeMap<IpNet, BTreeMap<Owner, IpAddr>>,
    /// Prefixes that policies name.
    cidrs: BTreeMap<IpNet, Identity>,
    last_cidr: u32,
    by_identity: BTreeMap<Identity, BTreeSet<IpNet>>,
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
        let before = self.best(prefix).map(|(_, claim)| claim.clone());
        let claims = self.claims.entry(prefix).or_default();
        match claim {
            Some(claim) => claims.insert(owner, claim),
            None => claims.remove(&owner),
        };
        if claims.is_empty() {
            self.claims.remove(&prefix);
        }
        let after = self.best(prefix).map(|(_, claim)| claim.clone());
        let stays = |old: &&Claim| after.as_ref().is_some_and(|new| new.identity == old.identity);
        if let Some(old) = before.as_ref().filter(|old| !stays(old))
            && let Some(prefixes) = self.by_identity.get_mut(&old.identity)
        {
            prefixes.remove(&prefix);
            if prefixes.is_empty() {
                self.by_identity.remove(&old.identity);
            }
        }
        if let Some(new) = &after {
            self.by_identity.entry(new.identity).or_default().insert(prefix);
        }
        self.moved.extend(before.into_iter().chain(after).map(|claim| claim.identity));
        self.changed.insert(prefix);
    }

    /// Sets or takes back the node that a pod CIDR is on.
    pub fn route(&mut self, prefix: IpNet, owner: Owner, node: Option<IpAddr>) {
        let nodes = self.nodes.entry(prefix).or_default();
        match node {
            Some(node) => nodes.insert(owner, node),
            None => nodes.remove(&owner),
        };
        if nodes.is_empty() {
            self.nodes.remove(&prefix);
        }
        self.mark_within(prefix);
    }

    /// Makes these the prefixes that policies name; gives those that came and went with their
    /// identities. Prefixes of length 0 are the world itself and get none.
    pub fn set_cidrs(&mut self, wanted: &BTreeSet<IpNet>) -> (Vec<(IpNet, Identity)>, Vec<Identity>) {
        let gone: Vec<_> = self.cidrs.extract_if(.., |prefix, _| !wanted.contains(prefix)).collect();
        let mut new = Vec::new();
        let missing = wanted.iter().filter(|prefix| prefix.prefix_len() > 0);
        for prefix in missing.copied().filter(|prefix| !self.cidrs.contains_key(prefix)).collect::<Vec<_>>() {
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
        let used: HashSet<u32> = self.cidrs.values().map(|identity| identity.0).collect();
        let turn = (self.last_cidr + 1..=*CIDR_IDS.end()).chain(CIDR_IDS);
        self.last_cidr = turn.take(used.len() + CIDR_IDS.count()).find(|id| !used.contains(id))?;
        Some(Identity(self.last_cidr))
    }

    /// What holds for a prefix: the best claim; else what policy or the pod CIDR around it says.
    pub fn resolve(&self, prefix: IpNet) -> Option<Resolved> {
        let route = || {
            let around = longest(&self.nodes, prefix)?;
            around.first_key_value().map(|(owner, node)| (owner.clone(), *node))
        };
        if let Some((owner, claim)) = self.best(prefix).filter(|(owner, _)| !self.trespasses(owner, prefix)) {
            return Some(Resolved {
                identity: claim.identity,
                host: claim
                    .host
                    .or_else(|| route().filter(|_| owner.source != Source::Local).map(|(_, node)| node)),
                source: owner.source,
                cluster: (owner.source != Source::Local).then(|| owner.cluster.clone()),
                pod: claim.pod.clone(),
            });
        }
        if !self.nodes.contains_key(&prefix) && !self.cidrs.contains_key(&prefix) {
            return None;
        }
        let route = route();
        Some(Resolved {
            identity: longest(&self.cidrs, prefix).copied().unwrap_or_else(|| self.world(&prefix)),
            host: route.as_ref().map(|(_, node)| *node),
            source: Source::Generated,
            cluster: route.map(|(owner, _)| owner.cluster),
            pod: None,
        })
    }

    /// Prefixes for which something may have changed since the last call.
    pub fn take_changed(&mut self) -> HashSet<IpNet> {
        std::mem::take(&mut self.changed)
    }

    /// Identities that gained or lost an address, or whose named ports changed, since the last call.
    pub fn take_moved(&mut self) -> HashSet<Identity> {
        std::mem::take(&mut self.moved)
    }

    /// The claims that hold and have this identity.
    pub fn of_identity(&self, identity: Identity) -> impl Iterator<Item = (IpNet, &Owner, &Claim)> {
        let prefixes = self.by_identity.get(&identity).into_iter().flatten();
        prefixes.filter_map(|prefix| self.best(*prefix).map(|(owner, claim)| (*prefix, owner, claim)))
    }

    /// Whether another cluster claims what lies in a pod CIDR of this one. It is not believed: a
    /// pod here that is not known yet would be taken for one of theirs.
    fn trespasses(&self, owner: &Owner, prefix: IpNet) -> bool {
        let kvstore = |owners: &BTreeMap<Owner, _>| owners.keys().any(|o| o.source == Source::Kvstore);
        let ours = |net: &IpNet| self.own.contains(net) || self.nodes.get(net).is_some_and(kvstore);
        owner.source == Source::Clustermesh
            && std::iter::successors(Some(prefix), IpNet::supernet).any(|net| ours(&net))
    }

    fn best(&self, prefix: IpNet) -> Option<(&Owner, &Claim)> {
        self.claims.get(&prefix)?.first_key_value()
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
        let inside = |prefix: &&IpNet| outer.contains(*prefix);
        self.changed.extend(range(&self.claims, outer).filter(inside));
        self.changed.extend(range(&self.nodes, outer).filter(inside));
        self.changed.extend(range(&self.cidrs, outer).filter(inside));
    }
}

/// Keys between the first and the last address of a prefix (they sort by address).
fn range<T>(map: &BTreeMap<IpNet, T>, outer: IpNet) -> impl Iterator<Item = &IpNet> {
    let first = IpNet::new_assert(outer.network(), 0);
    let last = IpNet::from(outer.broadcast());
    map.range(first..=last).map(|(prefix, _)| prefix)
}

/// The entry of the longest prefix that holds `inner`.
fn longest<T>(map: &BTreeMap<IpNet, T>, inner: IpNet) -> Option<&T> {
    let mut around = Some(inner);
    while let Some(prefix) = around {
        if let Some(found) = map.get(&prefix) {
            return Some(found);
        }
        around = prefix.supernet();
    }
    None
}
