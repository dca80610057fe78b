use super::*;
use crate::net::events::{Event, Events};
use crate::net::testing::{TestNetns, is_root};
use tables::{HopId, Uplink};
use wire::MacAddr;

const BOUND: Duration = Duration::from_secs(20);

/// Follows the kernel until the hop is as wanted.
async fn follow(
    resolver: &mut Resolver,
    events: &mut Events,
    hop: HopId,
    wanted: impl Fn(Option<NextHop>) -> bool,
) {
    let deadline = Instant::now() + BOUND;
    loop {
        let next = resolver.publisher.current().hops.get(hop).unwrap().next;
        if wanted(next) {
            return;
        }
        assert!(Instant::now() < deadline, "still {next:?}");
        resolver.update(Instant::now()).await.unwrap();
        match tokio::time::timeout(Duration::from_millis(50), events.next()).await {
            Ok(Some(Event::Neighbor(of, entry))) => resolver.neighbor_changed(of, entry),
            Ok(Some(Event::NodeChanged)) => resolver.forget_routes(),
            _ => {}
        }
    }
}

#[test]
fn next_hops_follow_the_kernel() {
    if !is_root() {
        return;
    }
    let [here, there] = ["here", "there"].map(|role| Arc::new(TestNetns::new(role)));
    here.ip(&format!("link add up0 type veth peer name up0 netns {}", there.name));
    for (netns, ip, ip6, mac) in [
        (&here, "10.0.0.1/24", "fd00::1/64", "02:00:00:00:00:01"),
        (&there, "10.0.0.2/24", "fd00::2/64", "02:00:00:00:00:02"),
    ] {
        netns.ip(&format!("link set up0 address {mac} mtu 1450"));
        netns.ip(&format!("addr add {ip} dev up0"));
        netns.ip(&format!("addr add {ip6} dev up0 nodad"));
        netns.ip("link set up0 up");
    }
    here.ip("route add 10.9.0.0/16 via 10.0.0.2");
    here.clone().run(move || async move {
        let links = Links::connect().unwrap();
        let up0 = links.by_name("up0").await.unwrap().unwrap();
        let publisher = Publisher::new(1);
        let hops = publisher.edit(|tables| {
            let uplink = Uplink { name: "up0".into(), ifindex: up0.index, mac: up0.mac.unwrap(), mtu: 1450 };
            tables.node.uplinks = vec![uplink];
            ["10.0.0.2", "fd00::2", "10.9.8.7", "192.0.2.1"]
                .map(|ip| tables.hops.intern(Address::from(ip.parse::<IpAddr>().unwrap())))
        });
        let mut events = Events::subscribe().unwrap();
        let mut resolver = Resolver::new(links, publisher.clone()).await.unwrap();
        let by = |mac: u8| Some(NextHop { uplink: 0, mac: MacAddr([2, 0, 0, 0, 0, mac]), mtu: 1450 });
        // On the link in both families, and behind a router.
        for hop in &hops[..3] {
            follow(&mut resolver, &mut events, *hop, |next| next == by(2)).await;
        }
        assert_eq!(publisher.current().hops.get(hops[3]).unwrap().next, None, "no route");

        there.ip("link set up0 address 02:00:00:00:00:03");
        there.ip("neigh flush all");
        there.ip("-4 neigh add 10.0.0.1 lladdr 02:00:00:00:00:01 dev up0");
        here.ip("neigh flush all");
        follow(&mut resolver, &mut events, hops[0], |next| next == by(3)).await;

        there.ip("link set up0 down");
        here.ip("link set up0 down");
        follow(&mut resolver, &mut events, hops[0], |next| next.is_none()).await;
    });
}
