use super::*;
use crate::net::testing::{TestNetns, is_root};

fn spec(queues: u32) -> HubSpec {
    let pods = [("10.60.1.0/24", "10.60.1.1"), ("fd00:60:1::/112", "fd00:60:1::1")];
    let pods = pods.map(|(cidr, gateway)| (cidr.parse().unwrap(), gateway.parse().unwrap()));
    HubSpec { alias: "dataplane test".into(), queues, mtu: 1400, pods: pods.into() }
}

#[test]
fn the_hub_is_adopted_by_the_next_run_and_by_nobody_else() {
    if !is_root() {
        return;
    }
    TestNetns::new("hub").run(|| async {
        let links = Links::connect().unwrap();
        let first = create_or_adopt(&links, &spec(2)).await.unwrap();
        activate(&links, &first, &spec(2)).await.unwrap();
        let host = links.by_name(HOST_END).await.unwrap().unwrap();
        assert_eq!((host.mac, host.mtu, host.rx_queues), (Some(wire::hub::HOST_MAC), 1400, 2));
        let mut ips: Vec<_> =
            links.addresses().await.unwrap().into_iter().map(|a| (a.ifindex, a.ip)).collect();
        ips.retain(|(ifindex, _)| [first.host, first.worker].contains(ifindex));
        assert_eq!(ips, spec(2).pods.map_ips(first.host), "no other address, link-local neither");
        for pod in ["10.60.1.77", "fd00:60:1::77"] {
            let route = links.route_to(pod.parse().unwrap()).await.unwrap().unwrap();
            assert_eq!(route.ifindex, first.host);
        }

        let again = create_or_adopt(&links, &spec(2)).await.unwrap();
        assert_eq!((again.host, again.worker), (first.host, first.worker));
        activate(&links, &again, &spec(2)).await.unwrap();

        let other = HubSpec { alias: "dataplane other".into(), ..spec(2) };
        let error = create_or_adopt(&links, &other).await.unwrap_err().to_string();
        assert!(error.starts_with("link dphub0: belongs to dataplane test: one agent per network namespace"));

        let wider = create_or_adopt(&links, &spec(4)).await.unwrap();
        assert_ne!(wider.host, first.host);
        assert_eq!(links.by_index(wider.worker).await.unwrap().unwrap().rx_queues, 4);
    });
}

trait MapIps {
    fn map_ips(&self, ifindex: u32) -> Vec<(u32, IpAddr)>;
}

impl MapIps for Vec<(IpNet, IpAddr)> {
    fn map_ips(&self, ifindex: u32) -> Vec<(u32, IpAddr)> {
        self.iter().map(|&(_, gateway)| (ifindex, gateway)).collect()
    }
}
