//! Looking into an etcd: single keys, pages of keys, changes.

use super::Error;
use super::client::{Connection, end_of, timed};
use crate::mesh::config::ClientConfig;
use crate::mesh::slices::Slice;
use crate::records::Service;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use etcd_client::{EventType, GetOptions, KeyValue, WatchOptions, WatchStream};
use serde::Serialize;
use std::path::Path;

/// Most keys that are asked for at once.
const PAGE: usize = 256;

/// An etcd to look into.
pub struct Kvstore(Connection);

/// A key with its value.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Record {
    /// The key.
    pub key: String,
    /// The value; none where only keys were asked for.
    #[serde(flatten)]
    pub value: Option<Value>,
    /// What it means, if the value is an endpoint slice: what this adds to its service.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service: Option<Box<Service>>,
    /// Id of the lease that it goes with, in hex; none if it stays.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lease: Option<String>,
    /// Revision of its last change.
    pub mod_revision: i64,
}

/// A value.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub enum Value {
    /// Text as it is.
    #[serde(rename = "value")]
    Text(String),
    /// Anything else in base64.
    #[serde(rename = "value_base64")]
    Binary(String),
}

/// A change of a key.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "event", rename_all = "lowercase")]
pub enum Event {
    /// It was written.
    Put(Record),
    /// It is gone.
    Delete {
        /// The key.
        key: String,
        /// Revision of the deletion.
        mod_revision: i64,
    },
}

/// Walks over all keys with a prefix as they were when it began.
pub struct Page<'a> {
    store: &'a Kvstore,
    end: Vec<u8>,
    keys_only: bool,
    /// Where the next page begins; none behind the last one.
    from: Option<Vec<u8>>,
    /// Of the first answer.
    revision: i64,
}

impl Kvstore {
    /// Connects by a client configuration file.
    ///
    /// # Errors
    /// The file or what it refers to is wrong, or no endpoint answers.
    pub async fn open(file: &Path) -> Result<Kvstore, Error> {
        let connection = Connection::open(&ClientConfig::read(file)?).await;
        Ok(Kvstore(connection.map_err(|error| Error(format!("{}: {error}", file.display())).advised())?))
    }

    /// The record of a key.
    ///
    /// # Errors
    /// The etcd does not answer or refuses.
    pub async fn get(&self, key: &str) -> Result<Option<Record>, Error> {
        if key.is_empty() {
            return Err(Error("the key is empty: `kvstore list` tells which there are".into()));
        }
        let answer = self.0.get(key, GetOptions::new()).await.map_err(|error| about(key, &error))?;
        Ok(answer.kvs().first().map(|kv| record(kv, false)))
    }

    /// All keys with a prefix, in pages.
    pub fn list(&self, prefix: &str, keys_only: bool) -> Page<'_> {
        let from = if prefix.is_empty() { vec![0] } else { prefix.into() };
        Page { store: self, end: end_of(prefix), keys_only, from: Some(from), revision: 0 }
    }

    /// Calls `each` for every change below a prefix until it returns an error.
    ///
    /// # Errors
    /// What `each` returned, or the etcd does not answer, refuses, or is gone.
    pub async fn watch<E: From<Error>>(
        &self,
        prefix: &str,
        mut each: impl FnMut(Event) -> Result<(), E>,
    ) -> Result<(), E> {
        let options = WatchOptions::new().with_range(end_of(prefix)).with_fragment();
        let from: &[u8] = if prefix.is_empty() { &[0] } else { prefix.as_bytes() };
        let mut watcher = self.0.watcher();
        let stream = timed(watcher.watch(from, Some(options))).await;
        let mut stream: WatchStream = stream.map_err(|error| about(prefix, &error))?;
        loop {
            let message = stream.message().await;
            let message = message.map_err(|error| about(prefix, &crate::mesh::etcd::failed(&error)))?;
            let Some(message) = message else { return Err(about(prefix, &"the watch ended").into()) };
            if message.canceled() {
                return Err(about(prefix, &message.cancel_reason()).into());
            }
            for event in message.events() {
                let Some(kv) = event.kv() else { continue };
                each(match event.event_type() {
                    EventType::Put => Event::Put(record(kv, false)),
                    EventType::Delete => Event::Delete { key: key(kv), mod_revision: kv.mod_revision() },
                })?;
            }
        }
    }
}

impl Page<'_> {
    /// The next records, at most `limit`; none behind the last one.
    ///
    /// # Errors
    /// The etcd does not answer or refuses.
    pub async fn next(&mut self, limit: usize) -> Result<Option<Vec<Record>>, Error> {
        let Some(from) = &self.from else { return Ok(None) };
        let mut options = GetOptions::new()
            .with_range(self.end.clone())
            .with_limit(limit.min(PAGE) as i64)
            .with_revision(self.revision);
        if self.keys_only {
            options = options.with_keys_only();
        }
        let answer = timed(self.store.0.kv().get(from.clone(), Some(options))).await;
        let answer = answer.map_err(|error| about(&String::from_utf8_lossy(from), &error))?;
        if self.revision == 0 {
            self.revision = answer.header().map_or(0, |header| header.revision());
        }
        let last = answer.kvs().last().filter(|_| answer.more());
        self.from = last.map(|kv| [kv.key(), &[0]].concat());
        Ok(Some(answer.kvs().iter().map(|kv| record(kv, self.keys_only)).collect()))
    }
}

fn about(key: &str, error: &impl std::fmt::Display) -> Error {
    Error(format!("'{key}': {error}")).advised()
}

fn key(kv: &KeyValue) -> String {
    String::from_utf8_lossy(kv.key()).into_owned()
}

fn record(kv: &KeyValue, key_only: bool) -> Record {
    let key = key(kv);
    Record {
        service: service(&key, kv.value()),
        key,
        value: (!key_only).then(|| value(kv.value())),
        lease: Some(kv.lease()).filter(|lease| *lease != 0).map(|lease| format!("{lease:x}")),
        mod_revision: kv.mod_revision(),
    }
}

fn service(key: &str, value: &[u8]) -> Option<Box<Service>> {
    let slice = key.contains("/endpointslices/v1/").then(|| Slice::read(value).ok())?;
    slice?.contribution().ok()?.map(Box::new)
}

fn value(bytes: &[u8]) -> Value {
    match std::str::from_utf8(bytes) {
        Ok(text) => Value::Text(text.into()),
        Err(_) => Value::Binary(STANDARD.encode(bytes)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_in_json_say_whether_they_are_text() {
        let record = |value| Record { key: "a".into(), value, service: None, lease: None, mod_revision: 7 };
        let json = |record| serde_json::to_string(&record).unwrap();
        let text = record(Some(value(b"{\"x\":1}")));
        assert_eq!(json(text), r#"{"key":"a","value":"{\"x\":1}","mod_revision":7}"#);
        let binary = Record { lease: Some("1f".into()), ..record(Some(value(&[0xff]))) };
        assert_eq!(json(binary), r#"{"key":"a","value_base64":"/w==","lease":"1f","mod_revision":7}"#);
        assert_eq!(json(record(None)), r#"{"key":"a","mod_revision":7}"#);
        let gone = Event::Delete { key: "a".into(), mod_revision: 8 };
        assert_eq!(serde_json::to_string(&gone).unwrap(), r#"{"event":"delete","key":"a","mod_revision":8}"#);
    }
}
