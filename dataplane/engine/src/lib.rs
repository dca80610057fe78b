//! Packet + tables + conntrack + time in, verdict out. No I/O, no clock, no allocation.
//!
//! [`Engine::process`] decides about one frame; the stages it takes are listed in `pipeline`. For
//! a burst, [`Preview`] reads ahead in frames and tables before [`Engine::decide`] decides about
//! the first.
//! A packet that is not understood is dropped, and every drop has a [`DropReason`].
#![no_std]

mod admit;
mod balance;
mod cache;
mod confirm;
pub mod counters;
mod course;
mod enforce;
pub mod event;
mod forward;
mod fragment;
mod frame;
mod identify;
mod neighbor;
mod pipeline;
mod preview;
pub mod reason;
mod refusal;
mod related;
mod report;
mod rewrite;
mod track;
mod unreachable;

pub use confirm::{confirm, read_ahead};
pub use counters::Counters;
pub use event::{Event, EventKind, Sink};
pub use frame::Frame;
pub use preview::Preview;
pub use reason::DropReason;

use flow::{Seconds, Table};
use preview::Seen;
use refusal::Refusal;
use report::Report;
use tables::Snapshot;
use verdicts::Nanoseconds;
use wire::Address;

/// What a pod sees as its peer when a service leads it to itself: Cilium's default
/// `--ipv4-service-loopback-address`.
pub const HAIRPIN_V4: Address = Address::v4(0xa9fe_2a01);
/// The same for IPv6, a unique local address (RFC 4193) with the IPv4 one in its global id:
/// `fda9:fe2a:100::1`.
pub const HAIRPIN_V6: Address = Address::v6(0xfda9_fe2a_0100_0000_0000_0000_0000_0001);

/// The hairpin address of the family of `address`.
pub(crate) fn hairpin_source(address: Address) -> Address {
    if address.is_v4() { HAIRPIN_V4 } else { HAIRPIN_V6 }
}

/// Where a frame was received.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Port {
    /// The hub: pods and the host's stack; [`wire::hub::Origin`] says which.
    Hub,
    /// Uplink by index into [`tables::Node::uplinks`].
    Uplink(u8),
}

/// What becomes of the frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// Send it (changed in place) out of this port. It may have become the answer to what was
    /// received: an ARP reply, a neighbour advertisement, or the ICMP error about a packet that
    /// was dropped, counted and reported.
    Transmit(Port),
    /// Discard it; it is counted and reported already.
    Drop(DropReason),
    /// Keep it, and ask again when there are newer tables: it begins a flow with a pod that is not
    /// known yet. It is as it was, and nothing was counted or reported; but a closed connection that
    /// its SYN reuses the tuple of is gone. Only if [`Context::may_hold`].
    Hold,
}

/// Everything outside the packet that a verdict depends on.
#[derive(Clone, Copy, Debug)]
pub struct Context<'a> {
    /// Tables, pinned for the burst.
    pub tables: &'a Snapshot,
    /// Conntrack.
    pub flows: &'a Table,
    /// The verdict cache.
    pub verdicts: &'a verdicts::Table,
    /// From which packet of a flow on, both directions counted, its verdicts are cached, one later for
    /// UDP; 0 is never.
    pub cache_after: u32,
    /// Seconds since boot.
    pub now: Seconds,
    /// The clock of the verdict cache.
    pub clock: Nanoseconds,
    /// Which events somebody listens to (drops are always reported).
    pub interest: event::Interest,
    /// Whether [`Verdict::Hold`] is understood; without it such packets are dropped.
    pub may_hold: bool,
}

/// One worker's pipeline: the state that packets leave behind apart from conntrack.
#[derive(Debug)]
pub struct Engine {
    fragments: fragment::Fragments,
    errors: unreachable::Budget,
}

impl Engine {
    /// A pipeline with empty fragment table. About 200 KiB: box it.
    pub const fn new() -> Engine {
        Engine { fragments: fragment::Fragments::new(), errors: unreachable::Budget::new() }
    }

    /// Decides about one frame and edits it in place.
    pub fn process<S: Sink>(
        &mut self,
        ctx: &Context<'_>,
        counters: &Counters,
        port: Port,
        frame: &mut Frame<'_>,
        sink: &mut S,
    ) -> Verdict {
        self.decide(ctx, counters, &Preview::read(ctx, port, frame), frame, sink)
    }

    /// Like [`Engine::process`], about a frame that was read ahead under the same `ctx`.
    pub fn decide<S: Sink>(
        &mut self,
        ctx: &Context<'_>,
        counters: &Counters,
        preview: &Preview,
        frame: &mut Frame<'_>,
        sink: &mut S,
    ) -> Verdict {
        if let Seen::Plain(question) = &preview.seen
            && let Some(verdict) = cache::repeat(ctx, question, frame)
        {
            return verdict;
        }
        let mut report = Report {
            ctx,
            port: preview.port,
            frame: frame.bytes(),
            tail: frame.tail,
            room: frame.buf.len().saturating_sub(frame.head),
            sender: None,
            packet: None,
            translated: None,
            counters,
            sink,
        };
        pipeline::decide(self, &mut report).apply(frame)
    }
}

impl Default for Engine {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
extern crate std;
#[cfg(test)]
mod tests;
