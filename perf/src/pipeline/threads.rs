//! Several workers on shared tables, and somebody who changes them all the time.

use super::clock::histogram;
use super::packet::{self, CHUNK, Frames, load};
use super::scenario::Scenario;
use super::world::{Cache, Sizes, World, remote_identity};
use crate::report::{Row, Section};
use crate::{Progress, Turns};
use engine::Frame;
use hdrhistogram::Histogram;
use ipnet::IpNet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};
use tables::IpEntry;

/// Flows of each worker.
const ACTIVE: u32 = 1000;
const BURST: usize = 64;
/// How long the workers of a turn run.
const TURN: Duration = Duration::from_millis(150);
/// Publications a second, and entries of each: 10,000 entries a second, gathered as control does.
const PUBLICATIONS: u32 = 100;
const ENTRIES: u32 = 100;

#[derive(Clone, Copy)]
struct Variant {
    workers: usize,
    writer: bool,
    cache: Cache,
}

const VARIANTS: [Variant; 8] = {
    const fn variant(workers: usize, writer: bool, cache: Cache) -> Variant {
        Variant { workers, writer, cache }
    }
    [
        variant(1, false, Cache::On),
        variant(1, true, Cache::On),
        variant(2, false, Cache::On),
        variant(2, true, Cache::On),
        variant(1, false, Cache::Off),
        variant(1, true, Cache::Off),
        variant(2, false, Cache::Off),
        variant(2, true, Cache::Off),
    ]
};

/// Turns of a round.
pub(super) const TURNS: u64 = VARIANTS.len() as u64;

/// What the workers of a turn did.
struct Turn {
    /// Of all together, per microsecond.
    rate: f64,
    /// Nanoseconds of bursts.
    bursts: Histogram<u64>,
}

/// Measures all variants.
///
/// # Errors
/// If a packet does not get the verdict that it should.
pub(super) fn section(rounds: u32, progress: &Progress) -> Result<Section, String> {
    progress.say("workers on shared tables");
    let sizes = Sizes { rules: 1000, addresses: 100_000, services: 100, idle: 0 };
    let world = World::new(sizes, 2 * ACTIVE);
    let scenario = Scenario::TO_REMOTE;
    let mut preparing = world.worker(Cache::On);
    let frames: Result<Vec<Frames>, String> = (0..2)
        .map(|worker| scenario.frames(&mut preparing, sizes, worker * ACTIVE..(worker + 1) * ACTIVE))
        .collect();
    let frames = frames?;
    let turns = Turns::take(rounds, &VARIANTS, progress, |&variant| {
        turn(&world, scenario, &frames[..variant.workers], variant)
    })?;
    let mut section = Section::new(
        "Workers on shared tables",
        &[
            "Established flows to another node, 1000 of each worker; 1000 rules, 100,000 addresses.",
            "The writer publishes 100 times a second 100 changed ip → identity entries. It needs a CPU too.",
        ],
    );
    for (at, variant) in VARIANTS.iter().enumerate() {
        let what = match variant.workers {
            1 => "1 worker".to_owned(),
            workers => format!("{workers} workers"),
        };
        let what = if variant.writer { format!("{what} and a writer") } else { what };
        let quantile = |quantile| {
            turns.summary(at, |turn| turn.bursts.value_at_quantile(quantile) as f64 / BURST as f64)
        };
        let row = Row::new(what, if variant.cache == Cache::On { "cache" } else { "no cache" })
            .value("rate", "Mpps", turns.summary(at, |turn| turn.rate))
            .value("p50", "ns", quantile(0.5))
            .value("p99", "ns", quantile(0.99))
            .value("max", "ns", quantile(1.0))
            .ratio("rate", "1 worker", turns.ratio(at, at / 4 * 4, |turn| turn.rate));
        section.rows.push(row);
    }
    Ok(section)
}

/// A worker per set of frames, for [`TURN`].
fn turn(world: &World, scenario: Scenario, frames: &[Frames], variant: Variant) -> Result<Turn, String> {
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        if variant.writer {
            scope.spawn(|| write(world, &done));
        }
        let workers: Vec<_> = frames
            .iter()
            .map(|frames| scope.spawn(|| work(world, scenario, frames, variant.cache)))
            .collect();
        let results: Vec<_> = workers.into_iter().map(|worker| worker.join()).collect();
        done.store(true, Ordering::Relaxed);
        let mut sum = Turn { rate: 0.0, bursts: histogram() };
        for result in results {
            let Turn { rate, bursts } = result.map_err(|_| "a worker panicked")??;
            sum.rate += rate;
            sum.bursts += bursts;
        }
        Ok(sum)
    })
}

fn work(world: &World, scenario: Scenario, frames: &Frames, cache: Cache) -> Result<Turn, String> {
    let mut worker = world.worker(cache);
    let mut chunks = vec![[0; CHUNK]; BURST];
    let mut source = frames.iter().cycle();
    let mut bursts = histogram();
    let (start, mut busy, mut wrong) = (Instant::now(), Duration::ZERO, None);
    while start.elapsed() < TURN {
        let mut burst: Vec<Frame<'_>> =
            chunks.iter_mut().zip(&mut source).map(|(chunk, frame)| load(chunk, frame)).collect();
        let began = Instant::now();
        worker.process(frames.port, &mut burst, |verdict| {
            if !scenario.expects(verdict) {
                wrong = Some(verdict);
            }
        });
        let took = began.elapsed();
        busy += took;
        bursts.saturating_record(took.as_nanos() as u64);
    }
    match wrong {
        Some(verdict) => Err(format!("{}: a packet got the verdict {verdict:?}", scenario.name)),
        None => Ok(Turn { rate: (bursts.len() * BURST as u64) as f64 / busy.as_secs_f64() / 1e6, bursts }),
    }
}

/// Changes identities of addresses that nobody talks to.
fn write(world: &World, done: &AtomicBool) {
    const OTHERS: u32 = 1 << 20;
    let mut next = 0;
    while !done.load(Ordering::Relaxed) {
        world.publisher.edit(|snapshot| {
            for n in next..next + ENTRIES {
                let hop = tables::HopId::NONE;
                let prefix = IpNet::from(packet::remote(OTHERS + n % 10_000));
                snapshot.ipcache.upsert(prefix, IpEntry { identity: remote_identity(n / 10_000 + n), hop });
            }
        });
        next += ENTRIES;
        thread::sleep(Duration::from_secs(1) / PUBLICATIONS);
    }
}
