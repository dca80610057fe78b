//! What a run ran on, and what else ran.

use serde::Serialize;
use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

/// How long the other processes are watched.
const WATCH: Duration = Duration::from_millis(500);
/// Part of one CPU from which a process counts as busy.
const BUSY: f64 = 0.05;

/// The machine and its state before the first measurement.
#[derive(Clone, Debug, Serialize)]
pub struct Environment {
    /// Command line of this process.
    pub command: String,
    /// Kernel release.
    pub kernel: String,
    /// Model of the CPUs.
    pub cpu: String,
    /// CPUs that this process may use.
    pub cpus: usize,
    /// Memory in MiB.
    pub memory: u64,
    /// Runnable tasks over the last 1, 5 and 15 minutes.
    pub load_average: String,
    /// Other processes that used more than 5 % of a CPU: name and percent.
    pub busy: Vec<(String, f64)>,
    /// Versions of the programs that take part.
    pub versions: Vec<String>,
    /// Whether this program was built with optimisation.
    pub optimised: bool,
}

impl Environment {
    /// Looks; takes half a second.
    pub fn look() -> Environment {
        let read = |path| fs::read_to_string(path).unwrap_or_default();
        let field = |text: &str, name: &str| -> String {
            let line = text.lines().find_map(|line| line.strip_prefix(name)?.split_once(':'));
            line.map_or("unknown", |(_, value)| value.trim()).to_owned()
        };
        let memory = field(&read("/proc/meminfo"), "MemTotal");
        let kib = memory.split_whitespace().next().and_then(|kib| kib.parse::<u64>().ok());
        let load = read("/proc/loadavg");
        Environment {
            command: env::args().collect::<Vec<_>>().join(" "),
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            cpu: field(&read("/proc/cpuinfo"), "model name"),
            cpus: cpus(),
            memory: kib.unwrap_or_default() / 1024,
            load_average: load.split_whitespace().take(3).collect::<Vec<_>>().join(" "),
            busy: busy(),
            versions: versions(),
            optimised: !cfg!(debug_assertions),
        }
    }
}

/// CPUs that this process may use.
pub fn cpus() -> usize {
    thread::available_parallelism().map_or(1, usize::from)
}

/// Other processes that use a CPU right now, the busiest first.
fn busy() -> Vec<(String, f64)> {
    let (before, start) = (times(), Instant::now());
    thread::sleep(WATCH);
    let (after, elapsed) = (times(), start.elapsed().as_secs_f64());
    let mut busy: Vec<(String, f64)> = after
        .into_iter()
        .filter_map(|(id, (name, ticks))| {
            let used = ticks - before.get(&id)?.1;
            // The unit of /proc/PID/stat is a hundredth of a second on every architecture.
            let part = used as f64 / 100.0 / elapsed;
            (part > BUSY).then(|| (name, (part * 100.0).round()))
        })
        .collect();
    busy.sort_by(|a, b| b.1.total_cmp(&a.1));
    busy
}

/// Process id → name and ticks used, of all but this process.
fn times() -> BTreeMap<u32, (String, u64)> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries
        .filter_map(|entry| {
            let id: u32 = entry.file_name().to_str()?.parse().ok()?;
            let stat = fs::read_to_string(entry.path().join("stat")).ok()?;
            let (head, tail) = stat.rsplit_once(") ")?;
            let name = head.split_once('(')?.1.to_owned();
            let mut fields = tail.split(' ').skip(11);
            let ticks = fields.next()?.parse::<u64>().ok()? + fields.next()?.parse::<u64>().ok()?;
            (id != std::process::id()).then_some((id, (name, ticks)))
        })
        .collect()
}

fn versions() -> Vec<String> {
    let first_line = |program: &str| -> Option<String> {
        let output = Command::new(program).arg("--version").output().ok()?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        text.lines().next().map(|line| line.split(" (").next().unwrap_or(line).to_owned())
    };
    let own = format!("dataplane-perf {}", env!("CARGO_PKG_VERSION"));
    [Some(own), first_line("nft"), first_line("iperf3")].into_iter().flatten().collect()
}
