use super::*;
use crate::api::model::{ConntrackStatus, LinkStatus, PoolStatus, WorkerStatus};
use control::model::{ControlStatus, KvstoreStatus, ManifestError};

fn remote(name: &str, ready: bool) -> RemoteStatus {
    RemoteStatus {
        name: name.into(),
        ready,
        connected: ready,
        status: "etcd: 1/1 connected".into(),
        cluster_id: ready.then_some(102),
        sync_canaries: true,
        num_nodes: 2,
        num_endpoints: 5,
        num_identities: 3,
        num_shared_services: 1,
        synced: [("endpoints", ready), ("identities", ready), ("nodes", ready), ("services", ready)]
            .map(|(kind, done)| (kind.to_owned(), done))
            .into(),
        num_failures: u64::from(!ready),
        last_failure_seconds: (!ready).then_some(182),
        last_contact_seconds: Some(190),
        ..RemoteStatus::default()
    }
}

fn status() -> Status {
    let link = |name: &str, role: &str, mtu| LinkStatus {
        name: name.into(),
        role: role.into(),
        mtu,
        mode: "copy".into(),
        xdp: "native".into(),
    };
    Status {
        version: "0.1.0".into(),
        cluster_name: "cluster1".into(),
        cluster_id: 101,
        node_name: "node1".into(),
        node_addresses: vec!["10.0.1.1".parse().unwrap(), "fd00:1::1".parse().unwrap()],
        kvstore_config: None,
        clustermesh_config: None,
        uptime_seconds: 3723,
        control: ControlStatus {
            kvstore: KvstoreStatus {
                kind: "etcd".into(),
                connected: true,
                status: "1/1 connected".into(),
                leader: true,
                ..KvstoreStatus::default()
            },
            remotes: vec![remote("cluster2", true)],
            objects: [("CiliumNetworkPolicy".to_owned(), 1), ("Service".to_owned(), 2)].into(),
            synced: true,
            ..ControlStatus::default()
        },
        ipam: vec![PoolStatus { cidr: "10.60.1.0/24".into(), allocated: 3, capacity: 253 }],
        datapath: DatapathStatus {
            poll: "adaptive".into(),
            workers: vec![WorkerStatus { cpu: Some(1), alive: true, ..WorkerStatus::default() }],
            links: vec![link("dphub0", "hub", 1500), link("eth0", "uplink", 1500)],
            kernel_drops: [("hub_socket".to_owned(), 0), ("unmarked".to_owned(), 0)].into(),
        },
        conntrack: ConntrackStatus { entries: 12, capacity: 262_144, evicted: 0, full: 0 },
        offload: OffloadStatus {
            enabled: true,
            after: 3,
            entries: 10,
            capacity: 65_536,
            inserted: 14,
            removed: [("expired".to_owned(), 1), ("revoked".to_owned(), 3)].into(),
            full: 0,
            packets: 1000,
            bytes: 64_000,
        },
        endpoints: [("ready".to_owned(), 3)].into(),
        identities: 9,
        problems: vec![],
    }
}

#[test]
fn a_healthy_node() {
    assert_eq!(
        text(&status(), false),
        "KVStore:                 Ok   etcd: 1/1 connected, publishes the cluster's services\n\
         Dataplane:               Ok   0.1.0\n\
         Node:                    cluster1/node1 (cluster id 101), 10.0.1.1, fd00:1::1, up 1h2m3s\n\
         IPAM:                    IPv4: 3/253 allocated from 10.60.1.0/24\n\
         Endpoints:               3 ready\n\
         Workers:                 worker 0 (cpu 1), poll adaptive\n\
         Datapath:                hub dphub0: AF_XDP copy, XDP native, MTU 1500\n\
         \u{20}                        uplink eth0: AF_XDP copy, XDP native, MTU 1500\n\
         Conntrack:               12/262144 entries, 0 evicted\n\
         Offload:                 on   10/65536 verdicts cached\n\
         Global Identity Range:   min 6619136, max 6684671, 9 known\n\
         Manifests:               Ok   1 CiliumNetworkPolicy, 2 Service\n\
         ClusterMesh:             1/1 remote clusters ready\n"
    );
    assert_eq!(brief(&status()), "OK");
}

#[test]
fn what_is_wrong_is_shown() {
    let mut status = status();
    status.problems = vec!["kvstore: connection refused".into(), "worker 0: eth0 is gone".into()];
    status.control.kvstore.connected = false;
    status.control.kvstore.status = "connection refused".into();
    status.control.remotes.push(RemoteStatus {
        refused: 2,
        last_refusal: Some("node x: ClusterID: 7: must be 103".into()),
        revision: Some(812),
        last_audit_seconds: Some(300),
        certificates: vec![CertificateStatus {
            kind: "cert-file".into(),
            subject: "CN=remote".into(),
            expires: "2026-11-25T00:00:00Z".into(),
            expires_in_seconds: 200_000,
            ..CertificateStatus::default()
        }],
        ..remote("cluster3", false)
    });
    status.control.conflicts = vec!["cluster id 102 is used by cluster2 and cluster4".into()];
    status.control.manifest_errors = vec![ManifestError {
        source: "policy.yaml#2".into(),
        message: "spec.ingress[0].toFQDNs: is not supported".into(),
        last_good_in_force: true,
    }];
    status.datapath.kernel_drops.insert("hub_socket".into(), 2);
    status.offload.full = 7;
    let text = text(&status, false);
    for expected in [
        "KVStore:                 Failure   etcd: connection refused, publishes the cluster's services\n",
        "Dataplane:               Failure   0.1.0   kvstore: connection refused; worker 0: eth0 is gone\n",
        "Lost in the kernel:      2 packets: no worker serves this queue of the hub\n",
        "Offload:                 on   10/65536 verdicts cached, 7 found no room: raise --offload-flows\n",
        "Manifests:               1 refused; in force: 1 CiliumNetworkPolicy, 2 Service\n   \
         policy.yaml#2: spec.ingress[0].toFQDNs: is not supported (its last good version is in force)\n",
        "ClusterMesh:             1/2 remote clusters ready\n   \
         cluster3: not-ready, 2 nodes, 5 endpoints, 3 identities, 1 services, 0 endpoint slices, 1 reconnections (last: 3m2s ago)\n   \
         └  etcd: 1/1 connected\n   \
         └  remote configuration: expected=unknown, retrieved=unknown\n   \
         └  synchronization status: endpoints=false, identities=false, nodes=false, services=false\n   \
         └  data last confirmed 3m10s ago, revision 812; compared in full 5m0s ago, 0 repaired so far\n   \
         └  cert-file: CN=remote, until 2026-11-25T00:00:00Z (2 days left)\n   \
         └  2 records refused, newest: node x: ClusterID: 7: must be 103\n\
         Conflicts:               cluster id 102 is used by cluster2 and cluster4\n",
    ] {
        assert!(text.contains(expected), "{expected}\nis not in\n{text}");
    }
    assert_eq!(brief(&status), "error in kvstore: connection refused");
}
