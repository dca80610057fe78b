//! The scene that the README tells: a database that two clusters share, guarded by a policy, and
//! what happens when it moves and when an etcd dies. Every step is shown and checked.

use crate::command::ip;
use crate::host::Host;
use crate::node::Node;
use crate::pod::Pod;
use crate::process::Process;
use crate::wait::eventually;
use crate::world::World;
use regex::Regex;
use std::any::Any;
use std::fmt::Display;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::mpsc::{Sender, TryRecvError, channel};
use std::thread::{self, JoinHandle};
use std::time::Duration;

const NODES: &[u8] = &[2, 2];
const VIP1: &str = "10.96.14.7";
const VIP2: &str = "10.97.14.7";
const PORT: u16 = 6379;
/// Those of the pods that the policy lets through.
const EMPLOYEES: [usize; 2] = [1, 3];
/// Pings of a client while the database moves, more if that takes longer.
const LEAST_PINGS: u32 = 20;

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

/// Title, and how it is played.
type Act = (&'static str, fn(&mut Scene));

/// The acts, in the order in which they are played.
const ACTS: [Act; 7] = [
    ("Two clusters, two nodes each, one wire, one etcd per cluster with mutual TLS", Scene::start),
    ("Pods and the global service default/protected-db", Scene::connect),
    ("What both sides know", Scene::look_around),
    ("redis-cli ping through the ClusterIP", Scene::knock),
    ("The policy: only employees of both clusters reach protected-db", Scene::guard_the_database),
    ("A second backend in cluster2, then the first one is stopped", Scene::move_the_database),
    ("The etcd of cluster2 is killed", Scene::lose_an_etcd),
];

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
    /// What was checked.
    pub checks: Vec<Check>,
    /// The pods on stage, also those that have left it.
    pub pods: Vec<Pod>,
    prefix: String,
    world: Option<World>,
    servers: Vec<Process>,
}

impl Scene {
    /// Plays it from the first act to the last. An act that cannot go on ends it with a failed check.
    pub fn play(prefix: &str) -> Scene {
        let (checks, pods, servers) = (Vec::new(), Vec::new(), Vec::new());
        let mut scene = Scene { checks, pods, prefix: prefix.to_owned(), world: None, servers };
        for (title, act) in ACTS {
            println!("\n==> {title}");
            if let Err(panic) = catch_unwind(AssertUnwindSafe(|| act(&mut scene))) {
                scene.check(title, "played to its end", reason(&*panic));
                break;
            }
        }
        scene
    }

    /// Where it plays, if that could be made.
    pub fn world(&self) -> Option<&World> {
        self.world.as_ref()
    }

    /// The table of all checks.
    pub fn table(&self) -> String {
        let width =
            |cell: fn(&Check) -> &str| self.checks.iter().map(|c| cell(c).len()).max().unwrap_or(0).max(8);
        let (first, second) = (width(|c| &c.step), width(|c| &c.expected));
        let mut table = format!("    {:first$}   {:second$}   Got\n", "Step", "Expected");
        for check in &self.checks {
            let mark = if check.holds() { "ok" } else { "!!" };
            let got = check.got.lines().next().unwrap_or_default();
            table += &format!("{mark}  {:first$}   {:second$}   {got}\n", check.step, check.expected);
        }
        table
    }

    /// Everything was as expected.
    pub fn succeeded(&self) -> bool {
        !self.checks.is_empty() && self.checks.iter().all(Check::holds)
    }

    /// Leaves everything running.
    pub fn keep(self) {
        std::mem::forget(self.servers);
        if let Some(world) = self.world {
            world.keep();
        }
    }

    /// The world, and its agents.
    fn start(&mut self) {
        self.world = Some(World::named(&self.prefix, NODES));
        self.stage().start();
        for node in self.stage().nodes() {
            println!("    {} is ready", node.host.netns);
        }
        let ready = self.stage().nodes().filter(|node| node.cli.run("status --brief").is_ok()).count();
        self.check("agents ready", 4, ready);
    }

    /// Pods, and the service of both clusters.
    fn connect(&mut self) {
        for (cluster, address) in [(1, VIP1), (2, VIP2)] {
            self.stage().cluster(cluster).apply("service.yaml", &service(address));
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
        self.await_backend(&self.backend(0));
    }

    /// The lists from both sides.
    fn look_around(&mut self) {
        for (cluster, node) in [(1, 1), (2, 1)] {
            for command in ["node list", "identity list", "service list", "status", "clustermesh status"] {
                show(self.stage().node(cluster, node), command);
            }
        }
    }

    /// Three clients, before there is a policy.
    fn knock(&mut self) {
        for client in 1..4 {
            self.redis("no policy", client, "PONG");
        }
    }

    /// The policy, and what the monitor says of the stranger.
    fn guard_the_database(&mut self) {
        println!("{POLICY}");
        let node = self.stage().node(1, 1);
        let monitor = node.monitor("--type drop");
        self.stage().cluster(1).apply("policy.yaml", POLICY);
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
        println!("\n{}$ dataplane monitor --type drop", self.stage().node(1, 1).host.netns);
        let log = eventually("the drop is shown", || {
            let log = monitor.log();
            if line.is_match(&log) { Ok(log) } else { Err(log) }
        });
        log.lines().for_each(|line| println!("{line}"));
        self.check("the monitor shows the stranger's SYN", true, line.is_match(&log));
    }

    /// A second backend in the other cluster takes over from the first, and every client is answered.
    fn move_the_database(&mut self) {
        self.pod(2, 2, "default/protected-db-1", "protected-db");
        self.serve(4);
        let first = self.backend(0);
        self.await_backend(&self.backend(4));
        show(self.clients()[0], "service list");
        self.redis("two backends", 1, "PONG");
        self.redis("two backends", 3, "PONG");

        let pinging = EMPLOYEES.map(|client| Pinging::start(&self.pods[client], vip(client)));
        self.pods[0].delete();
        self.servers.remove(0);
        ip(&format!("netns del {}", self.pods[0].netns));
        println!("    {} is gone", self.pods[0].name);
        self.await_services(&format!("{first} is forgotten"), |list| !list.contains(&first));
        self.redis("second backend only", 1, "PONG");
        self.redis("second backend only", 3, "PONG");
        for (client, pinging) in EMPLOYEES.into_iter().zip(pinging) {
            let Pings { sent, answered, again } = pinging.stop();
            let step = format!("{}, pings while it moves", self.name(client));
            println!("    {step}: {answered} of {sent} answered, {again} of them at the second try");
            self.check(&step, format!("{sent} of {sent}"), format!("{answered} of {sent}"));
        }
    }

    /// The other cluster's etcd dies; nobody but the operator notices.
    fn lose_an_etcd(&mut self) {
        let mut established = match Connection::open(&self.pods[1], VIP1) {
            Ok(connection) => connection,
            Err(error) => return self.check("a connection that will last", "PONG", error),
        };
        let before = established.ping();
        self.check("a connection before", "PONG", before);
        self.stage().cluster(2).etcd().kill();
        let node = self.stage().node(1, 1);
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
        let pod = self.stage().node(cluster, node).pod(name, &format!("app={app}"));
        println!("    cluster{cluster}/node{node}: {name} is endpoint {}, {}", pod.id, pod.ipv4);
        self.pods.push(pod);
    }

    /// Runs redis in a pod.
    fn serve(&mut self, pod: usize) {
        let pod = &self.pods[pod];
        let flags = ["--port", "6379", "--bind", "*", "--protected-mode", "no", "--save", "", "--dir", "/"];
        let log = self.stage().dir().join(format!("{}.log", pod.netns));
        self.servers.push(Process::start(pod.command("redis-server").args(flags), &log));
        eventually("redis answers in its own pod", || ping_redis(pod, "127.0.0.1").ok_or("no answer"));
    }

    fn stage(&self) -> &World {
        self.world.as_ref().expect("the first act makes it")
    }

    /// The nodes of the clients, one in each cluster.
    fn clients(&self) -> [&Node; 2] {
        [self.stage().node(1, 2), self.stage().node(2, 1)]
    }

    /// Waits until the list of services is so at both clusters' clients.
    fn await_services(&self, what: &str, holds: impl Fn(&str) -> bool) {
        for node in self.clients() {
            eventually(&format!("{}: {what}", node.host.netns), || {
                let list = node.cli.show("service list");
                if holds(&list) { Ok(()) } else { Err(list) }
            });
        }
        println!("    both clusters: {what}");
    }

    /// Waits until both clusters' clients use a backend.
    fn await_backend(&self, backend: &str) {
        self.await_services(&format!("{backend} is active"), |list| {
            list.contains(&format!("{backend} (active)"))
        });
    }

    /// A database as `service list` shows it.
    fn backend(&self, pod: usize) -> String {
        format!("{}:{PORT}/TCP", self.pods[pod].ipv4)
    }

    /// Cluster and name of a client.
    fn name(&self, client: usize) -> String {
        format!("{}/{}", if client == 3 { "cluster2" } else { "cluster1" }, self.pods[client].name)
    }

    fn redis(&mut self, step: &str, client: usize, expected: &str) {
        let (name, address) = (self.name(client), vip(client));
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

/// The service's address in the cluster of a client.
fn vip(client: usize) -> &'static str {
    if client == 3 { VIP2 } else { VIP1 }
}

/// What a client counted.
#[derive(Default)]
struct Pings {
    sent: u32,
    answered: u32,
    /// Answered, but not at once.
    again: u32,
}

/// A client that pings again and again, each time over a new connection. As clients do, it tries
/// once more if there is no answer: a connection that is open to a backend is lost with it.
struct Pinging {
    stop: Sender<()>,
    thread: JoinHandle<Pings>,
}

impl Pinging {
    fn start(pod: &Pod, address: &'static str) -> Pinging {
        let (host, (stop, stopped)) = (Host::clone(pod), channel());
        let thread = thread::spawn(move || {
            let pong = || ping_redis(&host, address).as_deref() == Some("PONG");
            let mut pings = Pings::default();
            while pings.sent < LEAST_PINGS || stopped.try_recv() == Err(TryRecvError::Empty) {
                let at_once = pong();
                let later = !at_once && pong();
                pings.sent += 1;
                pings.answered += u32::from(at_once || later);
                pings.again += u32::from(later);
            }
            pings
        });
        Pinging { stop, thread }
    }

    fn stop(self) -> Pings {
        drop(self.stop);
        self.thread.join().unwrap_or_else(|panic| resume_unwind(panic))
    }
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

/// What a panic said.
fn reason(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("a panic")
}

/// Prints a command of the command line and what it says.
fn show(node: &Node, command: &str) {
    let output = node.cli.say(command);
    println!("\n{}$ dataplane {command}\n{output}", node.host.netns);
}
