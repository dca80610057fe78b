//! List, then watch: one prefix of a store as listings and changes, over broken watches and
//! compactions. What a listing lacks may be forgotten only if the listing is known to be complete;
//! nothing is ever forgotten because a connection was lost.

use super::keys::Kind;
use super::store::{Change, Entry, Events, Result, Store, StoreError, Watch};
use futures_util::StreamExt;
use rand::Rng;
use std::time::Duration;
use tokio::time::{Instant, sleep_until};

/// How often everything is listed again though the watch is well, on average.
pub(super) const AUDIT: Duration = Duration::from_secs(10 * 60);
/// How soon after a watch was gone on with: the store may have lost less than can be told at once.
const AUDIT_RESUMED: Duration = Duration::from_secs(60);
/// By how much of it an audit comes earlier or later, so that agents do not come in step.
const AUDIT_JITTER: f64 = 0.2;
/// A watch that breaks sooner is not taken up again: the connection is given up.
const RESUMABLE: Duration = Duration::from_secs(1);

/// When a listing may be trusted to be complete: what a writer's canary (a key that it sets after
/// it has written everything) is good for.
#[derive(Clone, Debug)]
pub(super) enum Gate {
    /// The writer sets none.
    None,
    /// Nothing is read before the canary is there.
    Read(String),
    /// Everything is read at once, but nothing forgotten before the canary is there.
    Forget(String),
}

/// What came; keys are given without the prefix.
#[derive(Debug)]
pub(super) enum Batch {
    /// A listing begins: whatever is known is in doubt until it is listed. In an `audit`, entries
    /// not younger than this revision were known already, unless something went wrong.
    Begin { audit: Option<i64> },
    /// A page of it.
    Entries(Vec<Entry>),
    /// The listing has ended: it was all there is, or, if not complete, all there is so far.
    End { complete: bool },
    /// What changed since.
    Changes(Vec<Change>),
}

impl Batch {
    /// How many events it brings, by what they are to Cilium.
    pub(super) fn events(&self) -> [(&'static str, u64); 3] {
        let [mut created, mut modified, mut deleted] = [0; 3];
        match self {
            Batch::Begin { .. } | Batch::End { .. } => {}
            Batch::Entries(entries) => created = entries.len() as u64,
            Batch::Changes(changes) => {
                deleted = changes.iter().filter(|change| matches!(change, Change::Delete(_))).count() as u64;
                modified = changes.len() as u64 - deleted;
            }
        }
        [("create", created), ("modify", modified), ("delete", deleted)]
    }
}

/// What audits have found.
#[derive(Default)]
pub(super) struct Audits {
    /// Differences that they had to repair.
    pub(super) repaired: u64,
    /// When the last one ended.
    pub(super) last: Option<Instant>,
}

impl Audits {
    pub(super) fn done(&mut self, cluster: &str, kind: Kind, repaired: u64) {
        self.repaired += repaired;
        self.last = Some(Instant::now());
        if repaired > 0 {
            tracing::warn!(
                "cluster {cluster}: {repaired} {} were not as in its store: repaired",
                kind.name()
            );
        }
    }
}

/// Follows one prefix over one connection.
pub(super) struct Follower<'a> {
    store: &'a dyn Store,
    prefix: String,
    gate: Gate,
    /// All changes up to this revision have been given out; 0 before the first listing has ended.
    seen: i64,
    listing: Option<Listing>,
    watch: Option<Watch>,
    /// Watch on a canary that was not there at the last listing.
    canary: Option<Watch>,
    /// When the watch was begun.
    since: Instant,
    /// When the next audit is due.
    audit: Instant,
    /// One is under way.
    auditing: bool,
}

/// A listing under way.
#[derive(Default)]
struct Listing {
    /// The revision that is read, 0 before the first page.
    revision: i64,
    /// Where the next page begins.
    next: Option<Vec<u8>>,
    read: bool,
}

impl<'a> Follower<'a> {
    pub(super) fn new(store: &'a dyn Store, prefix: String, gate: Gate) -> Follower<'a> {
        let now = Instant::now();
        let (seen, listing, watch, canary, auditing) = (0, None, None, None, false);
        Follower { store, prefix, gate, seen, listing, watch, canary, since: now, audit: now, auditing }
    }

    /// Goes on where an earlier connection to a store with the same history has left off.
    pub(super) async fn resume(
        store: &'a dyn Store,
        prefix: String,
        gate: Gate,
        seen: i64,
    ) -> Result<Follower<'a>> {
        let mut follower = Follower::new(store, prefix, gate);
        follower.go_on(seen).await?;
        Ok(follower)
    }

    /// All changes up to this revision have been given out; 0 if they have not.
    pub(super) fn seen(&self) -> i64 {
        self.seen
    }

    /// Waits for the next batch; unless resumed, the first ones are a listing.
    pub(super) async fn next(&mut self) -> Result<Batch> {
        loop {
            if self.listing.is_some() {
                match self.turn_page().await {
                    Err(StoreError::Compacted(_)) => {
                        self.watch = None; // from a new listing's revision on
                        self.listing = None;
                        continue;
                    }
                    batch => return batch,
                }
            }
            let Some(watch) = &mut self.watch else {
                return self.begin().await;
            };
            tokio::select! {
                events = watch.next() => match events.unwrap_or_else(|| Err(ended())) {
                    Ok(Events { mut changes, revision }) => {
                        self.seen = self.seen.max(revision);
                        if changes.is_empty() {
                            continue;
                        }
                        for change in &mut changes {
                            let (Change::Put(Entry { key, .. }) | Change::Delete(key)) = change;
                            key.drain(..self.prefix.len());
                        }
                        return Ok(Batch::Changes(changes));
                    }
                    Err(StoreError::Compacted(_)) => self.watch = None,
                    Err(error) => self.mend(error).await?,
                },
                come = put_seen(&mut self.canary) => {
                    come?;
                    self.watch = None;
                }
                () = sleep_until(self.audit) => {
                    // What the watch has told is compared with what was there then.
                    self.listing = Some(Listing { revision: self.seen, ..Listing::default() });
                    self.auditing = true;
                    return Ok(Batch::Begin { audit: Some(self.seen) });
                }
            }
        }
    }

    async fn begin(&mut self) -> Result<Batch> {
        // The canary is looked for before the listing: what is listed after it is complete.
        self.canary = match &self.gate {
            Gate::None => None,
            Gate::Read(key) => {
                wait_for(self.store, key).await?;
                None
            }
            Gate::Forget(key) => watch_for(self.store, key).await?,
        };
        self.listing = Some(Listing::default());
        Ok(Batch::Begin { audit: self.auditing.then_some(self.seen) })
    }

    async fn turn_page(&mut self) -> Result<Batch> {
        let listing = self.listing.get_or_insert_default();
        if listing.read {
            let revision = listing.revision;
            if self.watch.is_none() {
                self.watch_from(revision + 1).await?;
                self.seen = revision;
            }
            self.listing = None;
            self.auditing = false;
            self.schedule_audit(AUDIT);
            return Ok(Batch::End { complete: self.canary.is_none() });
        }
        let mut page = self.store.page(&self.prefix, listing.next.as_deref(), listing.revision).await?;
        if listing.revision == 0 {
            listing.revision = page.revision;
        }
        listing.read = page.next.is_none();
        listing.next = page.next;
        for entry in &mut page.entries {
            entry.key.drain(..self.prefix.len());
        }
        Ok(Batch::Entries(page.entries))
    }

    async fn watch_from(&mut self, revision: i64) -> Result<()> {
        self.watch = Some(self.store.watch(&self.prefix, revision).await?);
        self.since = Instant::now();
        Ok(())
    }

    /// Goes on from a revision, if what came since is still kept.
    async fn go_on(&mut self, seen: i64) -> Result<()> {
        // The last revision may have been told in part; twice does no harm.
        match self.watch_from(seen).await {
            // etcd accepts a watch before it looks whether it can serve it.
            Ok(()) if self.store.keeps(seen).await? => {
                self.seen = seen;
                self.schedule_audit(AUDIT_RESUMED);
            }
            Ok(()) | Err(StoreError::Compacted(_)) => self.watch = None,
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// A watch has broken: goes on where it ended, or with a listing, if this is still the same store
    /// with the same data. On any other one the connection has to begin anew: it may be another cluster's.
    async fn mend(&mut self, error: StoreError) -> Result<()> {
        self.watch = None;
        if self.since.elapsed() < RESUMABLE {
            return Err(error);
        }
        tracing::info!("{}: {error}; taken up again at revision {}", self.prefix, self.seen);
        match self.store.witness() {
            Some(witness) if self.store.remembers(&witness).await? => self.go_on(self.seen).await,
            _ => Err(StoreError::Failed(format!("{error}, and what is there now is not what was there"))),
        }
    }

    fn schedule_audit(&mut self, after: Duration) {
        let jitter = rand::rng().random_range(1.0 - AUDIT_JITTER..=1.0 + AUDIT_JITTER);
        self.audit = Instant::now() + after.mul_f64(jitter);
    }
}

/// Waits until a key is there.
pub(super) async fn wait_for(store: &dyn Store, key: &str) -> Result<()> {
    let mut watch = watch_for(store, key).await?;
    match watch {
        None => Ok(()),
        Some(_) => put_seen(&mut watch).await,
    }
}

/// Waits until a key is not there.
pub(super) async fn wait_gone(store: &dyn Store, key: &str) -> Result<()> {
    let (entries, mut watch) = list_watch(store, key).await?;
    let mut there = entries.iter().any(|entry| entry.key == key);
    while there {
        for change in watch.next().await.ok_or_else(ended)??.changes {
            match change {
                Change::Put(entry) if entry.key == key => there = true,
                Change::Delete(gone) if gone == key => there = false,
                _ => {}
            }
        }
    }
    Ok(())
}

/// What is there, and a watch for all that comes.
async fn list_watch(store: &dyn Store, prefix: &str) -> Result<(Vec<Entry>, Watch)> {
    loop {
        let listing = store.list(prefix).await?;
        match store.watch(prefix, listing.revision + 1).await {
            Ok(watch) => return Ok((listing.entries, watch)),
            Err(StoreError::Compacted(_)) => continue,
            Err(error) => return Err(error),
        }
    }
}

/// `None` if the key is there, else a watch that will see it come.
async fn watch_for(store: &dyn Store, key: &str) -> Result<Option<Watch>> {
    let (entries, watch) = list_watch(store, key).await?;
    Ok(if entries.iter().any(|entry| entry.key == key) { None } else { Some(watch) })
}

/// Ends when a watch sees a put; never without a watch.
async fn put_seen(watch: &mut Option<Watch>) -> Result<()> {
    let Some(watch) = watch else {
        return std::future::pending().await;
    };
    while let Some(events) = watch.next().await {
        if events?.changes.iter().any(|change| matches!(change, Change::Put(_))) {
            return Ok(());
        }
    }
    Err(ended())
}

fn ended() -> StoreError {
    StoreError::Failed("watch ended".into())
}

#[cfg(test)]
mod tests;
