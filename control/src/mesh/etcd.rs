//! [`Store`] over two connections to one etcd endpoint: one for watches, so that what they tell
//! never waits behind a long listing. `etcd-client` does not come back after a failure: whoever
//! sees an error drops the store and makes a new one.

use super::config::{ClientConfig, TlsMaterial};
use super::keys;
use super::lock;
use super::store::{Entry, LeaseId, Lock, Page, Reply, Result, Store, StoreError, Unchanged, Watch};
use etcd_client::{
    Certificate, Client, Compare, CompareOp, ConnectOptions, Error, GetOptions, KeyValue, LockOptions,
    PutOptions, ResponseHeader, TlsOptions, Txn, TxnOp,
};
use futures_util::FutureExt;
use std::future::Future;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

pub(crate) mod dial;
mod failure;
pub mod operations;
#[cfg(test)]
mod tests;
mod watch;
pub(crate) use failure::failed;

/// Keys per page of a listing.
const PAGE: i64 = 256;
/// After so long without traffic the connection itself is tried, as Cilium does …
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// … and given up when nothing comes back for so long.
const KEEP_ALIVE_LIMIT: Duration = Duration::from_secs(25);
/// Longest wait for any single answer.
const ANSWER: Duration = Duration::from_secs(5);
/// Longest wait for a lock: its holders have at most their lease.
const LOCK: Duration = Duration::from_secs(30);
/// Term of a lock's lease, seconds.
const LOCK_LEASE: i64 = 25;
/// Largest message taken: a page of services with some thousand backends each.
pub(crate) const MESSAGE: usize = 128 << 20;

pub(super) struct EtcdStore {
    client: Client,
    watches: Client,
    pin: Pin,
    /// The newest heartbeat read.
    heartbeat: Mutex<Option<Entry>>,
    config: ClientConfig,
    /// What was in its certificate files when it connected.
    tls: Option<TlsMaterial>,
}

/// etcd's own cluster id of the first answer. Another one later means that a load balancer has
/// sent us to a different etcd.
#[derive(Clone, Default)]
struct Pin(Arc<Pinned>);

#[derive(Default)]
struct Pinned {
    cluster: OnceLock<u64>,
    /// Newest revision that an answer had.
    revision: AtomicI64,
}

impl Pin {
    /// Checks the header of an answer; its revision.
    fn check(&self, header: Option<&ResponseHeader>) -> Result<i64> {
        let header = header.ok_or_else(|| StoreError::Failed("answer without a header".into()))?;
        let (ours, theirs) = (*self.0.cluster.get_or_init(|| header.cluster_id()), header.cluster_id());
        if ours != theirs {
            let what = format!("answer of another etcd: cluster {theirs:x}, not {ours:x}");
            return Err(StoreError::Failed(what));
        }
        self.0.revision.fetch_max(header.revision(), Ordering::Relaxed);
        Ok(header.revision())
    }
}

impl EtcdStore {
    /// Connects to the first endpoint that answers. Certificates are read anew.
    pub(super) async fn connect(config: &ClientConfig) -> Result<EtcdStore> {
        let tls = config.load_tls().map_err(|error| StoreError::Failed(error.to_string()))?;
        let [client, watches] =
            dial::any(config, tls.as_ref(), Self::dial).await.map_err(StoreError::Failed)?;
        let (pin, heartbeat) = (Pin::default(), Mutex::default());
        Ok(EtcdStore { client, watches, pin, heartbeat, config: config.clone(), tls })
    }

    async fn dial(url: &str, options: ConnectOptions) -> Result<[Client; 2]> {
        let connect = async || {
            let client = timed("connect", Client::connect([url], Some(options.clone()))).await?;
            measured("get", keys::HEARTBEAT, client.kv_client().get(keys::HEARTBEAT, None)).await?;
            Ok(client)
        };
        let connected = async { Ok([connect().await?, connect().await?]) }.await;
        connected.map_err(|error: StoreError| match error {
            // The alert of a server that does not like the certificate often comes too late.
            StoreError::Failed(why) if why == failure::LOST && url.starts_with("https://") => {
                StoreError::Failed(format!("{why} at once: the server may not accept the client certificate"))
            }
            error => error,
        })
    }

    /// etcd's own cluster id.
    pub(super) fn cluster(&self) -> Option<u64> {
        self.pin.0.cluster.get().copied()
    }

    /// Newest revision that an answer had.
    pub(super) fn revision(&self) -> Option<i64> {
        Some(self.pin.0.revision.load(Ordering::Relaxed)).filter(|revision| *revision > 0)
    }

    /// The entry of a key as it was at a revision, if that is still kept.
    async fn past(&self, key: &str, revision: i64) -> Result<Option<Option<Entry>>> {
        let options = GetOptions::new().with_revision(revision);
        match measured("get", key, self.kv().get(key, Some(options))).await {
            Ok(mut answer) => {
                self.pin.check(answer.header())?;
                Ok(Some(answer.take_kvs().into_iter().next().and_then(entry)))
            }
            Err(StoreError::Compacted(_)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn kv(&self) -> etcd_client::KvClient {
        self.client.kv_client().max_decoding_message_size(MESSAGE)
    }
}

/// How to connect to a server that is to be `host`.
fn options(config: &ClientConfig, host: &str, tls: Option<&TlsMaterial>) -> ConnectOptions {
    let mut options = ConnectOptions::new()
        .with_connect_timeout(ANSWER)
        .with_keep_alive(KEEP_ALIVE, KEEP_ALIVE_LIMIT)
        .with_keep_alive_while_idle(true)
        .with_require_leader(true);
    if let Some((name, password)) = &config.user {
        options = options.with_user(name, password).with_auto_token_refresh(true);
    }
    if let Some(tls) = tls {
        let mut tls_options = TlsOptions::new().domain_name(host);
        tls_options = match &tls.ca {
            Some(ca) => tls_options.ca_certificate(Certificate::from_pem(ca)),
            None => tls_options.with_native_roots(),
        };
        if let Some((cert, key)) = &tls.identity {
            tls_options = tls_options.identity(etcd_client::Identity::from_pem(cert, key));
        }
        options = options.with_tls(tls_options);
    }
    options
}

impl Store for EtcdStore {
    fn get<'a>(&'a self, key: &'a str) -> Reply<'a, Option<Entry>> {
        async move {
            let mut answer = measured("get", key, self.kv().get(key, None)).await?;
            self.pin.check(answer.header())?;
            let found = answer.take_kvs().into_iter().next().and_then(entry);
            if key == keys::HEARTBEAT {
                lock(&self.heartbeat).clone_from(&found);
            }
            Ok(found)
        }
        .boxed()
    }

    fn page<'a>(&'a self, prefix: &'a str, from: Option<&'a [u8]>, revision: i64) -> Reply<'a, Page> {
        async move {
            let options = GetOptions::new().with_limit(PAGE).with_revision(revision);
            let (from, options) = match from {
                None => (prefix.as_bytes(), options.with_prefix()),
                Some(from) => (from, options.with_range(end_of(prefix))),
            };
            let mut answer = measured("list", prefix, self.kv().get(from, Some(options))).await?;
            let now = self.pin.check(answer.header())?;
            let more = answer.more();
            let found = answer.take_kvs();
            // Just behind the last key.
            let next = found.last().filter(|_| more).map(|kv| [kv.key(), b"\0"].concat());
            let entries = found.into_iter().filter_map(entry).filter(|e| e.key.starts_with(prefix)).collect();
            Ok(Page { entries, revision: if revision > 0 { revision } else { now }, next })
        }
        .boxed()
    }

    fn watch<'a>(&'a self, prefix: &'a str, from: i64) -> Reply<'a, Watch> {
        watch::begin(self.watches.watch_client(), self.pin.clone(), prefix, from).boxed()
    }

    /// The heartbeat: nothing else has its time and its lease.
    fn witness(&self) -> Option<Entry> {
        lock(&self.heartbeat).clone()
    }

    fn remembers<'a>(&'a self, seen: &'a Entry) -> Reply<'a, bool> {
        async move {
            let then = self.past(&seen.key, seen.revision).await?;
            Ok(then.is_some_and(|then| then.as_ref() == Some(seen)))
        }
        .boxed()
    }

    fn keeps(&self, revision: i64) -> Reply<'_, bool> {
        async move { Ok(self.past(keys::HEARTBEAT, revision).await?.is_some()) }.boxed()
    }

    fn is_outdated(&self) -> bool {
        // A file that is just being written is no reason to disconnect.
        self.config.load_tls().is_ok_and(|tls| tls != self.tls)
    }

    fn create<'a>(
        &'a self,
        key: &'a str,
        value: &'a [u8],
        lease: LeaseId,
        held: Option<&'a Lock>,
    ) -> Reply<'a, bool> {
        async move {
            let mut conditions = vec![Compare::version(key, CompareOp::Equal, 0)];
            conditions
                .extend(held.map(|lock| Compare::create_revision(lock.key.as_str(), CompareOp::Greater, 0)));
            let put = TxnOp::put(key, value, Some(PutOptions::new().with_lease(lease)));
            let answer =
                measured("create", key, self.kv().txn(Txn::new().when(conditions).and_then([put]))).await?;
            self.pin.check(answer.header())?;
            Ok(answer.succeeded())
        }
        .boxed()
    }

    fn put_if<'a>(
        &'a self,
        key: &'a str,
        value: &'a [u8],
        lease: LeaseId,
        unchanged: &'a [Unchanged<'a>],
    ) -> Reply<'a, Option<i64>> {
        async move {
            let put = TxnOp::put(key, value, Some(PutOptions::new().with_lease(lease)));
            let txn = Txn::new().when(compares(unchanged)).and_then([put]);
            match measured("put", key, self.kv().txn(txn)).await {
                Ok(answer) => {
                    let revision = self.pin.check(answer.header())?;
                    Ok(answer.succeeded().then_some(revision))
                }
                Err(StoreError::LeaseLost(_)) => Err(StoreError::LeaseLost(lease)),
                Err(error) => Err(error),
            }
        }
        .boxed()
    }

    fn delete_if<'a>(&'a self, key: &'a str, unchanged: &'a [Unchanged<'a>]) -> Reply<'a, bool> {
        async move {
            let txn = Txn::new().when(compares(unchanged)).and_then([TxnOp::delete(key, None)]);
            let answer = measured("delete", key, self.kv().txn(txn)).await?;
            self.pin.check(answer.header())?;
            Ok(answer.succeeded())
        }
        .boxed()
    }

    fn grant(&self, seconds: i64) -> Reply<'_, LeaseId> {
        async move { Ok(timed("lease", self.client.lease_client().grant(seconds, None)).await?.id()) }.boxed()
    }

    fn keep_alive(&self, lease: LeaseId) -> Reply<'_, ()> {
        async move {
            match tokio::time::timeout(ANSWER, self.client.lease_client().keep_alive(lease)).await {
                Ok(Ok(_)) => Ok(()),
                Ok(Err(Error::LeaseKeepAliveError(_))) => Err(StoreError::LeaseLost(lease)),
                Ok(Err(error)) => Err(failed(&error)),
                Err(_) => Err(StoreError::Timeout("keep-alive", ANSWER.as_secs())),
            }
        }
        .boxed()
    }

    fn revoke(&self, lease: LeaseId) -> Reply<'_, ()> {
        async move {
            match timed("revoke", self.client.lease_client().revoke(lease)).await {
                Ok(_) | Err(StoreError::LeaseLost(_)) => Ok(()),
                Err(error) => Err(error),
            }
        }
        .boxed()
    }

    fn lock<'a>(&'a self, name: &'a str) -> Reply<'a, Lock> {
        async move {
            let lease = self.grant(LOCK_LEASE).await?;
            let mut client = self.client.lock_client();
            let locked = client.lock(name, Some(LockOptions::new().with_lease(lease)));
            let answer = within(LOCK, "lock", locked).await?;
            Ok(Lock { key: String::from_utf8_lossy(answer.key()).into_owned(), lease })
        }
        .boxed()
    }
}

fn compares(unchanged: &[Unchanged<'_>]) -> Vec<Compare> {
    let compare = |(key, revision): &Unchanged<'_>| Compare::mod_revision(*key, CompareOp::Equal, *revision);
    unchanged.iter().map(compare).collect()
}

/// Keys that are not UTF-8 cannot be ours and are passed over.
fn entry(kv: KeyValue) -> Option<Entry> {
    let (lease, revision) = (kv.lease(), kv.mod_revision());
    let (key, value) = kv.into_key_value();
    Some(Entry { key: String::from_utf8(key).ok()?, value, lease, revision })
}

/// The first key behind all keys with a prefix.
fn end_of(prefix: &str) -> Vec<u8> {
    let mut end = prefix.as_bytes().to_vec();
    if let Some(last) = end.last_mut() {
        *last += 1; // ASCII, as all our prefixes end in '/' or a letter
    }
    end
}

/// The answer to an operation on a key, written down.
async fn measured<T>(
    what: &'static str,
    key: &str,
    answer: impl Future<Output = std::result::Result<T, Error>>,
) -> Result<T> {
    let begun = Instant::now();
    let answer = timed(what, answer).await;
    operations::record(what, key, begun.elapsed(), &answer);
    answer
}

async fn timed<T>(
    what: &'static str,
    answer: impl Future<Output = std::result::Result<T, Error>>,
) -> Result<T> {
    within(ANSWER, what, answer).await
}

async fn within<T>(
    limit: Duration,
    what: &'static str,
    answer: impl Future<Output = std::result::Result<T, Error>>,
) -> Result<T> {
    match tokio::time::timeout(limit, answer).await {
        Ok(answer) => answer.map_err(|error| failed(&error)),
        Err(_) => Err(StoreError::Timeout(what, limit.as_secs())),
    }
}
