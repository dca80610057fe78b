use super::record::{Lost, Record};
use super::resolve::{Resolver, record};
use super::text::Style;
use super::*;
use control::agent::DropQuery;
use engine::event::{SNAP, TracePoint, TraceState};
use engine::{DropReason, Event, EventKind};
use std::net::SocketAddr;
use tables::{Direction, Endpoint, Match, RuleId, ServiceSpec, Snapshot};
use wire::craft::Craft;
use wire::hub::{LinkDestination, Origin};
use wire::{Address, Identity, MacAddr, Protocol, Tuple};

const SYN: u8 = 0x02;
const ACK: u8 = 0x10;
const STRANGER: Identity = Identity(6619138);
const DB: Identity = Identity(6587186);

/// Answers with what it was asked.
#[derive(Default)]
struct Known(Snapshot);

impl Resolver for Known {
    fn tables(&self) -> &Snapshot {
        &self.0
    }
    fn explain(&mut self, q: DropQuery) -> String {
        if q.peer == Identity::UNKNOWN {
            return format!("who is {}?", q.address);
        }
        format!(
            "{:?} of {} from {} on {}/{} by {:?}",
            q.direction, q.endpoint, q.peer, q.port, q.proto, q.rule
        )
    }
    fn rule(&mut self, rule: RuleId) -> Option<String> {
        Some(format!("rule {} of default/db", rule.0))
    }
    fn cluster(&self, identity: Identity) -> Option<String> {
        (identity.cluster() == 101).then(|| "cluster1".into())
    }
    fn interface(&self, ifindex: u32) -> Option<String> {
        (ifindex == 12).then(|| "dp0a1b".into())
    }
}

fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

/// An event about the frame of a packet whose tuple the parser knows.
fn event(kind: EventKind, frame: &[u8]) -> Event {
    let tuple = match wire::parse::parse(frame) {
        Ok(wire::parse::Network::Ip(packet)) => packet.tuple,
        _ => Tuple::default(),
    };
    let mut snap = [0; SNAP];
    let captured = frame.len().min(SNAP);
    snap[..captured].copy_from_slice(&frame[..captured]);
    Event {
        kind,
        tuple,
        src_identity: STRANGER,
        dst_identity: DB,
        src_endpoint: 0,
        dst_endpoint: 3833,
        direction: Direction::Ingress,
        hash: 0x28c6_44b8,
        ifindex: 0,
        translated: None,
        length: frame.len() as u32,
        captured: captured as u8,
        snap,
    }
}

fn drop(reason: DropReason) -> EventKind {
    EventKind::Drop { reason, rule: None }
}

fn syn() -> Craft {
    Craft::tcp(address("10.60.2.7:42728"), address("10.60.1.9:6379"), SYN)
}

fn text(event: &Event) -> String {
    Style::default().text(&record(0, event, &mut Known::default()))
}

#[test]
fn a_policy_drop_reads_like_ciliums_and_says_why() {
    let mut event = event(drop(DropReason::PolicyDenied), &syn().build());
    assert_eq!(
        text(&event),
        "xx drop (Policy denied) flow 0x28c644b8 to endpoint 3833, identity 6619138->6587186: \
         10.60.2.7:42728 -> 10.60.1.9:6379 tcp SYN [Ingress of 3833 from 6619138 on 6379/TCP by None]"
    );
    event.kind = EventKind::Drop { reason: DropReason::PolicyDeniedByRule, rule: Some(RuleId(5)) };
    (event.direction, event.src_endpoint, event.dst_endpoint) = (Direction::Egress, 77, 0);
    assert_eq!(
        text(&event),
        "xx drop (Policy denied by denylist) flow 0x28c644b8 to endpoint 0, identity 6619138->6587186: \
         10.60.2.7:42728 -> 10.60.1.9:6379 tcp SYN [Egress of 77 from 6587186 on 6379/TCP by Some(RuleId(5))]"
    );
}

#[test]
fn a_drop_for_an_unknown_identity_names_the_address() {
    let mut event = event(drop(DropReason::UnknownIdentity), &syn().build());
    event.src_identity = Identity::UNKNOWN;
    assert_eq!(
        text(&event),
        "xx drop (Unknown identity) flow 0x28c644b8 to endpoint 3833, identity unknown->6587186: \
         10.60.2.7:42728 -> 10.60.1.9:6379 tcp SYN [who is 10.60.2.7?]"
    );
    (event.direction, event.src_identity, event.dst_identity) = (Direction::Egress, DB, Identity::UNKNOWN);
    event.translated = Some(Tuple { dst: address("10.60.2.8:0").ip().into(), ..event.tuple });
    assert!(text(&event).ends_with("who is 10.60.2.8?]"), "{}", text(&event));
}

#[test]
fn a_translated_packet_shows_backend_and_service() {
    let frame = Craft::tcp(address("10.60.2.7:42728"), address("10.96.0.10:6379"), SYN).build();
    let mut event = event(drop(DropReason::PolicyDenied), &frame);
    event.translated = Some(Tuple { dst: address("10.60.1.9:0").ip().into(), ..event.tuple });
    assert!(
        text(&event).ends_with(
            ": 10.60.2.7:42728 -> 10.60.1.9:6379 tcp SYN \
             [service 10.96.0.10:6379: Ingress of 3833 from 6619138 on 6379/TCP by None]"
        ),
        "{}",
        text(&event)
    );
}

#[test]
fn a_reply_shows_the_service_it_comes_from() {
    let frame = Craft::tcp(address("10.60.1.9:6379"), address("10.60.2.7:42728"), SYN | ACK).build();
    let kind = EventKind::Trace { point: TracePoint::ToNetwork, state: TraceState::Reply };
    let mut event = event(kind, &frame);
    event.translated = Some(Tuple { src: address("10.96.0.10:0").ip().into(), ..event.tuple });
    assert_eq!(
        text(&event),
        "-> network flow 0x28c644b8 , identity 6619138->6587186 state reply ifindex 0 orig-ip 10.60.1.9: \
         10.96.0.10:6379 -> 10.60.2.7:42728 tcp SYN, ACK [service 10.96.0.10:6379]"
    );
}

#[test]
fn traces_and_verdicts_read_like_ciliums() {
    let frame = Craft::tcp(address("10.3.0.15:41288"), address("10.1.0.9:80"), SYN | ACK).build();
    let kind = EventKind::Trace { point: TracePoint::ToEndpoint, state: TraceState::Established };
    let mut event = event(kind, &frame);
    event.ifindex = 12;
    assert_eq!(
        text(&event),
        "-> endpoint 3833 flow 0x28c644b8 , identity 6619138->6587186 state established ifindex dp0a1b \
         orig-ip 0.0.0.0: 10.3.0.15:41288 -> 10.1.0.9:80 tcp SYN, ACK"
    );
    event.kind = EventKind::Verdict { allowed: true, rule: Some(RuleId(2)), matched: Match::L3L4 };
    assert_eq!(
        text(&event),
        "Policy verdict log: flow 0x28c644b8 local EP ID 3833, remote ID 6619138, proto 6, ingress, action allow, \
         auth: disabled, match L3-L4, 10.3.0.15:41288 -> 10.1.0.9:80 tcp SYN, ACK [rule 2 of default/db]"
    );
    event.kind = EventKind::Verdict { allowed: false, rule: None, matched: Match::None };
    let denied = text(&event);
    assert!(denied.contains("action deny, auth: disabled, match none, 10.3.0.15:41288"), "{denied}");
    assert!(denied.ends_with("[Ingress of 3833 from 6619138 on 80/TCP by None]"), "{denied}");
}

#[test]
fn identities_are_names_unless_numbers_are_asked_for() {
    let mut event = event(drop(DropReason::PolicyDenied), &syn().build());
    (event.src_identity, event.dst_identity) = (Identity::WORLD, Identity::REMOTE_NODE);
    let record = record(0, &event, &mut Known::default());
    let numeric = Style { numeric: true, verbose: false };
    assert!(Style::default().text(&record).contains("identity world->remote-node: "));
    assert!(numeric.text(&record).contains("identity 2->6: "));
}

#[test]
fn verbose_adds_a_header() {
    let event = event(drop(DropReason::PolicyDenied), &syn().build());
    let text = Style { verbose: true, numeric: false }.text(&record(2, &event, &mut Known::default()));
    let mut lines = text.lines();
    assert_eq!(lines.next(), Some("-".repeat(78).as_str()));
    assert_eq!(
        lines.next(),
        Some(
            "CPU 02: MARK 0x28c644b8 FROM 0 DROP: 54 bytes, reason Policy denied, identity 6619138->6587186, to endpoint 3833"
        )
    );
}

#[test]
fn summaries_of_other_packets() {
    let (a, b) = ("fd00::1".parse().unwrap(), "fd00::2".parse().unwrap());
    let (c, d) = ("10.0.0.1".parse().unwrap(), "10.0.0.2".parse().unwrap());
    let arp = [&[0xff; 6][..], &[2, 0, 0, 0, 0, 1], &[8, 6], &[0; 28]].concat();
    for (frame, expected) in [
        (
            Craft::tcp(address("[fd00::1]:1"), address("[fd00::2]:2"), 0x15).build(),
            "[fd00::1]:1 -> [fd00::2]:2 tcp ACK, RST, FIN",
        ),
        (
            Craft::udp(address("10.0.0.1:53"), address("10.0.0.2:99")).build(),
            "10.0.0.1:53 -> 10.0.0.2:99 udp",
        ),
        (Craft::sctp(address("10.0.0.1:1"), address("10.0.0.2:2")).build(), "10.0.0.1:1 -> 10.0.0.2:2 sctp"),
        (Craft::echo_request(c, d, 9).build(), "10.0.0.1 -> 10.0.0.2 icmp EchoRequest"),
        (Craft::echo_reply(a, b, 9).build(), "fd00::1 -> fd00::2 icmp EchoReply"),
        (
            Craft::icmp(c, d, 3, 4, 0).build(),
            "10.0.0.1 -> 10.0.0.2 icmp DestinationUnreachable(FragmentationNeeded)",
        ),
        (Craft::icmp(c, d, 11, 0, 0).build(), "10.0.0.1 -> 10.0.0.2 icmp TimeExceeded(TTLExceeded)"),
        (Craft::icmp(c, d, 8, 3, 0).build(), "10.0.0.1 -> 10.0.0.2 icmp EchoRequest(Code: 3)"),
        (Craft::icmp(a, b, 2, 0, 1280).build(), "fd00::1 -> fd00::2 icmp PacketTooBig"),
        (Craft::icmp(a, b, 200, 1, 0).build(), "fd00::1 -> fd00::2 icmp 200(1)"),
        (Craft::new(c, d, Protocol(47), &[0; 8]).build(), "10.0.0.1 -> 10.0.0.2"),
        (arp, "02:00:00:00:00:01 -> ff:ff:ff:ff:ff:ff ARP"),
        (vec![1, 2, 3], "[unknown]"),
    ] {
        assert_eq!(
            summary::Summary::of(&event(drop(DropReason::InvalidPacket), &frame)).to_string(),
            expected
        );
    }
}

#[test]
fn summaries_survive_any_cut() {
    let frames = [
        syn().build(),
        Craft::tcp(address("[fd00::1]:1"), address("[fd00::2]:2"), SYN).build(),
        Craft::udp(address("[fd00::1]:1"), address("[fd00::2]:2"))
            .payload(&[0; 64])
            .fragments(7, 32)
            .remove(1),
    ];
    for frame in frames {
        for length in 0..frame.len() {
            let mut event = event(drop(DropReason::InvalidPacket), &frame[..length]);
            event.tuple = Tuple::default();
            let shown = text(&event);
            assert!(shown.starts_with("xx drop (Invalid packet) flow"), "{shown}");
        }
    }
}

#[test]
fn drops_for_other_reasons_say_what_the_tables_know() {
    let mut tables = Snapshot::default();
    let pod = Endpoint {
        id: 77,
        ifindex: 12,
        mac: MacAddr([2, 0, 0, 0, 0, 7]),
        addresses: ["10.60.2.7", "fd00::7"]
            .map(|ip| Address::from(ip.parse::<std::net::IpAddr>().unwrap()))
            .into(),
        identity: STRANGER,
        policy: Default::default(),
    };
    tables.endpoints.upsert(pod);
    let frontend = |address: &str| {
        let socket: SocketAddr = address.parse().unwrap();
        tables::Frontend { address: socket.ip().into(), port: socket.port(), proto: Protocol::TCP }
    };
    tables.services.upsert(ServiceSpec { id: 1, frontend: frontend("10.96.0.10:80"), backends: vec![] });
    let why = |reason: DropReason, frame: &[u8]| {
        let mut event = event(drop(reason), frame);
        event.ifindex = if reason == DropReason::UnknownOrigin { 0 } else { 12 };
        match record(0, &event, &mut Known(tables.clone())) {
            Record::Drop(drop) => drop.why,
            other => panic!("{other:?}"),
        }
    };
    let spoofed = Craft::tcp(address("1.2.3.4:5"), address("10.96.0.10:80"), SYN).build();
    for (reason, expected) in [
        (DropReason::InvalidSourceIp, "endpoint 77 may send from 10.60.2.7, fd00::7 only"),
        (DropReason::InvalidSourceMac, "endpoint 77 may send from 02:00:00:00:00:07 only"),
        (DropReason::NoServiceBackend, "service 10.96.0.10:80/TCP has no backend"),
        (DropReason::Unroutable, "nothing here leads to 10.96.0.10"),
    ] {
        assert_eq!(why(reason, &spoofed).as_deref(), Some(expected));
    }
    let other_port = Craft::tcp(address("1.2.3.4:5"), address("10.96.0.10:81"), SYN).build();
    assert_eq!(
        why(DropReason::NoServiceBackend, &other_port).as_deref(),
        Some("10.96.0.10 is a service address, but no service has port 81/TCP there")
    );
    assert_eq!(why(DropReason::BadChecksum, &spoofed), None);
    let steered = Origin::Pod { ifindex: 12, to: LinkDestination::Gateway }.encode();
    let early =
        Craft::tcp(address("1.2.3.4:5"), address("10.96.0.10:80"), SYN).link(MacAddr([2; 6]), steered);
    assert_eq!(
        why(DropReason::UnknownOrigin, &early.build()).as_deref(),
        Some("dp0a1b is of no endpoint that has its identity: see `dataplane endpoint list`")
    );
}

#[test]
fn json_has_ciliums_names_and_comes_back_equal() {
    let steered = Origin::Pod { ifindex: 12, to: LinkDestination::Gateway }.encode();
    let mut event = event(drop(DropReason::PolicyDenied), &syn().link(MacAddr([2; 6]), steered).build());
    event.ifindex = 12;
    let record = record(2, &event, &mut Known::default());
    let json = serde_json::to_value(&record).unwrap();
    assert_eq!(
        json,
        serde_json::json!({
            "type": "drop", "cpu": "CPU 02:", "mark": "0x28c644b8", "reason": "Policy denied", "reasonCode": 133,
            "source": 0, "dstID": 3833, "bytes": 54, "srcLabel": 6619138, "dstLabel": 6587186,
            "srcCluster": "cluster1", "ifindex": "dp0a1b", "direction": "ingress",
            "why": "Ingress of 3833 from 6619138 on 6379/TCP by None",
            "summary": {
                "ethernet": "IPv4", "protocol": "tcp", "detail": "SYN",
                "l2": {"src": "02:02:02:02:02:02", "dst": "gateway"},
                "l3": {"src": "10.60.2.7", "dst": "10.60.1.9"},
                "l4": {"src": "42728", "dst": "6379"},
            },
        })
    );
    assert_eq!(serde_json::from_value::<Record>(json).unwrap(), record);
}

#[test]
fn filters_select_by_kind_and_endpoint() {
    let filter = |kinds: &str, from: &str, to: &str, related_to: &str| {
        Query { kinds: kinds.into(), from: from.into(), to: to.into(), related_to: related_to.into() }
            .filter()
            .unwrap()
    };
    let mut event = event(drop(DropReason::PolicyDenied), &syn().build());
    (event.src_endpoint, event.dst_endpoint) = (1, 2);
    for (yes, kinds, from, to, related) in [
        (true, "", "", "", ""),
        (true, "drop,trace", "", "", ""),
        (false, "trace,policy-verdict", "", "", ""),
        (true, "", "1,9", "2", ""),
        (false, "", "2", "", ""),
        (false, "", "", "1", ""),
        (true, "", "", "", "9,2"),
        (false, "", "1", "", "9"),
    ] {
        assert_eq!(filter(kinds, from, to, related).matches(&event), yes, "{kinds} {from} {to} {related}");
    }
    let wrong = Query { kinds: "drops".into(), ..Query::default() };
    assert_eq!(wrong.filter(), Err("type: drops: must be drop, trace or policy-verdict".into()));
    let wrong = Query { from: "x".into(), ..Query::default() };
    assert_eq!(wrong.filter(), Err("from: x: must be an endpoint id, 0 to 65535".into()));
}

#[test]
fn a_listener_that_is_too_slow_is_told_what_it_missed() {
    let (lines, mut receiver) = mpsc::channel(2);
    let mut listener = Listener { filter: Filter::default(), lines, lost: 0 };
    for _ in 0..5 {
        listener.send(Bytes::from_static(b"x"));
    }
    assert_eq!(receiver.try_recv().unwrap(), "x");
    assert_eq!(receiver.try_recv().unwrap(), "x");
    listener.send(Bytes::from_static(b"y"));
    let lost: Record = serde_json::from_slice(&receiver.try_recv().unwrap()).unwrap();
    assert_eq!(lost, Record::Lost(Lost { cpu: None, count: 3 }));
    assert_eq!(receiver.try_recv().unwrap(), "y");
    let worker = Record::Lost(Lost { cpu: Some("CPU 03:".into()), count: 17 });
    assert_eq!(Style::default().text(&worker), "CPU 03: Lost 17 events");
}
