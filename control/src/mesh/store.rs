//! The seam to a key-value store with revisions, leases and watches: one [`Store`] is one
//! connection. Any error but [`StoreError::Compacted`] and [`StoreError::LeaseLost`] means that
//! the connection is to be given up and made anew.

use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;

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

/// A lock that is held until it is unlocked or its lease ends.
#[derive(Debug)]
pub(super) struct Lock {
    /// The key whose existence is the lock.
    pub(super) key: String,
    pub(super) lease: LeaseId,
}

/// Why a store did not do it.
#[derive(Debug, thiserror::Error)]
pub(super) enum StoreError {
    /// The revision to watch from is no longer kept: list again.
    #[error("revision {0} is compacted")]
    Compacted(i64),
    /// The lease is not, or no longer, known.
    #[error("lease {0:x} is lost")]
    LeaseLost(LeaseId),
    /// No answer in time.
    #[error("{0}: no answer within {1} s")]
    Timeout(&'static str, u64),
    /// The store says no, or cannot be reached.
    #[error("{0}")]
    Failed(String),
}

pub(super) type Result<T> = std::result::Result<T, StoreError>;
/// What store operations return: object-safe `async fn`.
pub(super) type Reply<'a, T> = BoxFuture<'a, Result<T>>;
/// Changes in order; each batch is of one or more whole revisions.
pub(super) type Watch = BoxStream<'static, Result<Vec<Change>>>;

/// One connection to a store.
pub(super) trait Store: Send + Sync {
    /// The entry of a key.
    fn get<'a>(&'a self, key: &'a str) -> Reply<'a, Option<Entry>>;
    /// All entries whose keys begin with a prefix, sorted by key.
    fn list<'a>(&'a self, prefix: &'a str) -> Reply<'a, Listing>;
    /// Changes below a prefix from a revision (inclusive) on.
    fn watch<'a>(&'a self, prefix: &'a str, from: i64) -> Reply<'a, Watch>;
    /// Writes a key.
    fn put<'a>(&'a self, key: &'a str, value: &'a [u8], lease: LeaseId) -> Reply<'a, ()>;
    /// Writes a key that does not exist, if the lock (where given) is still held; tells whether.
    fn create<'a>(
        &'a self,
        key: &'a str,
        value: &'a [u8],
        lease: LeaseId,
        held: Option<&'a Lock>,
    ) -> Reply<'a, bool>;
    /// Deletes a key unless it has changed since a revision; tells whether.
    fn delete<'a>(&'a self, key: &'a str, unchanged_since: i64) -> Reply<'a, bool>;
    /// Opens a lease of so many seconds.
    fn grant(&self, seconds: i64) -> Reply<'_, LeaseId>;
    /// Begins the term of a lease anew.
    fn keep_alive(&self, lease: LeaseId) -> Reply<'_, ()>;
    /// Ends a lease and deletes its keys.
    fn revoke(&self, lease: LeaseId) -> Reply<'_, ()>;
    /// Waits for a lock, as etcd's `concurrency.Mutex` takes it: key `<name>/<lease in hex>`.
    fn lock<'a>(&'a self, name: &'a str) -> Reply<'a, Lock>;
}
