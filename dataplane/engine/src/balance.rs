//! Service address → backend, for packets of local pods.

use crate::{Context, DropReason, admit::Sender, hairpin_source};
use flow::FlowId;
use tables::{Frontend, Service};
use wire::{Address, Packet, Tuple};

/// A packet's tuple after service translation, and what was decided on the way.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Balanced {
    /// Client → backend; the same as received if it is not to a service.
    pub(crate) tuple: Tuple,
    /// The service, if it is to one.
    pub(crate) service: Option<ServiceHit>,
}

/// A packet to a service.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ServiceHit {
    /// What the client addressed.
    pub(crate) frontend: (Address, u16),
    /// Number of the service.
    pub(crate) id: u32,
    /// The conntrack entry that remembers the backend of this client.
    pub(crate) entry: Option<FlowId>,
    /// Another backend than that entry says was chosen.
    pub(crate) moved: bool,
}

impl Balanced {
    /// What the client addressed, if it was a service.
    pub(crate) fn frontend(&self) -> Option<(Address, u16)> {
        self.service.map(|service| service.frontend)
    }

    /// Whether a pod talks to itself through a service: its address is then hidden from it.
    pub(crate) fn is_hairpin(&self) -> bool {
        self.service.is_some() && self.tuple.src == hairpin_source(self.tuple.src)
    }
}

/// Finds the backend of a packet.
pub(crate) fn balance(
    ctx: &Context<'_>,
    sender: &Sender<'_>,
    packet: &Packet,
) -> Result<Balanced, DropReason> {
    let client = packet.tuple;
    let services = &ctx.tables.services;
    let direct = Balanced { tuple: client, service: None };
    if sender.pod().is_none() || !services.is_virtual(client.dst) {
        return Ok(direct);
    }
    let frontend = Frontend { address: client.dst, port: client.dport, proto: client.proto };
    let service = services.lookup(frontend).ok_or(DropReason::NoServiceBackend)?;
    let pinned = ctx.flows.lookup_service(&client, ctx.now);
    let kept = pinned.filter(|&(_, address, port, _)| keeps(service, packet, address, port));
    let (dst, dport) = match kept {
        Some((_, address, port, _)) => (address, port),
        None if packet.is_later_fragment() => return Err(DropReason::FragmentNotFound),
        None => {
            let backend = service.select(client.directed_hash(0)).ok_or(DropReason::NoServiceBackend)?;
            (backend.address, backend.port)
        }
    };
    let src = if dst == client.src { hairpin_source(client.src) } else { client.src };
    Ok(Balanced {
        tuple: Tuple { src, dst, dport, ..client },
        service: Some(ServiceHit {
            frontend: (client.dst, client.dport),
            id: service.id(),
            entry: pinned.map(|(entry, ..)| entry),
            moved: kept.is_none(),
        }),
    })
}

/// Whether a client stays with its backend: always as long as the service has it, but new
/// connections do not go to one that is on its way out.
fn keeps(service: &Service, packet: &Packet, address: Address, port: u16) -> bool {
    service.find(address, port).is_some_and(|backend| backend.weight > 0 || !packet.is_syn())
}
