//! Values that many have in common, kept once.

use std::borrow::Borrow;
use std::collections::HashSet;
use std::hash::Hash;
use std::sync::Arc;

/// Gives equal values the same memory. Those that nobody has any more are dropped now and then: at most as
/// many as are in use, and [`SPARE`], stay.
#[derive(Debug)]
pub(crate) struct Interner<T> {
    known: HashSet<Arc<T>>,
    /// So many are known when it is next looked which are in use.
    limit: usize,
}

/// Values not worth looking for.
const SPARE: usize = 64;

impl<T> Default for Interner<T> {
    fn default() -> Self {
        Interner { known: HashSet::new(), limit: SPARE }
    }
}

impl<T: Hash + Eq> Interner<T> {
    /// The one that is equal to `value`.
    pub(crate) fn get(&mut self, value: T) -> Arc<T> {
        if let Some(known) = self.known.get::<T>(value.borrow()) {
            return known.clone();
        }
        if self.known.len() >= self.limit {
            self.known.retain(|known| Arc::strong_count(known) > 1);
            self.limit = 2 * self.known.len() + SPARE;
        }
        let new = Arc::new(value);
        self.known.insert(new.clone());
        new
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_values_are_one_and_unused_ones_go() {
        let mut interner = Interner::default();
        let (one, same) = (interner.get("a".to_owned()), interner.get("a".to_owned()));
        assert!(Arc::ptr_eq(&one, &same));
        for number in 0..10_000 {
            interner.get(number.to_string());
        }
        assert!(interner.known.len() <= 2 + 2 * SPARE, "{}", interner.known.len());
        assert!(Arc::ptr_eq(&one, &interner.get("a".to_owned())));
    }
}
