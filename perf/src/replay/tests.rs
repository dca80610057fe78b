use super::*;
use capture::{Cooked, Place};
use dataplane::monitor::text::Style;
use std::net::{IpAddr, SocketAddr};
use wire::craft::Craft;
use wire::hub::{LinkDestination, Origin};
use wire::parse::tcp::{ACK, SYN};
use wire::{MacAddr, Network};

const GATEWAY: MacAddr = MacAddr([0x0a, 0, 0, 0, 0, 1]);
const POD_MAC: MacAddr = MacAddr([2, 0, 0, 0, 0, 8]);
const UPLINK_MAC: MacAddr = MacAddr([2, 0, 0, 0, 0, 1]);
const OTHER_NODE: MacAddr = MacAddr([2, 0, 0, 0, 0, 2]);
const REDIS: ([u8; 4], u16) = ([10, 60, 1, 9], 6379);
const POD: Entry = Entry::Pod { ifindex: 18 };
const UPLINK: Entry = Entry::Uplink { index: 0 };
/// When the state was taken.
const TAKEN: u64 = 1_700_000_000;

/// A node with a stranger (8) and a redis (9) that lets in identity 70000 only.
fn node() -> Node {
    let endpoint = |id: u32, identity: u32, policy: usize| {
        serde_json::json!({
            "id": id, "interface": format!("dp{id}"), "ifindex": 10 + id, "mac": format!("02:00:00:00:00:0{id}"),
            "addresses": [format!("10.60.1.{id}")], "identity": identity, "policy": policy,
        })
    };
    let rule = serde_json::json!({"rule": 5, "deny": false, "peers": [70_000], "protocol": 6, "ports": [6379, 6379]});
    let flow = serde_json::json!({
        "from": ["10.60.2.7", 4000], "to": ["10.60.1.9", 6379], "protocol": 6, "source-identity": 70_000,
        "destination-identity": 70_001, "generation": 3, "created": 500, "last-seen": 990, "replied": true,
        "tcp-flags": 0x12, "reply-tcp-flags": 0x12,
    });
    let state = serde_json::json!({
        "version": 1, "agent": "0.1.0", "taken": {"unix": TAKEN, "boot": 1000, "policy-generation": 3},
        "node": {
            "name": "node1", "addresses": ["10.0.1.1", "10.60.1.1"], "gateway-v4": "10.60.1.1", "gateway-v6": null,
            "gateway-mac": GATEWAY.to_string(), "pod-mtu": 1500, "pod-ranges": [["10.60.1.0", "10.60.1.255"]],
            "uplinks": [{"name": "eth0", "ifindex": 2, "mac": UPLINK_MAC.to_string(), "mtu": 1500}],
            "dual-stack": false,
        },
        "clusters": {"1": "cluster1"},
        "endpoints": [endpoint(8, 70_002, 1), endpoint(9, 70_001, 0)],
        "policies": [{"ingress": [rule], "egress": null}, {"ingress": null, "egress": null}],
        "names": {
            "pods": {
                "8": {"name": "default/stranger", "allows": [0, 0]},
                "9": {"name": "default/redis-0", "allows": [1, 0]},
            },
            "identities": {"70002": "app=stranger (cluster1)"}, "rules": {"5": "rule 1 of default/redis (ingress)"},
        },
        "ipcache": [{"prefix": "10.60.2.7/32", "identity": 70_000, "node": "10.0.1.2"}],
        "services": [], "flows": [flow],
        "hops": [{"node": "10.0.1.2", "way": {"uplink": 0, "mac": OTHER_NODE.to_string(), "mtu": 1500}}],
    });
    Node::new(Loaded::read(state.to_string().as_bytes()).unwrap())
}

fn sock((address, port): ([u8; 4], u16)) -> SocketAddr {
    (IpAddr::from(address), port).into()
}

fn stranger(port: u16) -> SocketAddr {
    sock(([10, 60, 1, 8], port))
}

/// A frame captured `after` seconds since the state was taken.
fn captured(after: i64, frame: Vec<u8>) -> Captured {
    let time = (TAKEN as i64 + after) as u64 * 1_000_000_000;
    Captured { number: 1, time, place: Place::Unsaid, cooked: None, frame, missing: 0 }
}

fn lines(node: &mut Node, outcome: &Outcome) -> Vec<String> {
    outcome.records(&mut node.loaded).iter().map(|record| Style::default().text(record)).collect()
}

#[test]
fn a_drop_is_explained_as_the_monitor_does() {
    let mut node = node();
    let syn = Craft::tcp(stranger(42_728), sock(REDIS), SYN).link(POD_MAC, GATEWAY).build();
    let outcome = node.replay(POD, &captured(0, syn));
    assert_eq!(outcome.dropped(), Some(DropReason::PolicyDenied));
    let [verdict, drop] = lines(&mut node, &outcome).try_into().unwrap();
    assert!(verdict.contains("action deny"), "{verdict}");
    let said = "to endpoint 9, identity 70002->70001: 10.60.1.8:42728 -> 10.60.1.9:6379 tcp SYN \
                [no rule of 1 selecting default/redis-0 allows app=stranger (cluster1) on 6379/TCP]";
    assert!(drop.starts_with("xx drop (Policy denied) flow ") && drop.ends_with(said), "{drop}");
}

#[test]
fn connections_from_before_the_capture_go_on_until_they_expire() {
    let from = sock(([10, 60, 2, 7], 4000));
    let packet =
        |sport| Craft::tcp((from.ip(), sport).into(), sock(REDIS), ACK).link(OTHER_NODE, UPLINK_MAC).build();
    let events = |after, sport| {
        let outcome = node().replay(UPLINK, &captured(after, packet(sport)));
        assert_eq!(outcome.dropped(), None);
        outcome.events.len()
    };
    assert_eq!(events(0, 4000), 0, "a known flow is no news");
    assert_ne!(events(0, 4001), 0, "a new flow is");
    assert_ne!(events(-600, 4000), 0, "it had not begun then");
    assert_ne!(events(9000, 4000), 0, "it has expired by then");
}

#[test]
fn frames_get_the_mark_that_steering_gives_them() {
    let node = node();
    let tables = node.loaded.tables();
    let frame = |to| Craft::tcp(stranger(1), sock(REDIS), SYN).link(POD_MAC, to).build();
    let steered = |entry: Entry, captured: &Captured| {
        let (port, frame) = entry.frame(tables, captured)?;
        Ok((port, Origin::decode(wire::parse::macs(&frame).unwrap().0)))
    };
    let pod = |to| Ok((Port::Hub, Some(Origin::Pod { ifindex: 18, to })));
    for (to, class) in [
        (GATEWAY, LinkDestination::Gateway),
        (MacAddr::BROADCAST, LinkDestination::Group),
        (OTHER_NODE, LinkDestination::Other),
    ] {
        assert_eq!(steered(POD, &captured(0, frame(to))), pod(class));
    }
    assert_eq!(steered(POD, &captured(0, frame(POD_MAC))), Err(Elsewhere::Leaves));
    let cooked = |cooked| Captured { cooked: Some(cooked), ..captured(0, frame(MacAddr::default())) };
    let gateway = LinkDestination::Gateway;
    assert_eq!(steered(POD, &cooked(Cooked::Received(gateway))), pod(gateway));
    assert_eq!(steered(POD, &cooked(Cooked::Sent)), Err(Elsewhere::Leaves));

    let to = |dst: [u8; 4], src, mac| {
        captured(0, Craft::tcp(sock((src, 1)), sock((dst, 2)), SYN).link(mac, GATEWAY).build())
    };
    let uplink = |captured: &Captured| UPLINK.frame(tables, captured).map(|(port, _)| port);
    assert_eq!(uplink(&to(REDIS.0, [10, 60, 2, 7], OTHER_NODE)), Ok(Port::Uplink(0)));
    assert_eq!(uplink(&to([10, 0, 1, 1], [10, 60, 2, 7], OTHER_NODE)), Err(Elsewhere::HostsOwn));
    assert_eq!(uplink(&to([10, 60, 2, 7], REDIS.0, UPLINK_MAC)), Err(Elsewhere::Leaves));

    let hub = |to| Entry::Hub.frame(tables, &captured(0, frame(to))).map(|(port, _)| port);
    assert_eq!(hub(Origin::Pod { ifindex: 18, to: gateway }.encode()), Ok(Port::Hub));
    assert_eq!(hub(POD_MAC), Err(Elsewhere::Leaves));
}

#[test]
fn of_a_packet_longer_than_the_mtu_the_first_segment_is_judged() {
    let mut node = node();
    for (src, dst) in [("10.60.1.8", "10.60.1.9"), ("fd00::8", "fd00::9")] {
        let sock = |ip: &str| SocketAddr::new(ip.parse().unwrap(), 80);
        let long = Craft::tcp(sock(src), sock(dst), ACK).payload(&[7; 20_000]).link(POD_MAC, GATEWAY).build();
        let (_, frame) = POD.frame(node.loaded.tables(), &captured(0, long)).unwrap();
        let Ok(Network::Ip(packet)) = wire::parse(&frame) else {
            panic!("the segment of {src} is malformed")
        };
        assert_eq!(packet.l3_len(), 1500);
    }
    let udp = Craft::udp(stranger(1), sock(([10, 60, 2, 7], 53))).payload(&[0; 2000]).link(POD_MAC, GATEWAY);
    let outcome = node.replay(POD, &captured(0, udp.build()));
    assert_eq!(outcome.dropped(), Some(DropReason::FragmentationNeeded), "datagrams are not cut");
}

#[test]
fn interfaces_are_found_by_all_their_names() {
    let node = node();
    for name in ["dp8", "8", "default/stranger"] {
        assert_eq!(Entry::named(&node.loaded, name), Ok(POD));
    }
    assert_eq!(Entry::named(&node.loaded, "eth0"), Ok(UPLINK));
    assert_eq!(Entry::named(&node.loaded, "dphub0"), Ok(Entry::Hub));
    let error = Entry::named(&node.loaded, "eth9").unwrap_err();
    assert_eq!(
        error,
        "interface: eth9: not in the state; must be a pod's name or number, or one of dp8, dp9, eth0, dphub0"
    );
    let at = |place| Entry::of_place(&node.loaded, &place);
    assert_eq!(
        (at(Place::Index(18)), at(Place::Index(2)), at(Place::Index(3))),
        (Some(POD), Some(UPLINK), None)
    );
    assert_eq!((at(Place::Name("eth0".into())), at(Place::Unsaid)), (Some(UPLINK), None));
}

#[test]
fn text_and_json_say_the_same() {
    let mut node = node();
    let frames = [
        Craft::tcp(stranger(1), sock(REDIS), SYN).link(POD_MAC, GATEWAY).build(),
        Craft::udp(stranger(2), sock(([10, 60, 1, 1], 53))).link(POD_MAC, GATEWAY).build(),
        Craft::udp(stranger(2), sock(([10, 60, 1, 1], 53))).link(POD_MAC, GATEWAY).build(),
        Craft::udp(sock(REDIS), stranger(2)).link(GATEWAY, POD_MAC).build(),
    ];
    let (mut text, mut json) = (Show::new(false), Show::new(true));
    let (mut said, mut verdicts) = (String::new(), Vec::new());
    for frame in frames {
        let captured = captured(0, frame);
        let outcome = node.replay(POD, &captured);
        said += &text.packet(&captured, &outcome, &mut node.loaded);
        let line: serde_json::Value =
            serde_json::from_str(&json.packet(&captured, &outcome, &mut node.loaded)).unwrap();
        verdicts.push(line["verdict"].as_str().unwrap().to_owned());
    }
    assert_eq!(verdicts, ["dropped", "forwarded", "forwarded", "not-replayed"]);
    assert!(said.contains("22:13:20.000000 Policy verdict log: flow "), "{said}");
    assert!(said.contains("-> endpoint or host, known flow: 10.60.1.8:2 -> 10.60.1.1:53 UDP"), "{said}");
    let sum =
        "4 packets: 2 forwarded, 1 dropped (1 Policy denied), 1 not replayed (1 leaving by this interface)\n";
    assert_eq!((text.end(), json.end()), (sum.to_owned(), String::new()));
}
