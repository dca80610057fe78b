//! Times bursts, in turns with parsing alone.

use super::packet::{CHUNK, Frames, load};
use super::scenario::Scenario;
use super::world::{Cache, Sizes, Worker, World};
use crate::report::{Row, Summary};
use crate::{Progress, Turns};
use engine::Frame;
use hdrhistogram::Histogram;
use std::hint::black_box;
use std::time::Instant;

/// At least so many packets a turn, so that there are some hundred bursts to take percentiles of.
const PACKETS: usize = 400 * GROUP;
/// At least so many packets between two looks at the clock, which takes as long as a packet.
const GROUP: usize = 64;

/// Where and how it is measured.
#[derive(Clone, Copy)]
pub(super) struct Bench<'a> {
    pub(super) world: &'a World,
    pub(super) sizes: Sizes,
    /// Established flows that packets belong to in turns.
    pub(super) active: u32,
    /// Packets of a burst.
    pub(super) batch: usize,
    pub(super) rounds: u32,
    pub(super) progress: &'a Progress,
}

/// What a packet costs.
pub(super) struct Cost {
    pub(super) cache: Cache,
    /// Nanoseconds in the median burst.
    pub(super) p50: Summary,
    p99: Summary,
    max: Summary,
    /// The median's ratio to parsing alone.
    ratio: Summary,
}

impl Cost {
    pub(super) fn row(&self, what: impl Into<String>, variant: impl Into<String>) -> Row {
        Row::new(what, variant)
            .value("p50", "ns", self.p50)
            .value("p99", "ns", self.p99)
            .value("max", "ns", self.max)
            .ratio("p50", "parsing alone", self.ratio)
    }
}

impl Bench<'_> {
    /// Measures a scenario with each of these caches.
    ///
    /// # Errors
    /// If a packet does not get the verdict that the scenario is about.
    pub(super) fn measure(&self, scenario: Scenario, caches: &[Cache]) -> Result<Vec<Cost>, String> {
        let mut workers: Vec<Worker<'_>> = caches.iter().map(|&cache| self.world.worker(cache)).collect();
        let variants: Vec<Option<usize>> = [None].into_iter().chain((0..caches.len()).map(Some)).collect();
        let packets = PACKETS.max(self.active as usize).next_multiple_of(self.batch.max(GROUP));
        let mut preparing = self.world.worker(Cache::On);
        self.world.forget_verdicts();
        let mut frames = match scenario.is_first() {
            true => scenario.frames(&mut preparing, self.sizes, 0..packets as u32)?,
            false => scenario.frames(&mut preparing, self.sizes, 0..self.active)?,
        };
        let mut next = packets as u32;
        let turns = Turns::take(self.rounds, &variants, self.progress, |variant| {
            let mut wrong = None;
            let times = match *variant {
                None => self.bursts(&frames, packets, |burst| {
                    burst.iter().for_each(|frame| _ = black_box(wire::parse(frame.bytes())));
                }),
                Some(worker) => self.bursts(&frames, packets, |burst| {
                    workers[worker].process(frames.port, burst, |verdict| {
                        if !scenario.expects(verdict) {
                            wrong = Some(verdict);
                        }
                    });
                }),
            };
            if scenario.is_first() && variant.is_some() {
                frames.tuples().for_each(|tuple| self.world.forget(&tuple));
                // Others, whose memory is as far away as that of flows nobody has seen.
                frames = scenario.frames(&mut preparing, self.sizes, next..next + packets as u32)?;
                next += packets as u32;
            }
            match wrong {
                Some(verdict) => Err(format!("{}: a packet got the verdict {verdict:?}", scenario.name)),
                None => Ok(times),
            }
        })?;
        let per_packet = |times: &Histogram<u64>, quantile| {
            times.value_at_quantile(quantile) as f64 / self.batch.max(GROUP) as f64
        };
        let costs = caches.iter().enumerate().map(|(at, &cache)| Cost {
            cache,
            p50: turns.summary(at + 1, |times| per_packet(times, 0.5)),
            p99: turns.summary(at + 1, |times| per_packet(times, 0.99)),
            max: turns.summary(at + 1, |times| per_packet(times, 1.0)),
            ratio: turns.ratio(at + 1, 0, |times| per_packet(times, 0.5)),
        });
        Ok(costs.collect())
    }

    /// Times `each` over so many packets; filling the buffers is not timed.
    fn bursts(
        &self,
        frames: &Frames,
        packets: usize,
        mut each: impl FnMut(&mut [Frame<'_>]),
    ) -> Histogram<u64> {
        let mut times = histogram();
        let mut group = vec![[0; CHUNK]; self.batch.max(GROUP)];
        let mut source = frames.iter().cycle();
        for _ in 0..packets / group.len() {
            let mut group: Vec<Frame<'_>> =
                group.iter_mut().zip(&mut source).map(|(chunk, frame)| load(chunk, frame)).collect();
            let start = Instant::now();
            group.chunks_mut(self.batch).for_each(&mut each);
            times.saturating_record(start.elapsed().as_nanos() as u64);
        }
        times
    }
}

/// Of nanoseconds per burst.
pub(super) fn histogram() -> Histogram<u64> {
    const LONGEST: u64 = 10_000_000_000;
    const DIGITS: u8 = 3;
    Histogram::new_with_max(LONGEST, DIGITS).expect("valid bounds")
}
