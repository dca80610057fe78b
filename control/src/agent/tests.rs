use super::*;
use crate::testing::pod;
use wire::Address;

fn config() -> ControlConfig {
    ControlConfig {
        cluster_name: "cluster1".into(),
        cluster_id: 1,
        node_name: "node1".into(),
        node_addresses: vec!["10.0.1.1".parse().expect("address")],
        gateways: vec!["10.1.1.1".parse().expect("address")],
        pod_cidrs: vec!["10.1.1.0/24".parse().expect("prefix")],
        kvstore_config: None,
        clustermesh_config: None,
        endpoints: Vec::new(),
        manifests: None,
        policy_mode: PolicyMode::Default,
        cache_ttl: Duration::from_secs(600),
        service_grace: Duration::from_secs(30),
        lease_ttl: Duration::from_secs(900),
        learned: None,
    }
}

fn unidentified(pod: LocalEndpoint) -> LocalEndpoint {
    LocalEndpoint { identity: None, ..pod }
}

/// The identity that the tables have for an address.
fn published(publisher: &Publisher, ip: &str) -> Option<u32> {
    let address = Address::from(ip.parse::<IpAddr>().expect("address"));
    publisher.current().ipcache.lookup(address).map(|entry| entry.identity.0)
}

async fn until(mut condition: impl FnMut() -> bool) {
    let wait = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), wait).await.expect("it never came true");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pods_get_identities_and_policies_their_effect() {
    let directory = tempfile::tempdir().expect("a directory");
    let publisher = Publisher::new(7);
    let config = ControlConfig { manifests: Some(directory.path().into()), ..config() };
    let control = Control::start(config, publisher.clone()).await.expect("start");
    assert!(control.wait_synced(Duration::from_secs(60)).await);

    control.upsert_endpoint(unidentified(pod(1, "default", "db-0", "10.1.1.10", "app=db", 0))).await;
    control.upsert_endpoint(unidentified(pod(2, "default", "db-1", "10.1.1.11", "app=db", 0))).await;
    control.upsert_endpoint(unidentified(pod(3, "default", "web-0", "10.1.1.12", "app=web", 0))).await;
    until(|| publisher.current().endpoints.iter().count() == 3).await;
    let identity = |id| control.endpoint_status(id).and_then(|status| status.identity).expect("an identity");
    assert_eq!(identity(1), identity(2));
    assert_ne!(identity(1), identity(3));
    assert_eq!(identity(1) >> 16, 1, "from the range of cluster 1");
    assert_eq!(published(&publisher, "10.1.1.12"), Some(identity(3)));

    let policy = "apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: {name: db, namespace: default}
spec: {endpointSelector: {matchLabels: {app: db}}, ingress: [{}]}
";
    std::fs::write(directory.path().join("p.yaml"), policy).expect("write");
    until(|| control.endpoint_status(1).is_some_and(|status| status.ingress_enforced)).await;
    assert_eq!(control.policies()[0].endpoints, [1, 2]);

    // A label of the namespace makes another identity; the address is never without one.
    let before = identity(3);
    let namespace = "{apiVersion: v1, kind: Namespace, metadata: {name: default, labels: {team: x}}}";
    std::fs::write(directory.path().join("n.yaml"), namespace).expect("write");
    until(|| {
        let now = published(&publisher, "10.1.1.12").expect("never without an identity");
        now != before
    })
    .await;
    let labels = control.endpoint_status(3).expect("status").labels;
    assert!(labels.contains(&"k8s:io.cilium.k8s.namespace.labels.team=x".to_string()), "{labels:?}");

    control.remove_endpoint(3).await;
    until(|| published(&publisher, "10.1.1.12").is_none()).await;
    assert!(control.endpoint_status(3).is_none());
    control.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restored_pod_has_its_identity_at_once() {
    let publisher = Publisher::new(7);
    // Nobody listens there: the allocator cannot answer.
    let directory = tempfile::tempdir().expect("a directory");
    let etcd = directory.path().join("etcd.yaml");
    std::fs::write(&etcd, "endpoints: ['http://127.0.0.1:1']\n").expect("write");
    let config = ControlConfig {
        endpoints: vec![pod(1, "default", "db-0", "10.1.1.10", "app=db", 0x1_1234)],
        kvstore_config: Some(etcd),
        ..config()
    };
    let control = Control::start(config, publisher.clone()).await.expect("start");
    until(|| published(&publisher, "10.1.1.10") == Some(0x1_1234)).await;
    assert_eq!(control.endpoint_status(1).expect("status").state, "ready");
    assert!(!control.wait_synced(Duration::from_millis(50)).await);
    control.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restored_pod_keeps_its_identity_in_a_new_store() {
    let publisher = Publisher::new(7);
    let db = pod(1, "default", "db-0", "10.1.1.10", "app=db", 0x1_1234);
    let control = Control::start(ControlConfig { endpoints: vec![db], ..config() }, publisher.clone())
        .await
        .expect("start");
    assert!(control.wait_synced(Duration::from_secs(10)).await);
    // Another pod with the same labels gets what the store says.
    control.upsert_endpoint(pod(2, "default", "db-1", "10.1.1.11", "app=db", 0)).await;
    until(|| published(&publisher, "10.1.1.11").is_some()).await;
    assert_eq!(published(&publisher, "10.1.1.11"), Some(0x1_1234));
    control.shutdown().await;
}

#[tokio::test]
async fn wrong_configurations_are_refused_by_name() {
    for (config, expected) in [
        (ControlConfig { cluster_name: "Cluster_1".into(), ..config() }, "Cluster_1"),
        (ControlConfig { cluster_id: 0, ..config() }, "cluster id 0"),
        (ControlConfig { node_name: "a/b".into(), ..config() }, "a/b"),
        (ControlConfig { node_addresses: Vec::new(), ..config() }, "node addresses"),
        (ControlConfig { manifests: Some("/nowhere/at/all".into()), ..config() }, "/nowhere/at/all"),
    ] {
        let error = Control::start(config, Publisher::new(1)).await.expect_err("it is wrong").to_string();
        assert!(error.contains(expected), "{error}");
    }
}
