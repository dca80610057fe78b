//! What the first bytes of a frame say, for people. Frames can be cut short or malformed, so
//! this reads what is there and never judges; judging is the engine's business.

use engine::Event;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::net::IpAddr;
use wire::hub::{LinkDestination, Origin};
use wire::{Address, MacAddr, Protocol};

/// Addresses, ports and flags of a packet.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Summary {
    /// Link layer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub l2: Option<Pair>,
    /// EtherType, by name where it has one.
    pub ethernet: String,
    /// Addresses.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub l3: Option<Pair>,
    /// Ports.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub l4: Option<Pair>,
    /// `tcp`, `udp`, `sctp`, `icmp`, or empty.
    pub protocol: String,
    /// TCP flags or ICMP type and code.
    pub detail: String,
}

/// Source and destination.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Pair {
    /// Source.
    pub src: String,
    /// Destination.
    pub dst: String,
}

impl Summary {
    /// Reads the captured bytes; addresses and ports come from the event's tuple, after
    /// translation, where it has one.
    pub fn of(event: &Event) -> Summary {
        let Some((&[d0, d1, d2, d3, d4, d5, s0, s1, s2, s3, s4, s5, e0, e1], packet)) =
            captured(event).split_first_chunk::<14>()
        else {
            return Summary::default();
        };
        let ethertype = u16::from_be_bytes([e0, e1]);
        let mut summary = Summary {
            l2: Some(Pair {
                src: MacAddr([s0, s1, s2, s3, s4, s5]).to_string(),
                dst: destination(MacAddr([d0, d1, d2, d3, d4, d5])),
            }),
            ethernet: ethertype_name(ethertype),
            ..Summary::default()
        };
        let Some(network) = network(ethertype, packet) else { return summary };
        let tuple = event.translated.unwrap_or(event.tuple);
        let known = tuple.dst != Address::UNSPECIFIED;
        let (src, dst) = if known { (tuple.src.ip(), tuple.dst.ip()) } else { (network.src, network.dst) };
        summary.l3 = Some(Pair { src: src.to_string(), dst: dst.to_string() });
        let in_packet = ports(network.payload);
        let ports = if known { Some((tuple.sport, tuple.dport)) } else { in_packet };
        match network.protocol {
            Protocol::TCP => {
                summary.protocol = "tcp".into();
                summary.detail = network.payload.get(13).copied().map(tcp_flags).unwrap_or_default();
            }
            Protocol::UDP => summary.protocol = "udp".into(),
            Protocol::SCTP => summary.protocol = "sctp".into(),
            Protocol::ICMP | Protocol::ICMPV6 => {
                summary.protocol = "icmp".into();
                summary.detail = match network.payload {
                    [kind, code, ..] => icmp(network.protocol, *kind, *code),
                    _ => String::new(),
                };
                return summary;
            }
            _ => return summary,
        }
        summary.l4 = ports.map(|(src, dst)| Pair { src: src.to_string(), dst: dst.to_string() });
        summary
    }

    /// The ICMP type of an ICMP packet.
    pub fn icmp_type(event: &Event) -> Option<u8> {
        let (header, packet) = captured(event).split_first_chunk::<14>()?;
        let network = network(u16::from_be_bytes([header[12], header[13]]), packet)?;
        network.payload.first().copied()
    }
}

fn captured(event: &Event) -> &[u8] {
    event.snap.get(..event.captured.into()).unwrap_or(&event.snap)
}

fn network(ethertype: u16, packet: &[u8]) -> Option<Network<'_>> {
    match ethertype {
        0x0800 => ipv4(packet),
        0x86dd => ipv6(packet),
        _ => None,
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.l2, &self.l3, &self.l4) {
            (_, Some(l3), Some(l4)) => {
                write!(f, "{} -> {}", with_port(&l3.src, &l4.src), with_port(&l3.dst, &l4.dst))?;
            }
            (_, Some(l3), None) => write!(f, "{} -> {}", l3.src, l3.dst)?,
            (Some(l2), None, _) => return write!(f, "{} -> {} {}", l2.src, l2.dst, self.ethernet),
            (None, None, _) => return f.write_str("[unknown]"),
        }
        for word in [&self.protocol, &self.detail].into_iter().filter(|word| !word.is_empty()) {
            write!(f, " {word}")?;
        }
        Ok(())
    }
}

fn with_port(address: &str, port: &str) -> String {
    if address.contains(':') { format!("[{address}]:{port}") } else { format!("{address}:{port}") }
}

/// The destination MAC; steering has replaced that of a pod's frame by a mark.
fn destination(mac: MacAddr) -> String {
    match Origin::decode(mac) {
        Some(Origin::Pod { to: LinkDestination::Gateway, .. }) => "gateway".into(),
        Some(Origin::Pod { to: LinkDestination::Group, .. }) => "group".into(),
        Some(Origin::Pod { to: LinkDestination::Other, .. }) => "other".into(),
        Some(Origin::HostToPod { .. } | Origin::Forwarded { link: Some(_) }) => "pod".into(),
        Some(Origin::Host | Origin::Forwarded { link: None }) => "hub".into(),
        None => mac.to_string(),
    }
}

fn ethertype_name(ethertype: u16) -> String {
    match ethertype {
        0x0800 => "IPv4".into(),
        0x0806 => "ARP".into(),
        0x86dd => "IPv6".into(),
        0x8100 => "Dot1Q".into(),
        0x88a8 => "QinQ".into(),
        0x88cc => "LinkLayerDiscovery".into(),
        other => format!("{other:#06x}"),
    }
}

struct Network<'a> {
    src: IpAddr,
    dst: IpAddr,
    protocol: Protocol,
    /// Layer 4, empty for a later fragment.
    payload: &'a [u8],
}

fn ipv4(packet: &[u8]) -> Option<Network<'_>> {
    let header = packet.first_chunk::<20>()?;
    let start = usize::from(header[0] & 0x0f) * 4;
    let offset = u16::from_be_bytes([header[6], header[7]]) & 0x1fff;
    Some(Network {
        src: IpAddr::from(<[u8; 4]>::try_from(&header[12..16]).ok()?),
        dst: IpAddr::from(<[u8; 4]>::try_from(&header[16..20]).ok()?),
        protocol: Protocol(header[9]),
        payload: packet.get(start.max(20)..).filter(|_| offset == 0).unwrap_or_default(),
    })
}

fn ipv6(packet: &[u8]) -> Option<Network<'_>> {
    let (header, mut payload) = packet.split_first_chunk::<40>()?;
    let mut next = header[6];
    // Hop-by-hop, routing, fragment and destination options, each at most once (RFC 8200 §4.1).
    for _ in 0..4 {
        let length = match (next, payload) {
            (0 | 43 | 60, [_, length, ..]) => 8 + usize::from(*length) * 8,
            (44, [_, _, hi, lo, ..]) if u16::from_be_bytes([*hi, *lo]) >> 3 == 0 => 8,
            (44, [after, ..]) => {
                next = *after;
                payload = &[];
                break;
            }
            _ => break,
        };
        next = payload[0];
        payload = payload.get(length..).unwrap_or_default();
    }
    Some(Network {
        src: IpAddr::from(<[u8; 16]>::try_from(&header[8..24]).ok()?),
        dst: IpAddr::from(<[u8; 16]>::try_from(&header[24..40]).ok()?),
        protocol: Protocol(next),
        payload,
    })
}

fn ports(payload: &[u8]) -> Option<(u16, u16)> {
    let &[a, b, c, d] = payload.first_chunk::<4>()?;
    Some((u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d])))
}

/// SYN, ACK, RST, FIN in the order of Cilium's monitor.
fn tcp_flags(bits: u8) -> String {
    let names = [(0x02, "SYN"), (0x10, "ACK"), (0x04, "RST"), (0x01, "FIN")];
    let set: Vec<_> = names.iter().filter(|(bit, _)| bits & bit != 0).map(|(_, name)| *name).collect();
    set.join(", ")
}

/// ICMP type and code as gopacket names them (`cilium-interop` 7.1), for both families.
fn icmp(protocol: Protocol, kind: u8, code: u8) -> String {
    let v4 = protocol == Protocol::ICMP;
    let (name, codes): (&str, &[&str]) = match (v4, kind) {
        (true, 0) | (false, 129) => ("EchoReply", &[]),
        (true, 8) | (false, 128) => ("EchoRequest", &[]),
        (true, 3) => ("DestinationUnreachable", UNREACHABLE_V4),
        (true, 4) => ("SourceQuench", &[]),
        (true, 5) => ("Redirect", &["Net", "Host", "TOS+Net", "TOS+Host"]),
        (true, 9) | (false, 134) => ("RouterAdvertisement", &[]),
        (true, 10) | (false, 133) => ("RouterSolicitation", &[]),
        (true, 11) => ("TimeExceeded", &["TTLExceeded", "FragmentReassemblyTimeExceeded"]),
        (true, 12) => ("ParameterProblem", &["PointerIndicatesError", "MissingOption", "BadLength"]),
        (true, 13) => ("TimestampRequest", &[]),
        (true, 14) => ("TimestampReply", &[]),
        (true, 15) => ("InfoRequest", &[]),
        (true, 16) => ("InfoReply", &[]),
        (true, 17) => ("AddressMaskRequest", &[]),
        (true, 18) => ("AddressMaskReply", &[]),
        (false, 1) => ("DestinationUnreachable", UNREACHABLE_V6),
        (false, 2) => ("PacketTooBig", &[]),
        (false, 3) => ("TimeExceeded", &["HopLimitExceeded", "FragmentReassemblyTimeExceeded"]),
        (false, 4) => {
            ("ParameterProblem", &["ErroneousHeader", "UnrecognizedNextHeader", "UnrecognizedIPv6Option"])
        }
        (false, 135) => ("NeighborSolicitation", &[]),
        (false, 136) => ("NeighborAdvertisement", &[]),
        (false, 137) => ("Redirect", &[]),
        _ => return format!("{kind}({code})"),
    };
    match codes.get(usize::from(code)) {
        Some(code) => format!("{name}({code})"),
        None if codes.is_empty() && code == 0 => name.into(),
        None => format!("{name}(Code: {code})"),
    }
}

const UNREACHABLE_V4: &[&str] = &[
    "Net",
    "Host",
    "Protocol",
    "Port",
    "FragmentationNeeded",
    "SourceRoutingFailed",
    "NetUnknown",
    "HostUnknown",
    "SourceIsolated",
    "NetAdminProhibited",
    "HostAdminProhibited",
    "NetTOS",
    "HostTOS",
    "CommAdminProhibited",
    "HostPrecedence",
    "PrecedenceCutoff",
];
const UNREACHABLE_V6: &[&str] = &[
    "NoRouteToDst",
    "AdminProhibited",
    "BeyondScopeOfSrc",
    "AddressUnreachable",
    "PortUnreachable",
    "SrcAddressFailedPolicy",
    "RejectRouteToDst",
];
