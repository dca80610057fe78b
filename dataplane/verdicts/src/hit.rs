//! A verdict as a packet needs it.

use crate::slot::Slot;
use crate::{Exit, Nanoseconds};
use wire::{Address, MacAddr, Tuple};

/// A verdict that was found for a packet.
#[derive(Clone, Copy, Debug)]
pub struct Hit<'a> {
    pub(crate) slot: Slot<'a>,
    /// See [`crate::Verdict::expect`].
    pub expect: MacAddr,
    /// See [`crate::Verdict::mtu`].
    pub mtu: u16,
    /// Where to.
    pub exit: Exit,
    /// Link-layer destination to leave with.
    pub to: MacAddr,
    /// Link-layer source to leave with; the gateway's towards pods.
    pub from: MacAddr,
    /// How the tuple changes.
    pub rewrite: Rewrite,
}

/// What changes in a packet's tuple.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Rewrite {
    /// Nothing.
    Nothing,
    /// Source address and port.
    Source(Address, u16),
    /// Destination address and port.
    Destination(Address, u16),
}

impl Hit<'_> {
    /// Counts a packet that it was used for: its length in bytes from the IP header on.
    pub fn count(&self, bytes: u64, now: Nanoseconds) {
        self.slot.count(1, bytes, now);
    }
}

impl Rewrite {
    /// The change that leads from one tuple to the other.
    pub(crate) fn between(received: &Tuple, after: &Tuple) -> Rewrite {
        if (after.src, after.sport) != (received.src, received.sport) {
            Rewrite::Source(after.src, after.sport)
        } else if (after.dst, after.dport) != (received.dst, received.dport) {
            Rewrite::Destination(after.dst, after.dport)
        } else {
            Rewrite::Nothing
        }
    }

    /// The tuple after the change; none if there is no change.
    pub fn of(&self, received: &Tuple) -> Option<Tuple> {
        match *self {
            Rewrite::Nothing => None,
            Rewrite::Source(src, sport) => Some(Tuple { src, sport, ..*received }),
            Rewrite::Destination(dst, dport) => Some(Tuple { dst, dport, ..*received }),
        }
    }
}
