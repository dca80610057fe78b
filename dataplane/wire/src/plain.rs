//! Packets in the middle of a flow with nothing unusual about them, read at the least cost. Most
//! packets are; about all others [`crate::parse`] has more to say.

use crate::addr::{Address, Protocol};
use crate::checksum;
use crate::parse::{ETHERNET, ETHERTYPE_IPV4, ETHERTYPE_IPV6, IPV4, IPV6, be16, be32, be128, tcp};
use crate::tuple::Tuple;

/// A plain packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Plain {
    /// Addresses, ports and protocol.
    pub tuple: Tuple,
    /// Length from the start of the IP header in bytes: all of the frame behind Ethernet, but for what
    /// fills it up to the least length.
    pub l3_len: usize,
}

/// The least length of a frame without its checksum (IEEE 802.3).
pub const MINIMUM: usize = 60;

/// Reads a frame of which the last `tail` bytes are in further buffers, if it holds a plain packet:
/// TCP with ACK and without SYN, FIN, RST and URG, or UDP (with a checksum over IPv6); no fragment,
/// option or extension header; hops left; lengths that are those of the frame.
#[inline(always)]
pub fn plain(frame: &[u8], tail: usize) -> Option<Plain> {
    let (ethernet, packet) = frame.split_first_chunk::<ETHERNET>()?;
    let length = packet.len() + tail;
    match be16(ethernet, 12) {
        ETHERTYPE_IPV4 => ipv4(packet, length),
        ETHERTYPE_IPV6 => ipv6(packet, length),
        _ => None,
    }
}

/// Whether a packet of this length is all of the `length` bytes behind an Ethernet header, or the rest
/// only fills the frame.
#[inline(always)]
fn fills(l3_len: usize, length: usize) -> bool {
    l3_len == length || (l3_len < length && length <= MINIMUM - ETHERNET)
}

#[inline(always)]
fn ipv4(packet: &[u8], length: usize) -> Option<Plain> {
    const ALL_BUT_DONT_FRAGMENT: u16 = 0xbfff;
    let (header, payload) = packet.split_first_chunk::<IPV4>()?;
    let l3_len = usize::from(be16(header, 2));
    let plain = header[0] == 0x45
        && fills(l3_len, length)
        && be16(header, 6) & ALL_BUT_DONT_FRAGMENT == 0
        && header[8] > 1
        && checksum::ipv4_header_is_right(header);
    let (src, dst) = (Address::v4(be32(header, 12)), Address::v4(be32(header, 16)));
    let tuple =
        if plain { ports(src, dst, Protocol(header[9]), payload, l3_len.checked_sub(IPV4)?) } else { None };
    Some(Plain { tuple: tuple?, l3_len })
}

#[inline(always)]
fn ipv6(packet: &[u8], length: usize) -> Option<Plain> {
    let (header, payload) = packet.split_first_chunk::<IPV6>()?;
    let l3_len = IPV6 + usize::from(be16(header, 4));
    let (src, dst) = (Address::v6(be128(header, 8)), Address::v6(be128(header, 24)));
    let plain = header[0] >> 4 == 6 && fills(l3_len, length) && header[7] > 1 && !src.is_v4() && !dst.is_v4();
    let tuple = if plain { ports(src, dst, Protocol(header[6]), payload, l3_len - IPV6) } else { None };
    Some(Plain { tuple: tuple?, l3_len })
}

/// The tuple, if what follows the IP header is a plain segment or datagram of `length` bytes.
#[inline(always)]
fn ports(src: Address, dst: Address, proto: Protocol, payload: &[u8], length: usize) -> Option<Tuple> {
    const FLAGS: u8 = tcp::ACK | tcp::SYN | tcp::FIN | tcp::RST | tcp::URG;
    let header = payload.first_chunk::<8>()?;
    let plain = match proto {
        Protocol::TCP => {
            let header = payload.first_chunk::<20>()?;
            let end = usize::from(header[12] >> 4) * 4;
            header[13] & FLAGS == tcp::ACK && end >= 20 && end <= payload.len().min(length)
        }
        Protocol::UDP => {
            length >= 8 && usize::from(be16(header, 4)) == length && (src.is_v4() || be16(header, 6) != 0)
        }
        _ => false,
    };
    plain.then_some(Tuple { src, dst, sport: be16(header, 0), dport: be16(header, 2), proto })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::craft::Craft;
    use crate::glimpse;
    use crate::parse::{L4, Network, parse, parse_split};
    use core::net::{IpAddr, SocketAddr};
    use proptest::prelude::*;

    /// What the parser says of a frame, held against the conditions one by one.
    fn naive(frame: &[u8], tail: usize) -> Option<Plain> {
        let Ok(Network::Ip(packet)) = parse_split(frame, tail) else { return None };
        let v4 = packet.tuple.src.is_v4();
        let l4 = frame.get(packet.l4_offset..)?;
        let usual = match packet.l4 {
            L4::Tcp { flags } => {
                flags & tcp::ACK != 0 && flags & (tcp::SYN | tcp::FIN | tcp::RST | tcp::URG) == 0
            }
            L4::Udp => {
                let (length, sum) = (u16::from_be_bytes([l4[4], l4[5]]), [l4[6], l4[7]]);
                usize::from(length) == packet.end - packet.l4_offset && (v4 || sum != [0, 0])
            }
            _ => false,
        };
        let plain = usual
            && packet.fragment.is_none()
            && !(v4 && frame[20] & 0x80 != 0)
            && packet.l4_offset == if v4 { 34 } else { 54 }
            && packet.ttl > 1
            && (packet.end == frame.len() + tail || frame.len() + tail <= MINIMUM);
        plain.then_some(Plain { tuple: packet.tuple, l3_len: packet.l3_len() })
    }

    fn any_craft() -> impl Strategy<Value = Craft> {
        let flags = prop_oneof![Just(tcp::ACK), any::<u8>()];
        let parts = (any::<bool>(), any::<bool>(), any::<[u16; 2]>(), flags, 0..4u8, 0..90usize);
        parts.prop_map(|(v4, udp, [sport, dport], flags, ttl, length)| {
            let ip = |n: u8| {
                if v4 {
                    IpAddr::from([10, 0, 0, n])
                } else {
                    IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 0, n.into()])
                }
            };
            let (src, dst) = (SocketAddr::new(ip(1), sport), SocketAddr::new(ip(2), dport));
            let craft = if udp { Craft::udp(src, dst) } else { Craft::tcp(src, dst, flags) };
            Craft { ttl, ..craft.payload(&[7; 90][..length]) }
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4096))]

        #[test]
        fn plain_is_what_the_parser_finds_nothing_unusual_about(
            craft in any_craft(),
            edits in prop::collection::vec((12..80usize, any::<u8>()), 0..3),
            seal: bool,
            padding in prop_oneof![Just(0), 1..20usize],
            cut in prop_oneof![Just(0), 1..60usize],
            first in prop_oneof![Just(usize::MAX), 0..120usize],
        ) {
            let mut frame = craft.build();
            for (at, value) in edits {
                if let Some(byte) = frame.get_mut(at) {
                    *byte = value;
                }
            }
            if seal && frame.len() >= 34 && craft.src.is_v4() {
                frame[24..26].fill(0);
                let sum = checksum::finish(&[checksum::sum(&frame[14..34])]);
                frame[24..26].copy_from_slice(&sum.to_be_bytes());
            }
            frame.resize(frame.len() + padding, 0xee);
            frame.truncate(frame.len().saturating_sub(cut));
            let (first, rest) = frame.split_at(first.min(frame.len()));
            prop_assert_eq!(plain(first, rest.len()), naive(first, rest.len()));
        }

        #[test]
        fn undamaged_packets_are_plain(craft in any_craft()) {
            let frame = Craft { ttl: 2, ..craft.clone() }.build();
            let usual = craft.proto == Protocol::UDP || craft.l4[13] & 0x37 == tcp::ACK;
            prop_assert_eq!(plain(&frame, 0).is_some(), usual);
            prop_assert_eq!(glimpse(&frame), parse(&frame).ok().and_then(|network| match network {
                Network::Ip(packet) => Some(packet.tuple),
                Network::Arp(_) => None,
            }));
        }
    }
}
