//! What the packets of a measurement are.

use crate::World;
use crate::world::{CLIENT, CLOSED_PORT, OPEN_PORT, REMOTE, SERVER, SERVICE};
use engine::{Frame, Port, Verdict};
use std::net::{IpAddr, SocketAddr};
use wire::craft::Craft;
use wire::hub::{LinkDestination, Origin};
use wire::parse::tcp;

/// Packets of one kind from the client pod.
#[derive(Clone, Copy, Debug)]
pub struct Scenario {
    /// What the report calls it.
    pub name: &'static str,
    to: Target,
    /// The flows exist before the measured packets come.
    established: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Target {
    Server,
    ServerOverIpv6,
    ClosedPort,
    Service,
    Remote,
}

/// All scenarios, in the order of the report.
pub const SCENARIOS: [Scenario; 8] = [
    Scenario { name: "established flow", to: Target::Server, established: true },
    Scenario { name: "established flow, IPv6", to: Target::ServerOverIpv6, established: true },
    Scenario { name: "established flow, remote pod", to: Target::Remote, established: true },
    Scenario { name: "established flow, service", to: Target::Service, established: true },
    Scenario { name: "new flow, allowed", to: Target::Server, established: false },
    Scenario { name: "new flow, denied", to: Target::ClosedPort, established: false },
    Scenario { name: "new flow, remote pod", to: Target::Remote, established: false },
    Scenario { name: "new flow, service", to: Target::Service, established: false },
];

/// First source port of the flows.
const FIRST_PORT: u16 = 10_000;
/// Room for a frame and what may be put in its place.
const CHUNK: usize = 256;

impl Scenario {
    /// The frames to be measured, in turns of `active` flows where these are established. At most
    /// 50,000, so that each can have a source port.
    pub fn frames(&self, count: u16, active: u16) -> Vec<Vec<u8>> {
        match self.established {
            true => (0..count).map(|n| self.craft(n % active, tcp::ACK)).collect(),
            false => (0..count).map(|n| self.craft(n, tcp::SYN)).collect(),
        }
    }

    /// Brings conntrack to where the scenario begins.
    ///
    /// # Errors
    /// If a flow cannot be established.
    pub fn prepare(&self, world: &mut World, active: u16) -> Result<(), String> {
        world.forget();
        if self.established {
            for frame in (0..active).map(|n| self.craft(n, tcp::SYN)) {
                let mut chunk = [0; CHUNK];
                self.check(world.process(&mut load(&mut chunk, &frame)))?;
            }
        }
        Ok(())
    }

    /// Checks that the verdict is what this scenario is about.
    ///
    /// # Errors
    /// If it is not.
    pub fn check(&self, verdict: Verdict) -> Result<(), String> {
        let right = match self.to {
            Target::Server | Target::ServerOverIpv6 => verdict == Verdict::Transmit(Port::Hub),
            Target::Remote | Target::Service => verdict == Verdict::Transmit(Port::Uplink(0)),
            Target::ClosedPort => matches!(verdict, Verdict::Drop(_)),
        };
        if right { Ok(()) } else { Err(format!("{}: a packet got the verdict {verdict:?}", self.name)) }
    }

    /// A frame of the flow with this number.
    fn craft(&self, flow: u16, flags: u8) -> Vec<u8> {
        let to = Origin::Pod { ifindex: CLIENT.number.into(), to: LinkDestination::Gateway }.encode();
        let (src, dst) = self.addresses();
        let src = SocketAddr::new(src, FIRST_PORT.saturating_add(flow));
        Craft::tcp(src, dst, flags).link(CLIENT.mac(), to).build()
    }

    fn addresses(&self) -> (IpAddr, SocketAddr) {
        let port = if self.to == Target::ClosedPort { CLOSED_PORT } else { OPEN_PORT };
        match self.to {
            Target::Server | Target::ClosedPort => (CLIENT.v4(), (SERVER.v4(), port).into()),
            Target::ServerOverIpv6 => (CLIENT.v6(), (SERVER.v6(), port).into()),
            Target::Service => (CLIENT.v4(), (SERVICE.ip(), port).into()),
            Target::Remote => (CLIENT.v4(), (REMOTE.ip(), port).into()),
        }
    }
}

/// Puts a frame into a chunk, as receiving it would.
pub fn load<'a>(chunk: &'a mut [u8], frame: &[u8]) -> Frame<'a> {
    chunk[..frame.len()].copy_from_slice(frame);
    Frame { buf: chunk, head: 0, len: frame.len(), tail: 0 }
}
