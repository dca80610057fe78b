//! `dataplane clustermesh troubleshoot`.

use crate::api::model::Status;
use crate::cli::table::{Format, Output};
use crate::cli::{Connection, Failure, values};
use control::admin::{self, Own, State, Step, Target};
use std::io::{self, IsTerminal, Write};
use std::path::PathBuf;

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Args {
    /// Remote clusters to look at [default: all].
    #[arg(value_name = "NAME")]
    names: Vec<String>,
    /// Directory with one etcd client file per remote cluster [default: that of the running agent].
    #[arg(long, value_name = "DIR")]
    clustermesh_config: Option<PathBuf>,
    /// A single etcd client file, named like the remote cluster.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["names", "clustermesh_config"])]
    config: Option<PathBuf>,
    /// Name of this cluster [default: that of the running agent, if it is asked for its directory].
    #[arg(long, value_name = "NAME", value_parser = values::cluster_name)]
    cluster_name: Option<String>,
    /// Id of this cluster, which no remote one may have [default: as for --cluster-name].
    #[arg(long, value_name = "ID", value_parser = |text: &str| values::number::<u8>(text, 1..=255))]
    cluster_id: Option<u8>,
    #[command(flatten)]
    connection: Connection,
    #[command(flatten)]
    output: Output,
}

impl Args {
    pub(super) async fn run(self) -> Result<(), Failure> {
        let (targets, own) = self.targets().await?;
        let text = self.output.format == Format::Table;
        let marks = if io::stdout().is_terminal() { ["✓", "!", "✗"] } else { ["ok", "WARN", "FAIL"] };
        let (mut last, mut written) = (None, Ok(()));
        let reports = admin::troubleshoot(&targets, &own, |target, step| {
            if text && written.is_ok() {
                let begins = last.replace(target.cluster.clone()).as_ref() != Some(&target.cluster);
                written = print(begins.then_some(target), step, marks);
            }
        })
        .await;
        written?;
        if !text {
            self.output.print(&reports, |_| String::new())?;
        }
        if reports.iter().all(|report| report.ok) { Ok(()) } else { Err(Failure::Silent) }
    }

    async fn targets(&self) -> Result<(Vec<Target>, Own), Failure> {
        let mut own = Own { name: self.cluster_name.clone(), id: self.cluster_id };
        if let Some(file) = &self.config {
            let cluster = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
            return Ok((vec![Target { cluster, file: file.clone() }], own));
        }
        let directory = match &self.clustermesh_config {
            Some(directory) => directory.clone(),
            None => {
                let status: Status = self.connection.client().get("/v1/status").await.map_err(|error| {
                    Failure::Message(format!("{error}; without an agent give --clustermesh-config"))
                })?;
                own.name.get_or_insert(status.cluster_name);
                own.id.get_or_insert(status.cluster_id);
                let none = || Failure::Message("the agent runs without --clustermesh-config".into());
                status.clustermesh_config.ok_or_else(none)?
            }
        };
        Ok((admin::targets(&directory, &self.names, own.name.as_deref())?, own))
    }
}

/// Prints a step at once: the next one may take a while.
fn print(begins: Option<&Target>, step: &Step, [ok, warning, failed]: [&str; 3]) -> io::Result<()> {
    let mut out = io::stdout().lock();
    if let Some(target) = begins {
        writeln!(out, "{}:", target.cluster)?;
    }
    let mark = match step.state {
        State::Ok => ok,
        State::Warning => warning,
        State::Failed => failed,
    };
    writeln!(out, "  {mark} {}: {}", step.name, step.detail)?;
    if let Some(fix) = &step.fix {
        writeln!(out, "    fix: {fix}")?;
    }
    out.flush()
}
