//! Values that were refused: each is counted once and, if there are not many, logged once, however often
//! it is read again.

use crate::mesh::keys::Kind;
use std::collections::{BTreeMap, HashMap};
use std::hash::{BuildHasher, RandomState};

/// So many of one listing, or of changes that came together, are logged one by one.
const LOGGED: u64 = 10;
/// Bytes that are shown of the beginning and of the end of what is longer: an end says what is wrong.
const SHOWN: [usize; 2] = [160, 80];

#[derive(Default)]
pub(super) struct Refusals {
    digests: RandomState,
    kinds: BTreeMap<Kind, OfKind>,
    /// How many so far.
    pub(super) count: u64,
    pub(super) newest: Option<String>,
}

#[derive(Default)]
struct OfKind {
    /// Digests of values that are there, by those of their keys, and which listing has shown them last.
    known: HashMap<u64, (u64, u64)>,
    listings: u64,
    /// How many came since the last sum.
    fresh: u64,
}

impl Refusals {
    /// A new listing of a kind begins.
    pub(super) fn mark(&mut self, kind: Kind) {
        self.kinds.entry(kind).or_default().listings += 1;
    }

    /// The listing was complete: what it did not show is not there.
    pub(super) fn sweep(&mut self, kind: Kind) {
        if let Some(OfKind { known, listings, .. }) = self.kinds.get_mut(&kind) {
            known.retain(|_, (_, listing)| listing == listings);
        }
    }

    /// A value is refused.
    pub(super) fn add(&mut self, kind: Kind, key: &str, value: u64, why: impl FnOnce() -> String) {
        let OfKind { known, listings, fresh } = self.kinds.entry(kind).or_default();
        let before = known.insert(self.digests.hash_one(key), (value, *listings));
        if before.is_some_and(|(before, _)| before == value) {
            return;
        }
        let why = shorten(why());
        *fresh += 1;
        if *fresh <= LOGGED {
            tracing::warn!("refused: {why}");
        }
        self.count += 1;
        self.newest = Some(why);
    }

    /// A key has gone, or has a good value now.
    pub(super) fn remove(&mut self, kind: Kind, key: &str) {
        if let Some(of_kind) = self.kinds.get_mut(&kind).filter(|of_kind| !of_kind.known.is_empty()) {
            of_kind.known.remove(&self.digests.hash_one(key));
        }
    }

    /// A listing, or changes that came together, have ended: tells how many were not logged.
    pub(super) fn sum_up(&mut self, kind: Kind, cluster: &str) {
        let Some(of_kind) = self.kinds.get_mut(&kind) else { return };
        let more = std::mem::take(&mut of_kind.fresh).saturating_sub(LOGGED);
        if more > 0 {
            tracing::warn!("refused: {more} more {} of {cluster}", kind.name());
        }
    }

    /// All values are to be judged anew.
    pub(super) fn forget(&mut self) {
        self.kinds.clear();
    }
}

fn shorten(text: String) -> String {
    let [start, end] = SHOWN;
    if text.len() <= start + end {
        return text;
    }
    let start = &text[..text.floor_char_boundary(start)];
    format!("{start} … {}", &text[text.ceil_char_boundary(text.len() - end)..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_value_is_counted_once() {
        let mut refusals = Refusals::default();
        let add = |refusals: &mut Refusals, key: &str, value| {
            refusals.add(Kind::Ips, key, value, || format!("{key} is {value}"));
            refusals.count
        };
        assert_eq!(add(&mut refusals, "a", 1), 1);
        assert_eq!(add(&mut refusals, "b", 1), 2, "of another key");
        assert_eq!(add(&mut refusals, "a", 2), 3, "another one");
        assert_eq!(refusals.newest.as_deref(), Some("a is 2"));
        refusals.mark(Kind::Ips);
        assert_eq!(add(&mut refusals, "a", 2), 3, "the same again");
        refusals.sweep(Kind::Ips);
        assert_eq!(add(&mut refusals, "a", 2), 3, "it was listed");
        assert_eq!(add(&mut refusals, "b", 1), 4, "it was not");
        refusals.remove(Kind::Ips, "a");
        assert_eq!(add(&mut refusals, "a", 2), 5, "it was good meanwhile");
    }

    #[test]
    fn of_a_long_value_both_ends_are_shown() {
        let long = format!("nodes west/n1: '{}' is not right", "ü".repeat(1 << 20));
        let short = shorten(long);
        assert!(short.len() < 250, "{}", short.len());
        assert!(short.starts_with("nodes west/n1: 'ü") && short.ends_with("ü' is not right"), "{short}");
        assert_eq!(shorten("short".into()), "short");
    }
}
