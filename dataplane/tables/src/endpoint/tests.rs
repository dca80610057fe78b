use super::*;

fn endpoint(id: u16, ifindex: u32, addresses: &[u32]) -> Endpoint {
    Endpoint {
        id,
        ifindex,
        mac: MacAddr([2, 0, 0, 0, 0, id as u8]),
        addresses: addresses.iter().map(|&bits| Address::v4(bits)).collect(),
        identity: Identity(1000),
        policy: Arc::default(),
    }
}

fn ids(endpoints: &Endpoints) -> Vec<u16> {
    endpoints.iter().map(|endpoint| endpoint.id).collect()
}

#[test]
fn interface_and_addresses_follow_the_endpoint() {
    let mut endpoints = Endpoints::default();
    endpoints.upsert(endpoint(9, 90, &[1, 2]));
    endpoints.upsert(endpoint(5, 50, &[3]));
    assert_eq!(ids(&endpoints), [5, 9]);
    endpoints.upsert(endpoint(9, 91, &[2, 4]));
    let owner = |bits| endpoints.by_address(Address::v4(bits)).map(|endpoint| endpoint.id);
    assert_eq!([1, 2, 3, 4].map(owner), [None, Some(9), Some(5), Some(9)]);
    let behind = |ifindex| endpoints.by_ifindex(ifindex).map(|endpoint| endpoint.id);
    assert_eq!([90, 91, 50].map(behind), [None, Some(9), Some(5)]);
}

#[test]
fn a_newcomer_keeps_what_it_took_over() {
    let mut endpoints = Endpoints::default();
    endpoints.upsert(endpoint(1, 10, &[1]));
    endpoints.upsert(endpoint(2, 10, &[1]));
    assert!(endpoints.remove(1));
    assert_eq!(endpoints.by_address(Address::v4(1)).unwrap().id, 2);
    assert_eq!(endpoints.by_ifindex(10).unwrap().id, 2);
    assert!(endpoints.remove(2));
    assert!(!endpoints.remove(2));
    assert!(endpoints.by_address(Address::v4(1)).is_none() && endpoints.by_ifindex(10).is_none());
}

#[test]
fn clones_are_independent_and_an_equal_upsert_is_no_edit() {
    let mut endpoints = Endpoints::default();
    endpoints.upsert(endpoint(1, 10, &[1]));
    let before = endpoints.clone();
    endpoints.upsert(endpoint(1, 10, &[1]));
    assert!(endpoints.same(&before));
    endpoints.upsert(Endpoint { identity: Identity(7), ..endpoint(1, 10, &[1]) });
    assert!(!endpoints.same(&before));
    assert_eq!(before.by_ifindex(10).unwrap().identity, Identity(1000));
}
