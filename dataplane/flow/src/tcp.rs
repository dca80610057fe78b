//! What a connection has shown of itself: pure functions, see `cilium-interop` 6.5.

use crate::Side;
use wire::parse::tcp::{ACK, FIN, RST, SYN};

/// What has been seen of a connection. Sequence numbers are not followed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct State {
    /// TCP flags seen in the original direction, ORed (RFC 9293 §3.1 bit order).
    pub original_flags: u8,
    /// TCP flags seen in the reply direction, ORed.
    pub reply_flags: u8,
    /// A packet came back.
    pub replied: bool,
    /// A TCP segment without SYN was seen.
    pub seen_non_syn: bool,
    /// FIN or RST was seen from the initiator.
    pub original_closing: bool,
    /// FIN or RST was seen from the responder.
    pub reply_closing: bool,
}

impl State {
    /// Both sides are done; the flow only lingers.
    pub fn closed(self) -> bool {
        self.original_closing && self.reply_closing
    }

    /// Whether a segment with these flags starts a new connection over the remains of this one:
    /// the flow is then to be removed and the segment treated as the first of its flow.
    pub fn reopened_by(self, tcp_flags: u8) -> bool {
        tcp_flags & (SYN | ACK) == SYN && (self.original_closing || self.reply_closing)
    }

    /// The state after a packet that is not TCP.
    pub(crate) fn after_packet(mut self, side: Side) -> State {
        self.replied |= side == Side::Reply;
        self
    }

    /// The state after a TCP segment.
    pub(crate) fn after_segment(self, side: Side, flags: u8) -> State {
        let mut next = self.after_packet(side);
        next.seen_non_syn |= flags & SYN == 0;
        let (seen, closing) = match side {
            Side::Original => (&mut next.original_flags, &mut next.original_closing),
            Side::Reply => (&mut next.reply_flags, &mut next.reply_closing),
        };
        *seen |= flags;
        *closing |= flags & (FIN | RST) != 0;
        // A connection that is refused before it exists has nothing more to say.
        if flags & RST != 0 && next.original_flags & next.reply_flags & SYN == 0 {
            next.original_closing = true;
            next.reply_closing = true;
        }
        next
    }
}

#[cfg(test)]
mod tests;
