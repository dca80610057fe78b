//! One verdict's layout in memory, the same as `struct verdict` in `bpf/src/bpf/verdict.h`, and
//! the states a slot goes through.
//!
//! EMPTY → BUSY (a worker fills it) → LIVE → RETIRED (taken back) → EMPTY. A program of the
//! kernel that found a slot live may use it until it ends, even if the slot is retired meanwhile;
//! so nobody writes to what they read of a retired slot before a grace period of RCU has passed
//! ([`crate::Retired`]). Workers may be preempted for longer: they read the tag again after the
//! words.

use crate::hit::{Hit, Rewrite};
use crate::{Exit, Key, Nanoseconds, Verdict};
use core::sync::atomic::AtomicU64;
use core::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};
use core::sync::atomic::fence;
use flow::{FlowId, Side};
use wire::checksum::Delta;
use wire::{Address, MacAddr, Protocol, Tuple};

/// Words of a slot: three cache lines. The first says which packets, the second what happened
/// and where to, the third how addresses are translated and whose flow it is.
pub(crate) const WORDS: usize = 24;
/// The words of a slot.
pub(crate) type Words = [AtomicU64; WORDS];

const TAG: usize = 0;
/// Source and destination, two words each, in network byte order.
const KEY: usize = 1;
/// Words of addresses, ports and interface.
const KEY_WORDS: usize = 5;
/// Protocol, exit, what is rewritten, uplink, MTU.
const KIND: usize = 6;
const EXPECT: usize = 7;
const PACKETS: usize = 8;
const BYTES: usize = 9;
const LAST_USED: usize = 10;
const LIFETIME: usize = 11;
/// Link-layer destination and source, interface: two words.
const LINK: usize = 12;
/// New port, and the sum of what changes in the addresses.
const PORT: usize = 14;
/// Generation, and above it the version of the slot.
const GENERATION: usize = 15;
/// New address: two words.
const ADDRESS: usize = 16;
const FLOW: usize = 18;
const SIDE: usize = 19;
/// What has been accounted of PACKETS and BYTES.
const ACCOUNTED: usize = 20;
/// The retired slot after this one.
const NEXT: usize = 22;

/// Status in the low byte of a tag; the version is above. Another layout takes other numbers, so
/// that slots of an older release are empty ones.
const STATUS: u64 = 0xff;
const BUSY: u64 = 0x21;
const LIVE: u64 = 0x22;
const RETIRED: u64 = 0x23;

const TO_POD: u8 = 1;
const TO_UPLINK: u8 = 2;
const REWRITES_NOTHING: u8 = 0;
const REWRITES_SOURCE: u8 = 1;
const REWRITES_DESTINATION: u8 = 2;

/// Version and status of a slot.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Tag(u64);

impl Tag {
    #[inline]
    pub(crate) fn is_live(self) -> bool {
        self.0 & STATUS == LIVE
    }

    pub(crate) fn is_retired(self) -> bool {
        self.0 & STATUS == RETIRED
    }

    pub(crate) fn is_empty(self) -> bool {
        !matches!(self.0 & STATUS, BUSY | LIVE | RETIRED)
    }

    fn with(self, status: u64) -> u64 {
        self.0 & !STATUS | status
    }

    /// What stands with a generation: the lower bits of the version.
    fn stamp(self) -> u64 {
        self.0 >> STATUS.trailing_ones() << 32
    }
}

/// A key as the words it is compared by.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct KeyWords {
    words: [u64; KEY_WORDS],
    protocol: u8,
}

impl KeyWords {
    #[inline(always)]
    pub(crate) fn new(key: &Key) -> KeyWords {
        let Tuple { src, dst, sport, dport, proto } = key.tuple;
        let [a, b] = address_words(src);
        let [c, d] = address_words(dst);
        let [s0, s1] = sport.to_be_bytes();
        let [d0, d1] = dport.to_be_bytes();
        let [i0, i1, i2, i3] = key.ifindex.to_ne_bytes();
        let ports = u64::from_ne_bytes([s0, s1, d0, d1, i0, i1, i2, i3]);
        KeyWords { words: [a, b, c, d, ports], protocol: proto.0 }
    }

    pub(crate) fn protocol(&self) -> Protocol {
        Protocol(self.protocol)
    }

    pub(crate) fn tuple(&self) -> Tuple {
        let [a, b, c, d, ports] = self.words;
        let [s0, s1, d0, d1, ..] = ports.to_ne_bytes();
        Tuple {
            src: address([a, b]),
            dst: address([c, d]),
            sport: u16::from_be_bytes([s0, s1]),
            dport: u16::from_be_bytes([d0, d1]),
            proto: Protocol(self.protocol),
        }
    }

    fn ifindex(&self) -> u32 {
        let [.., ports] = self.words;
        let [_, _, _, _, ifindex @ ..] = ports.to_ne_bytes();
        u32::from_ne_bytes(ifindex)
    }

    /// The hash of the kernel's programs: of everything but the interface. Multilinear, then mixed.
    #[inline(always)]
    pub(crate) fn hash(&self) -> u64 {
        const FACTORS: [u64; KEY_WORDS] = [
            0x9e37_79b9_7f4a_7c15,
            0xbf58_476d_1ce4_e5b9,
            0x94d0_49bb_1331_11eb,
            0xd6e8_feb8_6659_fd93,
            0xa076_1d64_78bd_642f,
        ];
        let [addresses @ .., ports] = self.words;
        // Addresses of one network differ in their last bytes, which a product would move up and out.
        let [a, b, c, d] = addresses.map(|word| word ^ word >> 32);
        let ports = PortsWord(ports).without_interface() | u64::from(self.protocol) << 32;
        let sum = [a, b, c, d, ports]
            .into_iter()
            .zip(FACTORS)
            .fold(0u64, |sum, (word, factor)| sum.wrapping_add(word.wrapping_mul(factor)));
        let mixed = (sum ^ sum >> 32).wrapping_mul(0xe703_7ed1_a0b4_28db);
        mixed ^ mixed >> 32
    }
}

/// Ports in network byte order, then the interface.
struct PortsWord(u64);

impl PortsWord {
    /// Source port as the lower half of 32 bits, as a 32-bit load of a little-endian or
    /// big-endian machine gives it.
    #[inline]
    fn without_interface(&self) -> u64 {
        let [a, b, c, d, ..] = self.0.to_ne_bytes();
        u64::from(u32::from_ne_bytes([a, b, c, d]))
    }
}

/// A link-layer address as it is compared.
#[inline]
pub(crate) fn mac_word(MacAddr([a, b, c, d, e, f]): MacAddr) -> u64 {
    u64::from_ne_bytes([a, b, c, d, e, f, 0, 0])
}

#[inline]
fn address_words(address: Address) -> [u64; 2] {
    [(address.0 >> 64) as u64, address.0 as u64].map(u64::to_be)
}

fn address([high, low]: [u64; 2]) -> Address {
    Address(u128::from(u64::from_be(high)) << 64 | u128::from(u64::from_be(low)))
}

/// A slot in memory.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Slot<'a> {
    pub(crate) number: u32,
    pub(crate) words: &'a Words,
}

impl<'a> Slot<'a> {
    /// Ends a chain of slots.
    pub(crate) const NO_NEXT: u64 = u64::MAX;

    #[inline]
    pub(crate) fn tag(&self) -> Tag {
        Tag(self.words[TAG].load(Acquire))
    }

    #[inline]
    fn word(&self, at: usize) -> u64 {
        self.words[at].load(Relaxed)
    }

    #[inline]
    fn set(&self, at: usize, value: u64) {
        self.words[at].store(value, Relaxed);
    }

    #[inline]
    pub(crate) fn holds(&self, key: &KeyWords) -> bool {
        (0..KEY_WORDS).all(|at| self.word(KEY + at) == key.words[at])
            && self.word(KIND).to_ne_bytes()[0] == key.protocol
    }

    /// Whether it holds this tuple, from whichever interface.
    pub(crate) fn holds_tuple(&self, key: &KeyWords) -> bool {
        let ports = PortsWord(self.word(KEY + 4)).without_interface();
        (0..4).all(|at| self.word(KEY + at) == key.words[at])
            && ports == PortsWord(key.words[4]).without_interface()
            && self.word(KIND).to_ne_bytes()[0] == key.protocol
    }

    /// Reads with `read`; nothing if the slot has changed hands meanwhile.
    #[inline]
    pub(crate) fn consistent<T>(&self, tag: Tag, read: impl FnOnce(&Self) -> T) -> Option<T> {
        let value = read(self);
        fence(Acquire);
        (self.words[TAG].load(Relaxed) == tag.0).then_some(value)
    }

    pub(crate) fn verdict(&self) -> Verdict {
        let key = KeyWords {
            words: core::array::from_fn(|at| self.word(KEY + at)),
            protocol: self.word(KIND).to_ne_bytes()[0],
        };
        let received = key.tuple();
        let Hit { mtu, exit, to, from, rewrite, .. } = self.hit(true);
        let [e0, e1, e2, e3, e4, e5, ..] = self.word(EXPECT).to_ne_bytes();
        let flow = self.word(FLOW);
        Verdict {
            key: Key { ifindex: key.ifindex(), tuple: received },
            expect: MacAddr([e0, e1, e2, e3, e4, e5]),
            mtu,
            tuple: rewrite.of(&received),
            exit,
            to,
            from,
            flow: FlowId { slot: (flow >> 32) as u32, version: flow as u32 },
            side: if self.word(SIDE) == 0 { Side::Original } else { Side::Reply },
            lifetime: self.word(LIFETIME),
            generation: self.generation(),
        }
    }

    /// Whether it is good at this time for packets with this link-layer address.
    #[inline]
    pub(crate) fn is_good(&self, mac: u64, generation: u32, now: Nanoseconds) -> bool {
        self.generation() == generation
            && self.word(EXPECT) == mac
            && now.saturating_sub(self.last_used()) < self.word(LIFETIME)
    }

    /// What a packet needs of the verdict.
    #[inline]
    pub(crate) fn hit(self, shared: bool) -> Hit<'a> {
        let [_, exit, rewrite, uplink, m0, m1, ..] = self.word(KIND).to_ne_bytes();
        let [t0, t1, t2, t3, t4, t5, f0, f1] = self.word(LINK).to_ne_bytes();
        let [f2, f3, f4, f5, o0, o1, o2, o3] = self.word(LINK + 1).to_ne_bytes();
        let out = u32::from_ne_bytes([o0, o1, o2, o3]);
        let [p0, p1, _, _, c0, c1, c2, c3] = self.word(PORT).to_ne_bytes();
        let new = || address([self.word(ADDRESS), self.word(ADDRESS + 1)]);
        Hit {
            slot: self,
            shared,
            mtu: u16::from_ne_bytes([m0, m1]),
            exit: match exit {
                TO_POD => Exit::Pod { ifindex: out },
                _ => Exit::Uplink { index: uplink, ifindex: out },
            },
            to: MacAddr([t0, t1, t2, t3, t4, t5]),
            from: MacAddr([f0, f1, f2, f3, f4, f5]),
            rewrite: match rewrite {
                REWRITES_SOURCE => Rewrite::Source(new(), u16::from_be_bytes([p0, p1])),
                REWRITES_DESTINATION => Rewrite::Destination(new(), u16::from_be_bytes([p0, p1])),
                _ => Rewrite::Nothing,
            },
            difference: Delta::from_memory(u32::from_ne_bytes([c0, c1, c2, c3])),
        }
    }

    /// Takes an empty slot and makes it live, unless another worker was first.
    pub(crate) fn fill(&self, seen: Tag, verdict: &Verdict, now: Nanoseconds) -> Option<Tag> {
        let busy = (seen.0 & !STATUS).wrapping_add(STATUS + 1) | BUSY;
        let live = Tag(Tag(busy).with(LIVE));
        self.words[TAG].compare_exchange(seen.0, busy, AcqRel, Relaxed).ok()?;
        // Whoever sees one of the new words must also see that the tag has changed.
        fence(Release);
        self.write(verdict);
        for at in [PACKETS, BYTES, ACCOUNTED, ACCOUNTED + 1] {
            self.set(at, 0);
        }
        self.set(GENERATION, live.stamp());
        self.refresh(live, verdict, now);
        self.words[TAG].store(live.0, Release);
        Some(live)
    }

    fn write(&self, verdict: &Verdict) {
        let Verdict { key, tuple, .. } = verdict;
        let words = KeyWords::new(key);
        for (at, word) in words.words.into_iter().enumerate() {
            self.set(KEY + at, word);
        }
        let (rewrite, old, new, port) = match Rewrite::between(&key.tuple, tuple) {
            Rewrite::Nothing => (REWRITES_NOTHING, Address::UNSPECIFIED, Address::UNSPECIFIED, 0),
            Rewrite::Source(src, sport) => (REWRITES_SOURCE, key.tuple.src, src, sport),
            Rewrite::Destination(dst, dport) => (REWRITES_DESTINATION, key.tuple.dst, dst, dport),
        };
        let (exit, uplink, out) = match verdict.exit {
            Exit::Pod { ifindex } => (TO_POD, 0, ifindex),
            Exit::Uplink { index, ifindex } => (TO_UPLINK, index, ifindex),
        };
        let [m0, m1] = verdict.mtu.to_ne_bytes();
        self.set(KIND, u64::from_ne_bytes([words.protocol, exit, rewrite, uplink, m0, m1, 0, 0]));
        self.set(EXPECT, mac_word(verdict.expect));
        let ([t0, t1, t2, t3, t4, t5], [f0, f1, f2, f3, f4, f5]) = (verdict.to.0, verdict.from.0);
        self.set(LINK, u64::from_ne_bytes([t0, t1, t2, t3, t4, t5, f0, f1]));
        let [o0, o1, o2, o3] = out.to_ne_bytes();
        self.set(LINK + 1, u64::from_ne_bytes([f2, f3, f4, f5, o0, o1, o2, o3]));
        let [p0, p1] = port.to_be_bytes();
        let [c0, c1, c2, c3] = difference(old, new).to_ne_bytes();
        self.set(PORT, u64::from_ne_bytes([p0, p1, 0, 0, c0, c1, c2, c3]));
        for (at, word) in address_words(new).into_iter().enumerate() {
            self.set(ADDRESS + at, word);
        }
        self.set(FLOW, u64::from(verdict.flow.slot) << 32 | u64::from(verdict.flow.version));
        self.set(SIDE, u64::from(verdict.side == Side::Reply));
    }

    /// Takes over what may change in a verdict that otherwise stays: lifetime and generation.
    pub(crate) fn refresh(&self, tag: Tag, verdict: &Verdict, now: Nanoseconds) {
        self.set(LIFETIME, verdict.lifetime);
        self.set(LAST_USED, now);
        self.confirm(tag, verdict.generation);
    }

    #[inline]
    pub(crate) fn generation(&self) -> u32 {
        self.word(GENERATION) as u32
    }

    /// Sets the generation, unless the slot has changed hands or somebody else does so right now.
    pub(crate) fn confirm(&self, tag: Tag, generation: u32) {
        let (old, new) = (self.word(GENERATION), tag.stamp() | u64::from(generation));
        if old >> 32 == new >> 32 {
            let _ = self.words[GENERATION].compare_exchange(old, new, Relaxed, Relaxed);
        }
    }

    /// Takes a live slot out of use; false if it was not in this state any more.
    pub(crate) fn retire(&self, seen: Tag) -> bool {
        let retired = seen.with(RETIRED);
        seen.is_live() && self.words[TAG].compare_exchange(seen.0, retired, AcqRel, Relaxed).is_ok()
    }

    /// Makes a slot that nobody reads any more empty. Without its key it is taken for no other
    /// verdict, whatever order a reader sees words in.
    pub(crate) fn empty(&self) {
        for at in 0..KEY_WORDS {
            self.set(KEY + at, 0);
        }
        let tag = self.tag();
        self.words[TAG].store(tag.with(0), Release);
    }

    /// Counts a packet where others may be counting.
    pub(crate) fn count_locked(&self, bytes: u64, now: Nanoseconds) {
        self.words[PACKETS].fetch_add(1, Relaxed);
        self.words[BYTES].fetch_add(bytes, Relaxed);
        self.set(LAST_USED, now);
    }

    /// Counts a packet where nobody else does.
    #[inline]
    pub(crate) fn count_alone(&self, bytes: u64, now: Nanoseconds) {
        self.set(PACKETS, self.word(PACKETS).wrapping_add(1));
        self.set(BYTES, self.word(BYTES).wrapping_add(bytes));
        self.set(LAST_USED, now);
    }

    /// The slot after this one in a chain, or [`Slot::NO_NEXT`].
    pub(crate) fn next(&self) -> u64 {
        self.word(NEXT)
    }

    pub(crate) fn set_next(&self, next: u64) {
        self.set(NEXT, next);
    }

    #[inline]
    pub(crate) fn last_used(&self) -> Nanoseconds {
        self.word(LAST_USED)
    }

    /// Packets and bytes that were not accounted yet; they are from now on.
    pub(crate) fn account(&self) -> (u64, u64) {
        let take = |counter: usize, accounted: usize| {
            let total = self.word(counter);
            let new = total.wrapping_sub(self.word(accounted));
            self.set(accounted, total);
            new
        };
        (take(PACKETS, ACCOUNTED), take(BYTES, ACCOUNTED + 1))
    }
}

/// What the change from one address to another adds to an internet checksum's sum (RFC 1624), as
/// `bpf_csum_diff` gives it: 32 bits in which words of the packet are added as they lie in memory.
fn difference(old: Address, new: Address) -> u32 {
    let words = |address: Address| address_words(address).map(|word| [word as u32, (word >> 32) as u32]);
    let gone = words(old).into_iter().flatten().map(|word| !word);
    let come = words(new).into_iter().flatten();
    let sum: u64 = gone.chain(come).map(u64::from).sum();
    let folded = (sum & 0xffff_ffff) + (sum >> 32);
    ((folded & 0xffff_ffff) + (folded >> 32)) as u32
}
