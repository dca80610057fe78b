//! Addresses → security identities, as in `cilium-interop` 6.1, except that what lies in a pod CIDR
//! is never the world: a pod of which nothing else is known has [`Identity::UNKNOWN`].

use crate::{Context, admit::Sender};
use tables::IpEntry;
use wire::{Address, Identity};

/// Identity of a packet's sender, whose source address was admitted.
pub(crate) fn sender(ctx: &Context<'_>, sender: &Sender<'_>, src: Address) -> Identity {
    match sender {
        Sender::Pod { endpoint, .. } => endpoint.identity,
        // What the host forwards is not its own: masqueraded, or its address is faked.
        Sender::Host { forwards, .. } if ctx.tables.node.addresses.contains(&src) => {
            if *forwards {
                world(ctx, src)
            } else {
                Identity::HOST
            }
        }
        // Nobody becomes the host by an entry in the ipcache.
        _ => remote(ctx, src).filter(|&identity| identity != Identity::HOST).unwrap_or(world(ctx, src)),
    }
}

/// Identity of a packet's receiver, after translation.
pub(crate) fn receiver(ctx: &Context<'_>, dst: Address) -> Identity {
    if let Some(endpoint) = ctx.tables.endpoints.by_address(dst) {
        endpoint.identity
    } else if ctx.tables.node.addresses.contains(&dst) {
        Identity::HOST
    } else if in_pod_range(ctx, dst) {
        Identity::UNKNOWN
    } else {
        remote(ctx, dst).unwrap_or(world(ctx, dst))
    }
}

/// Whether an address is this node's or one of its pods', taken or not: nobody else sends from
/// it.
pub(crate) fn is_ours(ctx: &Context<'_>, address: Address) -> bool {
    let tables = ctx.tables;
    tables.node.addresses.contains(&address)
        || tables.endpoints.by_address(address).is_some()
        || in_pod_range(ctx, address)
}

/// Whether an address lies in a pod CIDR of this node.
pub(crate) fn in_pod_range(ctx: &Context<'_>, address: Address) -> bool {
    ctx.tables.node.pod_ranges.iter().any(|&(first, last)| (first..=last).contains(&address))
}

/// Whether the ipcache takes an address for this node, which does not know it as its own.
pub(crate) fn claims_host(ctx: &Context<'_>, address: Address) -> bool {
    remote(ctx, address) == Some(Identity::HOST)
}

fn remote(ctx: &Context<'_>, address: Address) -> Option<Identity> {
    ctx.tables.ipcache.lookup(address).map(|IpEntry { identity, .. }| identity)
}

fn world(ctx: &Context<'_>, address: Address) -> Identity {
    match (ctx.tables.node.dual_stack, address.is_v4()) {
        (false, _) => Identity::WORLD,
        (true, true) => Identity::WORLD_IPV4,
        (true, false) => Identity::WORLD_IPV6,
    }
}
