//! `dataplane state`.

use super::{Connection, Failure};
use std::io::{self, Write};

#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// Print the node's tables and flows as JSON, to replay captures against: see
    /// `dataplane-perf replay --help`.
    Dump(Connection),
}

impl Command {
    pub(super) async fn run(self) -> Result<(), Failure> {
        let Command::Dump(connection) = self;
        let text = connection.client().text("/v1/state").await?;
        let mut out = io::stdout().lock();
        out.write_all(text.as_bytes())?;
        Ok(out.write_all(b"\n")?)
    }
}
