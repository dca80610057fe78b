//! The packet that an ICMP error is about, as far as the error quotes it.

use crate::addr::{Address, Protocol};
use crate::parse::{IPV4, IPV6, L4, Packet, be16, be32, be128, extensions, icmp};
use crate::tuple::Tuple;

/// Length of the ICMP header before the quote in bytes (RFC 792, RFC 4443 §3).
const ICMP: usize = 8;

/// The start of a packet inside an ICMP error, in its own direction.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Quoted {
    /// Its tuple.
    pub tuple: Tuple,
    /// Where its IP header starts in the frame.
    pub l3_offset: usize,
    /// Where its L4 header starts in the frame; at least 8 bytes of it are there.
    pub l4_offset: usize,
}

impl Quoted {
    /// Reads the quote of `error`, which [`crate::parse()`] found to be [`L4::IcmpError`] in this
    /// frame. `None` if it tells no flow: truncated, another family, a later fragment, a
    /// protocol without ports, an ICMP message that is no echo.
    pub fn read(frame: &[u8], error: &Packet) -> Option<Quoted> {
        let l3_offset = error.l4_offset + ICMP;
        let packet = frame.get(l3_offset..error.end)?;
        let v4 = error.tuple.src.is_v4();
        let (src, dst, proto, length) = if v4 { ipv4(packet)? } else { ipv6(packet)? };
        let header = packet.get(length..)?.first_chunk::<8>()?;
        let (sport, dport) = match (proto, v4) {
            (Protocol::TCP | Protocol::UDP | Protocol::SCTP, _) => (be16(header, 0), be16(header, 2)),
            (Protocol::ICMP, true) | (Protocol::ICMPV6, false) => match icmp(v4, header) {
                (L4::EchoRequest | L4::EchoReply, sport, dport) => (sport, dport),
                _ => return None,
            },
            _ => return None,
        };
        let tuple = Tuple { src, dst, sport, dport, proto };
        Some(Quoted { tuple, l3_offset, l4_offset: l3_offset + length })
    }
}

type Header = (Address, Address, Protocol, usize);

fn ipv4(packet: &[u8]) -> Option<Header> {
    let header = packet.first_chunk::<IPV4>()?;
    let later_fragment = be16(header, 6) & 0x1fff != 0;
    if header[0] != 0x45 || later_fragment {
        return None;
    }
    Some((Address::v4(be32(header, 12)), Address::v4(be32(header, 16)), Protocol(header[9]), IPV4))
}

fn ipv6(packet: &[u8]) -> Option<Header> {
    let (header, rest) = packet.split_first_chunk::<IPV6>()?;
    let chain = extensions(header[6], rest).ok()?;
    let (src, dst) = (Address::v6(be128(header, 8)), Address::v6(be128(header, 24)));
    let later_fragment = chain.fragment.is_some_and(|fragment| fragment.offset > 0);
    if header[0] >> 4 != 6 || later_fragment || src.is_v4() || dst.is_v4() {
        return None;
    }
    Some((src, dst, chain.proto, IPV6 + chain.length))
}
