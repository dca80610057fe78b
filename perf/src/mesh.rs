//! `mesh`: many remote clusters. How soon all of them are in the tables, what that takes, whether pods
//! that talk notice, and how soon later changes reach packets.

mod fleet;
mod join;

use crate::churn::{self, Stop, effect};
use crate::net::echo::Times;
use crate::net::requirements;
use crate::report::{Bound, Findings, Goal, Row, Section, Summary};
use crate::site::{LET_CLIENT_IN, Site};
use crate::store::{MOST, Store};
use crate::{Effort, Progress};
use fleet::Remote;
use join::{Joined, join, while_talking};
use std::panic::resume_unwind;
use std::sync::atomic::AtomicBool;
use std::thread;
use std::time::Duration;
use tests::wait::pause;

/// Clusters that join at once, one step after the other.
const STEPS: [u32; 2] = [10, 90];
/// Changes of which the effect is timed, each way.
const EFFECTS: u32 = 100;
const QUICK_EFFECTS: u32 = 10;
/// Changes a second beside them.
const EFFECT_RATE: f64 = 100.0;
/// Changes a second under which the agent's CPU time is looked at, and for how long.
const CHANGES: f64 = 1000.0;
const WATCHED: Duration = Duration::from_secs(10);
/// Changes written in one transaction.
const BATCH: u32 = 20;
/// How long pods talk before anything joins.
const QUIET: Duration = Duration::from_secs(2);
/// Identities that the probed address has in turns: numbers that the clusters do not use.
const IDENTITIES: [u32; 2] = [20_000, 20_001];
/// What must be reached.
const SECONDS: f64 = 3.0;
const BYTES: f64 = 300.0;
const EFFECT_P99: f64 = 50.0;
const MIB: f64 = 1_048_576.0;

/// Measures everything.
///
/// # Errors
/// If something that it needs is missing, or a cluster never gets ready.
pub fn run(effort: Effort, progress: &Progress) -> Result<Findings, String> {
    requirements::check()?;
    let steps = if effort.quick { &STEPS[..1] } else { &STEPS[..] };
    let mut findings = Findings::default();
    for offload in ["off", "on"] {
        // The larger mesh once: what it costs does not depend on how packets go.
        let steps = if offload == "off" { &STEPS[..1] } else { steps };
        findings.extend(mesh(offload, steps, effort, progress)?);
    }
    Ok(findings)
}

/// One node whose mesh grows in steps.
fn mesh(offload: &str, steps: &[u32], effort: Effort, progress: &Progress) -> Result<Findings, String> {
    progress.say("building a node with an etcd");
    let probed = Remote::first();
    let friend = format!(
        "- {{fromEndpoints: [{{matchLabels: {{app: {}, io.cilium.k8s.policy.cluster: {}, \
         io.kubernetes.pod.namespace: {}}}}}]}}",
        effect::FRIEND,
        probed.name(),
        fleet::namespace(IDENTITIES[0])
    );
    let name = format!("offload {offload}");
    let site = Site::new(&name, &[("--offload", offload)], true, &format!("{LET_CLIENT_IN}\n{friend}"))?;
    let store = Store::open(site.world.cluster(1))?;
    let mut joins = section(
        "Clusters that join a mesh",
        &[
            "from the configurations of that many remote clusters until all that they have is in the tables; each has 10,000 \
         addresses (a quarter with a named port), 1,000 identities of 5 labels and 10 nodes; one etcd holds all of \
         them, as kvstoremesh's does, and shares the CPUs with agent and pods",
            "memory: what the agent has resident, once it has rested, more than before the first one joined, by address: everything \
         included",
            "requests: one-byte UDP requests and answers between two pods of the node, meanwhile",
        ],
    );
    let (_, quiet) = while_talking(&site, || {
        wait(QUIET);
        Ok(())
    })?;
    joins.rows.push(talk(Row::new("before", &name), &quiet));
    let (mut goals, mut known, mut empty) = (Vec::new(), 0, None);
    for &step in steps {
        progress.say(format!("writing {step} clusters to etcd"));
        for remote in fleet::remotes(known..known + step) {
            store.put(remote.records())?;
        }
        progress.say(format!("{step} clusters join, {name}"));
        let joined = join(&site, &store, fleet::remotes(known..known + step), known)?;
        known += step;
        let addresses = f64::from(known * fleet::ADDRESSES);
        let bytes = (joined.resident[1] - *empty.get_or_insert(joined.resident[0])) / addresses;
        joins.rows.push(row(&name, step, bytes, &joined));
        if step == STEPS[0] {
            goals.push(goal(
                format!("100,000 addresses of 10 clusters in the tables, {name}"),
                SECONDS,
                joined.seconds,
                "s",
            ));
        }
        if step == STEPS[steps.len() - 1] {
            goals.push(goal(
                format!("memory by address of a mesh of {addresses}, {name}"),
                BYTES,
                bytes,
                "B",
            ));
        }
        goals.push(goal(
            format!("requests lost while {step} clusters join, {name}"),
            0.0,
            joined.times.lost as f64,
            "lost",
        ));
    }
    let mut findings = Findings { sections: vec![joins], goals };
    findings.extend(changes(&site, &store, (&name, known), effort, progress)?);
    Ok(findings)
}

/// What changes of addresses cost, and how soon they reach packets.
fn changes(
    site: &Site,
    store: &Store<'_>,
    (name, clusters): (&str, u32),
    effort: Effort,
    progress: &Progress,
) -> Result<Findings, String> {
    progress.say(format!("{CHANGES} changes a second, {name}"));
    let ((cpus, times), rate) =
        changing(store, clusters, CHANGES, || while_talking(site, || site.cpus(WATCHED)))?;
    let addresses = clusters * fleet::ADDRESSES;
    let mut load = section(
        "Changes in a mesh",
        &["addresses of all clusters change their identities in etcd; requests as above, meanwhile"],
    );
    load.rows.push(talk(
        Row::new(format!("{addresses} addresses"), name).value("changes", "1/s", Summary::of([rate])).value(
            "agent",
            "% of a CPU",
            Summary::of([cpus * 100.0]),
        ),
        &times,
    ));
    progress.say(format!("from etcd to packets, {name}"));
    effect::prepare(site);
    let probed = Remote::first();
    let [friend, stranger] = IDENTITIES;
    store.put(vec![probed.identity(friend, effect::FRIEND), probed.identity(stranger, "stranger")])?;
    let times = if effort.quick { QUICK_EFFECTS } else { EFFECTS };
    let records = IDENTITIES.map(|identity| probed.pod(effect::SOURCE, 0, identity, false));
    let (effects, rate) =
        changing(store, clusters, EFFECT_RATE, || effect::measure(site, store, records, times))?;
    let mut reach = section(
        "From a change in a mesh to packets",
        &[
            "from before the write of the identity of a remote cluster's address to etcd until the first packet from it \
         passes, or the last one, beside 100 changes a second of others",
        ],
    );
    let mut goals = Vec::new();
    for (what, values) in [("allowed", effects.allowed), ("revoked", effects.revoked)] {
        let [p50, p99] = [0.5, 0.99].map(|quantile| churn::quantile(&values, quantile));
        reach.rows.push(
            Row::new(format!("{what}, {addresses} addresses"), name)
                .value("p50", "ms", Summary::of([p50]))
                .value("p99", "ms", Summary::of([p99]))
                .value("all", "ms", Summary::of(values))
                .value("changes", "1/s", Summary::of([rate])),
        );
        let what = format!("from etcd to packets, p99: {what}, {addresses} addresses, {name}");
        goals.push(goal(what, EFFECT_P99, p99, "ms"));
    }
    Ok(Findings { sections: vec![load, reach], goals })
}

/// Does something while addresses of all clusters change at a rate; tells the one that was reached.
fn changing<T>(
    store: &Store<'_>,
    clusters: u32,
    rate: f64,
    work: impl FnOnce() -> Result<T, String>,
) -> Result<(T, f64), String> {
    const { assert!(BATCH as usize <= MOST) };
    let stop = &AtomicBool::new(false);
    thread::scope(|scope| {
        let changes = scope.spawn(move || {
            store.etcd().host.enter(|| {
                churn::paced(rate / f64::from(BATCH), stop, |turn| {
                    let remote = Remote::number(turn % clusters);
                    let addresses = (0..BATCH).map(|n| (turn / clusters * BATCH + n) % fleet::ADDRESSES);
                    store.put_from_here(addresses.map(|n| remote.address(n, (turn + n) % 1000)).collect())
                })
            })
        });
        let stopped = Stop(stop);
        let worked = work();
        drop(stopped);
        let rate = changes.join().unwrap_or_else(|panic| resume_unwind(panic))? * f64::from(BATCH);
        Ok((worked?, rate))
    })
}

fn wait(time: Duration) {
    let start = std::time::Instant::now();
    while start.elapsed() < time {
        pause();
    }
}

fn section(title: &str, notes: &[&str]) -> Section {
    Section::new(title, notes)
}

fn row(name: &str, step: u32, bytes: f64, joined: &Joined) -> Row {
    let one = |value| Summary::of([value]);
    let row = Row::new(format!("{step} clusters, {} addresses", step * fleet::ADDRESSES), name)
        .value("in the tables after", "s", one(joined.seconds))
        .value("agent", "% of a CPU", one(joined.cpus * 100.0))
        .value("memory by address", "B", one(bytes))
        .value("resident", "MiB", one(joined.resident[1] / MIB))
        .value("most", "MiB", one(joined.peak / MIB));
    talk(row, &joined.times)
}

/// Adds what became of requests.
fn talk(row: Row, times: &Times) -> Row {
    let one = |value| Summary::of([value]);
    row.value("requests p50", "us", one(times.microseconds(0.5)))
        .value("p99", "us", one(times.microseconds(0.99)))
        .value("p99.9", "us", one(times.microseconds(0.999)))
        .value("max", "us", one(times.microseconds(1.0)))
        .value("lost", "", one(times.lost as f64))
}

fn goal(what: String, most: f64, measured: f64, unit: &'static str) -> Goal {
    Goal::new(what, Bound::AtMost(most), Summary::of([measured]), unit)
}
