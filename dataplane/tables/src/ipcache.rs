//! Address → identity, longest prefix first.

use crate::HopId;
use crate::sharded::ShardedMap;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use std::hash::Hash;
use std::sync::Arc;
use wire::{Address, Identity};

/// What is known of an address or prefix.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct IpEntry {
    /// Who is behind it.
    pub identity: Identity,
    /// The node to send it to, or none.
    pub hop: HopId,
}

/// Longest-prefix map for both families. Host entries and CIDRs live apart, so that the common
/// case is one hash lookup.
#[derive(Clone, Debug, Default)]
pub struct IpCache {
    v4: Family<u32>,
    v6: Family<V6>,
    /// Counts the edits that gave some address another identity.
    identity_edits: u64,
}

impl IpCache {
    /// The entry of the longest prefix that holds `address`.
    pub fn lookup(&self, address: Address) -> Option<IpEntry> {
        match address.as_v4() {
            Some(bits) => self.v4.lookup(bits),
            None => self.v6.lookup(V6::new(address.0)),
        }
    }

    /// Asks for the memory that [`IpCache::lookup`] will read for an address with an entry of its own.
    pub fn prefetch(&self, address: Address) {
        match address.as_v4() {
            Some(bits) => self.v4.hosts.prefetch(&bits),
            None => self.v6.hosts.prefetch(&V6::new(address.0)),
        }
    }

    /// Adds or replaces; returns what was there.
    pub fn upsert(&mut self, prefix: IpNet, entry: IpEntry) -> Option<IpEntry> {
        let old = match prefix {
            IpNet::V4(net) => self.v4.upsert(net.network().to_bits(), net.prefix_len(), entry),
            IpNet::V6(net) => self.v6.upsert(V6::new(net.network().to_bits()), net.prefix_len(), entry),
        };
        if old.is_none_or(|old| old.identity != entry.identity) {
            self.identity_edits += 1;
        }
        old
    }

    /// Removes; returns what was there.
    pub fn remove(&mut self, prefix: IpNet) -> Option<IpEntry> {
        let removed = match prefix {
            IpNet::V4(net) => self.v4.remove(net.network().to_bits(), net.prefix_len()),
            IpNet::V6(net) => self.v6.remove(V6::new(net.network().to_bits()), net.prefix_len()),
        };
        if removed.is_some() {
            self.identity_edits += 1;
        }
        removed
    }

    /// Number of entries.
    pub fn len(&self) -> usize {
        self.v4.len() + self.v6.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// All entries, in no particular order.
    pub fn iter(&self) -> impl Iterator<Item = (IpNet, IpEntry)> {
        let v4 = self
            .v4
            .iter()
            .filter_map(|(bits, len, entry)| Some((IpNet::V4(Ipv4Net::new(bits.into(), len).ok()?), entry)));
        let v6 = self.v6.iter().filter_map(|(bits, len, entry)| {
            Some((IpNet::V6(Ipv6Net::new(bits.value().into(), len).ok()?), entry))
        });
        v4.chain(v6)
    }

    /// Calls `each` for every address with an entry of its own here or in `other`, but not the same
    /// in both. False if prefixes differ, and with them any number of addresses.
    pub(crate) fn difference(&self, other: &Self, mut each: impl FnMut(Address)) -> bool {
        self.v4.hosts.difference(&other.v4.hosts, PartialEq::eq, |&bits| each(Address::v4(bits)));
        self.v6.hosts.difference(&other.v6.hosts, PartialEq::eq, |bits| each(Address(bits.value())));
        Arc::ptr_eq(&self.v4.cidrs, &other.v4.cidrs) && Arc::ptr_eq(&self.v6.cidrs, &other.v6.cidrs)
    }

    /// Whether this is an unedited clone of `other`.
    pub(crate) fn same(&self, other: &Self) -> bool {
        self.v4.same(&other.v4) && self.v6.same(&other.v6)
    }

    /// Whether every address still has the identity it has in `other`, of which this is an
    /// edited clone.
    pub(crate) fn same_identities(&self, other: &Self) -> bool {
        self.identity_edits == other.identity_edits
    }
}

/// Network bits of an address; the host bits of a prefix are zero.
trait Bits: Copy + Eq + Hash {
    const WIDTH: u8;
    fn masked(self, len: u8) -> Self;
}

impl Bits for u32 {
    const WIDTH: u8 = 32;
    fn masked(self, len: u8) -> Self {
        self & u32::MAX.checked_shl(u32::from(32 - len)).unwrap_or(0)
    }
}

/// An IPv6 address in halves: `u128` would align, and so blow up, the entry to 32 bytes.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
struct V6 {
    high: u64,
    low: u64,
}

impl V6 {
    fn new(bits: u128) -> V6 {
        V6 { high: (bits >> 64) as u64, low: bits as u64 }
    }

    fn value(self) -> u128 {
        u128::from(self.high) << 64 | u128::from(self.low)
    }
}

impl Bits for V6 {
    const WIDTH: u8 = 128;
    fn masked(self, len: u8) -> Self {
        V6::new(self.value() & u128::MAX.checked_shl(u32::from(128 - len)).unwrap_or(0))
    }
}

/// One address family.
#[derive(Clone, Debug)]
struct Family<K> {
    hosts: ShardedMap<K, IpEntry>,
    /// One map per prefix length that is in use, longest first.
    cidrs: Arc<Vec<(u8, ShardedMap<K, IpEntry>)>>,
}

impl<K> Default for Family<K> {
    fn default() -> Self {
        Family { hosts: ShardedMap::default(), cidrs: Arc::default() }
    }
}

impl<K: Bits> Family<K> {
    fn lookup(&self, bits: K) -> Option<IpEntry> {
        let host = self.hosts.get(&bits);
        host.or_else(|| self.cidrs.iter().find_map(|(len, map)| map.get(&bits.masked(*len)))).copied()
    }

    /// Returns the previous entry of exactly this prefix.
    fn upsert(&mut self, bits: K, len: u8, entry: IpEntry) -> Option<IpEntry> {
        let old = self.map(len).and_then(|map| map.get(&bits)).copied();
        if old == Some(entry) {
            return old;
        }
        if len == K::WIDTH {
            return self.hosts.insert(bits, entry);
        }
        let cidrs = Arc::make_mut(&mut self.cidrs);
        let at = match Self::position(cidrs, len) {
            Ok(at) => at,
            Err(at) => {
                cidrs.insert(at, (len, ShardedMap::default()));
                at
            }
        };
        cidrs[at].1.insert(bits, entry)
    }

    fn remove(&mut self, bits: K, len: u8) -> Option<IpEntry> {
        self.map(len)?.get(&bits)?;
        if len == K::WIDTH {
            return self.hosts.remove(&bits);
        }
        let cidrs = Arc::make_mut(&mut self.cidrs);
        let at = Self::position(cidrs, len).ok()?;
        let removed = cidrs[at].1.remove(&bits);
        if cidrs[at].1.len() == 0 {
            cidrs.remove(at);
        }
        removed
    }

    fn map(&self, len: u8) -> Option<&ShardedMap<K, IpEntry>> {
        if len == K::WIDTH {
            return Some(&self.hosts);
        }
        Self::position(&self.cidrs, len).ok().map(|at| &self.cidrs[at].1)
    }

    fn position(cidrs: &[(u8, ShardedMap<K, IpEntry>)], len: u8) -> Result<usize, usize> {
        cidrs.binary_search_by(|(other, _)| len.cmp(other))
    }

    fn len(&self) -> usize {
        self.hosts.len() + self.cidrs.iter().map(|(_, map)| map.len()).sum::<usize>()
    }

    fn iter(&self) -> impl Iterator<Item = (K, u8, IpEntry)> {
        let maps =
            std::iter::once((K::WIDTH, &self.hosts)).chain(self.cidrs.iter().map(|(len, map)| (*len, map)));
        maps.flat_map(|(len, map)| map.iter().map(move |(bits, entry)| (*bits, len, *entry)))
    }

    fn same(&self, other: &Self) -> bool {
        self.hosts.same(&other.hosts) && Arc::ptr_eq(&self.cidrs, &other.cidrs)
    }
}

#[cfg(test)]
mod tests;
