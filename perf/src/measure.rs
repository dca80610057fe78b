//! Times bursts.

use crate::report::{Findings, Row, Section, Summary};
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
pub fn pipeline(sizes: Sizes, active: u16, rounds: u32) -> Result<Findings, String> {
    let mut world = World::new(sizes);
    let mut section = Section::new(
        "Pipeline alone, in memory",
        &["nanoseconds per packet, over bursts of 64, in turns with parsing alone"],
    );
    for scenario in &SCENARIOS {
        section.rows.push(measure(&mut world, scenario, active, rounds)?);
    }
    Ok(Findings { sections: vec![section], goals: Vec::new() })
}

fn measure(world: &mut World, scenario: &Scenario, active: u16, rounds: u32) -> Result<Row, String> {
    let frames = scenario.frames(FRAMES, active);
    let (mut parsed, mut processed) = (Vec::new(), Vec::new());
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
        parsed.push(parse);
        processed.push(process);
    }
    let at = |times: &[Times], quantile| {
        let values: Vec<f64> =
            times.iter().map(|times| times.value_at_quantile(quantile) as f64 / BURST as f64).collect();
        values
    };
    let of = |quantile| Summary::of(at(&processed, quantile));
    let ratio = Summary::of_ratios(at(&processed, 0.5), at(&parsed, 0.5));
    Ok(Row::new(scenario.name, "")
        .value("p50", "ns", of(0.5))
        .value("p99", "ns", of(0.99))
        .value("max", "ns", of(1.0))
        .ratio("p50", "parsing", ratio))
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
