//! What happens when parts of the mesh fail: what must go on goes on, and how long it takes until a
//! failure is noticed and made good again. `docs/clustermesh.md` has the table of these times; each
//! test prints its row.

use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::process::Command;
use std::time::{Duration, Instant};
use tests::etcd::Etcd;
use tests::manifests::{service, service_addresses};
use tests::reach::{ALL, PORTS};
use tests::sockets::{Conversation, Server};
use tests::{Node, Pod, World, eventually};

const GLOBAL: &str = "service.cilium.io/global: 'true'";

/// Which etcd fails, seen from the first cluster.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Whose {
    Own,
    Remote,
}

/// Two clusters of one node; a client in the first, a server in the second, which is also the only
/// backend of a global service, and a connection to either.
struct Mesh {
    conversations: Vec<Conversation>,
    _server: Server,
    client: Pod,
    server: Pod,
    world: World,
}

impl Mesh {
    fn of(members: usize) -> Mesh {
        let world = World::replicated(&[1, 1], members);
        world.cluster(1).apply("web.yaml", &service("web", 10, GLOBAL));
        world.cluster(2).apply("web.yaml", &service("web", 11, GLOBAL));
        let client = world.node(1, 1).pod("default/client", "");
        let pod = world.node(2, 1).pod("default/server", "app=web");
        let server = pod.serve(8080, "server");
        client.reaches(service_addresses(10), 80, "server", PORTS);
        let mut mesh = Mesh { conversations: Vec::new(), _server: server, client, server: pod, world };
        mesh.conversations = mesh.targets().map(|target| mesh.client.connect(target).unwrap()).collect();
        mesh
    }

    fn near(&self) -> &Node {
        self.world.node(1, 1)
    }

    fn etcd(&self, whose: Whose) -> &Etcd {
        self.world.cluster(if whose == Whose::Own { 1 } else { 2 }).etcd()
    }

    fn targets(&self) -> impl Iterator<Item = SocketAddr> + use<> {
        let service = service_addresses(10).map(|address| (address, 80));
        let pod = self.server.addresses().map(|address| (address, 8080));
        service.into_iter().chain(pod).map(SocketAddr::from)
    }

    /// Connections go on and new ones are made.
    fn all_is_well(&mut self, when: &str) {
        for conversation in &mut self.conversations {
            assert_eq!(conversation.ask(when).unwrap(), "server", "{when}");
        }
        for target in self.targets().collect::<Vec<_>>() {
            assert_eq!(self.client.ask(target).unwrap(), "server", "{when}: {target}");
        }
        self.client.reaches(self.server.addresses(), 8080, "server", ALL);
    }

    /// Waits until the first cluster's agent sees the etcd like this; how long that took.
    fn sees(&self, whose: Whose, well: bool, since: Instant) -> Duration {
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

    /// Waits until the first cluster's agent knows an address, or does not.
    fn knows(&self, address: IpAddr, known: bool) {
        eventually(&format!("{address} is known: {known}"), || {
            let list = self.near().cli.json("ipcache list");
            let prefix = |entry: &serde_json::Value| entry["prefix"].as_str().map(str::to_owned);
            let listed = list.as_array().into_iter().flatten().filter_map(prefix);
            let here =
                listed.filter(|prefix| prefix.split('/').next() == Some(&address.to_string())).count() > 0;
            if here == known { Ok(()) } else { Err(format!("{list:#}")) }
        });
    }
}

/// A row of the table in `docs/clustermesh.md`.
fn row(failure: &str, noticed: Duration, recovered: Duration) {
    println!("| {failure} | {:.1} s | {:.1} s |", noticed.as_secs_f64(), recovered.as_secs_f64());
}

/// An etcd fails and comes back; nothing that need not breaks meanwhile.
fn fails(whose: Whose, members: usize, what: &str, fail: impl Fn(&Etcd), repair: impl Fn(&Etcd)) {
    let mut mesh = Mesh::of(members);
    let begun = Instant::now();
    fail(mesh.etcd(whose));
    let noticed = mesh.sees(whose, false, begun);
    mesh.all_is_well("while it is away");
    let begun = Instant::now();
    repair(mesh.etcd(whose));
    let recovered = mesh.sees(whose, true, begun);
    mesh.all_is_well("when it is back");
    row(&format!("{whose:?} etcd {what}"), noticed, recovered);
    // And it is really read and written again.
    let late = mesh.world.node(2, 1).pod("default/late", "");
    let _late = late.serve(8080, "late");
    mesh.client.reaches(late.addresses(), 8080, "late", ALL);
}

#[test]
fn an_etcd_is_killed() {
    for whose in [Whose::Remote, Whose::Own] {
        fails(whose, 1, "killed", Etcd::kill, Etcd::start);
    }
}

#[test]
fn an_etcd_is_frozen() {
    for whose in [Whose::Remote, Whose::Own] {
        fails(whose, 1, "frozen", Etcd::freeze, Etcd::thaw);
    }
}

#[test]
fn an_etcd_loses_its_quorum() {
    for whose in [Whose::Remote, Whose::Own] {
        fails(whose, 3, "without quorum", |etcd| etcd.kill_members(2), Etcd::start);
    }
}

#[test]
fn an_etcd_of_three_loses_one() {
    for whose in [Whose::Remote, Whose::Own] {
        let mut mesh = Mesh::of(3);
        let begun = Instant::now();
        mesh.etcd(whose).kill_members(1);
        mesh.all_is_well("with two of three");
        mesh.sees(whose, true, begun);
        let late = mesh.world.node(2, 1).pod("default/late", "");
        let _late = late.serve(8080, "late");
        mesh.client.reaches(late.addresses(), 8080, "late", ALL);
    }
}

#[test]
fn an_etcd_comes_back_empty() {
    for whose in [Whose::Remote, Whose::Own] {
        let mut mesh = Mesh::of(1);
        let begun = Instant::now();
        mesh.etcd(whose).wipe();
        mesh.etcd(whose).start();
        // All the while it is being filled again.
        let identity = mesh.server.identity();
        let key = format!(
            "cilium/state/identities/v1/id/{}",
            if whose == Whose::Remote { identity } else { mesh.client.identity() }
        );
        eventually("it is filled again", || {
            mesh.all_is_well("while it is filled");
            let found = mesh.etcd(whose).keys(&key);
            if found.is_empty() { Err(key.clone()) } else { Ok(()) }
        });
        let recovered = mesh.sees(whose, true, begun);
        mesh.all_is_well("when it is filled");
        assert_eq!(mesh.server.identity(), identity);
        println!("| {whose:?} etcd emptied and restarted | – | {:.1} s |", recovered.as_secs_f64());
    }
}

#[test]
fn an_etcd_is_compacted_behind_our_back() {
    for whose in [Whose::Remote, Whose::Own] {
        let mut mesh = Mesh::of(1);
        let etcd = mesh.etcd(whose);
        let agent = mesh.near().agent_id().to_string();
        let signal = |name: &str| {
            let done = Command::new("kill").args([name, &agent]).status();
            assert!(done.is_ok_and(|status| status.success()), "{name} to the agent");
        };
        // The store goes away while the agent cannot see it, and what it missed is not kept.
        signal("-STOP");
        let address: IpAddr = "10.70.1.200".parse().unwrap();
        let record =
            format!(r#"{{"IP":"{address}","Mask":null,"HostIP":"10.0.2.1","ID":2,"Key":0,"Metadata":""}}"#);
        etcd.ctl(&["put", &format!("cilium/state/ip/v1/default/{address}"), &record]).unwrap();
        (0..20).for_each(|n| _ = etcd.ctl(&["put", "unrelated", &n.to_string()]).unwrap());
        let answer = etcd.ctl(&["get", "unrelated", "-w", "json"]).unwrap();
        let answer: serde_json::Value = serde_json::from_str(&answer).unwrap();
        etcd.kill();
        etcd.start();
        etcd.ctl(&["compact", &answer["header"]["revision"].to_string()]).unwrap();
        signal("-CONT");
        mesh.knows(address, true);
        mesh.sees(whose, true, Instant::now());
        mesh.all_is_well("after the compaction");
    }
}

#[test]
fn a_remote_etcd_comes_back_with_fewer_keys() {
    let mut mesh = Mesh::of(1);
    let gone = mesh.world.node(2, 1).pod("default/gone", "");
    for address in gone.addresses() {
        mesh.knows(address, true);
    }
    mesh.etcd(Whose::Remote).kill();
    mesh.sees(Whose::Remote, false, Instant::now());
    gone.delete();
    for address in gone.addresses() {
        mesh.knows(address, true);
    }
    mesh.etcd(Whose::Remote).start();
    for address in gone.addresses() {
        mesh.knows(address, false);
    }
    mesh.all_is_well("without the one that went");
}

#[test]
fn a_remote_comes_back_as_another_cluster_of_the_same_name() {
    let mesh = Mesh::of(1);
    let identity = mesh.server.identity();
    mesh.world.node(2, 1).stop();
    let etcd = mesh.etcd(Whose::Remote);
    etcd.wipe();
    etcd.start();
    let put = |key: &str, value: &str| _ = etcd.ctl(&["put", key, value]).unwrap();
    put("cilium/cluster-config/cluster2", r#"{"id":77,"capabilities":{}}"#);
    put("cilium/.heartbeat", "2026-01-01T00:00:00Z");
    let labels = "k8s:app=new;k8s:io.cilium.k8s.policy.cluster=cluster2;";
    put(&format!("cilium/state/identities/v1/id/{}", 77 << 16), labels);
    let identities = || mesh.near().cli.show("identity list");
    eventually("the new cluster replaces the old one", || {
        let list = identities();
        let (old, new) = (identity.to_string(), (77 << 16).to_string());
        if list.contains(&new) && !list.contains(&old) { Ok(()) } else { Err(list) }
    });
    for address in mesh.server.addresses() {
        mesh.knows(address, false);
    }
    mesh.client.is_kept_from(mesh.server.addresses(), 8080, ALL);
}

#[test]
fn another_agent_publishes_when_the_first_is_gone() {
    let world = World::of(&[2, 1]);
    let leader = |nodes: &[usize]| {
        eventually("one of them publishes", || {
            let leads = |&&node: &&usize| {
                world.node(1, node).cli.json("status")["control"]["kvstore"]["leader"] == true
            };
            let leaders: Vec<usize> = nodes.iter().filter(leads).copied().collect();
            if let [one] = leaders[..] { Ok(one) } else { Err(format!("{leaders:?}")) }
        })
    };
    let first = leader(&[1, 2]);
    let begun = Instant::now();
    world.node(1, first).kill();
    assert_eq!(leader(&[3 - first]), 3 - first);
    println!("| publisher killed | – | {:.1} s |", begun.elapsed().as_secs_f64());
    // It does what the first one did.
    world.cluster(1).apply("web.yaml", &service("web", 10, GLOBAL));
    let etcd = world.cluster(1).etcd();
    eventually("the service is exported", || {
        let keys = etcd.keys("cilium/state/services/v1/cluster1/");
        if keys.is_empty() { Err("not yet") } else { Ok(()) }
    });
    world.node(1, first).launch(&[]);
    world.node(1, first).ready();
}

/// Everything again and again for `SOAK` minutes (10), in an order that differs each time.
#[test]
#[ignore = "takes minutes: make test-soak"]
fn soak() {
    let minutes = std::env::var("SOAK").map_or(10, |text| text.parse().expect("SOAK: a number of minutes"));
    let begun = Instant::now();
    let mut mesh = Mesh::of(3);
    let mut turn = std::process::id() as usize;
    while begun.elapsed() < Duration::from_secs(60 * minutes) {
        turn = turn.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        let whose = if turn >> 40 & 1 == 0 { Whose::Own } else { Whose::Remote };
        let etcd = mesh.etcd(whose);
        let what = (turn >> 33) % 5;
        println!("{:4} s: {whose:?} {what}", begun.elapsed().as_secs());
        match what {
            0 => etcd.kill(),
            1 => etcd.kill_members(2),
            2 => etcd.freeze(),
            3 => etcd.wipe(),
            _ => mesh.near().kill(),
        }
        match what {
            2 => etcd.thaw(),
            4 => mesh.near().launch(&[]),
            _ => {
                mesh.all_is_well("while something is away");
                mesh.etcd(whose).start();
            }
        }
        mesh.near().ready();
        mesh.sees(whose, true, Instant::now());
        mesh.all_is_well("after all");
    }
    let memory = fs::read_to_string(format!("/proc/{}/status", mesh.near().agent_id())).unwrap_or_default();
    println!("{}", memory.lines().find(|line| line.starts_with("VmRSS")).unwrap_or_default());
}
