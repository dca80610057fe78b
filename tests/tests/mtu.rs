//! Links of other sizes, packets that fill them, and packets that do not fit.

use std::net::IpAddr;
use tests::manifests::service;
use tests::reach::ALL;
use tests::{Host, Pod, World, eventually};

fn mtu(pod: &Pod) -> u32 {
    let link = pod.ip("-o link show eth0");
    link.split("mtu ").nth(1).unwrap().split(' ').next().unwrap().parse().unwrap()
}

/// The path MTU that the kernel of `from` has learned towards `to`.
fn learned_mtu(from: &Host, to: IpAddr) -> Option<u32> {
    let route = from.ip(&format!("route get {to}"));
    let mut words = route.split_whitespace();
    words.find(|&word| word == "mtu")?;
    words.next()?.parse().ok()
}

#[test]
fn a_sender_learns_that_its_packets_are_too_big_for_the_next_link() {
    let world = World::lay(&[2]);
    let (small, large) = (world.node(1, 1), world.node(1, 2));
    small.host.ip("link set eth0 mtu 1300");
    world.start();
    let (near, far) = (small.pod("default/near", ""), large.pod("default/far", ""));
    let _server = near.serve(8080, "near");
    assert_eq!((mtu(&near), mtu(&far)), (1300, 1500));
    // The wire of the other node shrinks as well, under a pod that was made with its old size.
    large.stop();
    large.host.ip("link set eth0 mtu 1300");
    large.start();
    far.reaches(near.addresses(), 8080, "near", ALL);
    for address in near.addresses() {
        eventually(&format!("the MTU towards {address} is learned"), || {
            let answer = far.ping(address, "-M do -s 1400");
            match learned_mtu(&far, address) {
                Some(1300) => Ok(()),
                other => Err(format!("{other:?}: {answer:?}")),
            }
        });
        let mut conversation = far.connect((address, 8080)).unwrap();
        assert_eq!(conversation.ask(&"0123456789abcdef".repeat(1 << 14)).unwrap(), "near");
        assert_eq!(far.ask_udp((address, 8080), &"x".repeat(5000)).unwrap(), "near");
    }
}

#[test]
fn jumbo_frames_cross_nodes_whole() {
    const MTU: u32 = 9000;
    let world = World::lay(&[2]);
    world.set_mtu(MTU);
    world.start();
    world.cluster(1).apply("services.yaml", &[service("near", 10, ""), service("far", 11, "")].join("---\n"));
    let (here, there) = (world.node(1, 1), world.node(1, 2));
    let client = here.pod("default/client", "");
    let (near, far) = (here.pod("default/near", "app=near"), there.pod("default/far", "app=far"));
    let _servers = [near.serve(8080, "near"), far.serve(8080, "far")];
    assert_eq!(mtu(&client), MTU);
    for (server, name, number) in [(&near, "near", 10), (&far, "far", 11)] {
        client.reaches(server.addresses(), 8080, name, ALL);
        let services = [format!("10.96.0.{number}"), format!("fd00:96::{number}")];
        for (address, service) in server.addresses().into_iter().zip(services) {
            let headers = if address.is_ipv4() { 20 + 8 } else { 40 + 8 };
            let most = (MTU - headers) as usize;
            client.ping(address, &format!("-M do -s {most}")).unwrap();
            let refusal = client.ping(address, &format!("-M do -s {}", most + 1)).unwrap_err();
            assert!(refusal.contains("too long"), "{refusal}");
            for to in [(address, 8080), (service.parse().unwrap(), 80)] {
                // The answer is longer by the server's name. At first, in the middle, and often enough
                // for the kernel to take over; then in fragments.
                for size in [1473, 4083, 8177].into_iter().chain([most - 8; 20]).chain([most + 1, 20_000]) {
                    let answer = eventually(&format!("{size} bytes to {to:?}"), || {
                        client.ask_udp(to, &"x".repeat(size))
                    });
                    assert_eq!(answer, name);
                }
                let mut conversation = client.connect(to).unwrap();
                assert_eq!(conversation.ask(&"0123456789abcdef".repeat(1 << 18)).unwrap(), name);
            }
        }
    }
}

#[test]
fn an_uplink_of_an_impossible_mtu_is_refused() {
    let world = World::lay(&[1]);
    let node = world.node(1, 1);
    for mtu in ["1200", "20000"] {
        node.host.ip(&format!("link set eth0 mtu {mtu}"));
        let refusal = node.run_to_end(&[]).unwrap_err();
        assert!(
            refusal.contains("error: ") && refusal.contains("eth0") && refusal.contains(mtu),
            "{refusal}"
        );
        assert_eq!(node.host.links(), ["lo", "eth0"]);
    }
}
