//! What the packets of a measurement are.

use super::packet::{self, CHUNK, CLOSED_PORT, Frames, OPEN_PORT, Packet, SERVER};
use super::world::{Sizes, Worker};
use engine::{DropReason, Port, Verdict};
use flow::Side;
use std::net::SocketAddr;
use wire::Tuple;
use wire::parse::tcp::{ACK, SYN};

/// Packets of one kind.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Scenario {
    /// What the report calls it.
    pub name: &'static str,
    way: Way,
    /// Which packets: the first of flows that do not exist, or those of one side of flows that do.
    stage: Stage,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Way {
    /// Between pods of the node.
    Local,
    LocalOverIpv6,
    /// The same, to a port that policy does not allow.
    Closed,
    /// To a pod of another node.
    ToRemote,
    /// From there.
    FromRemote,
    /// To a service with backends there.
    Service,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stage {
    First,
    Established(Side),
}

const fn scenario(name: &'static str, way: Way, stage: Stage) -> Scenario {
    Scenario { name, way, stage }
}

/// All scenarios, in the order of the report.
pub const SCENARIOS: [Scenario; 13] = [
    Scenario::LOCAL,
    scenario("established, reply", Way::Local, Stage::Established(Side::Reply)),
    scenario("established, IPv6", Way::LocalOverIpv6, Stage::Established(Side::Original)),
    Scenario::TO_REMOTE,
    scenario("established, from another node", Way::FromRemote, Stage::Established(Side::Original)),
    Scenario::SERVICE,
    scenario("established, reply of a service", Way::Service, Stage::Established(Side::Reply)),
    Scenario::NEW,
    scenario("new flow, IPv6", Way::LocalOverIpv6, Stage::First),
    Scenario::DENIED,
    Scenario::NEW_TO_REMOTE,
    scenario("new flow from another node", Way::FromRemote, Stage::First),
    Scenario::NEW_TO_SERVICE,
];

impl Scenario {
    /// Packets of a flow between pods of the node.
    pub const LOCAL: Scenario = scenario("established", Way::Local, Stage::Established(Side::Original));
    /// Packets of a flow to another node.
    pub const TO_REMOTE: Scenario =
        scenario("established, to another node", Way::ToRemote, Stage::Established(Side::Original));
    /// Packets of a flow to a service.
    pub const SERVICE: Scenario =
        scenario("established, to a service", Way::Service, Stage::Established(Side::Original));
    /// First packets of allowed flows between pods of the node.
    pub const NEW: Scenario = scenario("new flow", Way::Local, Stage::First);
    /// First packets of flows that are not allowed.
    pub const DENIED: Scenario = scenario("new flow, denied", Way::Closed, Stage::First);
    /// First packets to another node.
    pub const NEW_TO_REMOTE: Scenario = scenario("new flow to another node", Way::ToRemote, Stage::First);
    /// First packets to services.
    pub const NEW_TO_SERVICE: Scenario = scenario("new flow to a service", Way::Service, Stage::First);

    /// Whether its packets are the first of their flows, so that the flows are to be forgotten
    /// before the same packets come again.
    pub fn is_first(&self) -> bool {
        self.stage == Stage::First
    }

    /// The packets of these flows, one each. Flows that have to exist are established.
    ///
    /// # Errors
    /// If one cannot be.
    pub fn frames(
        &self,
        worker: &mut Worker<'_>,
        sizes: Sizes,
        flows: impl IntoIterator<Item = u32>,
    ) -> Result<Frames, String> {
        let packets: Result<Vec<Packet>, String> = flows
            .into_iter()
            .map(|flow| {
                let (src, dst) = self.ends(flow % packet::FLOWS, sizes);
                match self.stage {
                    Stage::First => Ok(Packet::new(src, dst, SYN)),
                    Stage::Established(side) => establish(worker, src, dst, side),
                }
            })
            .collect();
        Ok(Frames::new(packets?))
    }

    /// Whether the verdict is what this scenario is about.
    pub fn expects(&self, verdict: Verdict) -> bool {
        let reply = self.stage == Stage::Established(Side::Reply);
        match self.way {
            Way::Closed => verdict == Verdict::Drop(DropReason::PolicyDenied),
            Way::Local | Way::LocalOverIpv6 | Way::FromRemote => verdict == Verdict::Transmit(Port::Hub),
            Way::ToRemote | Way::Service if reply => verdict == Verdict::Transmit(Port::Hub),
            Way::ToRemote | Way::Service => verdict == Verdict::Transmit(Port::Uplink(0)),
        }
    }

    /// Client and server of a flow. Remote pods and services are taken from all over the tables.
    fn ends(&self, flow: u32, sizes: Sizes) -> (SocketAddr, SocketAddr) {
        let (pod, port) = packet::client(flow);
        let scattered =
            |among: u32| ((u64::from(flow.wrapping_mul(0x9e37_79b1)) * u64::from(among)) >> 32) as u32;
        let open = |ip| SocketAddr::new(ip, OPEN_PORT);
        match self.way {
            Way::Local => ((pod.v4(), port).into(), open(SERVER.v4())),
            Way::LocalOverIpv6 => ((pod.v6(), port).into(), open(SERVER.v6())),
            Way::Closed => ((pod.v4(), port).into(), (SERVER.v4(), CLOSED_PORT).into()),
            Way::ToRemote => ((pod.v4(), port).into(), open(packet::remote(scattered(sizes.addresses)))),
            Way::FromRemote => ((packet::remote(scattered(sizes.addresses)), port).into(), open(pod.v4())),
            Way::Service => ((pod.v4(), port).into(), open(packet::service(scattered(sizes.services)))),
        }
    }
}

/// Opens a connection, lets some packets pass in both directions, and returns the next of `side`.
fn establish(
    worker: &mut Worker<'_>,
    client: SocketAddr,
    server: SocketAddr,
    side: Side,
) -> Result<Packet, String> {
    let request = |flags| Packet::new(client, server, flags);
    let translated = send(worker, request(SYN))?.reversed();
    let reply = |flags| {
        let Tuple { src, dst, sport, dport, .. } = translated;
        Packet::new((src.ip(), sport).into(), (dst.ip(), dport).into(), flags)
    };
    for packet in [reply(SYN | ACK), request(ACK), reply(ACK), request(ACK), reply(ACK)] {
        send(worker, packet)?;
    }
    Ok(if side == Side::Original { request(ACK) } else { reply(ACK) })
}

/// Has a packet forwarded; returns its tuple as it leaves.
fn send(worker: &mut Worker<'_>, packet: Packet) -> Result<Tuple, String> {
    let mut chunk = [0; CHUNK];
    let mut frame = [packet::load(&mut chunk, &packet.frame)];
    let mut verdict = None;
    worker.process(packet.port, &mut frame, |given| verdict = Some(given));
    match verdict {
        Some(Verdict::Transmit(_)) => packet::tuple(frame[0].bytes()),
        _ => None,
    }
    .ok_or_else(|| {
        format!("a flow cannot be established: {:?} got {verdict:?}", packet::tuple(&packet.frame))
    })
}
