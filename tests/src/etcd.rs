//! A real etcd with mutual TLS in a namespace of its own.

use crate::host::Host;
use crate::pki::Authority;
use crate::process::Process;
use crate::wait::eventually;
use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

/// The etcd of one cluster.
pub struct Etcd {
    /// Where it runs.
    pub host: Host,
    dir: PathBuf,
    url: String,
    flags: Vec<String>,
    client: Vec<String>,
    process: Mutex<Option<Process>>,
}

impl Etcd {
    /// Makes certificates and the client configuration ([`Etcd::client_config`]); starts nothing.
    pub fn lay(host: Host, cluster: &str, address: IpAddr, dir: &Path) -> Etcd {
        let authority = Authority::create(&dir.join("pki"));
        let server = authority.issue("server", &[address]);
        let client = authority.issue("client", &[]);
        let ca = authority.ca();
        let url = format!("https://{address}:2379");
        let config = format!(
            "endpoints:\n- {url}\ntrusted-ca-file: {}\ncert-file: {}\nkey-file: {}\n",
            ca.display(),
            client.cert.display(),
            client.key.display()
        );
        fs::write(dir.join("client.yaml"), config).unwrap_or_else(|e| panic!("{dir:?}: {e}"));
        let flags = [
            format!("--data-dir={}", dir.join("data").display()),
            format!("--listen-client-urls={url}"),
            format!("--advertise-client-urls={url}"),
            "--listen-peer-urls=http://127.0.0.1:2380".into(),
            format!("--initial-cluster-token={cluster}"),
            "--client-cert-auth".into(),
            // Alone it need not wait long for the others before it elects itself.
            "--heartbeat-interval=10".into(),
            "--election-timeout=100".into(),
            format!("--trusted-ca-file={}", ca.display()),
            format!("--cert-file={}", server.cert.display()),
            format!("--key-file={}", server.key.display()),
        ];
        let etcdctl = [
            format!("--endpoints={url}"),
            format!("--cacert={}", ca.display()),
            format!("--cert={}", client.cert.display()),
            format!("--key={}", client.key.display()),
        ];
        Etcd {
            host,
            dir: dir.to_owned(),
            url,
            flags: flags.into(),
            client: etcdctl.into(),
            process: Mutex::new(None),
        }
    }

    /// The etcd client YAML that agents connect with.
    pub fn client_config(&self) -> PathBuf {
        self.dir.join("client.yaml")
    }

    /// Starts it, with the data of last time if there is any, and waits until it answers.
    pub fn start(&self) {
        let process = Process::start(self.host.command("etcd").args(&self.flags), &self.dir.join("etcd.log"));
        *self.process.lock().expect("no panic while starting") = Some(process);
        eventually(&format!("{} answers", self.url), || self.ctl(&["endpoint", "health"]));
    }

    /// Kills it; its data stays.
    pub fn kill(&self) {
        *self.process.lock().expect("no panic while stopping") = None;
    }

    /// Kills it and forgets its data.
    pub fn wipe(&self) {
        self.kill();
        fs::remove_dir_all(self.dir.join("data")).unwrap_or_else(|e| panic!("{:?}: {e}", self.dir));
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
