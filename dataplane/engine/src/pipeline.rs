//! A packet's way, stage by stage: decide first, edit last.

use crate::balance::{Balanced, ServiceHit, balance};
use crate::enforce::enforce;
use crate::event::TraceState;
use crate::frame::{Frame, Link};
use crate::related::{Related, relate};
use crate::report::Report;
use crate::{Context, DropReason, Engine, Refusal, Sink, Verdict};
use crate::{admit::Sender, cache, forward, neighbor, rewrite, track, unreachable};
use flow::{Flow, NewFlow, Side};
use wire::parse::tcp;
use wire::{L4, Network, Packet, Tuple};

/// What is to be done with a frame.
#[expect(clippy::large_enum_variant, reason = "there is one on the stack, and nearly all are the large one")]
pub(crate) enum Action {
    /// Change it and send it on.
    Forward { packet: Packet, tuple: Tuple, related: Option<Related>, take_hop: bool, link: Link },
    /// Turn it into the answer of the neighbour it asks for.
    Neighbor(neighbor::Answer),
    /// Turn it into an ICMP error.
    Unreachable(unreachable::Answer),
    /// Discard it.
    Drop(DropReason),
    /// Leave it as it is for later.
    Hold,
}

/// What a packet is to conntrack.
struct Passage<'a> {
    /// The tuple after translation.
    tuple: Tuple,
    seen: Seen<'a>,
}

enum Seen<'a> {
    /// The first packet of a flow that may exist.
    New(NewFlow, Option<ServiceHit>),
    /// A packet of a flow.
    Known { flow: &'a Flow, side: Side, service: Option<ServiceHit> },
    /// An error about a packet of a flow.
    Related(Related),
}

/// Decides about a frame, and reports it.
pub(crate) fn decide<S: Sink>(engine: &mut Engine, report: &mut Report<'_, S>) -> Action {
    match run(engine, report) {
        Ok(action) => action,
        Err(refusal) if refusal.hold => Action::Hold,
        Err(refusal) => {
            report.drop(&refusal);
            let answer =
                refusal.answer.and_then(|message| unreachable::answer(&mut engine.errors, report, message));
            match answer {
                Some(answer) => Action::Unreachable(answer),
                None => Action::Drop(refusal.reason),
            }
        }
    }
}

fn run<S: Sink>(engine: &mut Engine, report: &mut Report<'_, S>) -> Result<Action, Refusal> {
    let (ctx, frame) = (report.ctx, report.frame);
    let macs = wire::parse::macs(frame).ok_or(DropReason::InvalidPacket)?;
    let sender = Sender::resolve(ctx, report.port, macs)?;
    report.sender = Some(sender);
    let network = wire::parse_split(frame, report.tail)?;
    if let Network::Ip(packet) = network {
        report.packet = Some(packet);
    }
    sender.check_link(macs)?;
    let mut packet = match network {
        Network::Arp(arp) => return neighbor::arp(ctx, &sender, &arp, report.room).map(Action::Neighbor),
        Network::Ip(packet) if packet.l4 == L4::Neighbor => {
            return neighbor::solicitation(report, &sender, &packet).map(Action::Neighbor);
        }
        Network::Ip(packet) => packet,
    };
    sender.check_packet(ctx, &packet)?;
    engine.fragments.complete(&mut packet, ctx.now)?;
    report.packet = Some(packet);

    let known;
    let passage = match packet.l4 {
        L4::IcmpError => {
            let related = relate(ctx, &sender, frame, &packet)?;
            Passage { tuple: related.outer, seen: Seen::Related(related) }
        }
        _ => {
            let balanced = balance(ctx, &sender, &packet)?;
            report.translated = Some(balanced.tuple);
            known = find(ctx, &packet, &balanced);
            match &known {
                Some((flow, side)) => established(report, &packet, &balanced, (flow, *side))?,
                None => first_packet(report, &packet, &balanced)?,
            }
        }
    };
    report.translated = Some(passage.tuple);
    rewrite::check(&packet, &passage.tuple)?;

    let exit = forward::route(ctx, &sender, passage.tuple.dst)?;
    exit.check(ctx, &sender, &packet)?;
    commit(ctx, &packet, &passage)?;
    if let Seen::Known { flow, side, .. } = passage.seen {
        cache::learn(ctx, &sender, &packet, &passage.tuple, &exit, (flow, side));
    }
    engine.fragments.remember(&packet, ctx.now);
    report.forwarded(exit.point(), milestone(&packet, &passage.seen));
    Ok(Action::Forward {
        packet,
        tuple: passage.tuple,
        related: match passage.seen {
            Seen::Related(related) => Some(related),
            _ => None,
        },
        take_hop: exit.takes_hop(&sender),
        link: exit.link(),
    })
}

/// The flow a packet belongs to. A connection request over the remains of a connection starts a
/// new one.
fn find(ctx: &Context<'_>, packet: &Packet, balanced: &Balanced) -> Option<(Flow, Side)> {
    let (flow, side) = ctx.flows.lookup(&balanced.tuple, ctx.now)?;
    if flow.state.reopened_by(packet.tcp_flags()) {
        ctx.flows.remove(flow.id);
        cache::forget(ctx, &flow);
        return None;
    }
    Some((flow, side))
}

/// A packet of a known flow: replies pass, the initiator's packets pass as long as policy stays
/// what it was when the flow was allowed, and are asked about once when it has changed.
fn established<'a, S: Sink>(
    report: &mut Report<'_, S>,
    packet: &Packet,
    balanced: &Balanced,
    (flow, side): (&'a Flow, Side),
) -> Result<Passage<'a>, Refusal> {
    let ctx = report.ctx;
    let allows = |tuple: &Tuple| enforce(ctx, report, tuple, false).map(drop);
    let tuple = continues(ctx, packet, balanced, (flow, side), allows)?;
    Ok(Passage { tuple, seen: Seen::Known { flow, side, service: balanced.service } })
}

/// The tuple with which a packet of a known flow goes on. `allows` asks policy.
pub(crate) fn continues(
    ctx: &Context<'_>,
    packet: &Packet,
    balanced: &Balanced,
    (flow, side): (&Flow, Side),
    allows: impl FnOnce(&Tuple) -> Result<(), Refusal>,
) -> Result<Tuple, Refusal> {
    if !track::belongs(packet, side) {
        return Err(DropReason::UnrelatedIcmp.into());
    }
    match side {
        Side::Original => {
            if flow.new.translated_from != balanced.frontend() {
                return Err(DropReason::ConntrackFull.into());
            }
            let generation = ctx.tables.policy_generation;
            if flow.new.generation != generation && !balanced.is_hairpin() {
                allows(&balanced.tuple)?;
                ctx.flows.restamp(flow.id, generation);
            }
            Ok(balanced.tuple)
        }
        Side::Reply if balanced.service.is_some() => Err(DropReason::ConntrackFull.into()),
        Side::Reply => Ok(track::restored(flow, &packet.tuple)),
    }
}

/// A packet of no known flow: policy decides, and allows it to become one. A pod that reaches
/// itself through a service needs no policy.
fn first_packet<S: Sink>(
    report: &mut Report<'_, S>,
    packet: &Packet,
    balanced: &Balanced,
) -> Result<Passage<'static>, Refusal> {
    let ctx = report.ctx;
    match packet.l4 {
        L4::LaterFragment => return Err(DropReason::FragmentNotFound.into()),
        L4::EchoReply => return Err(DropReason::UnrelatedIcmp.into()),
        _ => {}
    }
    let tuple = balanced.tuple;
    let (src_identity, dst_identity) = match report.sender.and_then(|sender| sender.pod()) {
        Some(pod) if balanced.is_hairpin() => (pod.identity, pod.identity),
        _ => enforce(ctx, report, &tuple, true)?,
    };
    let flow = NewFlow {
        tuple,
        translated_from: balanced.frontend(),
        service: balanced.service.map_or(0, |service| service.id),
        src_identity,
        dst_identity,
        generation: ctx.tables.policy_generation,
    };
    Ok(Passage { tuple, seen: Seen::New(flow, balanced.service) })
}

/// Writes into conntrack what has passed.
fn commit(ctx: &Context<'_>, packet: &Packet, passage: &Passage<'_>) -> Result<(), DropReason> {
    let (flags, bytes) = (packet.tcp_flags(), packet.l3_len() as u32);
    match &passage.seen {
        Seen::New(flow, service) => {
            track::create(ctx, &packet.tuple, flow, *service, (flags, bytes))?;
        }
        Seen::Known { flow, side, service } => {
            // Without memory it goes on as long as Maglev says the same.
            let _ = track::remember(ctx, &packet.tuple, &passage.tuple, *service, None);
            ctx.flows.touch(flow.id, *side, flags, bytes, ctx.now);
            if flags & (tcp::FIN | tcp::RST) != 0 && !track::goes_on(ctx, flow) {
                cache::forget(ctx, flow);
            }
            // The entry of a hairpin is not found by its flow, so it is kept alive here.
            if let Some(entry) = service.and_then(|service| service.entry)
                && passage.tuple.src != packet.tuple.src
            {
                ctx.flows.touch(entry, *side, flags, bytes, ctx.now);
            }
        }
        Seen::Related(_) => {}
    }
    Ok(())
}

/// The monitor hears of a flow when it begins, is answered and ends.
fn milestone(packet: &Packet, seen: &Seen<'_>) -> Option<TraceState> {
    let ends = packet.tcp_flags() & (tcp::FIN | tcp::RST) != 0;
    match *seen {
        Seen::New(..) => Some(TraceState::New),
        Seen::Known { side: Side::Original, .. } => ends.then_some(TraceState::Established),
        Seen::Known { flow, .. } => (ends || !flow.state.replied).then_some(TraceState::Reply),
        Seen::Related(_) => Some(TraceState::Related),
    }
}

impl Action {
    /// Edits the frame as decided.
    pub(crate) fn apply(self, frame: &mut Frame<'_>) -> Verdict {
        match self {
            Action::Forward { packet, tuple, related, take_hop, link } => {
                let bytes = frame.room();
                match related {
                    Some(related) => rewrite::translate_error(bytes, &packet, &related),
                    None if tuple != packet.tuple => rewrite::translate(bytes, &packet, &tuple),
                    None => {}
                }
                if take_hop {
                    rewrite::take_hop(bytes, packet.tuple.src.is_v4());
                }
                link.write(bytes);
                frame.truncate(packet.end);
                Verdict::Transmit(link.port)
            }
            Action::Neighbor(answer) => answer.build(frame),
            Action::Unreachable(answer) => answer.build(frame),
            Action::Drop(reason) => Verdict::Drop(reason),
            Action::Hold => Verdict::Hold,
        }
    }
}
