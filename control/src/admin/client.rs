//! One connection to an etcd for one command: every answer has a limit, every error is in words.

use super::Error;
use crate::mesh::config::ClientConfig;
use crate::mesh::etcd::{self, MESSAGE, dial};
use etcd_client::{AuthClient, Client, ConnectOptions, GetOptions, GetResponse, KvClient, WatchClient};
use std::time::Duration;

/// Longest wait for any single answer.
pub(super) const ANSWER: Duration = Duration::from_secs(5);

/// What etcd answers if nobody has to authenticate.
const NOT_ENABLED: &str = "authentication is not enabled";

pub(super) struct Connection(Client);

impl Connection {
    /// Connects to the first endpoint that answers.
    pub(super) async fn open(config: &ClientConfig) -> Result<Connection, Error> {
        let tls = config.load_tls()?;
        dial::any(config, tls.as_ref(), Self::dial).await.map_err(Error)
    }

    async fn dial(url: &str, options: ConnectOptions) -> Result<Connection, Error> {
        let connection = Connection(timed(Client::connect([url], Some(options))).await?);
        // Only the first answer tells whether anybody is there.
        connection.requires_authentication().await?;
        Ok(connection)
    }

    pub(super) fn kv(&self) -> KvClient {
        self.0.kv_client().max_decoding_message_size(MESSAGE)
    }

    pub(super) fn watcher(&self) -> WatchClient {
        self.0.watch_client().max_decoding_message_size(MESSAGE)
    }

    pub(super) fn auth(&self) -> AuthClient {
        self.0.auth_client()
    }

    pub(super) async fn get(&self, key: &str, options: GetOptions) -> Result<GetResponse, Error> {
        timed(self.kv().get(key, Some(options))).await
    }

    /// The value of a key.
    pub(super) async fn value(&self, key: &str) -> Result<Option<Vec<u8>>, Error> {
        let mut answer = self.get(key, GetOptions::new()).await?;
        Ok(answer.take_kvs().into_iter().next().map(|kv| kv.into_key_value().1))
    }

    /// Whether clients have to authenticate. etcd 3.4 tells only when somebody tries: a user without
    /// a name is refused for this reason or another.
    pub(super) async fn requires_authentication(&self) -> Result<bool, Error> {
        match tokio::time::timeout(ANSWER, self.auth().authenticate(String::new(), String::new())).await {
            Ok(Ok(_)) => Ok(true),
            Ok(Err(etcd_client::Error::GRpcStatus(status))) if is_of_etcd(status.message()) => {
                Ok(!status.message().contains(NOT_ENABLED))
            }
            Ok(Err(error)) => Err(Error(etcd::failed(&error).to_string())),
            Err(_) => Err(no_answer()),
        }
    }
}

/// Whether etcd itself says so, not the way to it.
fn is_of_etcd(message: &str) -> bool {
    message.starts_with("etcdserver: ") || message.starts_with("auth: ")
}

/// Waits for an answer.
pub(super) async fn timed<T>(
    answer: impl Future<Output = Result<T, etcd_client::Error>>,
) -> Result<T, Error> {
    match tokio::time::timeout(ANSWER, answer).await {
        Ok(answer) => answer.map_err(|error| Error(etcd::failed(&error).to_string())),
        Err(_) => Err(no_answer()),
    }
}

fn no_answer() -> Error {
    Error(format!("no answer within {} s", ANSWER.as_secs()))
}

/// The first key behind all keys with a prefix, as etcd wants it: `\0` behind all keys.
pub(super) fn end_of(prefix: &str) -> Vec<u8> {
    match prefix.as_bytes().split_last() {
        // No byte of UTF-8 is 0xff.
        Some((last, before)) => before.iter().copied().chain([last + 1]).collect(),
        None => vec![0],
    }
}
