//! An event with everything resolved, as it goes to listeners. JSON names are those of Cilium's
//! monitor, `why` and what names clusters and services are ours.

use super::summary::Summary;
use serde::{Deserialize, Serialize};

/// One line of the monitor.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "kebab-case")]
pub enum Record {
    /// A packet was dropped.
    Drop(Drop),
    /// A packet was forwarded.
    Trace(Trace),
    /// Policy was asked about a new flow.
    PolicyVerdict(Verdict),
    /// Events were lost on their way to this listener.
    Lost(Lost),
}

/// What is known of any packet.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Packet {
    /// Worker that saw it, `CPU 02:`.
    pub cpu: String,
    /// Flow hash, `0x5c6fa2d1`.
    pub mark: String,
    /// Local endpoint that sent it, or 0.
    pub source: u16,
    /// Local endpoint that it goes to, or 0.
    #[serde(rename = "dstID")]
    pub dst_id: u16,
    /// Length of the frame.
    pub bytes: u32,
    /// Identity of the sender.
    #[serde(rename = "srcLabel")]
    pub src_label: u32,
    /// Identity of the receiver.
    #[serde(rename = "dstLabel")]
    pub dst_label: u32,
    /// Cluster that the sender's identity is from.
    #[serde(rename = "srcCluster", skip_serializing_if = "Option::is_none")]
    pub src_cluster: Option<String>,
    /// Cluster that the receiver's identity is from.
    #[serde(rename = "dstCluster", skip_serializing_if = "Option::is_none")]
    pub dst_cluster: Option<String>,
    /// Interface it was received on, or its number; `0` for uplinks and the host.
    pub ifindex: String,
    /// Service frontend that was addressed, `10.96.0.10:6379`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    /// Addresses (after service translation), ports and flags.
    pub summary: Summary,
}

/// A dropped packet.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Drop {
    /// The packet.
    #[serde(flatten)]
    pub packet: Packet,
    /// Cilium's text.
    pub reason: String,
    /// Cilium's number.
    #[serde(rename = "reasonCode")]
    pub code: u8,
    /// `ingress` or `egress`, as seen from the endpoint concerned.
    pub direction: String,
    /// What decided it, in words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}

/// A forwarded packet.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Trace {
    /// The packet.
    #[serde(flatten)]
    pub packet: Packet,
    /// `new`, `established`, `reply` or `related`.
    pub state: String,
    /// `to-endpoint`, `to-host`, `to-stack` or `to-network`.
    #[serde(rename = "observationPoint")]
    pub point: String,
    /// Where it went, as the text form begins.
    #[serde(rename = "traceSummary")]
    pub summary: String,
    /// Source address before source translation; unspecified if there was none.
    #[serde(rename = "origIP")]
    pub orig_ip: String,
}

/// A policy verdict.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Verdict {
    /// The packet.
    #[serde(flatten)]
    pub packet: Packet,
    /// Endpoint whose policy was asked.
    pub endpoint: u16,
    /// Identity of the other side.
    pub remote: u32,
    /// IP protocol number.
    pub proto: u8,
    /// `ingress` or `egress`.
    pub direction: String,
    /// `allow` or `deny`.
    pub action: String,
    /// `none`, `L3-Only`, `L3-L4`, `L4-Only`, `all`, `L3-Proto` or `Proto-Only`.
    #[serde(rename = "match")]
    pub matched: String,
    /// The rule that decided it, in words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}

/// Events that did not reach this listener.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Lost {
    /// The worker whose queue was full, `CPU 02:`; none if this listener reads too slowly.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu: Option<String>,
    /// How many.
    pub count: u64,
}
