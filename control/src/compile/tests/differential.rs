//! Random policies against random peers: the compiled tables have to agree with an evaluator that
//! reads the same policies straight from `cilium-interop` 5, one rule after the other.

use super::*;
use proptest::prelude::*;
use serde_json::{Value, json};

const NAMESPACES: [&str; 2] = ["default", "other"];
const APPS: [&str; 3] = ["a", "b", "c"];
const CLUSTERS: [&str; 2] = ["cluster1", "cluster2"];
const PORTS: [u16; 4] = [0, 80, 81, 443];
const PROTOS: [(&str, Protocol); 3] = [("TCP", TCP), ("UDP", Protocol::UDP), ("SCTP", Protocol::SCTP)];
const CIDRS: [&str; 3] = ["192.0.2.0/24", "192.0.2.64/26", "0.0.0.0/0"];
const OUTSIDE: [&str; 3] = ["192.0.2.1", "192.0.2.65", "198.51.100.1"];

#[derive(Clone, Debug)]
enum Peers {
    Absent,
    Endpoints(Vec<(Option<usize>, Option<usize>, Option<usize>)>),
    Cidr(usize, Option<usize>),
    Entity(&'static str),
}

#[derive(Clone, Debug)]
struct Entry {
    peers: Peers,
    /// Port, end, protocol (3: any).
    ports: Vec<(usize, usize, usize)>,
}

#[derive(Clone, Debug)]
struct Policy {
    namespace: usize,
    app: Option<usize>,
    default_deny: Option<bool>,
    ingress: Vec<Entry>,
    ingress_deny: Vec<Entry>,
}

fn entry() -> impl Strategy<Value = Entry> {
    let selector = (
        proptest::option::of(0..APPS.len()),
        proptest::option::of(0..NAMESPACES.len()),
        proptest::option::of(0..CLUSTERS.len()),
    );
    let entities = prop::sample::select(vec!["all", "world", "cluster", "host", "remote-node", "none"]);
    let peers = prop_oneof![
        Just(Peers::Absent),
        prop::collection::vec(selector, 0..3).prop_map(Peers::Endpoints),
        (0..CIDRS.len(), proptest::option::of(1..2usize)).prop_map(|(net, except)| Peers::Cidr(net, except)),
        entities.prop_map(Peers::Entity),
    ];
    let ports = prop::collection::vec((0..PORTS.len(), 0..PORTS.len(), 0..=PROTOS.len()), 0..3);
    (peers, ports).prop_map(|(peers, ports)| Entry { peers, ports })
}

fn policy() -> impl Strategy<Value = Policy> {
    let entries = || prop::collection::vec(entry(), 0..3);
    (0..NAMESPACES.len(), proptest::option::of(0..APPS.len()), any::<Option<bool>>(), entries(), entries())
        .prop_filter("a rule without entries is refused", |(.., a, b)| !(a.is_empty() && b.is_empty()))
        .prop_map(|(namespace, app, default_deny, ingress, ingress_deny)| Policy {
            namespace,
            app,
            default_deny,
            ingress,
            ingress_deny,
        })
}

impl Entry {
    fn json(&self) -> Value {
        let mut entry = json!({});
        match &self.peers {
            Peers::Absent => {}
            Peers::Entity(entity) => entry["fromEntities"] = json!([entity]),
            Peers::Cidr(net, except) => {
                let except: Vec<_> =
                    except.iter().filter(|_| *net == 0).map(|except| CIDRS[*except]).collect();
                entry["fromCIDRSet"] = json!([{"cidr": CIDRS[*net], "except": except}]);
            }
            Peers::Endpoints(selectors) => {
                let json = |(app, namespace, cluster): &(Option<usize>, Option<usize>, Option<usize>)| {
                    let mut labels = json!({});
                    app.iter().for_each(|app| labels["app"] = json!(APPS[*app]));
                    namespace
                        .iter()
                        .for_each(|ns| labels["k8s:io.kubernetes.pod.namespace"] = json!(NAMESPACES[*ns]));
                    cluster.iter().for_each(|c| labels["io.cilium.k8s.policy.cluster"] = json!(CLUSTERS[*c]));
                    json!({"matchLabels": labels})
                };
                entry["fromEndpoints"] = selectors.iter().map(json).collect();
            }
        }
        if !self.ports.is_empty() {
            let json = |&(port, end, proto): &(usize, usize, usize)| {
                let mut json = json!({"port": PORTS[port].to_string()});
                if PORTS[end] > PORTS[port] && PORTS[port] > 0 {
                    json["endPort"] = json!(PORTS[end]);
                }
                if let Some((name, _)) = PROTOS.get(proto) {
                    json["protocol"] = json!(name);
                }
                json
            };
            entry["toPorts"] = json!([{"ports": self.ports.iter().map(json).collect::<Value>()}]);
        }
        entry
    }

    /// Of somebody unknown: whether it may match them, for a rule that denies, or is sure to.
    fn matches(&self, namespace: usize, peer: &Peer, proto: Protocol, port: u16, deny: bool) -> bool {
        let any_port = self.ports.is_empty();
        let port = any_port
            || self.ports.iter().any(|&(first, end, of)| {
                let (first, end) = (PORTS[first], PORTS[end]);
                let last = if first == 0 { u16::MAX } else { end.max(first) };
                PROTOS.get(of).is_none_or(|(_, of)| *of == proto) && (first..=last).contains(&port)
            });
        port && match &self.peers {
            Peers::Absent => !any_port,
            Peers::Entity("all") => true,
            Peers::Entity("none") => false,
            Peers::Entity("cluster") if matches!(peer, Peer::Unknown) => deny,
            Peers::Endpoints(selectors) if matches!(peer, Peer::Unknown) => deny && !selectors.is_empty(),
            Peers::Entity("world") => matches!(peer, Peer::Outside(_)),
            Peers::Entity("cluster") => matches!(peer, Peer::Pod(0, ..) | Peer::Host | Peer::RemoteNode),
            Peers::Entity("host") => matches!(peer, Peer::Host),
            Peers::Entity(_) => matches!(peer, Peer::RemoteNode),
            Peers::Cidr(net, except) => match peer {
                Peer::Outside(ip) => {
                    let inside = |net: usize| {
                        let net: IpNet = CIDRS[net].parse().expect("prefix");
                        net.contains(&OUTSIDE[*ip].parse::<std::net::IpAddr>().expect("address"))
                    };
                    inside(*net) && !except.filter(|_| *net == 0).is_some_and(inside)
                }
                _ => false,
            },
            Peers::Endpoints(selectors) => match peer {
                Peer::Pod(cluster, of, app) => {
                    selectors.iter().any(|(want_app, want_namespace, want_cluster)| {
                        want_app.is_none_or(|want| want == *app)
                            && want_namespace.unwrap_or(namespace) == *of
                            && want_cluster.unwrap_or(0) == *cluster
                    })
                }
                _ => false,
            },
        }
    }
}

#[derive(Clone, Copy, Debug)]
enum Peer {
    /// Cluster, namespace, app.
    Pod(usize, usize, usize),
    Host,
    RemoteNode,
    Outside(usize),
    /// A pod, but nobody knows which.
    Unknown,
}

fn peers() -> impl Iterator<Item = Peer> {
    let pods = (0..12).map(|n| Peer::Pod(n % 2, n / 2 % 2, n / 4));
    pods.chain([Peer::Host, Peer::RemoteNode])
        .chain((0..OUTSIDE.len()).map(Peer::Outside))
        .chain([Peer::Unknown])
}

fn pod_identity(cluster: usize, namespace: usize, app: usize) -> u32 {
    ((cluster as u32 + 1) << 16) + (namespace * 10 + app) as u32 + 100
}

/// The semantics of 5.7 and 5.8, read aloud.
fn allowed(policies: &[Policy], subject: (usize, usize), peer: &Peer, proto: Protocol, port: u16) -> bool {
    let selecting =
        || policies.iter().filter(|p| p.namespace == subject.0 && p.app.is_none_or(|app| app == subject.1));
    let default_deny = selecting().any(|p| p.default_deny.unwrap_or(true));
    let hit = |entries: fn(&Policy) -> &Vec<Entry>, deny| {
        let matches = |p: &Policy, entry: &Entry| entry.matches(p.namespace, peer, proto, port, deny);
        selecting().any(|p| entries(p).iter().any(|entry| matches(p, entry)))
    };
    if hit(|p| &p.ingress_deny, true) {
        return false;
    }
    !default_deny || hit(|p| &p.ingress, false) || matches!(peer, Peer::Host)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    #[test]
    fn tables_agree_with_the_book(policies in prop::collection::vec(policy(), 1..5), before in any::<bool>()) {
        let mut world = World::new();
        let folded = |world: &mut World| {
            for peer in peers() {
                if let Peer::Pod(cluster, namespace, app) = peer {
                    let (cluster_name, n) = (CLUSTERS[cluster], pod_identity(cluster, namespace, app));
                    let ip = format!("10.{}.9.{}", cluster + 1, n & 0xff);
                    let labels = format!("app={}", APPS[app]);
                    world.updates(elsewhere(cluster_name, NAMESPACES[namespace], &labels, n, &ip));
                }
            }
            world.run();
        };
        // Identities come before the policies, or after them.
        if before {
            folded(&mut world);
        }
        let subjects: Vec<_> = (0..6).map(|n| (n % 2, n / 2)).collect();
        for (i, &(namespace, app)) in subjects.iter().enumerate() {
            let labels = format!("app={}", APPS[app]);
            let ip = format!("10.1.1.{}", 10 + i);
            let identity = pod_identity(0, namespace, app);
            world.pod(pod(i as u16 + 1, NAMESPACES[namespace], &format!("pod{i}"), &ip, &labels, identity));
        }
        for (i, policy) in policies.iter().enumerate() {
            let list = |entries: &Vec<Entry>| entries.iter().map(Entry::json).collect::<Value>();
            let mut spec = json!({
                "endpointSelector": {"matchLabels": {}},
                "ingress": list(&policy.ingress),
                "ingressDeny": list(&policy.ingress_deny),
            });
            policy.app.iter().for_each(|app| spec["endpointSelector"]["matchLabels"]["app"] = json!(APPS[*app]));
            policy.default_deny.iter().for_each(|on| spec["enableDefaultDeny"] = json!({"ingress": on}));
            let document = json!({
                "apiVersion": "cilium.io/v2",
                "kind": "CiliumNetworkPolicy",
                "metadata": {"name": format!("p{i}"), "namespace": NAMESPACES[policy.namespace]},
                "spec": spec,
            });
            world.manifest(&document.to_string());
        }
        world.run();
        if !before {
            folded(&mut world);
        }
        for (i, subject) in subjects.iter().enumerate() {
            for peer in peers() {
                let identity = match peer {
                    Peer::Pod(cluster, namespace, app) => pod_identity(cluster, namespace, app),
                    Peer::Host => Identity::HOST.0,
                    Peer::RemoteNode => Identity::REMOTE_NODE.0,
                    Peer::Unknown => Identity::UNKNOWN.0,
                    Peer::Outside(ip) => match world.lookup(OUTSIDE[ip]).0 {
                        0 => Identity::WORLD.0,
                        identity => identity,
                    },
                };
                for ((_, proto), port) in PROTOS.iter().flat_map(|p| [80u16, 82, 443, 7].map(|port| (p, port))) {
                    prop_assert_eq!(
                        world.allows(i as u16 + 1, Ingress, identity, *proto, port),
                        allowed(&policies, *subject, &peer, *proto, port),
                        "subject {:?} peer {:?} {} {}", subject, peer, proto, port
                    );
                }
            }
        }
    }
}
