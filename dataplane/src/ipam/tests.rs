use super::*;
use proptest::prelude::*;
use std::collections::{HashMap, HashSet};

fn ipam(cidrs: &[&str]) -> Result<Ipam, IpamError> {
    Ipam::new(&cidrs.iter().map(|c| c.parse().unwrap()).collect::<Vec<_>>())
}

fn ips(list: &[&str]) -> Vec<IpAddr> {
    list.iter().map(|ip| ip.parse().unwrap()).collect()
}

#[test]
fn both_families_and_the_gateways() {
    let mut ipam = ipam(&["10.60.1.0/24", "fd00:60:1::/112"]).unwrap();
    assert_eq!(ipam.gateways().collect::<Vec<_>>(), ips(&["10.60.1.1", "fd00:60:1::1"]));
    assert_eq!(ipam.allocate(7, &[]).unwrap(), ips(&["10.60.1.2", "fd00:60:1::2"]));
    assert_eq!(ipam.allocate(8, &ips(&["fd00:60:1::ffff"])).unwrap(), ips(&["10.60.1.3", "fd00:60:1::ffff"]));
    assert_eq!(ipam.allocate(9, &[]).unwrap(), ips(&["10.60.1.4", "fd00:60:1::3"]));
    let usage: Vec<_> = ipam.usage().map(|(_, used, all)| (used, all)).collect();
    assert_eq!(usage, [(3, 253), (3, 65_534)]);
}

#[test]
fn refusals_name_the_address_and_the_reason() {
    for (cidrs, message) in [
        (&["10.0.0.0/31"][..], "pod CIDR 10.0.0.0/31: too small: a /30 (IPv4) or /126 (IPv6) at least"),
        (&["10.0.0.0/8", "10.1.0.0/16"], "pod CIDR 10.1.0.0/16: overlaps 10.0.0.0/8"),
    ] {
        assert_eq!(ipam(cidrs).unwrap_err().to_string(), message);
    }
    let mut ipam = ipam(&["10.60.1.0/30", "10.60.2.0/30"]).unwrap();
    assert_eq!(ipam.allocate(1, &[]).unwrap(), ips(&["10.60.1.2"]));
    for (wanted, message) in [
        (&["10.9.9.9"][..], "address 10.9.9.9: not in this node's pod CIDRs 10.60.1.0/30, 10.60.2.0/30"),
        (&["10.60.1.0"], "address 10.60.1.0: is the network address of pod CIDR 10.60.1.0/30"),
        (&["10.60.1.1"], "address 10.60.1.1: is the gateway address of pod CIDR 10.60.1.0/30"),
        (&["10.60.1.3"], "address 10.60.1.3: is the broadcast address of pod CIDR 10.60.1.0/30"),
        (&["10.60.1.2"], "address 10.60.1.2: in use by endpoint 1"),
        (
            &["10.60.2.2", "10.60.2.1"],
            "address 10.60.2.1: a pod has one address per family, 10.60.2.2 was given before",
        ),
    ] {
        assert_eq!(ipam.allocate(2, &ips(wanted)).unwrap_err().to_string(), message);
    }
    assert_eq!(ipam.allocate(2, &[]).unwrap(), ips(&["10.60.2.2"]), "nothing was taken by refusals");
    assert_eq!(
        ipam.allocate(3, &[]).unwrap_err().to_string(),
        "pod CIDR 10.60.1.0/30, 10.60.2.0/30: all 2 addresses are in use: delete endpoints or add a pod CIDR"
    );
}

#[test]
fn a_pool_of_all_ipv6_addresses_does_not_overflow() {
    let mut ipam = ipam(&["::/0"]).unwrap();
    let last = ips(&["ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"]);
    assert_eq!(ipam.allocate(1, &last).unwrap(), last);
    assert_eq!(ipam.allocate(2, &[]).unwrap(), ips(&["::2"]));
}

#[derive(Debug, Clone)]
enum Op {
    Allocate,
    Want(u8),
    Release(u16),
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![Just(Op::Allocate), (0u8..20).prop_map(Op::Want), (0u16..40).prop_map(Op::Release)]
}

proptest! {
    /// Against a set of free addresses: never twice, never a reserved one, exhausted exactly when
    /// nothing is free, and released addresses come back.
    #[test]
    fn equals_a_set_of_free_addresses(ops in prop::collection::vec(op(), 0..120)) {
        let mut ipam = ipam(&["10.0.0.0/28"]).unwrap();
        let mut free: HashSet<u8> = (2..15).collect();
        let mut owned: HashMap<u16, u8> = HashMap::new();
        for (id, op) in (0u16..).zip(ops) {
            let wanted = match op {
                Op::Release(id) => {
                    ipam.release(id);
                    free.extend(owned.remove(&id));
                    continue;
                }
                Op::Allocate => None,
                Op::Want(n) => Some(n),
            };
            let got = ipam.allocate(id, &wanted.map(|n| IpAddr::from([10, 0, 0, n])).into_iter().collect::<Vec<_>>());
            let possible = wanted.map_or(!free.is_empty(), |n| free.contains(&n));
            prop_assert_eq!(got.is_ok(), possible, "{:?}", got);
            if let Ok([IpAddr::V4(ip)]) = got.as_deref() {
                let n = ip.octets()[3];
                prop_assert!(free.remove(&n));
                prop_assert!(wanted.is_none_or(|w| w == n));
                owned.insert(id, n);
            }
        }
        prop_assert_eq!(ipam.usage().next().unwrap().1, owned.len() as u128);
    }
}
