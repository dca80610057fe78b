//! The table's memory: header, locks, buckets. It outlives the process that wrote it.

use crate::slot::{Slot, WORDS};
use std::hint;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};

/// Slots of a bucket; their tags fill one cache line.
pub(crate) const SLOTS: usize = 8;
/// 1 KiB: a line of tags, then the slots.
const BUCKET_WORDS: usize = SLOTS + SLOTS * WORDS;
type Bucket = [AtomicU64; BUCKET_WORDS];

const HEADER_WORDS: usize = 128;
const MAGIC: usize = 0;
const LAYOUT: usize = 1;
const EPOCH: usize = 2;
const SEED: usize = 3;
const CAPACITY: usize = 4;

/// "dpflows" and a terminator, as bytes in memory order of a little-endian machine.
const MAGIC_WORD: u64 = u64::from_le_bytes(*b"dpflows\0");
/// To be raised with every change of header, bucket or slot.
const LAYOUT_VERSION: u64 = 1;

/// Locks that serialise inserts of equal keys. Enough that two unrelated inserts seldom meet.
const LOCKS: usize = 1024;
/// Turns to wait for a lock before giving up: some microseconds, while an insert takes a
/// fraction of one.
const LOCK_TURNS: usize = 200;

/// The table's parts inside the words that it was given.
#[derive(Debug)]
pub(crate) struct Memory {
    locks: &'static [AtomicU64],
    buckets: &'static [Bucket],
    seed: u64,
}

impl Memory {
    pub(crate) fn words_for(flows: usize) -> usize {
        HEADER_WORDS + LOCKS + flows.max(1).div_ceil(SLOTS) * BUCKET_WORDS
    }

    /// # Panics
    /// If there is not room for one bucket.
    pub(crate) fn new(words: &'static [AtomicU64], epoch: u64, seed: u64) -> Memory {
        assert!(words.len() >= Self::words_for(1), "{} words are too few for a table", words.len());
        let (header, rest) = words.split_at(HEADER_WORDS);
        let (locks, rest) = rest.split_at(LOCKS);
        let buckets = rest.as_chunks().0;
        let expected = [MAGIC_WORD, LAYOUT_VERSION, epoch];
        let found = [MAGIC, LAYOUT, EPOCH].map(|at| header[at].load(Acquire));
        if found == expected && header[CAPACITY].load(Relaxed) == buckets.len() as u64 {
            for lock in locks {
                lock.store(0, Relaxed);
            }
        } else {
            // The magic word goes first and comes last, so that a kill in between leaves
            // memory that the next process empties again.
            for word in words {
                word.store(0, Release);
            }
            header[LAYOUT].store(LAYOUT_VERSION, Relaxed);
            header[EPOCH].store(epoch, Relaxed);
            header[SEED].store(seed, Relaxed);
            header[CAPACITY].store(buckets.len() as u64, Relaxed);
            header[MAGIC].store(MAGIC_WORD, Release);
        }
        Memory { locks, buckets, seed: header[SEED].load(Relaxed) }
    }

    /// The seed of the hash; an earlier process's if its memory was taken over.
    pub(crate) fn seed(&self) -> u64 {
        self.seed
    }

    pub(crate) fn buckets(&self) -> usize {
        self.buckets.len()
    }

    /// The slots of a bucket.
    pub(crate) fn bucket(&self, number: usize) -> impl Iterator<Item = Slot<'_>> + Clone {
        (0..SLOTS).map(move |at| slot(&self.buckets[number], number, at))
    }

    /// The slot with this number, if the table is that large.
    pub(crate) fn slot(&self, number: u32) -> Option<Slot<'_>> {
        let (bucket, at) = (number as usize / SLOTS, number as usize % SLOTS);
        Some(slot(self.buckets.get(bucket)?, bucket, at))
    }

    /// The lock for keys with this hash, unless somebody holds on to it.
    pub(crate) fn lock(&self, hash: u64) -> Option<Lock<'_>> {
        let word = &self.locks[hash as usize % LOCKS];
        for _ in 0..LOCK_TURNS {
            if word.compare_exchange_weak(0, 1, Acquire, Relaxed).is_ok() {
                return Some(Lock(word));
            }
            hint::spin_loop();
        }
        None
    }
}

fn slot(bucket: &Bucket, number: usize, at: usize) -> Slot<'_> {
    let (tags, words) = bucket.split_at(SLOTS);
    Slot { number: (number * SLOTS + at) as u32, tag: &tags[at], words: &words.as_chunks().0[at] }
}

/// Held while a key is inserted.
pub(crate) struct Lock<'a>(&'a AtomicU64);

impl Drop for Lock<'_> {
    fn drop(&mut self) {
        self.0.store(0, Release);
    }
}
