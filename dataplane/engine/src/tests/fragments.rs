//! Fragments follow the first of their datagram.

use super::checksums::{l4_is_right, verify};
use super::world::*;
use super::*;
use std::vec::Vec;

/// Sends all fragments of a datagram and puts together what comes out: payload and addresses.
fn through(world: &mut World, craft: &Craft, id: u32) -> (Vec<u8>, Vec<u8>) {
    let linked = Craft::read(&world.frame(Via::Pod(A), craft.clone())).unwrap();
    let (mut payload, mut addresses) = (Vec::new(), Vec::new());
    for frame in linked.fragments(id, 48) {
        let step = world.send_frame(Port::Hub, &frame);
        assert!(matches!(step.verdict, Verdict::Transmit(_)), "{step:?}");
        verify(&step.frame);
        let v4 = craft.src.is_v4();
        payload.extend(&step.frame[if v4 { 34 } else { 62 }..]);
        addresses = step.frame[if v4 { 26..34 } else { 22..54 }].to_vec();
    }
    (payload, addresses)
}

#[test]
fn translated_as_one_datagram() {
    let data = [0x5a; 300];
    for (src, dst, backend) in
        [(A.at(9), VIP.sock(), B.v4), (sock(A.v6, 9), sock(VIP.v6, 80), B.v6), (A.at(9), B.at(7), B.v4)]
    {
        let mut world = World::new();
        for craft in [Craft::udp(src, dst), Craft::tcp(src, dst, SYN)] {
            let craft = craft.payload(&data);
            let (payload, addresses) = through(&mut world, &craft, 70);
            assert!(addresses.ends_with(&match ip(backend) {
                std::net::IpAddr::V4(backend) => backend.octets().to_vec(),
                std::net::IpAddr::V6(backend) => backend.octets().to_vec(),
            }));
            assert_eq!(payload.len(), craft.l4.len());
            assert!(l4_is_right(craft.proto.0, &addresses, &payload));
        }
    }
    let (payload, addresses) =
        through(&mut World::new(), &Craft::echo_request(A.ip(), B.ip(), 3).payload(&data), 71);
    assert!(l4_is_right(1, &addresses, &payload));
}

#[test]
fn alone_they_are_lost() {
    let mut world = World::new();
    let craft = Craft::udp(A.at(9), B.at(7)).payload(&[1; 100]);
    let linked = Craft::read(&world.frame(Via::Pod(A), craft.clone())).unwrap();
    let [first, second, ..] = &linked.fragments(5, 48)[..] else { panic!() };
    let lost = |step: Step| step.dropped(DropReason::FragmentNotFound, Direction::Egress);

    lost(world.send_frame(Port::Hub, second));
    world.send_frame(Port::Hub, first);
    assert_eq!(world.send_frame(Port::Hub, second).verdict, Verdict::Transmit(Port::Hub));
    world.now += 30;
    lost(world.send_frame(Port::Hub, second));

    // A first fragment that was refused leads nobody in.
    world.now += 100;
    world.deny_all(&B);
    assert_eq!(world.send_frame(Port::Hub, first).verdict, Verdict::Drop(DropReason::PolicyDenied));
    lost(world.send_frame(Port::Hub, second));
}

#[test]
fn of_a_flow_that_is_gone_they_do_not_start_one() {
    let mut world = World::new();
    let craft = Craft::udp(A.at(9), B.at(7)).payload(&[1; 100]);
    let linked = Craft::read(&world.frame(Via::Pod(A), craft)).unwrap();
    let fragments = linked.fragments(5, 48);
    world.send_frame(Port::Hub, &fragments[0]);
    world.flows.flush();
    world.send_frame(Port::Hub, &fragments[1]).dropped(DropReason::FragmentNotFound, Direction::Egress);
}

#[test]
fn sctp_needs_the_whole_packet_to_change_ports() {
    for (dst, expected) in [
        (VIP.sock(), Verdict::Drop(DropReason::FragmentUnsupported)),
        (B.at(80), Verdict::Transmit(Port::Hub)),
    ] {
        let mut world = World::new();
        let craft = Craft::sctp(A.at(9), dst).payload(&[1; 100]);
        let linked = Craft::read(&world.frame(Via::Pod(A), craft)).unwrap();
        let step = world.send_frame(Port::Hub, &linked.fragments(5, 48)[0]);
        assert_eq!(step.verdict, expected);
    }
}
