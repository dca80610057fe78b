use super::*;
use crate::Quoted;
use crate::craft::Craft;
use alloc::vec::Vec;
use proptest::prelude::*;

const V4: [&str; 2] = ["10.0.0.1:1000", "10.0.0.2:80"];
const V6: [&str; 2] = ["[fd00::1]:1000", "[fd00::2]:80"];

fn udp([src, dst]: [&str; 2]) -> Craft {
    Craft::udp(src.parse().unwrap(), dst.parse().unwrap()).payload(b"payload!")
}

fn tcp([src, dst]: [&str; 2]) -> Craft {
    Craft::tcp(src.parse().unwrap(), dst.parse().unwrap(), tcp::SYN)
}

/// A valid frame changed by `edit`; the IPv4 header checksum is made right again.
fn edited(craft: &Craft, edit: impl Fn(&mut Vec<u8>)) -> Result<Network, Malformed> {
    let mut frame = craft.build();
    edit(&mut frame);
    if craft.src.is_v4() && frame.len() >= 34 {
        frame[24..26].fill(0);
        let sum = checksum::finish(&[checksum::sum(&frame[14..34])]);
        frame[24..26].copy_from_slice(&sum.to_be_bytes());
    }
    parse(&frame)
}

/// An IPv6 frame with this chain of (type, bytes) before a UDP header.
fn chain(headers: &[(u8, [u8; 8])]) -> Result<Network, Malformed> {
    let mut frame = udp(V6).build();
    let upper = frame.split_off(54);
    let types = headers.iter().map(|header| header.0).chain([17]);
    for (at, next) in types.enumerate() {
        let field = if at == 0 { 20 } else { 54 + (at - 1) * 8 };
        if let Some((_, header)) = headers.get(at) {
            frame.extend_from_slice(header);
        }
        frame[field] = next;
    }
    frame.extend_from_slice(&upper);
    let length = (frame.len() - 54) as u16;
    frame[18..20].copy_from_slice(&length.to_be_bytes());
    parse(&frame)
}

#[test]
fn malformed_frames_are_told_apart() {
    type Edit = fn(&mut Vec<u8>);
    let cases: &[(&str, Craft, Edit, Malformed)] = &[
        ("empty", udp(V4), |f| f.clear(), Malformed::Packet),
        ("half an Ethernet header", udp(V4), |f| f.truncate(13), Malformed::Packet),
        ("802.1Q", udp(V4), |f| f[12..14].copy_from_slice(&[0x81, 0]), Malformed::Vlan),
        ("802.1ad", udp(V4), |f| f[12..14].copy_from_slice(&[0x88, 0xa8]), Malformed::Vlan),
        ("802.3 length", udp(V4), |f| f[12..14].copy_from_slice(&[0, 46]), Malformed::Ethertype),
        ("IPX", udp(V4), |f| f[12..14].copy_from_slice(&[0x81, 0x37]), Malformed::Ethertype),
        ("version 6 as IPv4", udp(V4), |f| f[14] = 0x65, Malformed::Packet),
        ("IHL 4", udp(V4), |f| f[14] = 0x44, Malformed::Packet),
        ("IPv4 options", udp(V4), |f| f[14] = 0x46, Malformed::Options),
        ("total length beyond the frame", udp(V4), |f| f[17] += 1, Malformed::Packet),
        ("total length within the header", udp(V4), |f| f[17] = 19, Malformed::Packet),
        ("UDP without header", udp(V4), |f| f[17] = 27, Malformed::L4Header),
        ("UDP length beyond the packet", udp(V4), |f| f[39] += 1, Malformed::L4Header),
        ("UDP length 7", udp(V4), |f| f[39] = 7, Malformed::L4Header),
        ("TCP without header", tcp(V4), |f| f[17] -= 1, Malformed::L4Header),
        ("TCP data offset 4", tcp(V4), |f| f[46] = 0x40, Malformed::L4Header),
        ("TCP data offset beyond the packet", tcp(V4), |f| f[46] = 0x60, Malformed::L4Header),
        ("tiny first fragment", tcp(V4), |f| (f[17], f[20]) = (36, 0x20), Malformed::L4Header),
        ("fragment over a TCP header", tcp(V4), |f| f[21] = 2, Malformed::Fragment),
        ("fragment beyond 64 KiB", udp(V4), |f| f[20..22].fill(0xff), Malformed::Fragment),
        ("uneven fragment", udp(V4), |f| (f[17], f[20]) = (35, 0x20), Malformed::Fragment),
        ("version 4 as IPv6", udp(V6), |f| f[14] = 0x45, Malformed::Packet),
        ("payload length beyond the frame", udp(V6), |f| f[19] += 1, Malformed::Packet),
        ("half an IPv6 header", udp(V6), |f| f.truncate(53), Malformed::Packet),
        (
            "IPv4-mapped source",
            udp(V6),
            |f| f[22..34].copy_from_slice(&[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 255, 255]),
            Malformed::MappedAddress,
        ),
        (
            "ICMPv6 of 7 bytes",
            Craft::echo_request("fd00::1".parse().unwrap(), "fd00::2".parse().unwrap(), 1),
            |f| f[19] = 7,
            Malformed::L4Header,
        ),
    ];
    for (what, craft, edit, expected) in cases {
        assert_eq!(edited(craft, edit), Err(*expected), "{what}");
    }
    let mut wrong_checksum = udp(V4).build();
    wrong_checksum[24] ^= 1;
    assert_eq!(parse(&wrong_checksum), Err(Malformed::HeaderChecksum));
}

#[test]
fn extension_headers_once_and_in_order() {
    const HOP: (u8, [u8; 8]) = (0, [0, 0, 1, 4, 0, 0, 0, 0]);
    const DST: (u8, [u8; 8]) = (60, [0, 0, 1, 4, 0, 0, 0, 0]);
    const ATOMIC: (u8, [u8; 8]) = (44, [0; 8]);
    const LONG: (u8, [u8; 8]) = (60, [0, 9, 1, 4, 0, 0, 0, 0]);
    for good in [&[][..], &[HOP], &[DST], &[HOP, DST], &[HOP, DST, ATOMIC], &[ATOMIC]] {
        let Ok(Network::Ip(packet)) = chain(good) else { panic!("{good:?}") };
        assert_eq!((packet.l4, packet.fragment), (L4::Udp, None), "{good:?}");
        assert_eq!(packet.l4_offset, 54 + 8 * good.len(), "{good:?}");
    }
    for bad in [
        &[DST, HOP][..],
        &[HOP, HOP],
        &[DST, DST],
        &[ATOMIC, ATOMIC],
        &[ATOMIC, DST],
        &[(43, [0; 8])],
        &[(51, [0; 8])],
    ] {
        assert_eq!(chain(bad), Err(Malformed::ExtensionHeader), "{bad:?}");
    }
    assert_eq!(chain(&[LONG]), Err(Malformed::Packet));
}

#[test]
fn padding_is_not_part_of_the_packet() {
    for craft in [udp(V4), udp(V6)] {
        let mut frame = craft.build();
        let end = frame.len();
        frame.resize(end + 30, 0xa5);
        let Ok(Network::Ip(packet)) = parse(&frame) else { panic!() };
        assert_eq!((packet.end, packet.l3_len()), (end, end - ETHERNET));
    }
}

#[test]
fn echo_replies_are_the_reverse_of_requests() {
    for (src, dst) in [("10.0.0.1", "10.0.0.2"), ("fd00::1", "fd00::2")] {
        let (src, dst) = (src.parse().unwrap(), dst.parse().unwrap());
        let tuple = |craft: Craft| match parse(&craft.build()) {
            Ok(Network::Ip(packet)) => packet.tuple,
            other => panic!("{other:?}"),
        };
        let request = tuple(Craft::echo_request(src, dst, 7));
        assert_eq!((request.sport, request.dport), (0, 7));
        assert_eq!(tuple(Craft::echo_reply(dst, src, 7)), request.reversed());
    }
}

fn any_craft() -> impl Strategy<Value = Craft> {
    let proto = prop_oneof![Just(1), Just(6), Just(17), Just(58), Just(132), any::<u8>()];
    let payload = prop::collection::vec(any::<u8>(), 0..200);
    (any::<bool>(), any::<[u32; 2]>(), proto, any::<[u8; 12]>(), payload, any::<u8>()).prop_map(
        |(v4, [src, dst], proto, macs, payload, ttl)| {
            let address = |bits: u32| match v4 {
                true => Address::v4(bits).ip(),
                false => Address::v6(0xfd << 120 | u128::from(bits)).ip(),
            };
            let [a, b, c, d, e, f, g, h, i, j, k, l] = macs;
            let craft = match (proto, v4) {
                (6, _) => Craft::tcp((address(src), 1).into(), (address(dst), 2).into(), macs[0]),
                (17, _) => Craft::udp((address(src), 3).into(), (address(dst), 4).into()),
                (132, _) => Craft::sctp((address(src), 5).into(), (address(dst), 6).into()),
                (1, true) | (58, false) => Craft::icmp(address(src), address(dst), macs[0], 0, src),
                _ => Craft::new(address(src), address(dst), Protocol(proto), &[]),
            };
            let craft =
                craft.payload(&payload).link(MacAddr([a, b, c, d, e, f]), MacAddr([g, h, i, j, k, l]));
            Craft { ttl, ..craft }
        },
    )
}

proptest! {
    #[test]
    fn never_panics_and_stays_inside(frame: Vec<u8>) {
        check(&frame)?;
    }

    #[test]
    fn never_panics_on_mutated_packets(craft in any_craft(), edits in prop::collection::vec((0..90usize, any::<u8>()), 0..6), cut in 0..60usize) {
        let mut frame = craft.build();
        for (at, value) in edits {
            if let Some(byte) = frame.get_mut(at) {
                *byte = value;
            }
        }
        frame.truncate(frame.len() - cut.min(frame.len()));
        check(&frame)?;
    }

    #[test]
    fn craft_parse_craft(craft in any_craft()) {
        // Numbers of extension headers are not protocols of a v6 packet.
        prop_assume!(craft.src.is_v4() || ![0, 43, 44, 51, 60, 135, 139, 140].contains(&craft.proto.0));
        let frame = craft.build();
        prop_assert_eq!(Craft::read(&frame).map(|read| read.build()), Some(frame));
    }

    #[test]
    fn further_buffers_change_nothing(craft in any_craft(), padding in 0..20usize, first in 0..300usize) {
        let mut frame = craft.build();
        frame.resize(frame.len() + padding, 0xee);
        let (first, tail) = frame.split_at(first.min(frame.len()));
        match (parse_split(first, tail.len()), parse(&frame)) {
            (split, whole) if split == whole => {}
            (Err(Malformed::Packet | Malformed::L4Header), _) => prop_assert!(first.len() < 14 + 40 + 20 + 40),
            (split, whole) => prop_assert_eq!(split, whole),
        }
    }

    #[test]
    fn fragments_tell_where_they_belong(craft in any_craft(), id: u16) {
        prop_assume!(![0, 43, 44, 51, 60, 135, 139, 140].contains(&craft.proto.0) && craft.l4.len() > 24);
        for (number, frame) in craft.fragments(id.into(), 24).iter().enumerate() {
            let Ok(Network::Ip(packet)) = parse(frame) else { panic!("fragment {number}") };
            let fragment = packet.fragment.unwrap();
            prop_assert_eq!((fragment.id, fragment.offset), (id.into(), number as u16 * 24));
            prop_assert_eq!(packet.is_later_fragment(), number > 0);
        }
    }
}

fn check(frame: &[u8]) -> Result<(), TestCaseError> {
    if let Ok(Network::Ip(packet)) = parse(frame) {
        prop_assert!(packet.l4_offset <= packet.end && packet.end <= frame.len());
        if packet.l4 == L4::IcmpError
            && let Some(quoted) = Quoted::read(frame, &packet)
        {
            prop_assert!(quoted.l3_offset < quoted.l4_offset && quoted.l4_offset + 8 <= packet.end);
        }
    }
    Ok(())
}
