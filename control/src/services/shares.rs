//! Who gets how many of the new flows of a frontend: affinity (`cilium-interop` 4.4), weights of
//! clusters and gradual shifts.

use super::{Backends, MergedBackend};
use crate::objects::{Affinity, Readiness, ServiceMesh};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Weights are parts of this.
pub(super) const WHOLE: f64 = 1_000_000.0;

/// What the division depends on besides the backends.
pub(super) struct Rules<'a> {
    /// Name of the own cluster.
    pub(super) own: &'a str,
    /// Affinity and weights.
    pub(super) mesh: &'a ServiceMesh,
    /// How much of its share a cluster on the rise gets; `None` for others.
    pub(super) rising: &'a dyn Fn(&str) -> Option<f64>,
}

/// Backends by cluster, of one side.
type Side = BTreeMap<Arc<str>, u32>;

/// Whether a backend is worse than others before anybody's preference counts: of a cluster that
/// has been away for too long, on its way out.
fn health(backend: &MergedBackend) -> (bool, bool) {
    (backend.quarantined, backend.state != Readiness::Ready)
}

/// Gives each backend its weight. The healthiest ones of the preferred side get the flows; failing
/// these the other side's, then terminating ones, then those of clusters that have been away for too
/// long. Clusters without weight come after all others of the same health.
pub(super) fn divide(backends: &mut Backends, rules: &Rules<'_>) {
    let Some(best) = backends.values().map(health).min() else { return };
    let mut sides: BTreeMap<_, Side> = BTreeMap::new();
    for backend in backends.values().filter(|backend| health(backend) == best) {
        let side = sides.entry(rules.rank(&backend.cluster)).or_default();
        *side.entry(backend.cluster.clone()).or_default() += 1;
    }
    let preferred = sides.keys().next().copied();
    let mut parts = BTreeMap::new();
    let mut left = 1.0;
    while let Some((rank, side)) = sides.pop_first().filter(|_| left > 0.0) {
        left = rules.share_out(left, &side, !rank.0, sides.is_empty(), &mut parts);
    }
    for backend in backends.values_mut() {
        let healthy = health(backend) == best;
        backend.preferred = healthy && Some(rules.rank(&backend.cluster)) == preferred;
        let part = parts.get(&backend.cluster).filter(|_| healthy);
        backend.weight = part.map_or(0, |part| ((part * WHOLE).round() as u32).max(1));
    }
}

impl Rules<'_> {
    /// Orders clusters by preference: it has no weight, it is on the other side.
    fn rank(&self, cluster: &str) -> (bool, bool) {
        let weightless = self.mesh.weights.as_ref().is_some_and(|weights| weights.of(cluster) == 0);
        let other_side = match self.mesh.affinity {
            Affinity::None => false,
            Affinity::Local => cluster != self.own,
            Affinity::Remote => cluster == self.own,
        };
        (weightless, other_side)
    }

    /// Divides `portion` among the clusters of a side and notes what each backend of a cluster gets.
    /// Returns what is left for the next side, if this is not the `last` one.
    fn share_out(
        &self,
        portion: f64,
        side: &Side,
        weighted: bool,
        last: bool,
        parts: &mut BTreeMap<Arc<str>, f64>,
    ) -> f64 {
        let strength = |cluster: &str, backends: u32| match &self.mesh.weights {
            Some(weights) if weighted => f64::from(weights.of(cluster)),
            _ => f64::from(backends),
        };
        let (mut total, mut risen, mut steady) = (0.0, 0.0, 0.0);
        for (cluster, backends) in side {
            let strength = strength(cluster, *backends);
            total += strength;
            match (self.rising)(cluster) {
                Some(progress) => risen += progress * strength,
                None => steady += strength,
            }
        }
        // What clusters on the rise do not take yet stays with those that had it before.
        let (for_rising, for_steady, left) = match (steady > 0.0, last) {
            (true, _) => (1.0, (total - risen) / steady, 0.0),
            (false, true) => (total / risen, 1.0, 0.0),
            (false, false) => (1.0, 1.0, portion * (1.0 - risen / total)),
        };
        for (cluster, backends) in side {
            let factor = (self.rising)(cluster).map_or(for_steady, |progress| progress * for_rising);
            let each = strength(cluster, *backends) / f64::from(*backends);
            parts.insert(cluster.clone(), each * factor * (portion / total));
        }
        left
    }
}

#[cfg(test)]
mod tests;
