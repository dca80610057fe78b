//! The Rust side of `bpf/maps.h`: keys and values as bytes, and the names of the losses.

use std::net::IpAddr;

/// `MAX_QUEUES`: receive queues per device.
pub const MAX_QUEUES: u32 = 64;
/// `MAX_UPLINKS`.
pub const MAX_UPLINKS: u32 = 16;

/// What the programs have to know (`struct config`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Config {
    /// Interface index of the hub's host side.
    pub hub: u32,
    /// Number of workers, which is the number of queues of the hub.
    pub workers: u32,
    /// The gateway's link-layer address on every pod link.
    pub gateway_mac: [u8; 6],
    /// Whether the programs apply verdicts; if not, every packet goes to a worker.
    pub offload: bool,
}

impl Config {
    pub(crate) fn bytes(&self) -> [u8; 16] {
        let mut bytes = [0; 16];
        bytes[..4].copy_from_slice(&self.hub.to_ne_bytes());
        bytes[4..8].copy_from_slice(&self.workers.to_ne_bytes());
        bytes[8..14].copy_from_slice(&self.gateway_mac);
        bytes[14] = self.offload.into();
        bytes
    }
}

/// A prefix as a key of the trie (`struct prefix`).
pub(crate) fn prefix(address: IpAddr, length: u8) -> [u8; 20] {
    let (octets, length) = match address {
        IpAddr::V4(v4) => (v4.to_ipv6_mapped().octets(), length + 96),
        IpAddr::V6(v6) => (v6.octets(), length),
    };
    let mut key = [0; 20];
    key[..4].copy_from_slice(&u32::from(length).to_ne_bytes());
    key[4..].copy_from_slice(&octets);
    key
}

/// Why the kernel's part of the way lost a frame (`enum loss`, same order).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Loss {
    /// No worker serves the queue of the hub.
    HubSocket,
    /// No worker serves the queue of the uplink.
    UplinkSocket,
    /// The agent has not configured the programs yet.
    Unconfigured,
    /// The frame could not be marked (shorter than its header, or no memory).
    Rewrite,
    /// A frame on the hub that no worker sent.
    Unmarked,
    /// A packet for a pod that came up from an uplink for the sake of a verdict that is gone.
    UplinkMiss,
}

impl Loss {
    /// Every one of them, in the order of the map.
    pub const ALL: [Loss; 6] = [
        Loss::HubSocket,
        Loss::UplinkSocket,
        Loss::Unconfigured,
        Loss::Rewrite,
        Loss::Unmarked,
        Loss::UplinkMiss,
    ];

    /// Name for metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Loss::HubSocket => "hub_socket",
            Loss::UplinkSocket => "uplink_socket",
            Loss::Unconfigured => "unconfigured",
            Loss::Rewrite => "rewrite",
            Loss::Unmarked => "unmarked",
            Loss::UplinkMiss => "uplink_miss",
        }
    }

    /// What happened, for people.
    pub const fn text(self) -> &'static str {
        match self {
            Loss::HubSocket => "no worker serves this queue of the hub",
            Loss::UplinkSocket => "no worker serves this queue of the uplink",
            Loss::Unconfigured => "the agent has not configured the programs yet",
            Loss::Rewrite => "the frame could not be marked",
            Loss::Unmarked => "frame on the hub that no worker sent",
            Loss::UplinkMiss => "the verdict was taken back between the uplink's two programs",
        }
    }
}
