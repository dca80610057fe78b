//! Why a stage does not let a packet on.

use crate::{DropReason, unreachable::Message};
use tables::{Direction, RuleId};
use wire::Malformed;

/// A drop and what belongs to it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Refusal {
    pub(crate) reason: DropReason,
    /// The side of an endpoint it happened on, if not the one the sender implies.
    pub(crate) direction: Option<Direction>,
    /// The rule that decided.
    pub(crate) rule: Option<RuleId>,
    /// What the sender is told.
    pub(crate) answer: Option<Message>,
    /// Newer tables may decide otherwise, and the caller can wait for them.
    pub(crate) hold: bool,
}

impl From<DropReason> for Refusal {
    fn from(reason: DropReason) -> Self {
        Refusal { reason, direction: None, rule: None, answer: None, hold: false }
    }
}

impl From<Malformed> for Refusal {
    fn from(malformed: Malformed) -> Self {
        DropReason::from(malformed).into()
    }
}
