//! Packets that take several entries of the RX ring.

use crate::{Frame, Pool};

/// What there is of a packet whose last entry has not been seen.
#[derive(Debug, Default)]
pub(crate) struct Assembly {
    begun: Option<Frame>,
    damaged: bool,
}

impl Assembly {
    /// Adds what an entry of the ring holds, nothing if it cannot be used; `more` entries belong
    /// to the packet. Returns the packet once it is whole; a damaged one is freed.
    pub(crate) fn add(&mut self, pool: &mut Pool, part: Option<Frame>, more: bool) -> Option<Frame> {
        self.damaged |= part.is_none();
        let packet = match (self.begun.take(), part) {
            (begun, Some(part)) => Some(pool.join(begun, part)),
            (begun, None) => begun,
        };
        if more {
            self.begun = packet;
            return None;
        }
        if !std::mem::take(&mut self.damaged) {
            return packet;
        }
        packet.into_iter().for_each(|packet| pool.free(packet));
        None
    }
}
