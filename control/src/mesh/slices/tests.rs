use super::*;
use proptest::prelude::*;
use ruzstd::encoding::{CompressionLevel, compress_to_vec};

fn name(name: &str) -> Name {
    ("shop".into(), name.into())
}

fn slice(slice: &str, service: &str, endpoints: Vec<Endpoint>) -> Slice {
    Slice {
        cluster: "alpha".into(),
        cluster_id: 7,
        namespace: "shop".into(),
        name: slice.into(),
        labels: BTreeMap::from([(SERVICE_NAME.into(), service.into())]),
        address_type: "IPv4".into(),
        endpoints,
        ports: vec![EndpointPort { name: "http".into(), protocol: None, port: Some(8080) }],
    }
}

fn endpoint(address: &str, ready: Option<bool>, serving: Option<bool>) -> Endpoint {
    Endpoint {
        addresses: vec![address.into()],
        conditions: Some(Conditions { ready, serving }),
        ..Endpoint::default()
    }
}

#[test]
fn what_is_ready_or_serving_contributes() {
    let conditions = [
        (None, None, true),
        (Some(true), Some(false), true),
        (Some(false), Some(true), true),
        (Some(false), None, false),
        (Some(false), Some(false), false),
        (None, Some(false), true),
    ];
    for (ready, serving, usable) in conditions {
        let service = slice("a", "web", vec![endpoint("10.7.1.1", ready, serving)]).contribution();
        assert_eq!(service.unwrap().unwrap().backends.len(), usize::from(usable), "{ready:?} {serving:?}");
    }
}

#[test]
fn what_is_wrong_is_named() {
    let compress = |bytes: &[u8]| compress_to_vec(bytes, CompressionLevel::Fastest);
    let good = compress(&slice("a", "web", vec![endpoint("10.7.1.1", None, None)]).encode_to_vec());
    assert!(Slice::read(&good).is_ok());
    let bomb = compress(&vec![0; SIZE_MAX as usize + 1]);
    assert!(bomb.len() < 10_000);
    // A frame that asks for a window of 1 GiB.
    let window = [0x28, 0xb5, 0x2f, 0xfd, 0x00, 0xa0, 0x01, 0x00, 0x00];
    let table: [(&[u8], &str); 6] = [
        (b"", "not a zstd frame"),
        (br#"{"cluster":"alpha"}"#, "not a zstd frame"),
        (&good[..good.len() / 2], "not a whole zstd frame"),
        (&bomb, "larger than 4194304 bytes"),
        (&window, "not a zstd frame: Specified window_size is too big"),
        (&compress(b"\x0a\xff"), "not an EndpointSlice"),
    ];
    for (value, why) in table {
        let error = Slice::read(value).unwrap_err();
        assert!(error.contains(why), "{error}");
    }
    let wrong = slice("a", "web", vec![endpoint("fd00::1", None, None)]).contribution().unwrap_err();
    assert_eq!(wrong, "'fd00::1' among endpoints is not an address of type 'IPv4'");
    let mut mapped = slice("a", "web", vec![endpoint("::ffff:10.7.1.1", None, None)]);
    let backends = mapped.clone().contribution().unwrap().unwrap().backends;
    assert_eq!(backends.into_keys().collect::<Vec<_>>(), ["10.7.1.1"]);
    mapped.address_type = "IPv6".into();
    assert!(mapped.contribution().is_err());
    let mut slice = slice("a", "web", vec![]);
    slice.ports[0].port = Some(65536);
    assert_eq!(slice.contribution().unwrap_err(), "65536 is not a port");
}

#[test]
fn slices_without_service_or_addresses_say_nothing() {
    assert_eq!(slice("a", "", vec![]).contribution(), Ok(None));
    let mut names = slice("a", "web", vec![endpoint("db.example", None, None)]);
    names.address_type = "FQDN".into();
    assert!(names.contribution().unwrap().unwrap().backends.is_empty());
}

/// Slice, and the service and backends that it has from now on.
fn change() -> impl Strategy<Value = (u8, Option<(u8, BTreeSet<u8>)>)> {
    (0u8..4, prop::option::of((0u8..2, prop::collection::btree_set(0u8..4, 0..3))))
}

proptest! {
    /// Whatever comes and goes, what was reported is what the slices that are there contribute, and each
    /// service once for a batch of changes.
    #[test]
    fn services_are_the_sum_of_their_slices(
        batches in prop::collection::vec(prop::collection::vec(change(), 1..5), 1..20)
    ) {
        let (mut slices, mut there, mut reported) = (Slices::default(), BTreeMap::new(), BTreeMap::new());
        for batch in batches {
            for (number, change) in batch {
                let key = name(&format!("slice{number}"));
                let Some((service, backends)) = change else {
                    there.remove(&key);
                    slices.remove(&key);
                    continue;
                };
                let service = format!("service{service}");
                let endpoints =
                    backends.iter().map(|b| endpoint(&format!("10.7.1.{b}"), None, None)).collect();
                let contribution = slice(&key.1, &service, endpoints).contribution().unwrap().unwrap();
                there.insert(key.clone(), (service, backends));
                slices.put(key, contribution);
            }
            let updates = slices.settle("alpha");
            let name_of = |update: &Update| match update {
                Update::ServiceUpsert(service) => service.name.clone(),
                Update::ServiceDelete(_, _, name) => name.clone(),
                other => panic!("{other:?}"),
            };
            prop_assert_eq!(updates.iter().map(name_of).collect::<BTreeSet<_>>().len(), updates.len());
            for update in updates {
                match update {
                    Update::ServiceUpsert(service) => {
                        reported.insert(service.name.clone(), service.backends.keys().cloned().collect());
                    }
                    update => prop_assert!(reported.remove(&name_of(&update)).is_some()),
                }
            }
            let mut wanted: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
            for (service, backends) in there.values() {
                wanted.entry(service.clone()).or_default().extend(backends.iter().map(|b| format!("10.7.1.{b}")));
            }
            prop_assert_eq!(&reported, &wanted);
            prop_assert_eq!(slices.len(), wanted.len());
        }
    }

    #[test]
    fn no_value_panics(value in prop::collection::vec(any::<u8>(), 0..60), start in 0usize..5) {
        let _ = Slice::decode(&*value);
        // After the magic number the decoder looks at the rest.
        let frame = [&[0x28, 0xb5, 0x2f, 0xfd][..start.min(4)], &value].concat();
        let _ = Slice::read(&frame);
    }
}
