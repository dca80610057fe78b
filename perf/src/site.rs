//! A node with a client and a server pod whose agent, etcd and manifests are at hand.

use crate::net::{Arena, Endpoint};
use std::fs;
use std::time::{Duration, Instant};
use tests::eventually;
use tests::node::Node;
use tests::wait::pause;
use tests::{Pod, World, manifests};

/// Seconds of a clock tick, in which the kernel counts CPU time (`USER_HZ`, fixed at 100).
const TICK: f64 = 0.01;

/// An agent that keeps less than this part of a CPU busy for so long has taken in what it was told.
const IDLE: f64 = 0.1;
const LOOK: Duration = Duration::from_millis(300);

/// What the client may send to, in a policy of the server.
pub(crate) const LET_CLIENT_IN: &str = "- {fromEndpoints: [{matchLabels: {app: client}}]}";

/// The node and its two pods.
pub(crate) struct Site {
    /// The pods.
    pub(crate) arena: Arena,
    /// Everything else; removed when dropped.
    pub(crate) world: World,
}

impl Site {
    /// Builds it, with these options of the agent and an etcd if wanted. Everybody in `ingress` may reach the server.
    pub(crate) fn new(
        name: &str,
        flags: &[(&str, &str)],
        with_etcd: bool,
        ingress: &str,
    ) -> Result<Site, String> {
        let mut world = if with_etcd { World::lay(&[1]) } else { World::lay_single() };
        for (option, value) in flags {
            world.clusters[0].nodes[0].replace_flag(option, value);
        }
        world.cluster(1).apply("server.yaml", &server_policy(ingress));
        world.start();
        let node = world.node(1, 1);
        let [client, server] = ["client", "server"]
            .map(|app| endpoint(node, &node.pod(&format!("default/{app}"), &format!("app={app}"))));
        let arena = Arena { name: name.to_owned(), client: client?, server: server?, kept: Box::new(()) };
        Ok(Site { arena, world })
    }

    /// The node.
    pub(crate) fn node(&self) -> &Node {
        self.world.node(1, 1)
    }

    /// Lets these in to the server from now on.
    pub(crate) fn let_in(&self, ingress: &str) {
        self.world.cluster(1).apply("server.yaml", &server_policy(ingress));
    }

    /// Bytes of memory that the agent has resident.
    pub(crate) fn resident(&self) -> Result<f64, String> {
        self.memory("VmRSS:")
    }

    /// The most bytes of memory that the agent ever had resident.
    pub(crate) fn most_resident(&self) -> Result<f64, String> {
        self.memory("VmHWM:")
    }

    fn memory(&self, field: &str) -> Result<f64, String> {
        let path = format!("/proc/{}/status", self.node().agent_id());
        let status = fs::read_to_string(&path).map_err(|error| format!("{path}: {error}"))?;
        let line = status.lines().find_map(|line| line.strip_prefix(field));
        let kilobytes = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<f64>().ok());
        kilobytes.map(|kilobytes| kilobytes * 1024.0).ok_or_else(|| format!("{path}: no {field}"))
    }

    /// CPUs that the agent keeps busy, over some time.
    pub(crate) fn cpus(&self, time: Duration) -> Result<f64, String> {
        let (start, before) = (Instant::now(), self.cpu_time()?);
        while start.elapsed() < time {
            pause();
        }
        Ok((self.cpu_time()? - before) / start.elapsed().as_secs_f64())
    }

    /// Seconds of CPU that the agent has used.
    pub(crate) fn cpu_time(&self) -> Result<f64, String> {
        let path = format!("/proc/{}/stat", self.node().agent_id());
        let stat = fs::read_to_string(&path).map_err(|error| format!("{path}: {error}"))?;
        // After the name, which may hold anything: state is the first, utime and stime the 12th and 13th.
        let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
        let ticks: Vec<f64> = fields.skip(11).take(2).filter_map(|field| field.parse().ok()).collect();
        match ticks[..] {
            [user, system] => Ok((user + system) * TICK),
            _ => Err(format!("{path}: not understood: {stat}")),
        }
    }

    /// Waits until the agent has nothing left to do.
    pub(crate) fn settle(&self) {
        eventually("the agent is idle", || {
            let cpus = self.cpus(LOOK)?;
            if cpus < IDLE { Ok(()) } else { Err(format!("it keeps {cpus:.2} CPUs busy")) }
        });
    }

    /// Verdicts in the cache.
    pub(crate) fn cached(&self) -> Result<u64, String> {
        let status = self.node().cli.json("status");
        status["offload"]["entries"].as_u64().ok_or_else(|| format!("status: no offload.entries: {status:#}"))
    }
}

fn endpoint(node: &Node, pod: &Pod) -> Result<Endpoint, String> {
    Endpoint::find((**pod).clone(), node.host.clone(), pod.ipv4, pod.ipv6)
}

fn server_policy(ingress: &str) -> String {
    manifests::policy(
        "server",
        &format!("endpointSelector: {{matchLabels: {{app: server}}}}\ningress:\n{ingress}"),
    )
}
