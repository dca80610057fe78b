//! `latency`: how long an answer takes, and how many short connections a second there are.

use super::arena::{Arena, Target};
use super::echo::Times;
use super::{Load, agent, connections, echo, kernel, raw, requirements, streams};
use crate::report::{Bound, Findings, Form, Goal, Plot, Row, Section, Series};
use crate::{Effort, Progress, Turns};
use hdrhistogram::Histogram;
use std::time::Duration;
use tests::wait::pause;

const KERNEL: &str = "kernel";
const ON: &str = "offload on";
/// Bits per second of the stream in the background.
const BACKGROUND: f64 = 1e9;
const QUANTILES: [(&str, f64); 5] =
    [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p99.9", 0.999), ("max", 1.0)];

/// A kind of exchange, and how a turn of it is run.
type Kind = (&'static str, fn(&Arena, Duration) -> Result<Times, String>);

const CONNECTIONS: &str = "TCP connect/request/close";
const REQUESTS: &str = "TCP request/response";
const KINDS: [Kind; 3] =
    [(REQUESTS, echo::tcp), ("UDP request/response", echo::udp), (CONNECTIONS, connections::run)];

/// Measures everything.
///
/// # Errors
/// If something that it needs is missing, or nothing is answered.
pub fn run(effort: Effort, progress: &Progress) -> Result<Findings, String> {
    requirements::check()?;
    progress.say("building one node of every kind");
    let small = Load { services: 1, rules: 1 };
    let medium = Load { services: 1_000, rules: 100 };
    let arenas = [
        kernel::same_node(KERNEL, None)?,
        kernel::same_node("kernel+nft 1k", Some(medium))?,
        raw::same_node("raw")?,
        agent::same_node(ON, "on", small)?,
        agent::same_node("offload off", "off", small)?,
    ];
    arenas.iter().for_each(connections::prepare);
    let steps = KINDS.len() * 2 * arenas.len();
    progress.expect(steps as u64 * u64::from(effort.rounds()));
    let mut findings = Findings::default();
    for loaded in [false, true] {
        findings.sections.push(section(&arenas, loaded, effort, progress)?);
    }
    findings.goals = goals(&findings.sections[0]);
    Ok(findings)
}

fn section(arenas: &[Arena], loaded: bool, effort: Effort, progress: &Progress) -> Result<Section, String> {
    let (title, note) = match loaded {
        false => ("Latency between pods of one node, idle", "nothing else between the pods"),
        true => (
            "Latency between pods of one node, under load",
            "beside a TCP stream of 1 Gbit/s of the same pods",
        ),
    };
    let mut section = Section::new(title, &["one byte each way, one exchange at a time", note]);
    for (what, exchange) in KINDS {
        let turns = Turns::take(effort.rounds(), arenas, progress, |arena| {
            progress.say(format!("{what}: {}", arena.name));
            pause();
            let times = match loaded {
                false => exchange(arena, effort.turn()),
                true => streams::with(arena, Target::Server, 1, Some(BACKGROUND), |_| {
                    exchange(arena, effort.turn())
                }),
            };
            times.map_err(|error| format!("{}: {what}: {error}", arena.name))
        })?;
        section.rows.extend((0..arenas.len()).map(|index| row(what, arenas, &turns, index)));
        section.plots.push(plot(what, title, arenas, &turns));
    }
    Ok(section)
}

fn row(what: &str, arenas: &[Arena], turns: &Turns<Times>, index: usize) -> Row {
    let mut row = Row::new(what, &arenas[index].name);
    for (name, quantile) in QUANTILES {
        row = row.value(name, "us", turns.summary(index, |times| times.microseconds(quantile)));
    }
    row = row.value("rate", "1/s", turns.summary(index, |times| times.rate));
    if turns.of(index).iter().any(|times| times.lost > 0) {
        row = row.value("lost", "", turns.summary(index, |times| times.lost as f64));
    }
    if index == 0 {
        return row;
    }
    for (name, quantile) in [("p50", 0.5), ("p99", 0.99)] {
        row = row.ratio(name, KERNEL, turns.ratio(index, 0, |times| times.microseconds(quantile)));
    }
    row.ratio("rate", KERNEL, turns.ratio(index, 0, |times| times.rate))
}

fn plot(what: &str, title: &str, arenas: &[Arena], turns: &Turns<Times>) -> Plot {
    let series = arenas.iter().enumerate().filter_map(|(index, arena)| {
        let histograms = turns.of(index).iter().map(|times| times.nanoseconds.clone());
        let all: Histogram<u64> = histograms.reduce(|mut all, next| {
            all += next;
            all
        })?;
        Some(Series::percentiles(&arena.name, &all, 1000.0))
    });
    Plot {
        title: format!("{what}: {title}"),
        form: Form::Percentiles,
        y_label: "us".into(),
        y_log: true,
        series: series.collect(),
    }
}

fn goals(idle: &Section) -> Vec<Goal> {
    let wanted = [
        (REQUESTS, "p50", Bound::AtMost(1.1)),
        (REQUESTS, "p99", Bound::AtMost(1.1)),
        (CONNECTIONS, "rate", Bound::AtLeast(0.7)),
    ];
    let ratio = |what: &str, of: &str| {
        let row = idle.rows.iter().find(|row| row.what == what && row.variant == ON)?;
        row.ratios.iter().find(|ratio| ratio.of == of).map(|ratio| ratio.summary)
    };
    let goal = |(what, of, bound): (&str, &str, Bound)| {
        Some(Goal::new(format!("{what}, {of}: {ON} / {KERNEL}"), bound, ratio(what, of)?, ""))
    };
    wanted.into_iter().filter_map(goal).collect()
}
