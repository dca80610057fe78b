use super::*;
use proptest::prelude::*;
use std::collections::BTreeMap;

fn frontend() -> impl Strategy<Value = Frontend> {
    (0..3_u32, 0..2_u16).prop_map(|(address, port)| Frontend {
        address: Address::v4(address),
        port,
        proto: Protocol::TCP,
    })
}

fn backends() -> impl Strategy<Value = Vec<Backend>> {
    let unique = prop::collection::btree_map((0..9_u32, 0..2_u16), 0..4_u32, 0..6);
    let backend = |((address, port), weight)| Backend { address: Address::v4(address), port, weight };
    unique.prop_map(move |map| map.into_iter().map(backend).collect::<Vec<_>>()).prop_shuffle()
}

proptest! {
    #[test]
    fn equals_a_map(edits in prop::collection::vec((frontend(), prop::option::of((0..2_u32, backends()))), 1..30)) {
        let mut services = Services::default();
        let mut model: BTreeMap<Frontend, (u32, Vec<Backend>)> = BTreeMap::new();
        for (frontend, spec) in edits {
            let before = services.clone();
            let changed = match spec {
                Some((id, backends)) => {
                    let mut sorted = backends.clone();
                    sorted.sort();
                    let changed = model.insert(frontend, (id, sorted.clone())) != Some((id, sorted));
                    prop_assert_eq!(services.upsert(ServiceSpec { id, frontend, backends }), changed);
                    changed
                }
                None => {
                    let changed = model.remove(&frontend).is_some();
                    prop_assert_eq!(services.remove(frontend), changed);
                    changed
                }
            };
            prop_assert_eq!(services.same(&before), !changed);
            let mut all: Vec<_> = services.iter().map(|s| (s.frontend(), (s.id(), s.backends().to_vec()))).collect();
            all.sort();
            prop_assert_eq!(all, model.clone().into_iter().collect::<Vec<_>>());
            for address in (0..4).map(Address::v4) {
                prop_assert_eq!(services.is_virtual(address), model.keys().any(|f| f.address == address));
            }
        }
    }

    #[test]
    fn selects_by_hash_among_those_with_a_weight(backends in backends(), hashes in prop::collection::vec(any::<u64>(), 50)) {
        let frontend = Frontend { address: Address::v4(1), port: 80, proto: Protocol::TCP };
        let mut reversed = backends.clone();
        reversed.reverse();
        let [here, there] = [backends.clone(), reversed].map(|backends| {
            let mut services = Services::default();
            services.upsert(ServiceSpec { id: 1, frontend, backends });
            services
        });
        let (here, there) = (here.lookup(frontend).unwrap(), there.lookup(frontend).unwrap());
        for hash in hashes {
            let chosen = here.select(hash);
            prop_assert_eq!(chosen.is_some(), backends.iter().any(|b| b.weight > 0));
            prop_assert!(chosen.is_none_or(|b| b.weight > 0));
            prop_assert_eq!(chosen, there.select(hash));
        }
        for address in (0..9).map(Address::v4) {
            for port in 0..2 {
                let expected = backends.iter().find(|b| b.address == address && b.port == port);
                prop_assert_eq!(here.find(address, port), expected);
            }
        }
    }
}
