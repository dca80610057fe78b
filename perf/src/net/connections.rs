//! Connect, one-byte request, answer, close: what short connections cost.

use super::arena::{Arena, Target};
use super::echo::Times;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

/// How long a connection may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// Makes the client's ports last: many of them, and used again as soon as TCP allows.
pub fn prepare(arena: &Arena) {
    let client = &arena.client.host;
    client.sysctl("net/ipv4/ip_local_port_range", "1024 65535");
    client.sysctl("net/ipv4/tcp_tw_reuse", "1");
}

/// Connections to the server, one after the other.
///
/// # Errors
/// If one cannot be made.
pub fn run(arena: &Arena, turn: Duration) -> Result<Times, String> {
    let listener = arena.listen(Target::Server)?;
    let stop = AtomicBool::new(false);
    let to = arena.address(Target::Server);
    let connect = || TcpStream::connect_timeout(&to, PATIENCE);
    arena.client.host.enter(|| {
        thread::scope(|scope| {
            scope.spawn(|| {
                while let Ok((mut stream, _)) = listener.accept() {
                    let mut byte = [0];
                    if stop.load(Ordering::Relaxed) {
                        break;
                    }
                    // A connection that breaks is the client's to report.
                    let _ = stream.read_exact(&mut byte).and_then(|()| stream.write_all(&byte));
                }
            });
            let times = Times::of(turn, || {
                let mut stream = connect()?;
                stream.set_read_timeout(Some(PATIENCE))?;
                let mut byte = [1];
                stream.write_all(&byte)?;
                stream.read_exact(&mut byte).map(|()| true)
            });
            stop.store(true, Ordering::Relaxed);
            wake(arena, &listener)?;
            times
        })
    })
}

/// Gives the server a connection that does not depend on what is measured.
fn wake(arena: &Arena, listener: &TcpListener) -> Result<(), String> {
    let woken = arena.server.host.enter(|| TcpStream::connect(listener.local_addr()?));
    woken.map(drop).map_err(|error| format!("TCP to oneself: {error}"))
}
