//! Whether a cached verdict is still what the pipeline would decide.

use crate::cache;
use crate::course::{Course, TOGETHER};
use crate::{Context, admit::Sender, balance::balance, enforce, forward, pipeline};
use flow::{Flow, Side};
use verdicts::{Key, Verdict};
use wire::hub::LinkDestination;
use wire::parse::{ETHERNET, tcp};
use wire::{L4, MacAddr, Packet, Protocol, Tuple};

/// Whether packets that `verdict` is about would get the same one under the tables of `ctx`, and
/// its flow is still in conntrack. If so the flow is stamped with the policy it was judged by.
/// Neither counts nor reports.
pub fn confirm(ctx: &Context<'_>, verdict: &Verdict) -> bool {
    decide(ctx, &verdict.key, |tuple| ctx.flows.get(verdict.flow, tuple, ctx.now))
        .is_some_and(|now| Verdict { lifetime: now.lifetime, generation: now.generation, ..*verdict } == now)
}

/// Asks for the memory that [`confirm`] will read for these verdicts.
pub fn read_ahead(ctx: &Context<'_>, verdicts: &[Verdict]) {
    verdicts.chunks(TOGETHER).for_each(|some| Course::retake(ctx, some));
}

/// The verdict that the pipeline comes to about plain packets with this key, if they belong to a
/// flow and it can be cached.
pub(crate) fn evaluate(ctx: &Context<'_>, key: &Key) -> Option<Verdict> {
    decide(ctx, key, |tuple| ctx.flows.lookup(tuple, ctx.now))
}

fn decide(
    ctx: &Context<'_>,
    key: &Key,
    find: impl FnOnce(&Tuple) -> Option<(Flow, Side)>,
) -> Option<Verdict> {
    let sender = sender(ctx, key.ifindex)?;
    let packet = Packet {
        tuple: key.tuple,
        l4: if key.tuple.proto == Protocol::TCP { L4::Tcp { flags: tcp::ACK } } else { L4::Udp },
        fragment: None,
        ttl: u8::MAX,
        dont_fragment: true,
        l4_offset: ETHERNET,
        end: ETHERNET,
    };
    sender.check_packet(ctx, &packet).ok()?;
    let balanced = balance(ctx, &sender, &packet).ok()?;
    // Another backend, or one that nobody remembers yet: the next packet settles that.
    if balanced.service.is_some_and(|service| service.moved) {
        return None;
    }
    let (flow, side) = find(&balanced.tuple)?;
    let allows = |tuple: &_| enforce::allows(ctx, &sender, tuple);
    let tuple = pipeline::continues(ctx, &packet, &balanced, (&flow, side), allows).ok()?;
    let exit = forward::route(ctx, &sender, tuple.dst).ok()?;
    cache::verdict(ctx, &sender, &key.tuple, &tuple, &exit, (&flow, side))
}

/// Who sends on an interface.
fn sender<'a>(ctx: &Context<'a>, ifindex: u32) -> Option<Sender<'a>> {
    if let Some(endpoint) = ctx.tables.endpoints.by_ifindex(ifindex) {
        return Some(Sender::Pod { endpoint, to: LinkDestination::Gateway });
    }
    let index = ctx.tables.node.uplinks.iter().position(|uplink| uplink.ifindex == ifindex)?;
    Some(Sender::Uplink { index: index.try_into().ok()?, mac: MacAddr::default() })
}
