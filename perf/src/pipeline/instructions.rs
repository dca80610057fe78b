//! Instructions per packet, counted by callgrind: this program runs itself under it.

use super::packet::{CHUNK, Frames, load};
use super::world::{Cache, Worker, World};
use super::{SCENARIOS, TABLES, variant};
use crate::report::{Row, Section, Summary};
use engine::{Frame, Port};
use std::env;
use std::fs;
use std::hint::black_box;
use std::io::ErrorKind;
use std::path::Path;
use std::process::{Command, Stdio};

/// Packets that are counted, after as many that only warm up.
const PACKETS: u32 = 10 * BURST;
const BURST: u32 = 64;

/// Counts the instructions of all scenarios.
///
/// # Errors
/// If callgrind is not there or its output is not understood.
pub(super) fn section(caches: &[Cache]) -> Result<Section, String> {
    let directory = env::temp_dir().join(format!("dataplane-perf-{}", std::process::id()));
    fs::create_dir(&directory).map_err(|error| format!("{}: {error}", directory.display()))?;
    let counts = caches.iter().map(|&cache| under_callgrind(cache, &directory)).collect();
    let removed = fs::remove_dir_all(&directory);
    let counts: Result<Vec<Vec<f64>>, String> = counts;
    let counts = counts?;
    removed.map_err(|error| format!("{}: {error}", directory.display()))?;

    let mut section = Section::new("Instructions", &["Per packet, counted by callgrind in bursts of 64."]);
    let cases = TABLES.iter().flat_map(|table| SCENARIOS.map(|scenario| (table, scenario)));
    for (at, ((tables, ..), scenario)) in cases.enumerate() {
        for (counts, &cache) in counts.iter().zip(caches) {
            let row = Row::new(scenario.name, format!("{tables} tables, {}", variant(cache)));
            section.rows.push(row.value("instructions", "", Summary::of([counts[at]])));
        }
    }
    Ok(section)
}

/// Instructions per packet of every scenario, table by table.
fn under_callgrind(cache: Cache, directory: &Path) -> Result<Vec<f64>, String> {
    let program = env::current_exe().map_err(|error| format!("the path of this program: {error}"))?;
    let out = directory.join(variant(cache).replace(' ', "-"));
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--collect-atstart=no", "--toggle-collect=*instructions::counted*"])
        .arg("--dump-after=*instructions::finished*")
        .arg(format!("--callgrind-out-file={}", out.display()))
        .arg(program)
        .args(["pipeline", "--counted", "--cache", if cache == Cache::On { "on" } else { "off" }])
        .stdin(Stdio::null())
        .output();
    let output = output.map_err(|error| match error.kind() {
        ErrorKind::NotFound => {
            "valgrind is not installed: its tool callgrind counts the instructions".to_owned()
        }
        _ => format!("valgrind: {error}"),
    })?;
    if !output.status.success() {
        return Err(format!("valgrind: {}: {}", output.status, String::from_utf8_lossy(&output.stderr)));
    }
    (1..=TABLES.len() * SCENARIOS.len()).map(|part| read(&out, part)).collect()
}

/// A dump's total.
fn read(out: &Path, part: usize) -> Result<f64, String> {
    let path = format!("{}.{part}", out.display());
    let text = fs::read_to_string(&path).map_err(|error| format!("{path}: {error}"))?;
    let total =
        text.lines().find_map(|line| line.strip_prefix("totals: ").or(line.strip_prefix("summary: ")));
    let total: u64 = total
        .and_then(|total| total.trim().parse().ok())
        .ok_or_else(|| format!("{path}: no total of instructions"))?;
    Ok(total as f64 / f64::from(PACKETS))
}

/// What callgrind runs.
///
/// # Errors
/// If a flow cannot be established.
pub(super) fn count(caches: &[Cache]) -> Result<(), String> {
    for (_, sizes, active) in TABLES {
        let world = World::new(sizes, active);
        for scenario in SCENARIOS {
            for &cache in caches {
                let (mut worker, mut preparing) = (world.worker(cache), world.worker(Cache::On));
                let frames = scenario.frames(&mut preparing, sizes, 0..PACKETS)?;
                bursts(&frames, |burst| worker.process(frames.port, burst, |_| ()));
                if scenario.is_first() {
                    frames.tuples().for_each(|tuple| world.forget(&tuple));
                }
                bursts(&frames, |burst| counted(&mut worker, frames.port, burst));
                if scenario.is_first() {
                    frames.tuples().for_each(|tuple| world.forget(&tuple));
                }
                finished();
            }
        }
    }
    Ok(())
}

fn bursts(frames: &Frames, mut each: impl FnMut(&mut [Frame<'_>])) {
    let mut chunks = [[0; CHUNK]; BURST as usize];
    let mut source = frames.iter();
    for _ in 0..PACKETS / BURST {
        let mut burst: Vec<Frame<'_>> =
            chunks.iter_mut().zip(&mut source).map(|(chunk, frame)| load(chunk, frame)).collect();
        each(&mut burst);
    }
}

/// Callgrind counts while this runs.
#[inline(never)]
fn counted(worker: &mut Worker<'_>, port: Port, burst: &mut [Frame<'_>]) {
    worker.process(port, burst, |verdict| _ = black_box(verdict));
}

/// Callgrind writes down what it has counted when this returns.
#[inline(never)]
fn finished() {
    black_box(());
}
