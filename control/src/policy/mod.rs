//! Network policies of all kinds in one model (`cilium-interop` 5).
//!
//! `cilium` and `kubernetes` translate what people write; scoping to namespace and cluster is done
//! there, once. What is left is plain: whom a rule is about, which peers, which ports.

pub mod cidr;
pub mod cilium;
pub mod kubernetes;
pub mod ports;
pub mod selector;

use crate::labels::Labels;
use ipnet::IpNet;
use ports::PortRule;
use selector::Selector;
use std::fmt;
use std::sync::Arc;
use tables::Direction;

/// Which kind of object a policy was written as.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum PolicyKind {
    /// `networking.k8s.io/v1` NetworkPolicy.
    Kubernetes,
    /// `cilium.io/v2` CiliumNetworkPolicy.
    Cilium,
    /// `cilium.io/v2` CiliumClusterwideNetworkPolicy.
    CiliumClusterwide,
}

impl PolicyKind {
    /// The name of the kind in a manifest.
    pub const fn name(self) -> &'static str {
        match self {
            PolicyKind::Kubernetes => "NetworkPolicy",
            PolicyKind::Cilium => "CiliumNetworkPolicy",
            PolicyKind::CiliumClusterwide => "CiliumClusterwideNetworkPolicy",
        }
    }
}

/// One policy object.
#[derive(Clone, PartialEq, Debug)]
pub struct PolicyObject {
    /// Its kind.
    pub kind: PolicyKind,
    /// Namespace; empty if cluster-wide.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// What it says.
    pub rules: Vec<Rule>,
    /// `spec` (and `specs`) as given, for display.
    pub spec: serde_json::Value,
}

/// Everything one `spec` says about the pods it selects.
#[derive(Clone, PartialEq, Debug)]
pub struct Rule {
    /// The pods it is about.
    pub subject: Selector,
    /// It puts them into default deny for ingress.
    pub denies_ingress: bool,
    /// It puts them into default deny for egress.
    pub denies_egress: bool,
    /// Who may or must not talk to them, or they to whom.
    pub entries: Vec<Entry>,
}

impl Rule {
    /// Whether it puts its subjects into default deny.
    pub fn default_deny(&self, direction: Direction) -> bool {
        match direction {
            Direction::Ingress => self.denies_ingress,
            Direction::Egress => self.denies_egress,
        }
    }
}

/// One element of `ingress`, `ingressDeny`, `egress` or `egressDeny`.
#[derive(Clone, PartialEq, Debug)]
pub struct Entry {
    /// The list it stands in.
    pub section: Section,
    /// Its position there, from 0.
    pub index: usize,
    /// The other side.
    pub peers: Peers,
    /// Protocols and ports; `None` for all.
    pub ports: Option<Vec<PortRule>>,
}

/// The lists of a rule.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Section {
    /// Allowed peers.
    Ingress,
    /// Denied peers.
    IngressDeny,
    /// Allowed peers.
    Egress,
    /// Denied peers.
    EgressDeny,
}

impl Section {
    /// The direction, as seen from the subject.
    pub fn direction(self) -> Direction {
        match self {
            Section::Ingress | Section::IngressDeny => Direction::Ingress,
            Section::Egress | Section::EgressDeny => Direction::Egress,
        }
    }

    /// Whether what it matches is denied.
    pub fn is_deny(self) -> bool {
        matches!(self, Section::IngressDeny | Section::EgressDeny)
    }
}

impl fmt::Display for Section {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Section::Ingress => "ingress",
            Section::IngressDeny => "ingressDeny",
            Section::Egress => "egress",
            Section::EgressDeny => "egressDeny",
        })
    }
}

/// The other side of an entry.
#[derive(Clone, PartialEq, Debug)]
pub enum Peers {
    /// Anyone, world included.
    Any,
    /// Those that at least one of these matches.
    Selected(Vec<Arc<Peer>>),
}

/// One way to name peers.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Peer {
    /// By labels.
    Labels(Selector),
    /// By address; never matches pods or nodes (5.4).
    Cidr {
        /// Inside this prefix …
        net: IpNet,
        /// … and outside these.
        except: Vec<IpNet>,
    },
}

impl Peer {
    /// Whether it can match a pod.
    pub fn is_about_pods(&self) -> bool {
        matches!(self, Peer::Labels(selector) if selector.is_about_pods())
    }

    /// Whether it matches an identity with these labels.
    pub fn matches(&self, labels: &Labels) -> bool {
        match self {
            Peer::Labels(selector) => selector.matches(labels),
            Peer::Cidr { net, except } => {
                cidr::within(*net, labels) && !except.iter().any(|net| cidr::within(*net, labels))
            }
        }
    }
}
