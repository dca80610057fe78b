//! Workers, a revalidator and restless slots at once.

use super::*;
use core::sync::atomic::AtomicBool;
use core::sync::atomic::Ordering::{Acquire, Release};
use std::thread;

/// The tables of generation `g` give packets with key `n` this variant.
fn variant(n: u8, generation: u32) -> u8 {
    ((u32::from(n) + generation / 8) % 3) as u8
}

/// Workers that are waited for before memory is used again, as programs of the kernel are.
struct Rounds([AtomicU32; WORKERS]);

impl Rounds {
    /// Waits until every worker has begun another round, unless all is over.
    fn wait(&self, done: &AtomicBool) {
        let before: Vec<u32> = self.0.iter().map(|round| round.load(Acquire)).collect();
        for (round, before) in self.0.iter().zip(before) {
            while round.load(Acquire) == before && !done.load(Acquire) {
                thread::yield_now();
            }
        }
    }
}

const WORKERS: usize = 3;
const PASSES: usize = 100;

/// Ends all when it is dropped, by a panic too.
struct End<'a>(&'a AtomicBool);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.store(true, Release);
    }
}

struct World {
    table: Table,
    published: AtomicU32,
    rounds: Rounds,
    done: AtomicBool,
}

impl World {
    /// Uses, writes and removes until all is done; returns how many packets verdicts were used for.
    fn work(&self, worker: usize) -> u64 {
        let World { table, published, rounds, done } = self;
        let _end = End(done);
        let (mut used, mut round) = (0, 0);
        while !done.load(Acquire) {
            round += 1;
            rounds.0[worker].store(round, Release);
            let generation = published.load(Relaxed);
            let n = (round as usize * 7 + worker) as u8 % 24;
            let expected = verdict(n, variant(n, generation), u64::MAX, generation);
            if let Some(hit) = find(table, n, generation, round.into()) {
                assert_eq!((hit.exit, hit.to), (expected.exit, expected.to));
                assert_eq!(hit.rewrite.of(&expected.key.tuple), expected.tuple);
                hit.count(1, round.into());
                used += 1;
            } else if round % 17 == 0 {
                table.remove(&expected.key.tuple);
            } else {
                // Time for tables to change.
                thread::yield_now();
                table.insert(&expected, round.into());
            }
        }
        used
    }

    /// Publishes tables and holds verdicts against them; returns how many packets were accounted.
    fn look_after(&self) -> u64 {
        let World { table, published, rounds, done } = self;
        let _end = End(done);
        let mut accounted = 0;
        for _ in 0..PASSES {
            (0..30).for_each(|_| rounds.wait(done));
            let generation = published.fetch_add(1, Relaxed) + 1;
            let holds = |found: &Verdict| {
                let n = found.flow.slot as u8;
                *found == verdict(n, variant(n, generation), u64::MAX, found.generation)
            };
            table.revalidate(generation, |_| true, |_| {}, holds);
            let retired = table.retired();
            rounds.wait(done);
            table
                .for_each(|verdict, _| assert!(holds(verdict), "slipped in under {generation}: {verdict:?}"));
            table.account(|usage| accounted += usage.packets);
            table.recycle(retired, |usage| accounted += usage.packets);
        }
        accounted
    }
}

/// Whoever looks a verdict up finds one that is right under the tables it has, in one piece; what
/// tables have overruled does not come back; every use is accounted. All fight for a few slots.
#[test]
fn nobody_sees_half_a_verdict_or_one_of_other_tables() {
    let world = &World {
        table: Table::over(memory::zeroed(SLOTS * WORDS), true),
        published: AtomicU32::new(1),
        rounds: Rounds(Default::default()),
        done: AtomicBool::new(false),
    };
    let (used, mut accounted) = thread::scope(|scope| {
        let workers: Vec<_> = (0..WORKERS).map(|worker| scope.spawn(move || world.work(worker))).collect();
        let looks_after = scope.spawn(|| world.look_after());
        let accounted = looks_after.join().unwrap();
        (workers.into_iter().map(|worker| worker.join().unwrap()).sum::<u64>(), accounted)
    });
    let mut add = |usage: &Usage| accounted += usage.packets;
    world.table.account(&mut add);
    world.table.recycle(world.table.retired(), add);
    assert!(used > 0);
    assert_eq!(accounted, used);
}
