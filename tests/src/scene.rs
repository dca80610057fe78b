//! The scene that the README tells: a database that two clusters share, guarded by a policy, and
//! what happens when it moves and when an etcd dies. Every step is shown and checked.

use crate::host::Host;
use crate::node::Node;
use crate::pod::Pod;
use crate::process::Process;
use crate::wait::eventually;
use crate::world::World;
use regex::Regex;
use std::fmt::Display;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

const NODES: &[u8] = &[2, 2];
const VIP1: &str = "10.96.14.7";
const VIP2: &str = "10.97.14.7";
const PORT: u16 = 6379;

const POLICY: &str = "apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata:
  name: protected-db
  namespace: default
spec:
  endpointSelector:
    matchLabels: {app: protected-db}
  ingress:
  - fromEndpoints:
    - matchLabels: {app: employee, io.kubernetes.pod.namespace: default, io.cilium.k8s.policy.cluster: cluster1}
    - matchLabels: {app: employee, io.kubernetes.pod.namespace: istio-space, io.cilium.k8s.policy.cluster: cluster2}
    toPorts:
    - ports: [{port: '6379', protocol: TCP}]
";

fn service(address: &str) -> String {
    format!(
        "apiVersion: v1
kind: Service
metadata:
  name: protected-db
  namespace: default
  annotations: {{io.cilium/global-service: 'true'}}
spec:
  selector: {{app: protected-db}}
  clusterIP: {address}
  ports: [{{name: redis, port: {PORT}, protocol: TCP}}]
"
    )
}

/// One line of the table at the end.
pub struct Check {
    step: String,
    expected: String,
    got: String,
}

impl Check {
    /// It is as expected.
    pub fn holds(&self) -> bool {
        self.expected == self.got
    }
}

/// The scene while it plays, and when it has been played.
pub struct Scene {
    /// Where it plays.
    pub world: World,
    /// What was checked.
    pub checks: Vec<Check>,
    /// The pods on stage.
    pub pods: Vec<Pod>,
    servers: Vec<Process>,
}

impl Scene {
    /// Plays it from the first step to the last.
    pub fn play(prefix: &str) -> Scene {
        heading("Two clusters, two nodes each, one wire, one etcd per cluster with mutual TLS");
        let world = World::named(prefix, NODES);
        let mut scene = Scene { world, checks: Vec::new(), pods: Vec::new(), servers: Vec::new() };
        scene.raise_the_curtain();
        scene.look_around();
        scene.guard_the_database();
        scene.move_the_database();
        scene.lose_an_etcd();
        scene
    }

    /// The table of all checks.
    pub fn table(&self) -> String {
        let width =
            |cell: fn(&Check) -> &str| self.checks.iter().map(|c| cell(c).len()).max().unwrap_or(0).max(8);
        let (first, second) = (width(|c| &c.step), width(|c| &c.expected));
        let mut table = format!("    {:first$}   {:second$}   Got\n", "Step", "Expected");
        for check in &self.checks {
            let mark = if check.holds() { "ok" } else { "!!" };
            table += &format!("{mark}  {:first$}   {:second$}   {}\n", check.step, check.expected, check.got);
        }
        table
    }

    /// Everything was as expected.
    pub fn succeeded(&self) -> bool {
        !self.checks.is_empty() && self.checks.iter().all(Check::holds)
    }

    /// Leaves everything running.
    pub fn keep(self) {
        self.world.keep();
        std::mem::forget(self.servers);
    }

    /// Agents and pods.
    fn raise_the_curtain(&mut self) {
        self.world.start();
        for node in self.world.nodes() {
            println!("    {} is ready", node.host.netns);
        }
        let ready = self.world.nodes().filter(|node| node.cli.run("status --brief").is_ok()).count();
        self.check("agents ready", 4, ready);
        heading("Pods and the global service default/protected-db");
        for (cluster, address) in [(1, VIP1), (2, VIP2)] {
            self.world.cluster(cluster).apply("service.yaml", &service(address));
        }
        for (cluster, node, name, app) in [
            (1, 1, "default/protected-db-0", "protected-db"),
            (1, 2, "default/employee-0", "employee"),
            (1, 2, "default/stranger-0", "stranger"),
            (2, 1, "istio-space/employee-0", "employee"),
        ] {
            self.pod(cluster, node, name, app);
        }
        self.serve(0);
        let database = format!("{}:{PORT}/TCP", self.pods[0].ipv4);
        self.await_backends(&database);
    }

    /// The lists from both sides, and three clients.
    fn look_around(&mut self) {
        heading("What both sides know");
        for (cluster, node) in [(1, 1), (2, 1)] {
            for command in ["node list", "identity list", "service list", "status", "clustermesh status"] {
                show(self.world.node(cluster, node), command);
            }
        }
        heading("redis-cli ping through the ClusterIP");
        for client in 1..4 {
            self.redis("no policy", client, "PONG");
        }
    }

    /// The policy, and what the monitor says of the stranger.
    fn guard_the_database(&mut self) {
        heading("The policy: only employees of both clusters reach protected-db");
        println!("{POLICY}");
        let node = self.world.node(1, 1);
        let monitor = node.monitor("--type drop");
        self.world.cluster(1).apply("policy.yaml", POLICY);
        let database = &self.pods[0];
        eventually("the policy is in force", || {
            let status = database.status();
            if status["status"]["ingress-enforced"] == true { Ok(()) } else { Err(status) }
        });
        show(node, "policy list");
        let (stranger, address) = (self.pods[2].identity(), self.pods[2].ipv4);
        let line = Regex::new(&format!(
            r"(?m)^xx drop \(Policy denied\) flow 0x[0-9a-f]+ to endpoint {}, identity {stranger}->{}: {address}:\d+ -> {}:{PORT} tcp SYN .*$",
            database.id,
            database.identity(),
            database.ipv4
        ))
        .expect("a regular expression");
        for (client, expected) in [(1, "PONG"), (2, "timeout"), (3, "PONG")] {
            self.redis("policy", client, expected);
        }
        println!("\n{}$ dataplane monitor --type drop", self.world.node(1, 1).host.netns);
        let log = eventually("the drop is shown", || {
            let log = monitor.log();
            if line.is_match(&log) { Ok(log) } else { Err(log) }
        });
        log.lines().for_each(|line| println!("{line}"));
        self.check("the monitor shows the stranger's SYN", true, line.is_match(&log));
    }

    /// A second backend in the other cluster takes over from the first.
    fn move_the_database(&mut self) {
        heading("A second backend in cluster2, then the first one is stopped");
        self.pod(2, 2, "default/protected-db-1", "protected-db");
        self.serve(4);
        let [first, second] = [0, 4].map(|pod| format!("{}:{PORT}/TCP", self.pods[pod].ipv4));
        self.await_backends(&second);
        show(self.world.node(1, 2), "service list");
        self.redis("two backends", 1, "PONG");
        self.redis("two backends", 3, "PONG");
        self.pods[0].delete();
        self.servers.remove(0);
        println!("    {} is gone", self.pods[0].name);
        for node in [self.world.node(1, 2), self.world.node(2, 1)] {
            eventually("the first backend is forgotten", || {
                let list = node.cli.show("service list");
                if list.contains(&first) { Err(list) } else { Ok(()) }
            });
        }
        self.redis("second backend only", 1, "PONG");
        self.redis("second backend only", 3, "PONG");
    }

    /// The other cluster's etcd dies; nobody but the operator notices.
    fn lose_an_etcd(&mut self) {
        heading("The etcd of cluster2 is killed");
        let mut established = match Connection::open(&self.pods[1], VIP1) {
            Ok(connection) => connection,
            Err(error) => return self.check("a connection that will last", "PONG", error),
        };
        let before = established.ping();
        self.check("a connection before", "PONG", before);
        self.world.cluster(2).etcd().kill();
        let node = self.world.node(1, 1);
        let status = eventually("the agent notices", || {
            let status = node.cli.say("clustermesh status");
            if status.contains("0/1 remote clusters ready") { Ok(status) } else { Err(status) }
        });
        show(node, "clustermesh status");
        self.check(
            "clustermesh status",
            "not-ready",
            if status.contains("not-ready") { "not-ready" } else { &status },
        );
        let after = established.ping();
        self.check("the same connection afterwards", "PONG", after);
        self.redis("no etcd in cluster2", 1, "PONG");
        self.redis("no etcd in cluster2", 3, "PONG");
    }

    fn pod(&mut self, cluster: usize, node: usize, name: &str, app: &str) {
        let pod = self.world.node(cluster, node).pod(name, &format!("app={app}"));
        println!("    cluster{cluster}/node{node}: {name} is endpoint {}, {}", pod.id, pod.ipv4);
        self.pods.push(pod);
    }

    /// Runs redis in a pod.
    fn serve(&mut self, pod: usize) {
        let pod = &self.pods[pod];
        let flags = ["--port", "6379", "--bind", "*", "--protected-mode", "no", "--save", "", "--dir", "/"];
        let log = self.world.dir().join(format!("{}.log", pod.netns));
        self.servers.push(Process::start(pod.command("redis-server").args(flags), &log));
        eventually("redis answers in its own pod", || ping_redis(pod, "127.0.0.1").ok_or("no answer"));
    }

    /// Waits until both clusters' clients know a backend.
    fn await_backends(&self, backend: &str) {
        for node in [self.world.node(1, 2), self.world.node(2, 1)] {
            eventually(&format!("{} knows the backend {backend}", node.host.netns), || {
                let list = node.cli.show("service list");
                if list.contains(backend) { Ok(()) } else { Err(list) }
            });
        }
        println!("    both clusters know the backend {backend}");
    }

    fn redis(&mut self, step: &str, client: usize, expected: &str) {
        let (address, cluster) = if client == 3 { (VIP2, "cluster2") } else { (VIP1, "cluster1") };
        let name = format!("{cluster}/{}", self.pods[client].name);
        let answer = ping_redis(&self.pods[client], address).unwrap_or("timeout".into());
        println!("    {name}$ redis-cli -h {address} ping\n    {answer}");
        self.check(&format!("{name}, {step}"), expected, answer);
    }

    fn check(&mut self, step: &str, expected: impl Display, got: impl Display) {
        self.checks.push(Check { step: step.into(), expected: expected.to_string(), got: got.to_string() });
    }
}

/// `redis-cli ping`; nothing if it does not answer in three seconds.
fn ping_redis(pod: &Host, address: &str) -> Option<String> {
    let answer = pod.run(&format!("timeout 3 redis-cli -h {address} -p {PORT} ping")).ok()?;
    Some(answer.trim().to_owned())
}

/// A connection to redis that stays open.
struct Connection {
    stream: BufReader<TcpStream>,
}

impl Connection {
    fn open(pod: &Pod, address: &str) -> Result<Connection, String> {
        let to: SocketAddr = format!("{address}:{PORT}").parse().map_err(|e| format!("{address}: {e}"))?;
        let stream = pod
            .enter(|| TcpStream::connect_timeout(&to, Duration::from_secs(5)))
            .map_err(|e| e.to_string())?;
        stream.set_read_timeout(Some(Duration::from_secs(5))).map_err(|e| e.to_string())?;
        Ok(Connection { stream: BufReader::new(stream) })
    }

    fn ping(&mut self) -> String {
        let mut answer = String::new();
        let done =
            self.stream.get_mut().write_all(b"PING\r\n").and_then(|()| self.stream.read_line(&mut answer));
        done.map_or_else(|e| e.to_string(), |_| answer.trim().trim_start_matches('+').to_owned())
    }
}

fn heading(text: &str) {
    println!("\n==> {text}");
}

/// Prints a command of the command line and what it says.
fn show(node: &Node, command: &str) {
    let output = node.cli.say(command);
    println!("\n{}$ dataplane {command}\n{output}", node.host.netns);
}
