//! What the pipeline alone costs, in memory: nanoseconds or instructions per packet.

mod clock;
mod instructions;
pub mod packet;
pub mod scenario;
mod sweep;
mod threads;
pub mod world;

pub use scenario::{SCENARIOS, Scenario};
pub use world::{Cache, Sizes, Worker, World};

use crate::report::{Bound, Form, Goal, Plot, Section, Series};
use crate::{Findings, Progress};
use clap::Args;
use clock::{Bench, Cost};

/// Packets of a burst, unless told otherwise.
const BATCH: u16 = 64;

/// What to measure.
#[derive(Args, Clone, Debug)]
pub struct Pipeline {
    /// Workers with or without their verdict cache only, and not both in turns
    #[arg(long, value_enum)]
    pub cache: Option<Cache>,
    /// Rounds; each measures every variant in turn
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub rounds: u32,
    /// Packets of a burst
    #[arg(long, default_value_t = BATCH, value_parser = clap::value_parser!(u16).range(1..=256))]
    pub batch: u16,
    /// Scenarios with this in their name only; implies --quick
    #[arg(long, value_name = "TEXT")]
    pub only: Option<String>,
    /// No sweeps over the sizes of tables and bursts, no several workers
    #[arg(long)]
    pub quick: bool,
    /// Count instructions instead, with callgrind; takes minutes
    #[arg(long, conflicts_with_all = ["quick", "only", "rounds", "batch"])]
    pub instructions: bool,
    /// What callgrind is to run
    #[arg(long, hide = true)]
    pub counted: bool,
}

/// Tables, and the number of flows that packets belong to in turns.
const TABLES: [(&str, Sizes, u32); 2] = [("small", Sizes::SMALL, 1000), ("large", Sizes::LARGE, 10_000)];

impl Pipeline {
    /// All of it, so many times.
    pub fn new(rounds: u32, quick: bool) -> Pipeline {
        Pipeline { cache: None, rounds, batch: BATCH, only: None, quick, instructions: false, counted: false }
    }

    /// Its command line.
    pub fn command(&self) -> String {
        let mut line = "dataplane-perf pipeline".to_owned();
        if let Some(cache) = self.cache {
            line += &format!(" --cache {}", if cache == Cache::On { "on" } else { "off" });
        }
        if self.instructions {
            return line + " --instructions";
        }
        line += &format!(" --rounds {} --batch {}", self.rounds, self.batch);
        if let Some(only) = &self.only {
            line += &format!(" --only {only:?}");
        }
        line + if self.quick { " --quick" } else { "" }
    }

    /// Measures.
    ///
    /// # Errors
    /// If a packet does not get the verdict that it should, or callgrind does not run.
    pub fn run(&self) -> Result<Findings, String> {
        let caches = self.cache.as_ref().map_or(&[Cache::On, Cache::Off][..], std::slice::from_ref);
        if self.counted {
            instructions::count(caches)?;
            return Ok(Findings::default());
        }
        if self.instructions {
            return instructions::section(caches)
                .map(|section| Findings { sections: vec![section], goals: vec![] });
        }
        let only = self.only.as_deref().unwrap_or_default();
        let scenarios: Vec<Scenario> =
            SCENARIOS.into_iter().filter(|scenario| scenario.name.contains(only)).collect();
        if scenarios.is_empty() {
            return Err(format!(
                "--only {only}: no scenario has this in its name; one is {}",
                SCENARIOS[0].name
            ));
        }
        let whole = !self.quick && self.only.is_none();
        let mut turns = (TABLES.len() * scenarios.len() * (1 + caches.len())) as u64;
        if whole {
            turns += sweep::turns() + threads::TURNS;
        }
        let progress = Progress::new(turns * u64::from(self.rounds));
        let mut findings = self.tables(&scenarios, caches, &progress)?;
        if whole {
            findings.sections.extend(sweep::sections(self.rounds, &progress)?);
            findings.sections.push(threads::section(self.rounds, &progress)?);
        }
        Ok(findings)
    }

    /// All scenarios on small and on large tables.
    fn tables(
        &self,
        scenarios: &[Scenario],
        caches: &[Cache],
        progress: &Progress,
    ) -> Result<Findings, String> {
        let mut findings = Findings::default();
        for (name, sizes, active) in TABLES {
            progress.say(format!("{name} tables"));
            let world = World::new(sizes, active);
            let bench = Bench {
                world: &world,
                sizes,
                active,
                batch: self.batch.into(),
                rounds: self.rounds,
                progress,
            };
            let costs: Result<Vec<(Scenario, Vec<Cost>)>, String> =
                scenarios.iter().map(|&scenario| Ok((scenario, bench.measure(scenario, caches)?))).collect();
            let costs = costs?;
            findings.goals.extend(goals(name, &costs));
            findings.sections.push(section(name, sizes, active, &costs));
        }
        Ok(findings)
    }
}

fn variant(cache: Cache) -> &'static str {
    match cache {
        Cache::On => "cache",
        Cache::Off => "no cache",
    }
}

fn section(name: &str, sizes: Sizes, active: u32, costs: &[(Scenario, Vec<Cost>)]) -> Section {
    let Sizes { rules, addresses, services, idle } = sizes;
    let tables = format!(
        "{rules} rules per pod and direction, {addresses} ip → identity entries, {services} services of 10 \
         backends, {idle} idle flows in conntrack; packets of {active} flows in turns."
    );
    let notes = [
        tables.as_str(),
        "Per packet, over bursts; every new flow is one that conntrack has never seen.",
        "cache: as workers run, with their verdict cache; no cache: the whole pipeline for every packet.",
    ];
    let mut section = Section::new(format!("Pipeline, {name} tables"), &notes);
    let caches: Vec<Cache> =
        costs.iter().take(1).flat_map(|(_, costs)| costs).map(|cost| cost.cache).collect();
    for (scenario, costs) in costs {
        section.rows.extend(costs.iter().map(|cost| cost.row(scenario.name, variant(cost.cache))));
    }
    let series = |(at, &cache): (usize, &Cache)| {
        let points = costs.iter().enumerate().map(|(group, (_, costs))| (group as f64, costs[at].p50));
        Series::new(variant(cache), points)
    };
    section.plots.push(Plot {
        title: section.title.clone(),
        form: Form::Bars { groups: costs.iter().map(|(scenario, _)| scenario.name.to_owned()).collect() },
        y_label: "ns per packet".to_owned(),
        y_log: false,
        series: caches.iter().enumerate().map(series).collect(),
    });
    section
}

/// The costliest of the established and of the new flows has to be cheap enough.
fn goals(tables: &str, costs: &[(Scenario, Vec<Cost>)]) -> Vec<Goal> {
    let worst = |first: bool| {
        let costs = costs.iter().filter(move |(scenario, _)| scenario.is_first() == first);
        let costs = costs.filter_map(|(scenario, costs)| {
            Some((scenario, costs.iter().find(|cost| cost.cache == Cache::On)?))
        });
        costs.max_by(|(_, a), (_, b)| a.p50.median.total_cmp(&b.p50.median))
    };
    let bounds: &[(bool, f64)] =
        if tables == "small" { &[(false, 40.0)] } else { &[(false, 100.0), (true, 500.0)] };
    let goal = |&(first, most): &(bool, f64)| {
        let (scenario, cost) = worst(first)?;
        let what = format!("{tables} tables, costliest: {}", scenario.name);
        Some(Goal::new(what, Bound::AtMost(most), cost.p50, "ns"))
    };
    bounds.iter().filter_map(goal).collect()
}
