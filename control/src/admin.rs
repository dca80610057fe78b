//! What an operator does to the etcds of a mesh without an agent: sets up their users (`access`),
//! joins and parts clusters (`membership`), finds what keeps them apart (`troubleshoot`), reads
//! keys (`kvstore`). All of it uses the same client configuration files as the agent.

mod access;
mod certificate;
mod client;
mod files;
mod kvstore;
mod membership;
mod probe;
mod tls;
mod troubleshoot;

pub use access::{Setup, init};
pub use kvstore::{Event, Kvstore, Page, Record, Value};
pub use membership::{Side, connect, disconnect};
pub use troubleshoot::{Own, Report, State, Step, Target, targets, troubleshoot};

/// Why it was not done: names the thing, its value and what would be right.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Error(String);

impl From<crate::mesh::config::ConfigError> for Error {
    fn from(error: crate::mesh::config::ConfigError) -> Error {
        Error(error.to_string())
    }
}
