//! Conntrack: which flow a packet belongs to, and the birth of flows.

use crate::balance::ServiceHit;
use crate::{Context, DropReason, hairpin_source};
use core::sync::atomic::{Ordering::SeqCst, fence};
use flow::{Flow, FlowId, InsertError, NewFlow, Side};
use wire::parse::tcp::RST;
use wire::{L4, Packet, Tuple};

/// How often a new flow is tried to be put into the table while other workers are busy with the
/// same bucket.
const TRIES: usize = 4;

/// Whether a packet may be part of the flow that has its tuple. With identifier 0 both directions
/// of an echo flow look the same, so requests and replies are told apart by their type.
pub(crate) fn belongs(packet: &Packet, side: Side) -> bool {
    match packet.l4 {
        L4::EchoRequest => side == Side::Original,
        L4::EchoReply => side == Side::Reply,
        _ => true,
    }
}

/// What a reply looks like to the client: translation undone.
pub(crate) fn restored(flow: &Flow, reply: &Tuple) -> Tuple {
    let Some((src, sport)) = flow.new.translated_from else { return *reply };
    // A hairpin's backend is its client.
    let dst = if reply.dst == hairpin_source(reply.dst) { reply.src } else { reply.dst };
    Tuple { src, sport, dst, ..*reply }
}

/// Whether a connection is over: it was reset, or both sides have closed.
pub(crate) fn is_over(flow: &Flow) -> bool {
    flow.state.closed() || (flow.state.original_flags | flow.state.reply_flags) & RST != 0
}

/// Whether a flow goes on, after all that other workers have seen of it meanwhile.
///
/// Who writes about a flow elsewhere asks afterwards, who ends it looks there afterwards: either the
/// one sees the end, or the other what was written.
pub(crate) fn goes_on(ctx: &Context<'_>, flow: &Flow) -> bool {
    fence(SeqCst);
    ctx.flows.lookup(&flow.new.tuple, ctx.now).is_some_and(|(now, _)| now.id == flow.id && !is_over(&now))
}

/// Creates a flow with its first packet, and for the client of a service the memory of its backend.
pub(crate) fn create(
    ctx: &Context<'_>,
    client: &Tuple,
    new: &NewFlow,
    service: Option<ServiceHit>,
    (tcp_flags, bytes): (u8, u32),
) -> Result<(), DropReason> {
    let begin = || ctx.flows.begin(new, tcp_flags, bytes, ctx.now);
    let join = || {
        let flow = same_flow(ctx, new)?;
        ctx.flows.touch(flow, Side::Original, tcp_flags, bytes, ctx.now);
        Some(flow)
    };
    let flow = insert(begin, join)?;
    remember(ctx, client, &new.tuple, service, Some(tcp_flags)).inspect_err(|_| {
        ctx.flows.remove(flow);
    })
}

/// Remembers the backend that was chosen for a client, if it is not remembered already. `first` are
/// the TCP flags of the packet that begins the flow.
pub(crate) fn remember(
    ctx: &Context<'_>,
    client: &Tuple,
    translated: &Tuple,
    service: Option<ServiceHit>,
    first: Option<u8>,
) -> Result<(), DropReason> {
    let Some(service) = service.filter(|service| service.moved) else { return Ok(()) };
    if let Some(old) = service.entry {
        ctx.flows.remove(old);
    }
    ctx.verdicts.remove(client);
    let backend = (translated.dst, translated.dport);
    let same_entry = || {
        let (id, address, port, _) = ctx.flows.lookup_service(client, ctx.now)?;
        ((address, port) == backend).then_some(id)
    };
    let create = || match first {
        Some(tcp_flags) => ctx.flows.begin_service(client, backend, service.id, tcp_flags, ctx.now),
        None => ctx.flows.insert_service(client, backend, service.id, ctx.now),
    };
    insert(create, same_entry).map(|_| ())
}

/// The same flow, created by another worker in the meantime.
fn same_flow(ctx: &Context<'_>, new: &NewFlow) -> Option<FlowId> {
    let (flow, side) = ctx.flows.lookup(&new.tuple, ctx.now)?;
    (side == Side::Original && flow.new.translated_from == new.translated_from).then_some(flow.id)
}

fn insert(
    create: impl Fn() -> Result<FlowId, InsertError>,
    find: impl Fn() -> Option<FlowId>,
) -> Result<FlowId, DropReason> {
    for _ in 0..TRIES {
        match create() {
            Ok(id) => return Ok(id),
            Err(InsertError::Full) => break,
            Err(InsertError::Busy) => {}
        }
        if let Some(id) = find() {
            return Ok(id);
        }
    }
    Err(DropReason::ConntrackFull)
}
