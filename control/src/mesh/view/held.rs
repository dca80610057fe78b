//! Which keys of one kind have a good value, and whether a listing has shown them: a few bytes each, as
//! there may be a million of addresses.

use crate::mesh::keys::{self, Kind, Name};
use crate::netmap::NetMap;
use ipnet::IpNet;
use std::collections::BTreeMap;
use wire::Identity;

/// A [`Name`] of a known kind, in less memory.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Key {
    Ip(IpNet),
    Identity(Identity),
    /// As in etcd.
    Text(Box<str>),
}

impl Key {
    pub(super) fn of(name: &Name) -> Key {
        match name {
            Name::Ip(net) => Key::Ip(*net),
            Name::Identity(identity) => Key::Identity(*identity),
            name => Key::Text(name.to_string().into()),
        }
    }

    /// `None` only if it is not of this kind.
    pub(super) fn name(&self, kind: Kind) -> Option<Name> {
        match self {
            Key::Ip(net) => Some(Name::Ip(*net)),
            Key::Identity(identity) => Some(Name::Identity(*identity)),
            Key::Text(text) => keys::parse(kind, text).ok(),
        }
    }
}

/// Digests by key.
#[derive(Debug, Default)]
struct Digests {
    ips: NetMap<u64>,
    others: BTreeMap<Key, u64>,
}

impl Digests {
    fn len(&self) -> usize {
        self.ips.len() + self.others.len()
    }

    fn get(&self, key: &Key) -> Option<u64> {
        match key {
            Key::Ip(net) => self.ips.get(net),
            key => self.others.get(key),
        }
        .copied()
    }

    fn insert(&mut self, key: Key, digest: u64) {
        match key {
            Key::Ip(net) => self.ips.insert(net, digest),
            key => self.others.insert(key, digest),
        };
    }

    fn remove(&mut self, key: &Key) -> Option<u64> {
        match key {
            Key::Ip(net) => self.ips.remove(net),
            key => self.others.remove(key),
        }
    }

    fn into_keys(self) -> Vec<Key> {
        self.ips.iter().map(|(net, _)| Key::Ip(net)).chain(self.others.into_keys()).collect()
    }
}

/// Keys and digests of their values.
#[derive(Debug, Default)]
pub(super) struct Held {
    /// Seen since the newest listing has begun.
    seen: Digests,
    /// Not seen since.
    suspects: Digests,
}

impl Held {
    pub(super) fn len(&self) -> usize {
        self.seen.len() + self.suspects.len()
    }

    pub(super) fn suspects(&self) -> usize {
        self.suspects.len()
    }

    pub(super) fn contains(&self, key: &Key) -> bool {
        self.seen.get(key).or_else(|| self.suspects.get(key)).is_some()
    }

    /// All of them become suspect.
    pub(super) fn mark(&mut self) {
        if self.suspects.len() == 0 {
            std::mem::swap(&mut self.seen, &mut self.suspects);
        }
        let Digests { ips, others } = std::mem::take(&mut self.seen);
        ips.iter().for_each(|(net, digest)| _ = self.suspects.ips.insert(net, *digest));
        self.suspects.others.extend(others);
    }

    /// Removes those that still are.
    pub(super) fn sweep(&mut self) -> Vec<Key> {
        std::mem::take(&mut self.suspects).into_keys()
    }

    /// A key is no longer suspect; gives the digest of its value, if it has one.
    pub(super) fn see(&mut self, key: &Key) -> Option<u64> {
        if let Some(digest) = self.suspects.remove(key) {
            self.seen.insert(key.clone(), digest);
        }
        self.seen.get(key)
    }

    /// Adds or replaces a key that is not suspect.
    pub(super) fn put(&mut self, key: Key, digest: u64) {
        self.seen.insert(key, digest);
    }

    /// Removes a key; false if it was not there.
    pub(super) fn remove(&mut self, key: &Key) -> bool {
        self.seen.remove(key).or_else(|| self.suspects.remove(key)).is_some()
    }

    pub(super) fn into_keys(self) -> Vec<Key> {
        [self.seen, self.suspects].into_iter().flat_map(Digests::into_keys).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn key() -> impl Strategy<Value = Key> {
        (0u8..3, 0u8..4).prop_map(|(form, number)| match form {
            0 => Key::Ip(IpNet::new_assert([10, 0, 0, 0].into(), 30 + number.min(2))),
            1 => Key::Identity(Identity(number.into())),
            _ => Key::Text(number.to_string().into()),
        })
    }

    proptest! {
        #[test]
        fn equals_a_map(edits in prop::collection::vec((0u8..8, key(), any::<u64>()), 0..60)) {
            // Digests, and whether they are suspect.
            let (mut held, mut model) = (Held::default(), BTreeMap::<Key, (u64, bool)>::new());
            for (what, key, digest) in edits {
                match what {
                    0 => {
                        held.mark();
                        model.values_mut().for_each(|(_, suspect)| *suspect = true);
                    }
                    1 => {
                        let gone = model.extract_if(.., |_, (_, suspect)| *suspect).map(|(key, _)| key);
                        let mut swept = held.sweep();
                        swept.sort_unstable();
                        prop_assert_eq!(swept, gone.collect::<Vec<_>>());
                    }
                    2 => prop_assert_eq!(held.remove(&key), model.remove(&key).is_some()),
                    _ => {
                        let known = model.get_mut(&key).map(|(digest, suspect)| {
                            *suspect = false;
                            *digest
                        });
                        prop_assert_eq!(held.see(&key), known);
                        if what > 4 {
                            held.put(key.clone(), digest);
                            model.insert(key.clone(), (digest, false));
                        }
                    }
                }
                prop_assert_eq!(held.contains(&key), model.contains_key(&key));
                prop_assert_eq!(held.len(), model.len());
                prop_assert_eq!(held.suspects(), model.values().filter(|(_, suspect)| *suspect).count());
            }
            let mut keys = held.into_keys();
            keys.sort_unstable();
            prop_assert_eq!(keys, model.into_keys().collect::<Vec<_>>());
        }
    }
}
