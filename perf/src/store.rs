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
pub(crate) const MOST: usize = 128;

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
pub(crate) struct Store<'a> {
    etcd: &'a Etcd,
    cluster: &'a Cluster,
    runtime: Runtime,
    client: Mutex<Client>,
}

impl Store<'_> {
    /// Connects with the configuration of the cluster's agents.
    pub(crate) fn open(cluster: &Cluster) -> Result<Store<'_>, String> {
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

    /// Writes these keys, as many in a transaction as etcd takes; returns when it is done.
    pub(crate) fn put(&self, records: Vec<(String, String)>) -> Result<(), String> {
        let put = |records: &[_]| self.put_from_here(records.to_vec());
        self.etcd.host.enter(|| records.chunks(MOST).try_for_each(put))
    }

    /// Writes these keys in one transaction, for a thread in the etcd's namespace.
    pub(crate) fn put_from_here(&self, records: Vec<(String, String)>) -> Result<(), String> {
        let puts: Vec<TxnOp> = records.into_iter().map(|(key, value)| TxnOp::put(key, value, None)).collect();
        let mut client = self.client.lock().map_err(|error| error.to_string())?;
        let done = self.runtime.block_on(client.txn(Txn::new().and_then(puts)));
        done.map(drop).map_err(|error| format!("etcd of {}: {error}", self.cluster.name))
    }

    /// The etcd itself.
    pub(crate) fn etcd(&self) -> &Etcd {
        self.etcd
    }

    /// The number of an identity that only these measurements use.
    pub(crate) fn identity(&self, number: u32) -> u32 {
        (u32::from(self.cluster.id) << 16) + 60_000 + number
    }

    /// The record of an identity's labels.
    pub(crate) fn labels(&self, identity: u32, app: &str) -> (String, String) {
        (format!("cilium/state/identities/v1/id/{identity}"), labels(&self.cluster.name, app))
    }
}

fn labels(cluster: &str, app: &str) -> String {
    format!(
        "k8s:app={app};k8s:io.cilium.k8s.policy.cluster={cluster};k8s:io.kubernetes.pod.namespace=default;"
    )
}

/// Everything of another cluster, as kvstoremesh mirrors it: an identity, and addresses that have it.
pub(crate) fn mirrored(cluster: &str, id: u8, addresses: &[Ipv4Addr]) -> Vec<(String, String)> {
    let identity = (u32::from(id) << 16) + 256;
    let mut records: Vec<_> = addresses
        .iter()
        .map(|&ip| (format!("cilium/cache/ip/v1/{cluster}/{ip}"), address(ip, identity).1))
        .collect();
    records
        .push((format!("cilium/cache/identities/v1/{cluster}/id/{identity}"), labels(cluster, "somebody")));
    for kind in ["nodes", "identities", "ip", "services"] {
        records.push((format!("cilium/synced/{cluster}/cilium/cache/{kind}/v1"), "done".to_owned()));
    }
    let capabilities = r#"{"syncedCanaries":true,"cached":true,"maxConnectedClusters":255}"#;
    let config = format!(r#"{{"id":{id},"capabilities":{capabilities}}}"#);
    records.push((format!("cilium/cluster-config/{cluster}"), config));
    records
}

/// The record of an address.
pub(crate) fn address(ip: Ipv4Addr, identity: u32) -> (String, String) {
    let record = format!(
        r#"{{"IP":"{ip}","Mask":null,"HostIP":"{NODE}","ID":{identity},"Key":0,"Metadata":"","K8sNamespace":"default","K8sPodName":"p-{ip}"}}"#
    );
    (format!("cilium/state/ip/v1/default/{ip}"), record)
}
