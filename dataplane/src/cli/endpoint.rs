//! `dataplane endpoint`: the pods of this node.

use super::lists::List;
use super::table::{Output, Table};
use super::values::{self, PodName};
use super::{Connection, Failure, usage};
use crate::api::model::{EndpointAdd, EndpointInfo, Removed};
use control::records::NamedPort;
use std::collections::BTreeMap;
use std::io::{self, Write};
use std::net::IpAddr;

#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// Connect a pod: make its interface in its network namespace, with addresses and routes.
    Add(Box<Add>),
    /// List the pods of this node.
    List(List),
    /// Show one pod.
    Get(Get),
    /// Disconnect a pod and release its addresses.
    Delete(Delete),
}

#[derive(Debug, clap::Args)]
pub(super) struct Add {
    /// Namespace and name of the pod.
    #[arg(long, value_name = "NAMESPACE/NAME", value_parser = values::pod)]
    pod: PodName,
    /// Network namespace of the pod: a name below /run/netns, or a path.
    #[arg(long, value_name = "NAME|PATH")]
    netns: String,
    /// Name of the interface inside the pod.
    #[arg(long, value_name = "NAME", default_value = "eth0", value_parser = values::interface)]
    ifname: String,
    /// Address from a pod CIDR of this node, once per family [default: the next free ones].
    #[arg(long = "ip", value_name = "ADDRESS", value_parser = values::address)]
    ips: Vec<IpAddr>,
    /// Label of the pod; repeat for several.
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = values::label)]
    labels: Vec<(String, String)>,
    /// Named container port, as in `redis=6379/TCP`; repeat for several.
    #[arg(long = "port", value_name = "NAME=NUMBER/PROTOCOL", value_parser = values::named_port)]
    ports: Vec<NamedPort>,
    /// Service account of the pod.
    #[arg(long, value_name = "NAME", value_parser = values::dns_name)]
    service_account: Option<String>,
    #[command(flatten)]
    connection: Connection,
    #[command(flatten)]
    output: Output,
}

#[derive(Debug, clap::Args)]
pub(super) struct Get {
    /// Endpoint id.
    #[arg(value_parser = values::endpoint)]
    id: u16,
    #[command(flatten)]
    list: List,
}

#[derive(Debug, clap::Args)]
pub(super) struct Delete {
    /// Endpoint id.
    #[arg(value_parser = values::endpoint)]
    id: u16,
    #[command(flatten)]
    connection: Connection,
}

impl Command {
    pub(super) async fn run(self) -> Result<(), Failure> {
        match self {
            Command::Add(add) => add.run().await,
            Command::List(list) => list.show("/v1/endpoints", |all: &Vec<EndpointInfo>| table(all)).await,
            Command::Get(Get { id, list }) => {
                list.show(&format!("/v1/endpoints/{id}"), |one| table(std::slice::from_ref(one))).await
            }
            Command::Delete(Delete { id, connection }) => {
                let _: Removed = connection.client().delete(&format!("/v1/endpoints/{id}")).await?;
                Ok(writeln!(io::stdout(), "endpoint {id} is disconnected")?)
            }
        }
    }
}

impl Add {
    async fn run(self) -> Result<(), Failure> {
        // A relative path means the caller's directory, not the agent's.
        let netns = match self.netns.contains('/') {
            true => std::path::absolute(&self.netns)?.to_string_lossy().into_owned(),
            false => self.netns,
        };
        let mut labels = BTreeMap::new();
        for (key, value) in self.labels {
            if let Some(before) = labels.insert(key.clone(), value) {
                let what = format!("--label: {key}: is given twice, with `{before}` first");
                return Err(usage(what).into());
            }
        }
        let add = EndpointAdd {
            namespace: self.pod.namespace,
            name: self.pod.name,
            netns,
            ifname: self.ifname,
            addresses: self.ips,
            labels,
            named_ports: self.ports,
            service_account: self.service_account,
        };
        let made: EndpointInfo = self.connection.client().post("/v1/endpoints", &add).await?;
        Ok(self.output.print(&made, |one| table(std::slice::from_ref(one)))?)
    }
}

fn table(endpoints: &[EndpointInfo]) -> String {
    let mut table = Table::new([
        "ENDPOINT",
        "POLICY (ingress)",
        "POLICY (egress)",
        "IDENTITY",
        "LABELS (source:key[=value])",
        "IPv6",
        "IPv4",
        "STATUS",
        "POD",
    ]);
    table.row(["", "ENFORCEMENT", "ENFORCEMENT", "", "", "", "", "", ""]);
    for info in endpoints {
        let (endpoint, status) = (&info.endpoint, &info.status);
        let address = |v6: bool| {
            let found = endpoint.addresses.iter().find(|address| address.is_ipv6() == v6);
            found.map(IpAddr::to_string).unwrap_or_default()
        };
        let mut labels = status.labels.iter().map(String::as_str);
        table.row([
            &endpoint.id.to_string(),
            enforcement(status.ingress_enforced),
            enforcement(status.egress_enforced),
            &status.identity.map_or("<no label id>".into(), |identity| identity.to_string()),
            labels.next().unwrap_or("no labels"),
            &address(true),
            &address(false),
            &status.state,
            &format!("{}/{}", endpoint.namespace, endpoint.name),
        ]);
        labels.for_each(|label| table.row(["", "", "", "", label, "", "", "", ""]));
    }
    table.render()
}

fn enforcement(enforced: bool) -> &'static str {
    if enforced { "Enabled" } else { "Disabled" }
}

#[cfg(test)]
mod tests {
    use super::*;
    use control::model::{EndpointStatus, LocalEndpoint};

    #[test]
    fn endpoint_list_looks_like_ciliums() {
        let endpoint = LocalEndpoint {
            id: 412,
            namespace: "shop".into(),
            name: "db-0".into(),
            addresses: vec!["10.1.0.9".parse().unwrap()],
            labels: [].into(),
            service_account: None,
            named_ports: vec![],
            ifindex: 7,
            mac: "aa:00:00:00:00:01".into(),
            identity: None,
        };
        let status = EndpointStatus {
            id: 412,
            identity: Some(131200),
            labels: vec!["k8s:app=db".into(), "k8s:io.cilium.k8s.policy.cluster=cluster1".into()],
            ingress_enforced: true,
            egress_enforced: false,
            state: "ready".into(),
            error: None,
        };
        let info = EndpointInfo {
            endpoint,
            netns: "db".into(),
            ifname: "eth0".into(),
            host_ifname: "dp1".into(),
            status,
        };
        assert_eq!(
            table(&[info]),
            "ENDPOINT   POLICY (ingress)   POLICY (egress)   IDENTITY   LABELS (source:key[=value])                 IPv6   IPv4       STATUS   POD\n\
             \u{20}          ENFORCEMENT        ENFORCEMENT\n\
             412        Enabled            Disabled          131200     k8s:app=db                                         10.1.0.9   ready    shop/db-0\n\
             \u{20}                                                          k8s:io.cilium.k8s.policy.cluster=cluster1\n"
        );
    }
}
