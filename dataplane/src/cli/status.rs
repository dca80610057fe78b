//! `dataplane status`, in the layout of `cilium-dbg status`.

use super::table::Output;
use super::{Connection, Failure, values};
use crate::api::client::{Client, Error};
use crate::api::model::{DatapathStatus, OffloadStatus, SocketStatus, Status};
use bpf::Loss;
use control::model::{CertificateStatus, RemoteStatus};
use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::time::Duration;
use tokio::time::Instant;

/// How often `--wait` looks.
const RETRY: Duration = Duration::from_millis(200);

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Wait until the agent answers and nothing keeps it from its work.
    #[arg(long)]
    wait: bool,
    /// How long --wait waits.
    #[arg(long, value_name = "TIME", default_value = "5m", value_parser = values::duration)]
    wait_duration: Duration,
    /// Print `OK` or what is wrong, nothing else.
    #[arg(long, conflicts_with = "format")]
    brief: bool,
    /// Show every remote cluster and every socket.
    #[arg(long)]
    verbose: bool,
    #[command(flatten)]
    connection: Connection,
    #[command(flatten)]
    output: Output,
}

impl Args {
    pub(super) async fn run(self) -> Result<(), Failure> {
        let client = self.connection.client();
        let status = match self.wait {
            true => wait(&client, self.wait_duration).await?,
            false => client.get("/v1/status").await?,
        };
        if self.brief {
            writeln!(io::stdout(), "{}", brief(&status))?;
        } else {
            self.output.print(&status, |status| text(status, self.verbose))?;
        }
        if status.problems.is_empty() { Ok(()) } else { Err(Failure::Silent) }
    }
}

/// The first status without problems, or the last one with them when time is up.
async fn wait(client: &Client, limit: Duration) -> Result<Status, Error> {
    let deadline = Instant::now() + limit;
    loop {
        let answer: Result<Status, _> = client.get("/v1/status").await;
        let fine = answer.as_ref().is_ok_and(|status| status.problems.is_empty());
        if fine || Instant::now() + RETRY > deadline {
            return answer;
        }
        tokio::time::sleep(RETRY).await;
    }
}

fn brief(status: &Status) -> String {
    match status.problems.first() {
        None => "OK".into(),
        Some(problem) => format!("error in {problem}"),
    }
}

fn text(status: &Status, verbose: bool) -> String {
    let mut text = String::new();
    let mut line = |title: &str, value: &str| {
        let title = if title.is_empty() { String::new() } else { format!("{title}:") };
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{title:<24} {value}");
    };
    let control = &status.control;
    let store = &control.kvstore;
    let leader = if store.leader { ", publishes the cluster's services" } else { "" };
    let connected = if store.connected { "Ok" } else { "Failure" };
    line("KVStore", &format!("{connected}   {}: {}{leader}", store.kind, store.status));
    for certificate in store.certificates.iter().filter(|_| verbose) {
        line("", &certificate_text(certificate));
    }
    let (health, problems) = match status.problems.as_slice() {
        [] => ("Ok", String::new()),
        problems => ("Failure", format!("   {}", problems.join("; "))),
    };
    line("Dataplane", &format!("{health}   {}{problems}", status.version));
    let addresses: Vec<_> = status.node_addresses.iter().map(ToString::to_string).collect();
    line(
        "Node",
        &format!(
            "{}/{} (cluster id {}), {}, up {}",
            status.cluster_name,
            status.node_name,
            status.cluster_id,
            addresses.join(", "),
            age(status.uptime_seconds)
        ),
    );
    let pools = status.ipam.iter().map(|pool| {
        let family = if pool.cidr.contains(':') { "IPv6" } else { "IPv4" };
        format!("{family}: {}/{} allocated from {}", pool.allocated, pool.capacity, pool.cidr)
    });
    line("IPAM", &pools.collect::<Vec<_>>().join(", "));
    let states = status.endpoints.iter().map(|(state, count)| format!("{count} {state}"));
    let states = states.collect::<Vec<_>>().join(", ");
    line("Endpoints", if states.is_empty() { "none" } else { &states });
    datapath(&status.datapath, verbose, &mut line);
    let ct = &status.conntrack;
    let full = if ct.full > 0 { format!(", {} flows found no room", ct.full) } else { String::new() };
    line("Conntrack", &format!("{}/{} entries, {} evicted{full}", ct.entries, ct.capacity, ct.evicted));
    line("Offload", &offload(&status.offload, verbose));
    let id = u32::from(status.cluster_id) << 16;
    line("Global Identity Range", &format!("min {id}, max {}, {} known", id + 0xffff, status.identities));
    let objects = control
        .objects
        .iter()
        .filter(|(_, count)| **count > 0)
        .map(|(kind, count)| format!("{count} {kind}"));
    let objects = objects.collect::<Vec<_>>().join(", ");
    let refused = control.manifest_errors.len();
    line(
        "Manifests",
        &match (refused, objects.is_empty()) {
            (0, true) => "none".into(),
            (0, false) => format!("Ok   {objects}"),
            (_, true) => format!("{refused} refused"),
            (_, false) => format!("{refused} refused; in force: {objects}"),
        },
    );
    for error in &control.manifest_errors {
        let last = if error.last_good_in_force { " (its last good version is in force)" } else { "" };
        let _ = writeln!(text, "   {}: {}{last}", error.source, error.message);
    }
    text + &clustermesh(&control.remotes, &control.conflicts, verbose)
}

fn datapath(datapath: &DatapathStatus, verbose: bool, line: &mut impl FnMut(&str, &str)) {
    let workers = datapath.workers.iter().map(|worker| {
        let cpu = worker.cpu.map_or("not pinned".into(), |cpu| format!("cpu {cpu}"));
        match &worker.error {
            Some(error) => format!("worker {} failed: {error}", worker.index),
            None => format!("worker {} ({cpu})", worker.index),
        }
    });
    let workers = workers.collect::<Vec<_>>().join(", ");
    line("Workers", &format!("{}, poll {}", workers, datapath.poll));
    let links = datapath.links.iter().map(|link| {
        format!("{} {}: AF_XDP {}, XDP {}, MTU {}", link.role, link.name, link.mode, link.xdp, link.mtu)
    });
    for (i, link) in links.enumerate() {
        line(if i == 0 { "Datapath" } else { "" }, &link);
    }
    let lost = datapath.kernel_drops.iter().filter(|(_, count)| **count > 0);
    for (i, (cause, count)) in lost.enumerate() {
        let known = Loss::ALL.iter().find(|loss| loss.name() == cause);
        let words = known.map_or(cause.as_str(), |loss| loss.text());
        line(if i == 0 { "Lost in the kernel" } else { "" }, &format!("{count} packets: {words}"));
    }
    for worker in datapath.workers.iter().filter(|_| verbose) {
        let lost = [
            ("monitor events lost", worker.events_lost),
            ("packets lost on their way to the uplink's worker", worker.handoff_full),
            ("packets lost for want of memory to send them from", worker.no_frame),
            ("packets lost to removed uplinks", worker.uplink_gone),
        ];
        for (what, count) in lost.iter().filter(|(_, count)| *count > 0) {
            line("", &format!("worker {}: {count} {what}", worker.index));
        }
        for socket in &worker.sockets {
            line("", &format!("worker {}: {}", worker.index, socket_text(socket)));
        }
    }
}

fn offload(offload: &OffloadStatus, verbose: bool) -> String {
    let OffloadStatus { enabled, after, entries, capacity, full, .. } = offload;
    let on = if *enabled { "on " } else { "off" };
    let mut text = format!("{on}  {entries}/{capacity} verdicts cached");
    if *full > 0 {
        let _ = write!(text, ", {full} found no room: raise --offload-flows");
    }
    if verbose {
        let removed: Vec<_> =
            offload.removed.iter().map(|(cause, count)| format!("{count} {cause}")).collect();
        let (packets, bytes, inserted) = (offload.packets, offload.bytes, offload.inserted);
        let _ = write!(
            text,
            ", from packet {after} of a flow on; {inserted} written, {}; {packets} packets, {bytes} bytes forwarded",
            removed.join(", ")
        );
    }
    text
}

fn socket_text(socket: &SocketStatus) -> String {
    let gone = if socket.gone { ", removed" } else { "" };
    let mut text = format!("{} queue {}, {}{gone}", socket.interface, socket.queue, socket.mode);
    for (name, count) in socket.counters.iter().filter(|(_, count)| **count > 0) {
        let _ = write!(text, ", {name} {count}");
    }
    text
}

/// The ClusterMesh line, a block for each cluster that is not ready (for each if `all`), and
/// conflicts.
pub(super) fn clustermesh(remotes: &[RemoteStatus], conflicts: &[String], all: bool) -> String {
    let ready = remotes.iter().filter(|remote| remote.ready).count();
    let mut text = format!("{:<24} {ready}/{} remote clusters ready\n", "ClusterMesh:", remotes.len());
    for remote in remotes.iter().filter(|remote| all || !remote.ready) {
        remote_block(remote, &mut text);
    }
    for (i, conflict) in conflicts.iter().enumerate() {
        let title = if i == 0 { "Conflicts:" } else { "" };
        let _ = writeln!(text, "{title:<24} {conflict}");
    }
    text
}

fn remote_block(remote: &RemoteStatus, text: &mut String) {
    let ready = if remote.ready { "ready" } else { "not-ready" };
    let last = remote.last_failure_seconds.map_or("never".into(), |seconds| format!("{} ago", age(seconds)));
    let config = match remote.cluster_id {
        Some(id) => format!(
            "expected=true, retrieved=true, cluster-id={id}, kvstoremesh={}, sync-canaries={}",
            remote.kvstoremesh, remote.sync_canaries
        ),
        None => "expected=unknown, retrieved=unknown".into(),
    };
    let synced = remote.synced.iter().map(|(kind, done)| format!("{kind}={done}"));
    let synced = synced.collect::<Vec<_>>().join(", ");
    let _ = writeln!(
        text,
        "   {}: {ready}, {} nodes, {} endpoints, {} identities, {} services, {} endpoint slices, {} reconnections (last: {last})\n   \
         └  {}\n   \
         └  remote configuration: {config}\n   \
         └  synchronization status: {synced}",
        remote.name,
        remote.num_nodes,
        remote.num_endpoints,
        remote.num_identities,
        remote.num_shared_services,
        remote.num_endpoint_slices,
        remote.num_failures,
        remote.status,
    );
    if let Some(seconds) = remote.last_contact_seconds {
        let revision = remote.revision.map_or(String::new(), |revision| format!(", revision {revision}"));
        let audit = remote.last_audit_seconds.map_or(String::new(), |seconds| {
            format!("; compared in full {} ago, {} repaired so far", age(seconds), remote.audit_repairs)
        });
        let _ = writeln!(text, "   └  data last confirmed {} ago{revision}{audit}", age(seconds));
    }
    for certificate in &remote.certificates {
        let _ = writeln!(text, "   └  {}", certificate_text(certificate));
    }
    if remote.refused > 0 {
        let newest = remote.last_refusal.as_deref().unwrap_or_default();
        let _ = writeln!(text, "   └  {} records refused, newest: {newest}", remote.refused);
    }
}

fn certificate_text(certificate: &CertificateStatus) -> String {
    let CertificateStatus { kind, subject, expires, expires_in_seconds, .. } = certificate;
    let days = expires_in_seconds / (24 * 3600);
    let when = if *expires_in_seconds < 0 { "expired".into() } else { format!("{days} days left") };
    format!("{kind}: {subject}, until {expires} ({when})")
}

/// A time span as Go prints it: `1h2m3s`.
fn age(seconds: u64) -> String {
    match (seconds / 3600, seconds / 60 % 60, seconds % 60) {
        (0, 0, s) => format!("{s}s"),
        (0, m, s) => format!("{m}m{s}s"),
        (h, m, s) => format!("{h}h{m}m{s}s"),
    }
}

#[cfg(test)]
mod tests;
