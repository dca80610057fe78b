//! Passes over the whole table, off the packet's way. One thread at a time accounts and recycles,
//! and one at a time revalidates; the two may be at it together.

use crate::slot::{Slot, Tag};
use crate::table::GROUP;
use crate::{Nanoseconds, Table, Verdict};
use alloc::vec::Vec;
use core::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, SeqCst};
use core::sync::atomic::fence;

/// Verdicts whose memory is asked for at a time.
const BATCH: usize = 64;

/// A verdict in its slot and what it was used for.
#[derive(Clone, Copy, Debug)]
pub struct Usage {
    /// What it says.
    pub verdict: Verdict,
    /// Packets since the last pass that accounted.
    pub packets: u64,
    /// Bytes (L3 length) since then.
    pub bytes: u64,
    /// When the last packet came.
    pub last_used: Nanoseconds,
    slot: u32,
    tag: Tag,
}

/// Slots that were taken back. They can be used again after [`Table::recycle`], which must not be
/// called before every program of the kernel that ran when they were collected has ended
/// (`membarrier(2)` with `MEMBARRIER_CMD_GLOBAL` waits for that).
#[derive(Debug)]
pub struct Retired(Vec<u32>);

impl Retired {
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Names a verdict until it is taken back.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct VerdictId {
    slot: u32,
    tag: Tag,
}

impl Usage {
    /// The verdict's name.
    pub fn id(&self) -> VerdictId {
        VerdictId { slot: self.slot, tag: self.tag }
    }
}

/// What a pass of [`Table::revalidate`] found.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Revalidated {
    /// Verdicts that hold.
    pub confirmed: usize,
    /// Verdicts that were taken back.
    pub revoked: usize,
}

impl Table {
    /// Holds every verdict against tables of a new `generation`: those that `holds` refuses are
    /// taken back, also such as workers that still have the tables of before write meanwhile.
    /// Verdicts that were made or confirmed under this generation already are not asked about, and
    /// those hold that are not `doubtful`. `ahead` is told of some before each of them is asked about,
    /// to prefetch what that takes.
    pub fn revalidate(
        &self,
        generation: u32,
        mut doubtful: impl FnMut(&Verdict) -> bool,
        mut ahead: impl FnMut(&[Verdict]),
        mut holds: impl FnMut(&Verdict) -> bool,
    ) -> Revalidated {
        /// What tells a generation from none.
        const SOME: u64 = 1 << 32;
        self.required.store(SOME | u64::from(generation), Relaxed);
        // Orders this before the walk, as a worker orders its verdict before it looks here.
        fence(SeqCst);
        let older = self.live().filter(|(slot, _)| slot.generation() != generation);
        let mut found = Revalidated::default();
        let (mut slots, mut verdicts) = (Vec::with_capacity(BATCH), Vec::with_capacity(BATCH));
        let mut settle = |slots: &mut Vec<_>, verdicts: &mut Vec<_>, found: &mut Revalidated| {
            ahead(verdicts);
            for ((slot, tag), verdict) in slots.drain(..).zip(verdicts.drain(..)) {
                self.settle((slot, tag), generation, holds(&verdict), found);
            }
        };
        for (slot, tag) in older {
            let Some(verdict) = slot.consistent(tag, Slot::verdict) else { continue };
            if !doubtful(&verdict) {
                self.settle((slot, tag), generation, true, &mut found);
                continue;
            }
            slots.push((slot, tag));
            verdicts.push(verdict);
            if verdicts.len() == BATCH {
                settle(&mut slots, &mut verdicts, &mut found);
            }
        }
        settle(&mut slots, &mut verdicts, &mut found);
        found
    }

    /// Confirms a verdict that holds, takes back another.
    fn settle(&self, (slot, tag): (Slot<'_>, Tag), generation: u32, holds: bool, found: &mut Revalidated) {
        if holds {
            slot.confirm(tag, generation);
            found.confirmed += 1;
        } else {
            found.revoked += usize::from(self.retire(slot, tag));
        }
    }

    /// Calls `each` for every live verdict, accounting its packets.
    pub fn account(&self, mut each: impl FnMut(&Usage)) {
        for (slot, tag) in self.live() {
            if let Some(verdict) = slot.consistent(tag, Slot::verdict) {
                each(&usage(slot, tag, verdict));
            }
        }
    }

    /// Calls `each` for every live verdict; what it was used for stays to be accounted.
    pub fn for_each(&self, mut each: impl FnMut(&Verdict, VerdictId)) {
        for (slot, tag) in self.live() {
            if let Some(verdict) = slot.consistent(tag, Slot::verdict) {
                each(&verdict, VerdictId { slot: slot.number, tag });
            }
        }
    }

    /// Takes a verdict back; false if that has happened already.
    pub fn take_back(&self, id: VerdictId) -> bool {
        self.retire(self.slot(id.slot), id.tag)
    }

    /// Takes every verdict back.
    pub fn flush(&self) {
        for (slot, tag) in self.live() {
            self.retire(slot, tag);
        }
    }

    /// The slots that were taken back and not collected since.
    pub fn retired(&self) -> Retired {
        let mut next = self.retired.first.swap(Slot::NO_NEXT, Acquire);
        let mut slots = Vec::new();
        while next != Slot::NO_NEXT {
            let number = next as u32;
            slots.push(number);
            next = self.slot(number).next();
        }
        Retired(slots)
    }

    /// Makes retired slots empty, calling `each` for what was not accounted of them yet.
    pub fn recycle(&self, retired: Retired, mut each: impl FnMut(&Usage)) {
        for slot in retired.0.into_iter().map(|number| self.slot(number)) {
            each(&usage(slot, slot.tag(), slot.verdict()));
            slot.empty();
            self.groups[slot.number as usize / GROUP].fetch_sub(1, Relaxed);
            self.retired.length.fetch_sub(1, Relaxed);
        }
    }

    /// Makes memory of an earlier process usable: half-written slots become empty.
    pub(crate) fn adopt(&self) {
        for slot in (0..self.slots.len() as u32).map(|number| self.slot(number)) {
            let tag = slot.tag();
            if tag.is_live() || tag.is_retired() {
                self.groups[slot.number as usize / GROUP].fetch_add(1, Relaxed);
            } else if !tag.is_empty() {
                slot.empty();
            }
            if tag.is_retired() {
                self.chain(slot);
            }
        }
    }

    /// Puts a slot that was just retired before the others.
    pub(crate) fn chain(&self, slot: Slot<'_>) {
        self.retired.length.fetch_add(1, Relaxed);
        let link = |first| {
            slot.set_next(first);
            Some(slot.number.into())
        };
        // Never refused: `link` always says with what to go on.
        let _ = self.retired.first.fetch_update(AcqRel, Relaxed, link);
    }

    /// Live slots.
    fn live(&self) -> impl Iterator<Item = (Slot<'_>, Tag)> {
        let groups = self.groups.iter().enumerate().filter(|(_, used)| used.load(Relaxed) > 0);
        let numbers =
            groups.flat_map(|(group, _)| group * GROUP..((group + 1) * GROUP).min(self.slots.len()));
        let slots = numbers.map(|number| {
            let slot = self.slot(number as u32);
            (slot, slot.tag())
        });
        slots.filter(|(_, tag)| tag.is_live())
    }
}

fn usage(slot: Slot<'_>, tag: Tag, verdict: Verdict) -> Usage {
    let last_used = slot.last_used();
    let (packets, bytes) = slot.account();
    Usage { verdict, packets, bytes, last_used, slot: slot.number, tag }
}
