//! Views that are put together from several parts of the agent.

use super::model::{FlowView, Status};
use crate::agent::Agent;
use control::model::ControlStatus;
use flow::{Flow, Seconds};
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use tables::Snapshot;
use wire::Address;

/// Everything `status` shows.
pub fn status(agent: &Agent) -> Status {
    let control = agent.control.status();
    let datapath = agent.datapath();
    let mut endpoints = BTreeMap::new();
    for endpoint in agent.endpoints() {
        *endpoints.entry(endpoint.status.state).or_default() += 1;
    }
    Status {
        version: env!("CARGO_PKG_VERSION").into(),
        cluster_name: agent.config.cluster_name.clone(),
        cluster_id: agent.config.cluster_id,
        node_name: agent.node_name.clone(),
        node_addresses: agent.node_addresses.clone(),
        kvstore_config: agent.config.kvstore_config.clone(),
        clustermesh_config: agent.config.clustermesh_config.clone(),
        uptime_seconds: agent.started.elapsed().as_secs(),
        problems: problems(&control, &datapath),
        control,
        ipam: agent.ipam(),
        datapath,
        conntrack: agent.conntrack(),
        offload: agent.offload(),
        endpoints,
        identities: agent.control.identity_numbers().len(),
    }
}

/// Certificates that end sooner, in seconds, are a problem.
const CERTIFICATE_WARNING: i64 = 7 * 24 * 3600;

/// What keeps the node from its work. Remote clusters that are away do not: their last state
/// stays in force.
fn problems(control: &ControlStatus, datapath: &super::model::DatapathStatus) -> Vec<String> {
    let mut problems = Vec::new();
    if !control.kvstore.connected {
        problems.push(format!("kvstore: {}", control.kvstore.status));
    }
    if !control.synced {
        problems.push("control: the first complete view of stores and manifests is not in yet".into());
    }
    if datapath.workers.is_empty() {
        problems.push("datapath: no worker runs".into());
    }
    for worker in datapath.workers.iter().filter(|worker| !worker.alive) {
        let why = worker.error.as_deref().unwrap_or("does not run");
        problems.push(format!("worker {}: {why}", worker.index));
    }
    let gone = datapath.workers.iter().filter(|worker| worker.alive).flat_map(|worker| &worker.sockets);
    let gone: BTreeSet<_> = gone.filter(|socket| socket.gone).map(|socket| &socket.interface).collect();
    for uplink in gone {
        problems.push(format!("uplink {uplink}: was removed; bring it back and start the agent again"));
    }
    let remotes = control.remotes.iter().flat_map(|remote| &remote.certificates);
    let ending = control.kvstore.certificates.iter().chain(remotes);
    let ending = ending.filter(|certificate| certificate.expires_in_seconds < CERTIFICATE_WARNING);
    let ending: BTreeSet<_> = ending.map(|certificate| (&certificate.file, &certificate.expires)).collect();
    for (file, expires) in ending {
        problems.push(format!("certificate {file}: ends at {expires}; renew it in place, it is read anew"));
    }
    problems
}

/// Calls `each` for every connection.
pub fn for_each_flow(agent: &Agent, mut each: impl FnMut(FlowView)) {
    let tables = agent.publisher.current();
    agent.offload.refresh();
    let offloaded = agent.offload.offloaded();
    let now = crate::worker::now();
    agent.flows.for_each(now, |flow, service| {
        each(FlowView { offloaded: offloaded.contains(flow.id), ..flow_view(flow, service, now, &tables) });
    });
}

fn flow_view(flow: &Flow, service: bool, now: Seconds, tables: &Snapshot) -> FlowView {
    let tuple = flow.new.tuple;
    let local = |address: Address| tables.endpoints.by_address(address).is_some();
    let kind = match service {
        true => "SVC",
        false if local(tuple.src) => "OUT",
        false => "IN",
    };
    let state = flow.state;
    let flags = [
        (state.replied, "Replied"),
        (state.seen_non_syn, "SeenNonSyn"),
        (state.original_closing, "TxClosing"),
        (state.reply_closing, "RxClosing"),
    ];
    FlowView {
        protocol: tuple.proto.to_string(),
        kind: kind.into(),
        source: tuple.src.ip(),
        source_port: tuple.sport,
        destination: tuple.dst.ip(),
        destination_port: tuple.dport,
        translated: flow
            .new
            .translated_from
            .map(|(address, port)| SocketAddr::new(address.ip(), port).to_string()),
        expires: flow.expires,
        remaining_seconds: flow.expires.saturating_sub(now),
        last_seen: flow.last_seen,
        packets: flow.original.packets,
        bytes: flow.original.bytes,
        reply_packets: flow.reply.packets,
        reply_bytes: flow.reply.bytes,
        tcp_flags: state.original_flags,
        reply_tcp_flags: state.reply_flags,
        flags: flags.iter().filter(|(set, _)| *set).map(|(_, name)| (*name).into()).collect(),
        source_identity: flow.new.src_identity.0,
        destination_identity: flow.new.dst_identity.0,
        service: flow.new.service,
        offloaded: false,
    }
}
