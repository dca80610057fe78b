//! ICMP errors: which flow they are about, and what they look like to its other end.

use crate::{Context, DropReason, admit::Sender, hairpin_source, track};
use flow::Side;
use wire::{Packet, Quoted, Tuple};

/// An ICMP error about a tracked flow.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Related {
    /// Addresses of the error itself after translation.
    pub(crate) outer: Tuple,
    /// The packet it quotes.
    pub(crate) quoted: Quoted,
    /// The tuple of that packet as the receiver of the error knows it.
    pub(crate) inner: Tuple,
}

/// Finds the flow that an ICMP error is about.
pub(crate) fn relate(
    ctx: &Context<'_>,
    sender: &Sender<'_>,
    frame: &[u8],
    packet: &Packet,
) -> Result<Related, DropReason> {
    find(ctx, sender, frame, packet).ok_or(DropReason::UnrelatedIcmp)
}

fn find(ctx: &Context<'_>, sender: &Sender<'_>, frame: &[u8], packet: &Packet) -> Option<Related> {
    let quoted = Quoted::read(frame, packet)?;
    let (outer, seen) = (packet.tuple, quoted.tuple);
    // Errors go to who sent the packet; a pod, being no router, may report only on its own.
    let to_sender = seen.src == outer.dst;
    let by_receiver = sender.pod().is_none() || seen.dst == outer.src;
    if !to_sender || !by_receiver {
        return None;
    }
    let tracked = untranslated_reply(ctx, &seen);
    let (flow, side) = ctx.flows.lookup(&tracked, ctx.now)?;
    match side {
        // The client's packet, seen behind the translation: give it back as the client sent it.
        Side::Original => {
            let client = track::restored(&flow, &seen.reversed());
            let src = if outer.src == seen.dst { client.src } else { outer.src };
            let outer = Tuple { src, dst: client.dst, ..outer };
            Some(Related { outer, quoted, inner: client.reversed() })
        }
        // The backend's packet, seen by the client.
        Side::Reply => {
            let src = if outer.src == seen.dst { tracked.dst } else { outer.src };
            let outer = Tuple { src, dst: tracked.src, ..outer };
            Some(Related { outer, quoted, inner: tracked })
        }
    }
}

/// A reply of a service as its backend sent it; anything else unchanged.
fn untranslated_reply(ctx: &Context<'_>, seen: &Tuple) -> Tuple {
    let Some((_, backend, port, _)) = ctx.flows.lookup_service(&seen.reversed(), ctx.now) else {
        return *seen;
    };
    let dst = if backend == seen.dst { hairpin_source(seen.dst) } else { seen.dst };
    Tuple { src: backend, sport: port, dst, ..*seen }
}
