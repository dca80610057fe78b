//! The kernel's part against real veths: pods, host and a bare forwarder.

mod world;

use bpf::{Bpf, Loss, Options, TcMode, XdpMode};
use std::{
    cell::Cell,
    collections::BTreeSet,
    fs,
    io::{Read, Write},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    os::unix::fs::DirEntryExt,
    thread,
    time::{Duration, Instant},
};
use wire::{
    MacAddr,
    hub::{LinkDestination, Origin},
};
use world::{Forwarder, HOST_V4, POD_V4, POD_V6, World, open, run, world};
use xsk::{Dead, Pool, RING, Socket};

const PATIENCE: Duration = Duration::from_secs(20);

/// Sends `size` bytes over TCP between two namespaces and back.
fn tcp(world: &World, client: &str, server: &str, address: &str, size: usize) {
    let ip: IpAddr = address.parse().expect("an address");
    let listener = world.enter(server, || TcpListener::bind((ip, 0)).expect("listen"));
    let target = listener.local_addr().expect("bound");
    let echo = thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("accept");
        stream.set_read_timeout(Some(PATIENCE)).expect("timeout");
        let mut data = vec![0; size];
        stream.read_exact(&mut data).expect("all bytes arrive");
        stream.write_all(&data).expect("all bytes are sent back");
    });
    let mut stream = world.enter(client, || TcpStream::connect_timeout(&target, PATIENCE).expect("connect"));
    stream.set_read_timeout(Some(PATIENCE)).expect("timeout");
    let data: Vec<u8> = (0..size).map(|i| ((i * 31) >> 3) as u8).collect();
    let mut back = vec![0; size];
    let mut writer = stream.try_clone().expect("clone");
    thread::scope(|scope| {
        scope.spawn(|| writer.write_all(&data).expect("all bytes are sent"));
        stream.read_exact(&mut back).expect("all bytes come back");
    });
    assert!(back == data, "the bytes changed on the way");
    echo.join().expect("server");
}

fn everything_talks(tc: TcMode) {
    let Some(world) = world(1) else { return };
    let bpf = world.attach(tc);
    let forwarder = Forwarder::start(&world, &bpf);
    let [a, b] = [&world.pods[0].netns, &world.pods[1].netns];
    tcp(&world, a, b, POD_V4[1], 3 << 20);
    tcp(&world, b, a, POD_V6[0], 3 << 20);
    tcp(&world, a, &world.host, HOST_V4, 1 << 20);
    tcp(&world, &world.host, b, POD_V4[1], 1 << 20);
    let seen = forwarder.stop();
    let origins = |origin: Origin| seen.keys().filter(|key| key.0 == format!("{:?}", Some(origin))).count();
    for pod in &world.pods {
        let origin = Origin::Pod { ifindex: pod.ifindex, to: LinkDestination::Gateway };
        assert!(origins(origin) > 0, "{origin:?} is missing in {seen:?}");
    }
    assert!(origins(Origin::Host) > 0, "the host's frames are missing in {seen:?}");
}

#[test]
fn pods_and_host_talk_over_tcx() {
    everything_talks(TcMode::Tcx);
}

#[test]
fn pods_and_host_talk_over_clsact() {
    everything_talks(TcMode::Clsact);
}

#[test]
fn both_directions_of_a_flow_take_the_same_queue() {
    let Some(world) = world(2) else { return };
    let bpf = world.attach(TcMode::Tcx);
    let forwarder = Forwarder::start(&world, &bpf);
    for round in 0..12 {
        let (client, server) = (round % 2, (round + 1) % 2);
        let address = if round % 3 == 0 { POD_V6[server] } else { POD_V4[server] };
        tcp(&world, &world.pods[client].netns, &world.pods[server].netns, address, 20_000);
    }
    let seen = forwarder.stop();
    let queues_of = |flow: &Vec<u8>| -> Vec<u32> {
        let mut queues: Vec<_> = seen.keys().filter(|key| key.2 == *flow).map(|key| key.3).collect();
        queues.sort();
        queues.dedup();
        queues
    };
    let flows = seen.keys().map(|key| &key.2).filter(|flow| !flow.is_empty());
    let used: Vec<_> = flows.map(queues_of).collect();
    assert!(used.iter().all(|queues| queues.len() == 1), "a flow was split: {seen:?}");
    assert!(used.contains(&vec![0]) && used.contains(&vec![1]), "only one queue was used: {seen:?}");
}

/// Sends until the condition holds.
fn send_until(world: &World, netns: &str, to: SocketAddr, holds: impl FnMut() -> bool) {
    let local: IpAddr = if to.is_ipv4() { [0; 4].into() } else { [0; 16].into() };
    send_from_until(world, netns, local, to, holds);
}

fn send_from_until(
    world: &World,
    netns: &str,
    local: IpAddr,
    to: SocketAddr,
    mut holds: impl FnMut() -> bool,
) {
    let socket = world.enter(netns, || UdpSocket::bind((local, 0)).expect("socket"));
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "it never came true");
        socket.send_to(b"?", to).expect("send");
        thread::sleep(Duration::from_millis(5));
    }
}

fn lost(bpf: &Bpf, loss: Loss) -> u64 {
    let losses = bpf.losses().expect("counters");
    losses.into_iter().find(|entry| entry.0 == loss).map_or(0, |entry| entry.1)
}

#[test]
fn without_a_worker_nothing_passes_and_the_loss_is_counted() {
    let Some(world) = world(1) else { return };
    let bpf = world.attach(TcMode::Tcx);
    drop(Forwarder::start(&world, &bpf));
    let target = (POD_V4[1].parse::<IpAddr>().expect("an address"), 9).into();
    let receiver = world.in_pod(1, || UdpSocket::bind(target).expect("socket"));
    receiver.set_nonblocking(true).expect("nonblocking");
    send_until(&world, &world.pods[0].netns, target, || lost(&bpf, Loss::HubSocket) > 10);
    assert!(receiver.recv(&mut [0; 9]).is_err(), "a packet passed without a worker");

    // Links and maps survive their loader and keep dropping; the next one swaps its programs into
    // the same links and serves the same pods.
    let pins = || {
        let entries = fs::read_dir(world.dir.join("links")).expect("pinned links");
        entries.map(|entry| entry.expect("a link").ino()).collect::<BTreeSet<_>>()
    };
    let (before, counted) = (pins(), lost(&bpf, Loss::HubSocket));
    drop(bpf);
    let sent = Cell::new(0);
    send_until(&world, &world.pods[0].netns, target, || sent.replace(sent.get() + 1) == 10);
    let bpf = world.attach(TcMode::Tcx);
    assert!(lost(&bpf, Loss::HubSocket) >= counted + 10, "a packet went another way");
    assert_eq!(pins(), before, "links were made anew");
    let _forwarder = Forwarder::start(&world, &bpf);
    send_until(&world, &world.pods[0].netns, target, || receiver.recv(&mut [0; 9]).is_ok());

    // The pod goes away, and with the next loader its links.
    run(&format!("ip -n {} link delete pod0", world.host));
    let _bpf =
        world.enter(&world.host, || Bpf::load(&world.dir, &Options::default())).expect("programs load");
    assert_eq!(pins().len(), before.len() - 2);
    bpf::cleanup(&world.dir).expect("cleanup");
    assert!(!world.dir.exists());
}

#[test]
fn uplinks_give_pods_packets_to_workers_and_the_rest_to_the_host() {
    let Some(world) = world(1) else { return };
    let bpf = world.attach(TcMode::Tcx);
    let peer = &world.pods[1].netns;
    run(&format!("ip -n {} link add up0 type veth peer name up1 netns {peer}", world.host));
    run(&format!("ip -n {} address add 10.7.0.1/24 dev up0", world.host));
    run(&format!("ip -n {} link set up0 up", world.host));
    run(&format!("ip -n {peer} address add 10.7.0.2/24 dev up1"));
    run(&format!("ip -n {peer} link set up1 up"));
    run(&format!("ip -n {peer} route add 10.9.0.0/24 via 10.7.0.1"));
    let uplink = world.ifindex("up0");
    let (mut socket, mut pool) = world.enter(&world.host, || open("up0", 0));
    bpf.set_pod_cidrs(&[("10.9.0.0".parse().expect("an address"), 24)]).expect("CIDRs");
    for _ in 0..2 {
        let modes = world.enter(&world.host, || bpf.attach_uplinks(&[uplink])).expect("uplink");
        assert_eq!(modes, [XdpMode::Native], "veth has XDP in its driver");
    }
    // The host is not disturbed; without a socket pods' packets are dropped, with one they arrive.
    tcp(&world, peer, &world.host, "10.7.0.1", 1 << 20);
    let target = (POD_V4[0].parse::<IpAddr>().expect("an address"), 9).into();
    send_until(&world, peer, target, || lost(&bpf, Loss::UplinkSocket) > 3);
    bpf.set_uplink_socket(0, 0, socket.fd()).expect("socket in map");
    let mut batch = Vec::new();
    send_until(&world, peer, target, || socket.receive(&mut pool, &mut batch) > 0);
    let mut frame = batch.remove(0);
    let head = frame.head;
    assert_eq!(pool.buffer(&mut frame)[head + 30..head + 34], [10, 9, 0, 1]);
    world.enter(&world.host, || bpf.attach_uplinks(&[])).expect("no uplink");
    tcp(&world, peer, &world.host, HOST_V4, 1 << 20);
}

#[test]
fn what_the_host_sends_past_the_hub_reaches_the_worker() {
    let Some(world) = world(1) else { return };
    let bpf = world.attach(TcMode::Tcx);
    let forwarder = Forwarder::start(&world, &bpf);
    run(&format!("ip -n {} route add 10.9.0.7/32 dev pod0", world.host));
    run(&format!("ip -n {} neighbor add 10.9.0.7 lladdr 02:00:00:00:00:77 dev pod0", world.host));
    let origin = format!("{:?}", Some(Origin::HostToPod { ifindex: world.pods[0].ifindex }));
    let target = ([10, 9, 0, 7], 9).into();
    send_until(&world, &world.host, target, || {
        forwarder.seen.lock().expect("no panic").keys().any(|key| key.0 == origin && key.1 == 0x0800)
    });
}

/// The kernel forwards IPv6 packets with its own address as source: what tells them from the
/// host's own is that they came in.
#[test]
fn what_the_host_forwards_is_told_from_its_own() {
    const HOST_V6: &str = "fd00:9::fe";
    let Some(mut world) = world(2) else { return };
    let (host, outside) = (world.host.clone(), format!("{}o", world.host));
    let bpf = world.attach(TcMode::Tcx);
    run(&format!("ip netns add {outside}"));
    // Goes with the pods in the end.
    world.pods.push(world::Pod { netns: outside.clone(), mac: MacAddr::default(), ifindex: 0 });
    run(&format!("ip -n {host} link add out0 type veth peer name eth0 netns {outside}"));
    run(&format!("ip -n {host} link set out0 up"));
    run(&format!("ip -n {outside} link set eth0 up"));
    run(&format!("ip -n {host} address add fd00:8::1/64 dev out0 nodad"));
    run(&format!("ip -n {outside} address add fd00:8::2/64 dev eth0 nodad"));
    run(&format!("ip -n {outside} route add default via fd00:8::1"));
    run(&format!("ip -n {host} -6 route add fd00:9::/64 dev dphub0"));
    run(&format!("ip -n {host} address add {HOST_V6}/128 dev lo"));
    run(&format!("ip -n {outside} address add {HOST_V6}/128 dev lo"));
    world::sysctl(&host, "ipv6/conf/all/forwarding", "1");
    let forwarder = Forwarder::start(&world, &bpf);
    let saw = |origin: Origin| {
        let origin = format!("{:?}", Some(origin));
        forwarder.seen.lock().expect("no panic").keys().any(|key| key.0 == origin && key.1 == 0x86dd)
    };
    let to = SocketAddr::new(POD_V6[0].parse().expect("an address"), 9);
    let local: IpAddr = HOST_V6.parse().expect("an address");
    let forwarded = || saw(Origin::Forwarded { link: None });
    send_from_until(&world, &outside, local, to, forwarded);
    assert!(!saw(Origin::Host), "a faked address made it the host's");
    send_from_until(&world, &host, local, to, || saw(Origin::Host));
}

#[test]
fn frames_are_marked_with_their_destination_and_keep_their_vlan_tag() {
    let Some(world) = world(1) else { return };
    let bpf = world.attach(TcMode::Tcx);
    let forwarder = Forwarder::start(&world, &bpf);
    let tagged = [&[0x81, 0, 0, 5, 0x08, 0][..], &[0; 50]].concat();
    let unknown = [&[0x88, 0xb5][..], &[0; 50]].concat();
    let cases = [
        (world::GATEWAY, &tagged, LinkDestination::Gateway, 0x8100),
        (world::GATEWAY, &unknown, LinkDestination::Gateway, 0x88b5),
        (MacAddr::BROADCAST, &unknown, LinkDestination::Group, 0x88b5),
        (MacAddr([0x33, 0x33, 0, 0, 0, 1]), &unknown, LinkDestination::Group, 0x88b5),
        (MacAddr([2, 0, 0, 0, 0, 2]), &unknown, LinkDestination::Other, 0x88b5),
    ];
    let (mut socket, mut pool) = world.in_pod(0, || open("eth0", 0));
    let ifindex = world.pods[0].ifindex;
    for (mac, rest, to, ethertype) in cases {
        let bytes = [&mac.0[..], &world.pods[0].mac.0, rest].concat();
        let origin = format!("{:?}", Some(Origin::Pod { ifindex, to }));
        let seen = || {
            let seen = forwarder.seen.lock().expect("no panic");
            seen.keys().any(|key| key.0 == origin && key.1 == ethertype)
        };
        let deadline = Instant::now() + PATIENCE;
        while !seen() {
            assert!(Instant::now() < deadline, "{origin} {ethertype:#x} was not seen");
            let frame = pool.gather([&bytes[..]]).expect("a free frame");
            socket.send(&mut pool, frame).expect("alive");
            socket.kick(&mut pool).expect("alive");
            thread::sleep(Duration::from_millis(5));
        }
    }
    assert!(forwarder.stop().keys().all(|key| key.1 != 0x0800), "a tagged packet came without its tag");
}

#[test]
fn no_frame_is_lost_by_its_pool() {
    let Some(world) = world(1) else { return };
    let _bpf = world.attach(TcMode::Tcx);
    let (mut socket, mut pool) = world.enter(&world.host, || open("dphub1", 0));
    let idle = pool.available();
    assert_eq!(idle + RING as usize, pool.capacity(), "the fill ring takes its share at once");
    // Three rings full of frames that delivery refuses: the ring overflows while the device is
    // down, and is drained when it is up.
    let flood = |socket: &mut Socket, pool: &mut Pool| {
        for _ in 0..3 * RING {
            let Some(frame) = pool.gather([&[0; 60][..]]) else { continue };
            socket.send(pool, frame).expect("the device exists");
        }
        socket.kick(pool).expect("the device exists");
    };
    flood(&mut socket, &mut pool);
    assert_eq!(pool.available(), idle, "all were transmitted");
    assert_eq!(socket.stats().tx_ring_full.get(), 0);
    run(&format!("ip -n {} link set dphub1 down", world.host));
    flood(&mut socket, &mut pool);
    assert_eq!(socket.pending(), RING);
    assert!(socket.stats().tx_ring_full.get() >= u64::from(2 * RING), "{:?}", socket.stats());
    assert_eq!(pool.available() + RING as usize, idle, "dropped frames are back");
    run(&format!("ip -n {} link set dphub1 up", world.host));
    socket.kick(&mut pool).expect("the device exists");
    assert_eq!((pool.available(), socket.pending()), (idle, 0));
    // A device that goes away is reported, not retried.
    run(&format!("ip -n {} link delete dphub1", world.host));
    assert_eq!(socket.check_alive(), Err(Dead));
}

#[test]
fn a_queue_is_waited_for_until_its_owner_lets_go() {
    let Some(world) = world(1) else { return };
    let bpf = world.attach(TcMode::Tcx);
    let first = world.enter(&world.host, || open("dphub1", 0));
    thread::scope(|scope| {
        scope.spawn(|| {
            thread::sleep(Duration::from_millis(200));
            drop(first);
        });
        let forwarder = Forwarder::start(&world, &bpf);
        tcp(&world, &world.pods[0].netns, &world.pods[1].netns, POD_V4[1], 10_000);
        forwarder.stop();
    });
}
