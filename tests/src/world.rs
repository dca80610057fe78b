//! Clusters of nodes on one wire, with everything they need, removed when dropped.

use crate::etcd::Etcd;
use crate::host::Host;
use crate::mode::Offload;
use crate::node::{Cli, Cluster, Node};
use crate::teardown;
use crate::wait::{interruption, stop_gracefully_on_signals};
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Everything: the wire, a host outside of all clusters, and the clusters.
pub struct World {
    /// Clusters; `world.node(1, 2)` is node 2 of cluster 1.
    pub clusters: Vec<Cluster>,
    /// A host on the wire that belongs to no cluster and routes to the pods through their nodes.
    pub outside: Host,
    /// How its agents work.
    pub offload: Offload,
    prefix: String,
    dir: PathBuf,
    fabric: Host,
}

/// Address of [`World::outside`].
pub const OUTSIDE: [IpAddr; 2] =
    [IpAddr::V4(Ipv4Addr::new(10, 0, 99, 1)), IpAddr::V6(Ipv6Addr::new(0xfd00, 0x99, 0, 0, 0, 0, 0, 1))];

impl World {
    /// One cluster of one node, without etcd, running.
    pub fn single() -> World {
        let world = World::lay_with(&unique(), &[1], 0);
        world.start();
        world
    }

    /// One cluster of one node, without etcd; its agent does not run yet.
    pub fn lay_single() -> World {
        World::lay_with(&unique(), &[1], 0)
    }

    /// Clusters of so many nodes each, running.
    pub fn of(nodes: &[u8]) -> World {
        let world = World::lay(nodes);
        world.start();
        world
    }

    /// Clusters of so many nodes each; neither etcd nor agents run yet.
    pub fn lay(nodes: &[u8]) -> World {
        World::lay_with(&unique(), nodes, 1)
    }

    /// As [`World::of`]; the etcd of every cluster has so many members.
    pub fn replicated(nodes: &[u8], members: usize) -> World {
        let world = World::lay_with(&unique(), nodes, members);
        world.start();
        world
    }

    /// As [`World::lay`], under a name of one's own.
    pub fn named(prefix: &str, nodes: &[u8]) -> World {
        World::lay_with(prefix, nodes, 1)
    }

    fn lay_with(prefix: &str, nodes: &[u8], members: usize) -> World {
        assert!(nix::unistd::geteuid().is_root(), "network namespaces, BPF and AF_XDP need root");
        stop_gracefully_on_signals();
        teardown::remove_orphans();
        let dir = teardown::dir(prefix);
        fs::create_dir_all(dir.join("mesh")).unwrap_or_else(|e| panic!("{dir:?}: {e}"));
        let fabric = Host::create(&format!("{prefix}-fabric"));
        fabric.ip("link add wire type bridge");
        fabric.ip("link set wire up");
        let outside = Host::create(&format!("{prefix}-outside"));
        let (clusters, offload, prefix) = (Vec::new(), Offload::of_this_run(), prefix.to_owned());
        let mut world = World { clusters, outside, offload, prefix, dir, fabric };
        world.connect(&world.outside, OUTSIDE);
        // On a real wire checksums are complete; between veths they may never be computed.
        world.outside.run("ethtool -K eth0 tx off").unwrap_or_else(|e| panic!("{e}"));
        for (index, &count) in nodes.iter().enumerate() {
            let cluster = world.lay_cluster(index as u8 + 1, count, members);
            world.clusters.push(cluster);
        }
        world
    }

    /// Gives the wire and everything on it another MTU.
    pub fn set_mtu(&self, mtu: u32) {
        let ports = self.fabric.links().into_iter().filter(|link| link.starts_with("port"));
        ports.for_each(|port| _ = self.fabric.ip(&format!("link set {port} mtu {mtu}")));
        let hosts = self.nodes().map(|node| &node.host).chain([&self.outside]);
        let etcds = self.clusters.iter().filter_map(|cluster| cluster.etcd.as_ref());
        for host in hosts.chain(etcds.map(|etcd| &etcd.host)) {
            host.ip(&format!("link set eth0 mtu {mtu}"));
        }
    }

    /// Starts every etcd and every agent; returns when all are ready.
    pub fn start(&self) {
        self.clusters.iter().filter_map(|cluster| cluster.etcd.as_ref()).for_each(Etcd::start);
        self.nodes().for_each(|node| node.launch(&[]));
        self.nodes().for_each(Node::ready);
    }

    /// A cluster by its number, from 1.
    pub fn cluster(&self, cluster: usize) -> &Cluster {
        &self.clusters[cluster - 1]
    }

    /// A node by the numbers of its cluster and its own, from 1.
    pub fn node(&self, cluster: usize, node: usize) -> &Node {
        &self.cluster(cluster).nodes[node - 1]
    }

    /// All nodes of all clusters.
    pub fn nodes(&self) -> impl Iterator<Item = &Node> {
        self.clusters.iter().flat_map(|cluster| &cluster.nodes)
    }

    /// Files of the world: logs, configurations, state.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Leaves everything running.
    pub fn keep(self) {
        std::mem::forget(self);
    }

    fn lay_cluster(&self, number: u8, nodes: u8, members: usize) -> Cluster {
        let name = format!("cluster{number}");
        let manifests = self.make_dir(&format!("{name}-manifests"));
        let etcd = (members > 0).then(|| self.lay_etcd(number, &name, members));
        let mut cluster = Cluster { name, id: 100 + number, etcd, manifests, nodes: Vec::new() };
        cluster.nodes = (1..=nodes).map(|node| self.lay_node(&cluster, number, node)).collect();
        cluster
    }

    fn lay_etcd(&self, number: u8, cluster: &str, members: usize) -> Etcd {
        let host = Host::create(&format!("{}-{cluster}-etcd", self.prefix));
        let ipv4 = Ipv4Addr::new(10, 0, number, 100);
        self.connect(&host, [ipv4.into(), Ipv6Addr::new(0xfd00, number.into(), 0, 0, 0, 0, 0, 0x100).into()]);
        let etcd = Etcd::lay(host, cluster, ipv4.into(), &self.make_dir(&format!("{cluster}-etcd")), members);
        // Every cluster gets the same directory, its own file included, as Cilium's users do.
        let link = std::os::unix::fs::symlink(etcd.client_config(), self.dir.join("mesh").join(cluster));
        link.unwrap_or_else(|e| panic!("{cluster}: {e}"));
        etcd
    }

    fn lay_node(&self, cluster: &Cluster, number: u8, node: u8) -> Node {
        let name = format!("node{node}");
        let unique = format!("{}-{name}", cluster.name);
        let host = Host::create(&format!("{}-{unique}", self.prefix));
        let ipv4 = Ipv4Addr::new(10, 0, number, node);
        let ipv6 = Ipv6Addr::new(0xfd00, number.into(), 0, 0, 0, 0, 0, node.into());
        self.connect(&host, [ipv4.into(), ipv6.into()]);
        let cidrs = pod_cidrs(number, node);
        for (cidr, via) in cidrs.iter().zip([ipv4.to_string(), ipv6.to_string()]) {
            self.outside.ip(&format!("route add {cidr} via {via}"));
        }
        let dir = self.make_dir(&unique);
        let state_dir = self.make_dir(&format!("{unique}/state"));
        let mut flags = vec![
            format!("--cluster-name={}", cluster.name),
            format!("--cluster-id={}", cluster.id),
            format!("--node-name={name}"),
            "--uplink=eth0".into(),
            format!("--manifests={}", cluster.manifests.display()),
            format!("--state-dir={}", state_dir.display()),
            format!("--offload={}", self.offload.value()),
        ];
        flags.extend(cidrs.map(|cidr| format!("--pod-cidr={cidr}")));
        if let Some(etcd) = &cluster.etcd {
            flags.push(format!("--kvstore-config={}", etcd.client_config().display()));
            flags.push(format!("--clustermesh-config={}", self.dir.join("mesh").display()));
        }
        Node {
            name,
            host,
            ipv4,
            ipv6,
            cli: Cli { socket: state_dir.join("dataplane.sock") },
            state_dir,
            dir,
            flags,
            environment: Vec::new(),
            pod_prefix: format!("{}-{}", self.prefix, cluster.name),
            agent: Mutex::new(None),
            monitors: AtomicUsize::new(0),
        }
    }

    /// Plugs a host into the wire as `eth0`.
    fn connect(&self, host: &Host, [ipv4, ipv6]: [IpAddr; 2]) {
        let port = format!("port{}", self.fabric.links().len());
        self.fabric.ip(&format!("link add {port} type veth peer name eth0 netns {}", host.netns));
        self.fabric.ip(&format!("link set {port} master wire up"));
        host.ip("link set eth0 up");
        host.ip(&format!("addr add {ipv4}/16 dev eth0"));
        host.ip(&format!("addr add {ipv6}/128 dev eth0 nodad"));
        for network in ["fd00:1::/32", "fd00:2::/32", "fd00:99::/32"] {
            host.ip(&format!("route add {network} dev eth0"));
        }
    }

    fn make_dir(&self, name: &str) -> PathBuf {
        let dir = self.dir.join(name);
        fs::create_dir_all(&dir).unwrap_or_else(|e| panic!("{dir:?}: {e}"));
        dir
    }

    fn show_logs(&self) {
        let logs: Vec<PathBuf> = self.nodes().map(|node| node.dir.join("agent.log")).collect();
        for log in logs.iter().filter(|log| log.exists()) {
            let text = fs::read_to_string(log).unwrap_or_default();
            let lines: Vec<&str> = text.lines().collect();
            eprintln!(
                "--- {} (last lines)\n{}",
                log.display(),
                lines[lines.len().saturating_sub(40)..].join("\n")
            );
        }
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let failed = std::thread::panicking();
        if failed {
            eprintln!("--- agents ran with --offload {}", self.offload.value());
            self.show_logs();
            if std::env::var_os("KEEP").is_some() {
                eprintln!("{} stays until Ctrl-C", self.dir.display());
                interruption();
            }
        }
        let complaints = teardown::remove(&self.prefix);
        match complaints.is_empty() {
            true => {}
            false if failed => eprintln!("also: {}", complaints.join("\n")),
            false => panic!("left behind: {}", complaints.join("\n")),
        }
    }
}

/// The pod CIDRs of a node.
pub fn pod_cidrs(cluster: u8, node: u8) -> [String; 2] {
    let network = 50 + 10 * cluster;
    [format!("10.{network}.{node}.0/24"), format!("fd00:{network}:{node}::/112")]
}

/// A name that no other world has.
pub fn unique() -> String {
    static WORLDS: AtomicUsize = AtomicUsize::new(1);
    format!("dpt-{}-{}", std::process::id(), WORLDS.fetch_add(1, Ordering::Relaxed))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::eventually;

    /// The harness itself, with nothing of the dataplane in it.
    #[test]
    fn hosts_on_the_wire_reach_each_other_and_etcd_wants_a_certificate() {
        let world = World::lay(&[1, 1]);
        let (client, server) = (&world.node(1, 1).host, world.node(2, 1));
        let _server = server.serve(7000, "far");
        for to in server.addresses() {
            eventually("ping", || client.ping(to, ""));
            assert_eq!(client.ask((to, 7000)).unwrap(), "far");
            assert_eq!(client.ask_udp((to, 7000), &"x".repeat(4000)).unwrap(), "far");
        }
        let etcd = world.cluster(1).etcd();
        etcd.start();
        etcd.ctl(&["put", "key", "value"]).unwrap();
        let flags =
            "--endpoints=https://10.0.1.100:2379 --insecure-skip-tls-verify --insecure-transport=false";
        client.run(&format!("etcdctl {flags} get key")).expect_err("without a certificate");
        etcd.kill();
        etcd.start();
        assert_eq!(etcd.keys("k"), ["key"]);
    }
}
