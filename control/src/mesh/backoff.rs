//! Pauses between attempts.

use rand::Rng;
use std::time::Duration;

/// Doubling pauses up to a limit, each shortened by up to a half at random so that agents do not
/// come in step.
pub(super) struct Backoff {
    first: Duration,
    limit: Duration,
    next: Duration,
}

impl Backoff {
    pub(super) fn new(first: Duration, limit: Duration) -> Backoff {
        Backoff { first, limit, next: first }
    }

    pub(super) fn reset(&mut self) {
        self.next = self.first;
    }

    pub(super) async fn pause(&mut self) {
        let pause = self.next.mul_f64(rand::rng().random_range(0.5..=1.0));
        self.next = self.limit.min(self.next * 2);
        tokio::time::sleep(pause).await;
    }
}
