//! A mesh with its updates folded into what a consumer would hold.

use super::etcd::Etcd;
use control::labels::{self, Labels};
use control::mesh::{Mesh, MeshConfig};
use control::records::{Cidr, IpIdentity, Node, NodeAddress, Port, Service};
use control::update::Update;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use tempfile::TempDir;
use tokio::sync::mpsc;
use wire::Identity;

#[derive(Clone, Default, Debug)]
pub(crate) struct Seen {
    pub(crate) nodes: BTreeSet<String>,
    pub(crate) identities: BTreeMap<u32, String>,
    pub(crate) ips: BTreeMap<String, u32>,
    pub(crate) services: BTreeSet<String>,
    pub(crate) stale: BTreeSet<String>,
    pub(crate) synced: BTreeSet<String>,
    pub(crate) restored: bool,
    /// All of it, whole.
    pub(crate) understood: super::replay::Understood,
    /// Everything that was ever deleted.
    pub(crate) deleted: Vec<String>,
}

impl Seen {
    fn fold(&mut self, update: Update) {
        self.understood.fold(&update);
        match update {
            Update::NodeUpsert(node) => _ = self.nodes.insert(format!("{}/{}", node.cluster, node.name)),
            Update::NodeDelete(cluster, name) => {
                self.delete(format!("{cluster}/{name}"), |seen, key| seen.nodes.remove(key));
            }
            Update::IdentityUpsert(id, labels) => _ = self.identities.insert(id.0, labels.to_string()),
            Update::IdentityDelete(id) => {
                self.delete(id.0.to_string(), |seen, _| seen.identities.remove(&id.0).is_some());
            }
            Update::IpUpsert(cluster, net, ip) => _ = self.ips.insert(format!("{cluster}/{net}"), ip.id),
            Update::IpDelete(cluster, net) => {
                self.delete(format!("{cluster}/{net}"), |seen, key| seen.ips.remove(key).is_some());
            }
            Update::ServiceUpsert(s) => {
                _ = self.services.insert(format!("{}/{}/{}", s.cluster, s.namespace, s.name))
            }
            Update::ServiceDelete(cluster, namespace, name) => {
                self.delete(format!("{cluster}/{namespace}/{name}"), |seen, key| seen.services.remove(key));
            }
            Update::ClusterServices { cluster, stale: true } => _ = self.stale.insert(cluster),
            Update::ClusterServices { cluster, stale: false } => _ = self.stale.remove(&cluster),
            Update::Cluster(..) => {}
            Update::Restored => self.restored = true,
            // Again, too, after the cluster was not configured for a while.
            Update::Synced(cluster) => _ = self.synced.insert(cluster),
        }
    }

    fn delete(&mut self, what: String, remove: impl FnOnce(&mut Seen, &String) -> bool) {
        assert!(remove(self, &what), "{what} is deleted but was not there");
        self.deleted.push(what);
    }
}

pub(crate) struct Agent {
    pub(crate) mesh: Arc<Mesh>,
    pub(crate) dir: TempDir,
    cluster: String,
    node: String,
    id: u8,
    seen: Arc<Mutex<Seen>>,
}

/// How an agent is started.
pub(crate) struct Setup {
    pub(crate) cluster: &'static str,
    pub(crate) id: u8,
    pub(crate) node: u8,
    pub(crate) grace: Duration,
    pub(crate) ttl: Duration,
    pub(crate) lease_ttl: Duration,
}

pub(crate) fn setup(cluster: &'static str, id: u8, node: u8) -> Setup {
    let [grace, ttl, lease_ttl] = [300, 600, 900].map(Duration::from_secs);
    Setup { cluster, id, node, grace, ttl, lease_ttl }
}

impl Setup {
    /// Starts an agent whose node record, with the pod CIDR 10.ID.NODE.0/24, and (no) addresses and services
    /// are set as the agent loop does.
    pub(crate) async fn start(self, own: Option<&Etcd>) -> Agent {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("mesh")).unwrap();
        self.start_in(dir, own).await
    }

    /// Starts it in the directory of an earlier one.
    pub(crate) async fn start_in(self, dir: TempDir, own: Option<&Etcd>) -> Agent {
        let kvstore: Option<PathBuf> = own.map(|etcd| {
            let file = dir.path().join("kvstore.yaml");
            std::fs::write(&file, etcd.config()).unwrap();
            file
        });
        let (sender, mut updates) = mpsc::channel(16);
        let seen: Arc<Mutex<Seen>> = Arc::default();
        let node = format!("n{}", self.node);
        let config = MeshConfig {
            cluster_name: self.cluster.into(),
            cluster_id: self.id,
            node_name: node.clone(),
            node_addresses: vec![host(self.id, self.node).parse().unwrap()],
            kvstore_config: kvstore,
            clustermesh_config: Some(dir.path().join("mesh")),
            service_grace: self.grace,
            cache_ttl: self.ttl,
            lease_ttl: self.lease_ttl,
            learned: Some(dir.path().join("learned")),
        };
        let mesh = Mesh::start(config, sender).await.unwrap();
        let fold = seen.clone();
        tokio::spawn(async move {
            while let Some(update) = updates.recv().await {
                fold.lock().unwrap().fold(update);
            }
        });
        let cidr = format!("10.{}.{}.0/24", self.id, self.node);
        mesh.set_node(Node {
            name: node.clone(),
            cluster: self.cluster.into(),
            cluster_id: self.id.into(),
            ip_addresses: vec![NodeAddress { kind: "InternalIP".into(), ip: host(self.id, self.node) }],
            ipv4_alloc_cidr: Some(Cidr::from(cidr.parse::<ipnet::IpNet>().unwrap())),
            ..Node::default()
        });
        mesh.set_ips(BTreeMap::new());
        mesh.set_services(BTreeMap::new());
        Agent { mesh, dir, cluster: self.cluster.into(), node, id: self.id, seen }
    }
}

fn host(id: u8, node: u8) -> String {
    format!("172.16.{id}.{node}")
}

pub(crate) fn labels(cluster: &str, app: &str) -> Labels {
    let mut labels = Labels::default();
    labels.insert("k8s", "app", app);
    labels.insert("k8s", labels::CLUSTER, cluster);
    labels
}

impl Agent {
    pub(crate) fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap()
    }

    /// Writes or changes the configuration of a remote cluster.
    pub(crate) fn join(&self, cluster: &str, etcd: &Etcd) {
        std::fs::write(self.dir.path().join("mesh").join(cluster), etcd.config()).unwrap();
    }

    /// The same with any text.
    pub(crate) fn join_by(&self, cluster: &str, config: &str) {
        std::fs::write(self.dir.path().join("mesh").join(cluster), config).unwrap();
    }

    pub(crate) fn leave(&self, cluster: &str) {
        std::fs::remove_file(self.dir.path().join("mesh").join(cluster)).unwrap();
    }

    pub(crate) async fn identity(&self, app: &str) -> Identity {
        self.mesh.allocate_identity(&labels(&self.cluster, app), None).await.unwrap()
    }

    /// The pods of this node: address → identity.
    pub(crate) fn set_pods(&self, pods: &[(&str, Identity)]) {
        let node: u8 = self.node[1..].parse().unwrap();
        let record = |ip: &str, id: Identity| IpIdentity {
            ip: ip.into(),
            host_ip: host(self.id, node),
            id: id.0,
            ..IpIdentity::default()
        };
        self.mesh.set_ips(pods.iter().map(|(ip, id)| ((*ip).into(), record(ip, *id))).collect());
    }

    /// The only service of the cluster.
    pub(crate) fn set_service(&self, namespace: &str, name: &str, backend: &str) {
        self.set_services(namespace, &[(name, &[backend])]);
    }

    /// All services of the cluster: name, backends.
    pub(crate) fn set_services(&self, namespace: &str, services: &[(&str, &[&str])]) {
        let port = Port { protocol: "TCP".into(), port: 80 };
        let ports = BTreeMap::from([("http".into(), port)]);
        let service = |name: &str, backends: &[&str]| Service {
            cluster: self.cluster.clone(),
            namespace: namespace.into(),
            name: name.into(),
            backends: backends.iter().map(|backend| ((*backend).into(), ports.clone())).collect(),
            include_external: true,
            shared: true,
            cluster_id: self.id.into(),
            ..Service::default()
        };
        let services = services
            .iter()
            .map(|(name, backends)| ((namespace.to_owned(), (*name).to_owned()), service(name, backends)));
        self.mesh.set_services(services.collect());
    }

    pub(crate) fn remote(&self, cluster: &str) -> Option<control::model::RemoteStatus> {
        self.mesh.remote_status().into_iter().find(|remote| remote.name == cluster)
    }

    pub(crate) fn ready(&self, cluster: &str) -> bool {
        self.remote(cluster).is_some_and(|remote| remote.ready)
    }
}
