//! What a frame most likely is, at the least cost. Nothing may be decided by it.

use crate::addr::{Address, Protocol};
use crate::parse::{ETHERNET, ETHERTYPE_IPV4, ETHERTYPE_IPV6, IPV4, IPV6, be16, be32, be128};
use crate::tuple::Tuple;

/// The tuple of a frame if it holds a packet without options and extension headers, of a protocol
/// with ports. What it says of others is wrong.
#[inline]
pub fn glimpse(frame: &[u8]) -> Option<Tuple> {
    let (ethernet, packet) = frame.split_first_chunk::<ETHERNET>()?;
    let (src, dst, proto, payload) = match be16(ethernet, 12) {
        ETHERTYPE_IPV4 => {
            let (header, payload) = packet.split_first_chunk::<IPV4>()?;
            (Address::v4(be32(header, 12)), Address::v4(be32(header, 16)), header[9], payload)
        }
        ETHERTYPE_IPV6 => {
            let (header, payload) = packet.split_first_chunk::<IPV6>()?;
            (Address::v6(be128(header, 8)), Address::v6(be128(header, 24)), header[6], payload)
        }
        _ => return None,
    };
    let ports = payload.first_chunk::<4>()?;
    Some(Tuple { src, dst, sport: be16(ports, 0), dport: be16(ports, 2), proto: Protocol(proto) })
}
