//! A small hash table of which one place in memory is read per lookup, and known ahead of it: an
//! entry lies where its hash says, or right behind (linear probing).

use wire::prefetch;

/// See the module's documentation. Who uses it knows the hashes of keys, of which the low bits
/// count here.
#[derive(Clone, Debug)]
pub(crate) struct Shard<K, V> {
    /// None, or a power of two; a quarter at least is free.
    slots: Box<[Option<(K, V)>]>,
    len: usize,
}

impl<K, V> Default for Shard<K, V> {
    fn default() -> Self {
        Shard { slots: Box::default(), len: 0 }
    }
}

impl<K: Eq, V> Shard<K, V> {
    pub(crate) fn get(&self, hash: u64, key: &K) -> Option<&V> {
        match self.slots.get(self.find(hash, key)) {
            Some(Some((_, value))) => Some(value),
            _ => None,
        }
    }

    /// Asks for the memory that [`Shard::get`] will most likely read.
    pub(crate) fn prefetch(&self, hash: u64) {
        if let Some(slot) = self.slots.get(self.home(hash)) {
            prefetch(slot);
        }
    }

    /// Adds or replaces; returns what was there.
    pub(crate) fn insert(&mut self, hash: u64, key: K, value: V, hasher: impl Fn(&K) -> u64) -> Option<V> {
        if (self.len + 1) * 4 > self.slots.len() * 3 {
            self.grow(hasher);
        }
        let at = self.find(hash, &key);
        let old = self.slots[at].replace((key, value));
        self.len += usize::from(old.is_none());
        old.map(|(_, value)| value)
    }

    /// Removes and returns what was there.
    pub(crate) fn remove(&mut self, hash: u64, key: &K, hasher: impl Fn(&K) -> u64) -> Option<V> {
        let mut hole = self.find(hash, key);
        let (_, value) = self.slots.get_mut(hole)?.take()?;
        self.len -= 1;
        // What lies behind moves up, unless that would be before its place.
        let mut next = self.after(hole);
        while let Some((key, _)) = &self.slots[next] {
            let home = self.home(hasher(key));
            if self.distance(home, next) >= self.distance(hole, next) {
                self.slots.swap(hole, next);
                hole = next;
            }
            next = self.after(next);
        }
        Some(value)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        self.slots.iter().flatten().map(|(key, value)| (key, value))
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// The slot of a key, or else the free one where it would go.
    fn find(&self, hash: u64, key: &K) -> usize {
        let mut at = self.home(hash);
        while let Some(Some((other, _))) = self.slots.get(at)
            && other != key
        {
            at = self.after(at);
        }
        at
    }

    fn home(&self, hash: u64) -> usize {
        hash as usize & self.slots.len().wrapping_sub(1)
    }

    fn after(&self, at: usize) -> usize {
        (at + 1) & (self.slots.len() - 1)
    }

    /// Steps from one slot to another.
    fn distance(&self, from: usize, to: usize) -> usize {
        to.wrapping_sub(from) & (self.slots.len() - 1)
    }

    fn grow(&mut self, hasher: impl Fn(&K) -> u64) {
        let slots = (0..(self.slots.len() * 2).max(4)).map(|_| None).collect();
        for (key, value) in std::mem::replace(&mut self.slots, slots).into_iter().flatten() {
            let at = self.find(hasher(&key), &key);
            self.slots[at] = Some((key, value));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashMap;

    proptest! {
        /// Hashes meet often, and the last slots run over into the first.
        #[test]
        fn equals_a_map(edits in prop::collection::vec((any::<bool>(), 0..40_u8, any::<u8>()), 0..200)) {
            let hash = |key: &u8| u64::from(key / 4).wrapping_neg();
            let (mut shard, mut model) = (Shard::default(), HashMap::new());
            for (insert, key, value) in edits {
                if insert {
                    prop_assert_eq!(shard.insert(hash(&key), key, value, hash), model.insert(key, value));
                } else {
                    prop_assert_eq!(shard.remove(hash(&key), &key, hash), model.remove(&key));
                }
                prop_assert_eq!(shard.len(), model.len());
                for key in 0..40 {
                    prop_assert_eq!(shard.get(hash(&key), &key), model.get(&key));
                }
            }
            prop_assert_eq!(shard.iter().map(|(key, value)| (*key, *value)).collect::<HashMap<_, _>>(), model);
        }
    }
}
