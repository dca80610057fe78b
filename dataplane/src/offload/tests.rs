//! Real engine, conntrack and publisher; the clocks are those of the machine, and packets of long
//! ago are made by a clock that is behind.

use super::*;
use crate::worker::{coarse_clock, now};
use engine::event::{EventKind, Interest, TraceState};
use engine::{Context, Counters, Engine, Event, Frame, Port, Sink, Verdict};
use flow::{Count, Flow};
use proptest::prelude::*;
use std::net::SocketAddr;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant};
use tables::{Backend, Direction, Endpoint, Frontend, IpEntry, Node, Policy, PolicySpec, ServiceSpec};
use wire::craft::Craft;
use wire::hub::{LinkDestination, Origin};
use wire::parse::tcp;
use wire::{Address, Identity, MacAddr, Tuple};

const GATEWAY: MacAddr = MacAddr([2, 0, 0, 0, 0, 1]);
const CLIENT: &str = "10.60.1.10:4000";
const SERVER: &str = "10.60.1.11:53";
/// Bytes of an empty UDP datagram from the IP header on.
const DATAGRAM: u64 = 28;
const AFTER: u32 = 2;

struct World {
    offload: Arc<Offload>,
    engine: Box<Engine>,
    counters: Counters,
    events: Events,
    /// How far packets' clocks are behind, in seconds.
    behind: u32,
}

#[derive(Default)]
struct Events(Vec<EventKind>);

impl Sink for Events {
    fn event(&mut self, event: &Event) {
        self.0.push(event.kind);
    }
}

fn leak<T>(value: T) -> &'static T {
    Box::leak(Box::new(value))
}

fn socket(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn address(text: &str) -> Address {
    socket(text).ip().into()
}

fn pod(id: u16, at: &str, policy: PolicySpec) -> Endpoint {
    Endpoint {
        id,
        ifindex: 10 + u32::from(id),
        mac: MacAddr([2, 0, 0, 0, 1, id as u8]),
        addresses: [address(at)].into(),
        identity: Identity(1 << 16 | u32::from(id)),
        policy: Arc::new(Policy::compile(&policy)),
    }
}

fn deny() -> PolicySpec {
    PolicySpec { ingress: Some(vec![]), egress: None }
}

fn publisher() -> Arc<Publisher> {
    let publisher = Publisher::new(7);
    publisher.edit(|tables| {
        tables.node = Node { gateway_mac: GATEWAY, pod_mtu: 1500, ..Node::default() };
        tables.endpoints.upsert(pod(1, CLIENT, PolicySpec::default()));
        tables.endpoints.upsert(pod(2, SERVER, PolicySpec::default()));
    });
    publisher
}

fn words(slots: usize) -> &'static [AtomicU64] {
    Box::leak((0..slots * verdicts::Table::SLOT_WORDS).map(|_| AtomicU64::new(0)).collect())
}

impl World {
    /// Two pods and room for `slots` verdicts.
    fn new(slots: usize) -> World {
        World::over(words(slots), leak(flow::Table::boxed(64, 42)), publisher())
    }

    fn over(words: &'static [AtomicU64], flows: &'static flow::Table, publisher: Arc<Publisher>) -> World {
        World {
            offload: Arc::new(Offload::new(leak(verdicts::Table::new(words)), flows, publisher, true)),
            engine: Box::new(Engine::new()),
            counters: Counters::new(),
            events: Events::default(),
            behind: 0,
        }
    }

    fn send(&mut self, from: u16, craft: Craft) -> Verdict {
        let tables = self.offload.publisher.current();
        let sender = tables.endpoints.iter().find(|endpoint| endpoint.id == from).unwrap();
        let origin = Origin::Pod { ifindex: sender.ifindex, to: LinkDestination::Gateway };
        let mut bytes = craft.link(sender.mac, origin.encode()).build();
        let context = Context {
            tables: &tables,
            flows: self.offload.flows,
            verdicts: self.offload.verdicts,
            cache_after: AFTER,
            now: now() - self.behind,
            clock: coarse_clock() - u64::from(self.behind) * 1_000_000_000,
            interest: Interest { trace: true, verdict: true },
            may_hold: false,
        };
        let len = bytes.len();
        let mut frame = Frame { buf: &mut bytes, head: 0, len, tail: 0 };
        self.engine.process(&context, &self.counters, Port::Hub, &mut frame, &mut self.events)
    }

    /// Datagrams from the client to the server.
    fn ask(&mut self, count: u32) {
        for _ in 0..count {
            let verdict = self.send(1, Craft::udp(socket(CLIENT), socket(SERVER)));
            assert_eq!(verdict, Verdict::Transmit(Port::Hub));
        }
    }

    fn answer(&mut self) {
        let verdict = self.send(2, Craft::udp(socket(SERVER), socket(CLIENT)));
        assert_eq!(verdict, Verdict::Transmit(Port::Hub));
    }

    fn flow(&self) -> Flow {
        let (src, dst) = (socket(CLIENT), socket(SERVER));
        let tuple = Tuple {
            src: src.ip().into(),
            dst: dst.ip().into(),
            sport: src.port(),
            dport: dst.port(),
            proto: wire::Protocol::UDP,
        };
        self.offload.flows.lookup(&tuple, now()).unwrap().0
    }

    fn cached(&self) -> usize {
        self.offload.verdicts.stats().entries
    }

    /// Frames that the pipeline itself has forwarded.
    fn whole_way(&self) -> u64 {
        self.counters.read_forwarded(Direction::Egress).0
    }
}

fn datagrams(count: u64) -> Count {
    Count { packets: count, bytes: count * DATAGRAM }
}

#[test]
fn every_packet_is_accounted_once() {
    let mut world = World::new(16);
    world.ask(10);
    world.answer();
    world.answer();
    let whole_way = world.whole_way();
    assert!(whole_way < 12 && world.flow().original.packets < 10);
    for _ in 0..2 {
        let totals = world.offload.refresh();
        assert_eq!((world.flow().original, world.flow().reply), (datagrams(10), datagrams(2)));
        let (cached, ethernet) = (12 - whole_way, 14);
        let frames = Count { packets: cached, bytes: cached * (DATAGRAM + ethernet) };
        assert_eq!((totals.ingress, totals.egress), (frames, frames));
        assert_eq!((totals.packets, totals.bytes), (cached, cached * DATAGRAM));
    }
    assert!(world.offload.offloaded().contains(world.flow().id));
}

#[test]
fn a_question_over_udp_and_its_answer_are_not_cached() {
    let mut world = World::new(16);
    world.ask(1);
    world.answer();
    assert_eq!(world.cached(), 0);
    world.ask(1);
    assert_eq!(world.cached(), 2);
}

#[test]
fn the_monitor_hears_of_a_flow_as_often_as_without_the_cache() {
    let mut world = World::new(16);
    world.offload.publisher.edit(|tables| {
        let policy = PolicySpec { egress: Some(vec![everything()]), ..PolicySpec::default() };
        tables.endpoints.upsert(pod(1, CLIENT, policy));
    });
    world.ask(10);
    world.answer();
    world.ask(10);
    world.answer();
    assert!(world.whole_way() < 22);
    let traces = world.events.0.iter().filter_map(|event| match event {
        EventKind::Trace { state, .. } => Some(*state),
        _ => None,
    });
    assert_eq!(traces.collect::<Vec<_>>(), [TraceState::New, TraceState::Reply]);
    let verdicts = world.events.0.iter().filter(|event| matches!(event, EventKind::Verdict { .. }));
    assert_eq!(verdicts.count(), 1);
}

/// An entry that allows whatever it is asked about.
fn everything() -> tables::RuleEntry {
    tables::RuleEntry {
        peers: tables::Peers::Any,
        ports: tables::PortMatch { proto: None, ports: 0..=u16::MAX },
        deny: false,
        rule: tables::RuleId(1),
    }
}

#[test]
fn forwarded_packets_keep_their_flow_alive() {
    let mut world = World::new(16);
    world.behind = 50;
    world.ask(5);
    world.behind = 20;
    world.ask(1);
    world.offload.refresh();
    let age = now() - world.flow().last_seen;
    assert!((20..=22).contains(&age), "{age}");
    assert_eq!(world.cached(), 1);
}

#[test]
fn what_was_not_used_for_long_is_taken_back() {
    let mut world = World::new(16);
    world.behind = 59;
    world.ask(5);
    let totals = world.offload.refresh();
    assert_eq!((totals.expired, totals.orphaned, world.cached()), (1, 0, 0));
    // The flow itself is there: its next packet goes the whole way.
    assert_eq!(world.flow().original, datagrams(5));
}

#[test]
fn no_verdict_outlives_its_flow() {
    let mut world = World::new(16);
    world.ask(5);
    world.offload.flows.flush();
    let totals = world.offload.refresh();
    assert_eq!((totals.orphaned, world.cached()), (1, 0));

    // One that is not used is no harm, unless somebody asks for it.
    world.ask(5);
    world.offload.refresh();
    world.offload.flows.flush();
    let totals = world.offload.refresh();
    assert_eq!((totals.orphaned, world.cached()), (1, 1));
    world.offload.forget_removed();
    assert_eq!((world.offload.refresh().orphaned, world.cached()), (2, 0));
}

#[test]
fn only_what_a_change_concerns_is_taken_back() {
    let mut world = World::new(16);
    world.ask(5);
    let publisher = world.offload.publisher.clone();
    publisher.edit(|tables| {
        let entry = IpEntry { identity: Identity(5), hop: Default::default() };
        tables.ipcache.upsert("10.99.0.1/32".parse().unwrap(), entry)
    });
    world.offload.revalidate();
    assert_eq!(world.cached(), 1);
    let whole_way = world.whole_way();
    world.ask(1);
    assert_eq!(world.whole_way(), whole_way, "the verdict is confirmed, workers use it");

    publisher.edit(|tables| tables.endpoints.upsert(pod(2, SERVER, deny())));
    world.offload.revalidate();
    assert_eq!((world.offload.refresh().revoked, world.cached()), (1, 0));
    let refused = world.send(1, Craft::udp(socket(CLIENT), socket(SERVER)));
    assert!(matches!(refused, Verdict::Drop(_)));
}

/// What may happen to tables.
#[derive(Clone, Copy, Debug)]
enum Change {
    Policy(u16, bool),
    Removed(u16),
    Backend(u16),
    Unrelated(u8),
}

const SERVICE: &str = "10.96.0.1:53";

fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        (1..3u16, any::<bool>()).prop_map(|(pod, denied)| Change::Policy(pod, denied)),
        (1..3u16).prop_map(Change::Removed),
        (1..3u16).prop_map(Change::Backend),
        any::<u8>().prop_map(Change::Unrelated),
    ]
}

impl World {
    fn change(&self, change: Change) {
        let at = |id: u16| if id == 1 { CLIENT } else { SERVER };
        self.offload.publisher.edit(|tables| match change {
            Change::Policy(id, denied) => {
                tables.endpoints.upsert(pod(id, at(id), if denied { deny() } else { PolicySpec::default() }));
            }
            Change::Removed(id) => {
                tables.endpoints.remove(id);
            }
            Change::Backend(id) => {
                let (service, address) = (socket(SERVICE), address(at(id)));
                let frontend = Frontend {
                    address: service.ip().into(),
                    port: service.port(),
                    proto: wire::Protocol::UDP,
                };
                let backends = vec![Backend { address, port: socket(at(id)).port(), weight: 1 }];
                tables.services.upsert(ServiceSpec { id: 5, frontend, backends });
            }
            Change::Unrelated(last) => {
                let entry = IpEntry { identity: Identity(last.into()), hop: Default::default() };
                tables.ipcache.upsert("10.99.0.1/32".parse().unwrap(), entry);
            }
        });
    }

    /// Cached verdicts that the pipeline would not give now.
    fn wrong(&self) -> usize {
        let tables = self.offload.publisher.current();
        let context = Context {
            tables: &tables,
            flows: self.offload.flows,
            verdicts: self.offload.verdicts,
            cache_after: AFTER,
            now: now(),
            clock: coarse_clock(),
            interest: Interest::default(),
            may_hold: false,
        };
        let mut wrong = 0;
        self.offload
            .verdicts
            .for_each(|verdict, _| wrong += usize::from(!engine::confirm(&context, verdict)));
        wrong
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    /// Verdicts that a change does not concern are not asked about; that they would all have been
    /// right is what this holds against asking about each.
    #[test]
    fn after_a_revalidation_every_verdict_is_right(
        changes in prop::collection::vec(prop::collection::vec(change(), 1..4), 1..12),
    ) {
        let mut world = World::new(16);
        world.change(Change::Backend(2));
        for changes in changes {
            for _ in 0..5 {
                for (from, src, dst) in
                    [(1, CLIENT, SERVER), (2, SERVER, CLIENT), (1, CLIENT, SERVICE), (2, "10.60.1.11:9", CLIENT)]
                {
                    let pods = world.offload.publisher.current();
                    if pods.endpoints.iter().any(|endpoint| endpoint.id == from) {
                        world.send(from, Craft::udp(socket(src), socket(dst)));
                    }
                }
            }
            changes.into_iter().for_each(|change| world.change(change));
            world.offload.revalidate();
            prop_assert_eq!(world.wrong(), 0);
        }
    }
}

#[test]
fn slots_are_used_again_and_nothing_is_lost_in_them() {
    let mut world = World::new(1);
    let open = |world: &mut World, port: u16| {
        let (client, server) = (SocketAddr::new(socket(CLIENT).ip(), port), socket(SERVER));
        for flags in [tcp::SYN, tcp::ACK, tcp::ACK] {
            world.send(1, Craft::tcp(client, server, flags));
        }
        world.send(1, Craft::tcp(client, server, tcp::RST));
    };
    for port in 1..=3 {
        open(&mut world, port);
        let stats = world.offload.verdicts.stats();
        assert_eq!((stats.inserted, stats.entries, stats.full), (u64::from(port), 0, 0));
        world.offload.recycle();
        let cached = 4 * u64::from(port) - world.whole_way();
        assert_eq!((world.offload.refresh().packets, cached), (u64::from(port), u64::from(port)));
    }
}

#[test]
fn the_next_run_takes_over_what_the_kernel_has_forwarded() {
    let (words, flows) = (words(16), leak(flow::Table::boxed(64, 42)));
    let mut first = World::over(words, flows, publisher());
    first.behind = 100;
    first.ask(5);
    first.behind = 50;
    // The kernel goes on without an agent.
    first.ask(1);
    drop(first);
    let mut second = World::over(words, flows, publisher());
    assert_eq!(second.flow().original, datagrams(6));
    assert_eq!(second.cached(), 1);
    // Not before it was confirmed.
    second.ask(1);
    assert_eq!(second.whole_way(), 1);
    second.offload.revalidate();
    second.ask(1);
    assert_eq!((second.whole_way(), second.cached()), (1, 1));
}

#[test]
fn the_thread_takes_back_what_a_publication_revokes() {
    let mut world = World::new(16);
    world.ask(5);
    let manager = Manager::start(world.offload.clone(), &[]).unwrap();
    assert_eq!(world.cached(), 1);
    world.offload.publisher.edit(|tables| tables.endpoints.upsert(pod(2, SERVER, deny())));
    let deadline = Instant::now() + Duration::from_secs(20);
    while world.cached() > 0 {
        assert!(Instant::now() < deadline, "the verdict stays");
        std::thread::sleep(Duration::from_millis(1));
    }
    drop(manager);
    assert_eq!(world.offload.refresh().revoked, 1);
}
