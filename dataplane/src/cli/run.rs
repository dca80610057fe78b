//! `dataplane run`: flags to configuration, then the agent, its API and its metrics until a signal.

use super::{Failure, SOCKET_NAME, usage, values};
use crate::agent::config::{
    DEFAULT_BPFFS, DEFAULT_CONNTRACK_FLOWS, DEFAULT_OFFLOAD_AFTER, DEFAULT_OFFLOAD_FLOWS, DEFAULT_STATE_DIR,
};
use crate::agent::{Agent, Config, Poll};
use crate::api::server;
use crate::monitor::Hub;
use clap::ValueEnum;
use control::agent::PolicyMode;
use ipnet::IpNet;
use std::io::{self, IsTerminal};
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, UnixListener};
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

/// How often the agent looks whether its workers are alive.
const WORKER_CHECK: Duration = Duration::from_secs(1);

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Directory with one file per option of this command, named like the option; flags win.
    #[arg(long, value_name = "DIR")]
    config_dir: Option<PathBuf>,
    /// Name of this cluster, unique in the mesh.
    #[arg(long, value_name = "NAME", value_parser = values::cluster_name)]
    cluster_name: String,
    /// Id of this cluster, 1 to 255, unique in the mesh.
    #[arg(long, value_name = "ID", value_parser = |text: &str| values::number::<u8>(text, 1..=255))]
    cluster_id: u8,
    /// Name of this node, unique in the cluster [default: host name].
    #[arg(long, value_name = "NAME", value_parser = values::dns_name)]
    node_name: Option<String>,
    /// Address of this node, once per family [default: first global address of the first uplink].
    #[arg(long, value_name = "ADDRESS", value_parser = values::node_ip)]
    node_ip: Vec<IpAddr>,
    /// Range that pods of this node get addresses from, once per family.
    #[arg(long, value_name = "CIDR", required = true, value_parser = values::pod_cidr)]
    pod_cidr: Vec<IpNet>,
    /// Interface that leads to other nodes; repeat for several.
    #[arg(long, value_name = "INTERFACE", required = true, value_parser = values::interface)]
    uplink: Vec<String>,
    /// etcd client file of this cluster's store [default: in memory, single node].
    #[arg(long, value_name = "FILE")]
    kvstore_config: Option<PathBuf>,
    /// How long keys of this agent stay in the store after it has gone, 25s to 24h.
    #[arg(long, value_name = "TIME", default_value = "15m", value_parser = values::lease_ttl)]
    kvstore_lease_ttl: Duration,
    /// Directory with one etcd client file per remote cluster, named like the cluster; watched.
    #[arg(long, value_name = "DIR")]
    clustermesh_config: Option<PathBuf>,
    /// How long to keep what is known of a remote cluster that cannot be reached; 0s: for ever.
    #[arg(long, value_name = "TIME", default_value = "10m", value_parser = values::duration)]
    clustermesh_cache_ttl: Duration,
    /// Directory of Kubernetes objects in YAML or JSON; watched.
    #[arg(long, value_name = "DIR")]
    manifests: Option<PathBuf>,
    /// When pods are in default deny: once a policy selects them, always, or never.
    #[arg(long, value_name = "MODE", value_enum, default_value_t)]
    policy_mode: Mode,
    /// Number of worker threads, 1 to 64 [default: as many as --cpus names, else 2, or 1 if there are fewer
    /// than 4 CPUs].
    #[arg(long, value_name = "N", value_parser = |text: &str| values::number::<usize>(text, 1..=64))]
    workers: Option<usize>,
    /// CPUs to pin workers to, in order, as in `2,4-5` [default: not pinned].
    #[arg(long, value_name = "LIST", value_parser = values::cpu_list)]
    cpus: Option<values::CpuList>,
    /// How workers wait for packets: asleep when idle, or always spinning.
    #[arg(long, value_name = "MODE", value_enum, default_value_t)]
    poll: PollMode,
    /// Whether the kernel forwards packets of flows that were decided about by itself.
    #[arg(long, value_name = "MODE", value_enum, default_value_t)]
    offload: Offload,
    /// From which packet of a flow on, both directions counted, what was decided about it is cached; one
    /// later for UDP.
    #[arg(long, value_name = "N", default_value_t = DEFAULT_OFFLOAD_AFTER,
        value_parser = |text: &str| values::number::<u32>(text, 1..=1_000_000))]
    offload_after: u32,
    /// Flows that the cache has room for, rounded up to a power of two; 768 bytes each.
    #[arg(long, value_name = "N", default_value_t = DEFAULT_OFFLOAD_FLOWS,
        value_parser = |text: &str| values::number::<usize>(text, 1..=1 << 20))]
    offload_flows: usize,
    /// Directory for everything that the next run takes over.
    #[arg(long, value_name = "DIR", default_value = DEFAULT_STATE_DIR)]
    state_dir: PathBuf,
    /// API socket [default: dataplane.sock in the state directory].
    #[arg(long, value_name = "PATH")]
    socket: Option<PathBuf>,
    /// Address to serve Prometheus metrics on, at /metrics [default: not served].
    #[arg(long, value_name = "ADDRESS:PORT", value_parser = values::listen)]
    metrics: Option<SocketAddr>,
    /// How much to log to standard error; RUST_LOG, if set, wins.
    #[arg(long, value_name = "LEVEL", value_enum, default_value_t)]
    log_level: LogLevel,
}

#[derive(Clone, Copy, Debug, Default, ValueEnum)]
enum Mode {
    #[default]
    Default,
    Always,
    Never,
}

#[derive(Clone, Copy, Debug, Default, ValueEnum)]
enum PollMode {
    #[default]
    Adaptive,
    Busy,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, ValueEnum)]
enum Offload {
    #[default]
    On,
    Off,
}

#[derive(Clone, Copy, Debug, Default, ValueEnum)]
enum LogLevel {
    Error,
    Warn,
    #[default]
    Info,
    Debug,
    Trace,
}

impl Args {
    /// The configuration, once the flags fit together.
    pub(super) fn config(self) -> Result<Config, clap::Error> {
        if let Some((a, b)) = same_family(&self.pod_cidr, |cidr| cidr.addr().is_ipv4()) {
            return Err(usage(format!("--pod-cidr: {a}, {b}: there can be one per address family")));
        }
        if let Some((a, b)) = same_family(&self.node_ip, IpAddr::is_ipv4) {
            return Err(usage(format!("--node-ip: {a}, {b}: there can be one per address family")));
        }
        if let Some(name) = self.uplink.iter().enumerate().find(|(i, n)| self.uplink[..*i].contains(n)) {
            return Err(usage(format!("--uplink: {}: is given twice", name.1)));
        }
        let cpus = self.cpus.map(|list| list.0).unwrap_or_default();
        if let Some(workers) = self.workers.filter(|workers| !cpus.is_empty() && *workers != cpus.len()) {
            return Err(usage(format!("--cpus: names {} CPUs but --workers is {workers}", cpus.len())));
        }
        Ok(Config {
            cluster_name: self.cluster_name,
            cluster_id: self.cluster_id,
            node_name: self.node_name,
            node_ips: self.node_ip,
            pod_cidrs: self.pod_cidr,
            uplinks: self.uplink,
            kvstore_config: self.kvstore_config,
            kvstore_lease_ttl: self.kvstore_lease_ttl,
            clustermesh_config: self.clustermesh_config,
            clustermesh_cache_ttl: self.clustermesh_cache_ttl,
            manifests: self.manifests,
            workers: self.workers,
            cpus,
            poll: match self.poll {
                PollMode::Adaptive => Poll::Adaptive,
                PollMode::Busy => Poll::Busy,
            },
            policy_mode: match self.policy_mode {
                Mode::Default => PolicyMode::Default,
                Mode::Always => PolicyMode::Always,
                Mode::Never => PolicyMode::Never,
            },
            socket: self.socket.unwrap_or_else(|| self.state_dir.join(SOCKET_NAME)),
            state_dir: self.state_dir,
            metrics: self.metrics,
            bpffs: DEFAULT_BPFFS.into(),
            conntrack_flows: DEFAULT_CONNTRACK_FLOWS,
            offload: self.offload == Offload::On,
            offload_after: self.offload_after,
            offload_flows: self.offload_flows,
        })
    }
}

/// Two values of one address family, if there are.
fn same_family<T>(values: &[T], is_v4: impl Fn(&T) -> bool) -> Option<(&T, &T)> {
    let pairs = values.iter().enumerate().flat_map(|(i, a)| values[i + 1..].iter().map(move |b| (a, b)));
    pairs.into_iter().find(|(a, b)| is_v4(a) == is_v4(b))
}

/// Runs an agent until SIGTERM or SIGINT.
pub(super) fn run(args: Args) -> Result<(), Failure> {
    log_to_stderr(args.log_level)?;
    let config = args.config()?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .thread_name("control")
        .enable_all()
        .build()?;
    runtime.block_on(serve(config))
}

async fn serve(config: Config) -> Result<(), Failure> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let metrics = match config.metrics {
        Some(address) => Some(server::bind_metrics(address).await.map_err(Failure::Message)?),
        None => None,
    };
    let socket = config.socket.clone();
    let agent = tokio::select! {
        agent = Agent::start(config) => agent?,
        _ = terminate.recv() => return Ok(()),
        _ = interrupt.recv() => return Ok(()),
    };
    let result = match server::bind(&socket).await {
        Ok(listener) => {
            tracing::info!(node = %agent.node_name, socket = %socket.display(), "ready");
            let result = tokio::select! {
                result = serve_api(&agent, listener, metrics) => result,
                failure = worker_failure(&agent) => Err(io::Error::other(failure)),
                _ = terminate.recv() => Ok(()),
                _ = interrupt.recv() => Ok(()),
            };
            let _ = std::fs::remove_file(&socket);
            result.map_err(Failure::Io)
        }
        Err(what) => Err(Failure::Message(what)),
    };
    tracing::info!("stopping; pods stay connected");
    agent.stop().await;
    result
}

/// Waits until a worker has ended: what it served is dropped, so the next run has to take over.
async fn worker_failure(agent: &Agent) -> String {
    loop {
        tokio::time::sleep(WORKER_CHECK).await;
        let failed = agent.workers.iter().find_map(|worker| Some((worker.index, worker.failure()?)));
        if let Some((index, failure)) = failed {
            return format!("worker {index} ended: {failure}: start the agent again");
        }
    }
}

/// Serves API, monitor and metrics until one of them fails.
async fn serve_api(agent: &Arc<Agent>, api: UnixListener, metrics: Option<TcpListener>) -> io::Result<()> {
    let hub = Hub::new(agent);
    tokio::select! {
        _ = hub.run() => Ok(()),
        served = server::serve(api, Arc::clone(agent), Arc::clone(&hub)) => served,
        served = server::serve_metrics(metrics, Arc::clone(agent)) => served,
    }
}

fn log_to_stderr(level: LogLevel) -> Result<(), Failure> {
    let default = match level {
        LogLevel::Error => "error",
        LogLevel::Warn => "warn",
        LogLevel::Info => "info",
        LogLevel::Debug => "debug",
        LogLevel::Trace => "trace",
    };
    let wanted = std::env::var("RUST_LOG").ok().filter(|text| !text.is_empty());
    let filter = EnvFilter::try_new(wanted.as_deref().unwrap_or(default))
        .map_err(|error| Failure::Message(format!("RUST_LOG: {}: {error}", wanted.unwrap_or_default())))?;
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false)
        .init();
    Ok(())
}
