//! What grows and what does not: one size at a time from one to large.

use super::clock::Bench;
use super::scenario::Scenario;
use super::world::{Cache, Sizes, World};
use crate::Progress;
use crate::report::{Form, Plot, Section, Series};

/// Flows that packets belong to in turns, if it is not these that grow.
const ACTIVE: u32 = 1000;
/// Packets of a burst, likewise.
const BATCH: usize = 64;

/// What is measured at each place.
type Line = (Scenario, Cache);

struct Sweep {
    title: &'static str,
    /// What grows.
    label: &'static str,
    lines: &'static [Line],
    places: &'static [u32],
    /// The tables, the active flows and the size of a burst at a place.
    at: fn(u32) -> (Sizes, u32, usize),
}

const SWEEPS: [Sweep; 6] = [
    Sweep {
        title: "ip → identity entries",
        label: "entries",
        lines: &[
            (Scenario::TO_REMOTE, Cache::On),
            (Scenario::TO_REMOTE, Cache::Off),
            (Scenario::NEW_TO_REMOTE, Cache::On),
        ],
        places: &[1, 10, 100, 1000, 10_000, 100_000, 1_000_000],
        at: |addresses| (Sizes { addresses, services: 0, ..Sizes::SMALL }, ACTIVE, BATCH),
    },
    Sweep {
        title: "Services of 10 backends",
        label: "services",
        lines: &[
            (Scenario::SERVICE, Cache::On),
            (Scenario::SERVICE, Cache::Off),
            (Scenario::NEW_TO_SERVICE, Cache::On),
        ],
        places: &[1, 10, 100, 1000, 10_000],
        at: |services| (Sizes { services, addresses: 10_000, ..Sizes::SMALL }, ACTIVE, BATCH),
    },
    Sweep {
        title: "Policy rules of each pod and direction",
        label: "rules",
        lines: &[
            (Scenario::TO_REMOTE, Cache::On),
            (Scenario::TO_REMOTE, Cache::Off),
            (Scenario::NEW_TO_REMOTE, Cache::On),
            (Scenario::DENIED, Cache::On),
        ],
        places: &[1, 10, 100, 1000, 10_000],
        at: |rules| (Sizes { rules, addresses: 10_000, ..Sizes::SMALL }, ACTIVE, BATCH),
    },
    Sweep {
        title: "Idle flows in conntrack",
        label: "flows",
        lines: &[(Scenario::LOCAL, Cache::On), (Scenario::LOCAL, Cache::Off), (Scenario::NEW, Cache::On)],
        places: &[1, 10, 100, 1000, 10_000, 100_000, 1_000_000],
        at: |idle| (Sizes { idle, ..Sizes::SMALL }, ACTIVE, BATCH),
    },
    Sweep {
        title: "Flows that packets belong to in turns",
        label: "flows",
        lines: &[(Scenario::LOCAL, Cache::On), (Scenario::LOCAL, Cache::Off)],
        places: &[1, 10, 100, 1000, 10_000, 100_000, 1_000_000],
        at: |active| (Sizes::SMALL, active, BATCH),
    },
    Sweep {
        title: "Packets of a burst",
        label: "packets",
        lines: &[(Scenario::LOCAL, Cache::On), (Scenario::LOCAL, Cache::Off), (Scenario::NEW, Cache::On)],
        places: &[1, 4, 16, 64, 256],
        at: |batch| (Sizes::SMALL, 10 * ACTIVE, batch as usize),
    },
];

/// Turns of all sweeps in a round.
pub(super) fn turns() -> u64 {
    SWEEPS.iter().map(|sweep| sweep.places.len() * sweep.lines.len() * 2).sum::<usize>() as u64
}

/// Measures all of them.
///
/// # Errors
/// If a packet does not get the verdict that it should.
pub(super) fn sections(rounds: u32, progress: &Progress) -> Result<Vec<Section>, String> {
    SWEEPS.iter().map(|sweep| sweep.section(rounds, progress)).collect()
}

impl Sweep {
    fn section(&self, rounds: u32, progress: &Progress) -> Result<Section, String> {
        let mut section = Section::new(self.title, &["Everything else is small."]);
        let name = |(scenario, cache): Line| match cache {
            Cache::On => scenario.name.to_owned(),
            Cache::Off => format!("{}, no cache", scenario.name),
        };
        let mut lines: Vec<Vec<_>> = vec![Vec::new(); self.lines.len()];
        for &place in self.places {
            let (sizes, active, batch) = (self.at)(place);
            progress.say(format!("{}: {place}", self.title));
            let world = World::new(sizes, active);
            let bench = Bench { world: &world, sizes, active, batch, rounds, progress };
            for (points, &line) in lines.iter_mut().zip(self.lines) {
                for cost in bench.measure(line.0, &[line.1])? {
                    section.rows.push(cost.row(format!("{place} {}", self.label), name(line)));
                    points.push((f64::from(place), cost.p50));
                }
            }
        }
        section.plots.push(Plot {
            title: self.title.to_owned(),
            form: Form::Lines { x_label: self.label.to_owned() },
            y_label: "ns per packet".to_owned(),
            y_log: false,
            series: self
                .lines
                .iter()
                .zip(lines)
                .map(|(&line, points)| Series::new(name(line), points))
                .collect(),
        });
        Ok(section)
    }
}
