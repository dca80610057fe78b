//! Nodes with their agents, and the clusters they form.

use crate::command::output;
use crate::etcd::Etcd;
use crate::host::Host;
use crate::pod::Pod;
use crate::process::Process;
use crate::sockets::Server;
use crate::wait::eventually;
use nix::sys::signal::Signal;
use serde_json::Value;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

/// One cluster: nodes, an etcd unless it has only a store in memory, and a directory of manifests.
pub struct Cluster {
    /// `cluster1`, `cluster2`, …
    pub name: String,
    /// 101, 102, …
    pub id: u8,
    /// Its etcd.
    pub etcd: Option<Etcd>,
    /// What all its agents watch instead of Kubernetes.
    pub manifests: PathBuf,
    /// Its nodes.
    pub nodes: Vec<Node>,
}

impl Cluster {
    /// Puts a file into the directory of manifests, whole at once as every editor does.
    pub fn apply(&self, file: &str, yaml: &str) {
        let draft = self.manifests.join(format!(".{file}"));
        let done = fs::write(&draft, yaml).and_then(|()| fs::rename(&draft, self.manifests.join(file)));
        done.unwrap_or_else(|e| panic!("{file}: {e}"));
    }

    /// Removes a file from the directory of manifests.
    pub fn withdraw(&self, file: &str) {
        fs::remove_file(self.manifests.join(file)).unwrap_or_else(|e| panic!("{file}: {e}"));
    }

    /// Its etcd; panics if it has none.
    pub fn etcd(&self) -> &Etcd {
        self.etcd.as_ref().expect("a cluster with an etcd")
    }
}

/// The command line of one agent.
#[derive(Clone, Debug)]
pub struct Cli {
    /// The agent's API socket.
    pub socket: PathBuf,
}

impl Cli {
    /// Runs `dataplane` with these words against the agent.
    pub fn run(&self, words: &str) -> Result<String, String> {
        output(&mut self.command(words))
    }

    /// As [`Cli::run`]; panics if it fails.
    pub fn show(&self, words: &str) -> String {
        self.run(words).unwrap_or_else(|error| panic!("{error}"))
    }

    /// What `status` and the like print, whether they call it a success or not.
    pub fn say(&self, words: &str) -> String {
        let output = self.command(words).output().unwrap_or_else(|e| panic!("{words}: {e}"));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// What it prints with `-o json`.
    pub fn json(&self, words: &str) -> Value {
        let text = self.say(&format!("{words} -o json"));
        serde_json::from_str(&text).unwrap_or_else(|e| panic!("{words} -o json: {e}\n{text}"))
    }

    fn command(&self, words: &str) -> Command {
        // Nothing that the tests ask takes this long.
        let mut command = Command::new("timeout");
        command
            .arg("60")
            .arg(dataplane())
            .args(words.split_whitespace())
            .env("DATAPLANE_SOCKET", &self.socket);
        command
    }
}

/// A node: a namespace with an uplink, and an agent in it.
pub struct Node {
    /// `node1`, `node2`, …
    pub name: String,
    /// Its namespace.
    pub host: Host,
    /// Its address on the wire.
    pub ipv4: Ipv4Addr,
    /// Its address on the wire.
    pub ipv6: Ipv6Addr,
    /// Where it keeps what the next run of its agent needs.
    pub state_dir: PathBuf,
    /// Its agent's command line.
    pub cli: Cli,
    pub(crate) dir: PathBuf,
    pub(crate) flags: Vec<String>,
    pub(crate) environment: Vec<(String, String)>,
    pub(crate) pod_prefix: String,
    pub(crate) agent: Mutex<Option<Process>>,
    pub(crate) monitors: AtomicUsize,
}

impl Node {
    /// Has later runs of the agent use this value of an option instead of all that it has now.
    pub fn replace_flag(&mut self, option: &str, value: &str) {
        let start = format!("{option}=");
        self.flags.retain(|flag| !flag.starts_with(&start));
        self.flags.push(start + value);
    }

    /// Has later runs of the agent find this in their environment.
    pub fn set_env(&mut self, name: &str, value: &str) {
        self.environment.push((name.to_owned(), value.to_owned()));
    }

    /// Starts the agent with additional flags; does not wait for anything.
    pub fn launch(&self, flags: &[&str]) {
        let mut command = self.host.command(&dataplane().display().to_string());
        command.arg("run").args(&self.flags).args(flags).envs(self.environment.iter().cloned());
        let agent = Process::start(&mut command, &self.dir.join("agent.log"));
        *self.agent.lock().expect("no panic while starting") = Some(agent);
    }

    /// Starts the agent and waits until it says that all is well.
    pub fn start(&self) {
        self.launch(&[]);
        self.ready();
    }

    /// Waits until the agent says that all is well.
    pub fn ready(&self) {
        eventually(&format!("{} is ready", self.host.netns), || {
            if let Some(status) = self.agent.lock().expect("no panic here").as_mut().and_then(Process::ended)
            {
                panic!("the agent of {} ended: {status}\n{}", self.host.netns, self.log());
            }
            self.cli.run("status --brief")
        });
    }

    /// Stops the agent with SIGTERM; panics if it does not end well.
    pub fn stop(&self) {
        let agent = self.agent.lock().expect("no panic while stopping").take().expect("a running agent");
        let status = agent.stop();
        assert!(status.success(), "the agent of {} ended with {status}\n{}", self.host.netns, self.log());
    }

    /// Kills the agent with SIGKILL.
    pub fn kill(&self) {
        let mut agent = self.agent.lock().expect("no panic while killing").take().expect("a running agent");
        agent.signal(Signal::SIGKILL);
        agent.wait();
    }

    /// The id of the agent's process.
    pub fn agent_id(&self) -> u32 {
        self.agent.lock().expect("no panic here").as_ref().expect("a running agent").id()
    }

    /// Sends the agent a signal.
    pub fn signal(&self, signal: Signal) {
        self.agent.lock().expect("no panic here").as_ref().expect("a running agent").signal(signal);
    }

    /// What its agents have logged.
    pub fn log(&self) -> String {
        fs::read_to_string(self.dir.join("agent.log")).unwrap_or_default()
    }

    /// `dataplane run` with the node's flags and others, to its end: for runs that must be refused.
    pub fn run_to_end(&self, flags: &[&str]) -> Result<String, String> {
        let mut command = self.host.command("timeout");
        command.args(["30", &dataplane().display().to_string(), "run"]).args(&self.flags).args(flags);
        output(&mut command)
    }

    /// Starts `dataplane monitor` with these words and waits until it listens.
    pub fn monitor(&self, words: &str) -> Process {
        let number = self.monitors.fetch_add(1, Ordering::Relaxed);
        let mut command = self.host.command(&dataplane().display().to_string());
        command.arg("monitor").args(words.split_whitespace()).env("DATAPLANE_SOCKET", &self.cli.socket);
        let monitor = Process::start(&mut command, &self.dir.join(format!("monitor-{number}.log")));
        eventually("the monitor listens", || {
            if monitor.log().contains("Listening for events") { Ok(()) } else { Err(monitor.log()) }
        });
        monitor
    }

    /// Connects a new pod, `namespace/name`, with labels `k=v`; returns when it is ready.
    pub fn pod(&self, name: &str, labels: &str) -> Pod {
        let flags: Vec<String> = labels.split_whitespace().map(|label| format!("--label {label}")).collect();
        self.pod_with(name, &flags.join(" "))
    }

    /// As [`Node::pod`], with flags of `endpoint add`.
    pub fn pod_with(&self, name: &str, flags: &str) -> Pod {
        let netns = format!("{}-{}", self.pod_prefix, name.replace('/', "-"));
        let host = Host::create(&netns);
        self.cli.show(&format!("endpoint add --pod {name} --netns {netns} {flags}"));
        Pod::find(host, name, self.cli.clone())
    }

    /// Its addresses, IPv4 and IPv6.
    pub fn addresses(&self) -> [IpAddr; 2] {
        [self.ipv4.into(), self.ipv6.into()]
    }

    /// Serves on a port, under a name, until the server is dropped.
    pub fn serve(&self, port: u16, name: &str) -> Server {
        self.host.serve(self.addresses(), port, name)
    }

    /// Waits until `policy list` shows these policies in force, `NAME` or `NAME@ENDPOINT`.
    pub fn enforces(&self, names: &[&str]) {
        eventually(&format!("{names:?} are in force"), || {
            let list = self.cli.json("policy list");
            let entries = list.as_array().into_iter().flatten();
            let shown: Vec<&str> = entries.filter_map(|policy| policy["name"].as_str()).collect();
            if shown == names { Ok(()) } else { Err(list) }
        });
    }

    /// The value of a metric with these labels, `name{reason="…",direction="…"}`; 0 if it is not there.
    pub fn metric(&self, series: &str) -> u64 {
        let metrics = self.cli.show("metrics");
        let line = metrics.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        line.map_or(0, |value| value.parse().unwrap_or_else(|e| panic!("{series}: {value}: {e}")))
    }
}

/// The binary under test: `DATAPLANE_BIN`, or the one built beside this test.
pub fn dataplane() -> PathBuf {
    if let Some(path) = std::env::var_os("DATAPLANE_BIN") {
        return path.into();
    }
    let exe = std::env::current_exe().expect("a path of this program");
    let found =
        exe.ancestors().skip(1).take(2).map(|dir: &Path| dir.join("dataplane")).find(|path| path.is_file());
    found.unwrap_or_else(|| panic!("no dataplane beside {exe:?}: run `cargo build -p dataplane` first"))
}
