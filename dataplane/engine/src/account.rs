//! What cached verdicts were used for, told to conntrack.

use crate::{Context, cache, track};
use flow::{Count, Flow, Seconds, Side};
use verdicts::{Nanoseconds, Usage};
use wire::Protocol;
use wire::parse::tcp::{ACK, FIN};

/// No verdict is written before this packet of a flow, both directions counted.
const SECOND: u64 = 2;

/// Adds packets that a verdict was used for to its flow, and takes out what is cached of it if that is
/// over now; false if the flow is gone.
pub fn account(ctx: &Context<'_>, usage: &Usage) -> bool {
    let &Usage { ref verdict, packets, bytes, last_used, ended, .. } = usage;
    let flags = if verdict.key.tuple.proto == Protocol::TCP { flags(ended) } else { 0 };
    let (passed, seen) = (Count { packets, bytes }, seconds(ctx, last_used));
    let Some(state) = ctx.flows.add(verdict.flow, verdict.side, flags, passed, seen) else { return false };
    if ended && state.closed() {
        cache::forget_both(ctx, &verdict.key.tuple, &verdict.tuple.reversed());
    }
    true
}

/// Brings a connection up to what verdicts were used for, before a packet that begins or ends one is
/// judged by it. Packets are counted by the next account.
pub(crate) fn settle(ctx: &Context<'_>, flow: &mut Flow) {
    if flow.original.packets + flow.reply.packets < SECOND {
        return;
    }
    let reply = flow.new.tuple.reversed();
    let client = track::restored(flow, &reply).reversed();
    for (side, received) in [(Side::Original, client), (Side::Reply, reply)] {
        let Some((last_used, ended)) = ctx.verdicts.unaccounted(&received, flow.id) else { continue };
        let seen = seconds(ctx, last_used);
        if let Some(state) = ctx.flows.add(flow.id, side, flags(ended), Count::default(), seen) {
            flow.state = state;
        }
    }
    // What the table does not show any more was accounted, maybe after this flow was read.
    if let Some((now, _)) = ctx.flows.get(flow.id, &flow.new.tuple, ctx.now) {
        flow.state = now.state;
    }
}

/// What is known of the flags of packets that verdicts were used for.
fn flags(ended: bool) -> u8 {
    if ended { ACK | FIN } else { ACK }
}

/// An instant of the cache's clock as one of conntrack's, given what both show now.
fn seconds(ctx: &Context<'_>, then: Nanoseconds) -> Seconds {
    ctx.now.wrapping_sub((ctx.clock.saturating_sub(then) / cache::NANOSECONDS) as Seconds)
}
