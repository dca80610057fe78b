//! Ports of fragmented datagrams, remembered from the first fragment.

use crate::DropReason;
use flow::Seconds;
use wire::{Address, Packet, Protocol};

/// How long the fragments of a datagram are waited for, counted from its first one in seconds
/// (`net.ipv4.ipfrag_time`).
const LIFETIME: Seconds = 30;
/// Datagrams remembered in one place; the one nearest to its end makes room.
const WAYS: usize = 4;
/// Places; with [`WAYS`] entries of 48 bytes each, 192 KiB.
const SETS: usize = 1024;

/// Datagrams whose first fragment has passed.
#[derive(Debug)]
pub(crate) struct Fragments([[Entry; WAYS]; SETS]);

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Key {
    src: Address,
    dst: Address,
    id: u32,
    proto: Protocol,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    key: Key,
    sport: u16,
    dport: u16,
    /// 0 in an empty entry.
    expires: Seconds,
}

impl Entry {
    const EMPTY: Entry = Entry {
        key: Key { src: Address::UNSPECIFIED, dst: Address::UNSPECIFIED, id: 0, proto: Protocol(0) },
        sport: 0,
        dport: 0,
        expires: 0,
    };
}

impl Fragments {
    pub(crate) const fn new() -> Self {
        Fragments([[Entry::EMPTY; WAYS]; SETS])
    }

    /// Puts the ports of the first fragment into a later one.
    pub(crate) fn complete(&self, packet: &mut Packet, now: Seconds) -> Result<(), DropReason> {
        if !packet.is_later_fragment() {
            return Ok(());
        }
        let key = Key::of(packet).ok_or(DropReason::FragmentNotFound)?;
        let known = self.0[key.set()].iter().find(|entry| entry.key == key && entry.expires > now);
        let entry = known.ok_or(DropReason::FragmentNotFound)?;
        (packet.tuple.sport, packet.tuple.dport) = (entry.sport, entry.dport);
        Ok(())
    }

    /// Remembers the ports of a first fragment that is let through.
    pub(crate) fn remember(&mut self, packet: &Packet, now: Seconds) {
        let Some(key) = Key::of(packet).filter(|_| !packet.is_later_fragment()) else { return };
        let set = &mut self.0[key.set()];
        let same = set.iter().position(|entry| entry.key == key);
        let oldest = || (0..WAYS).min_by_key(|&way| set[way].expires);
        if let Some(way) = same.or_else(oldest) {
            let (sport, dport) = (packet.tuple.sport, packet.tuple.dport);
            set[way] = Entry { key, sport, dport, expires: now.saturating_add(LIFETIME) };
        }
    }
}

impl Key {
    fn of(packet: &Packet) -> Option<Key> {
        let (tuple, fragment) = (&packet.tuple, packet.fragment?);
        Some(Key { src: tuple.src, dst: tuple.dst, id: fragment.id, proto: tuple.proto })
    }

    fn set(&self) -> usize {
        // Fibonacci hashing: the id alone already differs from datagram to datagram.
        let addresses = self.src.0 ^ self.dst.0.rotate_left(17);
        let folded = (addresses >> 64) as u64 ^ addresses as u64;
        let mixed = (folded.rotate_left(29) ^ u64::from(self.id)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        (mixed >> (u64::BITS - SETS.ilog2())) as usize
    }
}
