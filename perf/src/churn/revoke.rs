//! The revalidator's bound: many offloaded flows that a change of policy revokes all at once.

use super::arrivals;
use super::effect::milliseconds;
use crate::net::Endpoint;
use crate::site::{LET_CLIENT_IN, Site};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use std::net::UdpSocket;
use std::time::Instant;

/// Lets nobody in.
const LET_NOBODY_IN: &str = "- {fromEndpoints: [{matchLabels: {app: nobody}}]}";
/// Ports of the server that each socket of the client sends to.
const PORTS: u16 = 110;
const FIRST_PORT: u16 = 20_000;
/// Rounds of datagrams to all ports before it is given up that they are all cached.
const ROUNDS: u32 = 100;
/// Files that a process may have open beside the sockets.
const SPARE: u64 = 512;

/// What one revocation came to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Revoked {
    /// Flows in the cache before.
    pub(super) flows: u64,
    /// Milliseconds from the change to the last packet of a flow.
    pub(super) last: f64,
}

/// The sockets of flows between the pods.
pub(super) struct Flows {
    clients: Vec<UdpSocket>,
    /// They never read: what is sent to them has arrived, and nobody complains of it.
    _servers: Vec<UdpSocket>,
    server: Endpoint,
}

impl Flows {
    /// Opens sockets for at least `count` flows.
    pub(super) fn open(site: &Site, count: u32) -> Result<Flows, String> {
        let clients = count.div_ceil(PORTS.into());
        allow_files(u64::from(clients) + u64::from(PORTS) + SPARE)?;
        let arena = &site.arena;
        let bind = |endpoint: &Endpoint, ports: &mut dyn Iterator<Item = u16>| {
            let sockets: Result<_, _> = ports.map(|port| UdpSocket::bind((endpoint.ipv4, port))).collect();
            sockets
                .map_err(|error: std::io::Error| format!("UDP sockets in {}: {error}", endpoint.host.netns))
        };
        let servers = arena.server.host.enter(|| bind(&arena.server, &mut (FIRST_PORT..FIRST_PORT + PORTS)));
        let clients = arena.client.host.enter(|| bind(&arena.client, &mut (0..clients).map(|_| 0)));
        Ok(Flows { clients: clients?, _servers: servers?, server: arena.server.clone() })
    }

    /// Sends until so many flows are cached.
    fn fill(&self, site: &Site, count: u64) -> Result<u64, String> {
        let mut cached = 0;
        for _ in 0..ROUNDS {
            for port in FIRST_PORT..FIRST_PORT + PORTS {
                for client in &self.clients {
                    // What is lost is sent again in the next round.
                    let _ = client.send_to(&[0], (self.server.ipv4, port));
                }
            }
            cached = site.cached()?;
            if cached >= count {
                return Ok(cached);
            }
        }
        Err(format!("only {cached} of {count} flows are cached after {ROUNDS} packets of each"))
    }
}

/// Revokes them all at once, and lets them in again.
pub(super) fn measure(site: &Site, flows: &Flows, count: u64) -> Result<Revoked, String> {
    let arena = &site.arena;
    arrivals::of(&arena.client.host, arena.client.ipv4, &arena.server, |arrivals| {
        arrivals.first_after(Instant::now())?;
        let cached = flows.fill(site, count)?;
        let start = Instant::now();
        site.let_in(LET_NOBODY_IN);
        let last = milliseconds(arrivals.last_after(start)? - start);
        let again = Instant::now();
        site.let_in(LET_CLIENT_IN);
        arrivals.first_after(again)?;
        Ok(Revoked { flows: cached, last })
    })
}

fn allow_files(count: u64) -> Result<(), String> {
    let failed = |error| format!("{count} open files: {error}; see `ulimit -n`");
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).map_err(failed)?;
    if soft >= count {
        return Ok(());
    }
    setrlimit(Resource::RLIMIT_NOFILE, count, hard.max(count)).map_err(failed)
}
