//! Pod CIDRs must not overlap between clusters. The own cluster comes first, then the lower id;
//! nodes of the others that overlap with it are withheld until they no longer do, whatever the
//! order in which they became known.

use crate::records::Node;
use crate::update::Update;
use ipnet::IpNet;
use std::collections::BTreeMap;

/// Rank of its cluster, cluster name, node name.
type Key = (u32, String, String);

struct Known {
    node: Node,
    cidrs: Vec<IpNet>,
    admitted: bool,
}

/// All nodes of all clusters.
pub(super) struct Nodes {
    own_cluster: String,
    nodes: BTreeMap<Key, Known>,
}

impl Nodes {
    pub(super) fn new(own_cluster: String) -> Nodes {
        Nodes { own_cluster, nodes: BTreeMap::new() }
    }

    /// A node, valid by itself, appeared or changed.
    pub(super) fn upsert(&mut self, node: Node, cidrs: Vec<IpNet>) -> Vec<Update> {
        let rank = if node.cluster == self.own_cluster { 0 } else { node.cluster_id };
        let key = (rank, node.cluster.clone(), node.name.clone());
        let admitted = self.blocker(&key, &cidrs).is_none();
        let known = Known { node: node.clone(), cidrs: cidrs.clone(), admitted };
        let before = self.nodes.insert(key.clone(), known);
        let mut updates = match (admitted, before.as_ref().is_some_and(|before| before.admitted)) {
            (true, _) => vec![Update::NodeUpsert(node)],
            (false, true) => vec![Update::NodeDelete(node.cluster, node.name)],
            (false, false) => vec![],
        };
        let mut touched = before.map(|before| before.cidrs).unwrap_or_default();
        touched.extend(cidrs);
        updates.extend(self.review(&key, &touched));
        updates
    }

    /// A node went.
    pub(super) fn delete(&mut self, cluster: &str, name: &str) -> Vec<Update> {
        let Some(key) = self.nodes.keys().find(|key| key.1 == cluster && key.2 == name).cloned() else {
            return vec![];
        };
        let Some(gone) = self.nodes.remove(&key) else {
            return vec![];
        };
        let mut updates = Vec::new();
        if gone.admitted {
            updates.push(Update::NodeDelete(cluster.into(), name.into()));
        }
        updates.extend(self.review(&key, &gone.cidrs));
        updates
    }

    /// What is withheld and why.
    pub(super) fn conflicts(&self) -> Vec<String> {
        let withheld = self.nodes.iter().filter(|(_, known)| !known.admitted);
        withheld
            .filter_map(|(key, known)| {
                let (winner, theirs, ours) = self.blocker(key, &known.cidrs)?;
                Some(format!(
                    "node {}/{} refused: its pod CIDR {ours} overlaps {theirs} of {}/{}; \
                     pod CIDRs must differ between clusters",
                    key.1, key.2, winner.1, winner.2
                ))
            })
            .collect()
    }

    /// The first node of a cluster that comes before, with its and our CIDR.
    fn blocker(&self, key: &Key, cidrs: &[IpNet]) -> Option<(&Key, IpNet, IpNet)> {
        let before = self.nodes.range(..(key.0, key.1.clone(), String::new()));
        before.filter(|(other, _)| other.1 != key.1).find_map(|(other, known)| {
            let (theirs, ours) = first_overlap(&known.cidrs, cidrs)?;
            Some((other, theirs, ours))
        })
    }

    /// Decides anew about nodes that come after `key` and overlap what it had or has.
    fn review(&mut self, key: &Key, touched: &[IpNet]) -> Vec<Update> {
        let after = self.nodes.range(key.clone()..);
        let affected: Vec<(Key, bool)> = after
            .filter(|(other, known)| other.1 != key.1 && first_overlap(&known.cidrs, touched).is_some())
            .map(|(other, known)| (other.clone(), self.blocker(other, &known.cidrs).is_none()))
            .collect();
        let mut updates = Vec::new();
        for (other, admitted) in affected {
            let Some(known) = self.nodes.get_mut(&other).filter(|known| known.admitted != admitted) else {
                continue;
            };
            known.admitted = admitted;
            updates.push(match admitted {
                true => Update::NodeUpsert(known.node.clone()),
                false => Update::NodeDelete(other.1, other.2),
            });
        }
        updates
    }
}

/// A CIDR of each that overlap.
fn first_overlap(a: &[IpNet], b: &[IpNet]) -> Option<(IpNet, IpNet)> {
    let overlaps = |x: &IpNet, y: &IpNet| x.contains(y) || y.contains(x);
    a.iter().find_map(|x| b.iter().find(|y| overlaps(x, y)).map(|y| (*x, *y)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    const OWN: &str = "own";

    fn node(cluster: u32, name: u8) -> Node {
        let cluster_name = if cluster == 9 { OWN.into() } else { format!("c{cluster}") };
        Node { name: format!("n{name}"), cluster: cluster_name, cluster_id: cluster, ..Default::default() }
    }

    /// 10.0.0.0/8 in 16 parts of /16 each, or one of the two halves of them.
    fn cidr(part: u8) -> IpNet {
        match part {
            0..16 => format!("10.{part}.0.0/16").parse().unwrap(),
            _ => format!("10.{}.0.0/13", (part & 1) * 8).parse().unwrap(),
        }
    }

    fn rank(cluster: u32) -> u32 {
        if cluster == 9 { 0 } else { cluster }
    }

    proptest! {
        /// Whatever the order of changes, what was reported is what the rule says of the final state.
        #[test]
        fn converges_to_the_rule(
            changes in prop::collection::vec((prop::sample::select(vec![1u32, 2, 9]), 0u8..3, prop::option::of(0u8..18)), 1..40)
        ) {
            let mut nodes = Nodes::new(OWN.into());
            let mut reported = BTreeSet::new();
            let mut state = BTreeMap::new();
            for (cluster, name, part) in changes {
                let n = node(cluster, name);
                let updates = match part {
                    Some(part) => {
                        state.insert((cluster, name), cidr(part));
                        nodes.upsert(n, vec![cidr(part)])
                    }
                    None => {
                        state.remove(&(cluster, name));
                        nodes.delete(&n.cluster, &n.name)
                    }
                };
                for update in updates {
                    match update {
                        Update::NodeUpsert(node) => { reported.insert((node.cluster, node.name)); }
                        Update::NodeDelete(cluster, name) => prop_assert!(reported.remove(&(cluster, name))),
                        other => panic!("{other:?}"),
                    }
                }
                let blocked = |c: u32, net: &IpNet| state.iter()
                    .any(|((other, _), theirs)| rank(*other) < rank(c) && (theirs.contains(net) || net.contains(theirs)));
                let want: BTreeSet<_> = state.iter()
                    .filter(|((c, _), net)| !blocked(*c, net))
                    .map(|((c, n), _)| { let n = node(*c, *n); (n.cluster, n.name) })
                    .collect();
                prop_assert_eq!(&reported, &want);
                prop_assert_eq!(nodes.conflicts().len(), state.len() - want.len());
            }
        }
    }
}
