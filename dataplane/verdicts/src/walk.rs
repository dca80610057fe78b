//! Passes over the whole table, off the packet's way, by one thread at a time.

use crate::slot::{Slot, Tag};
use crate::table::GROUP;
use crate::{Nanoseconds, Table, Verdict};
use alloc::vec::Vec;
use core::sync::atomic::Ordering::Relaxed;

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

impl Table {
    /// Calls `each` for every live verdict, accounting its packets.
    pub fn account(&self, mut each: impl FnMut(&Usage)) {
        for (slot, tag) in self.used().filter(|(_, tag)| tag.is_live()) {
            if let Some(verdict) = slot.consistent(tag, Slot::verdict) {
                each(&usage(slot, tag, verdict));
            }
        }
    }

    /// Calls `each` for every live verdict; what it was used for stays to be accounted.
    pub fn for_each(&self, mut each: impl FnMut(&Verdict, VerdictId)) {
        for (slot, tag) in self.used().filter(|(_, tag)| tag.is_live()) {
            if let Some(verdict) = slot.consistent(tag, Slot::verdict) {
                each(&verdict, VerdictId { slot: slot.number, tag });
            }
        }
    }

    /// Takes a verdict back; false if that has happened already.
    pub fn take_back(&self, id: VerdictId) -> bool {
        self.retire(self.slot(id.slot), id.tag)
    }

    /// Notes that a verdict is right under `generation` of the tables.
    pub fn confirm(&self, id: VerdictId, generation: u32) {
        self.slot(id.slot).confirm(generation);
    }

    /// Takes every verdict back.
    pub fn flush(&self) {
        for (slot, tag) in self.used() {
            self.retire(slot, tag);
        }
    }

    /// The slots that were taken back and not collected since.
    pub fn retired(&self) -> Retired {
        if self.retired.load(Relaxed) == 0 {
            return Retired(Vec::new());
        }
        Retired(self.used().filter(|(_, tag)| tag.is_retired()).map(|(slot, _)| slot.number).collect())
    }

    /// Makes retired slots empty, calling `each` for what was not accounted of them yet.
    pub fn recycle(&self, retired: Retired, mut each: impl FnMut(&Usage)) {
        for slot in retired.0.into_iter().map(|number| self.slot(number)) {
            each(&usage(slot, slot.tag(), slot.verdict()));
            slot.empty();
            self.groups[slot.number as usize / GROUP].fetch_sub(1, Relaxed);
            self.retired.fetch_sub(1, Relaxed);
        }
    }

    /// Makes memory of an earlier process usable: half-written slots become empty.
    pub(crate) fn adopt(&self) {
        for number in 0..self.slots.len() as u32 {
            let slot = self.slot(number);
            let tag = slot.tag();
            if tag.is_live() || tag.is_retired() {
                self.groups[number as usize / GROUP].fetch_add(1, Relaxed);
                self.retired.fetch_add(tag.is_retired().into(), Relaxed);
            } else if !tag.is_empty() {
                slot.empty();
            }
        }
    }

    fn slot(&self, number: u32) -> Slot<'_> {
        Slot { number, words: &self.slots[number as usize] }
    }

    /// Slots of groups that are not empty.
    fn used(&self) -> impl Iterator<Item = (Slot<'_>, Tag)> {
        let groups = self.groups.iter().enumerate().filter(|(_, used)| used.load(Relaxed) > 0);
        let numbers =
            groups.flat_map(|(group, _)| group * GROUP..((group + 1) * GROUP).min(self.slots.len()));
        numbers.map(|number| {
            let slot = self.slot(number as u32);
            (slot, slot.tag())
        })
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

fn usage(slot: Slot<'_>, tag: Tag, verdict: Verdict) -> Usage {
    let last_used = slot.last_used();
    let (packets, bytes) = slot.account();
    Usage { verdict, packets, bytes, last_used, slot: slot.number, tag }
}
