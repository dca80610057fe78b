//! Policy: may these two talk?

use crate::report::Report;
use crate::{Context, DropReason, Refusal, Sink, admit::Sender, identify};
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
    let (identities, questions) = questions(ctx, &sender, tuple);
    for question in questions.iter().flatten() {
        ask(report, question, tuple, new)?;
    }
    Ok(identities)
}

/// What [`enforce`] comes to about a flow that is not new. Tells nobody.
pub(crate) fn allows(ctx: &Context<'_>, sender: &Sender<'_>, tuple: &Tuple) -> Result<(), Refusal> {
    let (_, questions) = questions(ctx, sender, tuple);
    let mut decisions = questions.iter().flatten().map(|question| question.decide(tuple));
    decisions.try_for_each(refusal)
}

/// What is asked of one endpoint's policy.
struct Question<'a> {
    endpoint: &'a Endpoint,
    direction: Direction,
    peer: Identity,
}

/// Who the two are, and what is to be asked about them.
fn questions<'a>(
    ctx: &Context<'a>,
    sender: &Sender<'a>,
    tuple: &Tuple,
) -> (Identities, [Option<Question<'a>>; 2]) {
    let src = identify::sender(ctx, sender, tuple.src);
    let dst = identify::receiver(ctx, tuple.dst);
    let question = |direction, peer| move |endpoint| Question { endpoint, direction, peer };
    let egress = sender.pod().map(question(Direction::Egress, dst));
    let ingress = ctx.tables.endpoints.by_address(tuple.dst).map(question(Direction::Ingress, src));
    ((src, dst), [egress, ingress])
}

impl Question<'_> {
    fn decide(&self, tuple: &Tuple) -> Decision {
        let decision =
            self.endpoint.policy.decide(self.direction, self.peer, tuple.proto, policy_port(tuple));
        // The node may always reach its pods unless a rule denies it (`cilium-interop` 5.8).
        match (decision, self.direction, self.peer) {
            (Decision::DefaultDeny, Direction::Ingress, Identity::HOST) => {
                Decision::Allow { rule: None, matched: Match::L3Only }
            }
            _ => decision,
        }
    }
}

fn refusal(decision: Decision) -> Result<(), Refusal> {
    match decision {
        Decision::Allow { .. } => Ok(()),
        Decision::Deny { rule, .. } => {
            Err(Refusal { rule: Some(rule), ..DropReason::PolicyDeniedByRule.into() })
        }
        Decision::DefaultDeny => Err(DropReason::PolicyDenied.into()),
    }
}

fn ask<S: Sink>(
    report: &mut Report<'_, S>,
    question: &Question<'_>,
    tuple: &Tuple,
    new: bool,
) -> Result<(), Refusal> {
    let decision = question.decide(tuple);
    let (allowed, rule, matched) = match decision {
        Decision::Allow { rule, matched } => (true, rule, matched),
        Decision::Deny { rule, matched } => (false, Some(rule), matched),
        Decision::DefaultDeny => (false, None, Match::None),
    };
    let direction = question.direction;
    if (new || !allowed) && question.endpoint.policy.enforced(direction) {
        report.verdict(direction, allowed, rule, matched);
    }
    refusal(decision).map_err(|refusal| Refusal { direction: Some(direction), ..refusal })
}

/// What a policy's port is compared with. Flows of ICMP always start with an echo request.
fn policy_port(tuple: &Tuple) -> u16 {
    match tuple.proto {
        Protocol::ICMP => 8,
        Protocol::ICMPV6 => 128,
        _ => tuple.dport,
    }
}
