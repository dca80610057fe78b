//! Two clusters in which something is about to fail.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};
use tests::checker::Dump;
use tests::etcd::Etcd;
use tests::manifests::{service, service_addresses};
use tests::reach::{ALL, PORTS};
use tests::sockets::{Conversation, Server};
use tests::{Cluster, Node, Pod, World, eventually};

pub(crate) const GLOBAL: &str = "service.cilium.io/global: 'true'";

/// Which etcd fails, seen from the first cluster.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) enum Whose {
    Own,
    Remote,
}

/// Two clusters of one node; a client in the first, a server in the second, which is also the only
/// backend of a global service, and a connection to either.
pub(crate) struct Mesh {
    conversations: Vec<Conversation>,
    _server: Server,
    pub(crate) client: Pod,
    pub(crate) server: Pod,
    pub(crate) world: World,
}

impl Mesh {
    /// The etcd of each cluster has so many members.
    pub(crate) fn of(members: usize) -> Mesh {
        Mesh::within(World::replicated(&[1, 1], members))
    }

    /// In a running world of two clusters.
    pub(crate) fn within(world: World) -> Mesh {
        world.cluster(1).apply("web.yaml", &service("web", 10, GLOBAL));
        world.cluster(2).apply("web.yaml", &service("web", 11, GLOBAL));
        let client = world.node(1, 1).pod("default/client", "");
        let pod = world.node(2, 1).pod("default/server", "app=web");
        let server = pod.serve(8080, "server");
        client.reaches(service_addresses(10), 80, "server", PORTS);
        let mut mesh = Mesh { conversations: Vec::new(), _server: server, client, server: pod, world };
        mesh.conversations = mesh.targets().map(|target| mesh.client.connect(target).unwrap()).collect();
        // A new connection from one of their ports could meet its twin behind the service.
        let ports: Vec<_> = mesh.conversations.iter().map(|open| open.port().to_string()).collect();
        mesh.client.sysctl("net/ipv4/ip_local_reserved_ports", &ports.join(","));
        mesh
    }

    /// The node of the client.
    pub(crate) fn near(&self) -> &Node {
        self.world.node(1, 1)
    }

    /// The node of the server.
    pub(crate) fn far(&self) -> &Node {
        self.world.node(2, 1)
    }

    pub(crate) fn etcd(&self, whose: Whose) -> &Etcd {
        self.world.cluster(if whose == Whose::Own { 1 } else { 2 }).etcd()
    }

    fn targets(&self) -> impl Iterator<Item = SocketAddr> + use<> {
        let service = service_addresses(10).map(|address| (address, 80));
        let pod = self.server.addresses().map(|address| (address, 8080));
        service.into_iter().chain(pod).map(SocketAddr::from)
    }

    /// Connections go on and new ones are made.
    pub(crate) fn all_is_well(&mut self, when: &str) {
        for conversation in &mut self.conversations {
            assert_eq!(conversation.ask(when).unwrap(), "server", "{when}");
        }
        for target in self.targets().collect::<Vec<_>>() {
            assert_eq!(self.client.ask(target).unwrap(), "server", "{when}: {target}");
        }
        self.client.reaches(self.server.addresses(), 8080, "server", ALL);
    }

    /// Waits until the first cluster's agent sees the etcd like this; how long that took.
    pub(crate) fn sees(&self, whose: Whose, well: bool, since: Instant) -> Duration {
        eventually(&format!("{whose:?} store is well: {well}"), || {
            let status = self.near().cli.json("status");
            let seen = match whose {
                Whose::Own => &status["control"]["kvstore"]["connected"],
                Whose::Remote => &status["control"]["remotes"][0]["ready"],
            };
            if *seen == well { Ok(()) } else { Err(format!("{:#}", status["control"])) }
        });
        since.elapsed()
    }

    /// Waits until the agent says this of the etcd of its own cluster.
    pub(crate) fn says(&self, node: &Node, words: &str) {
        eventually(words, || {
            let status = node.cli.json("status");
            let said = &status["control"]["kvstore"]["status"];
            if said.as_str().is_some_and(|said| said.contains(words)) { Ok(()) } else { Err(said.clone()) }
        });
    }
}

/// Waits until an agent without its etcd has taken up what its last run knew.
pub(crate) fn lives_on(node: &Node) {
    eventually("it goes on with what it knew", || {
        let status = node.cli.say("status --verbose");
        if status.contains("what is known is of an earlier run") { Ok(()) } else { Err(status) }
    });
}

/// Waits until everything in the etcd of a cluster is as the format wants it.
pub(crate) fn is_right(cluster: &Cluster) {
    eventually(&format!("the etcd of {} is right", cluster.name), || {
        match Dump::of(cluster.etcd()).faults(&cluster.name) {
            faults if faults.is_empty() => Ok(()),
            faults => Err(faults.join("\n")),
        }
    });
}

/// The identity that an agent knows for an address, if it does.
pub(crate) fn identity_of(node: &Node, address: IpAddr) -> Option<u64> {
    let list = node.cli.json("ipcache list");
    let is_it = |entry: &&serde_json::Value| {
        entry["prefix"].as_str().and_then(|prefix| prefix.split('/').next()) == Some(&address.to_string())
    };
    list.as_array().into_iter().flatten().find(is_it).and_then(|entry| entry["identity"].as_u64())
}

/// Waits until an agent knows all addresses of a pod, or none.
pub(crate) fn knows(node: &Node, addresses: impl AsRef<[IpAddr]>, known: bool) {
    for &address in addresses.as_ref() {
        eventually(&format!("{}: {address} is known: {known}", node.host.netns), || {
            match identity_of(node, address) {
                identity if identity.is_some() == known => Ok(()),
                identity => Err(format!("{identity:?}")),
            }
        });
    }
}

/// Waits until an etcd has the keys, or lacks them.
pub(crate) fn has(etcd: &Etcd, keys: &[String], there: bool) {
    eventually(&format!("{keys:?} are there: {there}"), || {
        let found = etcd.keys("cilium/");
        let wrong: Vec<_> = keys.iter().filter(|key| found.contains(key) != there).collect();
        if wrong.is_empty() { Ok(()) } else { Err(format!("{wrong:?}")) }
    });
}

/// The keys of a pod's addresses and of its identity.
pub(crate) fn keys_of(pod: &Pod) -> Vec<String> {
    let mut keys: Vec<_> =
        pod.addresses().iter().map(|address| format!("cilium/state/ip/v1/default/{address}")).collect();
    keys.push(identity_key(pod.identity()));
    keys
}

/// The key of an identity.
pub(crate) fn identity_key(identity: u64) -> String {
    format!("cilium/state/identities/v1/id/{identity}")
}

/// A row of the table in `docs/clustermesh.md`.
pub(crate) fn row(failure: &str, noticed: Option<Duration>, recovered: Duration) {
    let noticed = noticed.map_or("–".to_owned(), |noticed| format!("{:.1} s", noticed.as_secs_f64()));
    println!("| {failure} | {noticed} | {:.1} s |", recovered.as_secs_f64());
}
