//! A cluster's etcd, written as another node of the cluster would.

use etcd_client::{Certificate, Client, ConnectOptions, Identity, TlsOptions, Txn, TxnOp};
use serde::Deserialize;
use std::fs;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::Mutex;
use tests::etcd::Etcd;
use tests::node::Cluster;
use tokio::runtime::Runtime;

/// The node that the records are from; there is none.
const NODE: Ipv4Addr = Ipv4Addr::new(10, 0, 1, 200);
/// Operations that etcd takes in one transaction.
pub(super) const MOST: usize = 128;

/// What an agent connects with.
#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct ClientConfig {
    endpoints: Vec<String>,
    trusted_ca_file: PathBuf,
    cert_file: PathBuf,
    key_file: PathBuf,
}

/// A connection.
pub(super) struct Store<'a> {
    etcd: &'a Etcd,
    cluster: &'a Cluster,
    runtime: Runtime,
    client: Mutex<Client>,
}

impl Store<'_> {
    /// Connects with the configuration of the cluster's agents.
    pub(super) fn open(cluster: &Cluster) -> Result<Store<'_>, String> {
        let etcd = cluster.etcd();
        let failed = |error: &dyn std::fmt::Display| format!("etcd of {}: {error}", cluster.name);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| failed(&error))?;
        let config = fs::read_to_string(etcd.client_config()).map_err(|error| failed(&error))?;
        let config: ClientConfig = serde_norway::from_str(&config).map_err(|error| failed(&error))?;
        let read = |path: &PathBuf| fs::read(path).map_err(|error| failed(&error));
        let tls = TlsOptions::new()
            .ca_certificate(Certificate::from_pem(read(&config.trusted_ca_file)?))
            .identity(Identity::from_pem(read(&config.cert_file)?, read(&config.key_file)?));
        let options = ConnectOptions::new().with_tls(tls);
        // The connection belongs to the namespace in which it is first used.
        let connect = || runtime.block_on(Client::connect(&config.endpoints, Some(options)));
        let client = etcd.host.enter(connect).map_err(|error| failed(&error))?;
        Ok(Store { etcd, cluster, runtime, client: Mutex::new(client) })
    }

    /// Writes these keys in one transaction; returns when it is done.
    pub(super) fn put(&self, records: Vec<(String, String)>) -> Result<(), String> {
        self.etcd.host.enter(|| self.put_from_here(records))
    }

    /// As [`Store::put`], for a thread in the etcd's namespace.
    pub(super) fn put_from_here(&self, records: Vec<(String, String)>) -> Result<(), String> {
        let puts: Vec<TxnOp> = records.into_iter().map(|(key, value)| TxnOp::put(key, value, None)).collect();
        let mut client = self.client.lock().map_err(|error| error.to_string())?;
        let done = self.runtime.block_on(client.txn(Txn::new().and_then(puts)));
        done.map(drop).map_err(|error| format!("etcd of {}: {error}", self.cluster.name))
    }

    /// The etcd itself.
    pub(super) fn etcd(&self) -> &Etcd {
        self.etcd
    }

    /// The number of an identity that only these measurements use.
    pub(super) fn identity(&self, number: u32) -> u32 {
        (u32::from(self.cluster.id) << 16) + 60_000 + number
    }

    /// The record of an identity's labels.
    pub(super) fn labels(&self, identity: u32, app: &str) -> (String, String) {
        let cluster = &self.cluster.name;
        let labels = format!(
            "k8s:app={app};k8s:io.cilium.k8s.policy.cluster={cluster};k8s:io.kubernetes.pod.namespace=default;"
        );
        (format!("cilium/state/identities/v1/id/{identity}"), labels)
    }
}

/// The record of an address.
pub(super) fn address(ip: Ipv4Addr, identity: u32) -> (String, String) {
    let record = format!(
        r#"{{"IP":"{ip}","Mask":null,"HostIP":"{NODE}","ID":{identity},"Key":0,"Metadata":"","K8sNamespace":"default","K8sPodName":"p-{ip}"}}"#
    );
    (format!("cilium/state/ip/v1/default/{ip}"), record)
}
