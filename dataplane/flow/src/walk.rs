//! Passes over the whole table, off the packet's way.

use crate::slot::{Kind, Slot, Tag};
use crate::{Flow, Seconds, Table};
use std::ops::Range;
use std::sync::atomic::Ordering::Relaxed;

impl Table {
    /// Removes expired entries of `buckets` buckets from position `from`; returns the next
    /// position (wraps to 0) and how many were removed.
    pub fn sweep(&self, from: usize, buckets: usize, now: Seconds) -> (usize, usize) {
        let total = self.memory.buckets();
        let from = if from < total { from } else { 0 };
        let to = from.saturating_add(buckets).min(total);
        let expired = self.live(from..to, |slot, _| slot.expired(now)).filter(|(_, _, expired)| *expired);
        let removed = expired.filter(|(slot, tag, _)| self.clear(*slot, *tag)).count();
        (if to == total { 0 } else { to }, removed)
    }

    /// Calls `each` for every live flow (`true` for service entries, whose `tuple` is client →
    /// frontend and `translated_from` is the chosen backend).
    pub fn for_each(&self, now: Seconds, mut each: impl FnMut(&Flow, bool)) {
        let flow = |slot: &Slot<'_>, tag| (!slot.expired(now)).then(|| (slot.flow(tag), slot.kind()));
        for (flow, kind) in self.live(0..self.memory.buckets(), flow).filter_map(|(_, _, flow)| flow) {
            each(&flow, kind == Kind::Service);
        }
    }

    /// Empties the table; returns how many were removed.
    pub fn flush(&self) -> usize {
        let live = self.live(0..self.memory.buckets(), |_, _| ());
        live.filter(|(slot, tag, ())| self.clear(*slot, *tag)).count()
    }

    /// Makes memory of a process that was killed usable: slots that it was filling are emptied.
    /// What has expired since stays, packets may have passed without us ([`Table::add`]). Returns
    /// the number of entries. Nobody else may use the memory yet.
    pub(crate) fn adopt(&self) -> usize {
        let mut live = 0;
        for slot in self.memory.used(0..self.memory.buckets()).flat_map(|bucket| self.memory.bucket(bucket)) {
            let tag = slot.tag();
            if tag.is_live() {
                live += 1;
            } else if !tag.is_empty() {
                slot.clear(tag);
            }
        }
        self.totals.entries.store(live as u64, Relaxed);
        live
    }

    /// The live slots of some buckets, and what `read` makes of them.
    fn live<T>(
        &self,
        buckets: Range<usize>,
        read: impl Fn(&Slot<'_>, Tag) -> T,
    ) -> impl Iterator<Item = (Slot<'_>, Tag, T)> {
        self.memory.used(buckets).flat_map(|bucket| self.memory.bucket(bucket)).filter_map(move |slot| {
            let tag = slot.tag();
            Some((slot, tag, tag.is_live().then(|| slot.read(tag, |slot| read(slot, tag)))??))
        })
    }
}
