//! The one place where forwarded packets are changed.
//!
//! Checksums are updated by what changed (RFC 1624); a wrong one stays wrong, and the L4 checksum
//! of a fragmented datagram, which stands in its first fragment, is right for the whole.

use crate::related::Related;
use crate::{DropReason, Refusal};
use wire::checksum::{Delta, crc32c_ports};
use wire::parse::{ETHERNET, IPV4, IPV6};
use wire::{Address, Packet, Protocol, Tuple};

/// Where the parts of an IP packet are in a frame.
struct Place {
    l3: usize,
    l4: usize,
    end: usize,
    /// The L4 header is there.
    has_l4: bool,
    /// All of the datagram is there.
    whole: bool,
}

/// Whether the packet can be given this tuple.
pub(crate) fn check(packet: &Packet, after: &Tuple) -> Result<(), Refusal> {
    let before = &packet.tuple;
    let ports_change = (before.sport, before.dport) != (after.sport, after.dport);
    if packet.fragment.is_some() && before.proto == Protocol::SCTP && ports_change {
        return Err(DropReason::FragmentUnsupported.into());
    }
    Ok(())
}

/// Gives a packet the addresses and ports of `after`.
pub(crate) fn translate(frame: &mut [u8], packet: &Packet, after: &Tuple) {
    change(frame, &Place::of(packet), &packet.tuple, after, Delta::default());
}

/// Gives an ICMP error, and the packet it quotes, the tuples that its receiver knows.
pub(crate) fn translate_error(frame: &mut [u8], packet: &Packet, related: &Related) {
    let quoted = &related.quoted;
    let inside =
        Place { l3: quoted.l3_offset, l4: quoted.l4_offset, end: packet.end, has_l4: true, whole: false };
    let payload = change(frame, &inside, &quoted.tuple, &related.inner, Delta::default());
    change(frame, &Place::of(packet), &packet.tuple, &related.outer, payload);
}

/// One end of a packet's way.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum End {
    Source,
    Destination,
}

/// Gives one end of a plain TCP or UDP packet another address, which adds `difference` to sums,
/// and port.
#[inline]
pub(crate) fn replace(
    frame: &mut [u8],
    proto: Protocol,
    end: End,
    (address, port): (Address, u16),
    difference: Delta,
) {
    let (source, mut delta) = (end == End::Source, difference);
    let l4 = match address.as_v4() {
        Some(v4) => {
            write(frame, ETHERNET + if source { 12 } else { 16 }, v4.to_be_bytes());
            update16(frame, ETHERNET + 10, &mut Delta::default(), |checksum| difference.apply(checksum));
            ETHERNET + IPV4
        }
        None => {
            write(frame, ETHERNET + if source { 8 } else { 24 }, address.0.to_be_bytes());
            ETHERNET + IPV6
        }
    };
    update16(frame, l4 + if source { 0 } else { 2 }, &mut delta, |_| port);
    let udp = proto == Protocol::UDP;
    update16(frame, l4 + if udp { 6 } else { 16 }, &mut Delta::default(), |checksum| match udp {
        true => delta.apply_udp(checksum),
        false => delta.apply(checksum),
    });
}

/// Takes one hop off the TTL or hop limit, which is above 0.
#[inline]
pub(crate) fn take_hop(frame: &mut [u8], v4: bool) {
    if v4 {
        let mut delta = Delta::default();
        // The word of TTL and protocol.
        update16(frame, ETHERNET + 8, &mut delta, |word| word.saturating_sub(0x100));
        update16(frame, ETHERNET + 10, &mut Delta::default(), |checksum| delta.apply(checksum));
    } else {
        frame[ETHERNET + 7] = frame[ETHERNET + 7].saturating_sub(1);
    }
}

impl Place {
    fn of(packet: &Packet) -> Place {
        Place {
            l3: ETHERNET,
            l4: packet.l4_offset,
            end: packet.end,
            has_l4: !packet.is_later_fragment(),
            whole: packet.fragment.is_none(),
        }
    }
}

/// Changes one packet from one tuple to another. `payload` is what has changed in its payload.
/// Returns all that has changed in the packet.
fn change(frame: &mut [u8], place: &Place, before: &Tuple, after: &Tuple, payload: Delta) -> Delta {
    let addresses = change_addresses(frame, place.l3, before, after);
    let mut all = addresses;
    all += payload;
    if before.src.is_v4() {
        update16(frame, place.l3 + 10, &mut all, |checksum| addresses.apply(checksum));
    }
    if place.has_l4 {
        let ports = change_ports(frame, place, before, after);
        all += ports;
        let mut covered = payload;
        covered += ports;
        if before.proto != Protocol::ICMP {
            covered += addresses;
        }
        update_l4_checksum(frame, place, before.proto, covered, &mut all);
    }
    all
}

fn change_addresses(frame: &mut [u8], l3: usize, before: &Tuple, after: &Tuple) -> Delta {
    let (src, dst) = if before.src.is_v4() { (l3 + 12, l3 + 16) } else { (l3 + 8, l3 + 24) };
    let mut delta = Delta::default();
    for (at, old, new) in [(src, before.src, after.src), (dst, before.dst, after.dst)] {
        if old != new {
            debug_assert_eq!(old.is_v4(), new.is_v4(), "{old} cannot become {new}");
            delta.address(old, new);
            match new.as_v4() {
                Some(v4) => write(frame, at, v4.to_be_bytes()),
                None => write(frame, at, new.0.to_be_bytes()),
            }
        }
    }
    delta
}

fn change_ports(frame: &mut [u8], place: &Place, before: &Tuple, after: &Tuple) -> Delta {
    let mut delta = Delta::default();
    let (old, new) = ((before.sport, before.dport), (after.sport, after.dport));
    if old == new || !matches!(before.proto, Protocol::TCP | Protocol::UDP | Protocol::SCTP) {
        return delta;
    }
    let bytes = |(sport, dport): (u16, u16)| (u32::from(sport) << 16 | u32::from(dport)).to_be_bytes();
    update16(frame, place.l4, &mut delta, |_| new.0);
    update16(frame, place.l4 + 2, &mut delta, |_| new.1);
    if before.proto == Protocol::SCTP && place.whole {
        let changed = crc32c_ports(bytes(old), bytes(new), place.end - place.l4).to_le_bytes();
        for (byte, change) in frame[place.l4 + 8..place.l4 + 12].iter_mut().zip(changed) {
            *byte ^= change;
        }
    }
    delta
}

fn update_l4_checksum(frame: &mut [u8], place: &Place, proto: Protocol, covered: Delta, all: &mut Delta) {
    let field = match proto {
        Protocol::TCP => 16,
        Protocol::UDP => 6,
        Protocol::ICMP | Protocol::ICMPV6 => 2,
        _ => return,
    };
    // A quote may end before the checksum.
    if place.l4 + field + 2 <= place.end {
        update16(frame, place.l4 + field, all, |checksum| match proto {
            Protocol::UDP => covered.apply_udp(checksum),
            _ => covered.apply(checksum),
        });
    }
}

/// Changes a word and adds that to `delta`.
#[inline]
fn update16(frame: &mut [u8], at: usize, delta: &mut Delta, new: impl Fn(u16) -> u16) {
    let old = u16::from_be_bytes([frame[at], frame[at + 1]]);
    let new = new(old);
    delta.word(old, new);
    write(frame, at, new.to_be_bytes());
}

fn write<const N: usize>(frame: &mut [u8], at: usize, bytes: [u8; N]) {
    frame[at..at + N].copy_from_slice(&bytes);
}
