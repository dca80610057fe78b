use super::*;
use crate::tcp::State;
use wire::Protocol;
use wire::parse::tcp::{ACK, FIN, RST, SYN};

mod attach;
mod evict;
mod model;
mod stress;

/// A flow of client `n`.
fn tuple(n: u32, proto: Protocol) -> Tuple {
    let (src, dst) = (Address::v4(0x0a00_0000 + n / 4), Address::v4(0x0a00_0002));
    Tuple { src, dst, sport: 30000 + (n % 4) as u16, dport: 80, proto }
}

fn flow(tuple: Tuple) -> NewFlow {
    NewFlow {
        tuple,
        translated_from: None,
        service: 0,
        src_identity: Identity(1),
        dst_identity: Identity(2),
        generation: 1,
    }
}

#[test]
fn both_directions_find_the_flow() {
    let table = Table::boxed(64, 7);
    let v6 = |n: u128| Address::v6((0xfd00 << 112) + n);
    let v6 = Tuple { src: v6(9), dst: v6(1), sport: 5, dport: 6, proto: Protocol::UDP };
    let to_itself = Tuple { dst: v6.src, dport: v6.sport, ..v6 };
    for tuple in [tuple(1, Protocol::TCP), tuple(1, Protocol::UDP), v6, to_itself] {
        let new = NewFlow {
            translated_from: Some((Address::v4(0xffff_ffff), 0xffff)),
            service: u32::MAX,
            ..flow(tuple)
        };
        let id = table.insert(&new, 100).unwrap();
        let (found, side) = table.lookup(&tuple, 100).unwrap();
        assert_eq!((found.id, found.new, side), (id, new, Side::Original));
        let reply_side = if tuple == tuple.reversed() { Side::Original } else { Side::Reply };
        assert_eq!(table.lookup(&tuple.reversed(), 100), Some((found, reply_side)));
        assert_eq!(table.insert(&flow(tuple.reversed()), 100), Err(InsertError::Busy));
    }
    assert_eq!(table.stats().entries, 4);
}

#[test]
fn a_stale_name_does_nothing() {
    let table = Table::boxed(8, 7);
    let old = table.insert(&flow(tuple(1, Protocol::TCP)), 1).unwrap();
    assert!(table.remove(old));
    let new = table.insert(&flow(tuple(1, Protocol::TCP)), 1).unwrap();
    assert_eq!(new.slot, old.slot);
    table.touch(old, Side::Reply, FIN, 100, 50);
    table.restamp(old, 9);
    assert!(!table.remove(old));
    let (found, _) = table.lookup(&tuple(1, Protocol::TCP), 1).unwrap();
    assert_eq!((found.id, found.state, found.reply.packets, found.last_seen), (new, State::default(), 0, 1));
    assert_eq!(found.new.generation, 1);
    table.touch(FlowId { slot: u32::MAX, version: 1 }, Side::Reply, 0, 1, 1);
}

#[test]
fn a_service_entry_lives_and_dies_with_its_flow() {
    let table = Table::boxed(64, 7);
    let client = Tuple { dst: Address::v4(1), dport: 6379, ..tuple(1, Protocol::TCP) };
    let backend = tuple(1, Protocol::TCP);
    table.insert_service(&client, (backend.dst, backend.dport), 3, 0).unwrap();
    let new = NewFlow { translated_from: Some((client.dst, client.dport)), service: 3, ..flow(backend) };
    let id = table.insert(&new, 0).unwrap();
    let known =
        |now| table.lookup_service(&client, now).map(|(_, address, port, service)| (address, port, service));
    let expected = Some((backend.dst, backend.dport, 3));

    table.touch(id, Side::Original, SYN, 60, 0);
    assert_eq!((known(59), known(60)), (expected, None));
    table.touch(id, Side::Original, ACK, 60, 1);
    // Only the server talks.
    table.touch(id, Side::Reply, ACK, 60, 7000);
    assert_eq!((known(14_999), known(15_000)), (expected, None));
    assert!(table.lookup(&backend, 14_999).is_some() && table.lookup(&backend, 15_000).is_none());
    table.touch(id, Side::Reply, FIN | ACK, 60, 7001);
    table.touch(id, Side::Original, FIN | ACK, 60, 7002);
    table.touch(id, Side::Original, ACK, 60, 7009);
    assert_eq!((known(7011), known(7012)), (expected, None));
    assert!(table.lookup(&backend, 7011).is_some() && table.lookup(&backend, 7012).is_none());
    assert!(table.lookup_service(&client.reversed(), 7002).is_none());
}

#[test]
fn to_begin_is_to_insert_and_touch() {
    for (proto, flags) in
        [(Protocol::TCP, SYN), (Protocol::TCP, ACK), (Protocol::TCP, RST), (Protocol::UDP, 0)]
    {
        let [one, other] = [(); 2].map(|()| Table::boxed(64, 7));
        let backend = tuple(1, proto);
        let client = Tuple { dst: Address::v4(1), dport: 6379, ..backend };
        let to = (backend.dst, backend.dport);
        let new = NewFlow { translated_from: Some((client.dst, client.dport)), service: 3, ..flow(backend) };
        one.begin(&new, flags, 60, 5).unwrap();
        one.begin_service(&client, to, 3, flags, 5).unwrap();
        assert_eq!(one.begin(&new, flags, 60, 5), Err(InsertError::Busy));
        let id = other.insert(&new, 5).unwrap();
        other.insert_service(&client, to, 3, 5).unwrap();
        other.touch(id, Side::Original, flags, 60, 5);
        for now in [5, 14, 15, 64, 65, 8004, 8005] {
            assert_eq!(one.lookup(&backend, now), other.lookup(&backend, now));
            assert_eq!(one.lookup_service(&client, now), other.lookup_service(&client, now));
        }
        assert_eq!(one.lookup(&backend, 5).unwrap().0.original, Count { packets: 1, bytes: 60 });
    }
}

/// As after a time without agent, in which the kernel has forwarded.
#[test]
fn what_has_passed_without_us_keeps_flow_and_service_entry() {
    let table = Table::boxed(64, 7);
    let (backend, passed) = (tuple(1, Protocol::UDP), Count { packets: 3, bytes: 300 });
    let client = Tuple { dst: Address::v4(1), dport: 6379, ..backend };
    table.insert_service(&client, (backend.dst, backend.dport), 3, 0).unwrap();
    let new = NewFlow { translated_from: Some((client.dst, client.dport)), service: 3, ..flow(backend) };
    let id = table.insert(&new, 0).unwrap();
    assert!(table.lookup(&backend, 330).is_none() && table.lookup_service(&client, 330).is_none());
    assert!(table.add(id, Side::Original, 0, passed, 300));
    let (flow, _) = table.lookup(&backend, 330).unwrap();
    assert_eq!((flow.original, flow.last_seen), (passed, 300));
    assert!(table.lookup_service(&client, 330).is_some());
}

#[test]
fn sweeping_in_steps_covers_the_table_once() {
    let table = Table::boxed(800, 7);
    for n in 0..200 {
        table.insert(&flow(tuple(n, Protocol::UDP)), if n < 50 { 0 } else { 30 }).unwrap();
    }
    let (mut position, mut removed) = (0, 0);
    loop {
        let (next, gone) = table.sweep(position, 7, 60);
        removed += gone;
        position = next;
        if position == 0 {
            break;
        }
    }
    assert_eq!((removed, table.stats().entries), (50, 150));
    assert_eq!((table.flush(), table.stats().entries), (150, 0));
}
