//! What was learned of every cluster, kept in a file for the agent's next run: raw values as the
//! views hold them. A thread of its own writes about once a second; a process that is killed at any
//! instant leaves what was written last. The file is a convenience: whatever is wrong with it, the
//! agent goes on without.

mod file;
#[cfg(test)]
mod tests;

use super::keys::{Kind, Name};
use super::lock;
use super::store;
use file::{File, FileError, Row};
use nix::time::{ClockId, clock_gettime};
use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};
use tokio::sync::{Notify, mpsc};

/// Version of the file's layout.
const VERSION: u32 = 1;
/// How long changes are gathered before they are written.
const GATHER: Duration = Duration::from_secs(1);
/// How often it is written down that what is known is confirmed.
const CONFIRM: Duration = Duration::from_secs(10);
/// Bytes of changes that may wait: whoever learns faster than the disk writes is slowed down.
const PENDING: usize = 8 << 20;
/// What a waiting change takes besides its key and value.
const OVERHEAD: usize = 128;
/// A disk that takes nothing for so long while changes wait is given up.
const STALLED: Duration = Duration::from_secs(10);
/// Records read at once.
const CHUNK: usize = 256;

/// The file of one agent, and the thread that writes it.
pub(super) struct Persistence {
    path: PathBuf,
    /// None once nothing is kept any more.
    file: Mutex<Option<Arc<File>>>,
    /// Clusters in the file when it was opened that nobody has asked for yet.
    earlier: Mutex<BTreeMap<String, Row>>,
    queue: Mutex<Queue>,
    wake: Condvar,
    room: Notify,
    problem: Mutex<Option<String>>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

#[derive(Default)]
struct Queue {
    items: Vec<Item>,
    bytes: usize,
    /// Clusters of which all that is known is confirmed.
    confirmed: BTreeSet<Arc<str>>,
    /// One of them is so since the last time that was written down.
    newly: bool,
    end: Option<End>,
}

#[derive(Clone, Copy, PartialEq)]
enum End {
    /// Once everything is written.
    Close,
    /// At once; the file is removed.
    GiveUp,
}

#[derive(Debug)]
struct Item {
    cluster: Arc<str>,
    change: Change,
}

#[derive(Clone, Debug)]
enum Change {
    /// The cluster has this id, and nothing else is known of it.
    Begin(u32),
    Put(Kind, String, Vec<u8>),
    Delete(Kind, String),
    /// The cluster and all of its records go.
    Forget,
}

/// What was known of a cluster in the run before.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Earlier {
    pub(super) id: u32,
    /// How long ago it was last confirmed.
    pub(super) age: Duration,
}

/// Where one cluster's view writes down what it holds.
pub(super) struct Journal {
    cluster: Arc<str>,
    persistence: Arc<Persistence>,
}

impl Persistence {
    /// Opens the file of a cluster's agent. What another cluster, another boot of the machine, whose
    /// pods are gone, or another version has left is thrown away, as is a damaged file.
    pub(super) async fn open(path: PathBuf, cluster: &str, id: u8) -> Arc<Persistence> {
        let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        let origin = format!("version {VERSION}, cluster {cluster}, id {id}, boot {}", boot.trim());
        let opening = path.clone();
        let opened = tokio::task::spawn_blocking(move || {
            let (file, unusable) = File::open(&opening, &origin)?;
            let clusters = file.clusters()?;
            Ok((file, unusable, clusters))
        });
        let opened = opened.await.unwrap_or_else(|panic| Err(FileError::Failed(panic.to_string())));
        let persistence = |file, earlier, problem| {
            Arc::new(Persistence {
                path: path.clone(),
                file: Mutex::new(file),
                earlier: Mutex::new(earlier),
                queue: Mutex::default(),
                wake: Condvar::new(),
                room: Notify::new(),
                problem: Mutex::new(problem),
                thread: Mutex::default(),
            })
        };
        match opened {
            Ok((file, unusable, earlier)) => {
                if let Some(why) = unusable {
                    tracing::warn!("{}: what an earlier run learned is not used: {why}", path.display());
                }
                let persistence = persistence(Some(Arc::new(file)), earlier, None);
                persistence.spawn();
                persistence
            }
            Err(why) => {
                let problem = not_kept(&path, &why.to_string());
                tracing::warn!("{problem}");
                let persistence = persistence(None, BTreeMap::new(), Some(problem));
                lock(&persistence.queue).end = Some(End::Close);
                persistence
            }
        }
    }

    fn spawn(self: &Arc<Self>) {
        let this = self.clone();
        match thread::Builder::new().name("persist".into()).spawn(move || this.run()) {
            Ok(thread) => *lock(&self.thread) = Some(thread),
            Err(error) => self.give_up(&format!("no thread: {error}")),
        }
    }

    /// Why nothing is kept, if so.
    pub(super) fn problem(&self) -> Option<String> {
        lock(&self.problem).clone()
    }

    /// What was known of a cluster; asked for once.
    pub(super) fn earlier(&self, cluster: &str) -> Option<Earlier> {
        let row = lock(&self.earlier).remove(cluster)?;
        let age = Duration::from_secs(now().saturating_sub(row.confirmed?));
        Some(Earlier { id: row.id, age })
    }

    /// Forgets all clusters of the run before but these.
    pub(super) fn retain(&self, stays: impl Fn(&str) -> bool) {
        let gone: Vec<_> = lock(&self.earlier).extract_if(.., |name, _| !stays(name)).collect();
        for (name, _) in gone {
            tracing::info!("what an earlier run learned of cluster {name} is dropped: it is not configured");
            self.push(&name.into(), Change::Forget);
        }
    }

    /// Reads all records of a cluster, in the order in which they are best applied.
    pub(super) fn read(self: &Arc<Self>, cluster: &str) -> mpsc::Receiver<(Kind, Vec<store::Change>)> {
        let (sender, receiver) = mpsc::channel(2);
        let (this, cluster) = (self.clone(), cluster.to_owned());
        tokio::task::spawn_blocking(move || {
            let Some(file) = lock(&this.file).clone() else { return };
            let take = |kind, chunk| sender.blocking_send((kind, chunk)).is_ok();
            if let Err(why) = guarded(|| file.read(&cluster, CHUNK, take)) {
                this.give_up(&why.to_string());
            }
        });
        receiver
    }

    /// Where the view of a cluster writes.
    pub(super) fn journal(self: &Arc<Self>, cluster: &str) -> Journal {
        Journal { cluster: cluster.into(), persistence: self.clone() }
    }

    /// All that is known of a cluster is confirmed from now on, or no longer.
    pub(super) fn confirm(&self, cluster: &str, confirmed: bool) {
        let mut queue = lock(&self.queue);
        match confirmed {
            true => queue.newly |= queue.confirmed.insert(cluster.into()),
            false => _ = queue.confirmed.remove(cluster),
        }
    }

    /// Waits while too much waits to be written.
    pub(super) async fn room(&self) {
        loop {
            let room = self.room.notified();
            {
                let queue = lock(&self.queue);
                if queue.bytes < PENDING || queue.end.is_some() {
                    return;
                }
            }
            if tokio::time::timeout(STALLED, room).await.is_err() {
                self.give_up(&format!("the disk has taken nothing for {} s", STALLED.as_secs()));
            }
        }
    }

    /// Writes what waits and ends the thread.
    pub(super) async fn close(&self) {
        self.end(End::Close);
        let thread = lock(&self.thread).take();
        if let Some(thread) = thread {
            // A panic of the thread was reported when it happened.
            let _ = tokio::task::spawn_blocking(move || thread.join()).await;
        }
    }

    fn push(&self, cluster: &Arc<str>, change: Change) {
        let mut queue = lock(&self.queue);
        if queue.end.is_some() {
            return;
        }
        queue.bytes += OVERHEAD
            + match &change {
                Change::Put(_, key, value) => key.len() + value.len(),
                Change::Delete(_, key) => key.len(),
                Change::Begin(_) | Change::Forget => 0,
            };
        queue.items.push(Item { cluster: cluster.clone(), change });
        if queue.bytes >= PENDING / 2 {
            self.wake.notify_one();
        }
    }

    fn give_up(&self, why: &str) {
        let problem = not_kept(&self.path, why);
        if lock(&self.problem).replace(problem.clone()).is_none() {
            tracing::warn!("{problem}");
        }
        self.end(End::GiveUp);
    }

    fn end(&self, end: End) {
        let mut queue = lock(&self.queue);
        match end {
            End::Close => _ = queue.end.get_or_insert(end),
            End::GiveUp => *queue = Queue { end: Some(end), ..Queue::default() },
        }
        drop(queue);
        self.wake.notify_one();
        self.room.notify_waiters();
    }

    /// The thread: writes until the end.
    fn run(&self) {
        let mut confirmed_at = Instant::now();
        loop {
            let (items, bytes, confirmed, end) = {
                let idle = |queue: &mut Queue| queue.end.is_none() && queue.bytes < PENDING / 2;
                let waited = self.wake.wait_timeout_while(lock(&self.queue), GATHER, idle);
                let mut queue = waited.unwrap_or_else(PoisonError::into_inner).0;
                let due = queue.newly || queue.end.is_some() || confirmed_at.elapsed() >= CONFIRM;
                let confirmed = if due { queue.confirmed.clone() } else { BTreeSet::new() };
                queue.newly = false;
                (std::mem::take(&mut queue.items), queue.bytes, confirmed, queue.end)
            };
            if end == Some(End::GiveUp) {
                *lock(&self.file) = None;
                // What it says is not kept up any more.
                let _ = std::fs::remove_file(&self.path);
                return;
            }
            if !items.is_empty() || !confirmed.is_empty() {
                let Some(file) = lock(&self.file).clone() else { return };
                let time = now();
                let confirmed: Vec<_> = confirmed.iter().map(|cluster| (&**cluster, time)).collect();
                match guarded(|| file.write(&items, &confirmed)) {
                    Ok(()) if !confirmed.is_empty() => confirmed_at = Instant::now(),
                    Ok(()) => {}
                    Err(why) => {
                        self.give_up(&why.to_string());
                        continue;
                    }
                }
            }
            if end == Some(End::Close) {
                *lock(&self.file) = None;
                return;
            }
            let mut queue = lock(&self.queue);
            queue.bytes = queue.bytes.saturating_sub(bytes);
            drop(queue);
            self.room.notify_waiters();
        }
    }
}

impl Journal {
    /// The cluster has this id, and nothing else is known of it.
    pub(super) fn begin(&self, id: u32) {
        self.persistence.push(&self.cluster, Change::Begin(id));
    }

    /// A value is held.
    pub(super) fn put(&self, name: &Name, value: &[u8]) {
        self.persistence.push(&self.cluster, Change::Put(name.kind(), name.to_string(), value.to_vec()));
    }

    /// A value is no longer held.
    pub(super) fn delete(&self, name: &Name) {
        self.persistence.push(&self.cluster, Change::Delete(name.kind(), name.to_string()));
    }

    /// Nothing is held any more, not even the id.
    pub(super) fn forget(&self) {
        self.persistence.push(&self.cluster, Change::Forget);
    }
}

/// A damaged file may make its reader panic.
fn guarded<T>(work: impl FnOnce() -> Result<T, FileError>) -> Result<T, FileError> {
    catch_unwind(AssertUnwindSafe(work))
        .unwrap_or_else(|_| Err(FileError::Failed("the file is damaged".into())))
}

fn not_kept(path: &Path, why: &str) -> String {
    format!("{}: {why}: what is learned is not kept for the next run of this agent", path.display())
}

/// Seconds since the machine started, whatever the clock on the wall says.
fn now() -> u64 {
    clock_gettime(ClockId::CLOCK_BOOTTIME).map_or(0, |time| time.tv_sec().cast_unsigned())
}
