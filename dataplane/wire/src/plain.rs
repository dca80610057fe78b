//! Packets with nothing unusual about them: those that cached verdicts are for.

use crate::parse::{ETHERNET, IPV4, IPV6, L4, Packet, tcp};

/// Whether a packet that was read from `frame`, of which the last `tail` bytes are in further
/// buffers, is one of TCP or UDP in the middle of a flow with nothing unusual about it: no
/// fragment and no extension header, hops left, lengths that are those of the frame; TCP with ACK
/// and without SYN, FIN, RST and URG; UDP with a checksum where IPv6 wants one.
pub fn is_plain(packet: &Packet, frame: &[u8], tail: usize) -> bool {
    const FLAGS: u8 = tcp::ACK | tcp::SYN | tcp::FIN | tcp::RST | tcp::URG;
    let v4 = packet.tuple.src.is_v4();
    let header = if v4 { IPV4 } else { IPV6 };
    let simple = packet.fragment.is_none()
        && packet.ttl > 1
        && packet.l4_offset == ETHERNET + header
        && packet.end == frame.len() + tail;
    simple
        && match packet.l4 {
            L4::Tcp { flags } => flags & FLAGS == tcp::ACK,
            L4::Udp => frame.get(packet.l4_offset + 4..packet.l4_offset + 8).is_some_and(|fields| {
                let [l0, l1, checksum @ ..] = fields else { return false };
                usize::from(u16::from_be_bytes([*l0, *l1])) == packet.end - packet.l4_offset
                    && (v4 || *checksum != [0, 0])
            }),
            _ => false,
        }
}
