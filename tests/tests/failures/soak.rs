//! One failure after the other, in an order that differs each time.

use crate::mesh::{Mesh, Whose, is_right, lives_on};
use std::fs;
use std::io::{Write, stdout};
use std::time::{Duration, Instant};
use tests::Node;
use tests::etcd::Etcd;
use tests::wait::pause;

/// What may fail, of either cluster.
#[derive(Clone, Copy, Debug)]
enum Failure {
    EtcdKilled,
    EtcdWithoutQuorum,
    EtcdFrozen,
    EtcdEmptied,
    AgentKilled,
    AgentRestartedWithoutEtcd,
}

use Failure::{
    AgentKilled, AgentRestartedWithoutEtcd, EtcdEmptied, EtcdFrozen, EtcdKilled, EtcdWithoutQuorum,
};

const ALL: [Failure; 6] =
    [EtcdKilled, EtcdWithoutQuorum, EtcdFrozen, EtcdEmptied, AgentKilled, AgentRestartedWithoutEtcd];

/// For how long: not even noticed, noticed, and until backends are a last resort.
const STAYS: [Duration; 4] =
    [Duration::ZERO, Duration::ZERO, Duration::from_secs(12), Duration::from_secs(35)];

/// Numbers that are the same for the same seed.
struct Dice(u64);

impl Dice {
    fn throw(&mut self, sides: usize) -> usize {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (self.0 >> 33) as usize % sides
    }
}

/// A number in the environment.
fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| {
        text.parse().unwrap_or_else(|_| panic!("{name}={text}: a number would be right"))
    })
}

/// Fails things for `SOAK` minutes (10), in the order that `SEED` gives.
#[test]
#[ignore = "takes minutes: make test-soak"]
fn soak() {
    let time = Duration::from_secs(60 * number("SOAK", 10));
    let seed = number("SEED", std::process::id().into());
    println!("SEED={seed} fails the same in the same order");
    let mut dice = Dice(seed);
    let mut mesh = Mesh::of(3);
    let memory = |mesh: &Mesh| [mesh.near(), mesh.far()].map(resident);
    let (begun, before) = (Instant::now(), memory(&mesh));
    let mut done = [[0; 2]; ALL.len()];
    while begun.elapsed() < time {
        let (what, whose, stay) = (dice.throw(ALL.len()), dice.throw(2), STAYS[dice.throw(STAYS.len())]);
        done[what][whose] += 1;
        let (what, cluster) = (ALL[what], whose + 1);
        // A dead agent serves no new connections.
        let stay = if let AgentKilled = what { Duration::ZERO } else { stay };
        print!("{:5} s  cluster{cluster}: {what:?} for {} s: ", begun.elapsed().as_secs(), stay.as_secs());
        stdout().flush().expect("somebody reads this");
        let mended = turn(&mut mesh, what, [Whose::Own, Whose::Remote][whose], stay);
        println!("all is well {:.1} s later", mended.elapsed().as_secs_f64());
    }
    println!("\nwhat failed, in cluster1 and cluster2:");
    for (what, [one, two]) in ALL.iter().zip(done) {
        println!("  {:26} {one:4} {two:4}", format!("{what:?}"));
    }
    println!(
        "while an etcd was away and after each failure: connections to a pod and a service of the other cluster went on,\n\
         new ones were made over IPv4 and IPv6 by TCP, UDP and ICMP; after each: agents were ready, identities were the\n\
         same, and both etcds were as the format wants them"
    );
    println!("resident memory of the agents: {before:?} MiB at first, {:?} MiB in the end", memory(&mesh));
}

/// One thing fails and stays so while everything goes on; returns when it was mended.
fn turn(mesh: &mut Mesh, what: Failure, whose: Whose, stay: Duration) -> Instant {
    let identities = |mesh: &Mesh| [mesh.client.identity(), mesh.server.identity()];
    let before = identities(mesh);
    let fail: fn(&Etcd) = match what {
        EtcdKilled | AgentRestartedWithoutEtcd => Etcd::kill,
        EtcdWithoutQuorum => |etcd| etcd.kill_members(2),
        EtcdFrozen => Etcd::freeze,
        EtcdEmptied => Etcd::wipe,
        AgentKilled => |_| {},
    };
    fail(mesh.etcd(whose));
    if let AgentKilled | AgentRestartedWithoutEtcd = what {
        let node = if whose == Whose::Own { mesh.near() } else { mesh.far() };
        node.kill();
        node.launch(&[]);
        match what {
            AgentKilled => node.ready(),
            _ => lives_on(node),
        }
    }
    let begun = Instant::now();
    while {
        mesh.all_is_well("while it is so");
        begun.elapsed() < stay
    } {
        pause();
    }
    let mended = Instant::now();
    match what {
        EtcdFrozen => mesh.etcd(whose).thaw(),
        _ => mesh.etcd(whose).start(),
    }
    mesh.world.nodes().for_each(Node::ready);
    mesh.sees(whose, true, mended);
    mesh.all_is_well("afterwards");
    assert_eq!(identities(mesh), before);
    mesh.world.clusters.iter().for_each(is_right);
    mended
}

/// MiB.
fn resident(node: &Node) -> u64 {
    let path = format!("/proc/{}/status", node.agent_id());
    let status = fs::read_to_string(&path).unwrap_or_else(|e| panic!("{path}: {e}"));
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB"));
    line.and_then(|kib| kib.parse::<u64>().ok()).unwrap_or_else(|| panic!("{path}: {status}")) / 1024
}
