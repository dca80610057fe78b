use super::*;
use proptest::prelude::*;

const OWNERS: [(Source, &str, &str); 4] = [
    (Source::Local, "cluster1", "7"),
    (Source::Kvstore, "cluster1", "ip"),
    (Source::Clustermesh, "cluster2", "ip"),
    (Source::Clustermesh, "cluster3", "ip"),
];

/// Their ends are short, long, empty, and such as cannot be filled up.
const PODS: [&str; 7] = [
    "ns/pod",
    "ns/web-5d9-x2x4k",
    "ns/web-5d9-12345678",
    "ns/web-5d9-123456789",
    "ns/web-",
    "ns/web-a\0",
    "-ü",
];

fn owner(number: usize) -> Owner {
    let (source, cluster, part) = OWNERS[number];
    // Ranks are not those of the names.
    let cluster_id = if cluster == "cluster2" { 9 } else { 5 };
    Owner { source, cluster_id, cluster: cluster.into(), part: part.into() }
}

fn prefix(number: u8) -> IpNet {
    IpNet::from(IpAddr::from([10, 9, 0, number]))
}

fn claim() -> impl Strategy<Value = Claim> {
    let pod = prop::option::of(prop::sample::select(&PODS[..]));
    (1u32..4, any::<bool>(), pod, any::<bool>()).prop_map(|(identity, host, pod, named)| Claim {
        identity: Identity(identity << 16),
        host: host.then(|| [172, 16, 0, 1].into()),
        pod: pod.map(Into::into),
        named_ports: named
            .then(|| NamedPort { name: "http".into(), port: 80, protocol: "TCP".into() })
            .into_iter()
            .collect(),
    })
}

proptest! {
    /// The claims kept small say the same as plain maps.
    #[test]
    fn equals_plain_maps(
        edits in prop::collection::vec((0u8..4, 0usize..OWNERS.len(), prop::option::of(claim())), 0..60),
    ) {
        let mut ipcache = IpCache::new(false, Vec::new());
        let mut model: BTreeMap<IpNet, BTreeMap<Owner, Claim>> = BTreeMap::new();
        for (number, by, claim) in edits {
            let claims = model.entry(prefix(number)).or_default();
            let of_prefix = |claims: &BTreeMap<Owner, Claim>| {
                let (owner, claim) = claims.first_key_value()?;
                let asked_for = owner.source != Source::Clustermesh || !claim.named_ports.is_empty();
                asked_for.then(|| (claim.identity, claim.named_ports.clone()))
            };
            let before = of_prefix(claims);
            match &claim {
                Some(claim) => claims.insert(owner(by), claim.clone()),
                None => claims.remove(&owner(by)),
            };
            let after = of_prefix(claims);
            ipcache.claim(prefix(number), owner(by), claim);
            prop_assert!(ipcache.take_changed().contains(&prefix(number)));
            let moved = ipcache.take_moved();
            let identities = before.iter().chain(&after).map(|(identity, _)| *identity);
            prop_assert_eq!(moved, if before == after { HashSet::new() } else { identities.collect() });
        }
        model.retain(|_, claims| !claims.is_empty());
        let mut indexed: BTreeMap<Identity, Vec<(IpNet, Vec<NamedPort>)>> = BTreeMap::new();
        let mut resolved = Vec::new();
        for (prefix, claims) in &model {
            let (owner, claim) = claims.first_key_value().expect("not empty");
            if owner.source != Source::Clustermesh || !claim.named_ports.is_empty() {
                indexed.entry(claim.identity).or_default().push((*prefix, claim.named_ports.clone()));
            }
            let cluster = (owner.source != Source::Local).then_some(owner.cluster.as_str());
            resolved.push((*prefix, claim.identity, claim.host, owner.source, cluster, claim.pod.clone()));
        }
        let found = ipcache.iter().map(|(prefix, Resolved { identity, host, source, cluster, pod })| {
            (prefix, identity, host, source, cluster, pod.map(|pod| pod.to_string()))
        });
        prop_assert_eq!(found.collect::<Vec<_>>(), resolved);
        for identity in (1u32..4).map(|number| Identity(number << 16)) {
            ipcache.take_changed();
            ipcache.mark_identities(&HashSet::from([identity]));
            let best = |claims: &BTreeMap<_, Claim>| claims.values().next().map(|claim| claim.identity);
            let concerned = model.iter().filter(|(_, claims)| best(claims) == Some(identity));
            prop_assert_eq!(ipcache.take_changed(), concerned.map(|(prefix, _)| *prefix).collect());
        }
        for identity in (1u32..4).map(|number| Identity(number << 16)) {
            let found: Vec<_> =
                ipcache.of_identity(identity).map(|(prefix, ports)| (prefix, ports.to_vec())).collect();
            prop_assert_eq!(found, indexed.remove(&identity).unwrap_or_default());
        }
    }
}

#[test]
fn other_clusters_have_no_say_in_this_nodes_pod_cidr() {
    let own: IpNet = "10.1.3.0/24".parse().expect("prefix");
    let mut ipcache = IpCache::new(false, vec![own]);
    let claim =
        || Claim { identity: Identity(9 << 16), host: Some([172, 16, 0, 1].into()), ..Claim::default() };
    for (text, believed) in [
        ("10.1.3.7/32", false),
        ("10.1.3.0/24", false),
        ("10.1.0.0/16", false),
        ("0.0.0.0/0", false),
        ("10.1.2.0/24", true),
        ("10.2.0.0/16", true),
        ("::/0", true),
    ] {
        let prefix = text.parse().expect("prefix");
        ipcache.claim(prefix, owner(2), Some(claim()));
        assert_eq!(ipcache.resolve(prefix).is_some(), believed, "{text}");
        ipcache.claim(prefix, owner(1), Some(claim()));
        assert!(ipcache.resolve(prefix).is_some(), "{text}: the own cluster knows");
    }
}

#[test]
fn what_is_not_believed_is_shown() {
    let mut ipcache = IpCache::new(false, vec!["10.1.3.0/24".parse().expect("prefix")]);
    let ip = |text: &str| IpNet::from(text.parse::<IpAddr>().expect("address"));
    ipcache.claim(ip("10.1.3.7"), owner(2), Some(Claim::default()));
    let alone =
        "10.1.3.7/32 is claimed by cluster cluster2; none counts, as it overlaps a pod CIDR of this node";
    assert_eq!(ipcache.conflicts(10), [alone]);
    ipcache.claim(ip("10.1.3.7"), owner(3), Some(Claim::default()));
    let both = "10.1.3.7/32 is claimed by clusters cluster3, cluster2; none counts, as it overlaps a pod CIDR of this node";
    assert_eq!(ipcache.conflicts(10), [both]);
    ipcache.claim(ip("10.1.3.7"), owner(0), Some(Claim::default()));
    let known = "10.1.3.7/32 is claimed by clusters cluster1, cluster3, cluster2; cluster1 counts";
    assert_eq!(ipcache.conflicts(10), [known]);
    [0, 2, 3].into_iter().for_each(|by| ipcache.claim(ip("10.1.3.7"), owner(by), None));
    assert!(ipcache.conflicts(10).is_empty());

    // Cluster 3 comes before cluster 2; its node is known after the claim, and goes before it.
    ipcache.claim(ip("10.5.0.1"), owner(2), Some(Claim::default()));
    ipcache.claim(ip("10.5.0.2"), owner(3), Some(Claim::default()));
    assert!(ipcache.conflicts(10).is_empty());
    let cidr = "10.5.0.0/24".parse().expect("prefix");
    ipcache.route(cidr, owner(3), Some([172, 16, 0, 1].into()));
    assert!(ipcache.resolve(ip("10.5.0.1")).is_none() && ipcache.resolve(ip("10.5.0.2")).is_some());
    let taken =
        "10.5.0.1/32 is claimed by cluster cluster2; none counts, as it overlaps a pod CIDR of cluster3";
    assert_eq!(ipcache.conflicts(10), [taken]);
    assert_eq!(ipcache.conflicts(0), ["1 more prefixes are claimed in vain or by several clusters"]);
    ipcache.route(cidr, owner(3), None);
    assert!(ipcache.conflicts(10).is_empty() && ipcache.resolve(ip("10.5.0.1")).is_some());
}

/// The first million of records decides what a mesh takes.
#[test]
fn a_claim_is_small() {
    assert_eq!(size_of::<Claims>(), 24);
}
