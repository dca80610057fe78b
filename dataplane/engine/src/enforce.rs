//! Policy: may these two talk?

use crate::report::Report;
use crate::{Context, DropReason, Refusal, Sink, identify};
use tables::{Decision, Direction, Endpoint, Match};
use wire::{Identity, Protocol, Tuple};

/// Sender's and receiver's identity.
pub(crate) type Identities = (Identity, Identity);

/// Asks the sender's egress policy and the receiver's ingress policy about a flow with this tuple
/// (after translation), as far as they are local pods. Verdicts are reported for `new` flows and
/// for refusals.
pub(crate) fn enforce<S: Sink>(
    ctx: &Context<'_>,
    report: &mut Report<'_, S>,
    tuple: &Tuple,
    new: bool,
) -> Result<Identities, Refusal> {
    let Some(sender) = report.sender else { return Err(DropReason::UnknownOrigin.into()) };
    let src = identify::sender(ctx, &sender, tuple.src);
    let dst = identify::receiver(ctx, tuple.dst);
    if let Some(endpoint) = sender.pod() {
        ask(report, endpoint, Direction::Egress, dst, tuple, new)?;
    }
    if let Some(endpoint) = ctx.tables.endpoints.by_address(tuple.dst) {
        ask(report, endpoint, Direction::Ingress, src, tuple, new)?;
    }
    Ok((src, dst))
}

fn ask<S: Sink>(
    report: &mut Report<'_, S>,
    endpoint: &Endpoint,
    direction: Direction,
    peer: Identity,
    tuple: &Tuple,
    new: bool,
) -> Result<(), Refusal> {
    let mut decision = endpoint.policy.decide(direction, peer, tuple.proto, policy_port(tuple));
    // The node may always reach its pods unless a rule denies it (`cilium-interop` 5.8).
    if (decision, direction, peer) == (Decision::DefaultDeny, Direction::Ingress, Identity::HOST) {
        decision = Decision::Allow { rule: None, matched: Match::L3Only };
    }
    let (allowed, rule, matched) = match decision {
        Decision::Allow { rule, matched } => (true, rule, matched),
        Decision::Deny { rule, matched } => (false, Some(rule), matched),
        Decision::DefaultDeny => (false, None, Match::None),
    };
    if (new || !allowed) && endpoint.policy.enforced(direction) {
        report.verdict(direction, allowed, rule, matched);
    }
    let reason = match decision {
        Decision::Allow { .. } => return Ok(()),
        Decision::Deny { .. } => DropReason::PolicyDeniedByRule,
        Decision::DefaultDeny => DropReason::PolicyDenied,
    };
    Err(Refusal { rule, direction: Some(direction), ..reason.into() })
}

/// What a policy's port is compared with. Flows of ICMP always start with an echo request.
fn policy_port(tuple: &Tuple) -> u16 {
    match tuple.proto {
        Protocol::ICMP => 8,
        Protocol::ICMPV6 => 128,
        _ => tuple.dport,
    }
}
