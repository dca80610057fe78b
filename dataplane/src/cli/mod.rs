//! The command line: one command per file; parsing, exit status and error texts here.
//!
//! Exit status: 0 fine, 1 it failed, 2 bad usage.

mod clustermesh;
mod completion;
mod config_dir;
mod ct;
mod endpoint;
mod kvstore;
mod lists;
mod monitor;
mod policy;
mod run;
mod state;
mod status;
mod table;
mod values;

use crate::agent;
use crate::api::client::{self, Client};
use clap::error::ErrorKind;
use clap::{Parser, Subcommand};
use std::fmt::Display;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

/// A userspace dataplane for pods on AF_XDP: identities, policy and global services.
#[derive(Debug, Parser)]
#[command(name = "dataplane", version, disable_help_subcommand = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the agent of this node until SIGTERM or SIGINT; pods stay connected after it.
    Run(Box<run::Args>),
    #[command(flatten)]
    Client(ClientCommand),
    /// Print the completion script of a shell.
    Completion(completion::Args),
}

/// The commands that talk to an agent or an etcd, and cleanup, which makes sure that there is no agent.
#[derive(Debug, Subcommand)]
enum ClientCommand {
    /// Connect, show and disconnect the pods of this node.
    #[command(subcommand)]
    Endpoint(endpoint::Command),
    /// Show the nodes of all clusters.
    #[command(subcommand)]
    Node(lists::NodeCommand),
    /// Show security identities and their labels.
    #[command(subcommand)]
    Identity(lists::IdentityCommand),
    /// Show services and their backends in all clusters.
    #[command(subcommand)]
    Service(lists::ServiceCommand),
    /// Show the policies in force, or check a file of policies.
    #[command(subcommand)]
    Policy(policy::Command),
    /// Show which identity is behind which address.
    #[command(subcommand)]
    Ipcache(lists::IpcacheCommand),
    /// Show or empty connection tracking.
    #[command(subcommand)]
    Ct(ct::Command),
    /// Show the state of the agent; exit status 1 if something keeps it from its work.
    Status(status::Args),
    /// Dump the node's tables and flows, to explain packets elsewhere.
    #[command(subcommand)]
    State(state::Command),
    /// Show the state of remote clusters, connect them, and find what keeps them away.
    #[command(subcommand)]
    Clustermesh(clustermesh::Command),
    /// Look into an etcd: keys, values and changes.
    #[command(subcommand)]
    Kvstore(kvstore::Command),
    /// Watch packets being dropped and forwarded, with the reason.
    Monitor(monitor::Args),
    /// Print the agent's metrics in Prometheus' text format.
    Metrics(Connection),
    /// Remove everything that agents with this state directory made: pod interfaces, programs, state.
    Cleanup(Cleanup),
}

/// Where the agent is found.
#[derive(Clone, Debug, clap::Args)]
struct Connection {
    /// API socket of the agent.
    #[arg(long, env = "DATAPLANE_SOCKET", hide_env_values = true, value_name = "PATH", default_value_os_t = default_socket())]
    socket: PathBuf,
}

impl Connection {
    fn client(&self) -> Client {
        Client::new(&self.socket)
    }
}

fn default_socket() -> PathBuf {
    PathBuf::from(agent::config::DEFAULT_STATE_DIR).join(SOCKET_NAME)
}

/// File name of the API socket below the state directory.
const SOCKET_NAME: &str = "dataplane.sock";

#[derive(Debug, clap::Args)]
struct Cleanup {
    /// State directory of the agent.
    #[arg(long, value_name = "DIR", default_value = agent::config::DEFAULT_STATE_DIR)]
    state_dir: PathBuf,
}

/// Why a command did not succeed.
#[derive(Debug, thiserror::Error)]
enum Failure {
    /// Wrong usage that only shows when flags are seen together.
    #[error(transparent)]
    Usage(#[from] clap::Error),
    /// The API call failed.
    #[error(transparent)]
    Api(#[from] client::Error),
    /// Reading or writing failed.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// In words.
    #[error("{0}")]
    Message(String),
    /// All was said already.
    #[error("")]
    Silent,
}

impl From<agent::Error> for Failure {
    fn from(error: agent::Error) -> Failure {
        Failure::Message(error.to_string())
    }
}

impl From<control::admin::Error> for Failure {
    fn from(error: control::admin::Error) -> Failure {
        Failure::Message(error.to_string())
    }
}

/// Wrong usage that clap does not see.
fn usage(what: impl Display) -> clap::Error {
    clap::Error::raw(ErrorKind::ValueValidation, format!("{what}\n"))
}

/// Runs the command line of this process.
pub fn main() -> ExitCode {
    let result = parse(std::env::args_os()).map_err(Failure::Usage).and_then(|cli| execute(cli.command));
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure::Usage(error)) => {
            let _ = error.print();
            ExitCode::from(if error.use_stderr() { 2 } else { 0 })
        }
        // Whoever read our output has seen enough.
        Err(Failure::Io(error)) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(Failure::Silent) => ExitCode::FAILURE,
        Err(failure) => {
            let _ = writeln!(io::stderr(), "error: {failure}");
            ExitCode::FAILURE
        }
    }
}

fn parse(args: impl IntoIterator<Item = std::ffi::OsString>) -> Result<Cli, clap::Error> {
    Cli::try_parse_from(config_dir::expand(args.into_iter().collect())?)
}

fn execute(command: Command) -> Result<(), Failure> {
    match command {
        Command::Run(args) => run::run(*args),
        Command::Completion(args) => args.print(),
        Command::Client(command) => {
            tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(command.run())
        }
    }
}

impl ClientCommand {
    async fn run(self) -> Result<(), Failure> {
        match self {
            ClientCommand::Endpoint(command) => command.run().await,
            ClientCommand::Node(command) => command.run().await,
            ClientCommand::Identity(command) => command.run().await,
            ClientCommand::Service(command) => command.run().await,
            ClientCommand::Policy(command) => command.run().await,
            ClientCommand::Ipcache(command) => command.run().await,
            ClientCommand::Ct(command) => command.run().await,
            ClientCommand::Status(args) => args.run().await,
            ClientCommand::State(command) => command.run().await,
            ClientCommand::Clustermesh(command) => command.run().await,
            ClientCommand::Kvstore(command) => command.run().await,
            ClientCommand::Monitor(args) => args.run().await,
            ClientCommand::Metrics(connection) => {
                let text = connection.client().text("/v1/metrics").await?;
                Ok(io::stdout().lock().write_all(text.as_bytes())?)
            }
            ClientCommand::Cleanup(args) => {
                Ok(agent::cleanup(&args.state_dir, agent::config::DEFAULT_BPFFS.as_ref()).await?)
            }
        }
    }
}

#[cfg(test)]
mod tests;
