//! A node's tables and flows at one instant as JSON: what `dataplane state dump` prints, and what
//! captures are replayed against.
//!
//! Numbers are those of the running agent, times are in seconds. A reader refuses another
//! [`VERSION`]; a writer raises it with every change that an older reader would misread.

mod dump;
mod load;

pub use dump::dump;
pub use load::{LoadError, Loaded};

use control::model::Lexicon;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::IpAddr;

/// Version of the format.
pub const VERSION: u32 = 1;

/// Everything that verdicts of a node depend on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct State {
    /// [`VERSION`].
    pub version: u32,
    /// Version of the agent.
    pub agent: String,
    /// When it was taken.
    pub taken: Taken,
    /// The node.
    pub node: Node,
    /// Names of clusters by id.
    pub clusters: BTreeMap<u32, String>,
    /// Local pods.
    pub endpoints: Vec<Endpoint>,
    /// The different policies of local pods.
    pub policies: Vec<Policy>,
    /// What pods, rules and identities are called.
    pub names: Lexicon,
    /// Address → identity and node.
    pub ipcache: Vec<Prefix>,
    /// Service frontends.
    pub services: Vec<Service>,
    /// Other nodes, and the way there where it is known.
    pub hops: Vec<Hop>,
    /// Connections, and what clients of services were given.
    pub flows: Vec<Flow>,
}

/// One instant on two clocks.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Taken {
    /// Since 1970.
    pub unix: u64,
    /// Since boot, the clock of conntrack.
    pub boot: u32,
    /// Generation of the policy, which flows are stamped with.
    pub policy_generation: u32,
}

/// The node itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Node {
    /// Its name.
    pub name: String,
    /// Its addresses, gateways included.
    pub addresses: Vec<IpAddr>,
    /// IPv4 gateway of the pods.
    pub gateway_v4: Option<IpAddr>,
    /// IPv6 gateway of the pods.
    pub gateway_v6: Option<IpAddr>,
    /// Link-layer address of the gateway.
    pub gateway_mac: String,
    /// MTU of pods in bytes.
    pub pod_mtu: u16,
    /// Pod CIDRs as first and last address.
    pub pod_ranges: Vec<(IpAddr, IpAddr)>,
    /// Uplinks.
    pub uplinks: Vec<Uplink>,
    /// Both families are in use.
    pub dual_stack: bool,
}

/// An interface that leads to other nodes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Uplink {
    /// Its name.
    pub name: String,
    /// Its index.
    pub ifindex: u32,
    /// Its link-layer address.
    pub mac: String,
    /// Its MTU in bytes.
    pub mtu: u16,
}

/// A local pod that has an identity.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Endpoint {
    /// Its number.
    pub id: u16,
    /// Its host-side interface.
    pub interface: String,
    /// Index of that interface.
    pub ifindex: u32,
    /// Its link-layer address.
    pub mac: String,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
    /// Its identity.
    pub identity: u32,
    /// Position of its policy in [`State::policies`].
    pub policy: usize,
}

/// What pods may receive and send; a direction without rules list is not enforced.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Policy {
    /// Towards the pod.
    pub ingress: Option<Vec<Rule>>,
    /// From the pod.
    pub egress: Option<Vec<Rule>>,
}

/// One compiled rule.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Rule {
    /// Its number; [`Lexicon::rules`] says what it is called.
    pub rule: u32,
    /// It denies.
    pub deny: bool,
    /// Whom it is about; everybody if absent.
    pub peers: Option<Vec<u32>>,
    /// IP protocol number; every protocol if absent.
    pub protocol: Option<u8>,
    /// First and last port, or ICMP type.
    pub ports: (u16, u16),
}

/// What is known of an address or prefix.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Prefix {
    /// The address or prefix.
    pub prefix: IpNet,
    /// Who is behind it.
    pub identity: u32,
    /// The node it is on, if on another one.
    pub node: Option<IpAddr>,
}

/// A service frontend.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Service {
    /// Its number.
    pub id: u32,
    /// Virtual address.
    pub address: IpAddr,
    /// Port.
    pub port: u16,
    /// IP protocol number.
    pub protocol: u8,
    /// Where flows can be sent.
    pub backends: Vec<Backend>,
}

/// A backend of a service.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Backend {
    /// Its address.
    pub address: IpAddr,
    /// Its port.
    pub port: u16,
    /// Its part of the new flows, in proportion to the others'; 0: none.
    pub weight: u32,
}

/// Another node.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Hop {
    /// Its address.
    pub node: IpAddr,
    /// The way there, if it is known.
    pub way: Option<Way>,
}

/// How a node is reached.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Way {
    /// Position in [`Node::uplinks`].
    pub uplink: u8,
    /// Link-layer address that packets are sent to.
    pub mac: String,
    /// Largest packet in bytes.
    pub mtu: u16,
}

/// A connection, or the backend that a client of a service was given.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Flow {
    /// It remembers a backend: `to` is the frontend, `translated` the backend.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub service_entry: bool,
    /// Address and port of who opened it.
    pub from: (IpAddr, u16),
    /// Address and port of who answers, after translation.
    pub to: (IpAddr, u16),
    /// IP protocol number.
    pub protocol: u8,
    /// What the client had addressed, if that was translated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub translated: Option<(IpAddr, u16)>,
    /// Number of the service that translated it; 0 if none.
    #[serde(default)]
    pub service: u32,
    /// Identity of who opened it.
    pub source_identity: u32,
    /// Identity of who answers.
    pub destination_identity: u32,
    /// Policy generation that it was last allowed under.
    pub generation: u32,
    /// When it began, since boot.
    pub created: u32,
    /// When its last packet passed, since boot.
    pub last_seen: u32,
    /// Somebody answered.
    pub replied: bool,
    /// TCP flags seen from the opener, ORed.
    pub tcp_flags: u8,
    /// TCP flags seen from the answerer, ORed.
    pub reply_tcp_flags: u8,
}

#[cfg(test)]
mod tests;
