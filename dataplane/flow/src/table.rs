//! Find, insert, update, remove.
//!
//! A key may live in any slot of two buckets, named by two halves of its hash; a new entry goes
//! to the emptier one, which lets the table fill to seven tenths before the first flow finds no room.

use crate::lifetime::age;
use crate::memory::{Memory, SLOTS, Slots};
use crate::slot::{Activity, Key, Kind, Record, Slot, Tag};
use crate::{Count, Flow, FlowId, InsertError, NewFlow, Seconds, Side, Stats};
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use wire::{Address, Identity, Tuple, prefetch};

/// The table. Every method is bounded, and none waits for another but inserts of the same key,
/// which give up after some microseconds. `now` may wrap but does not go back by more than ticks.
#[derive(Debug)]
pub struct Table {
    pub(crate) memory: Memory,
    pub(crate) totals: Totals,
}

/// In cache lines of their own: all workers write here, and read what stands around it for every
/// packet.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(crate) struct Totals {
    pub(crate) entries: AtomicU64,
    evicted: AtomicU64,
    full: AtomicU64,
}

/// Where a key may live, and how to recognise it there.
#[derive(Clone, Copy)]
struct Place {
    hash: u64,
    buckets: [usize; 2],
    fingerprint: u32,
}

/// Tries to take a slot that another worker may take first.
const TRIES: usize = 4;

impl Table {
    /// Memory words needed for about `flows` entries (rounded up to whole buckets).
    pub fn words_for(flows: usize) -> usize {
        Memory::words_for(flows)
    }

    /// Uses `words` as the table. Zeroed memory becomes an empty table; memory of an earlier
    /// process is taken over after half-written slots are cleared, expired entries included;
    /// memory of another layout or another boot (`epoch` differs) is emptied. Returns the table
    /// and the number of entries taken over.
    ///
    /// # Panics
    /// If `words` is smaller than [`Table::words_for`] one flow.
    pub fn attach(words: &'static [AtomicU64], epoch: u64, seed: u64) -> (Table, usize) {
        let table = Table { memory: Memory::new(words, epoch, seed), totals: Totals::default() };
        let kept = table.adopt();
        (table, kept)
    }

    /// A private table on the heap, for tests and tools. Its memory is never freed.
    pub fn boxed(flows: usize, seed: u64) -> Table {
        const LINE_WORDS: usize = 8;
        let size = Self::words_for(flows);
        let words = (0..size + LINE_WORDS).map(|_| AtomicU64::new(0)).collect::<Box<[AtomicU64]>>();
        let words: &'static [AtomicU64] = Box::leak(words);
        let start = words.as_ptr().align_offset(LINE_WORDS * size_of::<AtomicU64>()).min(LINE_WORDS);
        Self::attach(&words[start..start + size], 0, seed).0
    }

    /// The flow a packet belongs to, and on which side it is.
    pub fn lookup(&self, tuple: &Tuple, now: Seconds) -> Option<(Flow, Side)> {
        let (slot, tag) = self.find(self.place(tuple, Kind::Flow), &Key::new(tuple, Kind::Flow))?;
        let flow = slot.read(tag, |slot| (!slot.expired(now)).then(|| slot.flow(tag)))??;
        let side = if flow.new.tuple == *tuple { Side::Original } else { Side::Reply };
        Some((flow, side))
    }

    /// What [`Table::lookup`] of this tuple gives, if it is the flow of this name.
    pub fn get(&self, id: FlowId, tuple: &Tuple, now: Seconds) -> Option<(Flow, Side)> {
        let (slot, tag) = self.named(id)?;
        let flow = slot.read(tag, |slot| (!slot.expired(now)).then(|| slot.flow(tag)))??;
        match flow.new.tuple {
            original if original == *tuple => Some((flow, Side::Original)),
            original if original == tuple.reversed() => Some((flow, Side::Reply)),
            _ => None,
        }
    }

    /// Asks for the memory that [`Table::lookup`] of this tuple will read. Worth it for all packets
    /// of a burst before the first is looked up.
    pub fn prefetch(&self, tuple: &Tuple) {
        self.place(tuple, Kind::Flow).buckets.into_iter().for_each(|bucket| self.memory.prefetch(bucket));
    }

    /// Asks for the memory of a flow.
    pub fn prefetch_flow(&self, id: FlowId) {
        if let Some(slot) = self.memory.slot(id.slot) {
            prefetch(slot.tag);
            slot.prefetch();
        }
    }

    /// The same as [`Table::prefetch`] for [`Table::lookup_service`].
    pub fn prefetch_service(&self, client: &Tuple) {
        self.place(client, Kind::Service).buckets.into_iter().for_each(|bucket| self.memory.prefetch(bucket));
    }

    /// Asks for the entry that [`Table::lookup`] of this tuple will find or [`Table::insert`] will
    /// write. Worth it when what [`Table::prefetch`] has asked for is there.
    pub fn prefetch_entry(&self, tuple: &Tuple) {
        self.prefetch_slot(self.place(tuple, Kind::Flow));
    }

    /// The same for [`Table::lookup_service`] and [`Table::insert_service`].
    pub fn prefetch_service_entry(&self, client: &Tuple) {
        self.prefetch_slot(self.place(client, Kind::Service));
    }

    /// The backend a client's flow to a service frontend was given: (address, port, service id).
    pub fn lookup_service(&self, client: &Tuple, now: Seconds) -> Option<(FlowId, Address, u16, u32)> {
        let (slot, tag) = self.find(self.place(client, Kind::Service), &Key::new(client, Kind::Service))?;
        let read = |slot: &Slot<'_>| {
            let (address, port) = slot.translated()?;
            let found = !slot.expired(now) && slot.tuple() == *client;
            found.then(|| (slot.id(tag), address, port, slot.service()))
        };
        slot.read(tag, read)?
    }

    /// Creates a flow.
    ///
    /// # Errors
    /// [`InsertError::Busy`] also if the flow exists, in whichever direction.
    pub fn insert(&self, flow: &NewFlow, now: Seconds) -> Result<FlowId, InsertError> {
        self.create(&Record::new(flow, Kind::Flow, now), &flow.tuple, Kind::Flow, now)
    }

    /// Creates a flow with its first packet: [`Table::insert`] and [`Table::touch`] in one.
    ///
    /// # Errors
    /// As [`Table::insert`].
    pub fn begin(
        &self,
        flow: &NewFlow,
        tcp_flags: u8,
        bytes: u32,
        now: Seconds,
    ) -> Result<FlowId, InsertError> {
        let first = Count { packets: 1, bytes: bytes.into() };
        let record = Record::new(flow, Kind::Flow, now).with_first(tcp_flags, first);
        self.create(&record, &flow.tuple, Kind::Flow, now)
    }

    /// Remembers the backend chosen for `client` (tuple with the frontend as destination).
    ///
    /// The entry lives as long as the flow from `client` to the backend, whose state it is given
    /// by [`Table::touch`]; an entry whose flow has another source (hairpin) has to be touched
    /// itself. To give the client another backend, remove the entry first.
    ///
    /// # Errors
    /// [`InsertError::Busy`] also if there is one.
    pub fn insert_service(
        &self,
        client: &Tuple,
        backend: (Address, u16),
        service: u32,
        now: Seconds,
    ) -> Result<FlowId, InsertError> {
        self.create(&service_record(client, backend, service, now), client, Kind::Service, now)
    }

    /// The same, for a flow whose first packet has these TCP flags.
    ///
    /// # Errors
    /// As [`Table::insert_service`].
    pub fn begin_service(
        &self,
        client: &Tuple,
        backend: (Address, u16),
        service: u32,
        tcp_flags: u8,
        now: Seconds,
    ) -> Result<FlowId, InsertError> {
        let record = service_record(client, backend, service, now).with_first(tcp_flags, Count::default());
        self.create(&record, client, Kind::Service, now)
    }

    /// Counts a packet and advances TCP state and lifetime. `tcp_flags` is 0 for other protocols.
    pub fn touch(&self, id: FlowId, side: Side, tcp_flags: u8, bytes: u32, now: Seconds) {
        self.add(id, side, tcp_flags, Count { packets: 1, bytes: bytes.into() }, now);
    }

    /// Counts packets that passed without us, the last of them at `now`, like [`Table::touch`].
    /// False if there is no such flow any more.
    pub fn add(&self, id: FlowId, side: Side, tcp_flags: u8, passed: Count, now: Seconds) -> bool {
        let Some((slot, tag)) = self.named(id) else { return false };
        let overdue = slot.expired(now);
        slot.count(side, passed);
        // At most once a second, but for changes of state.
        if let Some(activity) = slot.advance(tag, side, tcp_flags, now)
            && let Some(Some((client, backend))) = slot.read(tag, client_and_backend)
        {
            self.prolong_service(&client, backend, activity, |entry| overdue || !entry.expired(now));
        }
        true
    }

    /// Records that policy `generation` still allows the flow.
    pub fn restamp(&self, id: FlowId, generation: u32) {
        if let Some((slot, tag)) = self.named(id) {
            slot.restamp(tag, generation);
        }
    }

    /// Removes an entry; false if it was gone already.
    pub fn remove(&self, id: FlowId) -> bool {
        self.named(id).is_some_and(|(slot, tag)| self.clear(slot, tag))
    }

    /// Live entries, evictions and failed inserts so far.
    pub fn stats(&self) -> Stats {
        Stats {
            capacity: self.memory.buckets() * SLOTS,
            entries: self.totals.entries.load(Relaxed) as usize,
            evicted: self.totals.evicted.load(Relaxed),
            full: self.totals.full.load(Relaxed),
        }
    }

    pub(crate) fn clear(&self, slot: Slot<'_>, tag: Tag) -> bool {
        let cleared = slot.clear(tag);
        if cleared {
            self.totals.entries.fetch_sub(1, Relaxed);
        }
        cleared
    }

    fn place(&self, tuple: &Tuple, kind: Kind) -> Place {
        // The two kinds of one tuple should not share their buckets.
        let hash =
            tuple.symmetric_hash(self.memory.seed()).rotate_left(if kind == Kind::Service { 24 } else { 0 });
        let bucket = |half: u32| ((u64::from(half) * self.memory.buckets() as u64) >> 32) as usize;
        Place {
            hash,
            buckets: [bucket((hash >> 32) as u32), bucket(hash as u32)],
            // The bits that decide least about the bucket.
            fingerprint: (hash >> 16) as u32,
        }
    }

    /// The slot that holds a key, expired or not.
    #[inline]
    fn find(&self, place: Place, key: &Key) -> Option<(Slot<'_>, Tag)> {
        let may_hold = |tag: Tag| tag.may_hold(place.fingerprint);
        self.memory.prefetch(place.buckets[1]);
        for slot in place.buckets.into_iter().flat_map(|bucket| self.memory.having(bucket, may_hold)) {
            let tag = slot.tag();
            if may_hold(tag) && slot.read(tag, |slot| slot.is(key)) == Some(true) {
                return Some((slot, tag));
            }
        }
        None
    }

    fn named(&self, id: FlowId) -> Option<(Slot<'_>, Tag)> {
        let slot = self.memory.slot(id.slot)?;
        let tag = slot.tag();
        (tag.is_live() && tag.version() == id.version).then_some((slot, tag))
    }

    fn create(
        &self,
        record: &Record,
        tuple: &Tuple,
        kind: Kind,
        now: Seconds,
    ) -> Result<FlowId, InsertError> {
        let (place, key) = (self.place(tuple, kind), record.key());
        let _lock = self.memory.lock(place.hash).ok_or(InsertError::Busy)?;
        for _ in 0..TRIES {
            let room = self.room(place, &key, now)?;
            self.memory.mark_used(room.slot.number);
            if let Some(id) = room.slot.take(room.tag, place.fingerprint, record) {
                self.totals.entries.fetch_add(room.tag.is_empty().into(), Relaxed);
                self.totals.evicted.fetch_add(room.evicts.into(), Relaxed);
                return Ok(id);
            }
        }
        Err(InsertError::Busy)
    }

    /// The slot for a new entry. The caller holds the key's lock.
    fn room(&self, place: Place, key: &Key, now: Seconds) -> Result<Room<'_>, InsertError> {
        if let Some((slot, tag)) = self.find(place, key) {
            return match slot.read(tag, |slot| slot.expired(now)) {
                Some(true) => Ok(Room { slot, tag, evicts: false }),
                _ => Err(InsertError::Busy),
            };
        }
        let empty = self.empty(place).map(|slot| (slot, slot.tag())).find(|(_, tag)| tag.is_empty());
        if let Some((slot, tag)) = empty {
            return Ok(Room { slot, tag, evicts: false });
        }
        self.victim(place, now).ok_or_else(|| {
            self.totals.full.fetch_add(1, Relaxed);
            InsertError::Full
        })
    }

    /// The empty slots of the emptier bucket.
    fn empty(&self, place: Place) -> Slots<'_> {
        let [first, second] = place.buckets.map(|bucket| self.memory.having(bucket, Tag::is_empty));
        if second.len() > first.len() { second } else { first }
    }

    /// Asks for the slot that holds a key, or else the one that a new entry will go to.
    fn prefetch_slot(&self, place: Place) {
        let may_hold = |bucket| self.memory.having(bucket, |tag| tag.may_hold(place.fingerprint));
        let mut holders = place.buckets.into_iter().flat_map(may_hold);
        if let Some(slot) = holders.next().or_else(|| self.empty(place).next()) {
            slot.prefetch();
        }
    }

    /// Of the entries in reach an expired one, else the oldest that nobody has answered.
    fn victim(&self, place: Place, now: Seconds) -> Option<Room<'_>> {
        let slots = place.buckets.into_iter().flat_map(|bucket| self.memory.having(bucket, Tag::is_live));
        let entries = slots.filter_map(|slot| {
            let (tag, read) =
                (slot.tag(), |slot: &Slot<'_>| (slot.expired(now), slot.activity(), slot.created()));
            Some((slot, tag, tag.is_live().then(|| slot.read(tag, read))??))
        });
        if let Some((slot, tag, _)) = entries.clone().find(|(_, _, (expired, ..))| *expired) {
            return Some(Room { slot, tag, evicts: false });
        }
        let unreplied = entries.filter(|(_, _, (_, activity, _))| !activity.state.replied);
        let oldest = unreplied.max_by_key(|(_, _, (.., created))| age(*created, now));
        oldest.map(|(slot, tag, _)| Room { slot, tag, evicts: true })
    }

    /// Gives the service entry behind a translated flow the flow's activity: the backend is
    /// remembered exactly as long as the flow lives, whichever side keeps it alive. What both would
    /// have expired without comes back with both.
    fn prolong_service(
        &self,
        client: &Tuple,
        backend: (Address, u16),
        activity: Activity,
        lives: impl Fn(&Slot<'_>) -> bool,
    ) {
        let (place, key) = (self.place(client, Kind::Service), Key::new(client, Kind::Service));
        let same = |slot: &Slot<'_>| slot.translated() == Some(backend) && lives(slot);
        if let Some((slot, tag)) = self.find(place, &key)
            && slot.read(tag, same) == Some(true)
        {
            slot.update_activity(tag, |_| activity);
        }
    }
}

fn service_record(client: &Tuple, backend: (Address, u16), service: u32, now: Seconds) -> Record {
    let entry = NewFlow {
        tuple: *client,
        translated_from: Some(backend),
        service,
        src_identity: Identity::UNKNOWN,
        dst_identity: Identity::UNKNOWN,
        generation: 0,
    };
    Record::new(&entry, Kind::Service, now)
}

/// The client's tuple, as it sends, and the backend of a translated flow.
fn client_and_backend(flow: &Slot<'_>) -> Option<(Tuple, (Address, u16))> {
    let (Kind::Flow, Some((dst, dport))) = (flow.kind(), flow.translated()) else { return None };
    let tuple = flow.tuple();
    Some((Tuple { dst, dport, ..tuple }, (tuple.dst, tuple.dport)))
}

/// A slot that a new entry may take.
struct Room<'a> {
    slot: Slot<'a>,
    tag: Tag,
    /// Whether a living entry has to go.
    evicts: bool,
}

#[cfg(test)]
mod tests;
