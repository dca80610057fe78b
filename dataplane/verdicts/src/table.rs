//! Find, insert, take back.

use crate::slot::{KeyWords, Slot, Tag, WORDS, Words};
use crate::{Key, Nanoseconds, Stats, Verdict};
use alloc::boxed::Box;
use core::sync::atomic::Ordering::Relaxed;
use core::sync::atomic::{AtomicU32, AtomicU64};
use wire::Tuple;

/// Slots that a key may live in, from the place that its hash names.
const WINDOW: u32 = 4;
/// Slots of a group: what passes over the table skip if nothing is in it.
pub(crate) const GROUP: usize = 64;
/// A verdict without packets for so long may be taken back to make room for another.
const IDLE: Nanoseconds = 1_000_000_000;

/// The table. Every method is bounded, lock-free and without system calls.
#[derive(Debug)]
pub struct Table {
    pub(crate) slots: &'static [Words],
    /// Slots in use, per group.
    pub(crate) groups: Box<[AtomicU32]>,
    pub(crate) retired: AtomicU64,
    inserted: AtomicU64,
    removed: AtomicU64,
    full: AtomicU64,
}

/// A verdict found for a packet.
#[derive(Clone, Copy, Debug)]
pub struct Hit<'a> {
    slot: Slot<'a>,
    /// What it says.
    pub verdict: Verdict,
}

impl Hit<'_> {
    /// Counts packets that it was used for: their number and bytes (L3 length).
    pub fn count(&self, packets: u64, bytes: u64, now: Nanoseconds) {
        self.slot.count(packets, bytes, now);
    }
}

impl Table {
    /// Memory words of one slot.
    pub const SLOT_WORDS: usize = WORDS;

    /// Uses `words` as the table: as many slots as fit, a power of two. Verdicts that an earlier
    /// process left in them stay.
    ///
    /// # Panics
    /// If there is not room for one slot.
    pub fn new(words: &'static [AtomicU64]) -> Table {
        let all = words.as_chunks().0;
        assert!(!all.is_empty(), "{} words are too few for a table", words.len());
        let slots = &all[..1 << all.len().ilog2()];
        let table = Table {
            slots,
            groups: (0..slots.len().div_ceil(GROUP)).map(|_| AtomicU32::new(0)).collect(),
            retired: AtomicU64::new(0),
            inserted: AtomicU64::new(0),
            removed: AtomicU64::new(0),
            full: AtomicU64::new(0),
        };
        table.adopt();
        table
    }

    /// A private table of at least `slots` slots on the heap. Its memory is never freed.
    pub fn boxed(slots: usize) -> Table {
        let words = slots.next_power_of_two() * WORDS;
        Self::new(Box::leak((0..words).map(|_| AtomicU64::new(0)).collect()))
    }

    /// The verdict for a packet, unless it has not been used for longer than its lifetime or is
    /// older than `generation`. What else must be true of the packet is listed at the crate.
    pub fn lookup(&self, key: &Key, generation: u32, now: Nanoseconds) -> Option<Hit<'_>> {
        let key = KeyWords::new(key);
        let (slot, tag) = self.window(&key).find(|(slot, tag)| tag.is_live() && slot.holds(&key))?;
        let (verdict, used) = slot.consistent(tag, |slot| (slot.verdict(), slot.last_used()))?;
        let good = verdict.generation == generation && now.saturating_sub(used) < verdict.lifetime;
        good.then_some(Hit { slot, verdict })
    }

    /// Writes a verdict, in the place of one about the same packets. False if there is no room:
    /// then one that has idled makes room for the next try.
    pub fn insert(&self, verdict: &Verdict, now: Nanoseconds) -> bool {
        let key = KeyWords::new(&verdict.key);
        for (slot, tag) in self.window(&key).filter(|(slot, tag)| tag.is_live() && slot.holds(&key)) {
            let Some(old) = slot.consistent(tag, Slot::verdict) else { continue };
            let same = Verdict { lifetime: old.lifetime, generation: old.generation, ..*verdict } == old;
            if same {
                slot.refresh(verdict);
                slot.count(0, 0, now);
                return true;
            }
            self.retire(slot, tag);
        }
        let empty = |(_, tag): &(Slot<'_>, Tag)| tag.is_empty();
        for (slot, tag) in self.window(&key).filter(empty) {
            if slot.fill(tag, verdict, now) {
                self.groups[slot.number as usize / GROUP].fetch_add(1, Relaxed);
                self.inserted.fetch_add(1, Relaxed);
                return true;
            }
        }
        self.full.fetch_add(1, Relaxed);
        let live = self.window(&key).filter(|(_, tag)| tag.is_live());
        let idlest = live.max_by_key(|(slot, _)| now.saturating_sub(slot.last_used()));
        if let Some((slot, tag)) = idlest.filter(|(slot, _)| now.saturating_sub(slot.last_used()) > IDLE) {
            self.retire(slot, tag);
        }
        false
    }

    /// Takes back the verdicts for packets received with this tuple, from whichever interface.
    pub fn remove(&self, received: &Tuple) {
        let key = KeyWords::new(&Key { ifindex: 0, tuple: *received });
        for (slot, tag) in self.window(&key).filter(|(slot, tag)| tag.is_live() && slot.holds_tuple(&key)) {
            self.retire(slot, tag);
        }
    }

    /// Totals since the table was made.
    pub fn stats(&self) -> Stats {
        let used: u64 = self.groups.iter().map(|group| u64::from(group.load(Relaxed))).sum();
        Stats {
            capacity: self.slots.len(),
            entries: used.saturating_sub(self.retired.load(Relaxed)) as usize,
            inserted: self.inserted.load(Relaxed),
            removed: self.removed.load(Relaxed),
            full: self.full.load(Relaxed),
        }
    }

    pub(crate) fn retire(&self, slot: Slot<'_>, tag: Tag) -> bool {
        let retired = slot.retire(tag);
        self.retired.fetch_add(retired.into(), Relaxed);
        self.removed.fetch_add(retired.into(), Relaxed);
        retired
    }

    fn window(&self, key: &KeyWords) -> impl Iterator<Item = (Slot<'_>, Tag)> {
        let (first, mask) = (key.hash() as u32, self.slots.len() as u32 - 1);
        (0..WINDOW).map(move |step| {
            let number = first.wrapping_add(step) & mask;
            let slot = Slot { number, words: &self.slots[number as usize] };
            (slot, slot.tag())
        })
    }
}
