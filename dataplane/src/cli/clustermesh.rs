//! `dataplane clustermesh`: the remote clusters.

mod init;
mod membership;
mod troubleshoot;

use super::table::Output;
use super::{Connection, Failure, status};
use crate::api::model::Status;

#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// Show every remote cluster; exit status 1 if one is not ready.
    Status(Args),
    /// Set up the users and roles of a cluster's own etcd, and turn its authentication on.
    Init(init::Args),
    /// Find what keeps remote clusters away, step by step, and what to do; needs no agent. Exit status 1
    /// if something does.
    Troubleshoot(troubleshoot::Args),
    /// Join two clusters: write the configuration files by which their agents find each other.
    Connect(membership::Connect),
    /// Part two clusters: remove the files that `connect` writes.
    Disconnect(membership::Disconnect),
}

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    connection: Connection,
    #[command(flatten)]
    output: Output,
}

impl Command {
    pub(super) async fn run(self) -> Result<(), Failure> {
        match self {
            Command::Status(args) => args.run().await,
            Command::Init(args) => args.run().await,
            Command::Troubleshoot(args) => args.run().await,
            Command::Connect(args) => args.run().await,
            Command::Disconnect(args) => args.run(),
        }
    }
}

impl Args {
    async fn run(self) -> Result<(), Failure> {
        let Status { control, .. } = self.connection.client().get("/v1/status").await?;
        self.output
            .print(&control.remotes, |remotes| status::clustermesh(remotes, &control.conflicts, true))?;
        if control.remotes.iter().all(|remote| remote.ready) { Ok(()) } else { Err(Failure::Silent) }
    }
}
