//! Maglev rings (Eisenbud et al., NSDI 2016 §3.4), weighted.
//!
//! A ring is a pure function of the backends and their weights, so all nodes that know the same
//! ones send a flow to the same backend, and a backend that goes takes only its own slots with it.

use crate::Backend;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

/// The primes Cilium sizes its rings with. The ring must be prime so that every skip visits
/// every slot.
const SIZES: [usize; 10] = [251, 509, 1021, 2039, 4093, 8191, 16381, 32749, 65521, 131071];

/// Slots per backend that keep shares within about 1 % of each other (paper, §5.3).
const SLOTS_PER_BACKEND: usize = 100;

/// Cilium's default size. Rings grow beyond it (32 KiB, what fits a core's L1 cache) only to
/// give each backend [`MIN_SLOTS_PER_BACKEND`].
const USUAL_MAX: usize = 16381;
const MIN_SLOTS_PER_BACKEND: usize = 10;

/// Ring slots hold 16-bit indices; backends beyond are not chosen.
const MAX_BACKENDS: usize = u16::MAX as usize;

/// The number of slots for `selectable` backends: the smallest that spreads well.
fn size(selectable: usize) -> usize {
    let wanted = (selectable * SLOTS_PER_BACKEND).min(USUAL_MAX.max(selectable * MIN_SLOTS_PER_BACKEND));
    SIZES.into_iter().find(|&size| size >= wanted).unwrap_or(SIZES[SIZES.len() - 1])
}

/// One backend's order of preference over the slots.
struct Preference {
    index: u16,
    next: usize,
    skip: usize,
}

/// Backends of the same weight, which take their turns one after the other.
struct Group {
    backends: Vec<Preference>,
    turn: usize,
    /// Time between two turns of the group, in inverse proportion to its weight as a whole.
    interval: u128,
}

/// Divided by a group's weight to get its interval: so large that nothing is lost.
const TIME: u128 = 1 << 100;

/// The ring over those of `backends` (sorted) that have a weight, as indices into `backends`. Empty
/// if none has.
pub(crate) fn ring(backends: &[Backend]) -> Box<[u16]> {
    const FREE: u16 = u16::MAX;
    let selectable = || backends.iter().take(MAX_BACKENDS).enumerate().filter(|(_, b)| b.weight > 0);
    let size = match selectable().count() {
        0 => return Box::default(),
        count => size(count),
    };
    let mut by_weight: BTreeMap<u32, Vec<Preference>> = BTreeMap::new();
    for (index, backend) in selectable() {
        by_weight.entry(backend.weight).or_default().push(Preference {
            index: index as u16,
            next: (hash(backend, 0) % size as u64) as usize,
            skip: (hash(backend, 1) % (size as u64 - 1)) as usize + 1,
        });
    }
    let mut groups: Vec<Group> = by_weight
        .into_iter()
        .map(|(weight, backends)| Group {
            interval: TIME / (u128::from(weight) * backends.len() as u128),
            backends,
            turn: 0,
        })
        .collect();
    // A first turn after half an interval rounds shares to the nearest slot.
    let mut due: BinaryHeap<_> =
        groups.iter().enumerate().map(|(at, group)| Reverse((group.interval / 2, at))).collect();
    let mut ring = vec![FREE; size].into_boxed_slice();
    for _ in 0..size {
        let Some(mut first) = due.peek_mut() else { break };
        let Reverse((time, at)) = &mut *first;
        let group = &mut groups[*at];
        *time += group.interval;
        let backend = &mut group.backends[group.turn];
        while ring[backend.next] != FREE {
            backend.next += backend.skip;
            if backend.next >= size {
                backend.next -= size;
            }
        }
        ring[backend.next] = backend.index;
        group.turn += 1;
        if group.turn == group.backends.len() {
            group.turn = 0;
        }
    }
    ring
}

/// The slot of a flow's hash in a ring of `size` slots.
pub(crate) fn slot(hash: u64, size: usize) -> usize {
    ((u128::from(hash) * size as u128) >> 64) as usize
}

/// Fixed for all time and machines: it decides which node sends a flow where. The finaliser of
/// SplitMix64 (Steele et al., OOPSLA 2014) over address and port.
fn hash(backend: &Backend, salt: u64) -> u64 {
    let words = [(backend.address.0 >> 64) as u64, backend.address.0 as u64, u64::from(backend.port), salt];
    words.into_iter().fold(0x9e37_79b9_7f4a_7c15, |state, word| {
        let mut z = (state ^ word).wrapping_add(0x9e37_79b9_7f4a_7c15);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    })
}

#[cfg(test)]
mod tests;
