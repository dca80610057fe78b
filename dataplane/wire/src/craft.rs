//! Builds frames for tests and benches: plain fields in, right lengths and checksums out.

use crate::addr::{Address, MacAddr, Protocol};
use crate::checksum;
use crate::parse::{ETHERNET, Fragment, IPV4, IPV6, L4, Network, parse};
use alloc::vec::Vec;
use core::net::{IpAddr, SocketAddr};

/// A packet that [`Craft::build`] turns into a frame.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Craft {
    /// Destination MAC.
    pub to: MacAddr,
    /// Source MAC.
    pub from: MacAddr,
    /// Source address.
    pub src: Address,
    /// Destination address, of the same family.
    pub dst: Address,
    /// IP protocol.
    pub proto: Protocol,
    /// TTL or hop limit.
    pub ttl: u8,
    /// The DF bit (IPv4).
    pub dont_fragment: bool,
    /// Makes the frame this fragment, with `l4` as its part of the payload.
    pub fragment: Option<Fragment>,
    /// L4 header and payload. Checksum and UDP length in it are filled in by [`Craft::build`].
    pub l4: Vec<u8>,
}

impl Craft {
    /// A packet of any protocol.
    pub fn new(src: IpAddr, dst: IpAddr, proto: Protocol, l4: &[u8]) -> Craft {
        Craft {
            to: MacAddr::default(),
            from: MacAddr::default(),
            src: src.into(),
            dst: dst.into(),
            proto,
            ttl: 64,
            dont_fragment: true,
            fragment: None,
            l4: l4.to_vec(),
        }
    }

    /// A TCP segment with these flags.
    pub fn tcp(src: SocketAddr, dst: SocketAddr, flags: u8) -> Craft {
        let rest = [0, 0, 0, 1, 0, 0, 0, 2, 0x50, flags, 0x20, 0, 0, 0, 0, 0];
        Craft::with_ports(src, dst, Protocol::TCP, &rest)
    }

    /// A UDP datagram.
    pub fn udp(src: SocketAddr, dst: SocketAddr) -> Craft {
        Craft::with_ports(src, dst, Protocol::UDP, &[0; 4])
    }

    /// An SCTP packet with an empty DATA chunk.
    pub fn sctp(src: SocketAddr, dst: SocketAddr) -> Craft {
        let rest = [1, 2, 3, 4, 0, 0, 0, 0, 0, 3, 0, 16, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0];
        Craft::with_ports(src, dst, Protocol::SCTP, &rest)
    }

    /// An ICMP or ICMPv6 echo request.
    pub fn echo_request(src: IpAddr, dst: IpAddr, id: u16) -> Craft {
        Craft::icmp(src, dst, if src.is_ipv4() { 8 } else { 128 }, 0, u32::from(id) << 16 | 1)
    }

    /// An ICMP or ICMPv6 echo reply.
    pub fn echo_reply(src: IpAddr, dst: IpAddr, id: u16) -> Craft {
        Craft::icmp(src, dst, if src.is_ipv4() { 0 } else { 129 }, 0, u32::from(id) << 16 | 1)
    }

    /// Any ICMP or ICMPv6 message; `word` is what follows the checksum.
    pub fn icmp(src: IpAddr, dst: IpAddr, kind: u8, code: u8, word: u32) -> Craft {
        let proto = if src.is_ipv4() { Protocol::ICMP } else { Protocol::ICMPV6 };
        Craft::new(src, dst, proto, &[kind, code, 0, 0]).payload(&word.to_be_bytes())
    }

    fn with_ports(src: SocketAddr, dst: SocketAddr, proto: Protocol, rest: &[u8]) -> Craft {
        let [a, b] = src.port().to_be_bytes();
        let [c, d] = dst.port().to_be_bytes();
        Craft::new(src.ip(), dst.ip(), proto, &[a, b, c, d]).payload(rest)
    }

    /// Appends to the payload.
    pub fn payload(mut self, bytes: &[u8]) -> Craft {
        self.l4.extend_from_slice(bytes);
        self
    }

    /// Sets both MACs.
    pub fn link(mut self, from: MacAddr, to: MacAddr) -> Craft {
        (self.from, self.to) = (from, to);
        self
    }

    /// Reads back what [`Craft::build`] made; `None` if it does not parse or has parts that a
    /// `Craft` cannot say (extension headers but for one fragment header).
    pub fn read(frame: &[u8]) -> Option<Craft> {
        let Ok(Network::Ip(packet)) = parse(frame) else { return None };
        let (to, from) = crate::parse::macs(frame)?;
        let v4 = packet.tuple.src.is_v4();
        let mut craft = Craft {
            to,
            from,
            src: packet.tuple.src,
            dst: packet.tuple.dst,
            proto: packet.tuple.proto,
            ttl: packet.ttl,
            dont_fragment: packet.dont_fragment,
            fragment: packet.fragment,
            l4: frame.get(packet.l4_offset..packet.end)?.to_vec(),
        };
        craft.seal_unless_later(packet.l4 == L4::LaterFragment);
        let header = if v4 { IPV4 } else { IPV6 + if packet.fragment.is_some() { 8 } else { 0 } };
        (packet.l4_offset == ETHERNET + header).then_some(craft)
    }

    /// The frame.
    pub fn build(&self) -> Vec<u8> {
        let mut sealed = self.clone();
        sealed.seal_unless_later(self.fragment.is_some());
        sealed.frame()
    }

    /// The frames of this datagram cut into fragments of at most `size` bytes of payload, a
    /// multiple of 8.
    pub fn fragments(&self, id: u32, size: u16) -> Vec<Vec<u8>> {
        let mut whole = self.clone();
        whole.seal_unless_later(false);
        let parts = whole.l4.chunks(size.into());
        let last = parts.len() - 1;
        let fragment = |(number, part): (usize, &[u8])| {
            let offset = number as u16 * size;
            let fragment = Some(Fragment { id, offset, more: number < last });
            Craft { fragment, dont_fragment: false, l4: part.to_vec(), ..whole.clone() }.frame()
        };
        parts.enumerate().map(fragment).collect()
    }

    fn frame(&self) -> Vec<u8> {
        let mut frame = Vec::with_capacity(ETHERNET + IPV6 + 8 + self.l4.len());
        frame.extend_from_slice(&self.to.0);
        frame.extend_from_slice(&self.from.0);
        match (self.src.ip(), self.dst.ip()) {
            (IpAddr::V4(src), IpAddr::V4(dst)) => {
                let fragment = self.fragment.unwrap_or(Fragment { id: 0, offset: 0, more: false });
                let flags = u16::from(self.dont_fragment) << 14 | u16::from(fragment.more) << 13;
                let mut header = [0; IPV4];
                header[0] = 0x45;
                header[2..4].copy_from_slice(&((IPV4 + self.l4.len()) as u16).to_be_bytes());
                header[4..6].copy_from_slice(&(fragment.id as u16).to_be_bytes());
                header[6..8].copy_from_slice(&(flags | fragment.offset >> 3).to_be_bytes());
                header[8] = self.ttl;
                header[9] = self.proto.0;
                header[12..16].copy_from_slice(&src.octets());
                header[16..20].copy_from_slice(&dst.octets());
                let sum = checksum::finish(&[checksum::sum(&header)]);
                header[10..12].copy_from_slice(&sum.to_be_bytes());
                frame.extend_from_slice(&[0x08, 0x00]);
                frame.extend_from_slice(&header);
            }
            (src, dst) => {
                let extension = if self.fragment.is_some() { 8 } else { 0 };
                frame.extend_from_slice(&[0x86, 0xdd, 0x60, 0, 0, 0]);
                frame.extend_from_slice(&((self.l4.len() + extension) as u16).to_be_bytes());
                frame.push(if self.fragment.is_some() { 44 } else { self.proto.0 });
                frame.push(self.ttl);
                for address in [src, dst] {
                    frame.extend_from_slice(&Address::from(address).0.to_be_bytes());
                }
                if let Some(fragment) = self.fragment {
                    frame.extend_from_slice(&[self.proto.0, 0]);
                    frame.extend_from_slice(&(fragment.offset | u16::from(fragment.more)).to_be_bytes());
                    frame.extend_from_slice(&fragment.id.to_be_bytes());
                }
            }
        }
        frame.extend_from_slice(&self.l4);
        frame
    }

    /// Fills in UDP length and L4 checksum.
    fn seal_unless_later(&mut self, fragment: bool) {
        if fragment {
            return;
        }
        let length = self.l4.len() as u32;
        let v4 = self.src.is_v4();
        let (field, pseudo) = match self.proto {
            Protocol::TCP => (16, true),
            Protocol::UDP => (6, true),
            Protocol::ICMP if v4 => (2, false),
            Protocol::ICMPV6 if !v4 => (2, true),
            Protocol::SCTP => return self.seal_sctp(),
            _ => return,
        };
        if self.proto == Protocol::UDP
            && let Some(field) = self.l4.get_mut(4..6)
        {
            field.copy_from_slice(&(length as u16).to_be_bytes());
        }
        let Some(at) = self.l4.get_mut(field..field + 2) else { return };
        at.fill(0);
        let pseudo = if pseudo { checksum::pseudo_header(self.src, self.dst, self.proto, length) } else { 0 };
        let sum = match checksum::finish(&[pseudo, checksum::sum(&self.l4)]) {
            0 if self.proto == Protocol::UDP => 0xffff,
            sum => sum,
        };
        self.l4[field..field + 2].copy_from_slice(&sum.to_be_bytes());
    }

    fn seal_sctp(&mut self) {
        let Some(field) = self.l4.get_mut(8..12) else { return };
        field.fill(0);
        let crc = checksum::crc32c(&self.l4);
        self.l4[8..12].copy_from_slice(&crc.to_le_bytes());
    }
}
