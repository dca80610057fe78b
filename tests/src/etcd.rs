//! A real etcd with mutual TLS in a namespace of its own, of one member or several.

use crate::host::Host;
use crate::pki::Authority;
use crate::process::Process;
use crate::wait::eventually;
use nix::sys::signal::Signal;
use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard};

/// The etcd of one cluster.
pub struct Etcd {
    /// Where it runs.
    pub host: Host,
    /// What signs its certificate and those of its clients.
    pub authority: Authority,
    dir: PathBuf,
    members: Vec<Member>,
    client: Vec<String>,
}

struct Member {
    name: String,
    /// Who it is and who the others are.
    place: Vec<String>,
    flags: Vec<String>,
    process: Mutex<Option<Process>>,
}

impl Etcd {
    /// Makes certificates and the client configuration ([`Etcd::client_config`]) of an etcd of so many
    /// members; starts nothing.
    pub fn lay(host: Host, cluster: &str, address: IpAddr, dir: &Path, members: usize) -> Etcd {
        let authority = Authority::create(&dir.join("pki"));
        let server = authority.issue("server", &[address]);
        let client = authority.issue("client", &[]);
        let ca = authority.ca();
        let urls: Vec<_> = (0..members).map(|n| format!("https://{address}:{}", 2379 + 10 * n)).collect();
        let peers: Vec<_> = (0..members).map(|n| format!("http://127.0.0.1:{}", 2380 + 10 * n)).collect();
        let config = format!(
            "endpoints:\n{}trusted-ca-file: {}\ncert-file: {}\nkey-file: {}\n",
            urls.iter().map(|url| format!("- {url}\n")).collect::<String>(),
            ca.display(),
            client.cert.display(),
            client.key.display()
        );
        fs::write(dir.join("client.yaml"), config).unwrap_or_else(|e| panic!("{dir:?}: {e}"));
        let all: Vec<_> = peers.iter().enumerate().map(|(n, url)| format!("member{n}={url}")).collect();
        let member = |(n, (url, peer)): (usize, (&String, &String))| Member {
            name: format!("member{n}"),
            place: vec![
                format!("--name=member{n}"),
                format!("--data-dir={}", dir.join(format!("data/member{n}")).display()),
                format!("--initial-advertise-peer-urls={peer}"),
                format!("--initial-cluster={}", all.join(",")),
                format!("--initial-cluster-token={cluster}"),
            ],
            flags: vec![
                format!("--listen-client-urls={url}"),
                format!("--advertise-client-urls={url}"),
                format!("--listen-peer-urls={peer}"),
                "--client-cert-auth".into(),
                // On one machine it need not wait long for the others before it elects a leader.
                "--heartbeat-interval=10".into(),
                "--election-timeout=100".into(),
                format!("--trusted-ca-file={}", ca.display()),
                format!("--cert-file={}", server.cert.display()),
                format!("--key-file={}", server.key.display()),
            ],
            process: Mutex::new(None),
        };
        let client = vec![
            format!("--endpoints={}", urls.join(",")),
            format!("--cacert={}", ca.display()),
            format!("--cert={}", client.cert.display()),
            format!("--key={}", client.key.display()),
        ];
        let members = urls.iter().zip(&peers).enumerate().map(member).collect();
        Etcd { host, authority, dir: dir.to_owned(), members, client }
    }

    /// The etcd client YAML that agents connect with.
    pub fn client_config(&self) -> PathBuf {
        self.dir.join("client.yaml")
    }

    /// Starts what does not run of it, with the data of last time if there is any, and waits until it
    /// answers.
    pub fn start(&self) {
        fs::create_dir_all(self.dir.join("data")).unwrap_or_else(|e| panic!("{:?}: {e}", self.dir));
        for member in &self.members {
            let log = self.dir.join(format!("{}.log", member.name));
            member.process().get_or_insert_with(|| {
                Process::start(self.host.command("etcd").args(&member.place).args(&member.flags), &log)
            });
        }
        eventually(&format!("{} answers", self.host.netns), || self.ctl(&["endpoint", "health"]));
    }

    /// Kills it; its data stays.
    pub fn kill(&self) {
        self.kill_members(self.members.len());
    }

    /// Kills the first members; their data stays.
    pub fn kill_members(&self, count: usize) {
        self.members.iter().take(count).for_each(|member| *member.process() = None);
    }

    /// Stops it from running until [`Etcd::thaw`]; its connections stay open.
    pub fn freeze(&self) {
        self.signal(Signal::SIGSTOP);
    }

    /// Lets it run again.
    pub fn thaw(&self) {
        self.signal(Signal::SIGCONT);
    }

    /// Kills it and forgets its data.
    pub fn wipe(&self) {
        self.kill();
        fs::remove_dir_all(self.dir.join("data")).unwrap_or_else(|e| panic!("{:?}: {e}", self.dir));
    }

    /// Writes all that is in an etcd of one member, as it is now, to a file.
    pub fn snapshot(&self, file: &Path) {
        self.ctl(&["snapshot", "save", &file.display().to_string()]).unwrap_or_else(|e| panic!("{e}"));
    }

    /// Kills an etcd of one member and has it begin anew with a snapshot, of its own or of another etcd.
    pub fn restore(&self, file: &Path) {
        self.wipe();
        let [member] = &self.members[..] else { panic!("{}: of one member only", self.host.netns) };
        let mut command = self.host.command("etcdctl");
        command.env("ETCDCTL_API", "3").args(["snapshot", "restore"]).arg(file).args(&member.place);
        crate::command::output(&mut command).unwrap_or_else(|e| panic!("{e}"));
    }

    fn signal(&self, signal: Signal) {
        let running = |member: &Member| member.process().as_ref().map(|process| process.signal(signal));
        self.members.iter().for_each(|member| running(member).expect("a running member"));
    }

    /// Runs etcdctl.
    pub fn ctl(&self, words: &[&str]) -> Result<String, String> {
        crate::command::output(
            self.host.command("etcdctl").env("ETCDCTL_API", "3").args(&self.client).args(words),
        )
    }

    /// The keys below a prefix.
    pub fn keys(&self, prefix: &str) -> Vec<String> {
        let keys = self.ctl(&["get", "--prefix", "--keys-only", prefix]).unwrap_or_else(|e| panic!("{e}"));
        keys.split_whitespace().map(str::to_owned).collect()
    }
}

impl Member {
    fn process(&self) -> MutexGuard<'_, Option<Process>> {
        self.process.lock().expect("no panic while starting or stopping")
    }
}
