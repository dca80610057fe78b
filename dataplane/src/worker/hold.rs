//! First packets that wait for tables which know the pods they are about: copied, bounded, oldest
//! first.

use engine::{DropReason, Frame, Port, Verdict};
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use verdicts::Nanoseconds;
use wire::Address;
use wire::hub::Origin;

/// Packets that wait at most.
const SLOTS: usize = 64;
/// Those from uplinks at most, where anybody can invent senders: the rest is for this node's pods.
const FROM_UPLINKS: usize = SLOTS / 2;
/// Those of one sender at most, so that nobody takes the place of all others unawares.
const SHARE: usize = 8;
/// How long one waits: then a client sends its SYN again (RFC 6298).
const PATIENCE: Nanoseconds = 1_000_000_000;
/// Buffers are no shorter than chunks for frames, so that ICMP errors find room in either.
const LEAST_BUFFER: usize = 2048;
/// Ethernet header and an 802.1Q tag.
const LINK_HEADER: usize = 18;

/// Packets held by one worker.
#[derive(Debug)]
pub struct Hold {
    waiting: VecDeque<Held>,
    free: Vec<Held>,
    /// Of the tables that were asked about all of them.
    generation: u32,
    counts: Arc<Counts>,
}

/// What became of packets. One worker writes, anybody reads.
#[derive(Debug, Default)]
pub struct Counts {
    /// Packets that were held.
    pub held: AtomicU64,
    /// Those that newer tables decided about, whether they let them pass or not.
    pub decided: AtomicU64,
    /// Those that were dropped because no tables did in time.
    pub expired: AtomicU64,
    /// Packets that were dropped at once because there was no room, or their sender had its share.
    pub refused: AtomicU64,
}

/// A packet that waits.
#[derive(Debug)]
struct Held {
    /// Where it was received.
    port: Port,
    sender: Sender,
    until: Nanoseconds,
    len: usize,
    buffer: Box<[u8]>,
}

/// Whose share a packet is counted in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Sender {
    /// The pod with this link, or the host: steering says so, which nobody can forge.
    Local(Option<u32>),
    /// Who has this address, or says so.
    Remote(Address),
}

impl Sender {
    fn of(port: Port, frame: &[u8]) -> Option<Sender> {
        match port {
            Port::Uplink(_) => wire::glimpse(frame).map(|tuple| Sender::Remote(tuple.src)),
            Port::Hub => match Origin::decode(wire::parse::macs(frame)?.0)? {
                Origin::Pod { ifindex, .. } => Some(Sender::Local(Some(ifindex))),
                _ => Some(Sender::Local(None)),
            },
        }
    }
}

impl Hold {
    /// Room for packets of links with this MTU in bytes.
    pub fn new(mtu: u32, counts: Arc<Counts>) -> Hold {
        let length = LEAST_BUFFER.max(mtu as usize + LINK_HEADER);
        let empty = || Held {
            port: Port::Hub,
            sender: Sender::Local(None),
            until: 0,
            len: 0,
            buffer: vec![0; length].into(),
        };
        let free = std::iter::repeat_with(empty).take(SLOTS).collect();
        Hold { waiting: VecDeque::with_capacity(SLOTS), free, generation: 0, counts }
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Whether there is room for a packet from this port, whoever sent it.
    pub fn has_room(&self, port: Port) -> bool {
        let from_uplink = |port| matches!(port, Port::Uplink(_));
        let others = || self.waiting.iter().filter(|held| from_uplink(held.port)).count();
        !self.free.is_empty() && (!from_uplink(port) || others() < FROM_UPLINKS)
    }

    /// Counts a packet that was dropped because there was no room.
    pub fn refuse(&self) {
        add(&self.counts.refused);
    }

    /// Copies a frame, given in parts, that tables of this generation have put off. False if there is
    /// no room for it, or its sender has its share.
    pub fn put<'a>(
        &mut self,
        port: Port,
        frame: impl Iterator<Item = &'a [u8]>,
        generation: u32,
        now: Nanoseconds,
    ) -> bool {
        let put = self.copy(port, frame, now);
        if put && self.waiting.len() == 1 {
            self.generation = generation;
        }
        add(if put { &self.counts.held } else { &self.counts.refused });
        put
    }

    fn copy<'a>(&mut self, port: Port, mut frame: impl Iterator<Item = &'a [u8]>, now: Nanoseconds) -> bool {
        let Some(first) = frame.next() else { return false };
        let Some(sender) = Sender::of(port, first) else { return false };
        let has_its_share = self.waiting.iter().filter(|held| held.sender == sender).count() >= SHARE;
        if has_its_share || !self.has_room(port) {
            return false;
        }
        let Some(slot) = self.free.last_mut() else { return false };
        slot.len = 0;
        for part in std::iter::once(first).chain(frame) {
            let Some(room) = slot.buffer.get_mut(slot.len..slot.len + part.len()) else { return false };
            room.copy_from_slice(part);
            slot.len += part.len();
        }
        (slot.port, slot.sender, slot.until) = (port, sender, now.saturating_add(PATIENCE));
        self.waiting.extend(self.free.pop());
        true
    }

    /// Has `decide` look again at packets whose time is over, and at all of them if the tables have
    /// another generation. It is told whether it may put a packet off once more. Returns how many it
    /// was asked about.
    pub fn retry(
        &mut self,
        generation: u32,
        now: Nanoseconds,
        mut decide: impl FnMut(Port, &mut Frame<'_>, bool) -> Verdict,
    ) -> usize {
        let newer = std::mem::replace(&mut self.generation, generation) != generation;
        let expired = self.waiting.partition_point(|held| held.until <= now);
        let due = if newer { self.waiting.len() } else { expired };
        for _ in 0..due {
            let Some(mut held) = self.waiting.pop_front() else { break };
            let mut frame = Frame { buf: &mut held.buffer, head: 0, len: held.len, tail: 0 };
            let verdict = decide(held.port, &mut frame, held.until > now);
            if verdict == Verdict::Hold {
                self.waiting.push_back(held);
                continue;
            }
            self.free.push(held);
            let in_vain = verdict == Verdict::Drop(DropReason::UnknownIdentity);
            add(if in_vain { &self.counts.expired } else { &self.counts.decided });
        }
        due
    }
}

fn add(counter: &AtomicU64) {
    counter.store(counter.load(Relaxed) + 1, Relaxed);
}

#[cfg(test)]
mod tests;
