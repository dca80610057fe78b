//! How long a change in etcd takes to reach packets: an address that changes between an identity
//! which may reach the server and one which may not.

use super::arrivals;
use crate::site::Site;
use crate::store::Store;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

/// The label of who may reach the server.
pub(crate) const FRIEND: &str = "friend";
/// Sends from outside of the cluster.
pub(crate) const SOURCE: Ipv4Addr = Ipv4Addr::new(10, 78, 0, 1);

/// Milliseconds from writing to etcd to the effect.
#[derive(Clone, Debug, Default)]
pub(crate) struct Effects {
    /// To the first packet that passes.
    pub(crate) allowed: Vec<f64>,
    /// To the last packet that passes.
    pub(crate) revoked: Vec<f64>,
}

/// Gives the address of the source to a host outside.
pub(crate) fn prepare(site: &Site) {
    let outside = &site.world.outside;
    outside.ip(&format!("addr add {SOURCE}/32 dev eth0"));
    // Neighbours are asked for from an address of the link.
    outside.sysctl("net/ipv4/conf/all/arp_announce", "2");
}

/// Changes the source so many times forth and back between a friend and a stranger, whose records these are.
pub(crate) fn measure(
    site: &Site,
    store: &Store<'_>,
    [friend, stranger]: [(String, String); 2],
    times: u32,
) -> Result<Effects, String> {
    arrivals::of(&site.world.outside, SOURCE, &site.arena.server, |arrivals| {
        let mut effects = Effects::default();
        let change = |record: &(String, String)| {
            let start = Instant::now();
            store.put(vec![record.clone()]).map(|()| start)
        };
        arrivals.last_after(change(&stranger)?)?;
        for _ in 0..times {
            let start = change(&friend)?;
            effects.allowed.push(milliseconds(arrivals.first_after(start)? - start));
            let start = change(&stranger)?;
            effects.revoked.push(milliseconds(arrivals.last_after(start)? - start));
        }
        Ok(effects)
    })
}

pub(super) fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}
