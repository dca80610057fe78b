//! Real workers between a pod and a remote node, over real veths.

use crate::{
    agent::Poll,
    worker::{Config, Workers, hold},
};
use bpf::Bpf;
use flow::Table;
use nix::sched::{CloneFlags, setns};
use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream, UdpSocket},
    path::PathBuf,
    process::{self, Command},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    thread,
    time::{Duration, Instant},
};
use tables::{Endpoint, IpEntry, NextHop, Node, Publisher, Uplink};
use wire::{Address, Identity, MacAddr, hub};

pub(super) const PATIENCE: Duration = Duration::from_secs(20);
const GATEWAY: MacAddr = MacAddr([2, 0, 0, 0, 0, 1]);
const POD: MacAddr = MacAddr([2, 0, 0, 0, 1, 1]);
const PEER: MacAddr = MacAddr([2, 0, 0, 0, 2, 2]);
const UPLINK: MacAddr = MacAddr([2, 0, 0, 0, 2, 1]);
const WORKERS: u32 = 2;

/// One world at a time: its threads are counted by name.
static ONLY: Mutex<()> = Mutex::new(());

/// Namespaces `host`, `pod` and `peer`, a hub with two queues and an uplink with one.
pub(super) struct World {
    name: String,
    dir: PathBuf,
    mtu: u16,
    _only: MutexGuard<'static, ()>,
}

pub(super) fn world(name: &str, mtu: u16) -> Option<World> {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("SKIPPED: network namespaces need root");
        return None;
    }
    let name = format!("dpEw{name}{}", process::id());
    let only = ONLY.lock().unwrap_or_else(PoisonError::into_inner);
    let world = World { dir: bpf::instance_dir(&name), name, mtu, _only: only };
    for netns in ["host", "pod", "peer"] {
        run(&format!("ip netns add {}{netns}", world.name));
    }
    let ip = |netns: &str, rest: &str| run(&format!("ip -n {}{netns} {rest}", world.name));
    let queues = format!("numtxqueues {WORKERS} numrxqueues {WORKERS}");
    let hub =
        format!("link add dphub0 {queues} address {} type veth peer name dphub1 {queues}", hub::HOST_MAC);
    ip("host", &hub);
    run(&format!("nsenter --net=/run/netns/{}host ethtool -K dphub0 tx off", world.name));
    for hub in ["dphub0", "dphub1"] {
        ip("host", &format!("link set {hub} arp off addrgenmode none mtu {mtu} up"));
    }
    let pod = format!("link add pod type veth peer name eth0 address {POD} netns {}pod", world.name);
    ip("host", &pod);
    let uplink = format!(
        "link add up0 address {UPLINK} type veth peer name up1 address {PEER} netns {}peer",
        world.name
    );
    ip("host", &uplink);
    // A veth as uplink carries unfinished checksums, which no wire does.
    run(&format!("nsenter --net=/run/netns/{}peer ethtool -K up1 tx off", world.name));
    for (netns, device) in [("host", "pod"), ("host", "up0"), ("pod", "eth0"), ("peer", "up1")] {
        ip(netns, &format!("link set {device} addrgenmode none mtu {mtu} up"));
    }
    for (netns, device, address, gateway, mac) in [
        ("pod", "eth0", "10.60.1.7", "10.60.1.1", GATEWAY),
        ("peer", "up1", "10.60.2.7", "10.60.2.1", UPLINK),
    ] {
        ip(netns, &format!("address add {address}/24 dev {device}"));
        ip(netns, &format!("neighbor add {gateway} lladdr {mac} dev {device} nud permanent"));
        ip(netns, &format!("route add default via {gateway} dev {device}"));
    }
    Some(world)
}

impl World {
    fn enter<R: Send>(&self, netns: &str, action: impl FnOnce() -> R + Send) -> R {
        let namespace = File::open(format!("/run/netns/{}{netns}", self.name)).unwrap();
        thread::scope(|scope| {
            let inside = scope.spawn(|| {
                setns(&namespace, CloneFlags::CLONE_NEWNET).unwrap();
                action()
            });
            inside.join().unwrap()
        })
    }

    pub(super) fn udp(&self, netns: &str, address: &str) -> UdpSocket {
        let socket = self.enter(netns, || UdpSocket::bind(address).unwrap());
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket
    }

    fn ifindex(&self, device: &str) -> u32 {
        let shown = run(&format!("ip -n {}host -o link show {device}", self.name));
        shown.split(':').next().unwrap().parse().unwrap()
    }

    /// Tables with the pod, and the peer's network behind the uplink.
    fn publish(&self) -> Arc<Publisher> {
        let publisher = Publisher::new(1);
        let v4 = |a, b, c, d| Address::from(std::net::IpAddr::from([a, b, c, d]));
        publisher.edit(|tables| {
            tables.node = Node {
                gateway_v4: Some(v4(10, 60, 1, 1)),
                gateway_mac: GATEWAY,
                pod_mtu: self.mtu,
                pod_ranges: vec![(v4(10, 60, 1, 0), v4(10, 60, 1, 255))],
                uplinks: vec![Uplink {
                    name: "up0".into(),
                    ifindex: self.ifindex("up0"),
                    mac: UPLINK,
                    mtu: self.mtu,
                }],
                ..Node::default()
            };
            tables.endpoints.upsert(Endpoint {
                id: 1,
                ifindex: self.ifindex("pod"),
                mac: POD,
                addresses: [v4(10, 60, 1, 7)].into(),
                identity: Identity(101 << 16 | 7),
                policy: Arc::default(),
            });
            let hop = tables.hops.intern(v4(10, 60, 2, 1));
            tables.hops.resolve(v4(10, 60, 2, 1), Some(NextHop { uplink: 0, mac: PEER, mtu: self.mtu }));
            let entry = IpEntry { identity: Identity(102 << 16 | 7), hop };
            tables.ipcache.upsert("10.60.2.0/24".parse().unwrap(), entry);
        });
        publisher
    }

    pub(super) fn start(&self) -> Workers {
        self.start_with(&self.publish())
    }

    fn start_with(&self, publisher: &Arc<Publisher>) -> Workers {
        self.enter("host", || {
            let bpf = Bpf::load(&self.dir, &bpf::Options::default()).unwrap();
            let hub = self.ifindex("dphub0");
            bpf.configure(&bpf::Config { hub, workers: WORKERS, gateway_mac: GATEWAY.0, offload: false })
                .unwrap();
            bpf.set_pod_cidrs(&[("10.60.1.0".parse().unwrap(), 24)]).unwrap();
            bpf.attach_hub(hub, self.ifindex("dphub1")).unwrap();
            bpf.attach_pod(self.ifindex("pod")).unwrap();
            bpf.attach_uplinks(&[self.ifindex("up0")]).unwrap();
            let config = Config {
                workers: WORKERS as usize,
                cpus: Vec::new(),
                poll: Poll::Adaptive,
                hub: "dphub1".into(),
                uplinks: vec!["up0".into()],
                mtu: self.mtu.into(),
                cache_after: 0,
            };
            let flows = Box::leak(Box::new(Table::boxed(1024, 1)));
            let verdicts = Box::leak(Box::new(verdicts::Table::boxed(1024)));
            Workers::start(&config, &bpf, publisher, flows, verdicts, &Arc::default()).unwrap()
        })
    }
}

impl Drop for World {
    fn drop(&mut self) {
        for netns in ["pod", "peer", "host"] {
            let _ = Command::new("ip").args(["netns", "delete", &format!("{}{netns}", self.name)]).status();
        }
        let _ = fs::remove_dir_all(&self.dir);
    }
}

fn run(line: &str) -> String {
    let mut words = line.split_whitespace();
    let output = Command::new(words.next().unwrap()).args(words).output().unwrap();
    assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn wait_for(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "{what}: never");
        thread::sleep(Duration::from_millis(10));
    }
}

/// Many flows, so that both queues of the hub are used although the uplink has one.
fn every_flow_gets_an_answer(world: &World) {
    let peer = world.udp("peer", "10.60.2.7:7");
    let to: SocketAddr = "10.60.2.7:7".parse().unwrap();
    for n in 0..32u32 {
        let pod = world.udp("pod", "10.60.1.7:0");
        pod.send_to(&n.to_be_bytes(), to).unwrap();
        let mut data = [0; 4];
        let (_, from) = peer.recv_from(&mut data).unwrap();
        assert_eq!((data, from), (n.to_be_bytes(), pod.local_addr().unwrap()));
        peer.send_to(&data, from).unwrap();
        assert_eq!(pod.recv_from(&mut data).unwrap().1, to);
    }
}

#[test]
fn two_workers_share_an_uplink_with_one_queue() {
    let Some(world) = world("q", 1500) else { return };
    let workers = world.start();
    let shared = workers.shared.clone();
    let devices: Vec<BTreeSet<_>> = shared
        .iter()
        .map(|worker| worker.sockets.iter().map(|s| (s.device.as_str(), s.queue)).collect())
        .collect();
    assert_eq!(devices, [BTreeSet::from([("dphub1", 0), ("up0", 0)]), BTreeSet::from([("dphub1", 1)])]);
    every_flow_gets_an_answer(&world);
    for worker in &shared {
        assert!(worker.sockets[0].stats.rx_frames.get() > 0, "worker {} saw nothing", worker.index);
    }

    // Stopped, nothing passes; the next ones go on with the same pins.
    workers.stop();
    assert!(shared.iter().all(|worker| !worker.alive() && worker.failure().is_none()));
    let workers = world.start();
    every_flow_gets_an_answer(&world);

    // Without the uplink the workers go on; without the hub they end and say why.
    run(&format!("ip -n {}host link delete up0", world.name));
    let dead = &workers.shared[0].sockets[1].dead;
    wait_for("the uplink is found dead", || dead.load(std::sync::atomic::Ordering::Relaxed));
    assert!(workers.shared.iter().all(|worker| worker.alive()));
    run(&format!("ip -n {}host link delete dphub0", world.name));
    wait_for("workers end", || workers.shared.iter().all(|worker| !worker.alive()));
    for worker in &workers.shared {
        assert_eq!(worker.failure(), Some("the hub's interface dphub1 was removed"));
    }
}

/// From one chunk to three, both ways, so that the hub and the uplink receive and send them all.
#[test]
fn jumbo_packets_pass_whole() {
    const TCP: usize = 4 << 20;
    let Some(world) = world("j", 9000) else { return };
    let workers = world.start();
    let peer = world.udp("peer", "10.60.2.7:7");
    let mut buffer = vec![0; 10_000];
    for length in [1, 1472, 3797, 3798, 3799, 7637, 7638, 7639, 8900, 8972] {
        // From another port every time, so that both workers have their share.
        let (pod, data) = (world.udp("pod", "10.60.1.7:0"), bytes(length));
        pod.send_to(&data, "10.60.2.7:7").unwrap();
        let (n, from) = peer.recv_from(&mut buffer).unwrap();
        assert!(buffer[..n] == data, "{length} bytes to the peer");
        peer.send_to(&data, from).unwrap();
        let n = pod.recv(&mut buffer).unwrap();
        assert!(buffer[..n] == data, "{length} bytes from the peer");
    }

    let received =
        || workers.shared.iter().map(|worker| worker.sockets[0].stats.rx_frames.get()).sum::<u64>();
    let before = received();
    let listener = world.enter("peer", || TcpListener::bind("10.60.2.7:80").unwrap());
    let client = world.enter("pod", || TcpStream::connect("10.60.2.7:80").unwrap());
    let (server, _) = listener.accept().unwrap();
    for (mut from, mut to) in [(&client, &server), (&server, &client)] {
        let mut data = vec![0; TCP];
        thread::scope(|scope| {
            scope.spawn(|| from.write_all(&bytes(TCP)).unwrap());
            to.set_read_timeout(Some(PATIENCE)).unwrap();
            to.read_exact(&mut data).unwrap();
        });
        assert!(data == bytes(TCP));
    }
    let frames = received() - before;
    assert!((frames as usize) < 2 * TCP / 4000, "{frames} frames: segments are small");
}

/// Both ways: the peer's first datagram, and the pod's to a peer that nobody knows. What waits leaves
/// as soon as the tables know who it is about, or is dropped for its own reason.
#[test]
fn first_packets_wait_until_their_pods_are_known() {
    let Some(world) = world("h", 1500) else { return };
    let publisher = world.publish();
    const PEER_IDENTITY: Identity = Identity(102 << 16 | 7);
    let identify = |address: &str, identity| {
        publisher.edit(|tables| {
            let hop = tables.hops.intern(Address::from(std::net::IpAddr::from([10, 60, 2, 1])));
            tables.ipcache.upsert(address.parse().unwrap(), IpEntry { identity, hop });
        });
    };
    publisher.edit(|tables| {
        let pod = tables.endpoints.iter().next().unwrap().clone();
        let rule = tables::RuleEntry {
            peers: tables::Peers::Set([PEER_IDENTITY].into()),
            ports: tables::PortMatch { proto: None, ports: 0..=u16::MAX },
            deny: false,
            rule: tables::RuleId(1),
        };
        let spec = tables::PolicySpec { ingress: Some(vec![rule.clone()]), egress: Some(vec![rule]) };
        let policy = Arc::new(tables::Policy::compile(&spec));
        tables.endpoints.upsert(Endpoint { policy, ..pod });
    });
    let workers = world.start_with(&publisher);
    let sum = |count: fn(&hold::Counts) -> &AtomicU64| {
        workers.shared.iter().map(|worker| count(&worker.hold).load(Relaxed)).sum::<u64>()
    };
    identify("10.60.2.0/24", Identity::UNKNOWN);
    // Again if this test was kept from the processor for longer than packets wait.
    let in_time = (1..10).any(|port| {
        identify("10.60.2.7/32", Identity::UNKNOWN);
        let before = [sum(|counts| &counts.held), sum(|counts| &counts.decided)];
        let (pod, peer) =
            (world.udp("pod", &format!("10.60.1.7:{port}")), world.udp("peer", &format!("10.60.2.7:{port}")));
        let other = world.udp("peer", &format!("10.60.2.7:{}", 100 + port));
        peer.send_to(b"in", pod.local_addr().unwrap()).unwrap();
        pod.send_to(b"out", other.local_addr().unwrap()).unwrap();
        wait_for("both wait", || sum(|counts| &counts.held) == before[0] + 2);
        identify("10.60.2.7/32", PEER_IDENTITY);
        wait_for("neither waits", || {
            sum(|counts| &counts.held) == sum(|counts| &counts.decided) + sum(|counts| &counts.expired)
        });
        let in_time = sum(|counts| &counts.decided) == before[1] + 2;
        if in_time {
            let mut data = [0; 8];
            assert_eq!(pod.recv(&mut data).map(|n| data[..n].to_vec()).unwrap(), b"in");
            assert_eq!(other.recv(&mut data).map(|n| data[..n].to_vec()).unwrap(), b"out");
        }
        in_time
    });
    assert!(in_time);

    let before = sum(|counts| &counts.expired);
    let pod = world.udp("pod", "10.60.1.7:0");
    pod.send_to(b"nobody", "10.60.2.8:9").unwrap();
    wait_for("nobody came", || sum(|counts| &counts.expired) == before + 1);
    let drops = workers.shared.iter().map(|worker| {
        let unknown = engine::DropReason::UnknownIdentity;
        worker.counters.read_dropped(unknown, tables::Direction::Egress).0
    });
    assert!(drops.sum::<u64>() > 0);
}

fn bytes(length: usize) -> Vec<u8> {
    (0..length).map(|n| (n % 251) as u8).collect()
}
