//! A map from prefixes in which a host address takes little more than its value: a mesh has a million of
//! them, and a node's lie close together.

use ipnet::IpNet;
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// See the module.
#[derive(Debug)]
pub(crate) struct NetMap<V> {
    /// Host addresses that differ in nothing but their last byte, by the one in which that is 0.
    blocks: BTreeMap<IpAddr, Block<V>>,
    /// All other prefixes.
    wider: BTreeMap<IpNet, V>,
    len: usize,
}

#[derive(Debug)]
struct Block<V> {
    /// A bit for every last byte that is there.
    present: [u64; 4],
    /// Their values, in this order.
    values: Vec<V>,
}

impl<V> Default for NetMap<V> {
    fn default() -> Self {
        NetMap { blocks: BTreeMap::new(), wider: BTreeMap::new(), len: 0 }
    }
}

impl<V> Default for Block<V> {
    fn default() -> Self {
        Block { present: [0; 4], values: Vec::new() }
    }
}

impl<V> NetMap<V> {
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn get(&self, net: &IpNet) -> Option<&V> {
        match place(net) {
            Some((block, last)) => self.blocks.get(&block)?.get(last),
            None => self.wider.get(net),
        }
    }

    pub(crate) fn get_mut(&mut self, net: &IpNet) -> Option<&mut V> {
        match place(net) {
            Some((block, last)) => self.blocks.get_mut(&block)?.get_mut(last),
            None => self.wider.get_mut(net),
        }
    }

    /// Adds or replaces; returns what was there.
    pub(crate) fn insert(&mut self, net: IpNet, value: V) -> Option<V> {
        let old = match place(&net) {
            Some((block, last)) => self.blocks.entry(block).or_default().insert(last, value),
            None => self.wider.insert(net, value),
        };
        self.len += usize::from(old.is_none());
        old
    }

    /// Removes and returns what was there.
    pub(crate) fn remove(&mut self, net: &IpNet) -> Option<V> {
        let old = match place(net) {
            Some((key, last)) => {
                let block = self.blocks.get_mut(&key)?;
                let old = block.remove(last);
                if block.values.is_empty() {
                    self.blocks.remove(&key);
                }
                old
            }
            None => self.wider.remove(net),
        };
        self.len -= usize::from(old.is_some());
        old
    }

    /// All prefixes with their values: first the addresses in order, then the others in order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (IpNet, &V)> {
        let hosts = self.blocks.iter().flat_map(|(base, block)| block.iter(*base));
        hosts.chain(self.wider.iter().map(|(net, value)| (*net, value)))
    }

    /// The prefixes that lie within another one.
    pub(crate) fn within(&self, outer: IpNet) -> impl Iterator<Item = IpNet> {
        let blocks = self.blocks.range(split(outer.network()).0..=outer.broadcast());
        let hosts = blocks.flat_map(|(base, block)| block.iter(*base)).map(|(net, _)| net);
        // Prefixes sort by address.
        let wider = self.wider.range(IpNet::new_assert(outer.network(), 0)..=outer.broadcast().into());
        hosts.chain(wider.map(|(net, _)| *net)).filter(move |net| outer.contains(net))
    }
}

impl<V> Block<V> {
    /// Where the value of a last byte is, or else where it would go.
    fn position(&self, last: u8) -> Result<usize, usize> {
        let (word, bit) = word_and_bit(last);
        let before: u32 = self.present[..word].iter().map(|word| word.count_ones()).sum();
        let at = (before + (self.present[word] & (bit - 1)).count_ones()) as usize;
        if self.present[word] & bit == 0 { Err(at) } else { Ok(at) }
    }

    fn get(&self, last: u8) -> Option<&V> {
        self.position(last).ok().map(|at| &self.values[at])
    }

    fn get_mut(&mut self, last: u8) -> Option<&mut V> {
        self.position(last).ok().map(|at| &mut self.values[at])
    }

    fn insert(&mut self, last: u8, value: V) -> Option<V> {
        match self.position(last) {
            Ok(at) => Some(std::mem::replace(&mut self.values[at], value)),
            Err(at) => {
                let (word, bit) = word_and_bit(last);
                self.present[word] |= bit;
                self.values.insert(at, value);
                None
            }
        }
    }

    fn remove(&mut self, last: u8) -> Option<V> {
        let at = self.position(last).ok()?;
        let (word, bit) = word_and_bit(last);
        self.present[word] &= !bit;
        Some(self.values.remove(at))
    }

    fn iter(&self, base: IpAddr) -> impl Iterator<Item = (IpNet, &V)> {
        let present = (0..=u8::MAX).filter(|last| self.position(*last).is_ok());
        present.map(move |last| host(base, last)).zip(&self.values)
    }
}

fn word_and_bit(last: u8) -> (usize, u64) {
    (usize::from(last / 64), 1 << (last % 64))
}

/// The block and the last byte of a host address; `None` for all other prefixes.
fn place(net: &IpNet) -> Option<(IpAddr, u8)> {
    (net.prefix_len() == net.max_prefix_len()).then(|| split(net.addr()))
}

fn split(address: IpAddr) -> (IpAddr, u8) {
    match address {
        IpAddr::V4(address) => (Ipv4Addr::from_bits(address.to_bits() & !0xff).into(), address.octets()[3]),
        IpAddr::V6(address) => (Ipv6Addr::from_bits(address.to_bits() & !0xff).into(), address.octets()[15]),
    }
}

fn host(block: IpAddr, last: u8) -> IpNet {
    match block {
        IpAddr::V4(block) => IpAddr::from(Ipv4Addr::from_bits(block.to_bits() | u32::from(last))).into(),
        IpAddr::V6(block) => IpAddr::from(Ipv6Addr::from_bits(block.to_bits() | u128::from(last))).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Few prefixes, of which many lie in the same block, next to each other or in each other.
    fn net() -> impl Strategy<Value = IpNet> {
        let address = (any::<bool>(), 0u8..3, prop::sample::select(&[0, 1, 63, 64, 65, 128, 254, 255][..]));
        (address, 0u8..12).prop_map(|((v4, block, last), wider)| {
            let address: IpAddr = match v4 {
                true => [10, 0, block, last].into(),
                false => Ipv6Addr::from_bits(0xfd << 120 | u128::from(block) << 8 | u128::from(last)).into(),
            };
            let net = IpNet::from(address);
            IpNet::new_assert(address, net.max_prefix_len() - wider.saturating_sub(2)).trunc()
        })
    }

    proptest! {
        #[test]
        fn equals_a_map(
            edits in prop::collection::vec((net(), prop::option::of(any::<u8>())), 0..100),
            outer in net(),
        ) {
            let (mut map, mut model) = (NetMap::default(), BTreeMap::new());
            for (net, value) in edits {
                match value {
                    Some(value) => prop_assert_eq!(map.insert(net, value), model.insert(net, value)),
                    None => prop_assert_eq!(map.remove(&net), model.remove(&net)),
                }
                prop_assert_eq!(map.get(&net), model.get(&net));
                prop_assert_eq!(map.get_mut(&net), model.get_mut(&net));
                prop_assert_eq!(map.len(), model.len());
            }
            let mut all: Vec<_> = map.iter().map(|(net, value)| (net, *value)).collect();
            prop_assert!(all.is_sorted_by_key(|(net, _)| (place(net).is_none(), *net)));
            all.sort_unstable();
            prop_assert_eq!(all, model.clone().into_iter().collect::<Vec<_>>());
            let within: Vec<_> = model.keys().filter(|net| outer.contains(*net)).copied().collect();
            let mut found: Vec<_> = map.within(outer).collect();
            found.sort_unstable();
            prop_assert_eq!(found, within);
        }
    }

    /// A block that is full takes no memory but its values and some bytes.
    #[test]
    fn addresses_side_by_side_are_small() {
        let mut map = NetMap::default();
        for last in 0..=u8::MAX {
            map.insert(IpAddr::from([10, 0, 0, last]).into(), 0u64);
        }
        assert_eq!(map.blocks.len(), 1);
        assert!(map.blocks.values().all(|block| block.values.capacity() == 256));
    }
}
