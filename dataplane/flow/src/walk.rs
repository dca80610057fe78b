//! Passes over the whole table, off the packet's way.

use crate::slot::{Kind, Record, Slot, Tag};
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
        let expired = self.live(from..to).filter(|(_, _, record)| record.expired(now));
        let removed = expired.filter(|(slot, tag, _)| self.clear(*slot, *tag)).count();
        (if to == total { 0 } else { to }, removed)
    }

    /// Calls `each` for every live flow (`true` for service entries, whose `tuple` is client →
    /// frontend and `translated_from` is the chosen backend).
    pub fn for_each(&self, now: Seconds, mut each: impl FnMut(&Flow, bool)) {
        for (slot, tag, record) in self.live(0..self.memory.buckets()) {
            if !record.expired(now) {
                each(&record.flow(slot.id(tag)), record.kind() == Kind::Service);
            }
        }
    }

    /// Empties the table; returns how many were removed.
    pub fn flush(&self) -> usize {
        let live = self.live(0..self.memory.buckets());
        live.filter(|(slot, tag, _)| self.clear(*slot, *tag)).count()
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

    fn live(&self, buckets: Range<usize>) -> impl Iterator<Item = (Slot<'_>, Tag, Record)> {
        self.memory.used(buckets).flat_map(|bucket| self.memory.bucket(bucket)).filter_map(|slot| {
            let tag = slot.tag();
            Some((slot, tag, tag.is_live().then(|| slot.read(tag))??))
        })
    }
}
