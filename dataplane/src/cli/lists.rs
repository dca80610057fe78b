//! `node`, `identity`, `service` and `ipcache`: what control knows, as tables.

use super::table::{Output, Table};
use super::{Connection, Failure, values};
use crate::api::model::Status;
use control::model::{IdentityView, IpcacheView, NodeView, ServiceView};
use serde::Serialize;
use serde::de::DeserializeOwned;

#[derive(Debug, clap::Args)]
pub(super) struct List {
    #[command(flatten)]
    connection: Connection,
    #[command(flatten)]
    output: Output,
}

impl List {
    /// Asks for what is under `path` and prints it.
    pub(super) async fn show<T: Serialize + DeserializeOwned>(
        &self,
        path: &str,
        table: impl FnOnce(&T) -> String,
    ) -> Result<(), Failure> {
        let answer = self.connection.client().get(path).await?;
        Ok(self.output.print(&answer, table)?)
    }
}

#[derive(Debug, clap::Subcommand)]
pub(super) enum NodeCommand {
    /// List the nodes of all clusters.
    List(List),
}

impl NodeCommand {
    pub(super) async fn run(self) -> Result<(), Failure> {
        let NodeCommand::List(args) = self;
        args.show("/v1/nodes", |nodes: &Vec<NodeView>| node_table(nodes)).await
    }
}

fn node_table(nodes: &[NodeView]) -> String {
    let mut table = Table::new(["Name", "IPv4 Address", "Endpoint CIDR", "IPv6 Address", "Endpoint CIDR"]);
    let text = |ip: Option<std::net::IpAddr>| ip.map(|ip| ip.to_string()).unwrap_or_default();
    let mut rows: Vec<_> = nodes
        .iter()
        .map(|node| {
            [
                node.name.clone(),
                text(node.ipv4_address),
                node.ipv4_cidrs.join(", "),
                text(node.ipv6_address),
                node.ipv6_cidrs.join(", "),
            ]
        })
        .collect();
    rows.sort();
    rows.into_iter().for_each(|row| table.row(row));
    table.render()
}

#[derive(Debug, clap::Subcommand)]
pub(super) enum IdentityCommand {
    /// List all known identities.
    List(List),
    /// Show one identity.
    Get(IdentityGet),
}

#[derive(Debug, clap::Args)]
pub(super) struct IdentityGet {
    /// Number of the identity.
    #[arg(value_parser = |text: &str| values::number::<u32>(text, 1..=u32::MAX))]
    id: u32,
    #[command(flatten)]
    list: List,
}

impl IdentityCommand {
    pub(super) async fn run(self) -> Result<(), Failure> {
        match self {
            IdentityCommand::List(args) => {
                args.show("/v1/identities", |all: &Vec<IdentityView>| identity_table(all)).await
            }
            IdentityCommand::Get(get) => {
                let path = format!("/v1/identities/{}", get.id);
                get.list.show(&path, |one| identity_table(std::slice::from_ref(one))).await
            }
        }
    }
}

fn identity_table(identities: &[IdentityView]) -> String {
    let mut table = Table::new(["ID", "LABELS"]);
    for identity in identities {
        let id = identity.id.to_string();
        let mut labels = identity.labels.iter().map(String::as_str);
        table.row([id.as_str(), labels.next().unwrap_or_default()]);
        labels.for_each(|label| table.row(["", label]));
    }
    table.render()
}

#[derive(Debug, clap::Subcommand)]
pub(super) enum ServiceCommand {
    /// List all services with their backends.
    List(ServiceList),
}

#[derive(Debug, clap::Args)]
pub(super) struct ServiceList {
    /// Mark the backends that new connections are sent to.
    #[arg(long)]
    clustermesh_affinity: bool,
    #[command(flatten)]
    list: List,
}

impl ServiceCommand {
    pub(super) async fn run(self) -> Result<(), Failure> {
        let ServiceCommand::List(ServiceList { clustermesh_affinity, list }) = self;
        let client = list.connection.client();
        let services: Vec<ServiceView> = client.get("/v1/services").await?;
        let own: Status = client.get("/v1/status").await?;
        Ok(list.output.print(&services, |all| service_table(all, &own.cluster_name, clustermesh_affinity))?)
    }
}

/// Backends of other clusters than `own` are shown with their cluster, and backends with their share
/// of the new connections where these differ.
fn service_table(services: &[ServiceView], own: &str, affinity: bool) -> String {
    let mut table = Table::new(["ID", "Frontend", "Service Type", "Backend", "Name"]);
    for service in services {
        let mut shares = service.backends.iter().map(|backend| backend.share).filter(|share| *share > 0.0);
        let first = shares.next();
        let uneven = shares.any(|share| Some(share) != first);
        let backends = service.backends.iter().enumerate().map(|(i, backend)| {
            let cluster =
                if backend.cluster == own { String::new() } else { format!(" ({})", backend.cluster) };
            let share = if uneven { format!(" ({}%)", backend.share) } else { String::new() };
            let preferred = if affinity && backend.preferred { " (preferred)" } else { "" };
            format!("{} => {} ({}){cluster}{share}{preferred}", i + 1, backend.address, backend.state)
        });
        let mut backends = backends.collect::<Vec<_>>().into_iter();
        let name = format!("{}/{}", service.namespace, service.name);
        let name = if service.global { name + " (global)" } else { name };
        let first = backends.next().unwrap_or_default();
        let id = if service.id == 0 { "-".into() } else { service.id.to_string() };
        let kind = format!("{}{}", service.kind, if service.remote { " (Remote)" } else { "" });
        table.row([&id, &service.frontend, &kind, &first, &name]);
        backends.for_each(|backend| table.row(["", "", "", &backend, ""]));
    }
    table.render()
}

#[derive(Debug, clap::Subcommand)]
pub(super) enum IpcacheCommand {
    /// List addresses and prefixes with their identity.
    List(List),
}

impl IpcacheCommand {
    pub(super) async fn run(self) -> Result<(), Failure> {
        let IpcacheCommand::List(args) = self;
        args.show("/v1/ipcache", |entries: &Vec<IpcacheView>| ipcache_table(entries)).await
    }
}

fn ipcache_table(entries: &[IpcacheView]) -> String {
    let mut table = Table::new(["IP PREFIX/ADDRESS", "IDENTITY", "NODE", "SOURCE", "CLUSTER", "POD"]);
    for entry in entries {
        table.row([
            &entry.prefix,
            &wire::Identity(entry.identity).to_string(),
            &entry.tunnel_endpoint.map(|node| node.to_string()).unwrap_or_default(),
            &entry.source,
            entry.cluster.as_deref().unwrap_or_default(),
            entry.pod.as_deref().unwrap_or_default(),
        ]);
    }
    table.render()
}

#[cfg(test)]
mod tests;
