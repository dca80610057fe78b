//! Memory that outlives the process that wrote it.

use super::*;
use proptest::prelude::*;
use std::sync::atomic::Ordering::SeqCst;

const EPOCH: u64 = 77;
const FLOWS: usize = 64;

fn zeroed(words: usize) -> &'static [AtomicU64] {
    Box::leak((0..words).map(|_| AtomicU64::new(0)).collect())
}

fn copy(words: &[AtomicU64]) -> &'static [AtomicU64] {
    Box::leak(words.iter().map(|word| AtomicU64::new(word.load(SeqCst))).collect())
}

/// A table that has been in use for a while, and its memory.
fn used() -> (&'static [AtomicU64], Table, Vec<Tuple>) {
    let words = zeroed(Table::words_for(FLOWS));
    let (table, kept) = Table::attach(words, EPOCH, 3, 0);
    assert_eq!(kept, 0);
    let tuples: Vec<Tuple> = (0..30).map(|n| tuple(n, Protocol::TCP)).collect();
    for &tuple in &tuples {
        let id = table.insert(&flow(tuple), 10).unwrap();
        table.touch(id, Side::Reply, ACK, 100, 20);
    }
    (words, table, tuples)
}

#[test]
fn the_next_process_finds_everything() {
    let (words, table, tuples) = used();
    // Another seed: the memory's own counts.
    let (next, kept) = Table::attach(copy(words), EPOCH, 4, 30);
    assert_eq!((kept, next.stats().entries), (tuples.len(), tuples.len()));
    for tuple in tuples {
        assert_eq!(next.lookup(&tuple, 30), table.lookup(&tuple, 30));
    }
    let (later, kept) = Table::attach(copy(words), EPOCH, 3, 20 + 8000);
    assert_eq!((kept, later.stats().entries), (0, 0));
}

#[test]
fn memory_of_another_boot_layout_or_size_is_emptied() {
    let (words, ..) = used();
    assert_eq!(Table::attach(copy(words), EPOCH + 1, 3, 30).1, 0);
    assert_eq!(Table::attach(copy(&words[..words.len() - 128]), EPOCH, 3, 30).1, 0);
    for changed in 0..2 {
        let other = copy(words);
        other[changed].fetch_add(1, SeqCst);
        let (table, kept) = Table::attach(other, EPOCH, 3, 30);
        assert_eq!((kept, table.flush()), (0, 0));
        table.insert(&flow(tuple(1, Protocol::TCP)), 30).unwrap();
        assert!(table.lookup(&tuple(1, Protocol::TCP), 30).is_some());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Killed while it filled a slot, at any word, holding the lock.
    #[test]
    fn a_half_written_slot_is_cleared(victim in 0..30_usize, written in 0..=15_usize, garbage: u64) {
        let (words, table, tuples) = used();
        let (found, _) = table.lookup(&tuples[victim], 30).unwrap();
        let slot = table.memory.slot(found.id.slot).unwrap();
        slot.mark_busy();
        for word in &slot.words[..written] {
            word.store(garbage, SeqCst);
        }
        let _held = std::mem::ManuallyDrop::new(table.memory.lock(garbage).unwrap());

        let (next, kept) = Table::attach(copy(words), EPOCH, 3, 30);
        prop_assert_eq!(kept, tuples.len() - 1);
        for (n, tuple) in tuples.iter().enumerate() {
            prop_assert_eq!(next.lookup(tuple, 30).is_some(), n != victim);
        }
        prop_assert!(next.memory.lock(garbage).is_some());
        prop_assert!(next.insert(&flow(tuples[victim]), 30).is_ok());
    }

    /// Killed while it emptied the memory of an earlier boot: all that counts is that the next
    /// one does not take the rest for its own.
    #[test]
    fn a_half_emptied_table_is_emptied(done in 1..10_000_usize) {
        let (words, ..) = used();
        let words = copy(words);
        for word in words.iter().take(done) {
            word.store(0, SeqCst);
        }
        prop_assert_eq!(Table::attach(words, EPOCH, 3, 30).1, 0);
    }

    /// Whatever stands in the buckets, nothing panics and the table works.
    #[test]
    fn garbage_does_no_harm(mut random: u64, now: u32) {
        let (words, ..) = used();
        let words = copy(words);
        for word in words.iter().skip(Table::words_for(FLOWS) - FLOWS * 16) {
            random = random.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
            word.store(random ^ random >> 29, SeqCst);
        }
        let (table, kept) = Table::attach(words, EPOCH, 3, now);
        let mut listed = 0;
        table.for_each(now, |_, _| listed += 1);
        prop_assert_eq!(listed, kept);
        prop_assert_eq!(table.flush(), kept);
        prop_assert!(table.insert(&flow(tuple(1, Protocol::TCP)), now).is_ok());
        prop_assert!(table.lookup(&tuple(1, Protocol::TCP), now).is_some());
    }
}
