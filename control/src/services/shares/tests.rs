use super::*;
use crate::manifests;
use crate::objects::Object;
use proptest::prelude::*;
use std::net::IpAddr;

/// What the annotations of a global service say.
fn mesh(annotations: &str) -> ServiceMesh {
    let text = format!(
        "{{apiVersion: v1, kind: Service, metadata: {{name: a, annotations: {{service.cilium.io/global: 'true', {annotations}}}}}, spec: {{clusterIP: None}}}}"
    );
    match manifests::parse(&text, "a").remove(0).object {
        Ok(Object::Service(service)) => service.mesh,
        other => panic!("{other:?}"),
    }
}

/// Backends as clusters have them: `a`, or `a?` if the cluster is stale, or `a-` if it is terminating.
fn backends(text: &str) -> Backends {
    let one = |(n, text): (usize, &str)| {
        let backend = MergedBackend {
            cluster: text.trim_end_matches(['?', '-']).into(),
            state: if text.ends_with('-') { Readiness::Terminating } else { Readiness::Ready },
            quarantined: text.ends_with('?'),
            preferred: true,
            weight: 77,
        };
        ((IpAddr::from([10, 0, (n >> 8) as u8, n as u8]), 80), backend)
    };
    text.split_whitespace().enumerate().map(one).collect()
}

/// A cluster on the rise, and how far it is.
type Rising = (&'static str, f64);

/// Weights in percent, rounded, in the order of the backends.
fn divided(annotations: &str, text: &str, rising: &[Rising]) -> Vec<u32> {
    let mut backends = backends(text);
    let rising =
        |cluster: &str| rising.iter().find(|(name, _)| *name == cluster).map(|(_, progress)| *progress);
    divide(&mut backends, &Rules { own: "a", mesh: &mesh(annotations), rising: &rising });
    backends.values().map(|backend| (f64::from(backend.weight) / WHOLE * 100.0).round() as u32).collect()
}

const LOCAL: &str = "service.cilium.io/affinity: local";
const REMOTE: &str = "service.cilium.io/affinity: remote";
const WEIGHTS: &str = "dataplane.io/cluster-weights: 'a=80,b=20'";

/// `cilium-interop` 4.4 with health, and what is ours: a is the own cluster.
#[test]
fn the_healthy_ones_of_the_preferred_side_get_the_flows() {
    #[rustfmt::skip]
    let table: [(&str, &str, &[u32]); 19] = [
        ("",     "a b",        &[50, 50]),
        ("",     "a a a b",    &[25, 25, 25, 25]),
        ("",     "a b-",       &[100, 0]),
        ("",     "a- b-",      &[50, 50]),
        ("",     "a b?",       &[100, 0]),
        ("",     "a- b?",      &[100, 0]),
        ("",     "b?",         &[100]),
        (LOCAL,  "a b",        &[100, 0]),
        (LOCAL,  "a- b",       &[0, 100]),
        (LOCAL,  "a- b-",      &[100, 0]),
        (LOCAL,  "a- b?",      &[100, 0]),
        (LOCAL,  "b c",        &[50, 50]),
        (REMOTE, "a b c",      &[0, 50, 50]),
        (REMOTE, "a b? c",     &[0, 0, 100]),
        (REMOTE, "a b? c?",    &[100, 0, 0]),
        (REMOTE, "a",          &[100]),
        (REMOTE, "a b-",       &[100, 0]),
        (REMOTE, "a- b-",      &[0, 100]),
        ("",     "",           &[]),
    ];
    for (annotations, backends, expected) in table {
        assert_eq!(divided(annotations, backends, &[]), expected, "{annotations} {backends}");
    }
}

#[test]
fn a_clusters_weight_is_divided_among_its_backends() {
    #[rustfmt::skip]
    let table: [(&str, &str, &[u32]); 11] = [
        (WEIGHTS, "a b",             &[80, 20]),
        (WEIGHTS, "a a b",           &[40, 40, 20]),
        (WEIGHTS, "a b b b b",       &[80, 5, 5, 5, 5]),
        (WEIGHTS, "a a- b b-",       &[80, 0, 20, 0]),
        // Who is not named has none, unless nobody else is left.
        (WEIGHTS, "a b c",           &[80, 20, 0]),
        (WEIGHTS, "a? b? c",         &[0, 0, 100]),
        (WEIGHTS, "c d d",           &[33, 33, 33]),
        (WEIGHTS, "b c",             &[100, 0]),
        // Affinity comes first, weights divide its side.
        ("dataplane.io/cluster-weights: 'a=80,b=15,c=5', service.cilium.io/affinity: remote", "a b c", &[0, 75, 25]),
        ("dataplane.io/cluster-weights: 'a=0,b=1', service.cilium.io/affinity: local", "a b", &[0, 100]),
        ("dataplane.io/cluster-weights: 'a=0,b=1', service.cilium.io/affinity: local", "a c", &[100, 0]),
    ];
    for (annotations, backends, expected) in table {
        assert_eq!(divided(annotations, backends, &[]), expected, "{annotations} {backends}");
    }
}

#[test]
fn what_a_cluster_on_the_rise_does_not_take_yet_stays_where_it_was() {
    #[rustfmt::skip]
    let table: [(&str, &str, &[Rising], &[u32]); 9] = [
        (LOCAL,   "a b",     &[("a", 0.1)],             &[10, 90]),
        (LOCAL,   "a a b c", &[("a", 0.5)],             &[25, 25, 25, 25]),
        (LOCAL,   "a",       &[("a", 0.1)],             &[100]),
        (REMOTE,  "a b",     &[("b", 0.3)],             &[70, 30]),
        (REMOTE,  "a b c",   &[("b", 0.2)],             &[0, 10, 90]),
        (REMOTE,  "a b c",   &[("b", 0.2), ("c", 0.4)], &[70, 10, 20]),
        (WEIGHTS, "a b",     &[("b", 0.5)],             &[90, 10]),
        (WEIGHTS, "a b c",   &[("a", 0.1)],             &[8, 92, 0]),
        // But not with those that are about to go.
        (LOCAL,   "a b- c?", &[("a", 0.1)],             &[100, 0, 0]),
    ];
    for (annotations, backends, rising, expected) in table {
        assert_eq!(divided(annotations, backends, rising), expected, "{annotations} {backends} {rising:?}");
    }
}

#[test]
fn the_preferred_side_is_marked_whatever_it_gets() {
    let mut all = backends("a a- b");
    divide(
        &mut all,
        &Rules { own: "a", mesh: &mesh(LOCAL), rising: &|cluster| (cluster == "a").then_some(0.1) },
    );
    assert_eq!(all.values().map(|backend| backend.preferred).collect::<Vec<_>>(), [true, false, false]);
}

proptest! {
    /// Without weights and shifts all that get flows get equally many, to the last part.
    #[test]
    fn nothing_is_lost_or_given_twice(
        clusters in prop::collection::vec("[abc][?-]?", 1..60),
        annotations in prop::sample::select(vec!["", LOCAL, REMOTE, WEIGHTS]),
        progress in prop::option::of(0.05..1.0_f64),
    ) {
        let mut all = backends(&clusters.join(" "));
        let rising = |cluster: &str| progress.filter(|_| cluster == "a");
        divide(&mut all, &Rules { own: "a", mesh: &mesh(annotations), rising: &rising });
        let sum: f64 = all.values().map(|backend| f64::from(backend.weight)).sum();
        prop_assert!((sum - WHOLE).abs() <= all.len() as f64, "{sum}");
        prop_assert!(all.values().any(|backend| backend.preferred && backend.weight > 0));
        if progress.is_none() && annotations != WEIGHTS {
            let mut weights = all.values().filter(|b| b.weight > 0).map(|b| (b.weight, b.preferred));
            let first = weights.next();
            prop_assert!(weights.all(|weight| Some(weight) == first), "{all:?}");
        }
    }
}
