//! `dataplane completion SHELL`.

use super::{Cli, Failure};
use clap::CommandFactory;
use std::io::{self, Write};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Shell to complete for.
    #[arg(value_enum)]
    shell: clap_complete::Shell,
}

impl Args {
    pub(super) fn print(&self) -> Result<(), Failure> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut Cli::command(), "dataplane", &mut script);
        Ok(io::stdout().lock().write_all(&script)?)
    }
}
