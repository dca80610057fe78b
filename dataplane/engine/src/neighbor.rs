//! ARP and neighbour discovery: for a pod, everybody else is behind the gateway's MAC.

use crate::frame::{Frame, Link};
use crate::report::Report;
use crate::{Context, DropReason, Refusal, Verdict, admit::Sender, forward::is_link_local};
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{
    ArpOperation, ArpPacket, ArpRepr, EthernetAddress, Icmpv6Packet, Icmpv6Repr, IpProtocol, Ipv6Packet,
    Ipv6Repr, NdiscNeighborFlags, NdiscRepr,
};
use wire::parse::{Arp, ETHERNET, IPV6};
use wire::{Address, MacAddr, Packet};

/// Length of a frame with an ARP message in bytes.
const ARP_REPLY: usize = ETHERNET + 28;
/// Length of a frame with a neighbour advertisement and its one option in bytes.
const ADVERTISEMENT: usize = ETHERNET + IPV6 + 24 + 8;

/// An answer to be built in the frame of the question.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Answer {
    link: Link,
    /// The link-layer address that is the answer.
    gateway: MacAddr,
    /// Who asked.
    asker: Address,
    /// Whom the question was about.
    target: Address,
}

/// Answers an ARP request of a pod for any address but its own. Its probes and announcements
/// (RFC 5227) concern nobody: the pod is alone on its link.
pub(crate) fn arp(ctx: &Context<'_>, sender: &Sender<'_>, arp: &Arp, room: usize) -> Result<Answer, Refusal> {
    let Some(endpoint) = sender.pod().filter(|_| arp.request) else {
        return Err(DropReason::UnknownL3Target.into());
    };
    if arp.sender_mac != endpoint.mac {
        return Err(DropReason::InvalidSourceMac.into());
    }
    if endpoint.addresses.contains(&arp.target) {
        return Err(DropReason::UnknownL3Target.into());
    }
    if !endpoint.addresses.contains(&arp.sender) {
        return Err(DropReason::InvalidSourceIp.into());
    }
    let gateway = ctx.tables.node.gateway_mac;
    Answer { link: Link::to_pod(endpoint), gateway, asker: arp.sender, target: arp.target }.fitting(room)
}

/// Answers a neighbour solicitation of a pod for the gateway or another local pod. Duplicate
/// address detection gets no answer; nothing else of neighbour discovery is a pod's to send.
pub(crate) fn solicitation<S>(
    report: &Report<'_, S>,
    sender: &Sender<'_>,
    packet: &Packet,
) -> Result<Answer, Refusal> {
    let (ctx, frame) = (report.ctx, report.frame);
    let endpoint = sender.pod().ok_or(DropReason::ForbiddenIcmpv6)?;
    // RFC 4861 §7.1.1, RFC 6980.
    if packet.ttl != 255 || packet.fragment.is_some() {
        return Err(DropReason::InvalidPacket.into());
    }
    let asker = packet.tuple.src;
    let message = frame.get(packet.l4_offset..packet.end).ok_or(DropReason::InvalidPacket)?;
    let (target, lladdr) = match parse(message, &packet.tuple.src, &packet.tuple.dst)? {
        NdiscRepr::NeighborSolicit { target_addr, lladdr } => (Address::v6(target_addr.to_bits()), lladdr),
        _ => return Err(DropReason::ForbiddenIcmpv6.into()),
    };
    if asker == Address::UNSPECIFIED {
        return Err(DropReason::UnknownL3Target.into());
    }
    if !endpoint.addresses.contains(&asker) && !is_link_local(asker) {
        return Err(DropReason::InvalidSourceIp.into());
    }
    if lladdr.is_some_and(|lladdr| lladdr.as_bytes() != endpoint.mac.0) {
        return Err(DropReason::InvalidSourceMac.into());
    }
    let node = &ctx.tables.node;
    let other_pod = || ctx.tables.endpoints.by_address(target).is_some_and(|other| other.id != endpoint.id);
    if Some(target) != node.gateway_v6 && target != link_local(node.gateway_mac) && !other_pod() {
        return Err(DropReason::UnknownL3Target.into());
    }
    Answer { link: Link::to_pod(endpoint), gateway: node.gateway_mac, asker, target }.fitting(report.room)
}

fn parse<'a>(message: &'a [u8], src: &Address, dst: &Address) -> Result<NdiscRepr<'a>, DropReason> {
    let packet = Icmpv6Packet::new_checked(message).map_err(|_| DropReason::InvalidPacket)?;
    let checksums = ChecksumCapabilities::default();
    match Icmpv6Repr::parse(&v6(*src), &v6(*dst), &packet, &checksums) {
        Ok(Icmpv6Repr::Ndisc(repr)) => Ok(repr),
        _ => Err(DropReason::InvalidPacket),
    }
}

impl Answer {
    /// Turns the frame into the answer.
    pub(crate) fn build(&self, frame: &mut Frame<'_>) -> Verdict {
        let room = frame.room();
        self.link.write(room);
        match (self.target.ip(), self.asker.ip()) {
            (IpAddr::V4(target), IpAddr::V4(asker)) => {
                self.reply(&mut room[ETHERNET..ARP_REPLY], target, asker)
            }
            _ => self.advertisement(&mut room[ETHERNET..ADVERTISEMENT]),
        }
        frame.replace(self.frame_len());
        Verdict::Transmit(self.link.port)
    }

    fn frame_len(&self) -> usize {
        if self.target.is_v4() { ARP_REPLY } else { ADVERTISEMENT }
    }

    fn fitting(self, room: usize) -> Result<Answer, Refusal> {
        if self.frame_len() <= room { Ok(self) } else { Err(DropReason::InvalidPacket.into()) }
    }

    fn reply(&self, packet: &mut [u8], target: Ipv4Addr, asker: Ipv4Addr) {
        let reply = ArpRepr::EthernetIpv4 {
            operation: ArpOperation::Reply,
            source_hardware_addr: EthernetAddress(self.gateway.0),
            source_protocol_addr: target,
            target_hardware_addr: EthernetAddress(self.link.to.0),
            target_protocol_addr: asker,
        };
        reply.emit(&mut ArpPacket::new_unchecked(packet));
    }

    fn advertisement(&self, packet: &mut [u8]) {
        let (src, dst) = (v6(self.target), v6(self.asker));
        let message = Icmpv6Repr::Ndisc(NdiscRepr::NeighborAdvert {
            flags: NdiscNeighborFlags::ROUTER | NdiscNeighborFlags::SOLICITED | NdiscNeighborFlags::OVERRIDE,
            target_addr: src,
            lladdr: Some(EthernetAddress(self.gateway.0).into()),
        });
        let header = Ipv6Repr {
            src_addr: src,
            dst_addr: dst,
            next_header: IpProtocol::Icmpv6,
            payload_len: message.buffer_len(),
            hop_limit: 255,
        };
        packet.fill(0);
        header.emit(&mut Ipv6Packet::new_unchecked(&mut packet[..]));
        let icmp = &mut packet[IPV6..];
        message.emit(&src, &dst, &mut Icmpv6Packet::new_unchecked(icmp), &ChecksumCapabilities::default());
    }
}

fn v6(address: Address) -> Ipv6Addr {
    Ipv6Addr::from_bits(address.0)
}

/// The link-local address of an interface with this MAC (RFC 4291 appendix A).
fn link_local(mac: MacAddr) -> Address {
    let [a, b, c, d, e, f] = mac.0;
    let id = u64::from_be_bytes([a ^ 2, b, c, 0xff, 0xfe, d, e, f]);
    Address::v6(0xfe80 << 112 | u128::from(id))
}
