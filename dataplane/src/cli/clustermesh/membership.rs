//! `dataplane clustermesh connect` and `disconnect`.

use crate::cli::{Failure, values};
use control::admin::{self, Side};
use std::io::{self, Write};
use std::path::PathBuf;

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Connect {
    #[command(flatten)]
    sides: Sides,
    /// etcd client file by which other clusters reach the left one, with a certificate for them.
    #[arg(long, value_name = "FILE")]
    left_config: PathBuf,
    /// etcd client file by which other clusters reach the right one, with a certificate for them.
    #[arg(long, value_name = "FILE")]
    right_config: PathBuf,
}

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Disconnect {
    #[command(flatten)]
    sides: Sides,
}

#[derive(Debug, clap::Args)]
struct Sides {
    /// Name of the one cluster.
    #[arg(long, value_name = "NAME", value_parser = values::cluster_name)]
    left_name: String,
    /// Directory that the left cluster's agents have as --clustermesh-config.
    #[arg(long, value_name = "DIR")]
    left_dir: PathBuf,
    /// Name of the other cluster.
    #[arg(long, value_name = "NAME", value_parser = values::cluster_name)]
    right_name: String,
    /// Directory that the right cluster's agents have as --clustermesh-config.
    #[arg(long, value_name = "DIR")]
    right_dir: PathBuf,
    /// Check everything, print what would be done, change nothing.
    #[arg(long)]
    dry_run: bool,
}

impl Sides {
    fn split(self) -> (Side, Side) {
        (
            Side { name: self.left_name, directory: self.left_dir },
            Side { name: self.right_name, directory: self.right_dir },
        )
    }
}

impl Connect {
    pub(super) async fn run(self) -> Result<(), Failure> {
        let dry_run = self.sides.dry_run;
        let (left, right) = self.sides.split();
        let sides = [(&left, self.left_config.as_path()), (&right, self.right_config.as_path())];
        let files = admin::connect(sides, dry_run).await?;
        if files.is_empty() {
            writeln!(io::stdout(), "nothing to do: all files are as they should be")?;
        }
        list(&files, if dry_run { "would write" } else { "wrote" })
    }
}

impl Disconnect {
    pub(super) fn run(self) -> Result<(), Failure> {
        let dry_run = self.sides.dry_run;
        let (left, right) = self.sides.split();
        let files = admin::disconnect([&left, &right], dry_run)?;
        list(&files, if dry_run { "would remove" } else { "removed" })
    }
}

fn list(files: &[PathBuf], verb: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    Ok(files.iter().try_for_each(|file| writeln!(out, "{verb} {}", file.display()))?)
}
