//! A persistent hash map: clones share everything, an edit copies one small shard.
//!
//! Two fixed levels of 32 pointers above hash tables. At a million entries a shard holds about
//! a thousand, so an edit of a shared map copies some 30 KB in a few microseconds, and a lookup
//! costs two cached pointer loads more than a plain hash table.

use crate::shard::Shard;
use foldhash::fast::FixedState;
use std::hash::{BuildHasher, Hash};
use std::sync::Arc;

/// Bits of the hash that each level consumes.
const LEVEL_BITS: u32 = 5;
const FAN_OUT: usize = 1 << LEVEL_BITS;

type Level<T> = [Option<Arc<T>>; FAN_OUT];
type Root<K, V> = Level<Level<Shard<K, V>>>;

/// See the module's documentation.
#[derive(Debug)]
pub(crate) struct ShardedMap<K, V> {
    root: Arc<Root<K, V>>,
    len: usize,
}

impl<K, V> Clone for ShardedMap<K, V> {
    fn clone(&self) -> Self {
        ShardedMap { root: Arc::clone(&self.root), len: self.len }
    }
}

impl<K, V> Default for ShardedMap<K, V> {
    fn default() -> Self {
        ShardedMap { root: Arc::new(empty_level()), len: 0 }
    }
}

fn empty_level<T>() -> Level<T> {
    [const { None }; FAN_OUT]
}

fn hash<K: Hash>(key: &K) -> u64 {
    FixedState::default().hash_one(key)
}

/// The slots of `hash` in the root and in the level below. The middle bits, because the shard
/// uses the lowest.
fn path(hash: u64) -> (usize, usize) {
    let bits = (hash >> 32) as usize;
    (bits % FAN_OUT, (bits >> LEVEL_BITS) % FAN_OUT)
}

fn shared<T>(ours: &Option<Arc<T>>, theirs: &Option<Arc<T>>) -> bool {
    ours.as_ref().map(Arc::as_ptr) == theirs.as_ref().map(Arc::as_ptr)
}

impl<K: Copy + Eq + Hash, V: Clone> ShardedMap<K, V> {
    pub(crate) fn get(&self, key: &K) -> Option<&V> {
        let hash = hash(key);
        self.shard(hash)?.get(hash, key)
    }

    /// Asks for the memory that [`ShardedMap::get`] will most likely read.
    pub(crate) fn prefetch(&self, key: &K) {
        let hash = hash(key);
        if let Some(shard) = self.shard(hash) {
            shard.prefetch(hash);
        }
    }

    /// Adds or replaces; returns what was there.
    pub(crate) fn insert(&mut self, key: K, value: V) -> Option<V> {
        let code = hash(&key);
        let old = self.shard_mut(code).insert(code, key, value, hash);
        self.len += usize::from(old.is_none());
        old
    }

    /// Removes and returns what was there. Copies nothing if there was nothing.
    pub(crate) fn remove(&mut self, key: &K) -> Option<V> {
        self.get(key)?;
        let code = hash(key);
        let old = self.shard_mut(code).remove(code, key, hash);
        self.len -= usize::from(old.is_some());
        old
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        let levels = self.root.iter().flatten();
        let shards = levels.flat_map(|level| level.iter().flatten());
        shards.flat_map(|shard| shard.iter())
    }

    /// Calls `each` for every key that only one of both has, or whose values are not the `same`.
    /// What both share costs nothing.
    pub(crate) fn difference(&self, other: &Self, same: impl Fn(&V, &V) -> bool, mut each: impl FnMut(&K)) {
        for (ours, theirs) in self.root.iter().zip(&*other.root).filter(|(a, b)| !shared(a, b)) {
            for inner in 0..FAN_OUT {
                let [ours, theirs] = [ours, theirs].map(|level| level.as_ref()?[inner].as_ref());
                if ours.map(Arc::as_ptr) == theirs.map(Arc::as_ptr) {
                    continue;
                }
                for (key, value) in ours.iter().flat_map(|shard| shard.iter()) {
                    if other.get(key).is_none_or(|other| !same(value, other)) {
                        each(key);
                    }
                }
                for (key, _) in theirs.iter().flat_map(|shard| shard.iter()) {
                    if self.get(key).is_none() {
                        each(key);
                    }
                }
            }
        }
    }

    /// Whether this is an unedited clone of `other`.
    pub(crate) fn same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.root, &other.root)
    }

    fn shard(&self, hash: u64) -> Option<&Shard<K, V>> {
        let (outer, inner) = path(hash);
        self.root[outer].as_ref()?[inner].as_deref()
    }

    fn shard_mut(&mut self, hash: u64) -> &mut Shard<K, V> {
        let (outer, inner) = path(hash);
        let level = Arc::make_mut(&mut self.root)[outer].get_or_insert_with(|| Arc::new(empty_level()));
        Arc::make_mut(Arc::make_mut(level)[inner].get_or_insert_default())
    }
}

#[cfg(test)]
impl<K: Copy + Eq + Hash, V: Clone> ShardedMap<K, V> {
    /// Entries in shards that are not shared with `other`.
    pub(crate) fn unshared_entries(&self, other: &Self) -> usize {
        let shards = |map: &Self| -> Vec<Option<Arc<Shard<K, V>>>> {
            let levels = map.root.iter().map(|level| level.as_deref().cloned().unwrap_or_else(empty_level));
            levels.flatten().collect()
        };
        let pairs = shards(self).into_iter().zip(shards(other));
        let unshared = pairs.filter_map(|(ours, theirs)| {
            let ours = ours?;
            (!theirs.is_some_and(|theirs| Arc::ptr_eq(&ours, &theirs))).then_some(ours)
        });
        unshared.map(|shard| shard.len()).sum()
    }

    /// Entries in the shard of a key.
    pub(crate) fn shard_len(&self, key: &K) -> usize {
        self.shard(hash(key)).map_or(0, Shard::len)
    }
}
