//! A whole agent in a network namespace of its own, with the in-memory store.

use super::*;
use crate::net::links::{Links, change};
use crate::net::testing::{TestNetns, is_root};
use control::agent::PolicyMode;
use rtnetlink::{LinkMessageBuilder, LinkVeth};
use std::path::Path;
use std::time::Duration;

const BOUND: Duration = Duration::from_secs(20);

fn config(state_dir: &Path) -> Config {
    Config {
        cluster_name: "cluster1".into(),
        cluster_id: 1,
        node_name: Some("node1".into()),
        node_ips: vec!["192.0.2.1".parse().unwrap()],
        pod_cidrs: vec!["10.60.1.0/29".parse().unwrap(), "fd00:60:1::/112".parse().unwrap()],
        uplinks: vec![],
        kvstore_config: None,
        kvstore_lease_ttl: Duration::from_secs(900),
        clustermesh_config: None,
        clustermesh_cache_ttl: Duration::from_secs(600),
        manifests: None,
        workers: Some(1),
        cpus: vec![],
        poll: Poll::Adaptive,
        policy_mode: PolicyMode::Default,
        state_dir: state_dir.into(),
        socket: state_dir.join("dataplane.sock"),
        metrics: None,
        bpffs: config::DEFAULT_BPFFS.into(),
        conntrack_flows: 1024,
        offload: true,
        offload_after: 3,
        offload_flows: 16,
    }
}

fn add(name: &str, netns: &str, addresses: &[&str]) -> EndpointAdd {
    EndpointAdd {
        namespace: "default".into(),
        name: name.into(),
        netns: netns.into(),
        ifname: "eth0".into(),
        addresses: addresses.iter().map(|ip| ip.parse().unwrap()).collect(),
        labels: [("app".to_owned(), name.to_owned())].into(),
        named_ports: vec![],
        service_account: None,
    }
}

/// Names of the pods' interfaces on the host's side, and addresses in use per pool.
async fn leftovers(agent: &Agent) -> (Vec<String>, Vec<u64>) {
    let links = Links::connect().unwrap().all().await.unwrap();
    let names =
        links.into_iter().map(|link| link.name).filter(|name| name.starts_with("dp") && name != "dphub0");
    let names = names.filter(|name| name != "dphub1").collect();
    (names, agent.ipam().iter().map(|pool| pool.allocated).collect())
}

#[test]
fn endpoints_come_go_and_outlive_the_agent() {
    if !is_root() {
        return;
    }
    let [host, db, gone] = ["agent", "db", "gone"].map(|role| Arc::new(TestNetns::new(role)));
    let state_dir = tempfile::tempdir().unwrap();
    let path = state_dir.path().join("state");
    host.clone().run(move || async move {
        let agent = Agent::start(config(&path)).await.unwrap();
        let made = agent.endpoint_add(add("db-0", &db.name, &["10.60.1.5"])).await.unwrap();
        assert_eq!(
            made.endpoint.addresses,
            ["10.60.1.5", "fd00:60:1::2"].map(|ip| ip.parse::<IpAddr>().unwrap())
        );
        let before = leftovers(&agent).await;

        for (request, message) in [
            (add("db-0", &db.name, &[]), "pod default/db-0: is endpoint"),
            (add("db-1", &db.name, &[]), "interface eth0: exists already"),
            (
                EndpointAdd { ifname: "eth1".into(), ..add("db-1", &db.name, &[]) },
                "one endpoint and no other network",
            ),
            (
                EndpointAdd { service_account: Some("A".into()), ..add("db-1", &gone.name, &[]) },
                "service account `A`",
            ),
            (add("db-1", &host.name, &[]), "is the agent's own"),
            (add("db-1", &gone.name, &["10.60.1.5"]), "address 10.60.1.5: in use by endpoint"),
        ] {
            let error = agent.endpoint_add(request).await.unwrap_err().0;
            assert!(error.contains(message), "{error}");
            assert_eq!(leftovers(&agent).await, before, "after: {error}");
        }
        let lost = agent.endpoint_add(add("gone-0", &gone.name, &[])).await.unwrap().endpoint.id;
        assert!(Agent::start(config(&path)).await.err().unwrap().0.contains("in use by the agent with pid"));
        assert!(
            cleanup(&path, &agent.config.bpffs).await.unwrap_err().0.contains("in use by the agent with pid")
        );
        agent.stop().await;
        // A link whose agent was killed before it wrote the endpoint down.
        let (links, alias) = (Links::connect().unwrap(), format!("{} default/lost", agent.endpoints.alias));
        drop(agent);
        links.add(LinkMessageBuilder::<LinkVeth>::new("dp0", "dp0-pod").build(), "dp0").await.unwrap();
        let index = links.by_name("dp0").await.unwrap().unwrap().index;
        links.set(change(index).alias(&alias).build(), || "alias".into()).await.unwrap();

        let agent = Agent::start(config(&path)).await.unwrap();
        assert_eq!(links.by_name("dp0").await.unwrap(), None);
        let again = agent.endpoints().into_iter().find(|e| e.endpoint.id == made.endpoint.id).unwrap();
        assert_eq!(
            (again.endpoint.mac, again.endpoint.addresses),
            (made.endpoint.mac, made.endpoint.addresses)
        );
        drop(gone);
        let deadline = Instant::now() + BOUND;
        let state = |id| agent.endpoints().into_iter().find(|e| e.endpoint.id == id).unwrap().status.state;
        while state(lost) != "not-ready" {
            assert!(Instant::now() < deadline, "still {}", state(lost));
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        agent.endpoint_delete(lost).await.unwrap();
        assert_eq!(leftovers(&agent).await, before);
        assert!(agent.endpoint_delete(lost).await.unwrap_err().0.contains("no such endpoint"));
        let pins = Path::new(config::DEFAULT_BPFFS).join("dataplane").join(instance::name(&path).unwrap());
        assert!(pins.exists());
        agent.stop().await;
        drop(agent);

        let dir = path.clone();
        let elsewhere = move || async move { Ok(cleanup(&dir, config::DEFAULT_BPFFS.as_ref()).await) };
        let error = db.open().run(elsewhere).await.unwrap().unwrap_err().0;
        let there = format!("`nsenter --net=/run/netns/{} dataplane cleanup", host.name);
        assert!(error.contains(&there) && pins.exists(), "{error}");
        for _ in 0..2 {
            cleanup(&path, config::DEFAULT_BPFFS.as_ref()).await.unwrap();
            let links = Links::connect().unwrap().all().await.unwrap();
            assert_eq!(links.iter().map(|link| &*link.name).collect::<Vec<_>>(), ["lo"]);
            assert!(!pins.exists() && !path.exists());
        }
    });
}
