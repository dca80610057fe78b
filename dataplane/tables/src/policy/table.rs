//! One direction of a policy, compiled.
//!
//! Peers that the same rules name form a *class*. Inside a class the ports of a protocol are cut
//! into disjoint segments, each with the one rule that wins there, so the cost of a decision does
//! not depend on how many rules overlap.

use super::{Decision, Match, Peers, RuleEntry, RuleId};
use foldhash::fast::FixedState;
use hashbrown::HashMap;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use wire::{Identity, Protocol};

#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Table {
    /// Rules about any peer.
    any: Class,
    /// Peers that the same rules name share a class.
    peers: HashMap<Identity, Class, FixedState>,
    /// Of all classes one behind the other, so that a decision reads little memory.
    segments: Box<[Segment]>,
}

/// What a set of rules says, by protocol and port: its segments from one on to before another.
/// Protocols that some rule names have theirs, into which rules about every protocol are merged.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct Class {
    from: u32,
    to: u32,
}

/// A range of ports of a protocol. Those of a class are disjoint, and in ascending order.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Segment {
    proto: Proto,
    first: u16,
    last: u16,
    winner: Winner,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Proto {
    Named(Protocol),
    Other,
}

/// What is kept of a rule, ordered so that the greatest decides: deny before allow, then the
/// more specific at L4 (Cilium's longest L4 prefix), then at L3, then the lower rule number.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Winner {
    deny: bool,
    layer4: Layer4,
    narrow: Reverse<u16>,
    peer: bool,
    rule: Reverse<u32>,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Layer4 {
    Any,
    Protocol,
    Port,
}

impl Table {
    pub(super) fn compile(entries: &[RuleEntry]) -> Table {
        let mut any = Vec::new();
        let mut by_set: BTreeMap<&[Identity], Vec<&RuleEntry>> = BTreeMap::new();
        for entry in entries {
            match &entry.peers {
                Peers::Any => any.push(entry),
                Peers::Set(peers) => by_set.entry(peers).or_default().push(entry),
            }
        }
        let sets: Vec<(&[Identity], Vec<&RuleEntry>)> = by_set.into_iter().collect();
        let mut by_peer: BTreeMap<Identity, Vec<u32>> = BTreeMap::new();
        for (set, (peers, _)) in (0..).zip(&sets) {
            for peer in *peers {
                by_peer.entry(*peer).or_default().push(set);
            }
        }
        let mut segments = Vec::new();
        let any = Class::compile(&any, &mut segments);
        let mut interned: HashMap<Vec<u32>, Class, FixedState> = HashMap::default();
        let peers = by_peer.into_iter().map(|(peer, member_of)| {
            let class = *interned.entry(member_of).or_insert_with_key(|member_of| {
                let rules = member_of.iter().flat_map(|&set| &sets[set as usize].1);
                Class::compile(&rules.copied().collect::<Vec<_>>(), &mut segments)
            });
            (peer, class)
        });
        let peers = peers.collect();
        Table { any, peers, segments: segments.into() }
    }

    pub(super) fn decide(&self, peer: Identity, proto: Protocol, port: u16) -> Decision {
        let about_peer = self.peers.get(&peer).and_then(|class| self.find(class, proto, port));
        about_peer.max(self.find(&self.any, proto, port)).map_or(Decision::DefaultDeny, Winner::decision)
    }

    fn find(&self, class: &Class, proto: Protocol, port: u16) -> Option<Winner> {
        let segments = self.segments.get(class.from as usize..class.to as usize)?;
        let at = |proto| segments.partition_point(|segment| (segment.proto, segment.last) < (proto, port));
        let named = Proto::Named(proto);
        let mut index = at(named);
        let is_named = |index: usize| segments.get(index).is_some_and(|segment| segment.proto == named);
        if !is_named(index) {
            if is_named(index.wrapping_sub(1)) {
                return None;
            }
            index = at(Proto::Other);
        }
        segments.get(index).filter(|segment| segment.first <= port).map(|segment| segment.winner)
    }
}

impl Class {
    fn compile(rules: &[&RuleEntry], all: &mut Vec<Segment>) -> Class {
        let named: BTreeSet<Protocol> = rules.iter().filter_map(|rule| rule.ports.proto).collect();
        let from = all.len() as u32;
        for proto in named.into_iter().map(Some).chain([None]) {
            let about = |rule: &&&RuleEntry| rule.ports.proto.is_none() || rule.ports.proto == proto;
            let name = proto.map_or(Proto::Other, Proto::Named);
            all.extend(segments(name, rules.iter().filter(about).copied()));
        }
        Class { from, to: all.len() as u32 }
    }
}

impl Winner {
    fn new(entry: &RuleEntry) -> Winner {
        let ports = &entry.ports.ports;
        let layer4 = match entry.ports.proto {
            _ if *ports != (0..=u16::MAX) => Layer4::Port,
            Some(_) => Layer4::Protocol,
            None => Layer4::Any,
        };
        Winner {
            deny: entry.deny,
            layer4,
            narrow: Reverse(ports.end().saturating_sub(*ports.start())),
            peer: matches!(entry.peers, Peers::Set(_)),
            rule: Reverse(entry.rule.0),
        }
    }

    fn decision(self) -> Decision {
        let matched = match (self.peer, self.layer4) {
            (true, Layer4::Any) => Match::L3Only,
            (true, Layer4::Protocol) => Match::L3Proto,
            (true, Layer4::Port) => Match::L3L4,
            (false, Layer4::Any) => Match::All,
            (false, Layer4::Protocol) => Match::ProtoOnly,
            (false, Layer4::Port) => Match::L4Only,
        };
        let rule = RuleId(self.rule.0);
        match self.deny {
            true => Decision::Deny { rule, matched },
            false => Decision::Allow { rule: Some(rule), matched },
        }
    }
}

/// Cuts overlapping port ranges into disjoint segments, each with its winner: a sweep over the
/// ports that keeps the ranges which have begun in a heap.
fn segments<'a>(proto: Proto, entries: impl Iterator<Item = &'a RuleEntry>) -> Vec<Segment> {
    let mut ranges: Vec<Segment> = entries
        .filter(|entry| !entry.ports.ports.is_empty())
        .map(|entry| Segment {
            proto,
            first: *entry.ports.ports.start(),
            last: *entry.ports.ports.end(),
            winner: Winner::new(entry),
        })
        .collect();
    ranges.sort_unstable_by_key(|range| range.first);
    // Ports where the winner can change. Wider than a port, for the one after 65535.
    let bounds = ranges.iter().flat_map(|range| [u32::from(range.first), u32::from(range.last) + 1]);
    let bounds: BTreeSet<u32> = bounds.collect();

    let mut segments: Vec<Segment> = Vec::new();
    let mut begun = BinaryHeap::new();
    let mut waiting = ranges.iter().peekable();
    for (&start, &end) in bounds.iter().zip(bounds.iter().skip(1)) {
        let (first, last) = (start as u16, (end - 1) as u16);
        while let Some(range) = waiting.next_if(|range| range.first <= first) {
            begun.push((range.winner, range.last));
        }
        while begun.peek().is_some_and(|(_, last)| *last < first) {
            begun.pop();
        }
        let Some(&(winner, _)) = begun.peek() else { continue };
        match segments.last_mut() {
            Some(previous) if previous.winner == winner && u32::from(previous.last) + 1 == start => {
                previous.last = last
            }
            _ => segments.push(Segment { proto, first, last, winner }),
        }
    }
    segments
}

#[cfg(test)]
impl Table {
    pub(super) fn classes(&self) -> usize {
        self.peers.values().map(|class| class.from).collect::<BTreeSet<u32>>().len()
    }
}
