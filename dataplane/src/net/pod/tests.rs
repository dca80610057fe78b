use super::*;
use crate::net::links::{Link, Route};
use crate::net::testing::{TestNetns, is_root};

fn pod_link(host_ifname: &str) -> PodLink {
    let pair = |ip: &str, gateway: &str| (ip.parse().unwrap(), gateway.parse().unwrap());
    PodLink {
        host_ifname: host_ifname.into(),
        alias: "dataplane test default/a".into(),
        ifname: "eth0".into(),
        mac: MacAddr([2, 0, 0, 0, 0, 7]),
        mtu: 1400,
        gso: 150_000,
        addresses: vec![pair("10.60.1.2", "10.60.1.1"), pair("fd00:60:1::2", "fd00:60:1::1")],
    }
}

/// Everything that a pod needs, as seen from inside.
async fn inside() -> Result<(Option<Link>, Vec<IpAddr>, Option<Route>, Option<Route>)> {
    let links = Links::connect()?;
    let mut ips: Vec<_> = links.addresses().await?.into_iter().filter(|a| a.global).map(|a| a.ip).collect();
    ips.sort_unstable();
    let v4 = links.route_to("192.0.2.1".parse().unwrap()).await?;
    let v6 = links.route_to("2001:db8::1".parse().unwrap()).await?;
    Ok((links.by_name("eth0").await?, ips, v4, v6))
}

#[test]
fn a_pod_gets_its_interface_addresses_and_routes() {
    if !is_root() {
        return;
    }
    let (host, pod) = (TestNetns::new("host"), TestNetns::new("pod"));
    let netns = pod.open();
    host.run(move || async move {
        let links = Links::connect().unwrap();
        let spec = pod_link("dp7");
        let index = create(&links, &netns, &spec).await.unwrap();
        assert!(!links.by_index(index).await.unwrap().unwrap().up, "down until programs are attached");
        activate(&links, &netns, index, &spec).await.unwrap();
        let end = links.by_name("dp7").await.unwrap().unwrap();
        assert_eq!((end.mac, end.alias.as_deref()), (Some(GATEWAY_MAC), Some("dataplane test default/a")));
        assert_eq!((end.mtu, end.up), (1400, true));
        assert!(
            !links.addresses().await.unwrap().iter().any(|a| a.ifindex == index),
            "no address on our end"
        );

        let (eth0, ips, v4, v6) = netns.run(inside).await.unwrap();
        let eth0 = eth0.unwrap();
        assert_eq!((eth0.mac, eth0.mtu, eth0.up), (Some(MacAddr([2, 0, 0, 0, 0, 7])), 1400, true));
        assert_eq!(eth0.gso, 150_000);
        assert_eq!(ips, ["10.60.1.2", "fd00:60:1::2"].map(|ip| ip.parse::<IpAddr>().unwrap()));
        let via = |ip: &str| Some(Route { ifindex: eth0.index, via: ip.parse().unwrap() });
        assert_eq!((v4, v6), (via("10.60.1.1"), via("fd00:60:1::1")));

        let taken = create(&links, &netns, &pod_link("dp8")).await.unwrap_err();
        assert!(
            taken
                .to_string()
                .ends_with("interface eth0: exists already: delete it or choose another --ifname")
        );
        assert!(links.by_name("dp8").await.unwrap().is_none(), "nothing is left of it");

        links.delete(index).await.unwrap();
        links.delete(index).await.unwrap();
        assert_eq!(netns.run(inside).await.unwrap().0, None);
    });
}

#[test]
fn a_namespace_that_is_none_is_refused() {
    let refused = |name: &str| Netns::open(name).unwrap_err().to_string();
    assert!(refused("/etc/hostname").contains("network namespace /etc/hostname: not a network namespace"));
    assert!(refused("../etc").contains("a name below /run/netns or an absolute path is wanted"));
    assert!(refused("dpunit-none").contains("/run/netns/dpunit-none: No such file"));
}
