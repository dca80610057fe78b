//! `churn`: traffic while addresses, policies and backends change, how soon a change reaches packets,
//! and how soon the last packet of a revoked flow has passed.

mod arrivals;
mod changes;
pub(crate) mod effect;
mod revoke;

pub(crate) use arrivals::Stop;
pub(crate) use changes::paced;

use crate::net::echo::{self, Times};
use crate::net::requirements;
use crate::report::{Bound, Findings, Form, Goal, Plot, Row, Section, Series, Summary};
use crate::site::{LET_CLIENT_IN, Site};
use crate::store::{Store, address};
use crate::{Effort, Progress, Turns};
use changes::Made;
use effect::Effects;
use hdrhistogram::Histogram;
use std::time::Duration;

/// Turns are at least this long, so that they hold many changes of each kind.
const TURN: Duration = Duration::from_secs(2);
/// Changes of which the effect is timed, each way.
const EFFECTS: u32 = 20;
const QUICK_EFFECTS: u32 = 3;
/// Numbers of the identities between which an address changes: a friend of the server and a stranger.
const EFFECT_IDENTITIES: [u32; 2] = [2, 3];
/// Flows that are revoked at once.
const FLOWS: u32 = 100_000;
const QUICK_FLOWS: u32 = 10_000;
/// Room for them in the cache.
const ROOM: (&str, &str) = ("--offload-flows", "65536");
/// More than must be in the cache, as a few find no room.
const SURPLUS: f64 = 1.1;
/// What must be reached: milliseconds.
const REVOKED: f64 = 100.0;
const EFFECT_P99: f64 = 250.0;
const CHURN_P99: f64 = 10.0;

/// Measures everything.
///
/// # Errors
/// If something that it needs is missing, or no packet arrives.
pub fn run(effort: Effort, progress: &Progress) -> Result<Findings, String> {
    requirements::check()?;
    if !requirements::installed("etcd") {
        return Err("etcd is not installed: apt-get install etcd-server etcd-client".into());
    }
    progress.say("building two nodes with an etcd each");
    let ingress =
        format!("{LET_CLIENT_IN}\n- {{fromEndpoints: [{{matchLabels: {{app: {}}}}}]}}", effect::FRIEND);
    let site = |offload| {
        let flags = [("--offload", offload), ROOM];
        Site::new(&format!("offload {offload}"), &flags, true, &ingress)
    };
    let sites = [site("on")?, site("off")?];
    let stores = [Store::open(sites[0].world.cluster(1))?, Store::open(sites[1].world.cluster(1))?];
    let mut findings = traffic(&sites, &stores, effort, progress)?;
    findings.extend(effects(&sites[0], &stores[0], effort, progress)?);
    findings.extend(revocations(&sites[0], effort, progress)?);
    Ok(findings)
}

/// Requests of one flow, with and without changes.
fn traffic(
    sites: &[Site; 2],
    stores: &[Store<'_>; 2],
    effort: Effort,
    progress: &Progress,
) -> Result<Findings, String> {
    let variants = [(0, false), (0, true), (1, false), (1, true)];
    let name = |(site, churn): (usize, bool)| {
        format!("{}, {}", sites[site].arena.name, if churn { "churn" } else { "quiet" })
    };
    progress.expect(variants.len() as u64 * u64::from(effort.rounds()));
    let turn = effort.turn().max(TURN);
    let turns = Turns::take(effort.rounds(), &variants, progress, |&(site, churn)| {
        progress.say(format!("requests: {}", name((site, churn))));
        let requests = || echo::udp(&sites[site].arena, turn);
        match churn {
            false => requests().map(|times| (times, Made::default())),
            true => changes::during(&sites[site], &stores[site], requests),
        }
    })?;
    let mut section = Section::new(
        "Requests while everything changes",
        &[
            "one-byte UDP requests and answers between two pods of a node, one at a time",
            "churn: 1,000 ip -> identity changes a second in etcd, 100 policies and 100 backends a second in manifests",
            "etcd and the writers share the CPUs with pods and agent",
        ],
    );
    let mut goals = Vec::new();
    for (position, &variant) in variants.iter().enumerate() {
        let of = |quantity: fn(&(Times, Made)) -> f64| turns.summary(position, quantity);
        let mut row = Row::new("UDP request/response", name(variant))
            .value("p50", "us", of(|(times, _)| times.microseconds(0.5)))
            .value("p99", "us", of(|(times, _)| times.microseconds(0.99)))
            .value("max", "us", of(|(times, _)| times.microseconds(1.0)))
            .value("rate", "1/s", of(|(times, _)| times.rate))
            .value("lost", "", of(|(times, _)| times.lost as f64));
        if variant.1 {
            let lost: f64 = turns.of(position).iter().map(|(times, _)| times.lost as f64).sum();
            let p99 = of(|(times, _)| times.microseconds(0.99) / 1000.0);
            let name = name(variant);
            goals.push(Goal::new(
                format!("requests lost: {name}"),
                Bound::AtMost(0.0),
                Summary::of([lost]),
                "lost",
            ));
            goals.push(Goal::new(format!("requests, p99: {name}"), Bound::AtMost(CHURN_P99), p99, "ms"));
            row = row
                .value("addresses", "1/s", of(|(_, made)| made.addresses))
                .value("policies", "1/s", of(|(_, made)| made.policies))
                .value("backends", "1/s", of(|(_, made)| made.backends))
                .ratio(
                    "p50",
                    "quiet",
                    turns.ratio(position, position - 1, |(times, _)| times.microseconds(0.5)),
                )
                .ratio(
                    "p99",
                    "quiet",
                    turns.ratio(position, position - 1, |(times, _)| times.microseconds(0.99)),
                );
        }
        section.rows.push(row);
    }
    let series = variants.iter().enumerate().map(|(position, &variant)| {
        let mut all = Histogram::new(3).map_err(|error| error.to_string())?;
        for (times, _) in turns.of(position) {
            all.add(&times.nanoseconds).map_err(|error| error.to_string())?;
        }
        Ok(Series::percentiles(name(variant), &all, 1000.0))
    });
    section.plots.push(Plot {
        title: "Requests while everything changes".into(),
        form: Form::Percentiles,
        y_label: "us".into(),
        y_log: true,
        series: series.collect::<Result<_, String>>()?,
    });
    Ok(Findings { sections: vec![section], goals })
}

/// How soon changes reach packets.
fn effects(site: &Site, store: &Store<'_>, effort: Effort, progress: &Progress) -> Result<Findings, String> {
    let times = if effort.quick { QUICK_EFFECTS } else { EFFECTS };
    progress.say("from etcd to packets");
    effect::prepare(site);
    let identities = EFFECT_IDENTITIES.map(|number| store.identity(number));
    let labels = identities.iter().zip([effect::FRIEND, "stranger"]);
    store.put(labels.map(|(&identity, app)| store.labels(identity, app)).collect())?;
    let measure =
        || effect::measure(site, store, identities.map(|identity| address(effect::SOURCE, identity)), times);
    let quiet = measure()?;
    let (churn, _) = changes::during(site, store, measure)?;
    let mut section = Section::new(
        "From a change in etcd to packets",
        &[
            "from before the write of an address's identity until the first packet from it passes, or the last one",
            "offloaded flows from another host into a pod; --offload on",
        ],
    );
    let mut goals = Vec::new();
    for (variant, Effects { allowed, revoked }) in [("quiet", quiet), ("churn", churn)] {
        for (what, values) in [("allowed", allowed), ("revoked", revoked)] {
            let p99 = quantile(&values, 0.99);
            section.rows.push(
                Row::new(what, variant)
                    .value("p50", "ms", Summary::of([quantile(&values, 0.5)]))
                    .value("p99", "ms", Summary::of([p99]))
                    .value("all", "ms", Summary::of(values)),
            );
            let goal = format!("from etcd to packets, p99: {what}, {variant}");
            goals.push(Goal::new(goal, Bound::AtMost(EFFECT_P99), Summary::of([p99]), "ms"));
        }
    }
    Ok(Findings { sections: vec![section], goals })
}

/// The nearest of the values.
pub(crate) fn quantile(values: &[f64], quantile: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let rank = (quantile * sorted.len() as f64).ceil() as usize;
    sorted[rank.clamp(1, sorted.len()) - 1]
}

/// How soon revoked flows have stopped.
fn revocations(site: &Site, effort: Effort, progress: &Progress) -> Result<Findings, String> {
    let count = if effort.quick { QUICK_FLOWS } else { FLOWS };
    progress.expect(effort.rounds().into());
    progress.say(format!("opening {count} flows"));
    site.let_in(LET_CLIENT_IN);
    let flows = revoke::Flows::open(site, (f64::from(count) * SURPLUS) as u32)?;
    let mut all = Vec::new();
    for _ in 0..effort.rounds() {
        progress.say(format!("revoking {count} flows"));
        all.push(revoke::measure(site, &flows, count.into())?);
        progress.step();
    }
    let last = Summary::of(all.iter().map(|revoked| revoked.last));
    let mut section = Section::new(
        "Revoking all flows at once",
        &[
            "from the replacement of the policy's manifest until the last packet of a flow that it revokes: \
             reading and compiling the policy included",
            "UDP flows between two pods, all of them offloaded and all of them revoked; 16 of them are watched",
        ],
    );
    section.rows.push(
        Row::new("last packet", "offload on")
            .value("flows", "", Summary::of(all.iter().map(|revoked| revoked.flows as f64)))
            .value("after", "ms", last),
    );
    // It is a bound: the slowest counts.
    let slowest = Summary::of([last.max]);
    let goal =
        Goal::new(format!("last packet of {count} revoked flows"), Bound::AtMost(REVOKED), slowest, "ms");
    Ok(Findings { sections: vec![section], goals: vec![goal] })
}
