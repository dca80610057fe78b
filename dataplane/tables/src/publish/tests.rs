use super::*;
use crate::{Backend, Endpoint, Frontend, HopId, IpEntry, Policy, ServiceSpec};
use ipnet::IpNet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use wire::{Address, Identity, MacAddr, Protocol};

fn generations(publisher: &Publisher) -> (u32, u32) {
    let current = publisher.current();
    (current.policy_generation, current.service_generation)
}

fn host(n: u8) -> IpNet {
    IpNet::from(std::net::IpAddr::from([10, 0, 0, n]))
}

fn entry(identity: u32) -> IpEntry {
    IpEntry { identity: Identity(identity), hop: HopId::NONE }
}

fn service(id: u32) -> ServiceSpec {
    let frontend = Frontend { address: Address::v4(1), port: 80, proto: Protocol::TCP };
    let backends = vec![Backend { address: Address::v4(2), port: 8080, weight: 1 }];
    ServiceSpec { id, frontend, backends }
}

fn endpoint(policy: &Arc<Policy>) -> Endpoint {
    Endpoint {
        id: 1,
        ifindex: 1,
        mac: MacAddr::default(),
        addresses: [Address::v4(3)].into(),
        identity: Identity(1000),
        policy: Arc::clone(policy),
    }
}

#[test]
fn generations_follow_what_changed_and_nothing_else() {
    let publisher = Publisher::new(u32::MAX);
    let mut expected = (u32::MAX, u32::MAX);
    let policy = Arc::new(Policy::default());
    let mut step = |what: &str, bumps: (u32, u32), edit: &dyn Fn(&mut Snapshot)| {
        publisher.edit(edit);
        expected = (expected.0.wrapping_add(bumps.0), expected.1.wrapping_add(bumps.1));
        assert_eq!(generations(&publisher), expected, "{what}");
    };
    step("nothing", (0, 0), &|_| {});
    step("the caller cannot bump", (0, 0), &|s| s.policy_generation ^= 5);
    step("endpoint", (1, 0), &|s| s.endpoints.upsert(endpoint(&policy)));
    step("same endpoint", (0, 0), &|s| s.endpoints.upsert(endpoint(&policy)));
    step("equal policy", (0, 0), &|s| s.endpoints.upsert(endpoint(&Arc::default())));
    let strict = Arc::new(Policy::compile(&crate::PolicySpec { ingress: Some(vec![]), egress: None }));
    step("other policy", (1, 0), &|s| s.endpoints.upsert(endpoint(&strict)));
    step("address", (1, 0), &|s| _ = s.ipcache.upsert(host(1), entry(7)));
    step("hop", (0, 0), &|s| _ = s.ipcache.upsert(host(1), IpEntry { hop: HopId(1), ..entry(7) }));
    step("identity", (1, 0), &|s| _ = s.ipcache.upsert(host(1), entry(8)));
    step("service", (0, 1), &|s| assert!(s.services.upsert(service(1))));
    step("same service", (0, 0), &|s| assert!(!s.services.upsert(service(1))));
    step("next hop", (0, 0), &|s| assert_eq!(s.hops.intern(Address::v4(9)), HopId(1)));
    step("all", (1, 1), &|s| {
        s.node.pod_mtu = 1500;
        s.ipcache.remove(host(1));
        s.services.upsert(service(2));
    });
}

#[test]
fn an_edit_without_effect_publishes_nothing() {
    let publisher = Publisher::new(1);
    let before = publisher.current();
    assert_eq!(publisher.edit(|snapshot| snapshot.ipcache.remove(host(1))), None);
    assert!(Arc::ptr_eq(&before, &publisher.current()));
}

#[test]
fn readers_never_free_and_nothing_is_kept_for_ever() {
    let publisher = Publisher::new(1);
    let mut reader = publisher.reader();
    reader.pin();
    let first = Arc::downgrade(&publisher.current());
    publisher.edit(|s| s.ipcache.upsert(host(1), entry(1)));
    assert!(reader.pin().ipcache.lookup(Address::v4(0x0a00_0001)).is_some());
    assert!(first.upgrade().is_some(), "the reader let go of it, the publisher has not looked yet");
    publisher.reclaim();
    assert!(first.upgrade().is_none());
    let second = Arc::downgrade(&publisher.current());
    publisher.edit(|s| s.ipcache.upsert(host(2), entry(1)));
    publisher.reclaim();
    assert!(second.upgrade().is_some(), "the reader still holds it");
    reader.pin();
    publisher.edit(|s| s.ipcache.upsert(host(3), entry(1)));
    assert!(second.upgrade().is_none());
}

#[test]
fn changes_are_reported_once_and_wake_sleepers() {
    const LONG: Duration = Duration::from_secs(3600);
    let publisher = Publisher::new(u32::MAX);
    let mut changes = publisher.subscribe();
    assert!(!changes.wait(Duration::ZERO));
    publisher.edit(|_| {});
    assert!(!changes.wait(Duration::ZERO), "nothing changed");
    for n in 1..=2 {
        publisher.edit(|s| s.ipcache.upsert(host(n), entry(1)));
    }
    assert!(changes.wait(LONG) && !changes.wait(Duration::ZERO));
    assert!(!publisher.subscribe().wait(Duration::ZERO), "before it subscribed");
    thread::scope(|scope| {
        let sleeper = scope.spawn(|| changes.wait(LONG));
        publisher.edit(|s| s.ipcache.upsert(host(3), entry(1)));
        assert!(sleeper.join().unwrap());
    });
}

#[test]
fn concurrent_readers_see_whole_edits_in_order() {
    let publisher = Publisher::new(0);
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let read = || {
            let mut reader = publisher.reader();
            let mut last = 0;
            while !done.load(Ordering::Acquire) {
                let snapshot = reader.pin();
                let identity = |n: u32| {
                    snapshot.ipcache.lookup(Address::v4(0x0a00_0000 + n)).map_or(0, |e| e.identity.0)
                };
                assert_eq!(identity(1), identity(2), "half an edit");
                assert_eq!(identity(1), snapshot.policy_generation);
                assert!(identity(1) >= last, "went back");
                last = identity(1);
            }
            last
        };
        let readers = [scope.spawn(read), scope.spawn(read)];
        for n in 1..=5000 {
            publisher.edit(|s| {
                s.ipcache.upsert(host(1), entry(n));
                s.ipcache.upsert(host(2), entry(n));
            });
        }
        done.store(true, Ordering::Release);
        for reader in readers {
            assert!(reader.join().unwrap() <= 5000);
        }
    });
    assert_eq!(publisher.current().policy_generation, 5000);
    publisher.edit(|_| {});
    assert_eq!(publisher.retired.lock().unwrap().len(), 0);
}
