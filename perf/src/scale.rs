//! `scale`: what pods, addresses, flows, services and rules cost.

mod grown;
mod memory;

use crate::net::arena::Target;
use crate::net::requirements;
use crate::net::traffic::{Rate, Traffic};
use crate::report::{Bound, Findings, Form, Goal, Plot, Row, Section, Series, Summary};
use crate::site::{LET_CLIENT_IN, Site};
use crate::{Effort, Progress, Turns};
use std::time::Duration;

/// Pods on the node.
const PODS: [u32; 3] = [2, 32, 250];
const QUICK_PODS: [u32; 2] = [2, 32];
/// How long an agent is watched doing nothing.
const IDLE: Duration = Duration::from_secs(6);
const QUICK_IDLE: Duration = Duration::from_secs(3);
/// What must be reached.
const LEAST_RATIO: f64 = 0.95;
const BYTES_PER_POD: f64 = 65_536.0;
const IDLE_PERCENT: f64 = 1.0;
const RESIDENT_MIB: f64 = 60.0;
const MIB: f64 = 1_048_576.0;

/// Whatever the default is.
const OFFLOAD: (&str, &str) = ("--offload", "on");

const STREAM: Traffic = Traffic::Streams { flows: 1 };
const FRAMES: Traffic = Traffic::Frames { size: 64, flows: 16 };

/// Bytes that this process has on its heap.
pub type Heap = fn() -> usize;

/// Measures everything.
///
/// # Errors
/// If something that it needs is missing, or no traffic arrives.
pub fn run(effort: Effort, heap: Heap, progress: &Progress) -> Result<Findings, String> {
    requirements::check()?;
    progress.say("memory of tables");
    let mut findings = memory::tables(heap);
    findings.extend(pods(effort, progress)?);
    findings.extend(grown::measure(effort, progress)?);
    Ok(findings)
}

/// What a number of pods came to.
struct Step {
    pods: u32,
    resident: f64,
    cpus: f64,
    stream: Turns<Rate>,
    frames: Turns<Rate>,
}

/// One node that never has more than two pods, and one that gets more and more.
fn pods(effort: Effort, progress: &Progress) -> Result<Findings, String> {
    let counts: &[u32] = if effort.quick { &QUICK_PODS } else { &PODS };
    progress.say("building two nodes");
    let sites = [
        Site::new("2 pods", &[OFFLOAD], false, LET_CLIENT_IN)?,
        Site::new("more pods", &[OFFLOAD], false, LET_CLIENT_IN)?,
    ];
    progress.expect(counts.len() as u64 * 2 * sites.len() as u64 * u64::from(effort.rounds()));
    let (mut steps, mut there) = (Vec::new(), 2);
    for &pods in counts {
        progress.say(format!("adding pods until there are {pods}"));
        for number in there..pods {
            sites[1].node().pod(&format!("default/idle-{number}"), "app=idle");
        }
        there = there.max(pods);
        steps.push(step(&sites, pods, effort, progress)?);
    }
    Ok(findings(&steps))
}

fn step(sites: &[Site], pods: u32, effort: Effort, progress: &Progress) -> Result<Step, String> {
    progress.say(format!("an idle agent with {pods} pods"));
    let cpus = sites[1].cpus(if effort.quick { QUICK_IDLE } else { IDLE })?;
    let resident = sites[1].resident()?;
    let turns = |traffic: Traffic| {
        Turns::take(effort.rounds(), sites, progress, |site| {
            progress.say(format!("{pods} pods: {traffic:?}: {}", site.arena.name));
            traffic.run(&site.arena, Target::Server, effort.turn())
        })
    };
    Ok(Step { pods, resident, cpus, stream: turns(STREAM)?, frames: turns(FRAMES)? })
}

impl Step {
    fn stream_ratio(&self) -> Summary {
        self.stream.ratio(1, 0, |rate| rate.bits)
    }

    fn frames_ratio(&self) -> Summary {
        self.frames.ratio(1, 0, |rate| rate.packets)
    }

    fn row(&self) -> Row {
        Row::new(format!("{} pods", self.pods), "")
            .value("stream", "Gbit/s", self.stream.summary(1, |rate| rate.bits / 1e9))
            .value("64-byte frames", "Mpps", self.frames.summary(1, |rate| rate.packets / 1e6))
            .value("agent resident", "MiB", Summary::of([self.resident / MIB]))
            .value("idle agent", "% of a CPU", Summary::of([self.cpus * 100.0]))
            .ratio("stream", "2 pods", self.stream_ratio())
            .ratio("64-byte frames", "2 pods", self.frames_ratio())
    }
}

fn findings(steps: &[Step]) -> Findings {
    let mut section = Section::new(
        "Pods on a node",
        &[
            "two of them talk, the others are idle; in turns with a node that has only the two; --offload on",
            "sender, receiver and agent share the CPUs",
        ],
    );
    section.rows = steps.iter().map(Step::row).collect();
    let series = |name, ratio: fn(&Step) -> Summary| {
        Series::new(name, steps.iter().map(|step| (f64::from(step.pods), ratio(step))))
    };
    section.plots.push(Plot {
        title: "Throughput by pods on the node".into(),
        form: Form::Lines { x_label: "pods".into() },
        y_label: "times as much as with 2 pods".into(),
        y_log: false,
        series: vec![
            series("one TCP stream", Step::stream_ratio),
            series("64-byte frames", Step::frames_ratio),
        ],
    });
    let mut goals = Vec::new();
    if let (Some(first), Some(last)) = (steps.first(), steps.last().filter(|_| steps.len() > 1)) {
        let (pods, least) = (last.pods, Bound::AtLeast(LEAST_RATIO));
        let goal = |what: &str, ratio| Goal::new(format!("{what}: {pods} pods / 2 pods"), least, ratio, "");
        goals.push(goal("one TCP stream", last.stream_ratio()));
        goals.push(goal("64-byte frames", last.frames_ratio()));
        let per_pod = (last.resident - first.resident) / f64::from(last.pods - first.pods);
        let per_pod = Summary::of([per_pod]);
        goals.push(Goal::new("memory of the agent per idle pod", Bound::AtMost(BYTES_PER_POD), per_pod, "B"));
        let (cpus, resident) = (Summary::of([first.cpus * 100.0]), Summary::of([first.resident / MIB]));
        goals.push(Goal::new("idle agent", Bound::AtMost(IDLE_PERCENT), cpus, "% of a CPU"));
        goals.push(Goal::new("idle agent, resident", Bound::AtMost(RESIDENT_MIB), resident, "MiB"));
    }
    Findings { sections: vec![section], goals }
}
