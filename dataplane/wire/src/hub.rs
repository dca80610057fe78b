//! How frames on the hub veth say where they came from and where they go.
//!
//! A pod's frame reaches the workers over one veth pair, so its origin has to travel with it.
//! The tc steering program overwrites the destination MAC; a worker writes the source MAC for
//! the tc delivery program. Both use the same six bytes (`bpf/src/bpf/hub.h` is the C side):
//! `06 | kind | ifindex, big endian`.

use crate::addr::MacAddr;
use core::num::NonZeroU32;

const MARK: u8 = 0x06;
const HOST: u8 = 0;
const POD: u8 = 1;
const POD_GROUP: u8 = 2;
const POD_OTHER: u8 = 3;
const HOST_TO_POD: u8 = 4;
const FORWARDED: u8 = 5;

/// The MAC of the hub's host-side end: what the host's own stack sends to, and the delivery
/// mark for "hand this to the host's stack".
pub const HOST_MAC: MacAddr = MacAddr([MARK, HOST, 0, 0, 0, 0]);

/// Where a frame on the hub came from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Origin {
    /// The host's stack, routed to the hub.
    Host,
    /// The host's stack, sent directly to the pod veth `ifindex`.
    HostToPod {
        /// Host-side interface index of the pod's veth.
        ifindex: u32,
    },
    /// The host's stack, which had received it from elsewhere.
    Forwarded {
        /// Host-side interface index of the pod's veth, if not routed to the hub.
        link: Option<NonZeroU32>,
    },
    /// A pod.
    Pod {
        /// Host-side interface index of the pod's veth.
        ifindex: u32,
        /// What the destination MAC was before steering.
        to: LinkDestination,
    },
}

/// The class of the destination MAC a pod put on its frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LinkDestination {
    /// The gateway's MAC.
    Gateway,
    /// Broadcast or multicast.
    Group,
    /// Some other unicast address: nobody here.
    Other,
}

impl Origin {
    /// Reads the destination MAC of a frame received on the hub; `None` if steering did not
    /// write it.
    pub const fn decode(dst: MacAddr) -> Option<Origin> {
        let [mark, kind, a, b, c, d] = dst.0;
        if mark != MARK {
            return None;
        }
        let ifindex = u32::from_be_bytes([a, b, c, d]);
        Some(match kind {
            HOST if ifindex == 0 => Origin::Host,
            HOST_TO_POD => Origin::HostToPod { ifindex },
            FORWARDED => Origin::Forwarded { link: NonZeroU32::new(ifindex) },
            POD => Origin::Pod { ifindex, to: LinkDestination::Gateway },
            POD_GROUP => Origin::Pod { ifindex, to: LinkDestination::Group },
            POD_OTHER => Origin::Pod { ifindex, to: LinkDestination::Other },
            _ => return None,
        })
    }

    /// The destination MAC that steering writes for this origin.
    pub const fn encode(self) -> MacAddr {
        let (kind, ifindex) = match self {
            Origin::Host => (HOST, 0),
            Origin::HostToPod { ifindex } => (HOST_TO_POD, ifindex),
            Origin::Forwarded { link: Some(ifindex) } => (FORWARDED, ifindex.get()),
            Origin::Forwarded { link: None } => (FORWARDED, 0),
            Origin::Pod { ifindex, to: LinkDestination::Gateway } => (POD, ifindex),
            Origin::Pod { ifindex, to: LinkDestination::Group } => (POD_GROUP, ifindex),
            Origin::Pod { ifindex, to: LinkDestination::Other } => (POD_OTHER, ifindex),
        };
        mark(kind, ifindex)
    }
}

/// The source MAC that asks the delivery program to hand a frame to the pod behind `ifindex`.
pub const fn deliver_to_pod(ifindex: u32) -> MacAddr {
    mark(POD, ifindex)
}

const fn mark(kind: u8, ifindex: u32) -> MacAddr {
    let [a, b, c, d] = ifindex.to_be_bytes();
    MacAddr([MARK, kind, a, b, c, d])
}
