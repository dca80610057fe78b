//! Where a packet goes next, and whether it fits.
//!
//! A packet loses one hop on its way through a node. Where the node's own stack is on that way it
//! takes the hop, so nothing is taken from packets from it or to it.

use crate::unreachable::Message;
use crate::{Context, DropReason, Port, Refusal, admit::Sender, hairpin_source, identify};
use crate::{event::TracePoint, frame::Link};
use tables::{Endpoint, NextHop, Uplink};
use wire::{Address, Packet};

/// The way out.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Exit<'a> {
    /// To a local pod.
    Pod(&'a Endpoint),
    /// To another node.
    Network(&'a Uplink, NextHop),
    /// To the node itself.
    Host,
    /// To the node's stack, which knows the way.
    Stack,
}

impl Exit<'_> {
    /// Port and link-layer addresses.
    pub(crate) fn link(&self) -> Link {
        match self {
            Exit::Pod(endpoint) => Link::to_pod(endpoint),
            Exit::Network(uplink, hop) => {
                Link { port: Port::Uplink(hop.uplink), to: hop.mac, from: uplink.mac }
            }
            Exit::Host | Exit::Stack => Link::TO_HOST,
        }
    }

    /// What the monitor calls it.
    pub(crate) fn point(&self) -> TracePoint {
        match self {
            Exit::Pod(_) => TracePoint::ToEndpoint,
            Exit::Network(..) => TracePoint::ToNetwork,
            Exit::Host => TracePoint::ToHost,
            Exit::Stack => TracePoint::ToStack,
        }
    }

    /// Largest packet it takes in bytes; the node's stack speaks for itself.
    fn mtu(&self, ctx: &Context<'_>) -> Option<u16> {
        match self {
            Exit::Pod(_) => Some(ctx.tables.node.pod_mtu),
            Exit::Network(uplink, hop) => Some(hop.mtu.min(uplink.mtu)),
            Exit::Host | Exit::Stack => None,
        }
    }

    /// Whether a packet from `sender` loses a hop here.
    pub(crate) fn takes_hop(&self, sender: &Sender<'_>) -> bool {
        let routed_here = matches!(self, Exit::Pod(_) | Exit::Network(..));
        routed_here && !matches!(sender, Sender::Host { .. })
    }

    /// Checks hops left and length.
    pub(crate) fn check(
        &self,
        ctx: &Context<'_>,
        sender: &Sender<'_>,
        packet: &Packet,
    ) -> Result<(), Refusal> {
        if self.takes_hop(sender) && packet.ttl <= 1 {
            return Err(Refusal { answer: Some(Message::TimeExceeded), ..DropReason::TtlExceeded.into() });
        }
        match self.mtu(ctx) {
            Some(mtu) if packet.l3_len() > mtu.into() => Err(Refusal {
                answer: Some(Message::TooBig { mtu }),
                ..DropReason::FragmentationNeeded.into()
            }),
            _ => Ok(()),
        }
    }
}

/// Finds the way to `dst`. Only pods are routed for; what the host sends has to be for a local pod,
/// what the network sends for one or for the node (by the address of its gateway).
pub(crate) fn route<'a>(
    ctx: &Context<'a>,
    sender: &Sender<'_>,
    dst: Address,
) -> Result<Exit<'a>, DropReason> {
    let tables = ctx.tables;
    if let Some(endpoint) = tables.endpoints.by_address(dst) {
        return match *sender {
            Sender::Host { link: Some(ifindex), .. } if ifindex != endpoint.ifindex => {
                Err(DropReason::Unroutable)
            }
            _ => Ok(Exit::Pod(endpoint)),
        };
    }
    if tables.node.addresses.contains(&dst) && !matches!(sender, Sender::Host { .. }) {
        return Ok(Exit::Host);
    }
    if sender.pod().is_none() {
        return Err(DropReason::Unroutable);
    }
    // Whatever others say of these addresses, nobody is behind them.
    if identify::in_pod_range(ctx, dst) || is_link_local(dst) || dst == hairpin_source(dst) {
        return Err(DropReason::Unroutable);
    }
    let entry = tables.ipcache.lookup(dst);
    if let Some(hop) = entry.and_then(|entry| tables.hops.get(entry.hop)) {
        let next = hop.next.ok_or(DropReason::NoNeighbor)?;
        let uplink = tables.node.uplinks.get(usize::from(next.uplink)).ok_or(DropReason::NoNeighbor)?;
        return Ok(Exit::Network(uplink, next));
    }
    Ok(Exit::Stack)
}

/// fe80::/10 ends at the link. 169.254.0.0/16 does not for the node's stack: clouds have their
/// metadata services there.
pub(crate) fn is_link_local(address: Address) -> bool {
    address.0 >> 118 == 0xfe80 >> 6
}
