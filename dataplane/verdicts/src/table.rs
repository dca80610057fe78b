//! Find, insert, take back.

use crate::memory;
use crate::slot::{KeyWords, Slot, Tag, WORDS, Words, mac_word};
use crate::{Hit, Key, Nanoseconds, Stats, Verdict};
use alloc::boxed::Box;
use core::sync::atomic::Ordering::{Relaxed, SeqCst};
use core::sync::atomic::{AtomicU32, AtomicU64, fence};
use wire::{MacAddr, Protocol, Tuple, prefetch};

/// Slots that a key may live in, from the place that its hash names.
const WINDOW: u32 = 4;
/// Words of a cache line.
const LINE: usize = 8;
/// Slots of a group: what passes over the table skip if nothing is in it.
pub(crate) const GROUP: usize = 64;
/// A verdict without packets for so long may be taken back to make room for another.
const IDLE: Nanoseconds = 1_000_000_000;

/// The table. Every method is bounded, lock-free and without system calls.
#[derive(Debug)]
pub struct Table {
    pub(crate) slots: &'static [Words],
    /// Programs of the kernel use it too.
    shared: bool,
    /// Slots in use, per group; never fewer than there are.
    pub(crate) groups: Box<[AtomicU32]>,
    pub(crate) retired: Chain,
    /// Set once there is one: the generation of tables that verdicts must be made under, or later.
    pub(crate) required: AtomicU64,
    inserted: AtomicU64,
    removed: AtomicU64,
    full: AtomicU64,
}

/// Slots that were taken back and not collected since: the first one's number and how many.
#[derive(Debug)]
pub(crate) struct Chain {
    pub(crate) first: AtomicU64,
    pub(crate) length: AtomicU64,
}

/// A packet as it is looked up.
#[derive(Clone, Copy, Debug)]
pub struct Probe {
    place: Place,
    mac: u64,
}

/// A key and the slot that its hash names.
#[derive(Clone, Copy, Debug)]
struct Place {
    key: KeyWords,
    first: u32,
}

/// What came of [`Table::insert`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Inserted {
    /// The verdict is new in the table.
    New,
    /// It was there already, and good for longer now.
    Refreshed,
    /// It is not in the table: there was no room, or it was made under tables that verdicts have
    /// been checked against newer ones of.
    Refused,
}

impl Probe {
    /// The packet's tuple.
    pub fn tuple(&self) -> Tuple {
        self.place.key.tuple()
    }

    /// The packet's protocol.
    #[inline]
    pub fn protocol(&self) -> Protocol {
        self.place.key.protocol()
    }
}

impl Table {
    /// Memory words of one slot.
    pub const SLOT_WORDS: usize = WORDS;

    /// Uses `words`, which programs of the kernel see, as the table: as many slots as fit, a power
    /// of two. Verdicts that an earlier process left in them stay.
    ///
    /// # Panics
    /// If there is not room for one slot.
    pub fn new(words: &'static [AtomicU64]) -> Table {
        Self::over(words, true)
    }

    fn over(words: &'static [AtomicU64], shared: bool) -> Table {
        let all = words.as_chunks().0;
        assert!(!all.is_empty(), "{} words are too few for a table", words.len());
        let slots = &all[..1 << all.len().ilog2()];
        let table = Table {
            slots,
            shared,
            groups: (0..slots.len().div_ceil(GROUP)).map(|_| AtomicU32::new(0)).collect(),
            retired: Chain { first: AtomicU64::new(Slot::NO_NEXT), length: AtomicU64::new(0) },
            required: AtomicU64::new(0),
            inserted: AtomicU64::new(0),
            removed: AtomicU64::new(0),
            full: AtomicU64::new(0),
        };
        table.adopt();
        table
    }

    /// A private table of at least `slots` slots on the heap. Its memory is never freed, and
    /// resident only as far as it has been used.
    pub fn boxed(slots: usize) -> Table {
        Self::over(memory::zeroed(slots.next_power_of_two() * WORDS), false)
    }

    /// Prepares a lookup for a packet with this key and link-layer address (source if from a pod,
    /// destination if from an uplink), and asks for the memory that it will most likely need.
    #[inline(always)]
    pub fn probe(&self, key: &Key, mac: MacAddr) -> Probe {
        let place = self.place(key);
        self.slot(place.first).words.iter().step_by(LINE).for_each(prefetch);
        Probe { place, mac: mac_word(mac) }
    }

    /// Whether there is a verdict where one for this packet would be first: a guess at the least cost.
    #[inline]
    pub fn may_hold(&self, probe: &Probe) -> bool {
        self.slot(probe.place.first).tag().is_live()
    }

    /// Asks for the memory that [`Table::remove`] of this tuple will read.
    pub fn prefetch(&self, received: &Tuple) {
        let place = self.place(&Key { ifindex: 0, tuple: *received });
        let slots = (0..WINDOW).map(|step| self.slot(place.first.wrapping_add(step) & self.mask()));
        slots.for_each(|slot| prefetch(slot.words));
    }

    /// The verdict for a packet, unless it has not been used for longer than its lifetime or is
    /// not confirmed under `generation`. What else must be true of the packet is listed at the
    /// crate.
    #[inline(always)]
    pub fn lookup(&self, probe: &Probe, generation: u32, now: Nanoseconds) -> Option<Hit<'_>> {
        let Probe { place, mac } = probe;
        let (slot, tag) = self.window(place).find(|(slot, tag)| tag.is_live() && slot.holds(&place.key))?;
        slot.consistent(tag, |slot| slot.is_good(*mac, generation, now).then(|| slot.hit(self.shared)))?
    }

    /// Writes a verdict, in the place of one about the same packets. If there is no room one that
    /// has idled makes room for the next try.
    pub fn insert(&self, verdict: &Verdict, now: Nanoseconds) -> Inserted {
        let place = self.place(&verdict.key);
        for (slot, tag) in self.window(&place).filter(|(slot, tag)| tag.is_live() && slot.holds(&place.key)) {
            let Some(old) = slot.consistent(tag, Slot::verdict) else { continue };
            let same = Verdict { lifetime: old.lifetime, generation: old.generation, ..*verdict } == old;
            if same {
                slot.refresh(tag, verdict, now);
                return Inserted::Refreshed;
            }
            self.retire(slot, tag);
        }
        if let Some((slot, tag)) = self.fill(&place, verdict, now) {
            self.inserted.fetch_add(1, Relaxed);
            return if self.is_outdated(verdict.generation) && self.retire(slot, tag) {
                Inserted::Refused
            } else {
                Inserted::New
            };
        }
        self.full.fetch_add(1, Relaxed);
        let live = self.window(&place).filter(|(_, tag)| tag.is_live());
        let idle = live.map(|(slot, tag)| (now.saturating_sub(slot.last_used()), slot, tag));
        if let Some((_, slot, tag)) = idle.filter(|(idle, ..)| *idle > IDLE).max_by_key(|(idle, ..)| *idle) {
            self.retire(slot, tag);
        }
        Inserted::Refused
    }

    /// Takes back the verdicts for packets received with this tuple, from whichever interface.
    pub fn remove(&self, received: &Tuple) {
        let place = self.place(&Key { ifindex: 0, tuple: *received });
        for (slot, tag) in
            self.window(&place).filter(|(slot, tag)| tag.is_live() && slot.holds_tuple(&place.key))
        {
            self.retire(slot, tag);
        }
    }

    /// Totals since the table was made.
    pub fn stats(&self) -> Stats {
        let used: u64 = self.groups.iter().map(|group| u64::from(group.load(Relaxed))).sum();
        let retired = self.retired.length.load(Relaxed);
        Stats {
            capacity: self.slots.len(),
            entries: used.saturating_sub(retired) as usize,
            retired: retired as usize,
            inserted: self.inserted.load(Relaxed),
            removed: self.removed.load(Relaxed),
            full: self.full.load(Relaxed),
        }
    }

    /// Takes a verdict out of use and hands its slot to [`Table::retired`].
    pub(crate) fn retire(&self, slot: Slot<'_>, tag: Tag) -> bool {
        let retired = slot.retire(tag);
        if retired {
            self.removed.fetch_add(1, Relaxed);
            self.chain(slot);
        }
        retired
    }

    #[inline]
    pub(crate) fn slot(&self, number: u32) -> Slot<'_> {
        Slot { number, words: &self.slots[number as usize] }
    }

    /// Puts a verdict into an empty slot, if one is in reach.
    fn fill(&self, place: &Place, verdict: &Verdict, now: Nanoseconds) -> Option<(Slot<'_>, Tag)> {
        for (slot, tag) in self.window(place).filter(|(_, tag)| tag.is_empty()) {
            // Before the verdict can be used, so that no pass skips it.
            let group = &self.groups[slot.number as usize / GROUP];
            group.fetch_add(1, Relaxed);
            if let Some(live) = slot.fill(tag, verdict, now) {
                return Some((slot, live));
            }
            group.fetch_sub(1, Relaxed);
        }
        None
    }

    /// Whether a pass has begun that holds verdicts against newer tables than these. Asked after
    /// the verdict was written: either the pass sees the verdict, or this sees the pass.
    fn is_outdated(&self, generation: u32) -> bool {
        fence(SeqCst);
        let required = self.required.load(Relaxed);
        required != 0 && (generation.wrapping_sub(required as u32) as i32) < 0
    }

    #[inline(always)]
    fn place(&self, key: &Key) -> Place {
        let key = KeyWords::new(key);
        Place { key, first: key.hash() as u32 & self.mask() }
    }

    #[inline]
    fn mask(&self) -> u32 {
        self.slots.len() as u32 - 1
    }

    #[inline]
    fn window(&self, place: &Place) -> impl Iterator<Item = (Slot<'_>, Tag)> {
        let (first, mask) = (place.first, self.mask());
        (0..WINDOW).map(move |step| {
            let slot = self.slot(first.wrapping_add(step) & mask);
            (slot, slot.tag())
        })
    }
}

#[cfg(test)]
mod tests;
