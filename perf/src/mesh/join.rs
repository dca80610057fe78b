//! Clusters become part of the mesh while pods talk.

use super::fleet::{self, Remote};
use crate::churn::Stop;
use crate::net::echo::{self, Times};
use crate::site::Site;
use crate::store::Store;
use std::os::unix::fs::symlink;
use std::panic::resume_unwind;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};
use tests::wait::pause;

/// How long clusters may take to be in the tables.
const PATIENCE: Duration = Duration::from_secs(300);
/// Requests are made in turns of this length until all is in.
const TURN: Duration = Duration::from_millis(200);

/// After work the agent gives free memory back, within this time.
const REST: Duration = Duration::from_secs(5);

/// How some clusters came in.
pub(super) struct Joined {
    /// Seconds from their configuration until everything of theirs is in the tables.
    pub(super) seconds: f64,
    /// CPUs that the agent kept busy meanwhile.
    pub(super) cpus: f64,
    /// Bytes that the agent had resident before, and once it had rested again.
    pub(super) resident: [f64; 2],
    /// The most that it ever had.
    pub(super) peak: f64,
    /// Requests between two pods meanwhile.
    pub(super) times: Times,
}

/// Tells the agent of clusters and waits until it has all of them, `known` before included.
pub(super) fn join(
    site: &Site,
    store: &Store<'_>,
    remotes: impl Iterator<Item = Remote> + Clone,
    known: u32,
) -> Result<Joined, String> {
    rest(site);
    let (before, used) = (site.resident()?, site.cpu_time()?);
    let all = known + remotes.clone().count() as u32;
    let ((seconds, cpus), times) = while_talking(site, || {
        let start = Instant::now();
        for remote in remotes {
            let link = site.world.dir().join("mesh").join(remote.name());
            symlink(store.etcd().client_config(), &link)
                .map_err(|error| format!("{}: {error}", link.display()))?;
        }
        wait(site, all, start)?;
        let seconds = start.elapsed().as_secs_f64();
        Ok((seconds, (site.cpu_time()? - used) / seconds))
    })?;
    rest(site);
    Ok(Joined { seconds, cpus, resident: [before, site.resident()?], peak: site.most_resident()?, times })
}

fn rest(site: &Site) {
    site.settle();
    super::wait(REST);
    site.settle();
}

/// Waits until the first complete view of all clusters is in the tables.
fn wait(site: &Site, clusters: u32, start: Instant) -> Result<(), String> {
    let wanted = u64::from(clusters) * u64::from(fleet::ADDRESSES);
    loop {
        let status = site.node().cli.json("status");
        let remotes = status["control"]["remotes"].as_array().map_or(&[][..], Vec::as_slice);
        let ready = remotes.iter().filter(|remote| remote["ready"] == true).count();
        let addresses: u64 = remotes.iter().filter_map(|remote| remote["num-endpoints"].as_u64()).sum();
        if ready >= clusters as usize && addresses >= wanted && status["control"]["synced"] == true {
            return Ok(());
        }
        if start.elapsed() > PATIENCE {
            return Err(format!("after {PATIENCE:?} {ready} of {clusters} clusters are ready: {status:#}"));
        }
        pause();
    }
}

/// Requests and answers between the pods, one at a time, while something is done.
pub(super) fn while_talking<T>(
    site: &Site,
    work: impl FnOnce() -> Result<T, String>,
) -> Result<(T, Times), String> {
    let stop = &AtomicBool::new(false);
    thread::scope(|scope| {
        let talk = scope.spawn(move || echo::udp_while(&site.arena, TURN, || !stop.load(Ordering::Relaxed)));
        let stopped = Stop(stop);
        let worked = work();
        drop(stopped);
        let times = talk.join().unwrap_or_else(|panic| resume_unwind(panic))?;
        Ok((worked?, times))
    })
}
