//! One entry's layout in memory and the protocol that keeps readers from torn ones.
//!
//! A slot is a tag and fifteen words. The tag holds the version of the slot, some bits of the
//! hash and whether the slot is empty, busy (being filled) or live. Whoever takes a slot moves
//! its tag to busy with the next version by compare-exchange, fills the words and then publishes
//! the tag as live. A reader reads tag, words, tag: if both tags are equal and live, the words
//! belong together. Nobody ever waits for a slot.
//!
//! The words that change while the slot is live (stamp, activity) carry the version themselves
//! and are changed by compare-exchange, so a late writer cannot hit the slot's next tenant.
//! Counters do without: a count that goes astray in that window is harmless.

use crate::lifetime::{age, lifetime};
use crate::{Count, Flow, FlowId, NewFlow, Seconds, Side, State};
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicU64, fence};
use wire::{Address, Identity, Protocol, Tuple, prefetch};

/// Words of a slot without its tag: 120 bytes.
pub(crate) const WORDS: usize = 15;

const LOW: usize = 0; // and 1: the smaller (address, port)
const HIGH: usize = 2; // and 3: the greater
const PORTS: usize = 4; // port of low, port of high, protocol, flags, translated port
const TRANSLATED: usize = 5; // and 6
const STAMP: usize = 7; // generation, version of the slot
const IDENTITIES: usize = 8; // of source, of destination
const ACTIVITY: usize = 9; // see `Activity`
const BIRTH: usize = 10; // created, service
const COUNTS: usize = 11; // packets and bytes each way

/// Words that make up the key, with the part of the last one that belongs to it.
const KEY_WORDS: usize = 5;
const KEY_BITS: u64 = 0xffff_ffff_ff00_0000 | SERVICE;
const SERVICE: u64 = 1 << 23;
const FROM_HIGH: u64 = 1 << 22;
const IS_TRANSLATED: u64 = 1 << 21;

/// What an entry is about.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    /// A flow as it passes the pods, after translation.
    Flow,
    /// Which backend a client's flow to a frontend was given.
    Service,
}

/// What names an entry: the tuple in canonical order (equal for both directions) and the kind.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Key([u64; KEY_WORDS]);

impl Key {
    pub(crate) fn new(tuple: &Tuple, kind: Kind) -> Key {
        let ends = [(tuple.src, tuple.sport), (tuple.dst, tuple.dport)];
        let [low, high] = if from_high(tuple) { [ends[1], ends[0]] } else { ends };
        let ports = u64::from(low.1) << 48 | u64::from(high.1) << 32 | u64::from(tuple.proto.0) << 24;
        let kind = if kind == Kind::Service { SERVICE } else { 0 };
        let [(a, b), (c, d)] = [halves(low.0), halves(high.0)];
        Key([a, b, c, d, ports | kind])
    }
}

fn from_high(tuple: &Tuple) -> bool {
    (tuple.src, tuple.sport) > (tuple.dst, tuple.dport)
}

fn halves(address: Address) -> (u64, u64) {
    ((address.0 >> 64) as u64, address.0 as u64)
}

fn pack(high: u32, low: u32) -> u64 {
    u64::from(high) << 32 | u64::from(low)
}

fn unpack(word: u64) -> (u32, u32) {
    ((word >> 32) as u32, word as u32)
}

/// When an entry was last used and what its packets have shown, in one word so that both change
/// at once.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Activity {
    pub(crate) last_seen: Seconds,
    pub(crate) state: State,
}

impl Activity {
    /// What a packet makes of it. Once both sides have closed nothing prolongs the flow.
    fn after(self, proto: Protocol, side: Side, tcp_flags: u8, now: Seconds) -> Activity {
        if proto == Protocol::TCP && self.state.closed() {
            return self;
        }
        let state = match proto {
            Protocol::TCP => self.state.after_segment(side, tcp_flags),
            _ => self.state.after_packet(side),
        };
        let last_seen = if age(self.last_seen, now) > 0 { now } else { self.last_seen };
        Activity { last_seen, state }
    }

    fn pack(self, version: u32) -> u64 {
        let State { original_flags, reply_flags, replied, seen_non_syn, original_closing, reply_closing } =
            self.state;
        let bools = [replied, seen_non_syn, original_closing, reply_closing];
        let bools = bools.into_iter().fold(0, |bits, bit| bits << 1 | u32::from(bit));
        let state = u32::from(original_flags) << 12 | u32::from(reply_flags) << 4 | bools;
        pack(self.last_seen, version << 20 | state)
    }

    fn unpack(word: u64) -> Activity {
        let (last_seen, low) = unpack(word);
        let state = State {
            original_flags: (low >> 12) as u8,
            reply_flags: (low >> 4) as u8,
            replied: low & 8 != 0,
            seen_non_syn: low & 4 != 0,
            original_closing: low & 2 != 0,
            reply_closing: low & 1 != 0,
        };
        Activity { last_seen, state }
    }

    /// Whether a packed activity was written for this version of the slot (its low 12 bits).
    fn is_of(word: u64, version: u32) -> bool {
        (word as u32 ^ version << 20) >> 20 == 0
    }
}

/// The words of a slot to be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Record([u64; WORDS]);

impl Record {
    pub(crate) fn new(new: &NewFlow, kind: Kind, now: Seconds) -> Record {
        let mut words = [0; WORDS];
        words[..KEY_WORDS].copy_from_slice(&Key::new(&new.tuple, kind).0);
        if from_high(&new.tuple) {
            words[PORTS] |= FROM_HIGH;
        }
        if let Some((address, port)) = new.translated_from {
            (words[TRANSLATED], words[TRANSLATED + 1]) = halves(address);
            words[PORTS] |= IS_TRANSLATED | u64::from(port);
        }
        words[STAMP] = pack(new.generation, 0);
        words[IDENTITIES] = pack(new.src_identity.0, new.dst_identity.0);
        words[ACTIVITY] = Activity { last_seen: now, state: State::default() }.pack(0);
        words[BIRTH] = pack(now, new.service);
        Record(words)
    }

    /// With what its first packet shows.
    pub(crate) fn with_first(mut self, tcp_flags: u8, passed: Count) -> Record {
        let proto = Protocol((self.0[PORTS] >> 24) as u8);
        let new = Activity::unpack(self.0[ACTIVITY]);
        self.0[ACTIVITY] = new.after(proto, Side::Original, tcp_flags, new.last_seen).pack(0);
        (self.0[COUNTS], self.0[COUNTS + 1]) = (passed.packets, passed.bytes);
        self
    }

    /// Its key.
    pub(crate) fn key(&self) -> Key {
        let mut key = [0; KEY_WORDS];
        key.copy_from_slice(&self.0[..KEY_WORDS]);
        key[PORTS] &= KEY_BITS;
        Key(key)
    }
}

/// The word that guards a slot: version, hash bits and status.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Tag(pub(crate) u64);

const STATUS: u32 = 3;
const EMPTY: u32 = 0;
const BUSY: u32 = 1;
const LIVE: u32 = 2;

impl Tag {
    pub(crate) fn version(self) -> u32 {
        unpack(self.0).0
    }

    pub(crate) fn is_empty(self) -> bool {
        self.0 as u32 & STATUS == EMPTY
    }

    pub(crate) fn is_live(self) -> bool {
        self.0 as u32 & STATUS == LIVE
    }

    /// Live, and possibly the entry with this hash.
    pub(crate) fn may_hold(self, fingerprint: u32) -> bool {
        self.0 as u32 == fingerprint & !STATUS | LIVE
    }
}

/// A slot in the table's memory.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Slot<'a> {
    pub(crate) number: u32,
    pub(crate) tag: &'a AtomicU64,
    pub(crate) words: &'a [AtomicU64; WORDS],
}

/// What stands in a slot. Only worth something inside of [`Slot::read`], or until the key of the
/// slot has been compared there.
impl Slot<'_> {
    fn word(&self, at: usize) -> u64 {
        self.words[at].load(Relaxed)
    }

    #[inline]
    pub(crate) fn is(&self, key: &Key) -> bool {
        (0..PORTS).all(|at| self.word(at) == key.0[at]) && self.word(PORTS) & KEY_BITS == key.0[PORTS]
    }

    pub(crate) fn kind(&self) -> Kind {
        if self.word(PORTS) & SERVICE != 0 { Kind::Service } else { Kind::Flow }
    }

    fn proto(&self) -> Protocol {
        Protocol((self.word(PORTS) >> 24) as u8)
    }

    fn address(&self, at: usize) -> Address {
        Address(u128::from(self.word(at)) << 64 | u128::from(self.word(at + 1)))
    }

    pub(crate) fn tuple(&self) -> Tuple {
        let ports = self.word(PORTS);
        let low = (self.address(LOW), (ports >> 48) as u16);
        let high = (self.address(HIGH), (ports >> 32) as u16);
        let (src, dst) = if ports & FROM_HIGH != 0 { (high, low) } else { (low, high) };
        Tuple { src: src.0, dst: dst.0, sport: src.1, dport: dst.1, proto: self.proto() }
    }

    /// What the client addressed (flow) or the backend (service entry).
    pub(crate) fn translated(&self) -> Option<(Address, u16)> {
        let ports = self.word(PORTS);
        (ports & IS_TRANSLATED != 0).then(|| (self.address(TRANSLATED), ports as u16))
    }

    pub(crate) fn activity(&self) -> Activity {
        Activity::unpack(self.word(ACTIVITY))
    }

    pub(crate) fn created(&self) -> Seconds {
        unpack(self.word(BIRTH)).0
    }

    pub(crate) fn service(&self) -> u32 {
        unpack(self.word(BIRTH)).1
    }

    #[inline]
    pub(crate) fn expired(&self, now: Seconds) -> bool {
        let Activity { last_seen, state } = self.activity();
        age(last_seen, now) >= lifetime(self.proto(), state)
    }

    #[inline]
    pub(crate) fn flow(&self, tag: Tag) -> Flow {
        let Activity { last_seen, state } = self.activity();
        let (src_identity, dst_identity) = unpack(self.word(IDENTITIES));
        let count = |at: usize| Count { packets: self.word(at), bytes: self.word(at + 1) };
        Flow {
            id: self.id(tag),
            new: NewFlow {
                tuple: self.tuple(),
                translated_from: self.translated(),
                service: self.service(),
                src_identity: Identity(src_identity),
                dst_identity: Identity(dst_identity),
                generation: unpack(self.word(STAMP)).0,
            },
            state,
            created: self.created(),
            last_seen,
            expires: last_seen.wrapping_add(lifetime(self.proto(), state)),
            original: count(COUNTS),
            reply: count(COUNTS + 2),
        }
    }
}

/// Tries of a compare-exchange on a word that other workers may be changing too. Each failure
/// means that another worker got on, so more than a few in a row do not happen.
const TRIES: usize = 16;

impl Slot<'_> {
    /// Asks for the words: the first of every cache line that they are in.
    pub(crate) fn prefetch(&self) {
        self.words.iter().step_by(7).for_each(prefetch);
    }

    pub(crate) fn tag(&self) -> Tag {
        Tag(self.tag.load(Acquire))
    }

    pub(crate) fn id(&self, tag: Tag) -> FlowId {
        FlowId { slot: self.number, version: tag.version() }
    }

    /// What `read` makes of the words that `tag` guards, unless the slot has changed hands since.
    #[inline]
    pub(crate) fn read<T>(&self, tag: Tag, read: impl FnOnce(&Self) -> T) -> Option<T> {
        let value = read(self);
        fence(Acquire);
        (self.tag.load(Relaxed) == tag.0).then_some(value)
    }

    /// Gives the slot to a new entry, if its tag is still `seen`.
    pub(crate) fn take(&self, seen: Tag, fingerprint: u32, record: &Record) -> Option<FlowId> {
        let version = seen.version().wrapping_add(1);
        let tag = |status| pack(version, fingerprint & !STATUS | status);
        self.tag.compare_exchange(seen.0, tag(BUSY), AcqRel, Relaxed).ok()?;
        // Whoever sees one of the new words must also see that the tag has changed.
        fence(Release);
        let mut words = record.0;
        words[STAMP] |= u64::from(version);
        words[ACTIVITY] |= u64::from(version << 20);
        for (word, value) in self.words.iter().zip(words) {
            word.store(value, Relaxed);
        }
        self.tag.store(tag(LIVE), Release);
        Some(FlowId { slot: self.number, version })
    }

    /// Empties the slot, if its tag is still `seen`.
    pub(crate) fn clear(&self, seen: Tag) -> bool {
        let empty = pack(seen.version(), EMPTY);
        self.tag.compare_exchange(seen.0, empty, AcqRel, Relaxed).is_ok()
    }

    pub(crate) fn count(&self, side: Side, passed: Count) {
        let at = if side == Side::Original { COUNTS } else { COUNTS + 2 };
        self.words[at].fetch_add(passed.packets, Relaxed);
        self.words[at + 1].fetch_add(passed.bytes, Relaxed);
    }

    /// Notes a packet; returns the new activity if it changed.
    pub(crate) fn advance(&self, tag: Tag, side: Side, tcp_flags: u8, now: Seconds) -> Option<Activity> {
        let proto = self.proto();
        self.update_activity(tag, |old| old.after(proto, side, tcp_flags, now))
    }

    /// Changes the activity unless the slot has changed hands; returns the new one if it differs.
    pub(crate) fn update_activity(&self, tag: Tag, next: impl Fn(Activity) -> Activity) -> Option<Activity> {
        let word = &self.words[ACTIVITY];
        for _ in 0..TRIES {
            let old = word.load(Relaxed);
            let activity = Activity::unpack(old);
            let changed = next(activity);
            if !Activity::is_of(old, tag.version()) || changed == activity {
                return None;
            }
            if word.compare_exchange(old, changed.pack(tag.version()), Relaxed, Relaxed).is_ok() {
                return Some(changed);
            }
        }
        None
    }

    /// Sets the generation unless the slot has changed hands.
    pub(crate) fn restamp(&self, tag: Tag, generation: u32) {
        let word = &self.words[STAMP];
        for _ in 0..TRIES {
            let old = word.load(Relaxed);
            let new = pack(generation, tag.version());
            if old as u32 != tag.version() || word.compare_exchange(old, new, Relaxed, Relaxed).is_ok() {
                return;
            }
        }
    }
}

#[cfg(test)]
impl Key {
    pub(crate) fn words(self) -> [u64; KEY_WORDS] {
        self.0
    }
}

#[cfg(test)]
impl Slot<'_> {
    /// What a process that was killed in [`Slot::take`] leaves.
    pub(crate) fn mark_busy(&self) {
        let tag = self.tag.load(Relaxed);
        self.tag.store(tag & !u64::from(STATUS) | u64::from(BUSY), Relaxed);
    }
}
