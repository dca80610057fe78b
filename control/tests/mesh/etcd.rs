//! A real etcd on loopback with mutual TLS; killed when dropped.

use etcd_client::{Certificate, Client, ConnectOptions, DeleteOptions, GetOptions, Identity, TlsOptions};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use tempfile::TempDir;

pub(crate) struct Etcd {
    dir: TempDir,
    port: u16,
    peer_port: u16,
    process: Option<Child>,
}

impl Etcd {
    /// Makes certificates, starts it and waits until it answers.
    pub(crate) async fn start() -> Etcd {
        let dir = tempfile::tempdir().unwrap();
        let mut authority = CertificateParams::default();
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate().unwrap()).unwrap();
        fs::write(dir.path().join("ca.crt"), authority.pem()).unwrap();
        for (name, addresses) in [("server", vec!["127.0.0.1".to_owned()]), ("client", vec![])] {
            let mut params = CertificateParams::new(addresses).unwrap();
            params.distinguished_name.push(DnType::CommonName, name);
            let key = KeyPair::generate().unwrap();
            let cert = params.signed_by(&key, &authority).unwrap();
            fs::write(dir.path().join(format!("{name}.crt")), cert.pem()).unwrap();
            fs::write(dir.path().join(format!("{name}.key")), key.serialize_pem()).unwrap();
        }
        let [port, peer_port] = [free_port(), free_port()];
        let mut etcd = Etcd { dir, port, peer_port, process: None };
        etcd.resume().await;
        etcd
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Starts it again, with whatever data it has.
    pub(crate) async fn resume(&mut self) {
        let log = fs::File::create(self.path("log")).unwrap();
        let client = format!("https://127.0.0.1:{}", self.port);
        let peer = format!("http://127.0.0.1:{}", self.peer_port);
        let child = Command::new("etcd")
            .arg("--data-dir")
            .arg(self.path("data"))
            .args(["--listen-client-urls", &client, "--advertise-client-urls", &client])
            .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
            .args(["--initial-cluster", &format!("default={peer}")])
            .args(["--heartbeat-interval", "20", "--election-timeout", "200", "--client-cert-auth"])
            .arg("--trusted-ca-file")
            .arg(self.path("ca.crt"))
            .arg("--cert-file")
            .arg(self.path("server.crt"))
            .arg("--key-file")
            .arg(self.path("server.key"))
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("etcd is installed");
        self.process = Some(child);
        super::eventually("etcd answers", async || self.try_get("x").await.is_some()).await;
    }

    /// Kills it; its data stays.
    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.process.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    /// Kills it and throws its data away.
    pub(crate) fn wipe(&mut self) {
        self.kill();
        fs::remove_dir_all(self.path("data")).unwrap();
    }

    /// Sends it a signal.
    pub(crate) fn signal(&self, signal: &str) {
        let id = self.process.as_ref().expect("it runs").id().to_string();
        assert!(Command::new("kill").args(["-s", signal, &id]).status().unwrap().success());
    }

    /// Ends all leases, and with them their keys.
    pub(crate) async fn revoke_all_leases(&self) {
        let mut client = self.client().await.unwrap();
        for lease in client.leases().await.unwrap().leases() {
            client.lease_revoke(lease.id()).await.unwrap();
        }
    }

    /// etcd client YAML.
    pub(crate) fn config(&self) -> String {
        let path = |name| self.path(name).display().to_string();
        format!(
            "endpoints:\n- https://127.0.0.1:{}\ntrusted-ca-file: {}\ncert-file: {}\nkey-file: {}\n",
            self.port,
            path("ca.crt"),
            path("client.crt"),
            path("client.key")
        )
    }

    pub(crate) async fn client(&self) -> Option<Client> {
        let pem = |name| fs::read(self.path(name)).unwrap();
        let tls = TlsOptions::new()
            .ca_certificate(Certificate::from_pem(pem("ca.crt")))
            .identity(Identity::from_pem(pem("client.crt"), pem("client.key")));
        let options = ConnectOptions::new().with_tls(tls).with_timeout(std::time::Duration::from_secs(2));
        Client::connect([format!("https://127.0.0.1:{}", self.port)], Some(options)).await.ok()
    }

    async fn try_get(&self, prefix: &str) -> Option<Vec<(String, String)>> {
        let options = GetOptions::new().with_prefix();
        let answer = self.client().await?.get(prefix, Some(options)).await.ok()?;
        let pair =
            |kv: &etcd_client::KeyValue| (kv.key_str().unwrap().into(), kv.value_str().unwrap().into());
        Some(answer.kvs().iter().map(pair).collect())
    }

    /// Keys and values below a prefix.
    pub(crate) async fn get(&self, prefix: &str) -> Vec<(String, String)> {
        self.try_get(prefix).await.expect("etcd answers")
    }

    pub(crate) async fn put(&self, key: &str, value: &str) {
        self.client().await.unwrap().put(key, value, None).await.unwrap();
    }

    pub(crate) async fn delete(&self, key: &str) {
        self.client().await.unwrap().delete(key, None).await.unwrap();
    }

    pub(crate) async fn delete_below(&self, prefix: &str) {
        let options = DeleteOptions::new().with_prefix();
        self.client().await.unwrap().delete(prefix, Some(options)).await.unwrap();
    }

    /// How often a key was written since it is there.
    pub(crate) async fn versions(&self, key: &str) -> i64 {
        self.client().await.unwrap().get(key, None).await.unwrap().kvs()[0].version()
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        self.kill();
    }
}

fn free_port() -> u16 {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port()
}
