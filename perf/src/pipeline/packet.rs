//! Who talks to whom, and their frames.

use engine::{Frame, Port};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use wire::craft::Craft;
use wire::hub::{LinkDestination, Origin};
use wire::{Address, MacAddr, Network, Tuple};

/// What policy allows.
pub const OPEN_PORT: u16 = 80;
/// What services lead to; it allows that too.
pub const BACKEND_PORT: u16 = 81;
/// What it does not.
pub const CLOSED_PORT: u16 = 82;
/// The other node.
pub(super) const REMOTE_NODE: Address = Address::v4(0x0a00_0102);
/// The other node's link-layer address.
pub(super) const REMOTE_MAC: MacAddr = MacAddr([0x0a, 0, 0, 0, 1, 2]);
/// The uplink's, and the gateway's for pods.
pub(super) const UPLINK_MAC: MacAddr = MacAddr([0x0a, 0, 0, 0, 0, 1]);
/// A buffer for a frame.
pub const CHUNK: usize = 2048;

/// Pods that have clients.
pub(super) const CLIENTS: u16 = 20;
const FIRST_PORT: u16 = 1024;
/// Flows that can be told apart by pod and port.
pub const FLOWS: u32 = (u16::MAX - FIRST_PORT) as u32 * CLIENTS as u32;

/// A pod of this node.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Pod {
    /// Host-side interface index, endpoint number and lowest part of its addresses.
    pub number: u16,
}

/// The pod that others of the node connect to.
pub const SERVER: Pod = Pod { number: 2 };

/// All pods.
pub(super) fn pods() -> impl Iterator<Item = Pod> {
    (SERVER.number..=SERVER.number + CLIENTS).map(|number| Pod { number })
}

impl Pod {
    /// Its IPv4 address.
    pub fn v4(self) -> IpAddr {
        Ipv4Addr::new(10, 60, 1, self.number as u8).into()
    }

    /// Its IPv6 address.
    pub fn v6(self) -> IpAddr {
        Ipv6Addr::new(0xfd00, 0x60, 1, 0, 0, 0, 0, self.number).into()
    }

    /// Its link-layer address.
    pub fn mac(self) -> MacAddr {
        MacAddr([0x0a, 0, 0, 0, 0, self.number as u8])
    }

    fn with(address: IpAddr) -> Option<Pod> {
        pods().find(|pod| [pod.v4(), pod.v6()].contains(&address))
    }
}

/// The client of the flow with this number.
pub fn client(flow: u32) -> (Pod, u16) {
    let number = SERVER.number + 1 + (flow % u32::from(CLIENTS)) as u16;
    (Pod { number }, FIRST_PORT + (flow / u32::from(CLIENTS)) as u16)
}

/// A pod of the other node.
pub fn remote(n: u32) -> IpAddr {
    Ipv4Addr::from_bits(0x0a80_0000 + n).into()
}

/// Address of a service.
pub fn service(n: u32) -> IpAddr {
    Ipv4Addr::from_bits(0x0a60_0000 + n).into()
}

/// A TCP segment as it arrives.
#[derive(Clone, Debug)]
pub struct Packet {
    /// Where.
    pub port: Port,
    /// As what.
    pub frame: Vec<u8>,
}

impl Packet {
    /// From a pod of this node, or from the other node.
    pub fn new(src: SocketAddr, dst: SocketAddr, flags: u8) -> Packet {
        let (port, from, to) = match Pod::with(src.ip()) {
            Some(pod) => {
                let origin = Origin::Pod { ifindex: pod.number.into(), to: LinkDestination::Gateway };
                (Port::Hub, pod.mac(), origin.encode())
            }
            None => (Port::Uplink(0), REMOTE_MAC, UPLINK_MAC),
        };
        Packet { port, frame: Craft::tcp(src, dst, flags).link(from, to).build() }
    }
}

/// Frames of equal length from one port, one behind the other.
#[derive(Clone, Debug)]
pub struct Frames {
    /// Where they arrive.
    pub port: Port,
    bytes: Vec<u8>,
    length: usize,
}

impl Frames {
    /// Of packets that come by the same port with the same length.
    ///
    /// # Panics
    /// If there is none.
    pub fn new(packets: impl IntoIterator<Item = Packet>) -> Frames {
        let mut packets = packets.into_iter();
        let Packet { port, frame } = packets.next().expect("at least one packet");
        let length = frame.len();
        let bytes = packets.fold(frame, |mut bytes, packet| {
            debug_assert_eq!((packet.port, packet.frame.len()), (port, length));
            bytes.extend(packet.frame);
            bytes
        });
        Frames { port, bytes, length }
    }

    /// One after the other.
    pub fn iter(&self) -> impl Iterator<Item = &[u8]> + Clone {
        self.bytes.chunks_exact(self.length)
    }

    /// Their tuples.
    pub fn tuples(&self) -> impl Iterator<Item = Tuple> {
        self.iter().filter_map(tuple)
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.bytes.len() / self.length
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }
}

/// Puts a frame into a chunk, as receiving it would.
pub fn load<'a>(chunk: &'a mut [u8], frame: &[u8]) -> Frame<'a> {
    chunk[..frame.len()].copy_from_slice(frame);
    Frame { buf: chunk, head: 0, len: frame.len(), tail: 0 }
}

/// Addresses and ports of a frame.
pub fn tuple(frame: &[u8]) -> Option<Tuple> {
    match wire::parse(frame) {
        Ok(Network::Ip(packet)) => Some(packet.tuple),
        _ => None,
    }
}
