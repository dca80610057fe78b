//! Verdicts on real veths, without any worker.

mod world;

use bpf::{Bpf, Config, Loss, Options, TcMode, XdpMode};
use flow::{FlowId, Side};
use nix::time::{ClockId, clock_gettime};
use std::{
    collections::BTreeMap,
    io::{Read, Write},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    thread,
    time::{Duration, Instant},
};
use verdicts::{Exit, Inserted, Key, Table, Verdict};
use wire::{MacAddr, Protocol, Tuple, craft::Craft};
use world::{GATEWAY, POD_V4, POD_V6, Pod, World, inject, run, sysctl, tag_all, world};

const PATIENCE: Duration = Duration::from_secs(20);
/// A service address, which nobody has.
const SERVICE: [&str; 2] = ["10.96.0.7:53", "[fd00:96::7]:53"];
const MTU: u16 = 1500;
const JUMBO: u16 = 9000;

/// One end of a flow: where its packets enter and leave, and the link-layer addresses there.
#[derive(Clone, Copy)]
struct End {
    exit: Exit,
    /// What packets from there must have, and whom packets to there are for.
    expect: MacAddr,
    to: MacAddr,
    from: MacAddr,
}

impl End {
    fn pod(world: &World, index: usize) -> End {
        let pod = &world.pods[index];
        End { exit: Exit::Pod { ifindex: pod.ifindex }, expect: pod.mac, to: pod.mac, from: GATEWAY }
    }

    fn ifindex(&self) -> u32 {
        match self.exit {
            Exit::Pod { ifindex } | Exit::Uplink { ifindex, .. } => ifindex,
        }
    }
}

fn allow(
    table: &Table,
    proto: Protocol,
    (from, to): (End, End),
    received: [SocketAddr; 2],
    after: [SocketAddr; 2],
) {
    let tuple = |[src, dst]: [SocketAddr; 2]| Tuple {
        src: src.ip().into(),
        dst: dst.ip().into(),
        sport: src.port(),
        dport: dst.port(),
        proto,
    };
    let verdict = Verdict {
        key: Key { ifindex: from.ifindex(), tuple: tuple(received) },
        expect: from.expect,
        mtu: JUMBO,
        tuple: tuple(after),
        exit: to.exit,
        to: to.to,
        from: to.from,
        flow: FlowId { slot: 0, version: 0 },
        side: Side::Original,
        lifetime: 60_000_000_000,
        generation: 1,
    };
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC_COARSE).expect("a clock");
    let now = now.tv_sec() as u64 * 1_000_000_000 + now.tv_nsec() as u64;
    assert_eq!(table.insert(&verdict, now), Inserted::New);
}

/// Both directions of a flow whose client knows the server as `service`.
fn allow_both(
    table: &Table,
    proto: Protocol,
    ends: [End; 2],
    client: SocketAddr,
    service: SocketAddr,
    server: SocketAddr,
) {
    let [near, far] = ends;
    allow(table, proto, (near, far), [client, service], [client, server]);
    allow(table, proto, (far, near), [server, client], [service, client]);
}

/// Packets and bytes since the last time.
fn used(table: &Table) -> (u64, u64) {
    let mut sum = (0, 0);
    table.account(|usage| sum = (sum.0 + usage.packets, sum.1 + usage.bytes));
    sum
}

fn address(ip: &str, port: u16) -> SocketAddr {
    SocketAddr::new(ip.parse().expect("an address"), port)
}

/// Lets the kernel route between pods and uplink, for connections to be made before there are any
/// programs: a handshake needs a worker otherwise.
fn route(world: &World) {
    let host = &world.host;
    sysctl(host, "ipv4/ip_forward", "1");
    sysctl(host, "ipv6/conf/all/forwarding", "1");
    for (index, pod) in world.pods.iter().enumerate() {
        for (ip, length) in [(POD_V4[index], 32), (POD_V6[index], 128)] {
            run(&format!("ip -n {host} route add {ip}/{length} dev pod{index}"));
            run(&format!("ip -n {host} neighbor add {ip} lladdr {} dev pod{index} nud permanent", pod.mac));
        }
    }
}

/// The host's uplink and its interface index. At its other end is a machine that becomes the third
/// of the world's namespaces besides the host's.
fn add_uplink(world: &mut World) -> (End, u32) {
    let (host, outside) = (world.host.clone(), format!("{}o", world.host));
    run(&format!("ip netns add {outside}"));
    world.pods.push(Pod { netns: outside.clone(), mac: MacAddr::default(), ifindex: 0 });
    let macs = [MacAddr([2, 0, 0, 0, 2, 0]), MacAddr([2, 0, 0, 0, 2, 1])];
    run(&format!(
        "ip -n {host} link add up0 address {} type veth peer name up1 address {} netns {outside}",
        macs[0], macs[1]
    ));
    for (netns, device, number) in [(&host, "up0", 1), (&outside, "up1", 2)] {
        run(&format!("ip -n {netns} address add 10.7.0.{number}/24 dev {device}"));
        run(&format!("ip -n {netns} address add fd00:7::{number}/64 dev {device} nodad"));
        run(&format!("ip -n {netns} link set {device} up"));
        // As XDP wants it, and so that the other side verifies what the programs made of it.
        run(&format!("nsenter --net=/run/netns/{netns} ethtool -K {device} tx off"));
    }
    for (net, via) in [("10.9.0.1/32", "10.7.0.1"), ("fd00:9::1/128", "fd00:7::1")] {
        run(&format!("ip -n {outside} route add {net} via {via}"));
    }
    // What a NIC does anyway; a veth does not, and XDP takes its peer's large packets apart.
    run(&format!("nsenter --net=/run/netns/{host} ethtool -K up0 gro on"));
    let ifindex = world.ifindex("up0");
    (End { exit: Exit::Uplink { index: 0, ifindex }, expect: macs[0], to: macs[1], from: macs[0] }, ifindex)
}

fn attach_uplink(world: &World, bpf: &Bpf, ifindex: u32) {
    let cidrs = [
        ("10.9.0.0".parse::<IpAddr>().expect("an address"), 24),
        ("fd00:9::".parse().expect("an address"), 64),
    ];
    bpf.set_pod_cidrs(&cidrs).expect("CIDRs");
    let modes = world.enter(&world.host, || bpf.attach_uplinks(&[ifindex])).expect("uplink");
    assert_eq!(modes, [XdpMode::Native]);
}

fn connect(world: &World, server: usize, ip: &str) -> [TcpStream; 2] {
    let listener = world.in_pod(server, || TcpListener::bind(address(ip, 0)).expect("listen"));
    let target = listener.local_addr().expect("bound");
    let client = world.in_pod(0, || TcpStream::connect_timeout(&target, PATIENCE).expect("connect"));
    let (server, _) = listener.accept().expect("accept");
    for stream in [&client, &server] {
        stream.set_read_timeout(Some(PATIENCE)).expect("timeout");
    }
    [client, server]
}

/// Sends bytes one way and checks them; how many.
fn stream(mut from: &TcpStream, mut to: &TcpStream) -> u64 {
    let data: Vec<u8> = (0..4 << 20).map(|i| ((i * 31) >> 3) as u8).collect();
    let mut received = vec![0; data.len()];
    thread::scope(|scope| {
        scope.spawn(|| from.write_all(&data).expect("all bytes are sent"));
        to.read_exact(&mut received).expect("all bytes arrive");
    });
    assert!(received == data, "the bytes changed on the way");
    data.len() as u64
}

/// A counter of `/proc/net/snmp` or `snmp6`.
fn counter(netns: &str, name: &str) -> u64 {
    let show = |file| run(&format!("nsenter --net=/run/netns/{netns} cat /proc/net/{file}"));
    let (snmp, snmp6) = (show("snmp"), show("snmp6"));
    let lines: Vec<&str> = snmp.lines().collect();
    let tables = lines.chunks(2).flat_map(|pair| {
        let (prefix, names) = pair[0].split_once(": ").expect("a table");
        let values = pair[1].split_whitespace().skip(1);
        names.split_whitespace().zip(values).map(move |(name, value)| (format!("{prefix}{name}"), value))
    });
    let lines = snmp6.lines().filter_map(|line| line.split_once(char::is_whitespace));
    let all: BTreeMap<_, _> =
        tables.chain(lines.map(|(name, value)| (name.to_owned(), value.trim()))).collect();
    all[name].parse().expect("a number")
}

/// A TCP stream from the first pod to `server` and back through verdicts alone, in large packets.
fn streams(
    world: &World,
    server: usize,
    ends: [End; 2],
    ips: [&str; 2],
    attach: impl FnOnce() -> Bpf,
) -> Bpf {
    let connections = ips.map(|ip| connect(world, server, ip));
    let bpf = attach();
    let table = Table::new(bpf.verdicts().expect("memory"));
    for [client, server] in &connections {
        let [client, server] = [client, server].map(|end| end.local_addr().expect("an address"));
        allow_both(&table, Protocol::TCP, ends, client, server, server);
    }
    let received = |netns: &str| counter(netns, "IpInReceives") + counter(netns, "Ip6InReceives");
    for [client, server_end] in &connections {
        for (from, to, receiver) in [(client, server_end, server), (server_end, client, 0)] {
            let netns = &world.pods[receiver].netns;
            let (before, _) = (received(netns), used(&table));
            let bytes = stream(from, to);
            let (packets, used) = (received(netns) - before, used(&table));
            let pod = matches!(ends[receiver.min(1)].exit, Exit::Pod { .. });
            assert!(!pod || packets * u64::from(MTU) < bytes, "{packets} packets arrived for {bytes} bytes");
            assert!(
                used.1 > bytes + used.0 * 40 && used.0 > bytes / u64::from(MTU),
                "{used:?} for {bytes} bytes"
            );
        }
    }
    bpf
}

#[test]
fn pods_exchange_large_packets_without_a_worker() {
    for tc in [TcMode::Tcx, TcMode::Clsact] {
        let Some(world) = world(1) else { return };
        route(&world);
        let ends = [End::pod(&world, 0), End::pod(&world, 1)];
        let bpf = streams(&world, 1, ends, [POD_V4[1], POD_V6[1]], || world.attach(tc));
        assert_eq!(lost(&bpf, Loss::Rewrite), 0);
    }
}

#[test]
fn streams_cross_the_uplink_without_a_worker() {
    let Some(mut world) = world(1) else { return };
    route(&world);
    let (uplink, ifindex) = add_uplink(&mut world);
    let ends = [End::pod(&world, 0), uplink];
    streams(&world, 2, ends, ["10.7.0.2", "fd00:7::2"], || {
        let bpf = world.attach(TcMode::Tcx);
        attach_uplink(&world, &bpf, ifindex);
        bpf
    });
}

fn lost(bpf: &Bpf, loss: Loss) -> u64 {
    let losses = bpf.losses().expect("counters");
    losses.into_iter().find(|entry| entry.0 == loss).map_or(0, |entry| entry.1)
}

/// A client in the first pod and a server that it knows by the address of a service.
struct Service {
    client: UdpSocket,
    server: UdpSocket,
    address: SocketAddr,
}

impl Service {
    fn new(
        world: &World,
        table: &Table,
        ends: [End; 2],
        pod: &str,
        server: (usize, &str),
        service: &str,
    ) -> Service {
        let bind = |ip| UdpSocket::bind(address(ip, 0)).expect("socket");
        let client = world.in_pod(0, || bind(pod));
        let server = world.in_pod(server.0, || bind(server.1));
        let address = service.parse().expect("an address");
        let local = |socket: &UdpSocket| socket.local_addr().expect("bound");
        allow_both(table, Protocol::UDP, ends, local(&client), address, local(&server));
        for socket in [&client, &server] {
            socket.set_read_timeout(Some(PATIENCE)).expect("timeout");
        }
        Service { client, server, address }
    }

    /// Asks with datagrams of these sizes, and checks question and answer.
    fn ask(&self, sizes: &[usize]) {
        let mut buffer = [0; JUMBO as usize];
        for &size in sizes {
            let data: Vec<u8> = (0..size).map(|i| (i * 7) as u8).collect();
            self.client.send_to(&data, self.address).expect("send");
            let (length, from) = self.server.recv_from(&mut buffer).expect("a question");
            assert!(buffer[..length] == data, "the question of {size} bytes changed");
            assert_eq!(from, self.client.local_addr().expect("bound"));
            self.server.send_to(&data, from).expect("send");
            let (length, from) = self.client.recv_from(&mut buffer).expect("an answer");
            assert!(buffer[..length] == data, "the answer of {size} bytes changed");
            assert_eq!(from, self.address);
        }
    }
}

#[test]
fn services_are_translated_and_come_back() {
    let Some(mut world) = world(1) else { return };
    let (uplink, ifindex) = add_uplink(&mut world);
    let bpf = world.attach(TcMode::Tcx);
    attach_uplink(&world, &bpf, ifindex);
    let table = Table::new(bpf.verdicts().expect("memory"));
    let pods = [End::pod(&world, 0), End::pod(&world, 1)];
    let abroad = [pods[0], uplink];
    let services = [
        Service::new(&world, &table, pods, POD_V4[0], (1, POD_V4[1]), SERVICE[0]),
        Service::new(&world, &table, pods, POD_V6[0], (1, POD_V6[1]), SERVICE[1]),
        Service::new(&world, &table, abroad, POD_V4[0], (2, "10.7.0.2"), SERVICE[0]),
        Service::new(&world, &table, abroad, POD_V6[0], (2, "fd00:7::2"), SERVICE[1]),
    ];
    for service in &services {
        service.ask(&[1, 2, 31, 32, 512, 1000, 1451, 1452]);
    }
    assert_eq!(used(&table).0, 4 * 2 * 8);
    for netns in world.pods.iter().map(|pod| &pod.netns) {
        assert_eq!(counter(netns, "UdpInCsumErrors") + counter(netns, "Udp6InCsumErrors"), 0);
    }

    // Nobody needs the agent for it.
    drop(bpf);
    services.iter().for_each(|service| service.ask(&[100]));

    // Its successor finds the table as it was, and may want it no more.
    let bpf = world.enter(&world.host, || Bpf::load(&world.dir, &Options::default())).expect("programs load");
    services.iter().for_each(|service| service.ask(&[100]));
    bpf.configure(&Config { hub: world.hub[0], workers: 1, gateway_mac: GATEWAY.0, offload: false })
        .expect("off");
    assert_eq!(used(&table).0, 4 * 2 * 2);
    let before = lost(&bpf, Loss::HubSocket);
    let deadline = Instant::now() + PATIENCE;
    while lost(&bpf, Loss::HubSocket) < before + 9 {
        assert!(Instant::now() < deadline, "nothing went to the worker, whom there is not");
        services
            .iter()
            .for_each(|service| assert_eq!(service.client.send_to(b"?", service.address).ok(), Some(1)));
    }
    assert_eq!(used(&table).0, 0);
    drop(bpf);

    // One of another size is a new one.
    let options = Options { verdicts: 128, ..Options::default() };
    let bpf = world.enter(&world.host, || Bpf::load(&world.dir, &options)).expect("programs load");
    let table = Table::new(bpf.verdicts().expect("memory"));
    assert_eq!((table.stats().capacity, table.stats().entries), (128, 0));
    assert!(Bpf::load(&world.dir, &Options { verdicts: 100, ..options }).is_err());
}

#[test]
fn jumbo_frames_take_the_same_way() {
    let Some(mut world) = world(1) else { return };
    let (uplink, ifindex) = add_uplink(&mut world);
    let host = &world.host;
    for device in ["dphub0", "dphub1", "pod0", "pod1", "up0"] {
        run(&format!("ip -n {host} link set {device} mtu {JUMBO}"));
    }
    for (pod, device) in world.pods.iter().zip(["eth0", "eth0", "up1"]) {
        run(&format!("ip -n {} link set {device} mtu {JUMBO}", pod.netns));
    }
    let bpf = world.attach(TcMode::Tcx);
    attach_uplink(&world, &bpf, ifindex);
    let table = Table::new(bpf.verdicts().expect("memory"));
    let pods = [End::pod(&world, 0), End::pod(&world, 1)];
    let abroad = [pods[0], uplink];
    let services = [
        Service::new(&world, &table, pods, POD_V4[0], (1, POD_V4[1]), SERVICE[0]),
        Service::new(&world, &table, abroad, POD_V4[0], (2, "10.7.0.2"), SERVICE[0]),
        Service::new(&world, &table, abroad, POD_V6[0], (2, "fd00:7::2"), SERVICE[1]),
    ];
    let largest = usize::from(JUMBO) - 48;
    services.iter().for_each(|service| service.ask(&[1, MTU.into(), 4000, largest]));
    assert_eq!(used(&table).0, 3 * 2 * 4);
}

/// Who sends through a packet socket says where the device is to write a checksum: a verdict about
/// one port or address must not be one about another.
#[test]
fn nothing_but_the_checksum_is_written_behind_a_verdict() {
    let Some(mut world) = world(1) else { return };
    let (uplink, ifindex) = add_uplink(&mut world);
    let bpf = world.attach(TcMode::Tcx);
    attach_uplink(&world, &bpf, ifindex);
    let table = Table::new(bpf.verdicts().expect("memory"));
    let ends = (End::pod(&world, 0), uplink);
    for (src, dst, l4) in [(POD_V4[0], "10.7.0.2", 34), (POD_V6[0], "fd00:7::2", 54)] {
        let [src, dst] = [address(src, 4000), address(dst, 53)];
        for (proto, packet, at) in [
            (Protocol::UDP, Craft::udp(src, dst), 6),
            (Protocol::TCP, Craft::tcp(src, dst, wire::parse::tcp::ACK), 16),
        ] {
            allow(&table, proto, ends, [src, dst], [src, dst]);
            let frame = packet.link(world.pods[0].mac, GATEWAY).payload(&[0x5a; 64]).build();
            // The checksum; the ports; the end of the destination; the checksum, but of less; the payload.
            for (start, offset) in [(l4, at), (l4, 0), (l4, 2), (20, l4 - 22), (l4 + 2, at - 2), (l4, 30)] {
                let dropped = lost(&bpf, Loss::HubSocket);
                world.in_pod(0, || inject(&frame, start, offset)).expect("it is sent");
                let used = used(&table).0;
                let right = (start, offset) == (l4, at);
                assert_eq!(used, right.into(), "{src} {proto:?}: summed from {start}, written to {offset}");
                assert!(right || lost(&bpf, Loss::HubSocket) > dropped, "it went to no worker");
            }
        }
    }
}

/// Priority tags (VLAN 0) are not in the frame any more when XDP sees it.
#[test]
fn packets_with_a_priority_take_the_same_way() {
    let Some(mut world) = world(1) else { return };
    let (uplink, ifindex) = add_uplink(&mut world);
    let bpf = world.attach(TcMode::Tcx);
    attach_uplink(&world, &bpf, ifindex);
    let table = Table::new(bpf.verdicts().expect("memory"));
    let abroad = [End::pod(&world, 0), uplink];
    let service = Service::new(&world, &table, abroad, POD_V4[0], (2, "10.7.0.2"), SERVICE[0]);
    service.ask(&[100]);
    let shown = run(&format!("ip -n {} -o link show up1", world.pods[2].netns));
    let outside = shown.split(':').next().and_then(|index| index.parse().ok()).expect("an interface index");
    world.in_pod(2, || tag_all(outside));
    service.ask(&[100]);
    assert_eq!((used(&table).0, lost(&bpf, Loss::UplinkMiss)), (4, 0));
}
