//! Several workers at once.

use super::*;
use std::collections::HashSet;
use std::sync::Barrier;
use std::thread;

const WORKERS: u32 = 4;

/// Every field says who wrote it: a copy made of two writes does not pass [`is_whole`].
fn marked(tuple: Tuple, mark: u32) -> NewFlow {
    NewFlow {
        tuple,
        translated_from: Some((Address::v6(u128::from(mark) << 96 | u128::from(mark)), mark as u16)),
        service: mark,
        src_identity: Identity(mark.rotate_left(8)),
        dst_identity: Identity(!mark),
        generation: mark,
    }
}

fn is_whole(found: &Flow, asked: &Tuple) -> bool {
    let tuple = found.new.tuple;
    (tuple == *asked || tuple == asked.reversed()) && found.new == marked(tuple, found.new.service)
}

#[test]
fn no_copy_is_torn_and_no_key_is_there_twice() {
    const ROUNDS: u32 = 100_000;
    // Too small for all, so that workers keep evicting each other's flows.
    let table = Table::boxed(32, 5);
    let torn = thread::scope(|scope| {
        let work = |worker: u32| {
            let (table, mut random, mut torn) = (&table, u64::from(worker) + 1, 0);
            move || {
                for round in 0..ROUNDS {
                    random = random.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
                    let flow = tuple((random >> 40) as u32 % 48, Protocol::TCP);
                    let flow = if random >> 63 == 0 { flow } else { flow.reversed() };
                    let found = table.lookup(&flow, 1);
                    torn += u32::from(found.is_some_and(|(found, _)| !is_whole(&found, &flow)));
                    match (found, (random >> 33) % 4) {
                        (None, _) => _ = table.insert(&marked(flow, round * WORKERS + worker), 1),
                        (Some((found, side)), 0) => table.touch(found.id, side, ACK, 1, 1),
                        (Some((found, _)), 1) => _ = table.remove(found.id),
                        (Some((found, _)), 2) => table.restamp(found.id, found.new.generation),
                        (Some(_), _) => _ = table.sweep(0, 1, 1),
                    }
                }
                torn
            }
        };
        let workers: Vec<_> = (0..WORKERS).map(|worker| scope.spawn(work(worker))).collect();
        workers.into_iter().map(|worker| worker.join().unwrap()).sum::<u32>()
    });
    assert_eq!(torn, 0);
    let mut keys = HashSet::new();
    table.for_each(1, |flow, _| assert!(keys.insert(Key::new(&flow.new.tuple, Kind::Flow).words())));
    assert_eq!(table.stats().entries, keys.len());
    assert!(table.stats().evicted > 0);
}

#[test]
fn of_concurrent_inserts_of_one_flow_exactly_one_wins() {
    const ROUNDS: u32 = 2000;
    let table = Table::boxed(65_536, 5);
    let barrier = Barrier::new(WORKERS as usize);
    let wins = thread::scope(|scope| {
        let work = |worker: u32| {
            let (table, barrier) = (&table, &barrier);
            move || {
                let attempt = |round| {
                    let flow = tuple(round, Protocol::TCP);
                    let flow = if worker.is_multiple_of(2) { flow } else { flow.reversed() };
                    barrier.wait();
                    let won = table.insert(&marked(flow, worker), 1).is_ok();
                    // Who lost finds what the winner has made, now or once it is done.
                    barrier.wait();
                    assert!(is_whole(&table.lookup(&flow, 1).unwrap().0, &flow));
                    won
                };
                (0..ROUNDS).filter(|&round| attempt(round)).count()
            }
        };
        let workers: Vec<_> = (0..WORKERS).map(|worker| scope.spawn(work(worker))).collect();
        workers.into_iter().map(|worker| worker.join().unwrap()).sum::<usize>()
    });
    assert_eq!((wins, table.stats().entries), (ROUNDS as usize, ROUNDS as usize));
}

#[test]
fn no_count_is_lost() {
    let table = Table::boxed(8, 5);
    let id = table.insert(&flow(tuple(1, Protocol::TCP)), 0).unwrap();
    thread::scope(|scope| {
        for worker in 0..WORKERS {
            let (table, side) = (&table, if worker.is_multiple_of(2) { Side::Original } else { Side::Reply });
            scope.spawn(move || {
                (0..10_000).for_each(|n| table.touch(id, side, if n % 2 == 0 { ACK } else { FIN }, 10, n))
            });
        }
    });
    let (found, _) = table.lookup(&tuple(1, Protocol::TCP), 0).unwrap();
    let per_side = crate::Count { packets: 20_000, bytes: 200_000 };
    assert_eq!((found.original, found.reply), (per_side, per_side));
    assert!(found.state.closed() && found.state.replied);
}
