//! Whatever arrives: no panic, one verdict, and every drop counted and reported once.

use super::world::*;
use crate::{EventKind, Port, Verdict};
use core::num::NonZeroU32;
use proptest::prelude::*;
use std::vec::Vec;
use wire::craft::Craft;
use wire::hub::{LinkDestination, Origin};

fn any_port() -> impl Strategy<Value = Port> {
    prop::sample::select(std::vec![Port::Hub, Port::Uplink(0), Port::Uplink(9)])
}

fn any_origin() -> impl Strategy<Value = Origin> {
    let ifindex = prop::sample::select(std::vec![A.ifindex, B.ifindex, 77]);
    let to = [LinkDestination::Gateway, LinkDestination::Group, LinkDestination::Other];
    prop_oneof![
        Just(Origin::Host),
        ifindex.clone().prop_map(|ifindex| Origin::Forwarded { link: NonZeroU32::new(ifindex) }),
        ifindex.clone().prop_map(|ifindex| Origin::HostToPod { ifindex }),
        (ifindex, prop::sample::select(to.to_vec())).prop_map(|(ifindex, to)| Origin::Pod { ifindex, to }),
    ]
}

/// Packets that get far, before they are damaged.
fn any_packet() -> impl Strategy<Value = Vec<u8>> {
    let (a, b) = (A.at(4000), B.at(80));
    let (a6, b6) = (sock(A.v6, 4000), sock(B.v6, 80));
    let quoted = |craft: Craft| craft.build()[14..].to_vec();
    let packets = std::vec![
        Craft::tcp(a, b, 2),
        Craft::tcp(a, VIP.sock(), 2),
        Craft::udp(a6, b6),
        Craft::udp(a6, sock(VIP.v6, 80)),
        Craft::sctp(a, VIP.sock()),
        Craft::sctp(a6, sock(VIP.v6, 80)),
        Craft::echo_request(a.ip(), b.ip(), 0),
        Craft::echo_reply(a6.ip(), b6.ip(), 0),
        Craft::icmp(a.ip(), b.ip(), 3, 4, 1400).payload(&quoted(Craft::tcp(b, a, 2))),
        Craft::icmp(a6.ip(), b6.ip(), 2, 0, 1400).payload(&quoted(Craft::udp(b6, a6))),
        Craft { ttl: 255, ..Craft::icmp(a6.ip(), ip(GATEWAY_V6), 135, 0, 0).payload(&[0xfd; 24]) },
        Craft::udp(a, sock(REMOTE, 1)).payload(&[7; 1490]),
    ];
    let whole = packets.iter().map(Craft::build);
    let parts = packets.iter().flat_map(|packet| packet.fragments(9, 24));
    prop::sample::select(whole.chain(parts).collect::<Vec<_>>())
}

fn check(world: &mut World, port: Port, frame: &[u8], first: usize) -> Result<(), TestCaseError> {
    let step = world.send_split(port, frame, first.min(frame.len()));
    let drops: Vec<_> = step.events().iter().filter(|kind| matches!(kind, EventKind::Drop { .. })).collect();
    prop_assert_eq!(drops.len(), step.drops(), "{:?}", step);
    match step.verdict {
        Verdict::Drop(reason) => prop_assert_eq!(drops, [&EventKind::Drop { reason, rule: None }]),
        Verdict::Hold => prop_assert!(false, "nobody can wait"),
        Verdict::Transmit(_) => prop_assert!(step.frame.len() >= 14),
    }
    Ok(())
}

proptest! {
    #[test]
    fn arbitrary_bytes(port in any_port(), origin in any_origin(), mut frame: Vec<u8>, first in 0..200usize) {
        if let Some(to) = frame.first_chunk_mut::<6>() {
            *to = origin.encode().0;
        }
        check(&mut World::new(), port, &frame, first)?;
    }

    #[test]
    fn damaged_packets_in_a_row(
        packets in prop::collection::vec(
            (any_port(), any_origin(), any_packet(), prop::collection::vec((0..120usize, any::<u8>()), 0..4), 0..40usize, 0..2000usize),
            1..12,
        ),
    ) {
        let mut world = World::new();
        for (port, origin, mut frame, edits, cut, first) in packets {
            frame[..6].copy_from_slice(&origin.encode().0);
            frame[6..12].copy_from_slice(&A.mac.0);
            for (at, value) in edits {
                if let Some(byte) = frame.get_mut(at) {
                    *byte = value;
                }
            }
            frame.truncate(frame.len() - cut.min(frame.len()));
            check(&mut world, port, &frame, first)?;
        }
    }
}
