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

/// What etcd or the way to it says, and what to do about it.
const ADVICE: [(&str, &str); 5] = [
    ("permission denied", "use the client file of a user who may read that, as `admin-CLUSTER`"),
    ("invalid user ID or password", "correct username and password in the client file"),
    (
        "user name is empty",
        "etcd wants to know who asks: add cert-file and key-file, or username and password",
    ),
    ("connection refused", "start etcd there, or correct the endpoint"),
    ("cannot be resolved", "correct it, or give it an address under cilium-host-aliases"),
];

impl Error {
    /// Says what to do about it, if that is known.
    fn advised(self) -> Error {
        match ADVICE.iter().find(|(sign, _)| self.0.contains(sign)) {
            Some((_, advice)) => Error(format!("{self}; {advice}")),
            None => self,
        }
    }
}

impl From<crate::mesh::config::ConfigError> for Error {
    fn from(error: crate::mesh::config::ConfigError) -> Error {
        Error(error.to_string())
    }
}
