//! The verdict cache as packets meet it: what it answers, what is written into it and when that
//! is taken out again.

use crate::frame::{Frame, Link};
use crate::rewrite::{self, End};
use crate::{Context, Port, Verdict, admit::Sender, confirm, forward, track};
use core::sync::atomic::{Ordering::SeqCst, fence};
use flow::{Flow, Seconds, Side};
use verdicts::{Exit, Inserted, Key, Nanoseconds, Probe, Rewrite};
use wire::hub::{LinkDestination, Origin, deliver_to_pod};
use wire::parse::ETHERNET;
use wire::parse::tcp::{FIN, RST};
use wire::{Packet, Protocol, Tuple};

/// A cached verdict ends so long before its flow does in conntrack, in seconds, so that the flow is
/// still there when its next packet goes the whole way.
const MARGIN: Seconds = 2;
/// Packets more that flows without a handshake need: most of UDP is a question and its answer.
const EXCHANGE: u64 = 1;
const NANOSECONDS: Nanoseconds = 1_000_000_000;

/// A packet that the cache may know.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Question {
    probe: Probe,
    v4: bool,
    /// Length from the IP header on in bytes.
    l3_len: u32,
}

impl Question {
    /// The question about a frame, if there may be an answer; memory for it is asked for.
    #[inline(always)]
    pub(crate) fn about(ctx: &Context<'_>, port: Port, frame: &Frame<'_>) -> Option<Question> {
        if ctx.cache_after == 0 {
            return None;
        }
        let bytes = frame.bytes();
        let plain = wire::plain(bytes, frame.tail)?;
        let (dst, src) = wire::parse::macs(bytes)?;
        let (ifindex, mac) = match port {
            Port::Uplink(index) => (ctx.tables.node.uplinks.get(usize::from(index))?.ifindex, dst),
            Port::Hub => match Origin::decode(dst)? {
                Origin::Pod { ifindex, to: LinkDestination::Gateway } => (ifindex, src),
                _ => return None,
            },
        };
        Some(Question {
            probe: ctx.verdicts.probe(&Key { ifindex, tuple: plain.tuple }, mac),
            v4: plain.tuple.src.is_v4(),
            l3_len: plain.l3_len as u32,
        })
    }

    /// The packet's tuple.
    pub(crate) fn tuple(&self) -> Tuple {
        self.probe.tuple()
    }

    /// Whether the cache most likely has a verdict about such packets, good or not.
    #[inline(always)]
    pub(crate) fn has_answer(&self, ctx: &Context<'_>) -> bool {
        ctx.verdicts.may_hold(&self.probe)
    }
}

/// Does with a packet what the cache says; nothing if it says nothing.
#[inline]
pub(crate) fn repeat(ctx: &Context<'_>, question: &Question, frame: &mut Frame<'_>) -> Option<Verdict> {
    let Question { probe, v4, l3_len } = question;
    let hit = ctx.verdicts.lookup(probe, ctx.tables.generation, ctx.clock)?;
    if *l3_len > hit.mtu.into() {
        return None;
    }
    hit.count((*l3_len).into(), ctx.clock);
    let bytes = frame.room();
    match hit.rewrite {
        Rewrite::Nothing => {}
        Rewrite::Source(src, sport) => {
            rewrite::replace(bytes, probe.protocol(), End::Source, (src, sport), hit.difference);
        }
        Rewrite::Destination(dst, dport) => {
            rewrite::replace(bytes, probe.protocol(), End::Destination, (dst, dport), hit.difference);
        }
    }
    rewrite::take_hop(bytes, *v4);
    let link = match hit.exit {
        Exit::Pod { ifindex } => Link { port: Port::Hub, to: hit.to, from: deliver_to_pod(ifindex) },
        Exit::Uplink { index, .. } => Link { port: Port::Uplink(index), to: hit.to, from: hit.from },
    };
    link.write(bytes);
    frame.truncate(ETHERNET + *l3_len as usize);
    Some(Verdict::Transmit(link.port))
}

/// Writes down what was decided about a packet of a known flow, if that has proved itself. When
/// the first direction of a flow is cached the other is too, if it has been used.
pub(crate) fn learn(
    ctx: &Context<'_>,
    sender: &Sender<'_>,
    packet: &Packet,
    tuple: &Tuple,
    exit: &forward::Exit<'_>,
    (flow, side): (&Flow, Side),
) {
    let packets = flow.original.packets + flow.reply.packets + 1;
    let more = if packet.tuple.proto == Protocol::TCP { 0 } else { EXCHANGE };
    let ripe = ctx.cache_after != 0 && packets >= u64::from(ctx.cache_after) + more;
    let opens_or_ends = packet.is_syn() || packet.tcp_flags() & (FIN | RST) != 0;
    if !ripe || opens_or_ends {
        return;
    }
    let Some(verdict) = verdict(ctx, sender, &packet.tuple, tuple, exit, (flow, side)) else { return };
    let new = ctx.verdicts.insert(&verdict, ctx.clock) == Inserted::New;
    if new && (flow.state.replied || side == Side::Reply) {
        let ifindex = match verdict.exit {
            Exit::Pod { ifindex } | Exit::Uplink { ifindex, .. } => ifindex,
        };
        let answers = Key { ifindex, tuple: tuple.reversed() };
        if let Some(verdict) = confirm::evaluate(ctx, &answers) {
            ctx.verdicts.insert(&verdict, ctx.clock);
        }
    }
    if !track::goes_on(ctx, flow) {
        forget(ctx, flow);
    }
}

/// Takes out what is cached of a flow that is over.
pub(crate) fn forget(ctx: &Context<'_>, flow: &Flow) {
    fence(SeqCst);
    let client = track::restored(flow, &flow.new.tuple.reversed()).reversed();
    ctx.verdicts.remove(&client);
    ctx.verdicts.remove(&flow.new.tuple.reversed());
}

/// The finished verdict about packets from `sender` with the tuple `received` that belong to a
/// flow, if it is one that can be repeated without us.
pub(crate) fn verdict(
    ctx: &Context<'_>,
    sender: &Sender<'_>,
    received: &Tuple,
    tuple: &Tuple,
    exit: &forward::Exit<'_>,
    (flow, side): (&Flow, Side),
) -> Option<verdicts::Verdict> {
    let node = &ctx.tables.node;
    let (ifindex, expect) = match *sender {
        Sender::Pod { endpoint, .. } => (endpoint.ifindex, endpoint.mac),
        Sender::Uplink { index, .. } => {
            let uplink = node.uplinks.get(usize::from(index))?;
            (uplink.ifindex, uplink.mac)
        }
        Sender::Host { .. } => return None,
    };
    let (out, mtu, to, from) = match *exit {
        forward::Exit::Pod(endpoint) => {
            (Exit::Pod { ifindex: endpoint.ifindex }, node.pod_mtu, endpoint.mac, node.gateway_mac)
        }
        forward::Exit::Network(uplink, hop) => {
            let out = Exit::Uplink { index: hop.uplink, ifindex: uplink.ifindex };
            (out, hop.mtu.min(uplink.mtu), hop.mac, uplink.mac)
        }
        forward::Exit::Host | forward::Exit::Stack => return None,
    };
    // Of a pod that reaches itself through a service both addresses change.
    let hairpin = received.src != tuple.src && received.dst != tuple.dst;
    if track::is_over(flow) || hairpin || !matches!(received.proto, Protocol::TCP | Protocol::UDP) {
        return None;
    }
    let lifetime = flow.expires.wrapping_sub(flow.last_seen).saturating_sub(MARGIN);
    Some(verdicts::Verdict {
        key: Key { ifindex, tuple: *received },
        expect,
        mtu,
        tuple: *tuple,
        exit: out,
        to,
        from,
        flow: flow.id,
        side,
        lifetime: Nanoseconds::from(lifetime) * NANOSECONDS,
        generation: ctx.tables.generation,
    })
}
