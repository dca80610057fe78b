//! The table's memory: header, locks, a map of the pages in use, slots, tags. It outlives the
//! process that wrote it. Pages that never held an entry are not written and not walked over, so
//! an idle table takes address space and no memory.
//!
//! The tags lie together: they are what looking for a flow that does not exist reads, and a
//! sixteenth of the table stays in the caches of processor and page tables where all of it would
//! not.

use crate::slot::{Slot, Tag, WORDS};
use std::hint;
use std::ops::Range;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use wire::prefetch;

/// Slots of a bucket; their tags fill one cache line.
pub(crate) const SLOTS: usize = 8;
type Bucket = [[AtomicU64; WORDS]; SLOTS];
type Tags = [AtomicU64; SLOTS];
/// 1 KiB.
const BUCKET_WORDS: usize = SLOTS * WORDS + SLOTS;

const HEADER_WORDS: usize = 128;
const MAGIC: usize = 0;
const LAYOUT: usize = 1;
const EPOCH: usize = 2;
const SEED: usize = 3;
const CAPACITY: usize = 4;

/// "dpflows" and a terminator, as bytes in memory order of a little-endian machine.
const MAGIC_WORD: u64 = u64::from_le_bytes(*b"dpflows\0");
/// In the magic word's place while memory is emptied, so that after a kill the next process
/// empties it again.
const EMPTYING: u64 = u64::from_le_bytes(*b"dpempty\0");
/// To be raised with every change of header, bucket or slot.
const LAYOUT_VERSION: u64 = 3;

/// Locks that serialise inserts of equal keys. Enough that two unrelated inserts seldom meet.
const LOCKS: usize = 1024;
/// Turns to wait for a lock before giving up: some microseconds, while an insert takes a
/// fraction of one.
const LOCK_TURNS: usize = 200;

/// Bits that say which buckets ever held an entry; with the rest of what precedes the slots 16 KiB.
const MAP_WORDS: usize = 896;
/// Buckets of a bit: about a page of slots. In tables of more than 1.8 million flows it is more.
const GROUP: usize = 4;

/// The table's parts inside the words that it was given.
#[derive(Debug)]
pub(crate) struct Memory {
    locks: &'static [AtomicU64],
    map: &'static [AtomicU64],
    buckets: &'static [Bucket],
    tags: &'static [Tags],
    /// Logarithm of the number of buckets that a bit of the map stands for.
    scale: u32,
    seed: u64,
}

impl Memory {
    pub(crate) fn words_for(flows: usize) -> usize {
        HEADER_WORDS + LOCKS + MAP_WORDS + flows.max(1).div_ceil(SLOTS) * BUCKET_WORDS
    }

    /// # Panics
    /// If there is not room for one bucket.
    pub(crate) fn new(words: &'static [AtomicU64], epoch: u64, seed: u64) -> Memory {
        assert!(words.len() >= Self::words_for(1), "{} words are too few for a table", words.len());
        let (header, rest) = words.split_at(HEADER_WORDS);
        let (locks, rest) = rest.split_at(LOCKS);
        let (map, rest) = rest.split_at(MAP_WORDS);
        let (slots, tags) = rest.split_at(rest.len() / BUCKET_WORDS * SLOTS * WORDS);
        let buckets = slots.as_chunks().0.as_chunks().0;
        let tags = &tags.as_chunks().0[..buckets.len()];
        let scale = buckets.len().div_ceil(MAP_WORDS * 64).max(GROUP).next_power_of_two().ilog2();
        let mut memory = Memory { locks, map, buckets, tags, scale, seed };
        let found = [LAYOUT, CAPACITY].map(|at| header[at].load(Acquire));
        let same_layout = found == [LAYOUT_VERSION, buckets.len() as u64];
        match header[MAGIC].load(Acquire) {
            MAGIC_WORD if same_layout && header[EPOCH].load(Relaxed) == epoch => {
                clear(locks);
                memory.seed = header[SEED].load(Relaxed);
                return memory;
            }
            MAGIC_WORD | EMPTYING if same_layout => {
                header[MAGIC].store(EMPTYING, Release);
                for bucket in memory.used(0..buckets.len()) {
                    clear(buckets[bucket].as_flattened());
                    clear(&tags[bucket]);
                }
            }
            0 if words[..words.len() - rest.len()].iter().all(|word| word.load(Relaxed) == 0) => {}
            _ => {
                // Its map, if there is one, says nothing.
                header[LAYOUT].store(0, Release);
                header[MAGIC].store(EMPTYING, Release);
                clear(rest);
            }
        }
        clear(locks);
        clear(map);
        header[LAYOUT].store(LAYOUT_VERSION, Relaxed);
        header[EPOCH].store(epoch, Relaxed);
        header[SEED].store(seed, Relaxed);
        header[CAPACITY].store(buckets.len() as u64, Relaxed);
        header[MAGIC].store(MAGIC_WORD, Release);
        memory
    }

    /// The seed of the hash; an earlier process's if its memory was taken over.
    pub(crate) fn seed(&self) -> u64 {
        self.seed
    }

    pub(crate) fn buckets(&self) -> usize {
        self.buckets.len()
    }

    /// The slots of a bucket.
    pub(crate) fn bucket(&self, number: usize) -> Slots<'_> {
        self.having(number, |_| true)
    }

    /// Those slots of a bucket whose tag is such.
    pub(crate) fn having(&self, number: usize, such: impl Fn(Tag) -> bool) -> Slots<'_> {
        let tags = self.tags[number].iter().map(|tag| such(Tag(tag.load(Acquire))));
        let set = tags.enumerate().fold(0, |set, (at, such)| set | u32::from(such) << at);
        Slots { memory: self, bucket: number, set }
    }

    /// Asks for the line with the tags of a bucket.
    pub(crate) fn prefetch(&self, number: usize) {
        prefetch(&self.tags[number]);
    }

    /// The slot with this number, if the table is that large.
    pub(crate) fn slot(&self, number: u32) -> Option<Slot<'_>> {
        let (bucket, at) = (number as usize / SLOTS, number as usize % SLOTS);
        Some(Slot { number, tag: &self.tags.get(bucket)?[at], words: &self.buckets.get(bucket)?[at] })
    }

    /// Those of `buckets` that may hold something.
    pub(crate) fn used(&self, buckets: Range<usize>) -> impl Iterator<Item = usize> {
        buckets.filter(|bucket| {
            let (word, bit) = self.mapped(*bucket);
            word.load(Relaxed) & bit != 0
        })
    }

    /// Notes that a slot is about to be used for the first time, maybe.
    pub(crate) fn mark_used(&self, slot: u32) {
        let (word, bit) = self.mapped(slot as usize / SLOTS);
        if word.load(Relaxed) & bit == 0 {
            word.fetch_or(bit, Relaxed);
        }
    }

    fn mapped(&self, bucket: usize) -> (&AtomicU64, u64) {
        let bit = bucket >> self.scale;
        (&self.map[bit / 64], 1 << (bit % 64))
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

/// Some slots of a bucket.
#[derive(Clone)]
pub(crate) struct Slots<'a> {
    memory: &'a Memory,
    bucket: usize,
    /// One bit each, so that looking at all tags takes no branch.
    set: u32,
}

impl<'a> Iterator for Slots<'a> {
    type Item = Slot<'a>;

    fn next(&mut self) -> Option<Slot<'a>> {
        let at = self.set.trailing_zeros();
        self.set &= self.set.wrapping_sub(1);
        if at < u32::BITS { self.memory.slot(self.bucket as u32 * SLOTS as u32 + at) } else { None }
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = self.set.count_ones() as usize;
        (left, Some(left))
    }
}

impl ExactSizeIterator for Slots<'_> {}

fn clear(words: &[AtomicU64]) {
    words.iter().for_each(|word| word.store(0, Release));
}

/// Held while a key is inserted.
pub(crate) struct Lock<'a>(&'a AtomicU64);

impl Drop for Lock<'_> {
    fn drop(&mut self) {
        self.0.store(0, Release);
    }
}
