//! Who goes when there is no room.

use super::*;
use proptest::prelude::*;

fn live(table: &Table, now: Seconds) -> Vec<u32> {
    let mut live = Vec::new();
    table.for_each(now, |flow, _| live.push(flow.new.service));
    live.sort();
    live
}

/// A flow that can be told from the others by its service number.
fn numbered(n: u32) -> NewFlow {
    NewFlow { service: n, ..flow(tuple(n, Protocol::UDP)) }
}

proptest! {
    #[test]
    fn the_oldest_unreplied_flow_goes_first(steps in prop::collection::vec((1..25_u32, any::<bool>(), 0..12_usize), 1..120)) {
        const SLOTS: usize = 8;
        let table = Table::boxed(SLOTS, 3);
        let mut model: Vec<(u32, Seconds, bool)> = Vec::new();
        let (mut now, mut evicted, mut full) = (0, 0, 0);
        for (number, (wait, reply, which)) in (0..).zip(steps) {
            now += wait;
            // A flow lives on by its packets: here every one has one at each step but lone ones.
            model.retain(|&(_, last_seen, _)| now - last_seen < 60);
            if reply && which < model.len() {
                let (n, last_seen, replied) = &mut model[which];
                let (found, side) = table.lookup(&tuple(*n, Protocol::UDP).reversed(), now).unwrap();
                table.touch(found.id, side, 0, 1, now);
                (*last_seen, *replied) = (now, true);
            } else {
                if model.len() == SLOTS {
                    // Kept in order of creation.
                    match model.iter().position(|(_, _, replied)| !replied) {
                        Some(oldest) => {
                            model.remove(oldest);
                            evicted += 1;
                        }
                        None => full += 1,
                    }
                }
                let fits = model.len() < SLOTS;
                prop_assert_eq!(table.insert(&numbered(number), now).is_ok(), fits);
                if fits {
                    model.push((number, now, false));
                }
            }
            let mut expected: Vec<u32> = model.iter().map(|(n, ..)| *n).collect();
            expected.sort();
            prop_assert_eq!(live(&table, now), expected);
        }
        prop_assert_eq!((table.stats().evicted, table.stats().full), (evicted, full));
    }

}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    #[test]
    fn replied_flows_survive_a_flood(seed: u64, established in 100..500_u32) {
        let table = Table::boxed(1024, seed);
        for n in 0..established {
            let id = table.insert(&numbered(n), 0).unwrap();
            table.touch(id, Side::Reply, 0, 1, 0);
        }
        for n in 0..4000 {
            let attack = Tuple { proto: Protocol::TCP, ..tuple(n, Protocol::TCP) };
            if let Ok(id) = table.insert(&flow(attack), n / 200) {
                table.touch(id, Side::Original, SYN, 60, n / 200);
            }
        }
        prop_assert!(table.stats().evicted > 0);
        prop_assert!(table.stats().entries <= table.stats().capacity);
        for n in 0..established {
            prop_assert!(table.lookup(&tuple(n, Protocol::UDP), 20).is_some());
        }
    }
}

#[test]
fn fills_to_seven_tenths_without_a_loss() {
    let table = Table::boxed(8192, 99);
    for n in 0..8192 * 7 / 10 {
        let id = table.insert(&numbered(n), 0).unwrap();
        table.touch(id, Side::Reply, 0, 1, 0);
    }
    assert_eq!((table.stats().evicted, table.stats().full), (0, 0));
}
