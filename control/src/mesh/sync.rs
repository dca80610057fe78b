//! List, then watch: one prefix of a store as listings and changes, over compactions. What a
//! listing lacks may be forgotten only if the listing is known to be complete; nothing is ever
//! forgotten because a connection was lost.

use super::store::{Change, Entry, Result, Store, StoreError, Watch};
use futures_util::StreamExt;

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
    /// All there is, or, if not complete, all there is so far.
    Listing { entries: Vec<Entry>, complete: bool },
    /// What changed since.
    Changes(Vec<Change>),
}

/// Follows one prefix over one connection.
pub(super) struct Follower<'a> {
    store: &'a dyn Store,
    prefix: String,
    gate: Gate,
    watch: Option<Watch>,
    /// Watch on a canary that was not there at the last listing.
    canary: Option<Watch>,
}

impl<'a> Follower<'a> {
    pub(super) fn new(store: &'a dyn Store, prefix: String, gate: Gate) -> Follower<'a> {
        Follower { store, prefix, gate, watch: None, canary: None }
    }

    /// Waits for the next batch; the first one is a listing.
    pub(super) async fn next(&mut self) -> Result<Batch> {
        loop {
            let Some(watch) = &mut self.watch else {
                return self.list().await;
            };
            let changes = tokio::select! {
                changes = watch.next() => changes,
                come = put_seen(&mut self.canary) => {
                    come?;
                    self.watch = None;
                    continue;
                }
            };
            match changes {
                Some(Ok(mut changes)) => {
                    for change in &mut changes {
                        let (Change::Put(Entry { key, .. }) | Change::Delete(key)) = change;
                        key.drain(..self.prefix.len());
                    }
                    return Ok(Batch::Changes(changes));
                }
                Some(Err(StoreError::Compacted(_))) => self.watch = None,
                Some(Err(error)) => return Err(error),
                None => return Err(ended()),
            }
        }
    }

    async fn list(&mut self) -> Result<Batch> {
        // The canary is looked for before the listing: what is listed after it is complete.
        self.canary = match &self.gate {
            Gate::None => None,
            Gate::Read(key) => {
                wait_for(self.store, key).await?;
                None
            }
            Gate::Forget(key) => watch_for(self.store, key).await?,
        };
        let (mut entries, watch) = list_watch(self.store, &self.prefix).await?;
        self.watch = Some(watch);
        for entry in &mut entries {
            entry.key.drain(..self.prefix.len());
        }
        Ok(Batch::Listing { entries, complete: self.canary.is_none() })
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
        for change in watch.next().await.ok_or_else(ended)?? {
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
    while let Some(changes) = watch.next().await {
        if changes?.iter().any(|change| matches!(change, Change::Put(_))) {
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
