//! Prefixes, and which of them lie around or within another one.

use ipnet::IpNet;
use std::collections::BTreeMap;

/// Something about each of some prefixes.
#[derive(Debug)]
pub(super) struct Prefixes<T> {
    map: BTreeMap<IpNet, T>,
    /// How many there are of each family (true: IPv4) and length: mostly one or two lengths are in use.
    lengths: BTreeMap<(bool, u8), usize>,
}

impl<T> Default for Prefixes<T> {
    fn default() -> Self {
        Prefixes { map: BTreeMap::new(), lengths: BTreeMap::new() }
    }
}

impl<T> Prefixes<T> {
    pub(super) fn contains(&self, prefix: &IpNet) -> bool {
        self.map.contains_key(prefix)
    }

    pub(super) fn insert(&mut self, prefix: IpNet, value: T) {
        if self.map.insert(prefix, value).is_none() {
            *self.lengths.entry(length(&prefix)).or_default() += 1;
        }
    }

    pub(super) fn remove(&mut self, prefix: &IpNet) -> Option<T> {
        let removed = self.map.remove(prefix)?;
        if let Some(count) = self.lengths.get_mut(&length(prefix)) {
            *count -= 1;
        }
        self.lengths.retain(|_, count| *count > 0);
        Some(removed)
    }

    /// All of them, in order.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&IpNet, &T)> {
        self.map.iter()
    }

    /// What is said of the prefixes that hold `inner`, which may be one of them, longest first.
    pub(super) fn around(&self, inner: IpNet) -> impl Iterator<Item = &T> {
        let (family, longest) = length(&inner);
        let lengths = self.lengths.range((family, 0)..=(family, longest)).rev();
        lengths.filter_map(move |((_, length), _)| {
            self.map.get(&IpNet::new(inner.addr(), *length).ok()?.trunc())
        })
    }

    /// Those that lie within `outer`.
    pub(super) fn within(&self, outer: IpNet) -> impl Iterator<Item = &IpNet> {
        // They sort by address.
        let (first, last) = (IpNet::new_assert(outer.network(), 0), IpNet::from(outer.broadcast()));
        self.map.range(first..=last).map(|(prefix, _)| prefix).filter(move |prefix| outer.contains(*prefix))
    }
}

fn length(prefix: &IpNet) -> (bool, u8) {
    (prefix.addr().is_ipv4(), prefix.prefix_len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;
    use std::net::IpAddr;

    /// Few addresses of both families, so that many prefixes lie in each other.
    fn prefix() -> impl Strategy<Value = IpNet> {
        (any::<bool>(), 0u8..8, 0u8..8).prop_map(|(v4, bits, length)| {
            let address: IpAddr = match v4 {
                true => [bits << 5, 0, 0, 0].into(),
                false => [u16::from(bits) << 13, 0, 0, 0, 0, 0, 0, 0].into(),
            };
            let length = if length == 7 { address.max_len() } else { length };
            IpNet::new(address, length).expect("a length of the family").trunc()
        })
    }

    trait MaxLen {
        fn max_len(&self) -> u8;
    }

    impl MaxLen for IpAddr {
        fn max_len(&self) -> u8 {
            if self.is_ipv4() { 32 } else { 128 }
        }
    }

    proptest! {
        #[test]
        fn equals_a_set(edits in prop::collection::vec((any::<bool>(), prefix()), 0..40), asked in prefix()) {
            let (mut prefixes, mut model) = (Prefixes::default(), BTreeSet::new());
            for (add, prefix) in edits {
                match add {
                    true => {
                        prefixes.insert(prefix, prefix);
                        model.insert(prefix);
                    }
                    false => prop_assert_eq!(prefixes.remove(&prefix).is_some(), model.remove(&prefix)),
                }
            }
            let mut around: Vec<_> = model.iter().filter(|outer| outer.contains(&asked)).copied().collect();
            around.sort_by_key(|outer| std::cmp::Reverse(outer.prefix_len()));
            prop_assert_eq!(prefixes.around(asked).copied().collect::<Vec<_>>(), around);
            let within: Vec<_> = model.iter().filter(|inner| asked.contains(*inner)).collect();
            prop_assert_eq!(prefixes.within(asked).collect::<Vec<_>>(), within);
        }
    }
}
