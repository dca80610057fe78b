//! The one door from bytes to types: frame → [`Network`], or why it is malformed.
//!
//! Lengths come from the IP header; Ethernet padding and other trailing bytes are not part of
//! the packet. What is returned Ok has all its headers inside the frame.

use crate::addr::{Address, MacAddr, Protocol};
use crate::checksum;
use crate::tuple::Tuple;
use core::net::IpAddr;
use smoltcp::wire::{ArpOperation, ArpPacket, ArpRepr};

/// Length of an Ethernet header in bytes, where L3 starts.
pub const ETHERNET: usize = 14;
/// Length of an IPv4 header without options in bytes.
pub const IPV4: usize = 20;
/// Length of the fixed IPv6 header in bytes.
pub const IPV6: usize = 40;

pub(crate) const ETHERTYPE_IPV4: u16 = 0x0800;
const ETHERTYPE_ARP: u16 = 0x0806;
pub(crate) const ETHERTYPE_IPV6: u16 = 0x86dd;
/// 802.1Q, 802.1ad and the QinQ type that came before it.
const ETHERTYPES_VLAN: [u16; 3] = [0x8100, 0x88a8, 0x9100];

/// What a well-formed frame holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Network {
    /// ARP for IPv4 over Ethernet (RFC 826).
    Arp(Arp),
    /// IPv4 or IPv6.
    Ip(Packet),
}

/// An ARP message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Arp {
    /// A request; otherwise a reply.
    pub request: bool,
    /// Who asks: link-layer address.
    pub sender_mac: MacAddr,
    /// Who asks: IPv4 address, 0.0.0.0 in a probe (RFC 5227).
    pub sender: Address,
    /// Whose link-layer address is asked for.
    pub target: Address,
}

/// An IP packet: where its parts are and what they say.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Packet {
    /// Addresses, ports and protocol.
    pub tuple: Tuple,
    /// The L4 header.
    pub l4: L4,
    /// Set in fragments; not in a fragment that is the whole datagram (RFC 6946).
    pub fragment: Option<Fragment>,
    /// TTL or hop limit.
    pub ttl: u8,
    /// Routers must not fragment it: the DF bit; always so in IPv6.
    pub dont_fragment: bool,
    /// Where the L4 header starts in the frame.
    pub l4_offset: usize,
    /// Where the packet ends in the frame, whose further buffers count.
    pub end: usize,
}

impl Packet {
    /// Length from the start of the IP header in bytes.
    pub const fn l3_len(&self) -> usize {
        self.end - ETHERNET
    }

    /// TCP flags; 0 for other protocols.
    pub const fn tcp_flags(&self) -> u8 {
        match self.l4 {
            L4::Tcp { flags } => flags,
            _ => 0,
        }
    }

    /// Whether this asks for a new TCP connection: SYN without ACK.
    pub const fn is_syn(&self) -> bool {
        self.tcp_flags() & (tcp::SYN | tcp::ACK) == tcp::SYN
    }

    /// Whether this is a fragment without the L4 header.
    pub const fn is_later_fragment(&self) -> bool {
        matches!(self.l4, L4::LaterFragment)
    }
}

/// TCP flags (RFC 9293 §3.1).
pub mod tcp {
    /// No more data from the sender.
    pub const FIN: u8 = 0x01;
    /// Synchronise sequence numbers.
    pub const SYN: u8 = 0x02;
    /// Reset the connection.
    pub const RST: u8 = 0x04;
    /// The acknowledgment field is significant.
    pub const ACK: u8 = 0x10;
    /// The urgent pointer is significant.
    pub const URG: u8 = 0x20;
}

/// What follows the IP header.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum L4 {
    /// TCP.
    Tcp {
        /// The flags, see [`tcp`].
        flags: u8,
    },
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
    /// ICMP or ICMPv6 echo request.
    EchoRequest,
    /// ICMP or ICMPv6 echo reply.
    EchoReply,
    /// An error about another packet, which [`crate::Quoted`] reads: ICMP types 3, 11 and 12,
    /// ICMPv6 types 1–4.
    IcmpError,
    /// Neighbour discovery: ICMPv6 types 133–137.
    Neighbor,
    /// Any other ICMP or ICMPv6 message.
    OtherIcmp,
    /// A fragment without the L4 header; ports are 0.
    LaterFragment,
    /// A protocol that we do not know; ports are 0.
    Unknown,
}

/// Where a fragment belongs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Fragment {
    /// Identification of the datagram (16 bits in IPv4).
    pub id: u32,
    /// Offset of its payload in the datagram in bytes.
    pub offset: u16,
    /// Not the last one.
    pub more: bool,
}

/// Why a frame cannot be understood.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Malformed {
    /// Truncated, or a version or length that contradicts the rest.
    Packet,
    /// An 802.1Q or 802.1ad tag.
    Vlan,
    /// Neither IPv4, IPv6 nor ARP.
    Ethertype,
    /// IPv4 options.
    Options,
    /// Wrong IPv4 header checksum.
    HeaderChecksum,
    /// An IPv6 extension header that is not accepted: only hop-by-hop options, destination
    /// options and fragment are, each once and in this order.
    ExtensionHeader,
    /// The L4 header is truncated or invalid.
    L4Header,
    /// A fragment of impossible length, or one that would overwrite the L4 header of the first
    /// (RFC 1858, RFC 3128).
    Fragment,
    /// An IPv4-mapped address in an IPv6 packet; must not be on the wire (RFC 4942 §2.2), and
    /// would be taken for the IPv4 address here.
    MappedAddress,
}

/// Destination and source MAC of a frame, if it is long enough to have them.
#[inline]
pub fn macs(frame: &[u8]) -> Option<(MacAddr, MacAddr)> {
    let [a, b, c, d, e, f, g, h, i, j, k, l, ..] = *frame.first_chunk::<ETHERNET>()?;
    Some((MacAddr([a, b, c, d, e, f]), MacAddr([g, h, i, j, k, l])))
}

/// Reads a frame from its Ethernet header on.
pub fn parse(frame: &[u8]) -> Result<Network, Malformed> {
    parse_split(frame, 0)
}

/// Reads a frame of which the last `tail` bytes are in further buffers; the headers are not.
pub fn parse_split(frame: &[u8], tail: usize) -> Result<Network, Malformed> {
    let (ethernet, packet) = frame.split_first_chunk::<ETHERNET>().ok_or(Malformed::Packet)?;
    match be16(ethernet, 12) {
        ETHERTYPE_IPV4 => ipv4(packet, tail).map(Network::Ip),
        ETHERTYPE_IPV6 => ipv6(packet, tail).map(Network::Ip),
        ETHERTYPE_ARP => arp(packet).map(Network::Arp),
        tag if ETHERTYPES_VLAN.contains(&tag) => Err(Malformed::Vlan),
        _ => Err(Malformed::Ethertype),
    }
}

fn arp(packet: &[u8]) -> Result<Arp, Malformed> {
    let packet = ArpPacket::new_checked(packet).map_err(|_| Malformed::Packet)?;
    let ArpRepr::EthernetIpv4 {
        operation,
        source_hardware_addr,
        source_protocol_addr,
        target_protocol_addr,
        ..
    } = ArpRepr::parse(&packet).map_err(|_| Malformed::Packet)?
    else {
        return Err(Malformed::Packet);
    };
    Ok(Arp {
        request: operation == ArpOperation::Request,
        sender_mac: MacAddr(source_hardware_addr.0),
        sender: IpAddr::V4(source_protocol_addr).into(),
        target: IpAddr::V4(target_protocol_addr).into(),
    })
}

fn ipv4(packet: &[u8], tail: usize) -> Result<Packet, Malformed> {
    const MORE_FRAGMENTS: u16 = 0x2000;
    const DONT_FRAGMENT: u16 = 0x4000;

    let header = packet.first_chunk::<IPV4>().ok_or(Malformed::Packet)?;
    match header[0] {
        0x45 => {}
        0x46..=0x4f => return Err(Malformed::Options),
        _ => return Err(Malformed::Packet),
    }
    if !checksum::ipv4_header_is_right(header) {
        return Err(Malformed::HeaderChecksum);
    }
    let length = usize::from(be16(header, 2)).checked_sub(IPV4).ok_or(Malformed::Packet)?;
    let payload = Payload::of(&packet[IPV4..], tail, length)?;
    let bits = be16(header, 6);
    let fragment =
        Fragment { id: be16(header, 4).into(), offset: bits << 3, more: bits & MORE_FRAGMENTS != 0 };
    let network = Addressed {
        src: Address::v4(be32(header, 12)),
        dst: Address::v4(be32(header, 16)),
        ttl: header[8],
        dont_fragment: bits & DONT_FRAGMENT != 0,
        offset: ETHERNET + IPV4,
    };
    network.transport(Protocol(header[9]), Some(fragment), payload)
}

fn ipv6(packet: &[u8], tail: usize) -> Result<Packet, Malformed> {
    let (header, rest) = packet.split_first_chunk::<IPV6>().ok_or(Malformed::Packet)?;
    if header[0] >> 4 != 6 {
        return Err(Malformed::Packet);
    }
    let payload = Payload::of(rest, tail, be16(header, 4).into())?;
    let chain = extensions(header[6], payload.bytes)?;
    let (src, dst) = (Address::v6(be128(header, 8)), Address::v6(be128(header, 24)));
    if src.is_v4() || dst.is_v4() {
        return Err(Malformed::MappedAddress);
    }
    let offset = ETHERNET + IPV6 + chain.length;
    let network = Addressed { src, dst, ttl: header[7], dont_fragment: true, offset };
    network.transport(chain.proto, chain.fragment, payload.after(chain.length)?)
}

/// What the extension headers of an IPv6 packet lead to.
pub(crate) struct Extensions {
    pub(crate) proto: Protocol,
    pub(crate) length: usize,
    pub(crate) fragment: Option<Fragment>,
}

/// Walks the chain that starts with type `next` at the start of `bytes`. Ends after three
/// headers at most, since each kind is accepted once and in one order.
pub(crate) fn extensions(mut next: u8, bytes: &[u8]) -> Result<Extensions, Malformed> {
    const HOP_BY_HOP: u8 = 0;
    const ROUTING: u8 = 43;
    const FRAGMENT: u8 = 44;
    const AUTHENTICATION: u8 = 51;
    const DESTINATION_OPTIONS: u8 = 60;
    const MOBILITY_HIP_SHIM6: [u8; 3] = [135, 139, 140];

    let (mut length, mut fragment, mut rank) = (0, None, 0);
    loop {
        let this = match next {
            HOP_BY_HOP => 1,
            DESTINATION_OPTIONS => 2,
            FRAGMENT => 3,
            ROUTING | AUTHENTICATION => return Err(Malformed::ExtensionHeader),
            other if MOBILITY_HIP_SHIM6.contains(&other) => return Err(Malformed::ExtensionHeader),
            other => return Ok(Extensions { proto: Protocol(other), length, fragment }),
        };
        if this <= rank {
            return Err(Malformed::ExtensionHeader);
        }
        rank = this;
        let header = bytes.get(length..).and_then(|rest| rest.first_chunk::<8>()).ok_or(Malformed::Packet)?;
        if next == FRAGMENT {
            let bits = be16(header, 2);
            fragment = Some(Fragment { id: be32(header, 4), offset: bits & !7, more: bits & 1 != 0 });
            length += 8;
        } else {
            length += 8 + 8 * usize::from(header[1]);
        }
        next = header[0];
    }
}

/// What follows a header, of which the last bytes may be in further buffers.
#[derive(Clone, Copy)]
struct Payload<'a> {
    /// As much as is in the first buffer.
    bytes: &'a [u8],
    /// Length of it all.
    len: usize,
}

impl<'a> Payload<'a> {
    /// The first `len` of these bytes and `tail` more.
    fn of(bytes: &'a [u8], tail: usize, len: usize) -> Result<Payload<'a>, Malformed> {
        match bytes.get(..len) {
            Some(bytes) => Ok(Payload { bytes, len }),
            None if len <= bytes.len() + tail => Ok(Payload { bytes, len }),
            None => Err(Malformed::Packet),
        }
    }

    /// Without a header of `length` bytes, all of which is in the first buffer.
    fn after(self, length: usize) -> Result<Payload<'a>, Malformed> {
        let bytes = self.bytes.get(length..).ok_or(Malformed::Packet)?;
        Ok(Payload { bytes, len: self.len - length })
    }
}

/// What the IP headers said.
struct Addressed {
    src: Address,
    dst: Address,
    ttl: u8,
    dont_fragment: bool,
    /// Where the L4 header starts in the frame.
    offset: usize,
}

impl Addressed {
    fn transport(
        self,
        proto: Protocol,
        fragment: Option<Fragment>,
        payload: Payload<'_>,
    ) -> Result<Packet, Malformed> {
        let fragment = fragment.filter(|fragment| fragment.more || fragment.offset > 0);
        if let Some(fragment) = fragment {
            check_fragment(fragment, proto, payload.len)?;
        }
        let (l4, sport, dport) = match fragment {
            Some(Fragment { offset: 1.., .. }) => (L4::LaterFragment, 0, 0),
            _ => l4(proto, self.src.is_v4(), fragment.is_none(), payload)?,
        };
        Ok(Packet {
            tuple: Tuple { src: self.src, dst: self.dst, sport, dport, proto },
            l4,
            fragment,
            ttl: self.ttl,
            dont_fragment: self.dont_fragment,
            l4_offset: self.offset,
            end: self.offset + payload.len,
        })
    }
}

fn check_fragment(fragment: Fragment, proto: Protocol, length: usize) -> Result<(), Malformed> {
    let header = match proto {
        Protocol::TCP => 20,
        Protocol::SCTP => 12,
        _ => 8,
    };
    let overlaps = fragment.offset > 0 && fragment.offset < header;
    let uneven = fragment.more && !length.is_multiple_of(8);
    let too_long = usize::from(fragment.offset) + length > usize::from(u16::MAX);
    if length == 0 || overlaps || uneven || too_long { Err(Malformed::Fragment) } else { Ok(()) }
}

/// Reads the L4 header: kind, source port, destination port. `whole` if the payload is that of
/// the whole datagram.
fn l4(
    proto: Protocol,
    v4: bool,
    whole: bool,
    Payload { bytes, len }: Payload<'_>,
) -> Result<(L4, u16, u16), Malformed> {
    let header = bytes.first_chunk::<8>();
    let ports = |header: &[u8; 8], l4| (l4, be16(header, 0), be16(header, 2));
    match (proto, v4) {
        (Protocol::TCP, _) => {
            let header = bytes.first_chunk::<20>().ok_or(Malformed::L4Header)?;
            let length = usize::from(header[12] >> 4) * 4;
            if length < 20 || length > bytes.len() {
                return Err(Malformed::L4Header);
            }
            Ok((L4::Tcp { flags: header[13] }, be16(header, 0), be16(header, 2)))
        }
        (Protocol::UDP, _) => {
            let header = header.ok_or(Malformed::L4Header)?;
            let length = usize::from(be16(header, 4));
            if length < 8 || (whole && length > len) {
                return Err(Malformed::L4Header);
            }
            Ok(ports(header, L4::Udp))
        }
        (Protocol::SCTP, _) if bytes.len() < 12 => Err(Malformed::L4Header),
        (Protocol::SCTP, _) => header.map(|header| ports(header, L4::Sctp)).ok_or(Malformed::L4Header),
        (Protocol::ICMP, true) | (Protocol::ICMPV6, false) => {
            header.map(|header| icmp(v4, header)).ok_or(Malformed::L4Header)
        }
        _ => Ok((L4::Unknown, 0, 0)),
    }
}

/// Kind and "ports" of an ICMP message, see [`Tuple`] for those of echo.
pub(crate) fn icmp(v4: bool, header: &[u8; 8]) -> (L4, u16, u16) {
    let id = be16(header, 4);
    match (header[0], v4) {
        (8, true) | (128, false) => (L4::EchoRequest, 0, id),
        (0, true) | (129, false) => (L4::EchoReply, id, 0),
        (3 | 11 | 12, true) | (1..=4, false) => (L4::IcmpError, 0, 0),
        (133..=137, false) => (L4::Neighbor, 0, 0),
        _ => (L4::OtherIcmp, 0, 0),
    }
}

pub(crate) const fn be16<const N: usize>(bytes: &[u8; N], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

pub(crate) const fn be32<const N: usize>(bytes: &[u8; N], at: usize) -> u32 {
    (be16(bytes, at) as u32) << 16 | be16(bytes, at + 2) as u32
}

pub(crate) const fn be128<const N: usize>(bytes: &[u8; N], at: usize) -> u128 {
    let high = (be32(bytes, at) as u128) << 96 | (be32(bytes, at + 4) as u128) << 64;
    high | (be32(bytes, at + 8) as u128) << 32 | be32(bytes, at + 12) as u128
}

#[cfg(test)]
mod tests;
