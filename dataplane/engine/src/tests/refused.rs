//! One packet, one reason, and nothing else changes.

use super::world::*;
use super::*;
use std::vec::Vec;
use wire::Protocol;
use wire::hub::{LinkDestination, Origin};

fn udp(src: &str, dst: &str) -> Craft {
    Craft::udp(sock(src, 1), sock(dst, 2))
}

#[test]
fn addresses_that_the_sender_may_not_use() {
    use DropReason::*;
    let pod = Via::Pod(A);
    let cases = [
        ("another pod's address", pod, udp(B.v4, REMOTE), InvalidSourceIp),
        ("a stranger's address", pod, udp("8.8.8.8", B.v4), InvalidSourceIp),
        ("loopback", pod, udp("127.0.0.1", B.v4), InvalidSourceIp),
        ("to loopback", pod, udp(A.v4, "127.0.0.1"), Martian),
        ("to nowhere", pod, udp(A.v4, "0.0.0.0"), Martian),
        ("to class E", pod, udp(A.v4, "240.0.0.1"), Martian),
        ("to itself", pod, udp(A.v4, A.v4), Martian),
        ("to ::1", pod, udp(A.v6, "::1"), Martian),
        ("to IPv4 multicast", pod, udp(A.v4, "224.0.0.251"), Multicast),
        ("to broadcast", pod, udp("0.0.0.0", "255.255.255.255"), Multicast),
        ("to IPv6 multicast", pod, udp(A.v6, "ff02::fb"), Multicast),
        ("to a link-local address", pod, udp(A.v6, "fe80::1"), Unroutable),
        ("to a free pod address", pod, udp(A.v4, "10.60.1.77"), Unroutable),
        ("to the hairpin address", pod, udp(A.v4, "169.254.42.1"), Unroutable),
        ("to a node without neighbour entry", pod, udp(A.v4, LOST), NoNeighbor),
        ("our pod from outside", Via::Uplink, udp(B.v4, A.v4), InvalidSourceIp),
        ("our free pod address from outside", Via::Uplink, udp("10.60.1.77", A.v4), InvalidSourceIp),
        ("our node from outside", Via::Uplink, udp(NODE, A.v4), InvalidSourceIp),
        ("link-local from outside", Via::Uplink, udp("fe80::1", A.v6), Martian),
        ("our gateway from outside", Via::Uplink, udp(GATEWAY_V6, A.v6), InvalidSourceIp),
        ("loopback from outside", Via::Uplink, udp("127.0.0.1", A.v4), Martian),
        ("nowhere from outside", Via::Uplink, udp("0.0.0.0", A.v4), Martian),
        ("multicast from outside", Via::Uplink, udp("224.0.0.1", A.v4), Martian),
        ("broadcast from outside", Via::Uplink, udp("255.255.255.255", A.v4), Martian),
        ("class E from outside", Via::Uplink, udp("250.0.0.1", A.v4), Martian),
        (":: from outside", Via::Uplink, udp("::", A.v6), Martian),
        ("hairpin from outside", Via::Uplink, udp("169.254.42.1", A.v4), Martian),
        ("hairpin v6 from outside", Via::Uplink, udp("fda9:fe2a:100::1", A.v6), Martian),
        ("not for us from outside", Via::Uplink, udp(REMOTE, "10.61.2.21"), Unroutable),
        ("host without pod", Via::Host, udp(NODE, REMOTE), Unroutable),
        ("host on the wrong pod link", Via::HostTo(B), udp(NODE, A.v4), Unroutable),
        ("routed with a pod's address", Via::Host, udp(B.v4, A.v4), InvalidSourceIp),
        ("forwarded with a pod's address", Via::Forwarded, udp(B.v4, A.v4), InvalidSourceIp),
        ("host by ipcache only", Via::Host, udp(IMPOSTOR, A.v4), InvalidSourceIp),
    ];
    for (what, via, craft, reason) in cases {
        let direction = if matches!(via, Via::Pod(_)) { Direction::Egress } else { Direction::Ingress };
        let step = World::new().send(via, craft);
        assert_eq!(step.verdict, Verdict::Drop(reason), "{what}");
        step.dropped(reason, direction);
    }
    let mut world = World::new();
    let frame = world.frame(Via::Uplink, udp(REMOTE, A.v4));
    let frame = [&wire::MacAddr::BROADCAST.0, &frame[6..]].concat();
    world.send_frame(Port::Uplink(0), &frame).dropped(InvalidDestinationMac, Direction::Ingress);
    // From the network the same entry of the ipcache is a stranger, not the host.
    let mut world = World::new();
    assert_eq!(world.send(Via::Uplink, udp(IMPOSTOR, A.v4)).verdict, Verdict::Transmit(Port::Hub));
    assert_eq!(world.last_event.unwrap().src_identity, wire::Identity::WORLD_IPV4);
}

#[test]
fn links_and_headers_that_are_wrong() {
    use DropReason::*;
    type Edit = fn(&mut Vec<u8>);
    let (a, b) = (A.at(4000), B.at(80));
    let good = || Craft::udp(a, b);
    let raw = |proto| Craft::new(a.ip(), b.ip(), Protocol(proto), &[0; 20]);
    let to = |origin: Origin| origin.encode();
    let cases: [(&str, Craft, Edit, DropReason, Direction); 17] = [
        ("nothing", good(), |f| f.clear(), InvalidPacket, Direction::Ingress),
        ("not marked by steering", good(), |f| f[0] = 2, UnknownOrigin, Direction::Ingress),
        ("unknown interface", good(), |f| f[5] = 99, UnknownOrigin, Direction::Ingress),
        ("spoofed MAC", good(), |f| f[11] ^= 1, InvalidSourceMac, Direction::Egress),
        ("to nobody's MAC", good(), |f| f[1] = 3, InvalidDestinationMac, Direction::Egress),
        ("unicast to a group MAC", good(), |f| f[1] = 2, InvalidDestinationMac, Direction::Egress),
        ("802.1Q", good(), |f| f[12..14].copy_from_slice(&[0x81, 0]), Vlan, Direction::Egress),
        ("LLDP", good(), |f| f[12..14].copy_from_slice(&[0x88, 0xcc]), UnsupportedL3, Direction::Egress),
        ("IPv4 options", good(), |f| f[14] = 0x46, IpOptions, Direction::Egress),
        ("header checksum", good(), |f| f[24] ^= 1, BadChecksum, Direction::Egress),
        ("truncated", good(), |f| f.truncate(33), InvalidPacket, Direction::Egress),
        ("UDP length", good(), |f| f[38] = 1, InvalidL4Header, Direction::Egress),
        ("GRE", raw(47), |_| {}, UnknownL4, Direction::Egress),
        ("ICMP redirect", Craft::icmp(a.ip(), b.ip(), 5, 0, 0), |_| {}, UnknownIcmpv4Type, Direction::Egress),
        (
            "ICMPv6 node information",
            Craft::icmp(ip(A.v6), ip(B.v6), 139, 0, 0),
            |_| {},
            UnknownIcmpv6Type,
            Direction::Egress,
        ),
        (
            "IPv6 routing header",
            Craft::new(ip(A.v6), ip(B.v6), Protocol(43), &[59, 0, 0, 0, 0, 0, 0, 0]),
            |_| {},
            InvalidExtensionHeader,
            Direction::Egress,
        ),
        (
            "IPv4-mapped IPv6",
            Craft::udp(sock(A.v6, 1), sock(B.v6, 2)),
            |f| f[38..50].copy_from_slice(&[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff]),
            Martian,
            Direction::Egress,
        ),
    ];
    assert_eq!(to(Origin::Pod { ifindex: 0, to: LinkDestination::Other }).0[1], 3, "see the edits");
    assert_eq!(to(Origin::Pod { ifindex: 0, to: LinkDestination::Group }).0[1], 2, "see the edits");
    for (what, craft, edit, reason, direction) in cases {
        let mut world = World::new();
        let mut frame = world.frame(Via::Pod(A), craft);
        edit(&mut frame);
        let step = world.send_frame(Port::Hub, &frame);
        assert_eq!(step.verdict, Verdict::Drop(reason), "{what}");
        step.dropped(reason, direction);
    }
}

#[test]
fn a_full_table_refuses_new_flows_only() {
    let mut world = World::new();
    world.flows = flow::Table::boxed(1, 1);
    let capacity = world.flows.stats().capacity as u16;
    let request = |port| Craft::udp(A.at(port), B.at(53));
    for port in 1..=4 * capacity {
        // An answered flow is not evicted.
        world.send(Via::Pod(A), request(port));
        world.send(Via::Pod(B), Craft::udp(B.at(53), A.at(port)));
    }
    let tried = (1..=4 * capacity).map(|port| world.send(Via::Pod(A), request(port)).verdict);
    let (kept, refused): (Vec<_>, Vec<_>) =
        tried.partition(|verdict| matches!(verdict, Verdict::Transmit(_)));
    assert_eq!(kept.len(), usize::from(capacity));
    assert!(refused.iter().all(|verdict| *verdict == Verdict::Drop(DropReason::ConntrackFull)));
}
