//! A bare AF_XDP forwarder on the same hub as ours: it looks at the destination address and
//! writes two link-layer addresses. What it costs is what going through user space costs.

use super::arena::{Arena, Endpoint, Namespaces, ifindex};
use super::kernel;
use crate::report;
use bpf::{Bpf, Config, Options};
use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use tests::Host;
use wire::{MacAddr, hub};
use xsk::{Batch, Mode, Pool, RING, Socket, Waiter};

/// Empty rounds before a thread sleeps, as our workers do.
const SPINS: u32 = 64;
/// Longest sleep in milliseconds, so that a stop is noticed.
const SLEEP: i32 = 10;
const MTU: u32 = 1500;
const MOST_THREADS: u32 = 2;

/// Two pods of one node with as many threads between them as an agent has by default.
///
/// # Errors
/// If the programs or sockets are refused.
pub fn same_node(name: &str) -> Result<Arena, String> {
    remove_orphans();
    let namespaces = Namespaces::new();
    let node = namespaces.host("node1");
    let client = kernel::pod(&namespaces, &node, "client", Ipv4Addr::new(10, 61, 1, 1))?;
    let server = kernel::pod(&namespaces, &node, "server", Ipv4Addr::new(10, 61, 1, 2))?;
    let queues = u32::try_from(report::cpus() / 2).unwrap_or(1).clamp(1, MOST_THREADS);
    lay_hub(&node, queues);
    for pod in [&client, &server] {
        // The forwarder answers no ARP requests.
        pod.host.ip(&format!("neigh add 169.254.1.1 lladdr {} dev eth0 nud permanent", pod.gateway));
    }
    let dir = bpf::instance_dir(namespaces.prefix());
    let pins = Pins(dir.clone());
    // Attached programs stay: they are pinned.
    let bpf = attach(&node, dir, queues, [&client, &server])?;
    let forwarder = Forwarder::start(&node, &bpf, queues, &[&client, &server])?;
    // In the order in which they have to go.
    let kept = Box::new((forwarder, pins, namespaces));
    Ok(Arena { name: name.to_owned(), client, server, kept })
}

/// The hub, as an agent makes it.
fn lay_hub(node: &Host, queues: u32) {
    let sizes = format!("numtxqueues {queues} numrxqueues {queues}");
    node.ip(&format!("link add dphub0 {sizes} address {} type veth peer name dphub1 {sizes}", hub::HOST_MAC));
    node.sysctl("net/ipv6/conf/dphub1/disable_ipv6", "1");
    node.run("ethtool -K dphub0 tx off").unwrap_or_else(|error| panic!("{error}"));
    node.ip("link set dphub0 arp off addrgenmode none up");
    node.ip("link set dphub1 arp off up");
}

fn attach(node: &Host, dir: PathBuf, queues: u32, pods: [&Endpoint; 2]) -> Result<Bpf, String> {
    let (host_side, worker_side) = (ifindex(node, "dphub0")?, ifindex(node, "dphub1")?);
    let gateway_mac = pods[0].gateway.0;
    let attach = || -> Result<Bpf, bpf::Error> {
        let bpf = Bpf::load(&dir, &Options::default())?;
        bpf.configure(&Config { hub: host_side, workers: queues, gateway_mac, offload: false })?;
        bpf.attach_hub(host_side, worker_side)?;
        pods.iter().try_for_each(|pod| bpf.attach_pod(pod.link))?;
        Ok(bpf)
    };
    node.enter(attach).map_err(|error| error.to_string())
}

/// Unpins what was pinned.
struct Pins(PathBuf);

impl Drop for Pins {
    fn drop(&mut self) {
        if let Err(error) = bpf::cleanup(&self.0) {
            eprintln!("left behind: {}: {error}", self.0.display());
        }
    }
}

/// Unpins what forwarders of killed processes pinned; namespaces are removed with the next world.
fn remove_orphans() {
    let entries = fs::read_dir(bpf::instance_dir("")).into_iter().flatten().flatten();
    for entry in entries {
        let name = entry.file_name();
        let id = name.to_str().and_then(|name| name.strip_prefix("dpt-")?.split('-').next());
        if id.is_some_and(|id| !Path::new("/proc").join(id).exists()) {
            drop(Pins(entry.path()));
        }
    }
}

/// Destination address, link-layer destination, delivery mark.
type Hop = ([u8; 4], MacAddr, MacAddr);

struct Forwarder {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Forwarder {
    fn start(node: &Host, bpf: &Bpf, queues: u32, pods: &[&Endpoint]) -> Result<Forwarder, String> {
        let hops: Vec<Hop> =
            pods.iter().map(|pod| (pod.ipv4.octets(), pod.mac, hub::deliver_to_pod(pod.link))).collect();
        let mut forwarder = Forwarder { stop: Arc::default(), threads: Vec::new() };
        for queue in 0..queues {
            let open = || -> Result<(Socket, Pool), xsk::Error> {
                let mut pool = Pool::new(4 * RING, MTU)?;
                let socket = Socket::bind("dphub1", queue, Mode::Copy, &mut pool)?;
                Ok((socket, pool))
            };
            let (socket, pool) = node.enter(open).map_err(|error| error.to_string())?;
            bpf.set_hub_socket(queue, socket.fd()).map_err(|error| error.to_string())?;
            let (hops, stop) = (hops.clone(), Arc::clone(&forwarder.stop));
            forwarder.threads.push(thread::spawn(move || serve(socket, pool, &hops, &stop)));
        }
        Ok(forwarder)
    }
}

impl Drop for Forwarder {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                eprintln!("the bare forwarder had ended before");
            }
        }
    }
}

fn serve(mut socket: Socket, mut pool: Pool, hops: &[Hop], stop: &AtomicBool) {
    let mut batch = Batch::new();
    let mut waiter = Waiter::new([socket.fd()]);
    let mut idle = 0;
    while !stop.load(Ordering::Relaxed) {
        if socket.receive(&mut pool, &mut batch) == 0 {
            idle += 1;
            if idle > SPINS {
                waiter.wait(SLEEP).expect("poll of an open socket");
                idle = 0;
            }
            continue;
        }
        idle = 0;
        for mut frame in batch.drain(..) {
            let (head, len) = (frame.head, frame.len);
            let bytes = &mut pool.buffer(&mut frame)[head..head + len];
            match bytes.get(30..34).and_then(|to| hops.iter().find(|hop| hop.0 == to)) {
                Some((_, to, mark)) => {
                    bytes[..6].copy_from_slice(&to.0);
                    bytes[6..12].copy_from_slice(&mark.0);
                    socket.send(&mut pool, frame).expect("an open socket");
                }
                None => pool.free(frame),
            }
        }
        socket.kick(&mut pool).expect("an open socket");
    }
}
