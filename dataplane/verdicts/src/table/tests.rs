use super::*;
use crate::{Exit, Usage};
use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use flow::{FlowId, Side};
use proptest::prelude::*;
use wire::{Address, Protocol};

mod stress;

const SLOTS: usize = 16;
const MAC: MacAddr = MacAddr([2, 0, 0, 0, 0, 1]);
const SECOND: Nanoseconds = 1_000_000_000;

fn key(n: u8) -> Key {
    let (src, dst) = if n.is_multiple_of(2) {
        (Address::v4(0x0a00_0000 + u32::from(n)), Address::v4(0x0a00_00ff))
    } else {
        (Address::v6(0xfd << 120 | u128::from(n)), Address::v6(0xfd << 120 | 0xff))
    };
    let proto = if n.is_multiple_of(3) { Protocol::TCP } else { Protocol::UDP };
    let tuple = Tuple { src, dst, sport: 0x1234, dport: 80 + u16::from(n / 4), proto };
    Key { ifindex: 7 + u32::from(n % 3), tuple }
}

/// A verdict about key `n` in one of some variants.
fn verdict(n: u8, variant: u8, lifetime: Nanoseconds, generation: u32) -> Verdict {
    let key = key(n);
    let other = if key.tuple.src.is_v4() { Address::v4(0x0b00_0001) } else { Address::v6(0xfe << 120 | 1) };
    let (tuple, exit) = match variant {
        0 => (key.tuple, Exit::Pod { ifindex: 0x0102_0304 }),
        1 => (Tuple { dst: other, dport: 0xabcd, ..key.tuple }, Exit::Pod { ifindex: 9 }),
        _ => (Tuple { src: other, ..key.tuple }, Exit::Uplink { index: 3, ifindex: 0x0506 }),
    };
    Verdict {
        key,
        expect: MAC,
        mtu: 9000,
        tuple,
        exit,
        to: MacAddr([0xa2, 0xb3, 0xc4, 0xd5, 0xe6, 0xf7]),
        from: MacAddr([0x12, 0x23, 0x34, 0x45, 0x56, 0x67]),
        flow: FlowId { slot: n.into(), version: 0xdead_beef },
        side: if variant == 2 { Side::Reply } else { Side::Original },
        lifetime,
        generation,
    }
}

fn find<'a>(table: &'a Table, n: u8, generation: u32, now: Nanoseconds) -> Option<Hit<'a>> {
    table.lookup(&table.probe(&key(n), MAC), generation, now)
}

#[test]
fn a_verdict_reads_as_it_was_written() {
    for variant in 0..3 {
        for n in 0..12 {
            let table = Table::boxed(SLOTS);
            let written = verdict(n, variant, 5 * SECOND, 9);
            assert_eq!(table.insert(&written, 0), Inserted::New);
            let mut read = Vec::new();
            table.for_each(|verdict, _| read.push(*verdict));
            assert_eq!(read, [written]);
            let probe = table.probe(&written.key, MAC);
            let hit = table.lookup(&probe, 9, 0).unwrap();
            assert_eq!(probe.tuple(), written.key.tuple);
            assert_eq!(hit.rewrite.of(&written.key.tuple), written.tuple);
            assert_eq!((hit.mtu, hit.exit, hit.to, hit.from), (9000, written.exit, written.to, written.from));
        }
    }
}

#[test]
fn only_the_same_packets_find_it() {
    let table = Table::boxed(SLOTS);
    table.insert(&verdict(1, 0, 5 * SECOND, 9), 10);
    let Key { ifindex, tuple } = key(1);
    let others = [
        Key { ifindex: ifindex + 1, tuple },
        Key { ifindex, tuple: Tuple { src: Address(tuple.src.0 ^ 1 << 127), ..tuple } },
        Key { ifindex, tuple: Tuple { dst: Address(tuple.dst.0 ^ 1), ..tuple } },
        Key { ifindex, tuple: Tuple { sport: tuple.sport ^ 1, ..tuple } },
        Key { ifindex, tuple: Tuple { dport: tuple.dport ^ 0x100, ..tuple } },
        Key { ifindex, tuple: Tuple { proto: Protocol::TCP, ..tuple } },
        Key { ifindex, tuple: tuple.reversed() },
    ];
    for key in others {
        assert!(table.lookup(&table.probe(&key, MAC), 9, 10).is_none(), "{key:?}");
    }
    assert!(table.lookup(&table.probe(&key(1), MacAddr([2; 6])), 9, 10).is_none());
    assert!(find(&table, 1, 8, 10).is_none() && find(&table, 1, 10, 10).is_none());
    assert!(
        find(&table, 1, 9, 10 + 5 * SECOND - 1).is_some() && find(&table, 1, 9, 10 + 5 * SECOND).is_none()
    );
}

#[test]
fn what_idles_makes_room() {
    let table = Table::boxed(1);
    assert_eq!(table.insert(&verdict(0, 0, SECOND, 1), 0), Inserted::New);
    assert_eq!(table.insert(&verdict(2, 0, SECOND, 1), IDLE), Inserted::Refused);
    assert!(find(&table, 0, 1, 0).is_some());
    assert_eq!(table.insert(&verdict(2, 0, SECOND, 1), IDLE + 1), Inserted::Refused);
    assert!(find(&table, 0, 1, 0).is_none());
    assert_eq!(table.insert(&verdict(2, 0, SECOND, 1), IDLE + 1), Inserted::Refused, "not recycled yet");
    table.recycle(table.retired(), |_| {});
    assert_eq!(table.insert(&verdict(2, 0, SECOND, 1), IDLE + 1), Inserted::New);
    let stats = table.stats();
    assert_eq!((stats.capacity, stats.entries, stats.retired), (1, 1, 0));
    assert_eq!((stats.inserted, stats.removed, stats.full), (2, 1, 3));
}

#[test]
fn a_worker_with_older_tables_comes_too_late() {
    let table = Table::boxed(SLOTS);
    table.insert(&verdict(0, 0, SECOND, u32::MAX), 0);
    let found = table.revalidate(0, |_| true, |_| {}, |_| true);
    assert_eq!((found.confirmed, found.revoked), (1, 0));
    assert_eq!(table.insert(&verdict(1, 0, SECOND, u32::MAX), 0), Inserted::Refused);
    assert_eq!(table.insert(&verdict(2, 0, SECOND, 0), 0), Inserted::New);
    assert_eq!(table.insert(&verdict(3, 0, SECOND, 1), 0), Inserted::New);
    assert_eq!(asked(&table, 1), [0, 2], "the other one was made under these tables");
}

/// Whose verdicts are asked about in a pass that confirms all. All of them are known ahead.
fn asked(table: &Table, generation: u32) -> Vec<u32> {
    let (mut ahead, mut asked) = (Vec::new(), Vec::new());
    let tell = |some: &[Verdict]| ahead.extend(some.iter().map(|verdict| verdict.flow.slot));
    table.revalidate(
        generation,
        |verdict| verdict.flow.slot < 100,
        tell,
        |verdict| {
            asked.push(verdict.flow.slot);
            true
        },
    );
    assert_eq!(ahead, asked);
    asked.sort();
    asked
}

#[test]
fn a_pass_asks_about_each_doubtful_verdict_once() {
    let table = Table::boxed(1024);
    for n in 0..200 {
        assert_eq!(table.insert(&verdict(n, 0, SECOND, 0), 0), Inserted::New, "{n}");
    }
    assert_eq!(asked(&table, 1), (0..100).collect::<Vec<u32>>());
    assert!(asked(&table, 1).is_empty(), "the others hold without a question");
}

#[test]
fn nobody_confirms_what_has_taken_a_slot_since() {
    let table = Table::boxed(1);
    table.insert(&verdict(0, 0, SECOND, 1), 0);
    let (slot, before) = (table.slot(0), table.slot(0).tag());
    table.flush();
    table.recycle(table.retired(), |_| {});
    table.insert(&verdict(2, 0, SECOND, 1), 0);
    slot.confirm(before, 2);
    assert!(find(&table, 2, 1, 0).is_some());
    slot.confirm(slot.tag(), 2);
    assert!(find(&table, 2, 1, 0).is_none() && find(&table, 2, 2, 0).is_some());
}

#[derive(Clone, Debug)]
enum Op {
    Insert {
        n: u8,
        variant: u8,
        lifetime: Nanoseconds,
        age: u32,
    },
    Use {
        n: u8,
        bytes: u64,
    },
    Remove(u8),
    Account,
    /// New tables, under which verdicts about these keys do not hold.
    Revalidate(u8),
    Flush,
    Recycle,
    /// The process ends, and another takes its memory over.
    Restart,
    Wait(Nanoseconds),
}

fn any_op() -> impl Strategy<Value = Op> {
    let n = 0..24u8;
    let lifetime = prop::sample::select(std::vec![SECOND / 2, 5 * SECOND, 100 * SECOND]);
    prop_oneof![
        8 => (n.clone(), 0..3u8, lifetime, prop_oneof![4 => Just(0), 1 => 1..3u32])
            .prop_map(|(n, variant, lifetime, age)| Op::Insert { n, variant, lifetime, age }),
        8 => (n.clone(), 40..1500u64).prop_map(|(n, bytes)| Op::Use { n, bytes }),
        2 => n.clone().prop_map(Op::Remove),
        2 => Just(Op::Account),
        1 => n.prop_map(Op::Revalidate),
        1 => Just(Op::Flush),
        3 => Just(Op::Recycle),
        1 => Just(Op::Restart),
        3 => (0..3 * SECOND).prop_map(Op::Wait),
    ]
}

/// What the table should hold.
#[derive(Default)]
struct Model {
    verdicts: BTreeMap<u8, (Verdict, Nanoseconds)>,
    used: BTreeMap<u32, (u64, u64)>,
    accounted: BTreeMap<u32, (u64, u64)>,
    generation: u32,
    required: Option<u32>,
    now: Nanoseconds,
}

impl Model {
    fn insert(&mut self, table: &Table, n: u8, verdict: &Verdict) {
        let same = self.verdicts.get(&n).is_some_and(|(old, _)| {
            Verdict { lifetime: old.lifetime, generation: old.generation, ..*verdict } == *old
        });
        let full = table.stats().full;
        let outcome = table.insert(verdict, self.now);
        if same {
            assert_eq!(outcome, Inserted::Refreshed);
            self.verdicts.insert(n, (*verdict, self.now));
            return;
        }
        self.verdicts.remove(&n);
        let outdated = self.required.is_some_and(|required| verdict.generation < required);
        let had_room = table.stats().full == full;
        assert_eq!(outcome == Inserted::New, had_room && !outdated, "{outcome:?}");
        if outcome == Inserted::New {
            self.verdicts.insert(n, (*verdict, self.now));
        }
        if !had_room {
            let (now, before) = (self.now, self.verdicts.len());
            self.verdicts.retain(|_, (verdict, used)| {
                let mut there = false;
                table.for_each(|other, _| there |= other == verdict);
                there || now - *used <= IDLE
            });
            assert!(before - self.verdicts.len() <= 1, "more than one made room");
        }
    }

    fn account(&mut self, usage: &Usage) {
        let (packets, bytes) = self.accounted.entry(usage.verdict.flow.slot).or_default();
        *packets += usage.packets;
        *bytes += usage.bytes;
    }

    fn check(&self, table: &Table) {
        let mut found = Vec::new();
        table.for_each(|verdict, _| found.push(*verdict));
        found.sort_by_key(|verdict| verdict.flow.slot);
        let expected: Vec<Verdict> = self.verdicts.values().map(|(verdict, _)| *verdict).collect();
        assert_eq!(found, expected);
        assert_eq!(table.stats().entries, expected.len());
        for n in 0..24 {
            let good = self.verdicts.get(&n).is_some_and(|(verdict, used)| {
                verdict.generation == self.generation && self.now - used < verdict.lifetime
            });
            assert_eq!(find(table, n, self.generation, self.now).is_some(), good, "{n}");
        }
    }
}

fn run(ops: &[Op]) {
    let words = memory::zeroed(SLOTS * WORDS);
    let mut table = Table::over(words, false);
    let mut model = Model { generation: 5, ..Model::default() };
    for op in ops {
        match *op {
            Op::Insert { n, variant, lifetime, age } => {
                let verdict = verdict(n, variant, lifetime, model.generation - age.min(model.generation));
                model.insert(&table, n, &verdict);
            }
            Op::Use { n, bytes } => {
                if let Some(hit) = find(&table, n, model.generation, model.now) {
                    hit.count(bytes, model.now);
                    let (packets, total) = model.used.entry(n.into()).or_default();
                    *packets += 1;
                    *total += bytes;
                    model.verdicts.get_mut(&n).unwrap().1 = model.now;
                }
            }
            Op::Remove(n) => {
                table.remove(&key(n).tuple);
                model.verdicts.remove(&n);
            }
            Op::Account => {
                let mut expired = Vec::new();
                let now = model.now;
                table.account(|usage| {
                    model.account(usage);
                    if now - usage.last_used >= usage.verdict.lifetime {
                        expired.push(usage.id());
                    }
                });
                assert!(expired.iter().all(|&id| table.take_back(id)));
                assert!(!expired.iter().any(|&id| table.take_back(id)));
                model.verdicts.retain(|_, (verdict, used)| now - *used < verdict.lifetime);
            }
            Op::Revalidate(not) => {
                model.generation += 1;
                model.required = Some(model.generation);
                let generation = model.generation;
                let holds = |verdict: &Verdict| verdict.flow.slot != u32::from(not);
                table.revalidate(generation, |_| true, |_| {}, holds);
                model.verdicts.remove(&not);
                model.verdicts.values_mut().for_each(|(verdict, _)| verdict.generation = generation);
            }
            Op::Flush => {
                table.flush();
                model.verdicts.clear();
            }
            Op::Recycle => table.recycle(table.retired(), |usage| model.account(usage)),
            Op::Restart => {
                table = Table::over(words, true);
                model.required = None;
            }
            Op::Wait(time) => model.now += time,
        }
        model.check(&table);
    }
    table.flush();
    table.recycle(table.retired(), |usage| model.account(usage));
    model.accounted.retain(|_, used| *used != (0, 0));
    assert_eq!(model.accounted, model.used);
    assert_eq!((table.stats().entries, table.stats().retired), (0, 0));
    assert!(words.iter().step_by(WORDS).all(|tag| tag.load(Relaxed) & 0xff == 0));
}

proptest! {
    #[test]
    fn the_table_does_what_the_model_does(ops in prop::collection::vec(any_op(), 1..120)) {
        run(&ops);
    }
}
