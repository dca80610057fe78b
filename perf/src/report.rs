//! What was measured, on what.

use crate::Sizes;
use crate::measure::BURST;
use serde::Serialize;
use std::fmt;
use std::fs;

/// Results of a run.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// CPU model.
    pub cpu: String,
    /// Kernel release.
    pub kernel: String,
    /// Packets of a burst.
    pub burst: usize,
    /// Established flows that the packets belong to.
    pub active: u16,
    /// Rounds.
    pub rounds: u32,
    /// Sizes of the tables.
    pub sizes: Sizes,
    /// One per scenario.
    pub scenarios: Vec<Measured>,
}

/// Results of one scenario.
#[derive(Clone, Debug, Serialize)]
pub struct Measured {
    /// Its name.
    pub scenario: &'static str,
    /// The whole pipeline, per packet.
    pub nanoseconds: Percentiles,
    /// Parsing alone, per packet of the same frames.
    pub parse_nanoseconds: Percentiles,
    /// Pipeline to parsing: median over the rounds of the ratio of their medians.
    pub ratio: f64,
}

/// Distribution over bursts of the mean time of a packet in its burst, in nanoseconds.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Percentiles {
    /// Median.
    pub p50: f64,
    /// 99th percentile.
    pub p99: f64,
    /// Slowest burst.
    pub max: f64,
}

impl Report {
    /// Adds what this machine is to the results.
    pub fn new(sizes: Sizes, active: u16, rounds: u32, scenarios: Vec<Measured>) -> Report {
        let read = |path| fs::read_to_string(path).unwrap_or_default();
        let cpuinfo = read("/proc/cpuinfo");
        let model = cpuinfo.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
        Report {
            cpu: model.map_or("unknown", |(_, model)| model).to_owned(),
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            burst: BURST,
            active,
            rounds,
            sizes,
            scenarios,
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Sizes { rules, pods, services, backends, flows } = self.sizes;
        writeln!(f, "{}, Linux {}", self.cpu, self.kernel)?;
        writeln!(
            f,
            "bursts of {}, {} rounds in turns with parsing alone, {} active flows",
            self.burst, self.rounds, self.active
        )?;
        writeln!(
            f,
            "{rules} rules per pod and direction, {pods} remote pods, {services} services of {backends} backends, \
             conntrack of {flows}\n"
        )?;
        writeln!(f, "{:<30}{:>9}{:>9}{:>9}{:>9}", "ns per packet", "p50", "p99", "max", "× parse")?;
        for Measured { scenario, nanoseconds: Percentiles { p50, p99, max }, ratio, .. } in &self.scenarios {
            writeln!(f, "{scenario:<30}{p50:>9.1}{p99:>9.1}{max:>9.1}{ratio:>9.2}")?;
        }
        let mut parse: Vec<f64> = self.scenarios.iter().map(|row| row.parse_nanoseconds.p50).collect();
        parse.sort_by(f64::total_cmp);
        let parse = parse.get(parse.len() / 2).copied().unwrap_or_default();
        write!(f, "{:<30}{parse:>9.1}", "parsing alone")
    }
}
