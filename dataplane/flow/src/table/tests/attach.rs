//! Memory that outlives the process that wrote it.

use super::*;
use crate::Count;
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
    let (table, kept) = Table::attach(words, EPOCH, 3);
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
    let (next, kept) = Table::attach(copy(words), EPOCH, 4);
    assert_eq!((kept, next.stats().entries), (tuples.len(), tuples.len()));
    for tuple in &tuples {
        assert_eq!(next.lookup(tuple, 30), table.lookup(tuple, 30));
    }
    // Packets may have passed while there was no process: who knows can say so.
    let (later, kept) = Table::attach(copy(words), EPOCH, 3);
    let late = 20 + 8000;
    assert_eq!((kept, later.lookup(&tuples[0], late)), (tuples.len(), None));
    let (found, _) = later.lookup(&tuples[0], late - 1).unwrap();
    assert!(later.add(found.id, Side::Original, ACK, Count { packets: 9, bytes: 900 }, late - 1));
    assert_eq!(later.sweep(0, usize::MAX, late), (0, tuples.len() - 1));
    assert_eq!(later.lookup(&tuples[0], late).unwrap().0.original.packets, 9);
}

#[test]
fn memory_of_another_boot_layout_or_size_is_emptied() {
    let (words, ..) = used();
    assert_eq!(Table::attach(copy(words), EPOCH + 1, 3).1, 0);
    assert_eq!(Table::attach(copy(&words[..words.len() - 128]), EPOCH, 3).1, 0);
    for changed in 0..2 {
        let other = copy(words);
        other[changed].fetch_add(1, SeqCst);
        let (table, kept) = Table::attach(other, EPOCH, 3);
        assert_eq!((kept, table.flush()), (0, 0));
        table.insert(&flow(tuple(1, Protocol::TCP)), 30).unwrap();
        assert!(table.lookup(&tuple(1, Protocol::TCP), 30).is_some());
    }
}

#[test]
fn an_entry_takes_128_bytes_and_the_table_little_more() {
    for flows in [1, 1000, 65_536, 262_144, 1_000_000] {
        assert!(Table::words_for(flows) * 8 <= flows.next_multiple_of(8) * 128 + 16 * 1024);
    }
    assert_eq!(Table::words_for(262_144) * 8 / 262_144, 128);
}

#[test]
fn pages_that_never_held_an_entry_are_not_touched() {
    const MANY: usize = 100_000;
    const LIVE: u64 = 2;
    let words = zeroed(Table::words_for(MANY));
    // A live entry in each page, which whoever comes by would count or clear.
    let marks: Vec<&AtomicU64> = words[words.len() - MANY..].iter().step_by(32).collect();
    marks.iter().for_each(|mark| mark.store(LIVE, SeqCst));
    let cleared = || {
        let pages = marks.iter().enumerate().filter(|(_, mark)| mark.load(SeqCst) != LIVE);
        pages.map(|(page, _)| page).collect::<Vec<usize>>()
    };
    let (table, kept) = Table::attach(words, EPOCH, 3);
    let id = table.insert(&flow(tuple(1, Protocol::TCP)), 0).unwrap();
    let page = id.slot as usize / 32;
    assert_eq!((kept, cleared()), (0, vec![]));
    assert_eq!((Table::attach(words, EPOCH, 3).1, table.flush(), cleared()), (2, 2, vec![page]));
    marks[page].store(LIVE, SeqCst);
    assert_eq!((Table::attach(words, EPOCH + 1, 3).1, cleared()), (0, vec![page]));
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

        let (next, kept) = Table::attach(copy(words), EPOCH, 3);
        prop_assert_eq!(kept, tuples.len() - 1);
        for (n, tuple) in tuples.iter().enumerate() {
            prop_assert_eq!(next.lookup(tuple, 30).is_some(), n != victim);
        }
        prop_assert!(next.memory.lock(garbage).is_some());
        prop_assert!(next.insert(&flow(tuples[victim]), 30).is_ok());
    }

    /// Killed while it emptied the memory of an earlier boot, or of another layout: the next one
    /// does it again.
    #[test]
    fn a_half_emptied_table_is_emptied(written in 0..2500_usize, other_layout: bool) {
        let (words, _, tuples) = used();
        let (before, after) = (copy(words), copy(words));
        if other_layout {
            before[1].store(77, SeqCst);
            after[1].store(77, SeqCst);
        }
        Table::attach(after, EPOCH + 1, 3);
        // Magic word and layout are written first, then the rest, then they again.
        let emptying = u64::from_le_bytes(*b"dpempty\0");
        before[0].store(emptying, SeqCst);
        before[1].store(if other_layout { 0 } else { 3 }, SeqCst);
        for (old, new) in before.iter().zip(after).skip(words.len() - FLOWS * 16).take(written) {
            old.store(new.load(SeqCst), SeqCst);
        }
        let (next, kept) = Table::attach(before, EPOCH + 1, 3);
        prop_assert_eq!((kept, next.flush()), (0, 0));
        prop_assert!(tuples.iter().all(|tuple| next.lookup(tuple, 30).is_none()));
        prop_assert!(before.iter().skip(words.len() - FLOWS * 16).all(|word| word.load(SeqCst) == 0));
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
        let (table, kept) = Table::attach(words, EPOCH, 3);
        let mut listed = 0;
        table.for_each(now, |_, _| listed += 1);
        prop_assert!(listed <= kept);
        prop_assert_eq!(table.flush(), kept);
        prop_assert!(table.insert(&flow(tuple(1, Protocol::TCP)), now).is_ok());
        prop_assert!(table.lookup(&tuple(1, Protocol::TCP), now).is_some());
    }
}
