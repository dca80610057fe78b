use super::*;
use crate::testing::*;
use proptest::prelude::*;
use std::collections::BTreeSet;
use tables::Direction::Ingress;
use wire::Protocol;

/// Something that happens to one thing; later events about the same thing replace earlier ones.
#[derive(Clone, Debug)]
enum Event {
    Identity(u32, Option<&'static str>),
    Ip(&'static str, u8, Option<u32>),
    Node(&'static str, Option<u8>),
    Service(&'static str, Option<u8>),
    Policy(u8, Option<&'static str>),
    Pod(u16, bool),
    Stale(&'static str, bool),
}

const CLUSTERS: [&str; 3] = ["cluster1", "cluster2", "cluster3"];
const SPECS: [&str; 3] = [
    "{endpointSelector: {}, ingress: [{fromEndpoints: [{matchLabels: {app: a, io.cilium.k8s.policy.cluster: cluster2}}]}]}",
    "{endpointSelector: {}, ingressDeny: [{fromCIDRSet: [{cidr: 10.9.0.0/16, except: [10.9.9.0/24]}]}]}",
    "{endpointSelector: {matchLabels: {app: p1}}, ingress: [{fromEntities: [remote-node]}]}",
];

fn event() -> impl Strategy<Value = Event> {
    let cluster = prop::sample::select(CLUSTERS.to_vec());
    let other = prop::sample::select(CLUSTERS[1..].to_vec());
    let identity = (1u32..4, 0u32..3).prop_map(|(cluster, n)| cluster << 16 | n);
    let app = proptest::option::of(prop::sample::select(vec!["app=a", "app=b"]));
    let spec = proptest::option::of(prop::sample::select(SPECS.to_vec()));
    prop_oneof![
        (identity.clone(), app).prop_map(|(id, app)| Event::Identity(id, app)),
        (cluster, 0u8..4, proptest::option::of(identity)).prop_map(|(c, ip, id)| Event::Ip(c, ip, id)),
        (other.clone(), proptest::option::of(0u8..3)).prop_map(|(c, cidr)| Event::Node(c, cidr)),
        (other.clone(), proptest::option::of(0u8..4)).prop_map(|(c, ip)| Event::Service(c, ip)),
        (0u8..3, spec).prop_map(|(n, spec)| Event::Policy(n, spec)),
        (1u16..3, any::<bool>()).prop_map(|(id, there)| Event::Pod(id, there)),
        (other, any::<bool>()).prop_map(|(c, stale)| Event::Stale(c, stale)),
    ]
}

/// Events with the same key keep their order; all others may change places.
fn key(event: &Event) -> (u8, u32, &'static str) {
    match event {
        Event::Identity(id, _) => (0, *id, ""),
        Event::Ip(cluster, ip, _) => (1, (*ip).into(), cluster),
        Event::Node(cluster, _) => (2, 0, cluster),
        Event::Service(cluster, _) => (3, 0, cluster),
        Event::Policy(n, _) => (4, (*n).into(), ""),
        Event::Pod(id, _) => (5, (*id).into(), ""),
        Event::Stale(cluster, _) => (6, 0, cluster),
    }
}

fn address(n: u8) -> String {
    format!("10.9.{n}.{n}")
}

fn apply(world: &mut World, event: &Event) {
    let ip = |n: u8| address(n).parse::<IpAddr>().expect("address");
    let update = match event {
        Event::Identity(id, Some(app)) => {
            let cluster = CLUSTERS[(*id >> 16) as usize - 1];
            Update::IdentityUpsert(Identity(*id), labels(cluster, "default", app))
        }
        Event::Identity(id, None) => Update::IdentityDelete(Identity(*id)),
        Event::Ip(cluster, n, Some(id)) => {
            let record = records::IpIdentity { host_ip: "10.0.9.9".into(), id: *id, ..Default::default() };
            Update::IpUpsert(cluster.to_string(), ip(*n).into(), record)
        }
        Event::Ip(cluster, n, None) => Update::IpDelete(cluster.to_string(), ip(*n).into()),
        Event::Node(cluster, Some(n)) => {
            Update::NodeUpsert(node(cluster, "node1", "10.0.9.9", &format!("10.9.{n}.0/24")))
        }
        Event::Node(cluster, None) => Update::NodeDelete(cluster.to_string(), "node1".into()),
        Event::Service(cluster, Some(n)) => {
            let port = records::Port { protocol: "TCP".into(), port: 80 };
            let backends = BTreeMap::from([(address(*n), BTreeMap::from([("http".to_string(), port)]))]);
            Update::ServiceUpsert(records::Service {
                cluster: cluster.to_string(),
                namespace: "default".into(),
                name: "web".into(),
                backends,
                shared: true,
                ..Default::default()
            })
        }
        Event::Service(cluster, None) => {
            Update::ServiceDelete(cluster.to_string(), "default".into(), "web".into())
        }
        Event::Stale(cluster, stale) => {
            Update::ClusterServices { cluster: cluster.to_string(), stale: *stale }
        }
        Event::Policy(n, Some(spec)) => {
            let head = "apiVersion: cilium.io/v2\nkind: CiliumNetworkPolicy\nmetadata:";
            world.manifest(&format!("{head} {{name: p{n}, namespace: default}}\nspec: {spec}\n"));
            return;
        }
        Event::Policy(n, None) => {
            let key =
                ObjectKey { kind: "CiliumNetworkPolicy", namespace: "default".into(), name: format!("p{n}") };
            return world.state.object(ObjectEvent::Delete(key));
        }
        Event::Pod(id, true) => {
            let n = u32::from(*id);
            world.pod(pod(
                *id,
                "default",
                "p",
                &format!("10.1.1.{}", 10 + id),
                &format!("app=p{id}"),
                0x1_0100 + n,
            ));
            return;
        }
        Event::Pod(id, false) => {
            world.state.remove_endpoint(*id);
            return;
        }
    };
    world.updates([update]);
}

/// Everything that a packet could notice. Identities of prefixes are node-local numbers, so they
/// are shown by their labels.
fn tables_of(world: &mut World) -> BTreeSet<String> {
    let name = |identity: Identity| match identity.0 >> 24 {
        1 => world.state.selectors.labels(identity).expect("labels of a prefix").to_string(),
        _ => identity.0.to_string(),
    };
    let snapshot = world.publisher.current();
    let mut seen = BTreeSet::new();
    for (prefix, entry) in snapshot.ipcache.iter() {
        let hop = snapshot.hops.get(entry.hop).map(|hop| hop.node);
        seen.insert(format!("{prefix} {} {hop:?}", name(entry.identity)));
    }
    for service in snapshot.services.iter() {
        seen.insert(format!("{:?} {:?}", service.frontend(), service.backends()));
    }
    for endpoint in snapshot.endpoints.iter() {
        for (identity, _) in world.state.selectors.identities() {
            let decision = endpoint.policy.decide(Ingress, identity, Protocol::TCP, 80);
            let allowed = matches!(decision, tables::Decision::Allow { .. });
            seen.insert(format!("{} {} {} {allowed}", endpoint.id, endpoint.identity.0, name(identity)));
        }
    }
    seen
}

const SERVICE: &str = "apiVersion: v1
kind: Service
metadata: {name: web, namespace: default, annotations: {service.cilium.io/global: 'true'}}
spec: {clusterIP: 10.96.0.1, ports: [{name: http, port: 80}], selector: {app: a}}
";

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    #[test]
    fn the_order_of_events_does_not_matter(
        events in prop::collection::vec((event(), any::<u32>(), any::<bool>()), 0..40),
    ) {
        let mut one = World::new();
        one.manifest(SERVICE);
        events.iter().for_each(|(event, ..)| apply(&mut one, event));
        one.run();

        // The same events shuffled, but for those about the same thing; published now and then.
        let mut shuffled: Vec<_> = events.iter().collect();
        shuffled.sort_by_key(|(event, random, _)| (*random, key(event)));
        let mut turn: BTreeMap<_, std::collections::VecDeque<&Event>> = BTreeMap::new();
        events.iter().for_each(|(event, ..)| turn.entry(key(event)).or_default().push_back(event));
        let mut other = World::new();
        for (event, _, publish) in shuffled {
            let next = turn.get_mut(&key(event)).and_then(|queue| queue.pop_front());
            apply(&mut other, next.expect("as many as were put in"));
            if *publish {
                other.run();
            }
        }
        other.manifest(SERVICE).run();
        prop_assert_eq!(tables_of(&mut one), tables_of(&mut other));
    }
}

#[test]
fn a_restored_pod_keeps_its_identity_until_the_allocator_says_otherwise() {
    let mut world = World::new();
    world.pod(pod(1, "shop", "web-0", "10.1.1.10", "app=web", 0x1_0005)).run();
    assert_eq!(world.lookup("10.1.1.10").0, 0x1_0005);
    // Labels of the namespace arrive later and belong to the identity from before.
    world.manifest("apiVersion: v1\nkind: Namespace\nmetadata: {name: shop, labels: {team: x}}").run();
    let held = world.state.selectors.labels(Identity(0x1_0005)).expect("labels").clone();
    assert!(held.to_string().contains("namespace.labels.team=x"));
    assert_eq!(
        world.state.assign(1, Identity(0x1_0005), &held),
        None,
        "nothing to give back: it was restored"
    );
    // New labels: the old identity stays in force until there is a new one.
    world.manifest("apiVersion: v1\nkind: Namespace\nmetadata: {name: shop, labels: {team: y}}").run();
    assert_eq!(world.lookup("10.1.1.10").0, 0x1_0005);
    let wanted = world.state.endpoints[&1].wanted.clone();
    assert_eq!(world.state.assign(1, Identity(0x1_0006), &held), Some(Identity(0x1_0006)), "too late");
    assert_eq!(world.state.assign(1, Identity(0x1_0006), &wanted), Some(Identity(0x1_0005)));
    world.run();
    assert_eq!(world.lookup("10.1.1.10").0, 0x1_0006);
    assert_eq!(world.state.remove_endpoint(1), Some(Identity(0x1_0006)));
}

#[test]
fn an_identity_that_the_store_gives_to_others_is_out_of_use_at_once() {
    let mut world = World::new();
    world.pod(pod(1, "shop", "web-0", "10.1.1.10", "app=web", 0x1_0005)).run();
    let wanted = world.state.endpoints[&1].wanted.clone();
    world.state.assign(1, Identity(0x1_0005), &wanted);
    world.updates([Update::IdentityUpsert(Identity(0x1_0005), wanted.clone())]).run();
    assert_eq!(world.lookup("10.1.1.10").0, 0x1_0005);

    let other = labels("cluster1", "shop", "app=other");
    world.updates([Update::IdentityUpsert(Identity(0x1_0005), other)]).run();
    assert_eq!(world.publisher.current().endpoints.iter().count(), 0);
    assert_eq!(world.lookup("10.1.1.10").0, 0);
    assert!(world.state.own_records().is_empty(), "nor are others told");
    assert_eq!(world.state.assign(1, Identity(0x1_0006), &wanted), None, "nothing to give back");
    world.run();
    assert_eq!(world.lookup("10.1.1.10").0, 0x1_0006);
    assert_eq!(world.publisher.current().endpoints.iter().count(), 1);
}

#[test]
fn a_pod_manifest_adds_what_the_endpoint_was_not_told() {
    let mut world = World::new();
    let mut bare = pod(1, "shop", "web-0", "10.1.1.10", "", 0x1_0005);
    let manifest = "apiVersion: v1
kind: Pod
metadata: {name: web-0, namespace: shop, labels: {app: web}}
spec:
  serviceAccountName: seller
  containers: [{name: c, ports: [{name: http, containerPort: 8080}]}]
";
    world.pod(bare.clone()).manifest(manifest);
    let endpoint = &world.state.endpoints[&1];
    assert_eq!(
        endpoint.wanted.to_string(),
        "k8s:app=web;k8s:io.cilium.k8s.namespace.labels.kubernetes.io/metadata.name=shop;\
         k8s:io.cilium.k8s.policy.cluster=cluster1;k8s:io.cilium.k8s.policy.serviceaccount=seller;\
         k8s:io.kubernetes.pod.namespace=shop;"
    );
    assert_eq!(endpoint.named_ports[0].port, 8080);
    assert_eq!(world.state.own_records()["10.1.1.10"].k8s_service_account, "seller");
    bare.labels = map("app=own");
    world.pod(bare);
    assert!(world.state.endpoints[&1].wanted.to_string().contains("app=own"));
}

#[test]
fn an_old_delete_does_not_remove_a_newer_owner() {
    let mut world = World::new();
    world.pod(pod(1, "default", "old", "10.1.1.10", "app=old", 0x1_0001));
    world.pod(pod(2, "default", "new", "10.1.1.10", "app=new", 0x1_0002));
    world.state.remove_endpoint(1);
    world.run();
    assert_eq!(world.lookup("10.1.1.10").0, 0x1_0002);
    let [_, ip] = elsewhere("cluster2", "default", "app=x", 0x2_0001, "10.2.1.1");
    let [labels, same] = elsewhere("cluster3", "default", "app=x", 0x3_0001, "10.2.1.1");
    let delete = Update::IpDelete("cluster2".into(), "10.2.1.1/32".parse().expect("prefix"));
    world.updates([ip, labels, same, delete]).run();
    assert_eq!(world.lookup("10.2.1.1").0, 0x3_0001);
}

#[test]
fn addresses_of_our_pod_cidrs_cannot_be_claimed_by_other_clusters() {
    let mut world = World::new();
    world
        .updates(elsewhere("cluster2", "default", "app=forged", 0x2_0001, "10.1.1.77"))
        .updates(elsewhere("cluster2", "default", "app=forged", 0x2_0001, "10.1.2.77"))
        .updates(elsewhere("cluster2", "default", "app=forged", 0x2_0001, "10.9.9.77"))
        .run();
    assert_eq!(world.lookup("10.1.1.77").0, 0, "a pod CIDR of this node");
    assert_eq!(world.lookup("10.1.2.77").0, 0x2_0001, "nobody here has it");
    world.updates([Update::NodeUpsert(node("cluster1", "node2", "10.0.1.2", "10.1.2.0/24"))]).run();
    let unknown_by_node2 = (Identity::UNKNOWN.0, Some("10.0.1.2".to_string()));
    assert_eq!(world.lookup("10.1.2.77"), unknown_by_node2, "the pod CIDR of a node of this cluster");
    assert_eq!(world.lookup("10.9.9.77").0, 0x2_0001);
    world.updates([Update::NodeDelete("cluster1".into(), "node2".into())]).run();
    assert_eq!(world.lookup("10.1.2.77").0, 0x2_0001);
}

#[test]
fn between_other_clusters_the_lower_number_wins() {
    let mut world = World::new();
    let cidr = |cluster, cidr| Update::NodeUpsert(node(cluster, "n", "10.0.9.1", cidr));
    world
        // The order of names is not that of numbers.
        .updates([Update::Cluster("cluster2".into(), 9), Update::Cluster("cluster3".into(), 5)])
        .updates(elsewhere("cluster2", "default", "app=x", 0x9_0001, "10.5.1.1"))
        .updates(elsewhere("cluster3", "default", "app=x", 0x5_0001, "10.5.1.1"))
        .updates(elsewhere("cluster2", "default", "app=x", 0x9_0001, "10.5.1.2"))
        .updates(elsewhere("cluster3", "default", "app=x", 0x5_0001, "10.6.1.2"))
        .run();
    assert_eq!(world.lookup("10.5.1.1").0, 0x5_0001, "claimed twice");
    assert_eq!(
        world.state.ipcache.conflicts(9),
        ["10.5.1.1/32 is claimed by clusters cluster3, cluster2; cluster3 counts"]
    );
    assert_eq!(
        world.state.ipcache.conflicts(0),
        ["1 more prefixes are claimed in vain or by several clusters"]
    );
    assert_eq!(world.lookup("10.5.1.2").0, 0x9_0001);
    world.updates([cidr("cluster3", "10.5.0.0/16"), cidr("cluster2", "10.6.0.0/16")]).run();
    assert_eq!(
        world.lookup("10.5.1.2").0,
        Identity::UNKNOWN.0,
        "in a pod CIDR of a cluster that comes before"
    );
    let withheld =
        "10.5.1.2/32 is claimed by cluster cluster2; none counts, as it overlaps a pod CIDR of cluster3";
    assert!(world.state.ipcache.conflicts(9).iter().any(|conflict| conflict == withheld));
    assert_eq!(world.lookup("10.6.1.2").0, 0x5_0001, "in a pod CIDR of a cluster that comes after");
    let delete = Update::IpDelete("cluster3".into(), "10.5.1.1/32".parse().expect("prefix"));
    world.updates([Update::NodeDelete("cluster3".into(), "n".into()), delete]).run();
    assert_eq!((world.lookup("10.5.1.1").0, world.lookup("10.5.1.2").0), (0x9_0001, 0x9_0001));
    assert!(world.state.ipcache.conflicts(9).is_empty());
}
