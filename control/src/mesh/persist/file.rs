//! The file: per cluster its id, when its records were last confirmed, and the records.

use super::{Change, Item};
use crate::mesh::keys::Kind;
use crate::mesh::store::{Change as StoreChange, Entry};
use redb::{
    Builder, Database, DatabaseError, ReadableDatabase, ReadableTable, Table, TableDefinition, TableError,
    WriteTransaction,
};
use std::collections::BTreeMap;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

/// Memory for pages of the file.
const PAGES: usize = 4 << 20;
/// Whose it is: see [`super::Persistence::open`].
const ORIGIN: TableDefinition<'_, (), &str> = TableDefinition::new("origin");
/// By name of the cluster.
const CLUSTERS: TableDefinition<'_, &str, (u32, Option<u64>)> = TableDefinition::new("clusters");

/// What the file says of a cluster: its id and the time (of [`super::now`]) at which all that was
/// known of it was last confirmed, if ever.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Row {
    pub(super) id: u32,
    pub(super) confirmed: Option<u64>,
}

/// Values by name of the kind and key.
fn records(table: &str) -> TableDefinition<'_, (&'static str, &'static str), &'static [u8]> {
    TableDefinition::new(table)
}

fn table_of(cluster: &str) -> String {
    format!("records/{cluster}")
}

/// Why the file cannot be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum FileError {
    #[error("in use by another process")]
    InUse,
    #[error("it is of another cluster, boot or version ('{0}')")]
    Origin(String),
    #[error("{0}")]
    Failed(String),
}

impl<E: Into<redb::Error>> From<E> for FileError {
    fn from(error: E) -> FileError {
        FileError::Failed(error.into().to_string())
    }
}

pub(super) struct File(Database);

impl File {
    /// Opens the file that an earlier run left, or a new one where there is none that can be used;
    /// tells why not.
    pub(super) fn open(path: &Path, origin: &str) -> Result<(File, Option<FileError>), FileError> {
        let unusable = match path.exists().then(|| File::existing(path, origin)) {
            Some(Ok(file)) => return Ok((file, None)),
            Some(Err(FileError::InUse)) => return Err(FileError::InUse),
            Some(Err(why)) => Some(why),
            None => None,
        };
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(FileError::Failed(error.to_string()));
            }
            _ => {}
        }
        let file = File(builder().create(path)?);
        let txn = file.begin()?;
        txn.open_table(ORIGIN)?.insert((), origin)?;
        txn.open_table(CLUSTERS)?;
        txn.commit()?;
        Ok((file, unusable))
    }

    /// What is in the file is not to be trusted: reading a damaged one may even panic.
    fn existing(path: &Path, origin: &str) -> Result<File, FileError> {
        let read = || {
            let database = match builder().open(path) {
                Err(DatabaseError::DatabaseAlreadyOpen) => return Err(FileError::InUse),
                opened => opened?,
            };
            let theirs =
                database.begin_read()?.open_table(ORIGIN)?.get(())?.map(|text| text.value().to_owned());
            match theirs {
                Some(theirs) if theirs == origin => Ok(File(database)),
                theirs => Err(FileError::Origin(theirs.unwrap_or_default())),
            }
        };
        catch_unwind(AssertUnwindSafe(read)).unwrap_or_else(|_| Err(FileError::Failed("damaged".into())))
    }

    /// All clusters in the file.
    pub(super) fn clusters(&self) -> Result<BTreeMap<String, Row>, FileError> {
        let mut clusters = BTreeMap::new();
        for row in self.0.begin_read()?.open_table(CLUSTERS)?.iter()? {
            let (name, row) = row?;
            let (id, confirmed) = row.value();
            clusters.insert(name.value().to_owned(), Row { id, confirmed });
        }
        Ok(clusters)
    }

    /// Hands all records of a cluster on in the order in which they are best read, so many at once,
    /// for as long as they are taken.
    pub(super) fn read(
        &self,
        cluster: &str,
        at_once: usize,
        mut take: impl FnMut(Kind, Vec<StoreChange>) -> bool,
    ) -> Result<(), FileError> {
        let name = table_of(cluster);
        let table = match self.0.begin_read()?.open_table(records(&name)) {
            Err(TableError::TableDoesNotExist(_)) => return Ok(()),
            table => table?,
        };
        for kind in Kind::ALL.into_iter().chain([Kind::EndpointSlices]) {
            let mut chunk = Vec::new();
            for row in table.range((kind.name(), "")..)? {
                let (key, value) = row?;
                let (of, key) = key.value();
                if of != kind.name() {
                    break;
                }
                chunk.push(StoreChange::Put(Entry {
                    key: key.to_owned(),
                    value: value.value().to_vec(),
                    lease: 0,
                    revision: 0,
                }));
                if chunk.len() == at_once && !take(kind, std::mem::take(&mut chunk)) {
                    return Ok(());
                }
            }
            if !chunk.is_empty() && !take(kind, chunk) {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Writes all of this or, if the process dies meanwhile, nothing.
    pub(super) fn write(&self, items: &[Item], confirmed: &[(&str, u64)]) -> Result<(), FileError> {
        let txn = self.begin()?;
        {
            let mut clusters = txn.open_table(CLUSTERS)?;
            for items in items.chunk_by(|a, b| a.cluster == b.cluster) {
                let cluster = &*items[0].cluster;
                let name = table_of(cluster);
                let mut table = None;
                for item in items {
                    match &item.change {
                        Change::Put(kind, key, value) => {
                            let table = opened(&txn, &mut table, &name)?;
                            table.insert((kind.name(), key.as_str()), value.as_slice())?;
                        }
                        Change::Delete(kind, key) => {
                            let table = opened(&txn, &mut table, &name)?;
                            table.remove((kind.name(), key.as_str()))?;
                        }
                        Change::Begin(id) => {
                            table = None;
                            txn.delete_table(records(&name))?;
                            clusters.insert(cluster, (*id, None))?;
                        }
                        Change::Forget => {
                            table = None;
                            txn.delete_table(records(&name))?;
                            clusters.remove(cluster)?;
                        }
                    }
                }
            }
            for (cluster, time) in confirmed {
                let id = clusters.get(*cluster)?.map(|row| row.value().0);
                if let Some(id) = id {
                    clusters.insert(*cluster, (id, Some(*time)))?;
                }
            }
        }
        Ok(txn.commit()?)
    }

    /// Opening after a crash then takes no walk through the whole file.
    fn begin(&self) -> Result<WriteTransaction, FileError> {
        let mut txn = self.0.begin_write()?;
        txn.set_quick_repair(true);
        Ok(txn)
    }
}

type Records<'txn> = Table<'txn, (&'static str, &'static str), &'static [u8]>;

fn opened<'a, 'txn>(
    txn: &'txn WriteTransaction,
    table: &'a mut Option<Records<'txn>>,
    name: &str,
) -> Result<&'a mut Records<'txn>, FileError> {
    match table {
        Some(table) => Ok(table),
        none => Ok(none.insert(txn.open_table(records(name))?)),
    }
}

fn builder() -> Builder {
    let mut builder = Builder::new();
    builder.set_cache_size(PAGES);
    builder
}
