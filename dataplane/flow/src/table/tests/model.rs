//! Any sequence of operations does what a plain map would do.

use super::*;
use crate::Count;
use proptest::prelude::*;
use std::collections::HashMap;

#[derive(Clone, Debug)]
enum Op {
    Insert { tuple: Tuple, translated: bool, generation: u32 },
    InsertService { client: Tuple, backend: Tuple },
    Touch { tuple: Tuple, flags: u8, bytes: u32 },
    TouchService { client: Tuple, flags: u8, bytes: u32 },
    Restamp { tuple: Tuple, generation: u32 },
    Remove { tuple: Tuple },
    Sweep,
    Wait { seconds: u32 },
}

const FRONTEND: (Address, u16) = (Address::v4(0x0a60_0001), 6379);

/// Few flows, both directions of them.
fn tuples() -> impl Strategy<Value = Tuple> {
    let proto = prop::sample::select(vec![Protocol::TCP, Protocol::UDP, Protocol::ICMP]);
    (0..3_u32, proto, any::<bool>()).prop_map(|(n, proto, reply)| {
        let tuple = tuple(n * 5, proto);
        if reply { tuple.reversed() } else { tuple }
    })
}

fn client_of(backend: Tuple) -> Tuple {
    Tuple { dst: FRONTEND.0, dport: FRONTEND.1, ..backend }
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let flags = || prop::sample::select(vec![0x02_u8, 0x12, 0x10, 0x11, 0x04, 0x14]);
    let wait = prop::sample::select(vec![0_u32, 1, 9, 10, 59, 60, 61, 7999, 8000]);
    let op = prop_oneof![
        3 => (tuples(), any::<bool>(), 0..3_u32)
            .prop_map(|(tuple, translated, generation)| Op::Insert { tuple, translated, generation }),
        1 => (tuples(), tuples()).prop_map(|(client, backend)| Op::InsertService { client: client_of(client), backend }),
        1 => tuples().prop_map(|tuple| Op::InsertService { client: client_of(tuple), backend: tuple }),
        6 => (tuples(), flags(), 0..2000_u32).prop_map(|(tuple, flags, bytes)| Op::Touch { tuple, flags, bytes }),
        1 => (tuples(), flags(), 0..2000_u32)
            .prop_map(|(tuple, flags, bytes)| Op::TouchService { client: client_of(tuple), flags, bytes }),
        1 => (tuples(), 0..3_u32).prop_map(|(tuple, generation)| Op::Restamp { tuple, generation }),
        1 => tuples().prop_map(|tuple| Op::Remove { tuple }),
        1 => Just(Op::Sweep),
        4 => wait.prop_map(|seconds| Op::Wait { seconds }),
    ];
    prop::collection::vec(op, 1..80)
}

#[derive(Clone, Debug)]
struct Entry {
    new: NewFlow,
    state: State,
    created: u64,
    last_seen: u64,
    counts: [Count; 2],
}

impl Entry {
    fn new(new: NewFlow, now: u64) -> Entry {
        Entry { new, state: State::default(), created: now, last_seen: now, counts: Default::default() }
    }

    fn expires(&self) -> u64 {
        self.last_seen
            + match self.new.tuple.proto {
                Protocol::TCP if self.state.original_closing && self.state.reply_closing => 10,
                Protocol::TCP if self.state.seen_non_syn => 8000,
                _ => 60,
            }
    }

    /// True if its activity changed.
    fn touch(&mut self, side: Side, flags: u8, bytes: u32, now: u64) -> bool {
        let count = &mut self.counts[usize::from(side == Side::Reply)];
        count.packets += 1;
        count.bytes += u64::from(bytes);
        let before = (self.state, self.last_seen);
        match self.new.tuple.proto {
            Protocol::TCP if self.state.closed() => {}
            Protocol::TCP => (self.state, self.last_seen) = (self.state.after_segment(side, flags), now),
            _ => (self.state.replied, self.last_seen) = (self.state.replied || side == Side::Reply, now),
        }
        before != (self.state, self.last_seen)
    }
}

/// The naive table: flows under both tuples' smaller spelling, services under the client's.
#[derive(Default)]
struct Model {
    flows: HashMap<Tuple, Entry>,
    services: HashMap<Tuple, Entry>,
}

fn canonical(tuple: Tuple) -> Tuple {
    let reversed = tuple.reversed();
    if (tuple.src, tuple.sport) <= (reversed.src, reversed.sport) { tuple } else { reversed }
}

impl Model {
    fn expire(&mut self, now: u64) {
        self.flows.retain(|_, entry| entry.expires() > now);
        self.services.retain(|_, entry| entry.expires() > now);
    }

    fn touch(&mut self, tuple: Tuple, flags: u8, bytes: u32, now: u64) {
        let Some(entry) = self.flows.get_mut(&canonical(tuple)) else { return };
        let side = if entry.new.tuple == tuple { Side::Original } else { Side::Reply };
        if entry.touch(side, flags, bytes, now) && entry.new.translated_from.is_some() {
            let flow = entry.new.tuple;
            if let Some(service) = self.services.get_mut(&client_of(flow))
                && service.new.translated_from == Some((flow.dst, flow.dport))
            {
                (service.state, service.last_seen) = (entry.state, entry.last_seen);
            }
        }
    }
}

fn service(client: Tuple, backend: Tuple) -> NewFlow {
    NewFlow {
        translated_from: Some((backend.dst, backend.dport)),
        service: 5,
        src_identity: Identity::UNKNOWN,
        dst_identity: Identity::UNKNOWN,
        generation: 0,
        ..flow(client)
    }
}

/// Does it to both; the model has no expired entries.
fn apply(op: Op, table: &Table, model: &mut Model, now: u64) -> Result<(), TestCaseError> {
    let clock = now as Seconds;
    match op {
        Op::Insert { tuple, translated, generation } => {
            let new = NewFlow { translated_from: translated.then_some(FRONTEND), generation, ..flow(tuple) };
            let fresh = !model.flows.contains_key(&canonical(tuple));
            prop_assert_eq!(table.insert(&new, clock).map_err(|e| (e, fresh)).is_ok(), fresh);
            model.flows.entry(canonical(tuple)).or_insert(Entry::new(new, now));
        }
        Op::InsertService { client, backend } => {
            let fresh = !model.services.contains_key(&client);
            let inserted = table.insert_service(&client, (backend.dst, backend.dport), 5, clock);
            prop_assert_eq!(inserted.is_ok(), fresh);
            model.services.entry(client).or_insert(Entry::new(service(client, backend), now));
        }
        Op::Touch { tuple, flags, bytes } => {
            if let Some((found, side)) = table.lookup(&tuple, clock) {
                table.touch(found.id, side, flags, bytes, clock);
            }
            model.touch(tuple, flags, bytes, now);
        }
        Op::TouchService { client, flags, bytes } => {
            if let Some((id, ..)) = table.lookup_service(&client, clock) {
                table.touch(id, Side::Original, flags, bytes, clock);
            }
            if let Some(entry) = model.services.get_mut(&client) {
                entry.touch(Side::Original, flags, bytes, now);
            }
        }
        Op::Restamp { tuple, generation } => {
            if let Some((found, _)) = table.lookup(&tuple, clock) {
                table.restamp(found.id, generation);
            }
            if let Some(entry) = model.flows.get_mut(&canonical(tuple)) {
                entry.new.generation = generation;
            }
        }
        Op::Remove { tuple } => {
            let removed = table.lookup(&tuple, clock).is_some_and(|(found, _)| table.remove(found.id));
            prop_assert_eq!(removed, model.flows.remove(&canonical(tuple)).is_some());
        }
        Op::Sweep => {
            table.sweep(0, usize::MAX, clock);
            prop_assert_eq!(table.stats().entries, model.flows.len() + model.services.len());
        }
        Op::Wait { .. } => {}
    }
    Ok(())
}

fn check(found: &Flow, entry: &Entry) -> Result<(), TestCaseError> {
    prop_assert_eq!(found.new, entry.new);
    prop_assert_eq!(found.state, entry.state);
    prop_assert_eq!(found.created, entry.created as Seconds);
    prop_assert_eq!(found.last_seen, entry.last_seen as Seconds);
    prop_assert_eq!(found.expires, entry.expires() as Seconds);
    prop_assert_eq!([found.original, found.reply], entry.counts);
    Ok(())
}

proptest! {
    /// The clock wraps on the way.
    #[test]
    fn equals_a_map(ops in ops(), seed: u64, start in (u64::from(u32::MAX) - 9000)..(1 << 32)) {
        let table = Table::boxed(256, seed);
        let (mut model, mut now) = (Model::default(), start);
        for op in ops {
            if let Op::Wait { seconds } = op {
                now += u64::from(seconds);
            }
            model.expire(now);
            apply(op, &table, &mut model, now)?;
            let mut listed = Vec::new();
            table.for_each(now as Seconds, |flow, is_service| listed.push((*flow, is_service)));
            prop_assert_eq!(listed.len(), model.flows.len() + model.services.len());
            for (found, is_service) in listed {
                let tuple = found.new.tuple;
                let entry = if is_service { model.services.get(&tuple) } else { model.flows.get(&canonical(tuple)) };
                check(&found, entry.unwrap())?;
                if !is_service {
                    prop_assert_eq!(table.lookup(&tuple, now as Seconds), Some((found, Side::Original)));
                    prop_assert_eq!(table.lookup(&tuple.reversed(), now as Seconds), Some((found, Side::Reply)));
                }
            }
        }
        prop_assert_eq!((table.stats().evicted, table.stats().full), (0, 0));
    }
}
