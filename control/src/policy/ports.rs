//! Ports, protocols and ICMP types of a rule (`cilium-interop` 5.5).

use crate::objects::{Invalid, each};
use serde::Deserialize;
use tables::PortMatch;
use wire::Protocol;

/// What a rule says of L4.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum PortRule {
    /// A protocol and a range of ports (or ICMP types).
    Number(PortMatch),
    /// The container port of this name: the subject's for ingress, the peer's for egress.
    Name {
        /// Protocol.
        proto: Protocol,
        /// Name of the port.
        name: String,
    },
}

/// The most elements that `ports` and `fields` may have.
const MAX_PORTS: usize = 40;

/// An element of `toPorts`.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct RawPortRule {
    #[serde(default)]
    ports: Vec<RawPort>,
    #[serde(rename = "terminatingTLS")]
    terminating_tls: Option<serde_json::Value>,
    #[serde(rename = "originatingTLS")]
    originating_tls: Option<serde_json::Value>,
    server_names: Option<serde_json::Value>,
    listener: Option<serde_json::Value>,
    rules: Option<serde_json::Value>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct RawPort {
    #[serde(default)]
    port: String,
    #[serde(default)]
    end_port: i64,
    #[serde(default)]
    protocol: String,
}

/// An element of `icmps`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawIcmpRule {
    #[serde(default)]
    fields: Vec<RawIcmpField>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawIcmpField {
    family: Option<String>,
    #[serde(rename = "type")]
    kind: NumberOrName,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
enum NumberOrName {
    Number(i64),
    Name(String),
}

/// All ports of a protocol.
pub(super) fn all_ports(proto: Protocol) -> PortRule {
    PortRule::Number(PortMatch { proto: Some(proto), ports: 0..=u16::MAX })
}

/// A number or name, an end of range (0 for none) and the protocols it is about.
pub(super) fn port_rules(port: &str, end: i64, protos: &[Protocol]) -> Result<Vec<PortRule>, Invalid> {
    let Ok(first) = port.parse::<i64>() else {
        check_name(port)?;
        let name = port.to_ascii_lowercase();
        return Ok(protos.iter().map(|&proto| PortRule::Name { proto, name: name.clone() }).collect());
    };
    let first = u16::try_from(first)
        .map_err(|_| Invalid::new("port", format!("{port:?}: must be 0 (all) to 65535, or a name")))?;
    let last = match (first, end) {
        (0, 0) => u16::MAX,
        (_, 0) => first,
        _ => match u16::try_from(end) {
            Ok(last) if last >= first => last,
            _ => {
                let problem = format!("{end}: must be at least port ({first}) and at most 65535");
                return Err(Invalid::new("endPort", problem));
            }
        },
    };
    let rule = |&proto| PortRule::Number(PortMatch { proto: Some(proto), ports: first..=last });
    Ok(protos.iter().map(rule).collect())
}

fn check_name(name: &str) -> Result<(), Invalid> {
    let fits = name.len() <= 15
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
        && name.bytes().any(|b| b.is_ascii_alphabetic())
        && !name.starts_with('-')
        && !name.ends_with('-')
        && !name.contains("--");
    if fits {
        return Ok(());
    }
    let problem = format!("{name:?}: must be a number from 0 to 65535 or a port name (RFC 6335 §5.1)");
    Err(Invalid::new("port", problem))
}

fn too_many(field: &str, count: usize) -> Result<(), Invalid> {
    match count {
        0 => Err(Invalid::new(field, "empty: name at least one, or leave it out to match all")),
        1..=MAX_PORTS => Ok(()),
        n => Err(Invalid::new(field, format!("{n} elements: at most {MAX_PORTS} are allowed"))),
    }
}

impl RawPortRule {
    pub(super) fn rules(&self) -> Result<Vec<PortRule>, Invalid> {
        super::cilium::unsupported(&[
            ("rules", &self.rules),
            ("terminatingTLS", &self.terminating_tls),
            ("originatingTLS", &self.originating_tls),
            ("serverNames", &self.server_names),
            ("listener", &self.listener),
        ])?;
        too_many("ports", self.ports.len())?;
        Ok(each("ports", &self.ports, |_, port| port.rules())?.concat())
    }
}

impl RawPort {
    fn rules(&self) -> Result<Vec<PortRule>, Invalid> {
        let protos: &[Protocol] = match self.protocol.to_ascii_uppercase().as_str() {
            "" | "ANY" => &[Protocol::TCP, Protocol::UDP, Protocol::SCTP],
            "TCP" => &[Protocol::TCP],
            "UDP" => &[Protocol::UDP],
            "SCTP" => &[Protocol::SCTP],
            "ICMP" => return self.icmp(Protocol::ICMP),
            "ICMPV6" => return self.icmp(Protocol::ICMPV6),
            _ => {
                let problem = format!("{:?}: must be TCP, UDP, SCTP, ICMP, ICMPv6 or ANY", self.protocol);
                return Err(Invalid::new("protocol", problem));
            }
        };
        port_rules(&self.port, self.end_port, protos)
    }

    fn icmp(&self, proto: Protocol) -> Result<Vec<PortRule>, Invalid> {
        match self.port.as_str() {
            "" | "0" => Ok(vec![all_ports(proto)]),
            port => Err(Invalid::new("port", format!("{port:?}: {proto} has no ports; use icmps for types"))),
        }
    }
}

impl RawIcmpRule {
    pub(super) fn rules(&self) -> Result<Vec<PortRule>, Invalid> {
        too_many("fields", self.fields.len())?;
        each("fields", &self.fields, |_, field| field.rule())
    }
}

impl RawIcmpField {
    fn rule(&self) -> Result<PortRule, Invalid> {
        let (proto, names) = match self.family.as_deref() {
            None | Some("IPv4") => (Protocol::ICMP, ICMP_TYPES),
            Some("IPv6") => (Protocol::ICMPV6, ICMPV6_TYPES),
            Some(other) => return Err(Invalid::new("family", format!("{other:?}: must be IPv4 or IPv6"))),
        };
        let number = match &self.kind {
            NumberOrName::Number(number) => u8::try_from(*number).ok(),
            NumberOrName::Name(name) => {
                let by_name = || names.iter().find(|(known, _)| known == name).map(|&(_, number)| number);
                name.parse().ok().or_else(by_name)
            }
        };
        let number = number.map(u16::from).ok_or_else(|| {
            let known: Vec<_> = names.iter().map(|&(name, _)| name).collect();
            let problem = format!("{}: must be 0 to 255 or one of {}", self.kind, known.join(", "));
            Invalid::new("type", problem)
        })?;
        Ok(PortRule::Number(PortMatch { proto: Some(proto), ports: number..=number }))
    }
}

impl std::fmt::Display for NumberOrName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            NumberOrName::Number(number) => write!(f, "{number}"),
            NumberOrName::Name(name) => write!(f, "{name:?}"),
        }
    }
}

const ICMP_TYPES: &[(&str, u8)] = &[
    ("EchoReply", 0),
    ("DestinationUnreachable", 3),
    ("Redirect", 5),
    ("Echo", 8),
    ("EchoRequest", 8),
    ("RouterAdvertisement", 9),
    ("RouterSelection", 10),
    ("TimeExceeded", 11),
    ("ParameterProblem", 12),
    ("Timestamp", 13),
    ("TimestampReply", 14),
    ("Photuris", 40),
    ("ExtendedEchoRequest", 42),
    ("ExtendedEchoReply", 43),
];

const ICMPV6_TYPES: &[(&str, u8)] = &[
    ("DestinationUnreachable", 1),
    ("PacketTooBig", 2),
    ("TimeExceeded", 3),
    ("ParameterProblem", 4),
    ("EchoRequest", 128),
    ("EchoReply", 129),
    ("MulticastListenerQuery", 130),
    ("MulticastListenerReport", 131),
    ("MulticastListenerDone", 132),
    ("RouterSolicitation", 133),
    ("RouterAdvertisement", 134),
    ("NeighborSolicitation", 135),
    ("NeighborAdvertisement", 136),
    ("RedirectMessage", 137),
    ("RouterRenumbering", 138),
    ("ICMPNodeInformationQuery", 139),
    ("ICMPNodeInformationResponse", 140),
    ("InverseNeighborDiscoverySolicitation", 141),
    ("InverseNeighborDiscoveryAdvertisement", 142),
    ("HomeAgentAddressDiscoveryRequest", 144),
    ("HomeAgentAddressDiscoveryReply", 145),
    ("MobilePrefixSolicitation", 146),
    ("MobilePrefixAdvertisement", 147),
    ("DuplicateAddressRequestCodeSuffix", 157),
    ("DuplicateAddressConfirmationCodeSuffix", 158),
    ("ExtendedEchoRequest", 160),
    ("ExtendedEchoReply", 161),
];
