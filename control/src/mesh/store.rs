//! The seam to a key-value store with revisions, leases and watches: one [`Store`] is one
//! connection. Any error but [`StoreError::Compacted`], [`StoreError::LeaseLost`] and the refusal of
//! a write means that the connection is to be given up and made anew.

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;
use std::time::Duration;

/// How long a write that was refused is left alone.
pub(super) const REST: Duration = Duration::from_secs(10);

/// Number of a lease; 0 is none.
pub(super) type LeaseId = i64;

/// A key with its value.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Entry {
    pub(super) key: String,
    pub(super) value: Vec<u8>,
    pub(super) lease: LeaseId,
    /// Revision of the last change.
    pub(super) revision: i64,
}

/// A change of one key.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Change {
    Put(Entry),
    Delete(String),
}

/// All keys of a prefix as they were at one revision.
#[derive(Debug)]
pub(super) struct Listing {
    pub(super) entries: Vec<Entry>,
    pub(super) revision: i64,
}

/// Some of them.
#[derive(Debug)]
pub(super) struct Page {
    pub(super) entries: Vec<Entry>,
    pub(super) revision: i64,
    /// Where the next page begins; `None` behind the last one.
    pub(super) next: Option<Vec<u8>>,
}

/// What a watch tells at once.
#[derive(Debug)]
pub(super) struct Events {
    /// In order; none if there is nothing but the revision to tell.
    pub(super) changes: Vec<Change>,
    /// All changes before this revision have been told, and most likely those of it.
    pub(super) revision: i64,
}

/// A key and the revision of its last change, 0 if it does not exist: a condition.
pub(super) type Unchanged<'a> = (&'a str, i64);

/// A lock that is held until it is unlocked or its lease ends.
#[derive(Debug)]
pub(super) struct Lock {
    /// The key whose existence is the lock.
    pub(super) key: String,
    pub(super) lease: LeaseId,
}

/// Why a store did not do it.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StoreError {
    /// The revision to read or to watch from is no longer kept: list again.
    #[error("revision {0} is compacted")]
    Compacted(i64),
    /// The lease is not, or no longer, known.
    #[error("lease {0:x} is lost")]
    LeaseLost(LeaseId),
    /// No answer in time.
    #[error("{0}: no answer within {1} s")]
    Timeout(&'static str, u64),
    /// What it was connected with is no longer what is configured.
    #[error("certificates were renewed")]
    Renewed,
    /// The store is there but does not do this with this key.
    #[error("{0}")]
    Refused(String),
    /// The store is there but takes no keys for now.
    #[error("{0}")]
    Full(String),
    /// The store says no, or cannot be reached.
    #[error("{0}")]
    Failed(String),
}

impl StoreError {
    /// It is about a write; everything else goes on.
    pub(super) fn is_refusal(&self) -> bool {
        matches!(self, StoreError::Refused(_) | StoreError::Full(_))
    }
}

pub(crate) type Result<T> = std::result::Result<T, StoreError>;
/// What store operations return: object-safe `async fn`.
pub(super) type Reply<'a, T> = BoxFuture<'a, Result<T>>;
/// Changes in order.
pub(super) type Watch = BoxStream<'static, Result<Events>>;

/// One connection to a store.
pub(super) trait Store: Send + Sync {
    /// The entry of a key.
    fn get<'a>(&'a self, key: &'a str) -> Reply<'a, Option<Entry>>;
    /// Some entries whose keys begin with a prefix, sorted by key, beginning with the key `from`, as
    /// they were at a revision (0: now).
    fn page<'a>(&'a self, prefix: &'a str, from: Option<&'a [u8]>, revision: i64) -> Reply<'a, Page>;
    /// All entries whose keys begin with a prefix, sorted by key.
    fn list<'a>(&'a self, prefix: &'a str) -> Reply<'a, Listing> {
        async move {
            let Page { mut entries, revision, mut next } = self.page(prefix, None, 0).await?;
            while let Some(from) = next {
                let page = self.page(prefix, Some(&from), revision).await?;
                entries.extend(page.entries);
                next = page.next;
            }
            Ok(Listing { entries, revision })
        }
        .boxed()
    }
    /// Changes below a prefix from a revision (inclusive) on.
    fn watch<'a>(&'a self, prefix: &'a str, from: i64) -> Reply<'a, Watch>;
    /// An entry by which the store can be told from another one, and from one that has lost its
    /// data: seen over this connection, and unlike any other for its time and lease.
    fn witness(&self) -> Option<Entry>;
    /// The store had this entry at the entry's revision.
    fn remembers<'a>(&'a self, entry: &'a Entry) -> Reply<'a, bool>;
    /// Changes from this revision (inclusive) on are still kept.
    fn keeps(&self, revision: i64) -> Reply<'_, bool>;
    /// Certificates that it was connected with are no longer those in the files.
    fn is_outdated(&self) -> bool {
        false
    }
    /// Writes a key if all of this is unchanged; returns the revision of the write, or `None`.
    fn put_if<'a>(
        &'a self,
        key: &'a str,
        value: &'a [u8],
        lease: LeaseId,
        unchanged: &'a [Unchanged<'a>],
    ) -> Reply<'a, Option<i64>>;
    /// Writes a key that does not exist, if the lock (where given) is still held; tells whether.
    fn create<'a>(
        &'a self,
        key: &'a str,
        value: &'a [u8],
        lease: LeaseId,
        held: Option<&'a Lock>,
    ) -> Reply<'a, bool>;
    /// Deletes a key if all of this is unchanged; tells whether.
    fn delete_if<'a>(&'a self, key: &'a str, unchanged: &'a [Unchanged<'a>]) -> Reply<'a, bool>;
    /// Opens a lease of so many seconds.
    fn grant(&self, seconds: i64) -> Reply<'_, LeaseId>;
    /// Begins the term of a lease anew.
    fn keep_alive(&self, lease: LeaseId) -> Reply<'_, ()>;
    /// Ends a lease and deletes its keys.
    fn revoke(&self, lease: LeaseId) -> Reply<'_, ()>;
    /// Waits for a lock, as etcd's `concurrency.Mutex` takes it: key `<name>/<lease in hex>`.
    fn lock<'a>(&'a self, name: &'a str) -> Reply<'a, Lock>;
}
