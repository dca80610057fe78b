//! `dataplane kvstore`.

use super::table::Lines;
use super::{Connection, Failure};
use crate::api::model::Status;
use control::admin::{Event, Kvstore, Record, Value};
use std::path::PathBuf;

/// Prefix of all keys of Cilium's.
const ALL: &str = "cilium/";

#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// Print the value of a key; exit status 1 if there is none.
    Get(Get),
    /// List keys and values.
    List(List),
    /// Print changes until Ctrl-C.
    Watch(Watch),
}

#[derive(Debug, clap::Args)]
pub(super) struct Get {
    /// The key.
    key: String,
    #[command(flatten)]
    store: Store,
}

#[derive(Debug, clap::Args)]
pub(super) struct List {
    /// What keys begin with.
    #[arg(default_value = ALL)]
    prefix: String,
    /// Without values.
    #[arg(long)]
    keys_only: bool,
    /// Most keys to list [default: all].
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
    #[command(flatten)]
    store: Store,
}

#[derive(Debug, clap::Args)]
pub(super) struct Watch {
    /// What keys begin with.
    #[arg(default_value = ALL)]
    prefix: String,
    #[command(flatten)]
    store: Store,
}

/// Which etcd, and how it is shown.
#[derive(Debug, clap::Args)]
struct Store {
    /// etcd client file [default: that of the running agent].
    #[arg(long, value_name = "FILE")]
    kvstore_config: Option<PathBuf>,
    #[command(flatten)]
    lines: Lines,
    #[command(flatten)]
    connection: Connection,
}

impl Command {
    pub(super) async fn run(self) -> Result<(), Failure> {
        match self {
            Command::Get(args) => args.run().await,
            Command::List(args) => args.run().await,
            Command::Watch(args) => tokio::select! {
                result = args.run() => result,
                interrupted = tokio::signal::ctrl_c() => Ok(interrupted?),
            },
        }
    }
}

impl Get {
    async fn run(self) -> Result<(), Failure> {
        let record = self.store.open().await?.get(&self.key).await?;
        let missing = || Failure::Message(format!("key '{}' does not exist", self.key));
        let record = record.ok_or_else(missing)?;
        Ok(self.store.lines.print(&record, |record| text(record).unwrap_or_default())?)
    }
}

impl List {
    async fn run(self) -> Result<(), Failure> {
        let store = self.store.open().await?;
        let mut pages = store.list(&self.prefix, self.keys_only);
        let mut left = self.limit.unwrap_or(usize::MAX);
        while left > 0 {
            let Some(records) = pages.next(left).await? else { break };
            left -= records.len();
            records.iter().try_for_each(|record| self.store.lines.print(record, line))?;
        }
        Ok(())
    }
}

impl Watch {
    async fn run(self) -> Result<(), Failure> {
        let store = self.store.open().await?;
        store
            .watch(&self.prefix, |event| {
                Ok(self.store.lines.print(&event, |event| match event {
                    Event::Put(record) => format!("put {}", line(record)),
                    Event::Delete { key, .. } => format!("delete {key}"),
                })?)
            })
            .await
    }
}

impl Store {
    async fn open(&self) -> Result<Kvstore, Failure> {
        let file = match &self.kvstore_config {
            Some(file) => file.clone(),
            None => {
                let status: Status = self.connection.client().get("/v1/status").await.map_err(|error| {
                    Failure::Message(format!("{error}; without an agent give --kvstore-config"))
                })?;
                let none = || Failure::Message("the agent runs without --kvstore-config".into());
                status.kvstore_config.ok_or_else(none)?
            }
        };
        Ok(Kvstore::open(&file).await?)
    }
}

fn line(record: &Record) -> String {
    match text(record) {
        Some(value) => format!("{} => {value}", record.key),
        None => record.key.clone(),
    }
}

/// The value for people: endpoint slices as the services that they are for.
fn text(record: &Record) -> Option<String> {
    match (&record.service, record.value.as_ref()?) {
        (Some(service), _) => Some(control::records::to_json(service.as_ref())),
        (None, Value::Text(text) | Value::Binary(text)) => Some(text.clone()),
    }
}
