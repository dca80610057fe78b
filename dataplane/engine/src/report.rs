//! What is known of a packet so far, told to counters and monitor.

use crate::event::{Event, EventKind, SNAP, TracePoint, TraceState};
use crate::{Context, Counters, Port, Refusal, Sink, admit::Sender, identify};
use tables::{Direction, Match, RuleId};
use wire::{Identity, Packet, Tuple};

/// One packet's file. Everything but the tuples is looked up only when there is something to
/// tell.
pub(crate) struct Report<'a, S> {
    pub(crate) ctx: &'a Context<'a>,
    pub(crate) port: Port,
    /// The frame as received, as far as it is in its first buffer.
    pub(crate) frame: &'a [u8],
    /// Bytes of it in further buffers.
    pub(crate) tail: usize,
    /// Bytes of the buffer from the start of the frame on: how long an answer can be.
    pub(crate) room: usize,
    pub(crate) sender: Option<Sender<'a>>,
    pub(crate) packet: Option<Packet>,
    /// The tuple after translation.
    pub(crate) translated: Option<Tuple>,
    pub(crate) counters: &'a Counters,
    pub(crate) sink: &'a mut S,
}

impl<S> Report<'_, S> {
    /// Length of the frame as received in bytes.
    fn length(&self) -> usize {
        self.frame.len() + self.tail
    }
}

impl<S: Sink> Report<'_, S> {
    /// The packet is dropped.
    pub(crate) fn drop(&mut self, refusal: &Refusal) {
        let sender = self.sender.map_or(Direction::Ingress, |sender| sender.direction());
        let direction = refusal.direction.unwrap_or(sender);
        self.counters.dropped(refusal.reason, direction, self.length());
        self.tell(direction, EventKind::Drop { reason: refusal.reason, rule: refusal.rule });
    }

    /// The packet leaves for a pod, and a pod's packet leaves it.
    pub(crate) fn forwarded(&mut self, point: TracePoint, state: Option<TraceState>) {
        let to_pod = point == TracePoint::ToEndpoint;
        // What fills a frame up to the least length of its link is not sent on.
        let filled = self.packet.filter(|_| self.length() <= wire::plain::MINIMUM);
        let bytes = filled.map_or(self.length(), |packet| packet.end);
        if self.sender.is_some_and(|sender| sender.pod().is_some()) {
            self.counters.forwarded(Direction::Egress, bytes);
        }
        if to_pod {
            self.counters.forwarded(Direction::Ingress, bytes);
        }
        if let Some(state) = state.filter(|_| self.ctx.interest.trace) {
            let direction = if to_pod { Direction::Ingress } else { Direction::Egress };
            self.tell(direction, EventKind::Trace { point, state });
        }
    }

    /// Policy has decided.
    pub(crate) fn verdict(
        &mut self,
        direction: Direction,
        allowed: bool,
        rule: Option<RuleId>,
        matched: Match,
    ) {
        if self.ctx.interest.verdict {
            self.tell(direction, EventKind::Verdict { allowed, rule, matched });
        }
    }

    fn tell(&mut self, direction: Direction, kind: EventKind) {
        let ctx = self.ctx;
        let tuple = self.packet.map(|packet| packet.tuple).unwrap_or_default();
        let final_dst = self.translated.unwrap_or(tuple).dst;
        let sender = self.sender.and_then(|sender| sender.pod());
        let receiver = ctx.tables.endpoints.by_address(final_dst);
        let (src_identity, dst_identity) = match (self.sender, self.packet) {
            (Some(sender), Some(_)) => {
                (identify::sender(ctx, &sender, tuple.src), identify::receiver(ctx, final_dst))
            }
            _ => (sender.map_or(Identity::UNKNOWN, |pod| pod.identity), Identity::UNKNOWN),
        };
        let captured = self.frame.len().min(SNAP);
        let mut snap = [0; SNAP];
        snap[..captured].copy_from_slice(&self.frame[..captured]);
        self.sink.event(&Event {
            kind,
            tuple,
            src_identity,
            dst_identity,
            src_endpoint: sender.map_or(0, |pod| pod.id),
            dst_endpoint: receiver.map_or(0, |pod| pod.id),
            direction,
            hash: tuple.symmetric_hash(0) as u32,
            ifindex: sender.map_or(0, |pod| pod.ifindex),
            translated: self.translated.filter(|&translated| translated != tuple),
            length: self.length() as u32,
            captured: captured as u8,
            snap,
        });
    }
}
