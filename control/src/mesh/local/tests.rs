use super::*;
use crate::mesh::{MeshConfig, Nodes, Outbox};

#[test]
fn an_address_that_moved_to_another_node_is_left_to_it() {
    let config = MeshConfig {
        cluster_name: "west".into(),
        cluster_id: 2,
        node_name: "n1".into(),
        node_addresses: vec!["172.16.2.1".parse().unwrap()],
        kvstore_config: None,
        clustermesh_config: None,
        service_grace: Duration::ZERO,
        cache_ttl: Duration::ZERO,
        lease_ttl: Duration::from_secs(900),
        learned: None,
    };
    let local = Local::new(Arc::new(Shared {
        outbox: Outbox::new(tokio::sync::mpsc::channel(1).0),
        nodes: Mutex::new(Nodes::new("west".into())),
        ids: Mutex::default(),
        persistence: None,
        config,
    }));
    let entry = |host: &str| {
        let value = format!(r#"{{"IP":"10.2.1.5","HostIP":"{host}","ID":131073}}"#).into_bytes();
        Entry { key: "10.2.1.5".into(), value, lease: 1, revision: 1 }
    };
    let prefix = keys::prefix(Kind::Ips, Layout::State, "west");
    let ours = || local.writer.has(Stage::Ip, &format!("{prefix}10.2.1.5"));
    local.show_writer(Stage::Ip, &prefix, &Batch::Entries(vec![entry("172.16.2.1")]));
    assert!(ours(), "from an earlier life, to be withdrawn");
    local.show_writer(Stage::Ip, &prefix, &Batch::Changes(vec![Change::Put(entry("172.16.2.2"))]));
    assert!(!ours());
}
