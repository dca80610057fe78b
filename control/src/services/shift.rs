//! Gradual shifts: a cluster that begins to serve a frontend which others serve already gets its
//! share of the new flows step by step, so that its first backend is not overrun.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A shift is done in this many steps.
const STEPS: u32 = 10;
/// Clusters that begin to serve a frontend this long after the first one are no newcomers: they
/// arrive one after the other when an agent starts or a service is new.
const SETTLING: Duration = Duration::from_secs(30);

/// Which clusters serve a frontend, and how far those are that have begun lately.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Shift {
    /// Since when any of them does.
    served: Option<Instant>,
    /// Clusters that serve, and when those that are on the rise began.
    clusters: BTreeMap<Arc<str>, Option<Instant>>,
    /// How long a rise takes.
    window: Duration,
}

impl Shift {
    /// What becomes of it now that `serving` are the clusters that have backends for new flows, and
    /// a shift takes as long as `window`.
    pub(super) fn advance(&self, serving: &BTreeSet<Arc<str>>, window: Duration, now: Instant) -> Shift {
        let since = |at: Instant| now.saturating_duration_since(at);
        let settling = SETTLING.min(window);
        let settled = !window.is_zero() && self.served.is_some_and(|served| since(served) >= settling);
        let rising = |cluster| match self.clusters.get(cluster) {
            Some(began) => began.filter(|began| since(*began) < window * (STEPS - 1) / STEPS),
            None => settled.then_some(now),
        };
        Shift {
            served: (!serving.is_empty()).then(|| self.served.unwrap_or(now)),
            clusters: serving.iter().map(|cluster| (cluster.clone(), rising(cluster))).collect(),
            window,
        }
    }

    /// How much of its share a cluster on the rise gets, above 0 and up to 1; `None` for others.
    pub(super) fn progress(&self, cluster: &str, now: Instant) -> Option<f64> {
        let began = (*self.clusters.get(cluster)?)?;
        Some(f64::from(self.steps(began, now)) / f64::from(STEPS))
    }

    /// When the next cluster gets more.
    pub(super) fn next_step(&self, now: Instant) -> Option<Instant> {
        let rising = self.clusters.values().flatten();
        rising.map(|began| *began + self.window * self.steps(*began, now) / STEPS).min()
    }

    /// Steps done, the one included that is done at once.
    fn steps(&self, began: Instant, now: Instant) -> u32 {
        let elapsed = now.saturating_duration_since(began);
        (1..STEPS).take_while(|step| self.window * *step / STEPS <= elapsed).count() as u32 + 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WINDOW: Duration = Duration::from_secs(30);

    fn names(names: &[&str]) -> BTreeSet<Arc<str>> {
        names.iter().map(|name| Arc::from(*name)).collect()
    }

    #[test]
    fn a_newcomer_rises_in_steps_and_then_is_like_the_others() {
        let begin = Instant::now();
        let at = |seconds| begin + Duration::from_secs(seconds);
        let first = Shift::default().advance(&names(&["b"]), WINDOW, begin);
        // At first nobody is new.
        let early = first.advance(&names(&["a", "b"]), WINDOW, at(29));
        assert_eq!((early.progress("a", at(29)), early.next_step(at(29))), (None, None));

        let mut shift = first.advance(&names(&["a", "b"]), WINDOW, at(30));
        let mut seen = Vec::new();
        let mut now = at(30);
        while let Some(next) = shift.next_step(now) {
            assert!(next > now, "it gets on");
            assert_eq!(shift.progress("b", now), None);
            seen.push(shift.progress("a", now));
            now = next;
            shift = shift.advance(&names(&["a", "b"]), WINDOW, now);
        }
        assert_eq!(seen, (1..STEPS).map(|n| Some(f64::from(n) / 10.0)).collect::<Vec<_>>());
        assert_eq!((now, shift.progress("a", now)), (at(57), None));
    }

    #[test]
    fn who_went_and_returns_rises_again_unless_nobody_served_meanwhile() {
        let begin = Instant::now();
        let at = |seconds| begin + Duration::from_secs(seconds);
        let both = Shift::default().advance(&names(&["a", "b"]), WINDOW, begin);
        let one = both.advance(&names(&["b"]), WINDOW, at(100));
        let back = one.advance(&names(&["a", "b"]), WINDOW, at(101));
        assert_eq!(back.progress("a", at(101)), Some(0.1));
        let none = one.advance(&names(&[]), WINDOW, at(102));
        let back = none.advance(&names(&["a", "b"]), WINDOW, at(103));
        assert_eq!([back.progress("a", at(103)), back.progress("b", at(103))], [None, None]);
        let slow = both.advance(&names(&["b"]), Duration::from_secs(600), at(31));
        let back = slow.advance(&names(&["a", "b"]), Duration::from_secs(600), at(32));
        assert_eq!(back.next_step(at(32)), Some(at(92)));
        let off = both.advance(&names(&["b"]), Duration::ZERO, at(104));
        let back = off.advance(&names(&["a", "b"]), Duration::ZERO, at(105));
        assert_eq!(back.next_step(at(105)), None);
    }
}
