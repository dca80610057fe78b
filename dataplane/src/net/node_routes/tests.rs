use super::*;
use crate::net::links::change;
use crate::net::testing::{TestNetns, is_root};
use tables::Uplink;
use wire::MacAddr;

fn cidr(text: &str) -> IpNet {
    text.parse().unwrap()
}

#[test]
fn routes_follow_the_nodes_and_leave_others_alone() {
    if !is_root() {
        return;
    }
    let netns = TestNetns::new("routes");
    for command in [
        "link add up0 type veth peer name peer0",
        "addr add 10.0.0.1/24 dev up0",
        "addr add fd00::1/64 dev up0 nodad",
        "link set up0 up",
        "link set peer0 up",
        "route add 10.9.0.0/24 via 10.0.0.99",
    ] {
        netns.ip(command);
    }
    netns.run(|| async {
        let links = Links::connect().unwrap();
        let ifindex = links.by_name("up0").await.unwrap().unwrap().index;
        let uplinks = [Uplink { name: "up0".into(), ifindex, mac: MacAddr::default(), mtu: 1500 }];
        let node = |text: &str| text.parse::<IpAddr>().unwrap();
        let way = |text| Some(Route { ifindex, via: node(text) });
        let mut routes = NodeRoutes::new(links.clone()).await.unwrap();
        assert!(routes.installed.is_empty(), "somebody else's routes are not ours");

        let mut wanted = BTreeMap::from([
            (cidr("10.8.0.0/24"), node("10.0.0.2")),
            (cidr("10.9.0.0/24"), node("10.0.0.2")),
            (cidr("fd08::/112"), node("fd00::2")),
            (cidr("10.7.0.0/24"), node("192.0.2.1")), // no way there
        ]);
        routes.update(&wanted, &uplinks).await.unwrap();
        assert_eq!(links.route_to(node("10.8.0.5")).await.unwrap(), way("10.0.0.2"));
        assert_eq!(links.route_to(node("fd08::5")).await.unwrap(), way("fd00::2"));
        assert_eq!(links.route_to(node("10.9.0.5")).await.unwrap(), way("10.0.0.99"));
        assert_eq!(links.route_to(node("10.7.0.5")).await.unwrap(), None);

        // The next run knows them; a node that moved is followed, one that went is forgotten.
        let mut routes = NodeRoutes::new(links.clone()).await.unwrap();
        assert_eq!(routes.installed.len(), 3);
        wanted.insert(cidr("10.8.0.0/24"), node("10.0.0.3"));
        wanted.remove(&cidr("fd08::/112"));
        routes.update(&wanted, &uplinks).await.unwrap();
        assert_eq!(links.route_to(node("10.8.0.5")).await.unwrap(), way("10.0.0.3"));
        assert_eq!(links.route_to(node("fd08::5")).await.unwrap(), None);

        // They come back with the link.
        for up in [false, true] {
            let message = change(ifindex);
            let message = if up { message.up() } else { message.down() };
            links.set(message.build(), || "up0".into()).await.unwrap();
        }
        assert_eq!(links.route_to(node("10.8.0.5")).await.unwrap(), None);
        routes.reload().await.unwrap();
        routes.update(&wanted, &uplinks).await.unwrap();
        assert_eq!(links.route_to(node("10.8.0.5")).await.unwrap(), way("10.0.0.3"));

        routes.clear().await.unwrap();
        assert!(NodeRoutes::new(links.clone()).await.unwrap().installed.is_empty());
        assert_eq!(links.route_to(node("10.8.0.5")).await.unwrap(), None);
    });
}
