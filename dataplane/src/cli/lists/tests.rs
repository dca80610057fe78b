use super::*;
use control::model::BackendView;

#[test]
fn nodes() {
    let node = |name: &str, v4: &str, v6: Option<&str>| NodeView {
        name: name.into(),
        ipv4_address: v4.parse().ok(),
        ipv4_cidrs: vec!["10.60.1.0/24".into()],
        ipv6_address: v6.and_then(|ip| ip.parse().ok()),
        ipv6_cidrs: v6.map(|_| "fd00:60:1::/112".into()).into_iter().collect(),
        source: "local".into(),
    };
    let nodes =
        [node("cluster2/node1", "10.0.2.1", None), node("cluster1/node1", "10.0.1.1", Some("fd00:1::1"))];
    assert_eq!(
        node_table(&nodes),
        "Name             IPv4 Address   Endpoint CIDR   IPv6 Address   Endpoint CIDR\n\
         cluster1/node1   10.0.1.1       10.60.1.0/24    fd00:1::1      fd00:60:1::/112\n\
         cluster2/node1   10.0.2.1       10.60.1.0/24\n"
    );
}

#[test]
fn identities() {
    let host = IdentityView { id: 1, labels: vec!["reserved:host".into()] };
    let db = IdentityView {
        id: 131200,
        labels: vec!["k8s:app=db".into(), "k8s:io.cilium.k8s.policy.cluster=cluster1".into()],
    };
    assert_eq!(
        identity_table(&[host, db]),
        "ID       LABELS\n\
         1        reserved:host\n\
         131200   k8s:app=db\n\
         \u{20}        k8s:io.cilium.k8s.policy.cluster=cluster1\n"
    );
}

#[test]
fn services_show_where_remote_backends_are() {
    let backend = |address: &str, cluster: &str, share: f64| BackendView {
        address: address.into(),
        state: "active".into(),
        cluster: cluster.into(),
        preferred: share > 0.0,
        share,
    };
    let service = ServiceView {
        id: 7,
        namespace: "default".into(),
        name: "db".into(),
        frontend: "10.96.14.7:80/TCP".into(),
        kind: "ClusterIP".into(),
        global: true,
        remote: false,
        backends: vec![
            backend("10.1.0.20:8080/TCP", "cluster1", 100.0),
            backend("10.3.0.15:8080/TCP", "cluster3", 0.0),
        ],
    };
    assert_eq!(
        service_table(std::slice::from_ref(&service), "cluster1", false),
        "ID   Frontend            Service Type   Backend                                       Name\n\
         7    10.96.14.7:80/TCP   ClusterIP      1 => 10.1.0.20:8080/TCP (active)              default/db (global)\n\
         \u{20}                                       2 => 10.3.0.15:8080/TCP (active) (cluster3)\n"
    );
    let preferred = service_table(std::slice::from_ref(&service), "cluster1", true);
    assert!(preferred.contains("1 => 10.1.0.20:8080/TCP (active) (preferred)"), "{preferred}");
    let elsewhere = ServiceView {
        id: 0,
        frontend: "None".into(),
        remote: true,
        backends: vec![
            backend("10.1.0.20:8080/TCP", "cluster1", 79.9),
            backend("10.3.0.15:8080/TCP", "cluster3", 20.0),
        ],
        ..service
    };
    assert_eq!(
        service_table(&[elsewhere], "cluster1", false),
        "ID   Frontend   Service Type         Backend                                             Name\n\
         -    None       ClusterIP (Remote)   1 => 10.1.0.20:8080/TCP (active) (79.9%)            default/db (global)\n\
         \u{20}                                    2 => 10.3.0.15:8080/TCP (active) (cluster3) (20%)\n"
    );
}

#[test]
fn ipcache() {
    let entry = IpcacheView {
        prefix: "10.3.0.15/32".into(),
        identity: 197121,
        tunnel_endpoint: "192.168.30.11".parse().ok(),
        source: "clustermesh".into(),
        cluster: Some("cluster3".into()),
        pod: Some("shop/web-0".into()),
    };
    let world = IpcacheView {
        prefix: "0.0.0.0/0".into(),
        identity: 2,
        tunnel_endpoint: None,
        source: "generated".into(),
        cluster: None,
        pod: None,
    };
    assert_eq!(
        ipcache_table(&[world, entry]),
        "IP PREFIX/ADDRESS   IDENTITY   NODE            SOURCE        CLUSTER    POD\n\
         0.0.0.0/0           world                      generated\n\
         10.3.0.15/32        197121     192.168.30.11   clustermesh   cluster3   shop/web-0\n"
    );
}
