//! What is written after what.

/// Groups of keys in the order in which they are written: readers must find an identity before
/// the addresses that have it, and a canary after everything.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::mesh) enum Stage {
    ClusterConfig,
    Node,
    IdentityUse,
    Ip,
    Service,
    Canary,
    Heartbeat,
}

impl Stage {
    pub(super) const ALL: [Stage; 7] = [
        Stage::ClusterConfig,
        Stage::Node,
        Stage::IdentityUse,
        Stage::Ip,
        Stage::Service,
        Stage::Canary,
        Stage::Heartbeat,
    ];

    /// Only the leader writes it.
    pub(in crate::mesh) fn of_cluster(self) -> bool {
        matches!(self, Stage::ClusterConfig | Stage::Service | Stage::Canary | Stage::Heartbeat)
    }

    /// What is there is observed; otherwise only what we wrote is known.
    pub(super) fn observed(self) -> bool {
        !matches!(self, Stage::IdentityUse | Stage::Heartbeat)
    }

    /// Keys that are ours but not wanted are deleted; the others end with their lease.
    pub(super) fn sweeps(self) -> bool {
        matches!(self, Stage::IdentityUse | Stage::Ip | Stage::Service)
    }

    /// Other nodes may claim the same key: whoever has it first keeps it until it goes.
    pub(super) fn contended(self) -> bool {
        self == Stage::Ip
    }
}
