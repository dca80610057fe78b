//! Steady streams of datagrams, and when they arrived.

use crate::net::Endpoint;
use std::net::{Ipv4Addr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};
use tests::Host;
use tests::wait::pause;

/// Pause between two datagrams; in fact some tens of microseconds more.
const PACE: Duration = Duration::from_micros(100);
/// Nothing for so long: nothing comes any more.
const SILENCE: Duration = Duration::from_millis(500);
/// How long a change may take to have an effect.
const PATIENCE: Duration = Duration::from_secs(20);
/// How long the receiver waits before it looks whether it is to stop.
const LOOK: Duration = Duration::from_millis(100);
/// Where they are received.
const PORT: u16 = 9000;
/// Flows that send in turns: what happens to flows one after the other happens to one of them late.
const FLOWS: u16 = 16;

/// When datagrams arrived.
#[derive(Debug, Default)]
pub(super) struct Arrivals(Mutex<Vec<Instant>>);

impl Arrivals {
    /// The first arrival after an instant, for which it waits.
    pub(super) fn first_after(&self, then: Instant) -> Result<Instant, String> {
        while then.elapsed() < PATIENCE {
            if let Some(first) = self.since(then).first() {
                return Ok(*first);
            }
            pause();
        }
        Err(format!("nothing arrived for {} s", PATIENCE.as_secs()))
    }

    /// The last arrival; the instant itself if there is none after it. Waits until nothing comes any more.
    pub(super) fn last_after(&self, then: Instant) -> Result<Instant, String> {
        while then.elapsed() < PATIENCE {
            let last = self.since(then).last().copied().unwrap_or(then);
            if last.elapsed() > SILENCE {
                return Ok(last);
            }
            pause();
        }
        Err(format!("packets still arrive after {} s", PATIENCE.as_secs()))
    }

    fn since(&self, then: Instant) -> Vec<Instant> {
        let arrivals = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let from = arrivals.partition_point(|arrival| *arrival < then);
        arrivals[from..].to_vec()
    }
}

/// Does something while `sender` sends to the server from ports of this address.
pub(super) fn of<T>(
    sender: &Host,
    address: Ipv4Addr,
    server: &Endpoint,
    work: impl FnOnce(&Arrivals) -> Result<T, String>,
) -> Result<T, String> {
    let failed = |error: std::io::Error| format!("UDP from {address} to {}: {error}", server.ipv4);
    let receiver = server.host.enter(|| UdpSocket::bind((server.ipv4, PORT))).map_err(failed)?;
    receiver.set_read_timeout(Some(LOOK)).map_err(failed)?;
    let bind =
        || (PORT..PORT + FLOWS).map(|port| UdpSocket::bind((address, port))).collect::<Result<Vec<_>, _>>();
    let sockets = sender.enter(bind).map_err(failed)?;
    let (arrivals, stop) = (Arrivals::default(), AtomicBool::new(false));
    thread::scope(|scope| {
        let _stop = Stop(&stop);
        scope.spawn(|| {
            for socket in sockets.iter().cycle().take_while(|_| !stop.load(Ordering::Relaxed)) {
                // What is refused is missing where it should arrive.
                let _ = socket.send_to(&[0], (server.ipv4, PORT));
                thread::sleep(PACE);
            }
        });
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                if receiver.recv(&mut [0]).is_ok() {
                    arrivals.0.lock().unwrap_or_else(PoisonError::into_inner).push(Instant::now());
                }
            }
        });
        work(&arrivals)
    })
}

/// Tells threads to stop, also while unwinding.
pub(crate) struct Stop<'a>(pub(crate) &'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
