//! Times bursts.

use crate::report::{Measured, Percentiles, Report};
use crate::scenario::{SCENARIOS, Scenario, load};
use crate::{Sizes, World};
use engine::Frame;
use hdrhistogram::Histogram;
use std::hint::black_box;
use std::time::Instant;

/// Frames of a burst: what a worker takes from its ring at once.
pub const BURST: usize = 64;
/// Frames of a round.
const FRAMES: u16 = 800 * BURST as u16;
const CHUNK: usize = 2048;

/// Nanoseconds per burst.
type Times = Histogram<u64>;

/// Measures every scenario in `rounds` rounds; packets of established flows are those of `active`
/// flows in turns.
///
/// # Errors
/// If a packet does not get the verdict that its scenario is about.
pub fn pipeline(sizes: Sizes, active: u16, rounds: u32) -> Result<Report, String> {
    let mut world = World::new(sizes);
    let measured: Result<Vec<Measured>, String> =
        SCENARIOS.iter().map(|scenario| measure(&mut world, scenario, active, rounds)).collect();
    Ok(Report::new(sizes, active, rounds, measured?))
}

fn measure(world: &mut World, scenario: &Scenario, active: u16, rounds: u32) -> Result<Measured, String> {
    let frames = scenario.frames(FRAMES, active);
    let (mut all, mut all_parse) = (times(), times());
    let mut ratios = Vec::new();
    for _ in 0..rounds {
        let mut parse = times();
        bursts(&frames, &mut parse, |frame| _ = black_box(wire::parse(frame.bytes())));
        scenario.prepare(world, active)?;
        let (mut process, mut outcome) = (times(), Ok(()));
        bursts(&frames, &mut process, |frame| {
            if let Err(error) = scenario.check(black_box(world.process(frame))) {
                outcome = Err(error);
            }
        });
        outcome?;
        ratios.push(process.value_at_quantile(0.5) as f64 / parse.value_at_quantile(0.5) as f64);
        all += process;
        all_parse += parse;
    }
    ratios.sort_by(f64::total_cmp);
    Ok(Measured {
        scenario: scenario.name,
        nanoseconds: percentiles(&all),
        parse_nanoseconds: percentiles(&all_parse),
        ratio: ratios[ratios.len() / 2],
    })
}

/// Times `each` over all frames, burst by burst; filling the buffers is not timed.
fn bursts(frames: &[Vec<u8>], times: &mut Times, mut each: impl FnMut(&mut Frame<'_>)) {
    let mut buffer = vec![[0; CHUNK]; BURST];
    for burst in frames.chunks_exact(BURST) {
        let mut burst: Vec<Frame<'_>> =
            buffer.iter_mut().zip(burst).map(|(chunk, frame)| load(chunk, frame)).collect();
        let start = Instant::now();
        for frame in &mut burst {
            each(frame);
        }
        times.saturating_record(start.elapsed().as_nanos() as u64);
    }
}

fn times() -> Times {
    const LONGEST: u64 = 10_000_000_000;
    const DIGITS: u8 = 3;
    Histogram::new_with_max(LONGEST, DIGITS).expect("valid bounds")
}

fn percentiles(times: &Times) -> Percentiles {
    let per_packet = |nanoseconds: u64| nanoseconds as f64 / BURST as f64;
    Percentiles {
        p50: per_packet(times.value_at_quantile(0.5)),
        p99: per_packet(times.value_at_quantile(0.99)),
        max: per_packet(times.max()),
    }
}
