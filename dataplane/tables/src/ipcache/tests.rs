use super::*;
use proptest::prelude::*;
use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Few enough bits that prefixes nest and addresses hit.
fn address() -> impl Strategy<Value = IpAddr> {
    let v4 = prop::sample::select(vec![0x0a00_0000_u32, 0x0a80_0001, 0x0a80_0003, 0xffff_ffff, 0]);
    let v6 = prop::sample::select(vec![
        0_u128,
        u128::MAX,
        0xfd00 << 112,
        (0xfd00 << 112) + 1,
        (0xfd00 << 112) + 3,
    ]);
    prop_oneof![
        (v4, 0..4_u32).prop_map(|(base, low)| IpAddr::V4(Ipv4Addr::from(base ^ low))),
        (v6, 0..4_u128).prop_map(|(base, low)| IpAddr::V6(Ipv6Addr::from(base ^ low))),
    ]
}

fn prefix() -> impl Strategy<Value = IpNet> {
    (address(), prop_oneof![Just(128), 0..=128_u8]).prop_map(|(address, len)| {
        let len = if address.is_ipv4() { len.min(32) } else { len };
        IpNet::new(address, len).unwrap()
    })
}

fn entry() -> impl Strategy<Value = IpEntry> {
    (0..3_u32, 0..2_u32).prop_map(|(identity, hop)| IpEntry { identity: Identity(identity), hop: HopId(hop) })
}

fn naive_lookup(model: &HashMap<IpNet, IpEntry>, address: IpAddr) -> Option<IpEntry> {
    let holding = model.iter().filter(|(prefix, _)| prefix.contains(&address));
    holding.max_by_key(|(prefix, _)| prefix.prefix_len()).map(|(_, entry)| *entry)
}

proptest! {
    #[test]
    fn equals_a_naive_longest_prefix_match(
        edits in prop::collection::vec((prefix(), prop::option::weighted(0.7, entry())), 1..60),
        addresses in prop::collection::vec(address(), 20),
    ) {
        let mut cache = IpCache::default();
        let mut model: HashMap<IpNet, IpEntry> = HashMap::new();
        for (prefix, entry) in edits {
            let (before, model_before) = (cache.clone(), model.clone());
            let old = match entry {
                Some(entry) => model.insert(prefix.trunc(), entry),
                None => model.remove(&prefix.trunc()),
            };
            let replaced = match entry {
                Some(entry) => cache.upsert(prefix, entry),
                None => cache.remove(prefix),
            };
            prop_assert_eq!(replaced, old);
            prop_assert_eq!(cache.same(&before), old == entry);
            prop_assert_eq!(cache.same_identities(&before), old.map(|e| e.identity) == entry.map(|e| e.identity));
            for &address in &addresses {
                prop_assert_eq!(cache.lookup(address.into()), naive_lookup(&model, address));
                prop_assert_eq!(before.lookup(address.into()), naive_lookup(&model_before, address));
            }
        }
        prop_assert_eq!(cache.len(), model.len());
        prop_assert_eq!(cache.iter().collect::<HashMap<_, _>>(), model);
    }
}

#[test]
fn entries_stay_small() {
    // Hash tables are at worst 7/16 full and spend one more byte a slot: 13 / 7 × 16 < 30 bytes.
    assert_eq!(size_of::<(u32, IpEntry)>(), 12);
    assert_eq!(size_of::<(V6, IpEntry)>(), 24);
}

#[test]
fn an_edit_of_a_large_shared_table_copies_one_shard() {
    let mut cache = IpCache::default();
    let host = |n: u32| IpNet::from(IpAddr::V4(Ipv4Addr::from(n)));
    for n in 0..200_000 {
        cache.upsert(host(n), IpEntry { identity: Identity(n), hop: HopId::NONE });
    }
    let before = cache.clone();
    cache.upsert(host(77), IpEntry { identity: Identity(1), hop: HopId::NONE });
    assert_eq!(before.lookup(Address::v4(77)).unwrap().identity, Identity(77));
    assert_eq!(cache.lookup(Address::v4(77)).unwrap().identity, Identity(1));
    assert_eq!(cache.v4.hosts.unshared_entries(&before.v4.hosts), cache.v4.hosts.shard_len(&77));
    assert!(cache.v4.hosts.shard_len(&77) < 2 * 200_000 / 1024);
}
