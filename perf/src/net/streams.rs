//! TCP streams: some threads write, as many read, however many streams there are.

use super::arena::{Arena, Target};
use super::traffic::{Rate, StopOnDrop, over};
use crate::report::cpus;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, poll};
use nix::sys::socket::{MsgFlags, recv, send};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};
use tests::wait::pause;

/// Bytes per read and write.
const CHUNK: usize = 256 << 10;
/// How long a connection may take, or anything to arrive.
const PATIENCE: Duration = Duration::from_secs(5);
/// Milliseconds after which a thread looks whether it is to stop.
const LOOK: u8 = 10;

/// Runs so many streams from client to server for a turn.
pub(super) fn run(arena: &Arena, target: Target, flows: u16, turn: Duration) -> Result<Rate, String> {
    with(arena, target, flows, None, |received| {
        let count = || received.load(Ordering::Relaxed);
        let (before, mut after, in_time) = over(turn, count);
        let (end, mut seconds) = (Instant::now(), in_time);
        // A retransmission takes 200 ms at least, which may be all of the turn.
        while after == before {
            if end.elapsed() > PATIENCE {
                let states = [&arena.client, &arena.server].map(|end| end.host.run("ss -Htinmo"));
                return Err(format!("{}: streams stall after {before} bytes: {states:#?}", arena.name));
            }
            pause();
            (after, seconds) = (count(), in_time + end.elapsed().as_secs_f64());
        }
        Ok(Rate { packets: 0.0, bits: (after - before) as f64 * 8.0 / seconds })
    })
}

/// Does something while streams run, each at most with `limit` bits per second. What they have
/// brought so far is in the counter.
pub(super) fn with<T>(
    arena: &Arena,
    target: Target,
    flows: u16,
    limit: Option<f64>,
    work: impl FnOnce(&AtomicU64) -> Result<T, String>,
) -> Result<T, String> {
    let pairs = open(arena, target, flows)?;
    let (received, stop) = (AtomicU64::new(0), AtomicBool::new(false));
    thread::scope(|scope| {
        let _hang_up = HangUp(&pairs);
        let _stop = StopOnDrop(&stop);
        for share in pairs.chunks(pairs.len().div_ceil(cpus()).max(1)) {
            scope.spawn(|| write(share.iter().map(|(writer, _)| writer).collect(), limit, &stop));
            scope.spawn(|| read(share.iter().map(|(_, reader)| reader).collect(), &received, &stop));
        }
        work(&received)
    })
}

/// Both ends of every connection.
fn open(arena: &Arena, target: Target, flows: u16) -> Result<Vec<(TcpStream, TcpStream)>, String> {
    let (listener, to) = (arena.listen(target)?, arena.address(target));
    arena.client.host.enter(|| (0..flows).map(|_| connect(&listener, to)).collect())
}

fn connect(listener: &TcpListener, to: SocketAddr) -> Result<(TcpStream, TcpStream), String> {
    let writer =
        TcpStream::connect_timeout(&to, PATIENCE).map_err(|error| format!("TCP to {to}: {error}"))?;
    let (reader, _) = listener.accept().map_err(|error| format!("TCP from {to}: {error}"))?;
    Ok((writer, reader))
}

/// Wakes whoever waits on these connections.
struct HangUp<'a>(&'a [(TcpStream, TcpStream)]);

impl Drop for HangUp<'_> {
    fn drop(&mut self) {
        for (writer, reader) in self.0 {
            // An error means that the connection is gone already.
            let _ = writer.shutdown(Shutdown::Both);
            let _ = reader.shutdown(Shutdown::Both);
        }
    }
}

/// Writes all the time, or at a pace.
fn write(streams: Vec<&TcpStream>, limit: Option<f64>, stop: &AtomicBool) {
    // Small writes if there is a limit, so that it is one at any time.
    let bytes = vec![0; if limit.is_some() { CHUNK / 4 } else { CHUNK }];
    let pause = limit.map(|limit| Duration::from_secs_f64(bytes.len() as f64 * 8.0 / limit));
    let mut due = Instant::now();
    transfer(&streams, PollFlags::POLLOUT, stop, |fd, flags| {
        let written = send(fd, &bytes, flags | MsgFlags::MSG_NOSIGNAL);
        if let Some(pause) = pause {
            due = (due + pause).max(Instant::now() - pause);
            thread::sleep(due.saturating_duration_since(Instant::now()));
        }
        written
    });
}

/// Counts what it reads.
fn read(streams: Vec<&TcpStream>, received: &AtomicU64, stop: &AtomicBool) {
    let mut buffer = vec![0; CHUNK];
    transfer(&streams, PollFlags::POLLIN, stop, |fd, flags| {
        let read = recv(fd, &mut buffer, flags)?;
        received.fetch_add(read as u64, Ordering::Relaxed);
        Ok(read)
    });
}

/// Has streams moved on whenever they can be, until told to stop or all of them have ended. A single
/// one needs nobody to tell when: it blocks.
fn transfer(
    streams: &[&TcpStream],
    event: PollFlags,
    stop: &AtomicBool,
    mut step: impl FnMut(i32, MsgFlags) -> nix::Result<usize>,
) {
    let several = streams.len() > 1;
    let flags = if several { MsgFlags::MSG_DONTWAIT } else { MsgFlags::empty() };
    let mut open: Vec<PollFd<'_>> = streams.iter().map(|stream| PollFd::new(stream.as_fd(), event)).collect();
    while !open.is_empty() && !stop.load(Ordering::Relaxed) {
        if several && poll(&mut open, LOOK).is_err() {
            continue;
        }
        open.retain(|stream| {
            let idle = several && stream.any() != Some(true);
            idle || match step(stream.as_fd().as_raw_fd(), flags) {
                Ok(moved) => moved > 0,
                Err(error) => matches!(error, Errno::EAGAIN | Errno::EINTR),
            }
        });
    }
}
