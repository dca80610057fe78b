//! Which endpoint of an etcd is used: the first to answer. Silent ones hold nobody up.

use super::options;
use crate::mesh::config::{ClientConfig, TlsMaterial};
use etcd_client::ConnectOptions;
use futures_util::stream::{FuturesUnordered, StreamExt};
use rand::seq::SliceRandom;
use std::fmt::Display;
use std::future::Future;
use std::time::Duration;
use tokio::time::sleep;

/// After so long without an answer the next endpoint is tried too.
const STAGGER: Duration = Duration::from_millis(250);

/// Dials the endpoints of a configuration, in random order, until one answers; else says of each
/// what is wrong.
pub(crate) async fn any<'a, T, E, F>(
    config: &'a ClientConfig,
    tls: Option<&TlsMaterial>,
    dial: impl Fn(&'a str, ConnectOptions) -> F,
) -> Result<T, String>
where
    E: Display,
    F: Future<Output = Result<T, E>>,
{
    let urls =
        config.endpoints.iter().flat_map(|endpoint| endpoint.dial.iter().map(move |url| (endpoint, url)));
    let mut urls: Vec<_> = urls.collect();
    urls.shuffle(&mut rand::rng());
    let attempts = urls.into_iter().map(|(endpoint, url)| {
        // An http endpoint may stand beside https ones.
        let tls = tls.filter(|_| url.starts_with("https://"));
        let attempt = dial(url, options(config, &endpoint.host, tls));
        async move { attempt.await.map_err(|error| format!("{url}: {error}")) }
    });
    first(attempts).await.map_err(|mut failures| {
        failures.sort(); // the same failures are the same text
        failures.join("; ")
    })
}

/// The first success of several attempts. The next one begins when one has failed, or all are silent.
async fn first<T, E>(
    attempts: impl Iterator<Item = impl Future<Output = Result<T, E>>>,
) -> Result<T, Vec<E>> {
    let mut attempts = attempts.fuse();
    let (mut running, mut failures) = (FuturesUnordered::new(), Vec::new());
    loop {
        running.extend(attempts.next());
        if running.is_empty() {
            return Err(failures);
        }
        tokio::select! {
            Some(result) = running.next() => match result {
                Ok(value) => return Ok(value),
                Err(failure) => failures.push(failure),
            },
            () = sleep(STAGGER) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::Instant;

    /// How attempts that take so many milliseconds each end together, and when.
    async fn outcome(attempts: &[(u64, Result<u8, u8>)]) -> (Result<u8, Vec<u8>>, u128) {
        let begun = Instant::now();
        let attempts = attempts.iter().map(|(takes, result)| async move {
            sleep(Duration::from_millis(*takes)).await;
            *result
        });
        (first(attempts).await, begun.elapsed().as_millis())
    }

    #[tokio::test(start_paused = true)]
    async fn silent_endpoints_hold_nobody_up() {
        assert_eq!(outcome(&[(5000, Err(1)), (5000, Err(2)), (10, Ok(3))]).await, (Ok(3), 510));
        assert_eq!(outcome(&[(1, Err(1)), (1, Err(2)), (10, Ok(3))]).await, (Ok(3), 12));
        assert_eq!(
            outcome(&[(300, Ok(1)), (5000, Ok(2))]).await,
            (Ok(1), 300),
            "a slow one may still be first"
        );
        assert_eq!(outcome(&[(5000, Err(1)), (5000, Err(2))]).await, (Err(vec![1, 2]), 5250));
        assert_eq!(outcome(&[]).await, (Err(vec![]), 0));
    }
}
