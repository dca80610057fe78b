//! A verdict as a packet needs it.

use crate::slot::Slot;
use crate::{Exit, Nanoseconds};
use wire::checksum::Delta;
use wire::{Address, MacAddr, Tuple};

/// A verdict that was found for a packet.
#[derive(Clone, Copy, Debug)]
pub struct Hit<'a> {
    pub(crate) slot: Slot<'a>,
    /// Programs of the kernel count too.
    pub(crate) shared: bool,
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
    /// What the change of address adds to checksums that cover it.
    pub difference: Delta,
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
    ///
    /// All packets with one key come to one worker, so that where programs of the kernel do not
    /// count too nothing needs to be locked. Were there another, a count could be lost.
    #[inline]
    pub fn count(&self, bytes: u64, now: Nanoseconds) {
        if self.shared {
            self.slot.count_locked(bytes, now);
        } else {
            self.slot.count_alone(bytes, now);
        }
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

    /// The tuple after the change.
    pub fn of(&self, received: &Tuple) -> Tuple {
        match *self {
            Rewrite::Nothing => *received,
            Rewrite::Source(src, sport) => Tuple { src, sport, ..*received },
            Rewrite::Destination(dst, dport) => Tuple { dst, dport, ..*received },
        }
    }
}
