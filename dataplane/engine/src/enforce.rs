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
    let somebody_unknown = identities.0 == Identity::UNKNOWN || identities.1 == Identity::UNKNOWN;
    // The other fragments of a datagram would not find the first one while it waits.
    let whole = report.packet.is_some_and(|packet| packet.fragment.is_none());
    if somebody_unknown && new && whole && ctx.may_hold {
        hold(&questions, tuple)?;
    }
    for question in questions.iter().flatten() {
        ask(report, question, tuple, new)?;
    }
    Ok(identities)
}

/// Refuses for now, and tells nobody, what would be refused because somebody is not known yet.
fn hold(questions: &[Option<Question<'_>>], tuple: &Tuple) -> Result<(), Refusal> {
    let mut answers = questions.iter().flatten().map(|question| question.answer(tuple));
    match answers.find_map(Result::err) {
        Some(refusal) if refusal.reason == DropReason::UnknownIdentity => {
            Err(Refusal { hold: true, ..refusal })
        }
        _ => Ok(()),
    }
}

/// What [`enforce`] comes to about a flow that is not new. Tells nobody.
pub(crate) fn allows(ctx: &Context<'_>, sender: &Sender<'_>, tuple: &Tuple) -> Result<(), Refusal> {
    let (_, questions) = questions(ctx, sender, tuple);
    questions.iter().flatten().try_for_each(|question| question.answer(tuple))
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

    fn answer(&self, tuple: &Tuple) -> Result<(), Refusal> {
        self.refusal(self.decide(tuple))
    }

    /// What a decision means for the packet. Who is not known may be anybody: only a rule about
    /// everybody is certain to be about them.
    fn refusal(&self, decision: Decision) -> Result<(), Refusal> {
        let reason = match decision {
            Decision::Allow { .. } => return Ok(()),
            Decision::Deny { rule, matched } if self.peer != Identity::UNKNOWN || is_about_all(matched) => {
                return Err(Refusal { rule: Some(rule), ..DropReason::PolicyDeniedByRule.into() });
            }
            _ if self.peer == Identity::UNKNOWN => DropReason::UnknownIdentity,
            _ => DropReason::PolicyDenied,
        };
        Err(reason.into())
    }
}

/// Whether a rule that matched so is about any peer.
fn is_about_all(matched: Match) -> bool {
    matches!(matched, Match::All | Match::ProtoOnly | Match::L4Only)
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
    question.refusal(decision).map_err(|refusal| Refusal { direction: Some(direction), ..refusal })
}

/// What a policy's port is compared with. Flows of ICMP always start with an echo request.
fn policy_port(tuple: &Tuple) -> u16 {
    match tuple.proto {
        Protocol::ICMP => 8,
        Protocol::ICMPV6 => 128,
        _ => tuple.dport,
    }
}
