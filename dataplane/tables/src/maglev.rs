//! Maglev rings (Eisenbud et al., NSDI 2016 §3.4).
//!
//! A ring is a pure function of the set of selectable backends, so all nodes that know the same
//! set send a flow to the same backend, and a backend that goes takes only its own slots with it.

use crate::Backend;

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
struct Turns {
    index: u16,
    next: usize,
    skip: usize,
}

/// The ring over the selectable ones of `backends` (sorted), as indices into `backends`. Empty
/// if none is selectable.
pub(crate) fn ring(backends: &[Backend]) -> Box<[u16]> {
    const FREE: u16 = u16::MAX;
    let selectable = backends.iter().take(MAX_BACKENDS).enumerate().filter(|(_, backend)| backend.selectable);
    let selectable: Vec<(usize, &Backend)> = selectable.collect();
    if selectable.is_empty() {
        return Box::default();
    }
    let size = size(selectable.len());
    let mut turns: Vec<Turns> = selectable
        .iter()
        .map(|&(index, backend)| Turns {
            index: index as u16,
            next: (hash(backend, 0) % size as u64) as usize,
            skip: (hash(backend, 1) % (size as u64 - 1)) as usize + 1,
        })
        .collect();
    let mut ring = vec![FREE; size].into_boxed_slice();
    let mut left = size;
    loop {
        for turn in &mut turns {
            while ring[turn.next] != FREE {
                turn.next += turn.skip;
                if turn.next >= size {
                    turn.next -= size;
                }
            }
            ring[turn.next] = turn.index;
            left -= 1;
            if left == 0 {
                return ring;
            }
        }
    }
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
