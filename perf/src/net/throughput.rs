//! `throughput`: packets and bits per second between pods.

use super::arena::{Arena, Target};
use super::traffic::{Rate, Traffic};
use super::{Load, agent, kernel, raw, requirements};
use crate::report::{Bound, Findings, Form, Goal, Plot, Row, Section, Series, Summary};
use crate::{Effort, Progress, Turns};
use tests::wait::pause;

/// Tables with next to nothing in them.
const SMALL: Load = Load { services: 1, rules: 1 };
const MEDIUM: Load = Load { services: 1_000, rules: 100 };
/// Tables of a large cluster.
const LARGE: Load = Load { services: 10_000, rules: 1_000 };

const KERNEL: &str = "kernel";
const NFT_MEDIUM: &str = "kernel+nft 1k";
const NFT_LARGE: &str = "kernel+nft 10k";
const RAW: &str = "raw";
const ON: &str = "offload on";
const OFF: &str = "offload off";
const ON_LARGE: &str = "offload on 10k";
const OFF_LARGE: &str = "offload off 10k";

/// All of them, in the order of legends.
const VARIANTS: [&str; 8] = [KERNEL, NFT_MEDIUM, NFT_LARGE, RAW, ON, OFF, ON_LARGE, OFF_LARGE];

/// Sizes of frames: the least, a middle one, and an IP packet of 1500 bytes.
const SIZES: [(usize, &str); 3] = [(64, "64-byte"), (512, "512-byte"), (1514, "1500-byte")];
/// Numbers of flows.
const FLOWS: [u16; 4] = [1, 10, 100, 1000];
/// Flows of the rows about sizes.
const SOME: u16 = 10;

/// One thing to do on some variants.
struct Case {
    what: String,
    traffic: Traffic,
    target: Target,
    on: Vec<&'static str>,
    /// The number of flows, if it is a point of the picture of these.
    flows: Option<u16>,
}

impl Case {
    fn new(what: impl Into<String>, traffic: Traffic, target: Target, on: &[&'static str]) -> Case {
        Case { what: what.into(), traffic, target, on: on.to_vec(), flows: None }
    }
}

/// Measures everything.
///
/// # Errors
/// If something that it needs is missing, or nothing arrives.
pub fn run(effort: Effort, progress: &Progress) -> Result<Findings, String> {
    requirements::check()?;
    let mut findings = Findings::default();
    let parts = [streams(effort), frames(effort), datagrams(effort)];
    let two = two_nodes(effort);
    let steps = |cases: &[Case]| cases.iter().map(|case| case.on.len() as u64).sum::<u64>();
    let turns: u64 = parts.iter().map(|(_, cases)| steps(cases)).sum::<u64>() + steps(&two.1);
    progress.expect(turns * u64::from(effort.rounds()));
    progress.say("building one node of every kind");
    let arenas = one_node(effort)?;
    for part in parts {
        findings.sections.push(measure(&arenas, part, effort, progress)?);
    }
    drop(arenas);
    progress.say("building two nodes of every kind");
    findings.sections.push(measure(&pairs()?, two, effort, progress)?);
    findings.goals = goals(&findings.sections);
    Ok(findings)
}

fn one_node(effort: Effort) -> Result<Vec<Arena>, String> {
    let mut arenas = vec![
        kernel::same_node(KERNEL, None)?,
        kernel::same_node(NFT_MEDIUM, Some(MEDIUM))?,
        kernel::same_node(NFT_LARGE, Some(LARGE))?,
        raw::same_node(RAW)?,
        agent::same_node(ON, "on", SMALL)?,
        agent::same_node(OFF, "off", SMALL)?,
    ];
    if !effort.quick {
        arenas.push(agent::same_node(ON_LARGE, "on", LARGE)?);
        arenas.push(agent::same_node(OFF_LARGE, "off", LARGE)?);
    }
    Ok(arenas)
}

fn pairs() -> Result<Vec<Arena>, String> {
    Ok(vec![
        kernel::two_nodes(KERNEL, None)?,
        kernel::two_nodes(NFT_MEDIUM, Some(MEDIUM))?,
        agent::two_nodes(ON, "on", SMALL)?,
        agent::two_nodes(OFF, "off", SMALL)?,
    ])
}

/// A section's title, notes and unit, and what it consists of.
type Part = (Title, Vec<Case>);

struct Title {
    title: &'static str,
    notes: &'static [&'static str],
    /// Packets count, else bits.
    packets: bool,
}

fn streams(effort: Effort) -> Part {
    use Target::{Server, ServerOverIpv6, Service};
    let stream = Traffic::Streams { flows: 1 };
    let all = [KERNEL, NFT_LARGE, RAW, ON, OFF, ON_LARGE, OFF_LARGE];
    let mut cases = vec![
        Case::new("one TCP stream", stream, Server, &all),
        Case::new("one TCP stream, service", stream, Service, &[NFT_MEDIUM, NFT_LARGE, ON, OFF, ON_LARGE]),
        Case::new("one TCP stream, IPv6", stream, ServerOverIpv6, &[KERNEL, ON, OFF]),
    ];
    cases[0].flows = Some(1);
    if !effort.quick {
        if requirements::installed("iperf3") {
            cases.push(Case::new("one TCP stream of iperf3", Traffic::Iperf3, Server, &[KERNEL, ON]));
        }
        cases.extend(FLOWS[1..].iter().map(|&flows| Case {
            flows: Some(flows),
            ..Case::new(
                format!("{flows} TCP streams"),
                Traffic::Streams { flows },
                Server,
                &[KERNEL, ON, OFF],
            )
        }));
    }
    let title = Title {
        title: "TCP streams between pods of one node",
        notes: &[
            "payload that the readers got; a writing and a reading thread a stream, but no more than CPUs of each",
            "writers, readers and workers share the CPUs",
        ],
        packets: false,
    };
    (title, cases)
}

fn frames(effort: Effort) -> Part {
    let all = [KERNEL, NFT_MEDIUM, NFT_LARGE, RAW, ON, OFF, ON_LARGE, OFF_LARGE];
    let some = [KERNEL, RAW, ON, OFF];
    let direct = |size, name: &str, on: &[&'static str]| {
        let traffic = Traffic::Frames { size, flows: SOME };
        Case::new(format!("{name} packets"), traffic, Target::Server, on)
    };
    let mut cases = vec![direct(SIZES[0].0, SIZES[0].1, &all)];
    cases[0].flows = Some(SOME);
    cases.extend(SIZES[1..].iter().map(|&(size, name)| direct(size, name, &some)));
    cases.push(Case::new(
        "64-byte packets, service",
        Traffic::Frames { size: SIZES[0].0, flows: SOME },
        Target::Service,
        &[NFT_MEDIUM, NFT_LARGE, ON, OFF, ON_LARGE],
    ));
    if !effort.quick {
        let others = FLOWS.iter().filter(|&&flows| flows != SOME);
        cases.extend(others.map(|&flows| Case {
            flows: Some(flows),
            ..Case::new(
                format!("64-byte packets, {flows} flows"),
                Traffic::Frames { size: SIZES[0].0, flows },
                Target::Server,
                &[KERNEL, RAW, ON, OFF],
            )
        }));
    }
    let title = Title {
        title: "Packets made by the kernel, between pods of one node",
        notes: &[
            "BPF_PROG_TEST_RUN with live frames at the node's end of the client's link, UDP, 10 flows if not \
             said otherwise; counted and ended by a tc program at the server's interface",
            "the generator takes one CPU; the way and the workers share it and the others",
        ],
        packets: true,
    };
    (title, cases)
}

fn datagrams(effort: Effort) -> Part {
    let sizes = if effort.quick { &SIZES[..1] } else { &SIZES[..] };
    let case = |size, what: String, target, on: &[&'static str]| {
        Case::new(what, Traffic::Datagrams { size, flows: 1 }, target, on)
    };
    let direct = |&(size, name): &(usize, &str)| {
        case(size, format!("{name} datagrams"), Target::Server, &[KERNEL, RAW, ON, OFF])
    };
    let mut cases: Vec<Case> = sizes.iter().map(direct).collect();
    if !effort.quick {
        let (size, name) = SIZES[1];
        cases.push(case(size, format!("{name} datagrams, IPv6"), Target::ServerOverIpv6, &[KERNEL, ON, OFF]));
    }
    let title = Title {
        title: "Datagrams from a socket, between pods of one node",
        notes: &[
            "one thread, one UDP socket, sendmmsg of 64; counted and ended by a tc program at the server's interface",
        ],
        packets: true,
    };
    (title, cases)
}

fn two_nodes(effort: Effort) -> Part {
    let all = [KERNEL, NFT_MEDIUM, ON, OFF];
    let sizes = if effort.quick { &SIZES[..0] } else { &SIZES[..1] };
    let mut cases = vec![Case::new("one TCP stream", Traffic::Streams { flows: 1 }, Target::Server, &all)];
    cases.extend(sizes.iter().map(|&(size, name)| {
        let traffic = Traffic::Frames { size, flows: SOME };
        Case::new(format!("{name} packets"), traffic, Target::Server, &all)
    }));
    let title = Title {
        title: "Between pods of two nodes, over veths and a bridge",
        notes: &["TCP in Gbit/s of payload; packets of 64 bytes in Gbit/s of frames"],
        packets: false,
    };
    (title, cases)
}

fn measure(
    arenas: &[Arena],
    (about, cases): Part,
    effort: Effort,
    progress: &Progress,
) -> Result<Section, String> {
    let mut section = Section::new(about.title, about.notes);
    let (unit, scale) = if about.packets { ("Mpps", 1e6) } else { ("Gbit/s", 1e9) };
    let quantity = |rate: &Rate| if about.packets { rate.packets / scale } else { rate.bits / scale };
    for case in &cases {
        let on: Vec<&Arena> =
            case.on.iter().filter_map(|name| arenas.iter().find(|arena| arena.name == *name)).collect();
        let turns = Turns::take(effort.rounds(), &on, progress, |arena| {
            progress.say(format!("{}: {}", case.what, arena.name));
            pause();
            case.traffic.run(arena, case.target, effort.turn())
        })?;
        for (index, arena) in on.iter().enumerate() {
            let value = turns.summary(index, quantity);
            let mut row = Row::new(&case.what, &arena.name).value("rate", unit, value);
            for (baseline, other) in on.iter().enumerate().filter(|(baseline, _)| *baseline != index) {
                if is_baseline(&other.name, &arena.name) {
                    row = row.ratio("rate", &other.name, turns.ratio(index, baseline, quantity));
                }
            }
            section.rows.push(row);
        }
    }
    section.plots.push(bars(&section, &cases, unit));
    section.plots.extend(curve(&section, &cases, unit));
    Ok(section)
}

/// Whether the ratio of a variant to another says something.
fn is_baseline(other: &str, variant: &str) -> bool {
    match other {
        ON => variant == ON_LARGE,
        OFF => variant == OFF_LARGE,
        RAW => [OFF, OFF_LARGE].contains(&variant),
        KERNEL => true,
        _ => other.starts_with(KERNEL) && !variant.starts_with(KERNEL),
    }
}

/// All cases but those of the curve.
fn bars(section: &Section, cases: &[Case], unit: &str) -> Plot {
    let shown: Vec<&Case> =
        cases.iter().filter(|case| case.flows.is_none_or(|flows| flows <= SOME)).collect();
    let series = variants(section).map(|name| {
        let points = shown.iter().enumerate().filter_map(|(index, case)| {
            Some((index as f64, find(section, &case.what, name)?.values[0].summary))
        });
        Series::new(name, points)
    });
    Plot {
        title: section.title.clone(),
        form: Form::Bars { groups: shown.iter().map(|case| case.what.clone()).collect() },
        y_label: unit.to_owned(),
        y_log: false,
        series: series.collect(),
    }
}

/// Over the number of flows, if there is more than one.
fn curve(section: &Section, cases: &[Case], unit: &str) -> Option<Plot> {
    let mut cases: Vec<(&Case, u16)> = cases.iter().filter_map(|case| Some((case, case.flows?))).collect();
    cases.sort_by_key(|(_, flows)| *flows);
    let (widest, _) = *cases.get(1)?;
    let on = widest.on.iter().filter(|name| cases.iter().all(|(case, _)| case.on.contains(name)));
    let series = on.map(|name| {
        let points = cases.iter().filter_map(|(case, flows)| {
            Some((f64::from(*flows), find(section, &case.what, name)?.values[0].summary))
        });
        Series::new(*name, points)
    });
    Some(Plot {
        title: format!("{}, by flows", section.title),
        form: Form::Lines { x_label: "flows".into() },
        y_label: unit.to_owned(),
        y_log: false,
        series: series.collect(),
    })
}

/// The variants of a section's rows.
fn variants(section: &Section) -> impl Iterator<Item = &'static str> {
    VARIANTS.into_iter().filter(|name| section.rows.iter().any(|row| row.variant == *name))
}

fn find<'a>(section: &'a Section, what: &str, variant: &str) -> Option<&'a Row> {
    section.rows.iter().find(|row| row.what == what && row.variant == variant)
}

/// What has to be reached, of those that were measured.
fn goals(sections: &[Section]) -> Vec<Goal> {
    let wanted = [
        ("one TCP stream", ON, KERNEL, 1.0),
        ("one TCP stream, service", ON, NFT_MEDIUM, 1.1),
        ("64-byte packets", ON, KERNEL, 1.3),
        ("64-byte packets", ON, NFT_LARGE, 2.0),
        ("64-byte packets", ON_LARGE, NFT_LARGE, 2.0),
        ("64-byte packets", OFF, RAW, 0.95),
        ("512-byte packets", OFF, RAW, 0.95),
        ("1500-byte packets", OFF, RAW, 0.95),
        ("one TCP stream", OFF, RAW, 0.95),
        ("64-byte packets", ON_LARGE, ON, 0.95),
        ("64-byte packets", OFF_LARGE, OFF, 0.95),
        ("one TCP stream", ON_LARGE, ON, 0.95),
    ];
    let ratio = |what: &str, variant: &str, to: &str| -> Option<Summary> {
        let row = sections.iter().find_map(|section| find(section, what, variant))?;
        row.ratios.iter().find(|ratio| ratio.to == to).map(|ratio| ratio.summary)
    };
    let goal = |(what, variant, to, least): (&str, &str, &str, f64)| {
        let ratio = ratio(what, variant, to)?;
        Some(Goal::new(format!("{what}: {variant} / {to}"), Bound::AtLeast(least), ratio, ""))
    };
    wanted.into_iter().filter_map(goal).collect()
}
