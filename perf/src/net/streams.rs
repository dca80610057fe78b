//! TCP streams: one thread writes, one reads, for each.

use super::arena::{Arena, Target};
use super::traffic::{Rate, StopOnDrop, over};
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, Scope};
use std::time::{Duration, Instant};

/// Bytes per read and write.
const CHUNK: usize = 256 << 10;
/// How long a connection may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// Stack of a thread; there may be thousands.
const STACK: usize = 64 << 10;

/// Runs so many streams from client to server for a turn.
pub(super) fn run(arena: &Arena, target: Target, flows: u16, turn: Duration) -> Result<Rate, String> {
    with(arena, target, flows, None, |received| {
        let (before, after, seconds) = over(turn, || received.load(Ordering::Relaxed));
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
        for (writer, reader) in &pairs {
            spawn(scope, || write(writer, limit, &stop))?;
            spawn(scope, || read(reader, &received))?;
        }
        work(&received)
    })
}

/// Both ends of every connection.
fn open(arena: &Arena, target: Target, flows: u16) -> Result<Vec<(TcpStream, TcpStream)>, String> {
    let (port, to) = (super::arena::SERVER_PORT, arena.socket_address(target));
    let listen = || TcpListener::bind((arena.server.ipv4, port));
    let listener = arena.server.host.enter(listen);
    let listener =
        listener.map_err(|error| format!("{}: TCP port {port}: {error}", arena.server.host.netns))?;
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

fn spawn<'scope, 'env>(
    scope: &'scope Scope<'scope, 'env>,
    work: impl FnOnce() + Send + 'scope,
) -> Result<(), String> {
    let thread = thread::Builder::new().stack_size(STACK).spawn_scoped(scope, work);
    thread.map(drop).map_err(|error| format!("thread for a stream: {error}"))
}

/// Ends with the connection.
fn write(mut stream: &TcpStream, limit: Option<f64>, stop: &AtomicBool) {
    // Small writes if there is a limit, so that it is one at any time.
    let bytes = vec![0; if limit.is_some() { CHUNK / 4 } else { CHUNK }];
    let pause = limit.map(|limit| Duration::from_secs_f64(bytes.len() as f64 * 8.0 / limit));
    let mut due = Instant::now();
    while !stop.load(Ordering::Relaxed) && stream.write_all(&bytes).is_ok() {
        if let Some(pause) = pause {
            due = (due + pause).max(Instant::now() - pause);
            thread::sleep(due.saturating_duration_since(Instant::now()));
        }
    }
}

/// Ends with the connection.
fn read(mut stream: &TcpStream, received: &AtomicU64) {
    let mut buffer = vec![0; CHUNK];
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => break,
            Ok(n) => _ = received.fetch_add(n as u64, Ordering::Relaxed),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(_) => break,
        }
    }
}
