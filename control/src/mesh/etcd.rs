//! [`Store`] over one connection to one etcd endpoint. `etcd-client` does not come back after a
//! failure: whoever sees an error drops the store and makes a new one.

use super::config::{ClientConfig, Endpoint};
use super::store::{Change, Entry, LeaseId, Listing, Lock, Reply, Result, Store, StoreError, Watch};
use etcd_client::{
    Certificate, Client, Compare, CompareOp, ConnectOptions, Error, EventType, GetOptions, KeyValue,
    LockOptions, PutOptions, ResponseHeader, TlsOptions, Txn, TxnOp, WatchOptions, WatchStream,
};
use futures_util::FutureExt;
use futures_util::stream::{self, StreamExt};
use rand::seq::SliceRandom;
use std::future::Future;
use std::sync::OnceLock;
use std::time::Duration;

mod failure;
pub(crate) use failure::failed;

/// Keys per page of a listing.
const PAGE: i64 = 256;
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
    /// etcd's own cluster id of the first answer. Another one later means that a load balancer
    /// has sent us to a different etcd.
    cluster: OnceLock<u64>,
}

impl EtcdStore {
    /// Connects to the first endpoint that answers, tried in random order. Certificates are read anew.
    pub(super) async fn connect(config: &ClientConfig) -> Result<EtcdStore> {
        let mut endpoints: Vec<&Endpoint> = config.endpoints.iter().collect();
        endpoints.shuffle(&mut rand::rng());
        let mut failures = Vec::new();
        for endpoint in endpoints {
            match Self::dial(config, endpoint).await {
                Ok(store) => return Ok(store),
                Err(error) => failures.push(format!("{}: {error}", endpoint.url)),
            }
        }
        Err(StoreError::Failed(failures.join("; ")))
    }

    async fn dial(config: &ClientConfig, endpoint: &Endpoint) -> Result<EtcdStore> {
        let options = options(config, endpoint)?;
        let mut failure = String::new();
        for url in &endpoint.dial {
            match Self::try_url(url, options.clone()).await {
                Ok(store) => return Ok(store),
                Err(error) => failure = error.to_string(),
            }
        }
        // The alert of a server that does not like the certificate often comes too late.
        if config.tls.is_some() && failure == failure::LOST {
            failure = format!("{failure} at once: the server may not accept the client certificate");
        }
        Err(StoreError::Failed(failure))
    }

    async fn try_url(url: &str, options: ConnectOptions) -> Result<EtcdStore> {
        let client = timed("connect", Client::connect([url], Some(options))).await?;
        let store = EtcdStore { client, cluster: OnceLock::new() };
        store.get(super::keys::HEARTBEAT).await?;
        Ok(store)
    }

    fn kv(&self) -> etcd_client::KvClient {
        self.client.kv_client().max_decoding_message_size(MESSAGE)
    }

    fn pin(&self, header: Option<&ResponseHeader>) -> Result<i64> {
        let header = header.ok_or_else(|| StoreError::Failed("answer without a header".into()))?;
        let (ours, theirs) = (*self.cluster.get_or_init(|| header.cluster_id()), header.cluster_id());
        match ours == theirs {
            true => Ok(header.revision()),
            false => {
                Err(StoreError::Failed(format!("answer of another etcd: cluster {theirs:x}, not {ours:x}")))
            }
        }
    }

    async fn page(
        &self,
        prefix: &str,
        after: Option<&str>,
        revision: i64,
    ) -> Result<etcd_client::GetResponse> {
        let options = GetOptions::new().with_limit(PAGE).with_revision(revision);
        // The range ends where the prefix does; later pages begin just behind the last key.
        let (from, options) = match after {
            None => (prefix.to_owned(), options.with_prefix()),
            Some(last) => (format!("{last}\0"), options.with_range(end_of(prefix))),
        };
        timed("list", self.kv().get(from, Some(options))).await
    }
}

impl Store for EtcdStore {
    fn get<'a>(&'a self, key: &'a str) -> Reply<'a, Option<Entry>> {
        async move {
            let mut answer = timed("get", self.kv().get(key, None)).await?;
            self.pin(answer.header())?;
            Ok(answer.take_kvs().into_iter().next().and_then(entry))
        }
        .boxed()
    }

    fn list<'a>(&'a self, prefix: &'a str) -> Reply<'a, Listing> {
        async move {
            let (mut entries, mut last, mut revision) = (Vec::new(), None::<String>, 0);
            loop {
                let mut page = self.page(prefix, last.as_deref(), revision).await?;
                if revision == 0 {
                    revision = self.pin(page.header())?;
                }
                let more = page.more();
                let kvs = page.take_kvs();
                last = kvs.last().map(|kv| String::from_utf8_lossy(kv.key()).into_owned());
                entries.extend(kvs.into_iter().filter_map(entry).filter(|e| e.key.starts_with(prefix)));
                if !more || last.is_none() {
                    return Ok(Listing { entries, revision });
                }
            }
        }
        .boxed()
    }

    fn watch<'a>(&'a self, prefix: &'a str, from: i64) -> Reply<'a, Watch> {
        async move {
            let options = WatchOptions::new().with_prefix().with_start_revision(from).with_fragment();
            let mut client = self.client.watch_client().max_decoding_message_size(MESSAGE);
            let stream = timed("watch", client.watch(prefix, Some(options))).await?;
            let first = Some((stream, prefix.to_owned()));
            Ok(stream::unfold(first, next_batch).boxed())
        }
        .boxed()
    }

    fn put<'a>(&'a self, key: &'a str, value: &'a [u8], lease: LeaseId) -> Reply<'a, ()> {
        async move {
            let options = PutOptions::new().with_lease(lease);
            match timed("put", self.kv().put(key, value, Some(options))).await {
                Ok(answer) => self.pin(answer.header()).map(|_| ()),
                Err(StoreError::LeaseLost(_)) => Err(StoreError::LeaseLost(lease)),
                Err(error) => Err(error),
            }
        }
        .boxed()
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
            let answer = timed("create", self.kv().txn(Txn::new().when(conditions).and_then([put]))).await?;
            self.pin(answer.header())?;
            Ok(answer.succeeded())
        }
        .boxed()
    }

    fn delete<'a>(&'a self, key: &'a str, unchanged_since: i64) -> Reply<'a, bool> {
        async move {
            let unchanged = [
                Compare::mod_revision(key, CompareOp::Less, unchanged_since.saturating_add(1)),
                Compare::version(key, CompareOp::Greater, 0),
            ];
            let txn = Txn::new().when(unchanged).and_then([TxnOp::delete(key, None)]);
            let answer = timed("delete", self.kv().txn(txn)).await?;
            self.pin(answer.header())?;
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

/// How to connect to an endpoint. Certificates are read anew.
pub(crate) fn options(config: &ClientConfig, endpoint: &Endpoint) -> Result<ConnectOptions> {
    let mut options = ConnectOptions::new().with_connect_timeout(ANSWER).with_require_leader(true);
    if let Some((name, password)) = &config.user {
        options = options.with_user(name, password).with_auto_token_refresh(true);
    }
    if let Some(tls) = config.tls.as_ref().filter(|_| endpoint.url.starts_with("https://")) {
        let tls = tls.load().map_err(|error| StoreError::Failed(error.to_string()))?;
        let mut tls_options = TlsOptions::new().domain_name(&endpoint.host);
        tls_options = tls_options.ca_certificate(Certificate::from_pem(tls.ca));
        if let Some((cert, key)) = tls.identity {
            tls_options = tls_options.identity(etcd_client::Identity::from_pem(cert, key));
        }
        options = options.with_tls(tls_options);
    }
    Ok(options)
}

/// A watch and its prefix.
type Watching = (WatchStream, String);

/// One message of a watch; the stream ends after its first error.
async fn next_batch(watching: Option<Watching>) -> Option<(Result<Vec<Change>>, Option<Watching>)> {
    let (mut stream, prefix) = watching?;
    let batch = match stream.message().await {
        Err(error) => Err(failed(&error)),
        Ok(None) => Err(StoreError::Failed("watch ended".into())),
        Ok(Some(message)) if message.compact_revision() > 0 => {
            Err(StoreError::Compacted(message.compact_revision()))
        }
        Ok(Some(message)) if message.canceled() => {
            Err(StoreError::Failed(format!("watch refused: {}", message.cancel_reason())))
        }
        Ok(Some(message)) => Ok(message.events().iter().filter_map(|event| change(event, &prefix)).collect()),
    };
    let rest = batch.is_ok().then_some((stream, prefix));
    Some((batch, rest))
}

/// What an event means; nothing if its key is not below the prefix.
fn change(event: &etcd_client::Event, prefix: &str) -> Option<Change> {
    let entry = entry(event.kv()?.clone()).filter(|entry| entry.key.starts_with(prefix))?;
    Some(match event.event_type() {
        EventType::Put => Change::Put(entry),
        EventType::Delete => Change::Delete(entry.key),
    })
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
