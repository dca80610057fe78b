//! Traffic between two pods, counted where it arrives.

use super::arena::{Arena, Endpoint, Target};
use super::{frames, iperf3, streams};
use libbpf_rs::{MapCore, MapFlags, Object, ObjectBuilder, TC_EGRESS, TC_INGRESS, TcHookBuilder};
use nix::sys::socket::{MsgFlags, MultiHeaders, sendmmsg};
use std::io::IoSlice;
use std::net::UdpSocket;
use std::os::fd::{AsFd, AsRawFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};
use tests::wait::pause;

const OBJECT: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/traffic.bpf.o"));
/// Headers of Ethernet, IPv4 and UDP.
const HEADERS: usize = 42;
/// Datagrams per system call.
const BATCH: usize = 64;
/// Part of a turn that passes before counting begins: flows settle, caches fill.
const WARM_UP: f64 = 0.4;

/// What is sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Traffic {
    /// TCP streams, as fast as they go.
    Streams {
        /// How many at the same time.
        flows: u16,
    },
    /// One TCP stream of iperf3.
    Iperf3,
    /// UDP datagrams from sockets, as fast as one thread can.
    Datagrams {
        /// Bytes of a frame.
        size: usize,
        /// How many sockets.
        flows: u16,
    },
    /// UDP datagrams made by the kernel (`BPF_PROG_TEST_RUN`) at the node's end of the client's link.
    Frames {
        /// Bytes of a frame.
        size: usize,
        /// How many source ports.
        flows: u16,
    },
}

/// What arrived.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct Rate {
    /// Per second; 0 for streams, whose packets are not seen.
    pub packets: f64,
    /// Of payload for streams, of frames for datagrams; per second.
    pub bits: f64,
}

impl Traffic {
    /// Sends for a turn and counts what arrives in the later part of it.
    ///
    /// # Errors
    /// If sockets or programs are refused, or nothing arrives.
    pub fn run(self, arena: &Arena, target: Target, turn: Duration) -> Result<Rate, String> {
        let rate = match self {
            Traffic::Streams { flows } => streams::run(arena, target, flows, turn)?,
            Traffic::Iperf3 => iperf3::run(arena, target, turn)?,
            Traffic::Datagrams { size, flows } => {
                counted(&arena.server, turn, |stop| send_datagrams(arena, target, size, flows, stop))?
            }
            Traffic::Frames { size, flows } => {
                let run = frames::Run::new(arena, target, size, flows)?;
                counted(&arena.server, turn, |stop| arena.client.node.enter(|| run.until(stop)))?
            }
        };
        if rate.bits > 0.0 {
            Ok(rate)
        } else {
            Err(format!("{}: nothing of {self:?} to {target:?} arrives", arena.name))
        }
    }
}

/// Lets the first part of a turn pass, then measures how a counter moves in the rest.
///
/// # Panics
/// If the user interrupts.
pub(super) fn over<T>(turn: Duration, count: impl Fn() -> T) -> (T, T, f64) {
    wait(turn.mul_f64(WARM_UP));
    let (start, before) = (Instant::now(), count());
    wait(turn);
    let after = count();
    (before, after, start.elapsed().as_secs_f64())
}

fn wait(duration: Duration) {
    let end = Instant::now() + duration;
    while Instant::now() < end {
        pause();
    }
}

/// Loads the programs of this crate.
pub(super) fn programs() -> Result<Object, String> {
    let load = || ObjectBuilder::default().open_memory(OBJECT)?.load();
    load().map_err(|error| format!("BPF programs for measuring: {error:#}"))
}

/// A program of the object.
pub(super) fn program<'a>(object: &'a Object, name: &str) -> Result<libbpf_rs::Program<'a>, String> {
    object.progs().find(|program| program.name() == name).ok_or_else(|| format!("no BPF program {name}"))
}

/// Runs a sender and counts what arrives at the receiver's interface, where it ends.
fn counted(
    server: &Endpoint,
    turn: Duration,
    send: impl FnOnce(&AtomicBool) -> Result<(), String> + Send,
) -> Result<Rate, String> {
    let sink = Sink::attach(server)?;
    let stop = AtomicBool::new(false);
    let (sent, measured) = thread::scope(|scope| {
        let sender = scope.spawn(|| send(&stop));
        let stopped = StopOnDrop(&stop);
        let measured = over(turn, || sink.count());
        drop(stopped);
        (sender.join(), measured)
    });
    sent.map_err(|_| "the sender panicked")??;
    let (before, after, seconds) = measured;
    let ((packets, bytes), (before_packets, before_bytes)) = (after?, before?);
    Ok(Rate {
        packets: (packets - before_packets) as f64 / seconds,
        bits: (bytes - before_bytes) as f64 * 8.0 / seconds,
    })
}

/// Tells a sender to stop, also while unwinding.
pub(super) struct StopOnDrop<'a>(pub(super) &'a AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// The program at a receiver's interface that counts datagrams and ends their way.
struct Sink<'a> {
    object: Object,
    server: &'a Endpoint,
}

impl Sink<'_> {
    fn attach(server: &Endpoint) -> Result<Sink<'_>, String> {
        let object = programs()?;
        server.host.enter(|| hook(&object, server, true))?;
        Ok(Sink { object, server })
    }

    /// Packets and bytes so far.
    fn count(&self) -> Result<(u64, u64), String> {
        let map = self.object.maps().find(|map| map.name() == "arrivals").ok_or("no BPF map arrivals")?;
        let cpus = map.lookup_percpu(&0u32.to_ne_bytes(), MapFlags::ANY);
        let cpus = cpus.map_err(|error| format!("arrivals: {error:#}"))?.unwrap_or_default();
        let word = |value: &[u8], at: usize| {
            value.get(at..at + 8).and_then(|bytes| bytes.try_into().ok()).map_or(0, u64::from_ne_bytes)
        };
        Ok(cpus
            .iter()
            .fold((0, 0), |(packets, bytes), value| (packets + word(value, 0), bytes + word(value, 8))))
    }
}

impl Drop for Sink<'_> {
    fn drop(&mut self) {
        if let Err(error) = self.server.host.enter(|| hook(&self.object, self.server, false)) {
            eprintln!("{}: {error}", self.server.host.netns);
        }
    }
}

/// Attaches or detaches the sink; in the receiver's namespace.
fn hook(object: &Object, server: &Endpoint, attach: bool) -> Result<(), String> {
    let program = program(object, "sink")?;
    let index = i32::try_from(server.interface).map_err(|error| error.to_string())?;
    let mut hook = TcHookBuilder::new(program.as_fd());
    let hook = hook.ifindex(index).handle(1).priority(1);
    let done = match attach {
        true => hook.hook(TC_INGRESS).create().and_then(|mut hook| hook.attach().map(drop)),
        // Both directions stand for the qdisc that they are attached to.
        false => hook.hook(TC_INGRESS | TC_EGRESS).destroy(),
    };
    done.map_err(|error| format!("sink: {error:#}"))
}

/// Sends datagrams from as many sockets as there are flows, in batches, until told to stop.
fn send_datagrams(
    arena: &Arena,
    target: Target,
    size: usize,
    flows: u16,
    stop: &AtomicBool,
) -> Result<(), String> {
    let to = arena.address(target);
    let open = || -> std::io::Result<UdpSocket> {
        let socket = UdpSocket::bind((arena.source(target), 0))?;
        socket.connect(to)?;
        Ok(socket)
    };
    let sockets: std::io::Result<Vec<UdpSocket>> =
        arena.client.host.enter(|| (0..flows).map(|_| open()).collect());
    let sockets = sockets.map_err(|error| format!("UDP socket to {to}: {error}"))?;
    let payload = vec![0; size.saturating_sub(HEADERS)];
    let message = [IoSlice::new(&payload)];
    let messages = [message; BATCH];
    let mut headers = MultiHeaders::<()>::preallocate(BATCH, None);
    while !stop.load(Ordering::Relaxed) {
        for socket in &sockets {
            // A refusal is for the datagrams of this call only: what arrives is what counts.
            let _ =
                sendmmsg(socket.as_raw_fd(), &mut headers, &messages, [None; BATCH], [], MsgFlags::empty());
        }
    }
    Ok(())
}
