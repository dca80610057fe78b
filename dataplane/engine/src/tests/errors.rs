//! ICMP errors: passed on when they belong to a flow, made here when a packet cannot go on.

use super::world::*;
use super::*;

fn l3(craft: &Craft) -> std::vec::Vec<u8> {
    craft.build()[14..].to_vec()
}

#[test]
fn errors_without_flow_are_dropped() {
    let flow = || Craft::udp(A.at(1), sock(REMOTE, 2));
    let error = |src, dst, about: &Craft| Craft::icmp(ip(src), ip(dst), 3, 3, 0).payload(&l3(about));
    let mut world = World::new();
    world.send(Via::Pod(A), flow());
    let unrelated = [
        ("another port", Via::Uplink, error(REMOTE, A.v4, &Craft::udp(A.at(3), sock(REMOTE, 2)))),
        ("not the sender's packet", Via::Uplink, error(REMOTE, B.v4, &flow())),
        ("nothing quoted", Via::Uplink, Craft::icmp(ip(REMOTE), A.ip(), 3, 3, 0)),
        ("a pod reports on others", Via::Pod(B), error(B.v4, A.v4, &flow())),
        (
            "about an error",
            Via::Uplink,
            error(REMOTE, A.v4, &Craft::icmp(A.ip(), ip(REMOTE), 3, 3, 0).payload(&[0; 28])),
        ),
    ];
    for (what, via, craft) in unrelated {
        let step = world.send(via, craft);
        assert_eq!(step.verdict, Verdict::Drop(DropReason::UnrelatedIcmp), "{what}");
    }
    // From the receiver and from a router on the way, whatever policy says.
    world.deny_all(&A);
    for src in [REMOTE, "172.16.0.1"] {
        let step = world.send(Via::Uplink, error(src, A.v4, &flow()));
        let events = vec![trace(TracePoint::ToEndpoint, TraceState::Related)];
        step.changed(&Delta { ingress: 1, events, ..Delta::default() });
    }
}

#[test]
fn a_router_on_the_way_to_a_backend_is_not_hidden() {
    let mut world = World::new();
    world.backends(&[(REMOTE, REMOTE_V6, true)]);
    world.send(Via::Pod(A), Craft::udp(A.at(1), VIP.sock()));
    let router = "172.16.0.1";
    let too_big = |about: Craft| Craft::icmp(ip(router), A.ip(), 3, 4, 1400).payload(&l3(&about));
    let step = world.send(Via::Uplink, too_big(Craft::udp(A.at(1), sock(REMOTE, 8080))));
    let expected = Craft { ttl: 63, ..too_big(Craft::udp(A.at(1), VIP.sock())) };
    step.is(Verdict::Transmit(Port::Hub), &expected.link(deliver_to_pod(A.ifindex), A.mac));
}

/// The error that the node makes of a packet.
fn made(v6: bool, kind: u8, code: u8, word: u32, about: &Craft) -> Craft {
    let (gateway, most) = if v6 { (GATEWAY_V6, 1232) } else { (GATEWAY, 548) };
    let mut quote = l3(about);
    quote.truncate(most);
    let dont_fragment = v6;
    Craft { dont_fragment, ..Craft::icmp(ip(gateway), about.src.ip(), kind, code, word).payload(&quote) }
}

#[test]
fn hops_run_out() {
    for (v6, src, dst, kind) in [(false, A.at(1), VIP.sock(), 11), (true, sock(A.v6, 1), sock(VIP.v6, 80), 3)]
    {
        let mut world = World::new();
        let craft = Craft { ttl: 1, ..Craft::udp(src, dst).payload(&[9; 100]) };
        let step = world.send(Via::Pod(A), craft.clone());
        let expected = made(v6, kind, 0, 0, &craft).link(deliver_to_pod(A.ifindex), A.mac);
        assert_eq!(step.verdict, Verdict::Transmit(Port::Hub));
        assert_eq!(Craft::read(&step.frame), Craft::read(&expected.build()));
        step.changed(&dropped(DropReason::TtlExceeded, Direction::Egress));
    }
}

#[test]
fn packets_too_big_for_the_next_link() {
    for (v6, src, dst, kind, code) in
        [(false, A.at(1), B.at(2), 3, 4), (true, sock(A.v6, 1), sock(REMOTE_V6, 2), 2, 0)]
    {
        let headers = if v6 { 48 } else { 28 };
        for dont_fragment in [true, v6] {
            let mut world = World::new();
            let sized = |length: u16| {
                let payload = vec![9; usize::from(length) - headers];
                Craft { dont_fragment, ..Craft::udp(src, dst).payload(&payload) }
            };
            assert!(matches!(world.send(Via::Pod(A), sized(MTU)).verdict, Verdict::Transmit(_)));
            let step = world.send(Via::Pod(A), sized(MTU + 1));
            let expected = made(v6, kind, code, MTU.into(), &sized(MTU + 1));
            let expected = expected.link(deliver_to_pod(A.ifindex), A.mac);
            assert_eq!(Craft::read(&step.frame), Craft::read(&expected.build()));
            step.changed(&dropped(DropReason::FragmentationNeeded, Direction::Egress));
        }
    }
    let mut world = World::new();
    let step = world.send(Via::Uplink, Craft::udp(sock(REMOTE, 1), A.at(1)).payload(&[1; 1473]));
    assert_eq!(step.verdict, Verdict::Transmit(Port::Uplink(0)));
    assert_eq!(wire::parse::macs(&step.frame), Some((NEXT_HOP_MAC, UPLINK_MAC)));
}

#[test]
fn no_error_about_errors_nor_for_every_fragment_nor_without_end() {
    let spent = Verdict::Drop(DropReason::TtlExceeded);
    let expired = |craft: Craft| Craft { ttl: 1, ..craft };
    let mut world = World::new();
    world.send(Via::Pod(A), Craft::udp(A.at(1), B.at(2)));
    let error = Craft::icmp(B.ip(), A.ip(), 3, 3, 0).payload(&l3(&Craft::udp(A.at(1), B.at(2))));
    assert_eq!(world.send(Via::Pod(B), expired(error)).verdict, spent);

    let whole = Craft::udp(A.at(1), B.at(2)).payload(&[1; 100]);
    let linked = Craft::read(&world.frame(Via::Pod(A), whole)).unwrap();
    world.send_frame(Port::Hub, &linked.fragments(5, 48)[0]);
    let second = expired(linked).fragments(5, 48).swap_remove(1);
    assert_eq!(world.send_frame(Port::Hub, &second).verdict, spent);

    let craft = || expired(Craft::udp(A.at(1), B.at(2)));
    let told =
        |world: &mut World| (0..1200).filter(|_| world.send(Via::Pod(A), craft()).verdict != spent).count();
    assert_eq!(told(&mut world), 1000);
    world.now += 1;
    assert_eq!(told(&mut world), 1000);
}
