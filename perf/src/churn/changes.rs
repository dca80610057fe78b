//! Changes that never end: addresses in etcd, policies and backends in manifests.

use super::arrivals::Stop;
use crate::net::agent;
use crate::site::Site;
use crate::store::{MOST, Store, address};
use std::net::Ipv4Addr;
use std::panic::resume_unwind;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};
use tests::manifests;

/// Changes a second that are asked for.
pub(super) const ADDRESSES: f64 = 1000.0;
pub(super) const POLICIES: f64 = 100.0;
pub(super) const BACKENDS: f64 = 100.0;
/// Addresses written in one transaction.
const BATCH: u32 = 20;
/// Addresses that change in turns.
const POOL: u32 = 2000;
/// Policies and services that change in turns.
const FILES: u32 = 10;

/// Changes a second that were made.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Made {
    pub(super) addresses: f64,
    pub(super) policies: f64,
    pub(super) backends: f64,
}

/// Does something while everything changes.
pub(super) fn during<T>(
    site: &Site,
    store: &Store<'_>,
    work: impl FnOnce() -> Result<T, String>,
) -> Result<(T, Made), String> {
    const { assert!(BATCH as usize <= MOST) };
    let identities = [store.identity(0), store.identity(1)];
    let labels = identities.iter().map(|&id| store.labels(id, &format!("churn-{id}"))).collect();
    store.put(labels)?;
    let stop = &AtomicBool::new(false);
    let cluster = site.world.cluster(1);
    thread::scope(|scope| {
        let addresses = scope.spawn(move || {
            store.etcd().host.enter(|| {
                paced(ADDRESSES / f64::from(BATCH), stop, |turn| {
                    let first = turn * BATCH % POOL;
                    let identity = identities[(turn * BATCH / POOL % 2) as usize];
                    let records = (first..first + BATCH).map(|n| address(churning(n), identity));
                    store.put_from_here(records.collect())
                })
            })
        });
        let policies = scope.spawn(move || {
            paced(POLICIES, stop, |turn| {
                cluster.apply(&format!("churn-policy-{}.yaml", turn % FILES), &policy(turn));
                Ok(())
            })
        });
        let backends = scope.spawn(move || {
            paced(BACKENDS, stop, |turn| {
                cluster.apply(&format!("churn-service-{}.yaml", turn % FILES), &service(turn));
                Ok(())
            })
        });
        let stopped = Stop(stop);
        let worked = work();
        drop(stopped);
        let [addresses, policies, backends] = [addresses, policies, backends]
            .map(|thread| thread.join().unwrap_or_else(|panic| resume_unwind(panic)));
        let made =
            Made { addresses: addresses? * f64::from(BATCH), policies: policies?, backends: backends? };
        Ok((worked?, made))
    })
}

/// Calls `each` at a rate until told to stop; what falls behind is not made up for. Returns the rate
/// that was reached.
pub(crate) fn paced(
    rate: f64,
    stop: &AtomicBool,
    mut each: impl FnMut(u32) -> Result<(), String>,
) -> Result<f64, String> {
    let (start, pause) = (Instant::now(), Duration::from_secs_f64(1.0 / rate));
    let (mut turn, mut due) = (0, start);
    while !stop.load(Ordering::Relaxed) {
        each(turn)?;
        turn += 1;
        due = (due + pause).max(Instant::now() - 10 * pause);
        thread::sleep(due.saturating_duration_since(Instant::now()));
    }
    Ok(f64::from(turn) / start.elapsed().as_secs_f64())
}

fn churning(number: u32) -> Ipv4Addr {
    Ipv4Addr::from(0x0a4d_0000 + number)
}

/// A policy of the server that allows another port each time.
fn policy(turn: u32) -> String {
    let (number, port) = (turn % FILES, 10_000 + turn / FILES % 1000);
    let spec = format!(
        "endpointSelector: {{matchLabels: {{app: server}}}}\ningress:\n\
         - {{fromEndpoints: [{{matchLabels: {{app: churn-{number}}}}}], toPorts: [{{ports: [{{port: '{port}', protocol: TCP}}]}}]}}"
    );
    manifests::policy(&format!("churn-{number}"), &spec)
}

/// A service that has another backend each time.
fn service(turn: u32) -> String {
    let number = turn % FILES;
    let vip = Ipv4Addr::from(0x0a61_0000 + number);
    agent::service(&format!("churn-{number}"), vip, churning(turn / FILES % POOL))
}
