//! `dataplane policy`.

use super::Failure;
use super::lists::List;
use super::table::Table;
use control::manifests;
use control::model::PolicyView;
use std::io::{self, Write};
use std::path::PathBuf;

#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// List the policies in force.
    List(List),
    /// Check a file of policies and other objects without an agent; exit status 1 if one is refused.
    Validate(Validate),
}

#[derive(Debug, clap::Args)]
pub(super) struct Validate {
    /// File with YAML or JSON documents.
    #[arg(short, long, value_name = "FILE")]
    file: PathBuf,
}

impl Command {
    pub(super) async fn run(self) -> Result<(), Failure> {
        match self {
            Command::List(args) => args.show("/v1/policies", |all: &Vec<PolicyView>| table(all)).await,
            Command::Validate(args) => args.run(),
        }
    }
}

impl Validate {
    fn run(&self) -> Result<(), Failure> {
        let shown = self.file.display();
        let text = std::fs::read_to_string(&self.file)
            .map_err(|error| Failure::Message(format!("file: {shown}: {error}")))?;
        // Which cluster selectors are limited to has no influence on whether they are valid.
        let documents = manifests::parse(&text, "");
        if documents.is_empty() {
            return Err(Failure::Message(format!("file: {shown}: there is no document in it")));
        }
        let mut refused = 0;
        let mut out = io::stdout().lock();
        for document in &documents {
            let key = document.key.as_ref().map(|key| format!("{key}: ")).unwrap_or_default();
            match &document.object {
                Ok(_) => writeln!(out, "{shown}#{}: {key}valid", document.index)?,
                Err(error) => {
                    refused += 1;
                    writeln!(out, "{shown}#{}: {key}{error}", document.index)?;
                }
            }
        }
        if refused == 0 {
            return Ok(());
        }
        Err(Failure::Message(format!("file: {shown}: {refused} of {} documents refused", documents.len())))
    }
}

fn table(policies: &[PolicyView]) -> String {
    let mut table = Table::new(["NAMESPACE", "NAME", "KIND", "DEFAULT DENY", "RULES", "ENDPOINTS", "SOURCE"]);
    for policy in policies {
        let ids: Vec<_> = policy.endpoints.iter().map(u16::to_string).collect();
        table.row([
            &policy.namespace,
            &policy.name,
            &policy.kind,
            &policy.enforces.join(", "),
            &policy.rules.to_string(),
            &ids.join(", "),
            &policy.source,
        ]);
    }
    table.render()
}
