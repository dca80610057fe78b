//! Pauses between attempts.

use rand::Rng;
use std::time::Duration;

/// Pauses at random between nothing and a bound that doubles up to a limit ("full jitter"), so that
/// the agents of a fleet that have lost a store at one moment come back to it evenly.
pub(super) struct Backoff {
    first: Duration,
    limit: Duration,
    next: Duration,
}

impl Backoff {
    pub(super) fn new(first: Duration, limit: Duration) -> Backoff {
        Backoff { first, limit, next: first }
    }

    pub(super) async fn pause(&mut self) {
        self.pause_after(Duration::ZERO).await;
    }

    /// A pause after something that lasted a while before it failed is a first one again; what
    /// fails at once, however far it comes, is tried ever more rarely.
    pub(super) async fn pause_after(&mut self, lasted: Duration) {
        let pause = self.longest_after(lasted).mul_f64(rand::rng().random_range(0.0..=1.0));
        tokio::time::sleep(pause).await;
    }

    fn longest_after(&mut self, lasted: Duration) -> Duration {
        let longest = if lasted > self.limit { self.first } else { self.next };
        self.next = self.limit.min(longest * 2);
        longest
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_until_something_has_lasted() {
        let ms = Duration::from_millis;
        let mut backoff = Backoff::new(ms(100), ms(400));
        let longest = [0, 300, 399, 0, 401, 0].map(|lasted| backoff.longest_after(ms(lasted)));
        assert_eq!(longest, [100, 200, 400, 400, 100, 200].map(ms));
    }
}
