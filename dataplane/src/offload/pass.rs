//! One pass over all verdicts.

use super::Offload;
use crate::worker::{coarse_clock, now};
use engine::Context;
use engine::event::Interest;
use flow::{Count, Seconds};
use tables::{Difference, Direction, Snapshot};
use verdicts::{Exit, Nanoseconds, Retired, Usage, Verdict};
use wire::Protocol;
use wire::parse::tcp;

/// Bytes of an Ethernet header: other counters are of frames, verdicts count from the IP header on.
const ETHERNET: u64 = 14;

/// What became of cached verdicts so far.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Totals {
    /// Frames that they delivered to pods.
    pub ingress: Count,
    /// Frames of pods that they forwarded.
    pub egress: Count,
    /// Packets that they forwarded, whatever their direction.
    pub packets: u64,
    /// Bytes of these from the IP header on.
    pub bytes: u64,
    /// Taken back because nothing was forwarded for their lifetime.
    pub expired: u64,
    /// Taken back because their flow is gone.
    pub orphaned: u64,
    /// Taken back because the tables have changed.
    pub revoked: u64,
}

impl Totals {
    /// Frames forwarded in this direction, as seen from pods of this node.
    pub fn forwarded(&self, direction: Direction) -> Count {
        match direction {
            Direction::Ingress => self.ingress,
            Direction::Egress => self.egress,
        }
    }
}

/// Tables and clocks as they were when the pass began.
#[derive(Debug)]
pub(super) struct Pass<'a> {
    context: Context<'a>,
}

impl<'a> Pass<'a> {
    pub(super) fn new(offload: &Offload, tables: &'a Snapshot) -> Pass<'a> {
        let context = Context {
            tables,
            flows: offload.flows,
            verdicts: offload.verdicts,
            cache_after: 0,
            now: now(),
            clock: coarse_clock(),
            interest: Interest::default(),
            may_hold: false,
        };
        Pass { context }
    }

    /// Accounts every verdict, and takes back those that have expired or whose flow is gone. The flows
    /// of those that were not used since the last pass are looked at only if `unused` says so.
    pub(super) fn account(&self, unused: bool, totals: &mut Totals) {
        let Context { verdicts, clock, .. } = self.context;
        verdicts.account(|usage| {
            let cause = if (unused || usage.packets > 0) && !self.add(usage, totals) {
                &mut totals.orphaned
            } else if clock.saturating_sub(usage.last_used) >= usage.verdict.lifetime {
                &mut totals.expired
            } else {
                return;
            };
            *cause += u64::from(verdicts.take_back(usage.id()));
        });
    }

    /// Takes back verdicts that the pipeline would not give any more. Those that were right under
    /// the tables `before` are asked about only if they rest on something that has changed since.
    /// Returns how many.
    pub(super) fn revalidate(&self, before: Option<&Snapshot>) -> usize {
        let Context { verdicts, tables, .. } = self.context;
        let difference = before.map(|before| (before.generation, Difference::between(before, tables)));
        let concerned = |verdict: &Verdict| {
            difference.as_ref().is_none_or(|(generation, difference)| {
                verdict.generation != *generation || concerns(difference, verdict)
            })
        };
        let ahead = |some: &[Verdict]| engine::read_ahead(&self.context, some);
        let holds = |verdict: &Verdict| engine::confirm(&self.context, verdict);
        verdicts.revalidate(tables.generation, concerned, ahead, holds).revoked
    }

    /// Accounts the rest of verdicts that were taken back, and empties their slots.
    pub(super) fn recycle(&self, retired: Retired, totals: &mut Totals) {
        self.context.verdicts.recycle(retired, |usage| {
            self.add(usage, totals);
        });
    }

    /// Adds a verdict's packets to its flow and to the totals; false if the flow is gone.
    fn add(&self, usage: &Usage, totals: &mut Totals) -> bool {
        let &Usage { ref verdict, packets, bytes, last_used, .. } = usage;
        let frames = Count { packets, bytes: bytes + packets * ETHERNET };
        totals.packets += packets;
        totals.bytes += bytes;
        let uplinks = &self.context.tables.node.uplinks;
        if !uplinks.iter().any(|uplink| uplink.ifindex == verdict.key.ifindex) {
            add(&mut totals.egress, frames);
        }
        if let Exit::Pod { .. } = verdict.exit {
            add(&mut totals.ingress, frames);
        }
        let flags = if verdict.key.tuple.proto == Protocol::TCP { tcp::ACK } else { 0 };
        let seen = seconds(last_used, self.context.clock, self.context.now);
        self.context.flows.add(verdict.flow, verdict.side, flags, Count { packets, bytes }, seen)
    }
}

/// Whether a verdict rests on something that differs.
fn concerns(difference: &Difference, verdict: &Verdict) -> bool {
    let &Verdict { ref key, ref tuple, exit, .. } = verdict;
    let (Exit::Pod { ifindex } | Exit::Uplink { ifindex, .. }) = exit;
    difference.concerns(&[key.ifindex, ifindex], &[key.tuple.src, key.tuple.dst, tuple.src, tuple.dst])
}

fn add(count: &mut Count, more: Count) {
    count.packets += more.packets;
    count.bytes += more.bytes;
}

/// An instant of the cache's clock as one of conntrack's, given what both show now.
fn seconds(then: Nanoseconds, clock: Nanoseconds, now: Seconds) -> Seconds {
    now.wrapping_sub((clock.saturating_sub(then) / 1_000_000_000) as Seconds)
}
