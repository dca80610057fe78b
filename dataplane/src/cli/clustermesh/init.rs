//! `dataplane clustermesh init`.

use crate::cli::{Failure, values};
use control::admin::{self, Setup};
use std::io::{self, Write};
use std::path::PathBuf;

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Args {
    /// etcd client file of the etcd, with a certificate whose common name is `root` or `admin-CLUSTER`.
    #[arg(long, value_name = "FILE")]
    kvstore_config: PathBuf,
    /// Name of the cluster that the etcd belongs to.
    #[arg(long, value_name = "NAME", value_parser = values::cluster_name)]
    cluster_name: String,
    /// Id of the cluster, 1 to 255.
    #[arg(long, value_name = "ID", value_parser = |text: &str| values::number::<u8>(text, 1..=255))]
    cluster_id: u8,
    /// Remote cluster that gets a user of its own, remote-NAME; repeat for several. The user `remote` is
    /// always there for all.
    #[arg(long, value_name = "NAME", value_parser = values::cluster_name)]
    remote: Vec<String>,
}

impl Args {
    pub(super) async fn run(self) -> Result<(), Failure> {
        let done = admin::init(&Setup {
            kvstore_config: &self.kvstore_config,
            cluster: &self.cluster_name,
            id: self.cluster_id,
            remotes: &self.remote,
        })
        .await?;
        let mut out = io::stdout().lock();
        done.iter().try_for_each(|line| writeln!(out, "{line}"))?;
        if done.is_empty() {
            writeln!(out, "nothing to do: users, roles and authentication are as they should be")?;
        }
        Ok(())
    }
}
