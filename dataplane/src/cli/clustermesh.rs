//! `dataplane clustermesh status`: the remote clusters.

use super::table::Output;
use super::{Connection, Failure, status};
use crate::api::model::Status;

#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// Show every remote cluster; exit status 1 if one is not ready.
    Status(Args),
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
        let Command::Status(args) = self;
        let Status { control, .. } = args.connection.client().get("/v1/status").await?;
        args.output
            .print(&control.remotes, |remotes| status::clustermesh(remotes, &control.conflicts, true))?;
        if control.remotes.iter().all(|remote| remote.ready) { Ok(()) } else { Err(Failure::Silent) }
    }
}
