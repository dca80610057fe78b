//! Who sent a frame, and whether they may use the addresses on it.

use crate::{Context, DropReason, Port, forward::is_link_local, identify};
use core::num::NonZeroU32;
use tables::{Direction, Endpoint};
use wire::hub::{LinkDestination, Origin};
use wire::{Address, L4, MacAddr, Packet};

/// Who handed a frame to us.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Sender<'a> {
    /// A local pod.
    Pod {
        endpoint: &'a Endpoint,
        /// What kind of link-layer address it sent to.
        to: LinkDestination,
    },
    /// The node's own stack.
    Host {
        /// The pod link it sent on, if not to the hub.
        link: Option<u32>,
        /// It does so for somebody else.
        forwards: bool,
    },
    /// Another node.
    Uplink {
        /// Index into [`tables::Node::uplinks`].
        index: u8,
        /// Its link-layer address.
        mac: MacAddr,
    },
}

impl<'a> Sender<'a> {
    /// Resolves the origin of a frame from its destination and source MAC.
    pub(crate) fn resolve(
        ctx: &Context<'a>,
        port: Port,
        (dst, src): (MacAddr, MacAddr),
    ) -> Result<Self, DropReason> {
        let origin = match port {
            Port::Uplink(index) => return Ok(Sender::Uplink { index, mac: src }),
            Port::Hub => Origin::decode(dst).ok_or(DropReason::UnknownOrigin)?,
        };
        match origin {
            Origin::Host => Ok(Sender::Host { link: None, forwards: false }),
            Origin::HostToPod { ifindex } => Ok(Sender::Host { link: Some(ifindex), forwards: false }),
            Origin::Forwarded { link } => {
                Ok(Sender::Host { link: link.map(NonZeroU32::get), forwards: true })
            }
            Origin::Pod { ifindex, to } => {
                let endpoint = ctx.tables.endpoints.by_ifindex(ifindex).ok_or(DropReason::UnknownOrigin)?;
                Ok(Sender::Pod { endpoint, to })
            }
        }
    }

    /// The pod, if it is one.
    pub(crate) fn pod(&self) -> Option<&'a Endpoint> {
        match self {
            Sender::Pod { endpoint, .. } => Some(endpoint),
            _ => None,
        }
    }

    /// On which side of an endpoint its packets are until a receiver is found.
    pub(crate) fn direction(&self) -> Direction {
        if self.pod().is_some() { Direction::Egress } else { Direction::Ingress }
    }

    /// Checks the link-layer addresses.
    pub(crate) fn check_link(&self, (dst, src): (MacAddr, MacAddr)) -> Result<(), DropReason> {
        match self {
            Sender::Pod { endpoint, .. } if endpoint.mac != src => Err(DropReason::InvalidSourceMac),
            Sender::Pod { to: LinkDestination::Other, .. } => Err(DropReason::InvalidDestinationMac),
            // What everybody on the link hears is not for us to route (RFC 1812 §5.3.4).
            Sender::Uplink { .. } if dst.is_multicast() => Err(DropReason::InvalidDestinationMac),
            _ => Ok(()),
        }
    }

    /// Checks addresses and protocol of a packet. Group destinations come first: what a pod's
    /// stack says to its link when it starts is noise, not spoofing.
    pub(crate) fn check_packet(&self, ctx: &Context<'_>, packet: &Packet) -> Result<(), DropReason> {
        let (src, dst) = (packet.tuple.src, packet.tuple.dst);
        if scope(dst) == Scope::Group {
            return Err(DropReason::Multicast);
        }
        match self {
            Sender::Pod { to: LinkDestination::Group, .. } => Err(DropReason::InvalidDestinationMac),
            Sender::Pod { endpoint, .. } if !endpoint.addresses.contains(&src) => {
                Err(DropReason::InvalidSourceIp)
            }
            Sender::Pod { .. } => Ok(()),
            Sender::Host { .. } if ctx.tables.node.addresses.contains(&src) => Ok(()),
            Sender::Host { .. } if identify::claims_host(ctx, src) => Err(DropReason::InvalidSourceIp),
            _ if identify::is_ours(ctx, src) => Err(DropReason::InvalidSourceIp),
            _ => Ok(()),
        }?;
        let loops = src == dst || src == crate::hairpin_source(src);
        if loops || is_link_local(src) || scope(src) != Scope::Unicast || scope(dst) != Scope::Unicast {
            return Err(DropReason::Martian);
        }
        match packet.l4 {
            L4::Unknown => Err(DropReason::UnknownL4),
            L4::OtherIcmp if src.is_v4() => Err(DropReason::UnknownIcmpv4Type),
            L4::OtherIcmp => Err(DropReason::UnknownIcmpv6Type),
            L4::IcmpError if packet.fragment.is_some() => Err(DropReason::FragmentUnsupported),
            _ => Ok(()),
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Scope {
    Unicast,
    Group,
    Martian,
}

/// RFC 6890 as far as it matters to a router; link-local addresses simply have no route.
fn scope(address: Address) -> Scope {
    match address.as_v4() {
        Some(u32::MAX) => Scope::Group,
        Some(v4) => match v4 >> 24 {
            0 | 127 | 240.. => Scope::Martian,
            224..=239 => Scope::Group,
            _ => Scope::Unicast,
        },
        None if address.0 >> 120 == 0xff => Scope::Group,
        // `::`, `::1` and the IPv4-compatible addresses of old.
        None if address.0 >> 32 == 0 => Scope::Martian,
        None => Scope::Unicast,
    }
}
