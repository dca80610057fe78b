//! A real etcd on loopback with mutual TLS; killed when dropped.

use super::pki::Pki;
use etcd_client::{
    AlarmAction, AlarmType, Certificate, Client, ConnectOptions, DeleteOptions, GetOptions, Identity,
    Permission, TlsOptions,
};
use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use tempfile::TempDir;

pub(crate) struct Etcd {
    /// Certificates, shared by the members of a cluster.
    pki: Arc<Pki>,
    /// Data and log.
    dir: TempDir,
    name: String,
    port: u16,
    peer_port: u16,
    /// All members: `m0=http://…,m1=…`.
    members: String,
    flags: Vec<String>,
    /// What it gives tokens for.
    auth: Option<[&'static str; 2]>,
    /// It asks for them.
    closed: bool,
    process: Option<Child>,
}

impl Etcd {
    /// Makes certificates, starts it and waits until it answers.
    pub(crate) async fn start() -> Etcd {
        Etcd::start_with(&[]).await
    }

    /// The same with some flags more.
    pub(crate) async fn start_with(flags: &[&str]) -> Etcd {
        let mut etcd = Etcd::prepare(Arc::new(Pki::new()), "m0");
        etcd.members = etcd.member();
        etcd.flags = flags.iter().map(ToString::to_string).collect();
        etcd.resume().await;
        etcd
    }

    /// A cluster of three members.
    pub(crate) async fn start_cluster() -> [Etcd; 3] {
        let pki = Arc::new(Pki::new());
        let mut all = ["m0", "m1", "m2"].map(|name| Etcd::prepare(pki.clone(), name));
        let members = all.each_ref().map(Etcd::member).join(",");
        for etcd in &mut all {
            etcd.members = members.clone();
            etcd.spawn();
        }
        super::eventually("the cluster answers", async || all[0].try_get("x").await.is_some()).await;
        all
    }

    /// One without TLS that wants name and password and gives tokens for a few seconds.
    pub(crate) async fn start_with_passwords(user: &'static str, password: &'static str) -> Etcd {
        let mut etcd = Etcd::prepare(Arc::new(Pki::new()), "m0");
        etcd.members = etcd.member();
        fs::write(etcd.path("token"), "a key for a test only").unwrap();
        let key = format!("jwt,sign-method=HS256,priv-key={},ttl=3s", etcd.path("token").display());
        // Passwords are cheap to check, or tokens end before a busy machine has used them.
        etcd.flags = ["--auth-token", &key, "--bcrypt-cost", "4"].map(str::to_owned).into();
        etcd.auth = Some([user, password]);
        etcd.resume().await;
        let mut client = etcd.client().await.unwrap();
        client.role_add("root").await.unwrap();
        for (user, password) in [("root", "root"), (user, password)] {
            client.user_add(user, password, None).await.unwrap();
            client.user_grant_role(user, "root").await.unwrap();
        }
        client.auth_enable().await.unwrap();
        etcd.closed = true;
        etcd
    }

    /// Waits until tokens that were given before have ended.
    pub(crate) async fn tokens_end(&self) {
        let [user, password] = self.auth.expect("it gives tokens");
        let options = ConnectOptions::new().with_user(user, password);
        let mut client = Client::connect([self.url()], Some(options)).await.unwrap();
        super::eventually("a token ends", async || match client.get("x", None).await {
            Err(etcd_client::Error::GRpcStatus(status)) => status.message().contains("invalid auth token"),
            _ => false,
        })
        .await;
    }

    fn prepare(pki: Arc<Pki>, name: &str) -> Etcd {
        let [port, peer_port] = [free_port(), free_port()];
        let (dir, name) = (tempfile::tempdir().unwrap(), name.into());
        let (members, flags) = Default::default();
        Etcd { pki, dir, name, port, peer_port, members, flags, auth: None, closed: false, process: None }
    }

    fn member(&self) -> String {
        format!("{}=http://127.0.0.1:{}", self.name, self.peer_port)
    }

    fn url(&self) -> String {
        let scheme = if self.auth.is_some() { "http" } else { "https" };
        format!("{scheme}://127.0.0.1:{}", self.port)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Starts it again, with whatever data it has.
    pub(crate) async fn resume(&mut self) {
        self.spawn();
        super::eventually("etcd answers", async || self.try_get("x").await.is_some()).await;
    }

    pub(crate) fn spawn(&mut self) {
        let log = fs::File::create(self.path("log")).unwrap();
        let peer = format!("http://127.0.0.1:{}", self.peer_port);
        let mut command = Command::new("etcd");
        command
            .args(["--name", &self.name, "--data-dir"])
            .arg(self.path("data"))
            .args(["--listen-client-urls", &self.url(), "--advertise-client-urls", &self.url()])
            .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
            .args(["--initial-cluster", &self.members])
            .args(["--heartbeat-interval", "20", "--election-timeout", "200"])
            .args(&self.flags);
        if self.auth.is_none() {
            command
                .args(["--client-cert-auth", "--trusted-ca-file"])
                .arg(self.pki.path("ca.crt"))
                .arg("--cert-file")
                .arg(self.pki.path("server.crt"))
                .arg("--key-file")
                .arg(self.pki.path("server.key"));
        }
        let child = command.stdout(Stdio::null()).stderr(log).spawn().expect("etcd is installed");
        self.process = Some(child);
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

    /// Keeps a copy of its data; it must not run.
    pub(crate) fn save(&self) {
        let status = Command::new("cp").arg("-r").args([self.path("data"), self.path("saved")]).status();
        assert!(status.unwrap().success());
    }

    /// Takes the copy for its data; it must not run.
    pub(crate) fn restore(&self) {
        fs::remove_dir_all(self.path("data")).unwrap();
        fs::rename(self.path("saved"), self.path("data")).unwrap();
    }

    /// A user may no longer read anything but what is below these prefixes.
    pub(crate) async fn allow_only(&self, user: &'static str, prefixes: &[&str]) {
        let options = ConnectOptions::new().with_user("root", "root").with_auto_token_refresh(true);
        let mut client = Client::connect([self.url()], Some(options)).await.unwrap();
        client.role_add("little").await.unwrap();
        for prefix in prefixes {
            let read = Permission::read(*prefix).with_prefix();
            client.role_grant_permission("little", read).await.unwrap();
        }
        client.user_grant_role(user, "little").await.unwrap();
        client.user_revoke_role(user, "root").await.unwrap();
    }

    /// Sends it a signal.
    pub(crate) fn signal(&self, signal: &str) {
        let id = self.process.as_ref().expect("it runs").id().to_string();
        assert!(Command::new("kill").args(["-s", signal, &id]).status().unwrap().success());
    }

    /// Raises or ends the alarm by which an etcd whose quota is used up takes no keys.
    pub(crate) async fn set_full(&self, full: bool) {
        let action = if full { AlarmAction::Activate } else { AlarmAction::Deactivate };
        self.client().await.unwrap().alarm(action, AlarmType::Nospace, None).await.unwrap();
    }

    /// Ends all leases, and with them their keys.
    pub(crate) async fn revoke_all_leases(&self) {
        let mut client = self.client().await.unwrap();
        for lease in client.leases().await.unwrap().leases() {
            client.lease_revoke(lease.id()).await.unwrap();
        }
    }

    /// The newest revision.
    pub(crate) async fn revision(&self) -> i64 {
        self.client().await.unwrap().get("x", None).await.unwrap().header().unwrap().revision()
    }

    /// Makes revisions before this one unknown.
    pub(crate) async fn compact(&self) {
        let now = self.revision().await;
        self.client().await.unwrap().compact(now, None).await.unwrap();
    }

    /// Where certificates and keys are, and who signs them.
    pub(crate) fn pki(&self) -> &Pki {
        &self.pki
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// etcd client YAML.
    pub(crate) fn config(&self) -> String {
        self.config_at(&[self.port])
    }

    /// The same, with other ports of the same host.
    pub(crate) fn config_at(&self, ports: &[u16]) -> String {
        let scheme = if self.auth.is_some() { "http" } else { "https" };
        let endpoints = ports.iter().map(|port| format!("- {scheme}://127.0.0.1:{port}\n"));
        let endpoints = endpoints.collect::<String>();
        let rest = match &self.auth {
            Some([user, password]) => format!("username: {user}\npassword: {password}\n"),
            None => {
                let path = |name| self.pki.path(name).display().to_string();
                let [ca, cert, key] = [path("ca.crt"), path("client.crt"), path("client.key")];
                format!("trusted-ca-file: {ca}\ncert-file: {cert}\nkey-file: {key}\n")
            }
        };
        format!("endpoints:\n{endpoints}{rest}")
    }

    pub(crate) async fn client(&self) -> Option<Client> {
        let mut options = ConnectOptions::new().with_timeout(std::time::Duration::from_secs(10));
        options = match &self.auth {
            Some([user, password]) if self.closed => {
                options.with_user(*user, *password).with_auto_token_refresh(true)
            }
            Some(_) => options,
            None => {
                let pem = |name| fs::read(self.pki.path(name)).unwrap();
                let tls = TlsOptions::new()
                    .ca_certificate(Certificate::from_pem(pem("ca.crt")))
                    .identity(Identity::from_pem(pem("client.crt"), pem("client.key")));
                options.with_tls(tls)
            }
        };
        Client::connect([self.url()], Some(options)).await.ok()
    }

    async fn try_get(&self, prefix: &str) -> Option<Vec<(String, String)>> {
        let options = GetOptions::new().with_prefix();
        let answer = self.client().await?.get(prefix, Some(options)).await.ok()?;
        let pair =
            |kv: &etcd_client::KeyValue| (kv.key_str().unwrap().into(), kv.value_str().unwrap().into());
        Some(answer.kvs().iter().map(pair).collect())
    }

    /// It answers, which takes a majority of the members.
    pub(crate) async fn answers(&self) -> bool {
        self.try_get("x").await.is_some()
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

/// A port that nobody has and that the kernel gives to no connection before etcd takes it.
fn free_port() -> u16 {
    let ports = std::iter::repeat_with(|| rand::random_range(20_000..32_000));
    ports.into_iter().find(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok()).unwrap()
}
