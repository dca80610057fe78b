//! What rules, services, remote clusters and addresses that nobody talks to cost those who talk.

use super::{LEAST_RATIO, MIB};
use crate::net::arena::Target;
use crate::net::traffic::Traffic;
use crate::net::{agent, connections};
use crate::report::{Bound, Findings, Form, Goal, Plot, Row, Section, Series, Summary};
use crate::site::{LET_CLIENT_IN, Site};
use crate::store::{Store, address, mirrored};
use crate::{Effort, Progress, Turns};
use std::net::Ipv4Addr;
use std::ops::Range;
use std::os::unix::fs::symlink;
use tests::eventually;

const FRAMES: Traffic = Traffic::Frames { size: 64, flows: 16 };
/// Addresses of each remote cluster.
const ADDRESSES: u32 = 100;

/// Something that there is more and more of.
struct Growth {
    what: &'static str,
    sizes: [u32; 2],
    /// Adds those of a range, and returns when the agent has them.
    add: fn(&Site, &Store<'_>, Range<u32>) -> Result<(), String>,
}

/// In this order; what has been added stays.
const GROWTHS: [Growth; 4] = [
    Growth { what: "rules", sizes: [100, 1000], add: rules },
    Growth { what: "services", sizes: [1000, 10_000], add: services },
    Growth { what: "remote clusters", sizes: [10, 100], add: clusters },
    Growth { what: "addresses", sizes: [10_000, 100_000], add: addresses },
];

/// What some size came to.
struct Step {
    what: &'static str,
    size: u32,
    resident: f64,
    connections: Turns<f64>,
    frames: Turns<f64>,
}

/// One node that has next to nothing, and one that gets more and more.
pub(super) fn measure(effort: Effort, progress: &Progress) -> Result<Findings, String> {
    let sizes = if effort.quick { 1 } else { 2 };
    progress.say("building two nodes with an etcd each");
    let site = |name| Site::new(name, &[("--offload", "off")], true, LET_CLIENT_IN);
    let sites = [site("small")?, site("grown")?];
    let store = Store::open(sites[1].world.cluster(1))?;
    sites.iter().for_each(|site| connections::prepare(&site.arena));
    progress.expect((GROWTHS.len() * sizes * 2 * sites.len()) as u64 * u64::from(effort.rounds()));
    let mut steps = Vec::new();
    for Growth { what, sizes: all, add } in GROWTHS {
        let mut there = 0;
        for &size in &all[..sizes] {
            progress.say(format!("adding {what} until there are {size}"));
            add(&sites[1], &store, there..size)?;
            there = size;
            sites[1].settle();
            steps.push(step(&sites, (what, size), effort, progress)?);
        }
    }
    Ok(findings(&steps))
}

fn step(
    sites: &[Site; 2],
    (what, size): (&'static str, u32),
    effort: Effort,
    progress: &Progress,
) -> Result<Step, String> {
    let turns = |measure: &dyn Fn(&Site) -> Result<f64, String>| {
        Turns::take(effort.rounds(), sites, progress, |site| {
            progress.say(format!("{size} {what}: {}", site.arena.name));
            measure(site)
        })
    };
    let turn = effort.turn();
    Ok(Step {
        what,
        size,
        resident: sites[1].resident()?,
        connections: turns(&|site| connections::run(&site.arena, turn).map(|times| times.rate))?,
        frames: turns(&|site| FRAMES.run(&site.arena, Target::Server, turn).map(|rate| rate.packets / 1e6))?,
    })
}

impl Step {
    fn connections_ratio(&self) -> Summary {
        self.connections.ratio(1, 0, |&rate| rate)
    }

    fn frames_ratio(&self) -> Summary {
        self.frames.ratio(1, 0, |&rate| rate)
    }

    fn row(&self) -> Row {
        Row::new(format!("{} {}", self.size, self.what), "")
            .value("connections", "1/s", self.connections.summary(1, |&rate| rate))
            .value("64-byte frames", "Mpps", self.frames.summary(1, |&rate| rate))
            .value("agent resident", "MiB", Summary::of([self.resident / MIB]))
            .ratio("connections", "small", self.connections_ratio())
            .ratio("64-byte frames", "small", self.frames_ratio())
    }
}

fn findings(steps: &[Step]) -> Findings {
    let mut section = Section::new(
        "Tables of a node",
        &[
            "two pods of a node talk while tables grow that they do not need, one table after the other; in turns \
             with a node that has small ones",
            "--offload off, so that every packet is a worker's; a connection: connect, one byte each way, close",
            "the remote clusters have 100 addresses each; one etcd holds all of them, as kvstoremesh's does",
        ],
    );
    section.rows = steps.iter().map(Step::row).collect();
    let plot = |title: &str, ratio: fn(&Step) -> Summary| Plot {
        title: title.into(),
        form: Form::Lines { x_label: "entries".into() },
        y_label: "times as much as with small tables".into(),
        y_log: false,
        series: GROWTHS
            .iter()
            .map(|growth| {
                let own = steps.iter().filter(|step| step.what == growth.what);
                Series::new(growth.what, own.map(|step| (f64::from(step.size), ratio(step))))
            })
            .collect(),
    };
    section.plots = vec![
        plot("Connections by size of tables", Step::connections_ratio),
        plot("64-byte frames by size of tables", Step::frames_ratio),
    ];
    let goal = |last: &Step| {
        let what = "64-byte frames, offload off: with all tables grown / small";
        Goal::new(what, Bound::AtLeast(LEAST_RATIO), last.frames_ratio(), "")
    };
    Findings { goals: steps.last().map(goal).into_iter().collect(), sections: vec![section] }
}

fn rules(site: &Site, _: &Store<'_>, range: Range<u32>) -> Result<(), String> {
    let name = format!("grown-{}", range.end);
    site.world.cluster(1).apply("grown-policy.yaml", &agent::policy(&name, range.end));
    listed(site, "policy list", |list| list.contains(&name));
    Ok(())
}

fn services(site: &Site, _: &Store<'_>, range: Range<u32>) -> Result<(), String> {
    site.world.cluster(1).apply("grown-services.yaml", &agent::services(range.end));
    listed(site, "service list", |list| list.lines().count() > range.end as usize);
    Ok(())
}

fn clusters(site: &Site, store: &Store<'_>, range: Range<u32>) -> Result<(), String> {
    for number in range.clone() {
        let name = format!("remote{number}");
        let id = u8::try_from(1 + number).map_err(|_| format!("{name}: a cluster's id is at most 255"))?;
        // Cluster 101 is the node's own.
        let id = if id > 100 { id + 1 } else { id };
        let first = 0x0c00_0000 + number * ADDRESSES;
        let addresses: Vec<Ipv4Addr> = (first..first + ADDRESSES).map(Ipv4Addr::from).collect();
        store.put(mirrored(&name, id, &addresses))?;
        let link = site.world.dir().join("mesh").join(&name);
        symlink(store.etcd().client_config(), &link)
            .map_err(|error| format!("{}: {error}", link.display()))?;
    }
    eventually("all remote clusters are ready", || {
        let status = site.node().cli.json("status");
        let remotes = status["control"]["remotes"].as_array().map_or(&[][..], Vec::as_slice);
        let ready = remotes.iter().filter(|remote| remote["ready"] == true).count();
        if ready >= range.end as usize { Ok(()) } else { Err(format!("{ready} of {} are", range.end)) }
    });
    Ok(())
}

fn addresses(site: &Site, store: &Store<'_>, range: Range<u32>) -> Result<(), String> {
    let identity = store.identity(0);
    store.put(vec![store.labels(identity, "somebody")])?;
    store.put(range.clone().map(|n| address(Ipv4Addr::from(0x0b00_0000 + n), identity)).collect())?;
    listed(site, "ipcache list", |list| list.lines().count() > range.end as usize);
    Ok(())
}

/// Waits until a list of the agent is right.
fn listed(site: &Site, words: &str, right: impl Fn(&str) -> bool) {
    eventually(words, || {
        let list = site.node().cli.run(words)?;
        if right(&list) { Ok(()) } else { Err(format!("{} lines, not all", list.lines().count())) }
    });
}
