//! One-byte requests and answers over one flow, one after the other.

use super::arena::{Arena, SERVER_PORT, Target};
use hdrhistogram::Histogram;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{TcpStream, UdpSocket};
use std::thread;
use std::time::{Duration, Instant};

/// How long an answer may take before a datagram counts as lost.
const PATIENCE: Duration = Duration::from_millis(500);
/// How long a connection may take, and an answer over one.
const CONNECTION: Duration = Duration::from_secs(5);
/// No answer takes longer in nanoseconds.
const LONGEST: u64 = 60_000_000_000;
const WARM_UP: usize = 20;

/// What a turn of requests has found.
pub struct Times {
    /// Nanoseconds from request to answer.
    pub nanoseconds: Histogram<u64>,
    /// Requests per second, in the last turn.
    pub rate: f64,
    /// Requests without an answer.
    pub lost: u64,
}

impl Times {
    /// Repeats an exchange for a turn. `Ok(false)` is a lost one.
    pub(super) fn of(
        turn: Duration,
        mut exchange: impl FnMut() -> io::Result<bool>,
    ) -> Result<Times, String> {
        let failed = |error: io::Error| format!("request: {error}");
        let mut nanoseconds =
            Histogram::new_with_max(LONGEST, 3).map_err(|error| format!("histogram: {error}"))?;
        let mut lost = 0;
        for _ in 0..WARM_UP {
            exchange().map_err(failed)?;
        }
        let start = Instant::now();
        let mut now = start;
        while now - start < turn {
            let answered = exchange().map_err(failed)?;
            let end = Instant::now();
            match answered {
                true => nanoseconds.saturating_record((end - now).as_nanos() as u64),
                false => lost += 1,
            }
            now = end;
        }
        if nanoseconds.is_empty() {
            return Err(format!("none of {lost} requests was answered"));
        }
        let rate = nanoseconds.len() as f64 / start.elapsed().as_secs_f64();
        Ok(Times { nanoseconds, rate, lost })
    }

    /// Adds what another turn has found.
    fn add(&mut self, more: &Times) -> Result<(), String> {
        self.nanoseconds.add(&more.nanoseconds).map_err(|error| format!("histogram: {error}"))?;
        self.lost += more.lost;
        self.rate = more.rate;
        Ok(())
    }

    /// A quantile in microseconds.
    pub fn microseconds(&self, quantile: f64) -> f64 {
        self.nanoseconds.value_at_quantile(quantile) as f64 / 1000.0
    }
}

/// Over a TCP connection.
///
/// # Errors
/// If it cannot be made or breaks.
pub fn tcp(arena: &Arena, turn: Duration) -> Result<Times, String> {
    let listener = arena.listen(Target::Server)?;
    let connect = || TcpStream::connect_timeout(&arena.address(Target::Server), CONNECTION);
    let mut client =
        arena.client.host.enter(connect).map_err(|error| format!("TCP to the server: {error}"))?;
    let (mut server, _) = listener.accept().map_err(|error| format!("TCP from the client: {error}"))?;
    for stream in [&client, &server] {
        stream.set_nodelay(true).map_err(|error| error.to_string())?;
    }
    client.set_read_timeout(Some(CONNECTION)).map_err(|error| error.to_string())?;
    thread::scope(|scope| {
        scope.spawn(move || {
            let mut byte = [0];
            while server.read_exact(&mut byte).is_ok() && server.write_all(&byte).is_ok() {}
        });
        let mut byte = [1];
        let times = Times::of(turn, || {
            client.write_all(&byte)?;
            client.read_exact(&mut byte).map(|()| true)
        });
        // The server's end of it ends the thread.
        drop(client);
        times
    })
}

/// Over two UDP sockets.
///
/// # Errors
/// If they cannot be made, or nothing is ever answered.
pub fn udp(arena: &Arena, turn: Duration) -> Result<Times, String> {
    udp_while(arena, turn, || false)
}

/// The same, turn after turn, as long as there is `more` to come.
///
/// # Errors
/// If they cannot be made, or nothing is answered for a turn.
pub fn udp_while(arena: &Arena, turn: Duration, more: impl Fn() -> bool) -> Result<Times, String> {
    let bind = |endpoint: &super::Endpoint, port: u16| {
        let address = (endpoint.ipv4, port);
        endpoint.host.enter(|| UdpSocket::bind(address)).map_err(|error| format!("UDP port {port}: {error}"))
    };
    let (client, server) = (bind(&arena.client, 0)?, bind(&arena.server, SERVER_PORT)?);
    let prepare = || {
        client.connect(arena.address(Target::Server))?;
        client.set_read_timeout(Some(PATIENCE))?;
        server.connect(client.local_addr()?)
    };
    prepare().map_err(|error| format!("UDP to the server: {error}"))?;
    thread::scope(|scope| {
        // An empty datagram is the last one; it may get lost like any other.
        server.set_read_timeout(Some(2 * PATIENCE)).map_err(|error| error.to_string())?;
        scope.spawn(|| {
            let mut byte = [0];
            while let Ok(1) = server.recv(&mut byte) {
                // A refusal is noticed as a missing answer.
                let _ = server.send(&byte);
            }
        });
        let mut byte = [1];
        let mut exchange = || {
            client.send(&byte)?;
            match client.recv(&mut byte) {
                Ok(_) => Ok(true),
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                    Ok(false)
                }
                Err(error) => Err(error),
            }
        };
        let mut talk = || {
            let mut times = Times::of(turn, &mut exchange)?;
            while more() {
                times.add(&Times::of(turn, &mut exchange)?)?;
            }
            Ok(times)
        };
        let times = talk();
        client.send(&[]).map_err(|error| format!("UDP to the server: {error}"))?;
        times
    })
}
