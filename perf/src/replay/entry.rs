//! Where captured packets entered the dataplane, and the frames that its workers got to see.

use super::capture::{Captured, Cooked, Place};
use dataplane::api::state::{Endpoint, Loaded};
use dataplane::monitor::resolve::Resolver;
use dataplane::net::hub;
use engine::Port;
use tables::Snapshot;
use wire::hub::{HOST_MAC, LinkDestination, Origin};
use wire::parse::{ETHERNET, IPV4, IPV6, macs};
use wire::{Address, MacAddr, Protocol, checksum};

/// A way into the dataplane.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Entry {
    /// A pod's interface.
    Pod {
        /// Index of its host side.
        ifindex: u32,
    },
    /// An uplink.
    Uplink {
        /// Position in the list of uplinks.
        index: u8,
    },
    /// The host's end of the hub, where frames are marked with their origin.
    Hub,
}

/// Why a packet is not for the workers.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Elsewhere {
    /// It leaves where it was captured: it was decided about where it came from.
    Leaves,
    /// It is the host's own traffic on an uplink.
    HostsOwn,
    /// It was captured on an interface that is not the dataplane's.
    OtherInterface,
}

impl Elsewhere {
    /// In words.
    pub(super) fn text(self) -> &'static str {
        match self {
            Elsewhere::Leaves => "leaving by this interface",
            Elsewhere::HostsOwn => "the host's own",
            Elsewhere::OtherInterface => "captured on other interfaces",
        }
    }
}

impl Entry {
    /// The entry that a user names: a pod's name, number or interface, an uplink, or the hub.
    ///
    /// # Errors
    /// If there is no such thing.
    pub(super) fn named(loaded: &Loaded, name: &str) -> Result<Entry, String> {
        let state = &loaded.state;
        let is = |endpoint: &&Endpoint| {
            let pod = state.names.pods.get(&endpoint.id);
            name == endpoint.id.to_string() || pod.is_some_and(|pod| pod.name == name)
        };
        let named = state.endpoints.iter().find(is).map(pod);
        named.or_else(|| Entry::of_name(loaded, name)).ok_or_else(|| {
            let pods = state.endpoints.iter().map(|endpoint| &*endpoint.interface);
            let uplinks = state.node.uplinks.iter().map(|uplink| &*uplink.name);
            let all: Vec<_> = pods.chain(uplinks).chain([hub::HOST_END]).collect();
            let all = all.join(", ");
            format!("interface: {name}: not in the state; must be a pod's name or number, or one of {all}")
        })
    }

    /// The entry that a capture names.
    pub(super) fn of_place(loaded: &Loaded, place: &Place) -> Option<Entry> {
        match place {
            Place::Unsaid => None,
            Place::Name(name) => Entry::of_name(loaded, name),
            Place::Index(index) => {
                let tables = loaded.tables();
                let uplink = tables.node.uplinks.iter().position(|uplink| uplink.ifindex == *index);
                let endpoint = || tables.endpoints.by_ifindex(*index);
                uplink.and_then(uplink_at).or_else(|| Some(Entry::Pod { ifindex: endpoint()?.ifindex }))
            }
        }
    }

    fn of_name(loaded: &Loaded, name: &str) -> Option<Entry> {
        if name == hub::HOST_END {
            return Some(Entry::Hub);
        }
        let state = &loaded.state;
        let uplink = state.node.uplinks.iter().position(|uplink| uplink.name == name);
        let endpoint = state.endpoints.iter().find(|endpoint| endpoint.interface == name);
        uplink.and_then(uplink_at).or_else(|| endpoint.map(pod))
    }

    /// The frame that a worker gets, and by which port.
    ///
    /// # Errors
    /// If it gets none.
    pub(super) fn frame(self, tables: &Snapshot, captured: &Captured) -> Result<(Port, Vec<u8>), Elsewhere> {
        let mut frame = captured.frame.clone();
        let (dst, src) = macs(&frame).unwrap_or_default();
        if captured.cooked == Some(Cooked::Sent) {
            return Err(Elsewhere::Leaves);
        }
        match self {
            Entry::Pod { ifindex } => {
                if tables.endpoints.by_ifindex(ifindex).is_some_and(|endpoint| endpoint.mac == dst) {
                    return Err(Elsewhere::Leaves);
                }
                let to = match captured.cooked {
                    Some(Cooked::Received(to)) => to,
                    _ => class(dst, tables.node.gateway_mac),
                };
                if let Some(destination) = frame.first_chunk_mut() {
                    *destination = Origin::Pod { ifindex, to }.encode().0;
                }
                first_segment(&mut frame, tables.node.pod_mtu);
                Ok((Port::Hub, frame))
            }
            Entry::Uplink { index } => {
                let own = tables.node.uplinks.get(usize::from(index)).map(|uplink| uplink.mac);
                if own == Some(src) {
                    return Err(Elsewhere::Leaves);
                }
                // What the program on the uplink hands to workers.
                if to_pods(tables, &frame) {
                    Ok((Port::Uplink(index), frame))
                } else {
                    Err(Elsewhere::HostsOwn)
                }
            }
            // Towards the host both addresses are the hub's, and from it they are as well.
            Entry::Hub if dst == HOST_MAC && !to_pods(tables, &frame) => Err(Elsewhere::Leaves),
            Entry::Hub if Origin::decode(dst).is_none() => Err(Elsewhere::Leaves),
            Entry::Hub => Ok((Port::Hub, frame)),
        }
    }
}

fn pod(endpoint: &Endpoint) -> Entry {
    Entry::Pod { ifindex: endpoint.ifindex }
}

fn uplink_at(position: usize) -> Option<Entry> {
    Some(Entry::Uplink { index: position.try_into().ok()? })
}

/// What steering makes of a pod's link-layer destination.
fn class(to: MacAddr, gateway: MacAddr) -> LinkDestination {
    match to {
        to if to == gateway => LinkDestination::Gateway,
        to if to.is_multicast() => LinkDestination::Group,
        _ => LinkDestination::Other,
    }
}

/// Whether a frame is to an address in a pod CIDR.
fn to_pods(tables: &Snapshot, frame: &[u8]) -> bool {
    let ranges = &tables.node.pod_ranges;
    destination(frame).is_some_and(|address| ranges.iter().any(|&(a, b)| (a..=b).contains(&address)))
}

fn destination(frame: &[u8]) -> Option<Address> {
    let (ethernet, packet) = frame.split_at_checked(ETHERNET)?;
    match ethernet[12..] {
        [0x08, 0x00] => packet.get(16..)?.first_chunk().map(|bytes| Address::v4(u32::from_be_bytes(*bytes))),
        [0x86, 0xdd] => packet.get(24..)?.first_chunk().map(|bytes| Address::v6(u128::from_be_bytes(*bytes))),
        _ => None,
    }
}

/// Pods send TCP packets longer than their MTU, and the kernel cuts them into segments before a
/// worker gets them: leaves the first one.
fn first_segment(frame: &mut Vec<u8>, mtu: u16) {
    let end = ETHERNET + usize::from(mtu);
    if frame.len() <= end || usize::from(mtu) < IPV6 {
        return;
    }
    match (frame[12], frame[13]) {
        (0x08, 0x00) if frame[ETHERNET + 9] == Protocol::TCP.0 => {
            frame.truncate(end);
            let header = &mut frame[ETHERNET..][..IPV4];
            header[2..4].copy_from_slice(&mtu.to_be_bytes());
            header[10..12].fill(0);
            let sum = checksum::finish(&[checksum::sum(header)]);
            header[10..12].copy_from_slice(&sum.to_be_bytes());
        }
        (0x86, 0xdd) if frame[ETHERNET + 6] == Protocol::TCP.0 => {
            frame.truncate(end);
            frame[ETHERNET + 4..][..2].copy_from_slice(&(mtu - IPV6 as u16).to_be_bytes());
        }
        _ => {}
    }
}
