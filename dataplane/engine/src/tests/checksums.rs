//! Every frame that leaves has right checksums: in these tests they are recomputed from scratch.

use super::world::*;
use crate::{HAIRPIN_V4, HAIRPIN_V6, Port, Verdict};
use core::net::{IpAddr, SocketAddr};
use proptest::prelude::*;
use std::vec::Vec;
use wire::Protocol;
use wire::craft::Craft;
use wire::parse::ETHERNET;

/// One's complement sum, two bytes at a time (RFC 1071 §4.1).
fn sum(parts: &[&[u8]]) -> u16 {
    let mut sum = 0u32;
    for part in parts {
        for pair in part.chunks(2) {
            sum += u32::from(pair[0]) * 256 + pair.get(1).map_or(0, |&low| u32::from(low));
            sum = (sum & 0xffff) + (sum >> 16);
        }
    }
    sum as u16
}

/// CRC32c bit by bit.
fn crc32c(data: &[u8]) -> u32 {
    !data.iter().fold(!0, |crc, &byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| crc >> 1 ^ if crc & 1 == 1 { 0x82f6_3b78 } else { 0 })
    })
}

/// Checks lengths and all checksums of a frame without IPv6 extension headers but for fragments.
#[track_caller]
pub(super) fn verify(frame: &[u8]) {
    let packet = &frame[ETHERNET..];
    match (frame[12], frame[13]) {
        (8, 0) => {
            assert_eq!(sum(&[&packet[..20]]), 0xffff, "IPv4 header");
            assert_eq!(u16::from_be_bytes([packet[2], packet[3]]) as usize, packet.len());
            let fragment = packet[6] & 0x3f != 0 || packet[7] != 0;
            assert!(fragment || l4_is_right(packet[9], &packet[12..20], &packet[20..]), "{packet:x?}");
        }
        (0x86, 0xdd) => {
            assert_eq!(u16::from_be_bytes([packet[4], packet[5]]) as usize, packet.len() - 40);
            let fragment = packet[6] == 44;
            assert!(fragment || l4_is_right(packet[6], &packet[8..40], &packet[40..]), "{packet:x?}");
        }
        other => assert_eq!(other, (8, 6), "ethertype"),
    }
}

/// Whether the L4 checksum of a datagram between these addresses is right, and in an ICMP error
/// that of the quoted IPv4 header.
pub(super) fn l4_is_right(proto: u8, addresses: &[u8], l4: &[u8]) -> bool {
    let length = (l4.len() as u32).to_be_bytes();
    match proto {
        17 if addresses.len() == 8 && l4[6..8] == [0, 0] => true,
        6 | 17 | 58 => sum(&[addresses, &length, &[0, proto], l4]) == 0xffff,
        1 if [3, 11, 12].contains(&l4[0]) => sum(&[l4]) == 0xffff && sum(&[&l4[8..28]]) == 0xffff,
        1 => sum(&[l4]) == 0xffff,
        132 => {
            let mut zeroed = l4.to_vec();
            zeroed[8..12].fill(0);
            crc32c(&zeroed).to_le_bytes() == l4[8..12]
        }
        other => panic!("protocol {other}"),
    }
}

/// Whom the client talks to, and how the packets look there.
#[derive(Clone, Copy, Debug)]
enum Peer {
    Direct,
    Service,
    RemoteService,
    Hairpin,
}

/// One flow of A and its four corners.
#[derive(Clone, Debug)]
struct Scene {
    v6: bool,
    proto: Protocol,
    peer: Peer,
    payload: Vec<u8>,
    quote: usize,
}

impl Scene {
    fn pick(&self, v4: &str, v6: &str, port: u16) -> SocketAddr {
        sock(if self.v6 { v6 } else { v4 }, port)
    }

    fn client(&self) -> SocketAddr {
        self.pick(A.v4, A.v6, 4000)
    }

    fn dialed(&self) -> SocketAddr {
        match self.peer {
            Peer::Direct => self.pick(B.v4, B.v6, 80),
            _ => self.pick(VIP.v4, VIP.v6, 80),
        }
    }

    /// Source and destination as the receiver sees them.
    fn translated(&self) -> (SocketAddr, SocketAddr) {
        match self.peer {
            Peer::Direct => (self.client(), self.dialed()),
            Peer::Service => (self.client(), self.pick(B.v4, B.v6, 8080)),
            Peer::RemoteService => (self.client(), self.pick(REMOTE, REMOTE_V6, 8080)),
            Peer::Hairpin => {
                let hairpin = if self.v6 { HAIRPIN_V6 } else { HAIRPIN_V4 };
                ((hairpin.ip(), 4000).into(), self.pick(A.v4, A.v6, 8080))
            }
        }
    }

    fn receiver(&self) -> Via {
        match self.peer {
            Peer::Direct | Peer::Service => Via::Pod(B),
            Peer::RemoteService => Via::Uplink,
            Peer::Hairpin => Via::Pod(A),
        }
    }

    fn world(&self) -> World {
        let mut world = World::new();
        match self.peer {
            Peer::RemoteService => world.backends(&[(REMOTE, REMOTE_V6, true)]),
            Peer::Hairpin => world.backends(&[(A.v4, A.v6, true)]),
            Peer::Direct | Peer::Service => {}
        }
        world
    }

    fn packet(&self, src: SocketAddr, dst: SocketAddr, reply: bool) -> Craft {
        let craft = match self.proto {
            Protocol::TCP => Craft::tcp(src, dst, 0x10),
            Protocol::UDP => Craft::udp(src, dst),
            Protocol::SCTP => Craft::sctp(src, dst),
            _ if reply => Craft::echo_reply(src.ip(), dst.ip(), 77),
            _ => Craft::echo_request(src.ip(), dst.ip(), 77),
        };
        craft.payload(&self.payload)
    }

    /// "Port unreachable" about a packet.
    fn error(&self, src: IpAddr, dst: IpAddr, about: &Craft) -> Craft {
        let (kind, code, header) = if self.v6 { (1, 4, 40) } else { (3, 3, 20) };
        let quote = &about.build()[ETHERNET..];
        // The CRC of a quote could not be updated, and need not: nobody can check it.
        let longest = if self.proto == Protocol::SCTP { header + 8 } else { quote.len() };
        // An even length, so that no checksum is cut in two: its half could not be updated.
        let length = (header + 8 + self.quote / 2 * 2).min(longest);
        Craft::icmp(src, dst, kind, code, 0).payload(&quote[..length])
    }
}

#[track_caller]
fn carries(step: &Step, craft: &Craft) {
    assert!(matches!(step.verdict, Verdict::Transmit(_)), "{step:?}");
    let expected = Craft { ttl: 63, ..craft.clone() }.build();
    assert_eq!(step.frame[ETHERNET..], expected[ETHERNET..], "\n{step:?}\n{craft:?}");
}

fn any_scene() -> impl Strategy<Value = Scene> {
    let proto = prop::sample::select(std::vec![Protocol::TCP, Protocol::UDP, Protocol::SCTP, Protocol::ICMP]);
    let peer =
        prop::sample::select(std::vec![Peer::Direct, Peer::Service, Peer::RemoteService, Peer::Hairpin]);
    let payload = prop::collection::vec(any::<u8>(), 0..200);
    (any::<bool>(), proto, peer, payload, 0..200usize).prop_map(|(v6, proto, peer, payload, quote)| Scene {
        v6,
        proto,
        peer: if proto == Protocol::ICMP { Peer::Direct } else { peer },
        payload,
        quote,
    })
}

proptest! {
    #[test]
    fn all_four_corners_of_a_flow_are_right_to_the_byte(scene in any_scene()) {
        let mut world = scene.world();
        let (client, dialed, (src, dst)) = (scene.client(), scene.dialed(), scene.translated());

        let step = world.send(Via::Pod(A), scene.packet(client, dialed, false));
        carries(&step, &scene.packet(src, dst, false));

        let step = world.send(scene.receiver(), scene.packet(dst, src, true));
        carries(&step, &scene.packet(dialed, client, true));

        let about_received = scene.error(dst.ip(), src.ip(), &scene.packet(src, dst, false));
        let about_sent = scene.error(dialed.ip(), client.ip(), &scene.packet(client, dialed, false));
        carries(&world.send(scene.receiver(), about_received), &about_sent);

        let about_reply = scene.error(client.ip(), dialed.ip(), &scene.packet(dialed, client, true));
        let about_reply_sent = scene.error(src.ip(), dst.ip(), &scene.packet(dst, src, true));
        carries(&world.send(Via::Pod(A), about_reply), &about_reply_sent);
    }

    #[test]
    fn a_wrong_checksum_stays_wrong(mut scene in any_scene(), damage in 1..=255u8) {
        scene.payload.push(0);
        let mut frame = scene.world().frame(Via::Pod(A), scene.packet(scene.client(), scene.dialed(), false));
        *frame.last_mut().unwrap() ^= damage;
        let step = scene.world().send_frame(Port::Hub, &frame);
        prop_assert!(matches!(step.verdict, Verdict::Transmit(_)));
        let (proto, addresses, l4) = if scene.v6 { (20, 22..54, 54) } else { (23, 26..34, 34) };
        prop_assert!(!l4_is_right(step.frame[proto], &step.frame[addresses], &step.frame[l4..]));
    }
}
