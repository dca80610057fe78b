//! ARP and neighbour discovery of pods.

use super::world::*;
use super::{Delta, dropped};
use crate::{DropReason, Port, Verdict};
use std::vec::Vec;
use tables::Direction;
use wire::craft::Craft;
use wire::hub::{LinkDestination, Origin, deliver_to_pod};
use wire::{Address, MacAddr};

/// An ARP frame of pod A to everybody.
fn arp(operation: u8, sender_mac: MacAddr, sender: &str, target: &str) -> Vec<u8> {
    let to = Origin::Pod { ifindex: A.ifindex, to: LinkDestination::Group }.encode();
    let mut frame = [to.0, A.mac.0].concat();
    frame.extend([8, 6, 0, 1, 8, 0, 6, 4, 0, operation]);
    frame.extend(sender_mac.0);
    frame.extend((address(sender).0 as u32).to_be_bytes());
    frame.extend([0; 6]);
    frame.extend((address(target).0 as u32).to_be_bytes());
    frame
}

#[test]
fn arp_for_anybody_else_is_answered_with_the_gateway() {
    let mut world = World::new();
    for target in [GATEWAY, B.v4, "8.8.8.8"] {
        let step = world.send_frame(Port::Hub, &arp(1, A.mac, A.v4, target));
        assert_eq!(step.verdict, Verdict::Transmit(Port::Hub));
        let mut expected = arp(2, GATEWAY_MAC, target, A.v4);
        expected[..6].copy_from_slice(&A.mac.0);
        expected[6..12].copy_from_slice(&deliver_to_pod(A.ifindex).0);
        expected[32..38].copy_from_slice(&A.mac.0);
        assert_eq!(step.frame, expected);
        step.changed(&Delta::default());
    }
}

#[test]
fn other_arp_is_not_answered() {
    let mut world = World::new();
    let cases = [
        ("announcement", arp(1, A.mac, A.v4, A.v4), DropReason::UnknownL3Target),
        ("probe", arp(1, A.mac, "0.0.0.0", A.v4), DropReason::UnknownL3Target),
        ("reply", arp(2, A.mac, A.v4, B.v4), DropReason::UnknownL3Target),
        ("probe for another address", arp(1, A.mac, "0.0.0.0", B.v4), DropReason::InvalidSourceIp),
        ("spoofed address", arp(1, A.mac, B.v4, GATEWAY), DropReason::InvalidSourceIp),
        ("spoofed MAC", arp(1, B.mac, A.v4, GATEWAY), DropReason::InvalidSourceMac),
        ("truncated", arp(1, A.mac, A.v4, GATEWAY)[..41].to_vec(), DropReason::InvalidPacket),
    ];
    for (what, frame, reason) in cases {
        let step = world.send_frame(Port::Hub, &frame);
        assert_eq!(step.verdict, Verdict::Drop(reason), "{what}");
        step.changed(&dropped(reason, Direction::Egress));
    }
}

/// A neighbour discovery message of pod A; `options` starts with the target address.
fn discovery(kind: u8, src: &str, dst: &str, target: &str, lladdr: Option<MacAddr>) -> Craft {
    let mut craft = Craft::icmp(ip(src), ip(dst), kind, 0, 0).payload(&address(target).0.to_be_bytes());
    if let Some(mac) = lladdr {
        craft = craft.payload(&[1, 1]).payload(&mac.0);
    }
    Craft { ttl: 255, ..craft }
}

const LINK_LOCAL: &str = "fe80::a";
/// Of the gateway's MAC.
const GATEWAY_LINK_LOCAL: &str = "fe80::ff:ff:fe00:1";

#[test]
fn solicitations_for_gateway_and_pods_are_answered() {
    let mut world = World::new();
    for target in [GATEWAY_V6, GATEWAY_LINK_LOCAL, B.v6] {
        for asker in [A.v6, LINK_LOCAL] {
            for (dst, lladdr) in [("ff02::1:ff00:1", Some(A.mac)), (target, None)] {
                let step = world.send(Via::Pod(A), discovery(135, asker, dst, target, lladdr));
                let mut expected = discovery(136, target, asker, target, Some(GATEWAY_MAC));
                expected.l4[4] = 0xe0;
                expected.l4[24] = 2;
                step.is(Verdict::Transmit(Port::Hub), &expected.link(deliver_to_pod(A.ifindex), A.mac));
                step.changed(&Delta::default());
            }
        }
    }
}

#[test]
fn other_neighbor_discovery_is_refused() {
    let mut world = World::new();
    let group = "ff02::1:ff00:1";
    let good = || discovery(135, A.v6, group, GATEWAY_V6, Some(A.mac));
    let cases = [
        ("duplicate address detection", discovery(135, "::", group, A.v6, None), DropReason::UnknownL3Target),
        ("for itself", discovery(135, A.v6, group, A.v6, None), DropReason::UnknownL3Target),
        ("for a stranger", discovery(135, A.v6, group, REMOTE_V6, None), DropReason::UnknownL3Target),
        ("spoofed address", discovery(135, B.v6, group, GATEWAY_V6, None), DropReason::InvalidSourceIp),
        ("spoofed MAC", discovery(135, A.v6, group, GATEWAY_V6, Some(B.mac)), DropReason::InvalidSourceMac),
        ("advertisement", discovery(136, A.v6, group, A.v6, None), DropReason::ForbiddenIcmpv6),
        ("from afar", Craft { ttl: 254, ..good() }, DropReason::InvalidPacket),
        (
            "router solicitation",
            Craft { ttl: 255, ..Craft::icmp(ip(LINK_LOCAL), ip("ff02::2"), 133, 0, 0) },
            DropReason::ForbiddenIcmpv6,
        ),
        (
            "multicast listener report",
            Craft { ttl: 1, ..Craft::icmp(ip(LINK_LOCAL), ip("ff02::16"), 143, 0, 0) },
            DropReason::Multicast,
        ),
        (
            "link-local source beyond the link",
            Craft::echo_request(ip(LINK_LOCAL), ip(GATEWAY_V6), 1),
            DropReason::InvalidSourceIp,
        ),
    ];
    for (what, craft, reason) in cases {
        let step = world.send(Via::Pod(A), craft);
        assert_eq!(step.verdict, Verdict::Drop(reason), "{what}");
        step.changed(&dropped(reason, Direction::Egress));
    }
    let mut damaged = world.frame(Via::Pod(A), good());
    damaged[57] ^= 1;
    world.send_frame(Port::Hub, &damaged).dropped(DropReason::InvalidPacket, Direction::Egress);
    world.send(Via::Host, good()).dropped(DropReason::ForbiddenIcmpv6, Direction::Ingress);
    assert_eq!(address(GATEWAY_LINK_LOCAL), Address::v6(0xfe80 << 112 | 0x00ff_00ff_fe00_0001));
}
