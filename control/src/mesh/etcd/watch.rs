//! One watch, on a stream of its own, that cannot stall unnoticed.

use super::{ANSWER, MESSAGE, Pin, entry, failed, timed};
use crate::mesh::store::{Change, Events, Result, StoreError, Watch};
use etcd_client::{EventType, WatchClient, WatchOptions, WatchResponse, WatchStream};
use futures_util::stream::{self, StreamExt};
use std::time::Duration;
use tokio::time::timeout;

/// A watch that has said nothing for so long is asked for a sign of life; one that then says
/// nothing for [`ANSWER`] has stalled. etcd answers since 3.4.
const QUIET: Duration = Duration::from_secs(5);

struct Watching {
    stream: WatchStream,
    pin: Pin,
    prefix: String,
}

/// Changes below a prefix from a revision on, once etcd has accepted that.
pub(super) async fn begin(mut client: WatchClient, pin: Pin, prefix: &str, from: i64) -> Result<Watch> {
    let options =
        WatchOptions::new().with_prefix().with_start_revision(from).with_fragment().with_progress_notify();
    client = client.max_decoding_message_size(MESSAGE);
    let stream = timed("watch", client.watch(prefix, Some(options))).await?;
    let mut watching = Watching { stream, pin, prefix: prefix.to_owned() };
    // The stream opens in any case: only its first message tells whether this may be watched.
    let first = watching.message().await?;
    let first = watching.read(&first)?;
    Ok(stream::iter(first.map(Ok)).chain(stream::unfold(Some(watching), next)).boxed())
}

/// What comes next; the stream ends after its first error.
async fn next(watching: Option<Watching>) -> Option<(Result<Events>, Option<Watching>)> {
    let mut watching = watching?;
    loop {
        let told = match watching.message().await {
            Ok(message) => watching.read(&message),
            Err(error) => Err(error),
        };
        match told {
            Ok(None) => {}
            Ok(Some(events)) => return Some((Ok(events), Some(watching))),
            Err(error) => return Some((Err(error), None)),
        }
    }
}

impl Watching {
    async fn message(&mut self) -> Result<WatchResponse> {
        let message = match timeout(QUIET, self.stream.message()).await {
            Ok(message) => message,
            Err(_) => {
                timed("watch", self.stream.request_progress()).await?;
                let sign = timeout(ANSWER, self.stream.message()).await;
                sign.map_err(|_| StoreError::Timeout("watch", ANSWER.as_secs()))?
            }
        };
        message.map_err(|error| failed(&error))?.ok_or_else(|| StoreError::Failed("watch ended".into()))
    }

    fn read(&self, message: &WatchResponse) -> Result<Option<Events>> {
        let now = self.pin.check(message.header())?;
        if message.compact_revision() > 0 {
            return Err(StoreError::Compacted(message.compact_revision()));
        }
        if message.canceled() {
            return Err(StoreError::Failed(format!("watch refused: {}", message.cancel_reason())));
        }
        let last = message.events().iter().filter_map(|event| Some(event.kv()?.mod_revision())).max();
        match last {
            Some(revision) => {
                let changes = message.events().iter().filter_map(|event| self.change(event)).collect();
                Ok(Some(Events { changes, revision }))
            }
            // etcd before 3.4.25 and 3.5.8 answers requests (which have no number of a watch) ahead
            // of changes that are under way.
            None if message.created() || message.watch_id() < 0 => Ok(None),
            None => Ok(Some(Events { changes: vec![], revision: now })),
        }
    }

    /// What an event means; nothing if its key is not below the prefix.
    fn change(&self, event: &etcd_client::Event) -> Option<Change> {
        let entry = entry(event.kv()?.clone()).filter(|entry| entry.key.starts_with(&self.prefix))?;
        Some(match event.event_type() {
            EventType::Put => Change::Put(entry),
            EventType::Delete => Change::Delete(entry.key),
        })
    }
}
