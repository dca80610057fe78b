use super::*;
use crate::{Backend, Endpoint, Frontend, HopId, IpEntry, Node, Policy, Publisher, ServiceSpec};
use ipnet::{IpNet, Ipv4Net};
use proptest::prelude::*;
use std::sync::Arc;
use wire::{Identity, MacAddr, Protocol};

/// Few enough numbers that edits meet.
const NUMBERS: u32 = 6;

#[derive(Clone, Debug)]
enum Edit {
    Endpoint { id: u16, ifindex: u32, address: u32, identity: u32 },
    NoEndpoint(u16),
    Entry { address: u32, len: u8, identity: u32 },
    NoEntry { address: u32, len: u8 },
    Service { frontend: u32, port: u16, backend: u32 },
    NoService { frontend: u32, port: u16 },
    Hop(u32),
    Gateway(u8),
}

fn edit() -> impl Strategy<Value = Edit> {
    let number = || 0..NUMBERS;
    let len = || prop_oneof![9 => Just(32), 1 => Just(24_u8)];
    prop_oneof![
        8 => (1..4_u16, number(), number(), 0..3_u32)
            .prop_map(|(id, ifindex, address, identity)| Edit::Endpoint { id, ifindex, address, identity }),
        2 => (1..4_u16).prop_map(Edit::NoEndpoint),
        8 => (number(), len(), 0..3_u32).prop_map(|(address, len, identity)| Edit::Entry { address, len, identity }),
        4 => (number(), len()).prop_map(|(address, len)| Edit::NoEntry { address, len }),
        8 => (number(), 0..2_u16, number())
            .prop_map(|(frontend, port, backend)| Edit::Service { frontend, port, backend }),
        4 => (number(), 0..2_u16).prop_map(|(frontend, port)| Edit::NoService { frontend, port }),
        1 => number().prop_map(Edit::Hop),
        1 => any::<u8>().prop_map(Edit::Gateway),
    ]
}

fn prefix(address: u32, len: u8) -> IpNet {
    Ipv4Net::new(address.into(), len).unwrap().into()
}

fn frontend(address: u32, port: u16) -> Frontend {
    Frontend { address: Address::v4(address), port, proto: Protocol::TCP }
}

fn apply(tables: &mut Snapshot, edit: &Edit) {
    match *edit {
        Edit::Endpoint { id, ifindex, address, identity } => tables.endpoints.upsert(Endpoint {
            id,
            ifindex,
            mac: MacAddr::default(),
            addresses: [Address::v4(address)].into(),
            identity: Identity(identity),
            policy: Arc::new(Policy::default()),
        }),
        Edit::NoEndpoint(id) => {
            tables.endpoints.remove(id);
        }
        Edit::Entry { address, len, identity } => {
            let entry = IpEntry { identity: Identity(identity), hop: HopId(identity) };
            tables.ipcache.upsert(prefix(address, len).trunc(), entry);
        }
        Edit::NoEntry { address, len } => {
            tables.ipcache.remove(prefix(address, len).trunc());
        }
        Edit::Service { frontend: address, port, backend } => {
            let backend = Backend { address: Address::v4(backend), port: 1, weight: 1 };
            tables.services.upsert(ServiceSpec {
                id: 1,
                frontend: frontend(address, port),
                backends: vec![backend],
            });
        }
        Edit::NoService { frontend: address, port } => {
            tables.services.remove(frontend(address, port));
        }
        Edit::Hop(node) => {
            tables.hops.intern(Address::v4(node));
        }
        Edit::Gateway(last) => {
            tables.node = Node { gateway_mac: MacAddr([2, 0, 0, 0, 0, last]), ..Node::default() };
        }
    }
}

/// All that tables say about an address.
fn said_of(tables: &Snapshot, address: u32) -> impl PartialEq + std::fmt::Debug + use<> {
    let backends = |port| {
        let service = tables.services.lookup(frontend(address, port));
        service.map(|service| service.backends().to_vec())
    };
    let hop = tables.ipcache.lookup(Address::v4(address)).map(|entry| tables.hops.get(entry.hop).copied());
    (
        tables.endpoints.by_address(Address::v4(address)).cloned(),
        tables.ipcache.lookup(Address::v4(address)),
        hop,
        [backends(0), backends(1)],
        tables.services.is_virtual(Address::v4(address)),
    )
}

proptest! {
    /// Nothing that tables say of an interface or address has changed unless the difference
    /// concerns it.
    #[test]
    fn misses_nothing(
        before in prop::collection::vec(edit(), 0..30),
        after in prop::collection::vec(edit(), 0..6),
    ) {
        let publisher = Publisher::new(1);
        publisher.edit(|tables| before.iter().for_each(|edit| apply(tables, edit)));
        let old = publisher.current();
        after.iter().for_each(|edit| publisher.edit(|tables| apply(tables, edit)));
        let new = publisher.current();
        let difference = Difference::between(&old, &new);
        for number in 0..NUMBERS {
            if !difference.concerns(&[], &[Address::v4(number)]) {
                prop_assert_eq!(said_of(&old, number), said_of(&new, number));
            }
            if !difference.concerns(&[number], &[]) {
                prop_assert_eq!(old.endpoints.by_ifindex(number), new.endpoints.by_ifindex(number));
            }
        }
        if !difference.concerns(&[], &[]) {
            prop_assert_eq!(&old.node, &new.node);
        }
    }
}

#[test]
fn an_edit_of_one_thing_concerns_nothing_else() {
    let publisher = Publisher::new(1);
    let apply = |edit: Edit| {
        let old = publisher.current();
        publisher.edit(|tables| apply(tables, &edit));
        Difference::between(&old, &publisher.current())
    };
    let concerned = |difference: Difference| -> Vec<u32> {
        (0..NUMBERS).filter(|&number| difference.concerns(&[], &[Address::v4(number)])).collect()
    };
    assert_eq!(concerned(apply(Edit::Entry { address: 3, len: 32, identity: 1 })), [3]);
    assert_eq!(concerned(apply(Edit::Entry { address: 3, len: 32, identity: 1 })), []);
    assert_eq!(concerned(apply(Edit::Service { frontend: 4, port: 1, backend: 2 })), [4]);
    let pod = apply(Edit::Endpoint { id: 1, ifindex: 5, address: 1, identity: 1 });
    assert!(pod.concerns(&[5], &[]) && !pod.concerns(&[1], &[]));
    assert_eq!(concerned(pod), [1]);
    assert_eq!(concerned(apply(Edit::NoEndpoint(1))), [1]);
    assert_eq!(concerned(apply(Edit::Gateway(1))).len(), NUMBERS as usize);
}
