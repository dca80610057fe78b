//! Which keys of one kind have a good value, and whether a listing has shown them: a few bytes each, as
//! there may be a million of addresses.

use crate::mesh::keys::{self, Kind, Name};
use ipnet::IpNet;
use std::collections::BTreeMap;

/// A [`Name`] of a known kind, in less memory.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Key {
    Ip(IpNet),
    /// As in etcd.
    Text(Box<str>),
}

impl Key {
    pub(super) fn of(name: &Name) -> Key {
        match name {
            Name::Ip(net) => Key::Ip(*net),
            name => Key::Text(name.to_string().into()),
        }
    }

    /// `None` only if it is not of this kind.
    pub(super) fn name(&self, kind: Kind) -> Option<Name> {
        match self {
            Key::Ip(net) => Some(Name::Ip(*net)),
            Key::Text(text) => keys::parse(kind, text).ok(),
        }
    }
}

/// Keys and digests of their values.
#[derive(Debug, Default)]
pub(super) struct Held {
    /// Seen since the newest listing has begun.
    seen: BTreeMap<Key, u64>,
    /// Not seen since.
    suspects: BTreeMap<Key, u64>,
}

impl Held {
    pub(super) fn len(&self) -> usize {
        self.seen.len() + self.suspects.len()
    }

    pub(super) fn suspects(&self) -> usize {
        self.suspects.len()
    }

    pub(super) fn contains(&self, key: &Key) -> bool {
        self.seen.contains_key(key) || self.suspects.contains_key(key)
    }

    /// All of them become suspect.
    pub(super) fn mark(&mut self) {
        self.suspects.append(&mut self.seen);
    }

    /// Removes those that still are.
    pub(super) fn sweep(&mut self) -> impl Iterator<Item = Key> + use<> {
        std::mem::take(&mut self.suspects).into_keys()
    }

    /// A key is no longer suspect; gives the digest of its value, if it has one.
    pub(super) fn see(&mut self, key: &Key) -> Option<u64> {
        if let Some((key, digest)) = self.suspects.remove_entry(key) {
            self.seen.insert(key, digest);
        }
        self.seen.get(key).copied()
    }

    /// Adds or replaces a key that is not suspect.
    pub(super) fn put(&mut self, key: Key, digest: u64) {
        self.seen.insert(key, digest);
    }

    /// Removes a key; false if it was not there.
    pub(super) fn remove(&mut self, key: &Key) -> bool {
        self.seen.remove(key).or_else(|| self.suspects.remove(key)).is_some()
    }

    pub(super) fn into_keys(self) -> impl Iterator<Item = Key> {
        self.seen.into_keys().chain(self.suspects.into_keys())
    }
}
