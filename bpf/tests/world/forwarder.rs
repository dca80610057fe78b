//! Forwards by destination address and nothing else.

use super::{HOST_V4, POD_V4, POD_V6, World};
use bpf::Bpf;
use std::{
    collections::BTreeMap,
    net::IpAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
};
use wire::{
    MacAddr,
    hub::{self, Origin},
};
use xsk::{Batch, Mode, Pool, RING, Socket, Waiter};

/// What a frame on the hub looked like: who sent it, its EtherType, the queue, and how often.
pub(crate) type Seen = BTreeMap<(String, u16, Vec<u8>, u32), usize>;

pub(crate) struct Forwarder {
    stop: Arc<AtomicBool>,
    pub(crate) seen: Arc<Mutex<Seen>>,
    threads: Vec<JoinHandle<()>>,
}

impl Forwarder {
    /// One thread per queue of the hub.
    pub(crate) fn start(world: &World, bpf: &Bpf) -> Forwarder {
        let (stop, seen) = (Arc::<AtomicBool>::default(), Arc::<Mutex<Seen>>::default());
        let threads = (0..world.queues)
            .map(|queue| {
                let (socket, pool) = world.enter(&world.host, || open("dphub1", queue));
                bpf.set_hub_socket(queue, socket.fd()).expect("socket in map");
                let table = table(world);
                let (stop, seen) = (stop.clone(), seen.clone());
                thread::spawn(move || serve(socket, pool, &table, queue, &stop, &seen))
            })
            .collect();
        Forwarder { stop, seen, threads }
    }

    /// Stops and returns what it has seen.
    pub(crate) fn stop(mut self) -> Seen {
        self.join();
        self.seen.lock().expect("no panic").clone()
    }

    fn join(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            thread.join().expect("forwarder did not panic");
        }
    }
}

impl Drop for Forwarder {
    fn drop(&mut self) {
        if !thread::panicking() {
            self.join();
        }
    }
}

/// A socket on a device of this thread's namespace, with its memory.
pub(crate) fn open(device: &str, queue: u32) -> (Socket, Pool) {
    let mut pool = Pool::new(4 * RING, 1500).expect("memory");
    let socket = Socket::bind(device, queue, Mode::Copy, &mut pool).expect("socket");
    (socket, pool)
}

/// Destination address → (destination MAC, delivery mark).
fn table(world: &World) -> BTreeMap<Vec<u8>, (MacAddr, MacAddr)> {
    let bytes = |address: &str| match address.parse().expect("an address") {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    };
    let pods = world.pods.iter().zip(POD_V4.iter().zip(POD_V6));
    pods.flat_map(|(pod, (v4, v6))| {
        let to = (pod.mac, hub::deliver_to_pod(pod.ifindex));
        [(bytes(v4), to), (bytes(v6), to)]
    })
    .chain([(bytes(HOST_V4), (hub::HOST_MAC, hub::HOST_MAC))])
    .collect()
}

fn serve(
    mut socket: Socket,
    mut pool: Pool,
    table: &BTreeMap<Vec<u8>, (MacAddr, MacAddr)>,
    queue: u32,
    stop: &AtomicBool,
    seen: &Mutex<Seen>,
) {
    let mut batch = Batch::new();
    let mut waiter = Waiter::new([socket.fd()]);
    while !stop.load(Ordering::Relaxed) {
        if socket.receive(&mut pool, &mut batch) == 0 {
            waiter.wait(10).expect("poll");
        }
        for mut frame in batch.drain(..) {
            let (head, len) = (frame.head, frame.len);
            let bytes = &mut pool.buffer(&mut frame)[head..head + len];
            let mut seen = seen.lock().expect("no panic");
            *seen.entry(describe(bytes, queue)).or_default() += 1;
            let target = destination(bytes).and_then(|address| table.get(address)).copied();
            match target {
                Some((mac, mark)) => {
                    bytes[..6].copy_from_slice(&mac.0);
                    bytes[6..12].copy_from_slice(&mark.0);
                    socket.send(&mut pool, frame).expect("alive");
                }
                None => pool.free(frame),
            }
        }
        socket.kick(&mut pool).expect("alive");
    }
}

fn destination(frame: &[u8]) -> Option<&[u8]> {
    match u16::from_be_bytes([frame[12], frame[13]]) {
        0x0800 => frame.get(30..34),
        0x86dd => frame.get(38..54),
        _ => None,
    }
}

/// Origin, EtherType and the flow without its direction.
fn describe(frame: &[u8], queue: u32) -> (String, u16, Vec<u8>, u32) {
    let mac = MacAddr(frame[..6].try_into().expect("six bytes"));
    let ethertype = u16::from_be_bytes([frame[12], frame[13]]);
    let flow = match ethertype {
        0x0800 if matches!(frame[23], 6 | 17) => undirected(&frame[26..30], &frame[30..34], &frame[34..38]),
        0x86dd if matches!(frame[20], 6 | 17) => undirected(&frame[22..38], &frame[38..54], &frame[54..58]),
        _ => Vec::new(),
    };
    (format!("{:?}", Origin::decode(mac)), ethertype, flow, queue)
}

fn undirected(src: &[u8], dst: &[u8], ports: &[u8]) -> Vec<u8> {
    let mut sides = [[src, &ports[..2]].concat(), [dst, &ports[2..]].concat()];
    sides.sort();
    sides.concat()
}
