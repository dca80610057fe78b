//! What the monitor hears of.

use crate::DropReason;
use tables::{Direction, Match, RuleId};
use wire::{Identity, Tuple};

/// Receives events. Must not block: a full receiver counts and forgets.
pub trait Sink {
    /// Takes one event.
    fn event(&mut self, event: &Event);
}

/// Which optional events somebody listens to.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Interest {
    /// Trace events: when a flow begins, is answered and ends, and for ICMP errors about it.
    pub trace: bool,
    /// Policy verdicts: of new flows in enforced directions, and of every refusal.
    pub verdict: bool,
}

/// Bytes of the packet an event carries, from the Ethernet header on.
pub const SNAP: usize = 128;

/// One thing that happened to one packet.
#[derive(Clone, Copy, Debug)]
pub struct Event {
    /// What happened.
    pub kind: EventKind,
    /// The tuple as received (before translation); default if the packet has none.
    pub tuple: Tuple,
    /// Identity of the sender; unknown if not determined.
    pub src_identity: Identity,
    /// Identity of the receiver; unknown if not determined.
    pub dst_identity: Identity,
    /// Endpoint number of the sender if it is a local pod, else 0.
    pub src_endpoint: u16,
    /// Endpoint number of the receiver if it is a local pod, else 0.
    pub dst_endpoint: u16,
    /// Which direction of the endpoint concerned.
    pub direction: Direction,
    /// 32-bit flow hash.
    pub hash: u32,
    /// Host-side interface index it was received on; 0 for uplinks and the host.
    pub ifindex: u32,
    /// Tuple after service translation, if translated.
    pub translated: Option<Tuple>,
    /// Frame length as received.
    pub length: u32,
    /// Bytes of `snap` in use.
    pub captured: u8,
    /// Start of the frame as received.
    pub snap: [u8; SNAP],
}

/// What happened.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum EventKind {
    /// Dropped, with the deny rule if one decided.
    Drop {
        /// Why.
        reason: DropReason,
        /// The rule, for [`DropReason::PolicyDeniedByRule`].
        rule: Option<RuleId>,
    },
    /// Forwarded.
    Trace {
        /// Where it went.
        point: TracePoint,
        /// How conntrack saw it.
        state: TraceState,
    },
    /// Policy was asked about a new flow.
    Verdict {
        /// Allowed?
        allowed: bool,
        /// The deciding rule.
        rule: Option<RuleId>,
        /// How specific it was.
        matched: Match,
    },
}

/// Cilium's observation points that exist here.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TracePoint {
    /// Delivered to a local pod.
    ToEndpoint,
    /// Handed to the host's stack for the host itself.
    ToHost,
    /// Handed to the host's stack to be routed.
    ToStack,
    /// Sent out of an uplink.
    ToNetwork,
}

/// Cilium's trace states that exist here.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TraceState {
    /// First packet.
    New,
    /// Original direction of a known flow.
    Established,
    /// Reply direction.
    Reply,
    /// ICMP error about a known flow.
    Related,
}
