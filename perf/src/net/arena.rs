//! Two pods that can talk to each other, whatever is between them.

use serde_json::Value;
use std::any::Any;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use tests::{Host, teardown, wait, world};
use wire::MacAddr;

/// Where streams, requests and datagrams are served.
pub const SERVER_PORT: u16 = 8080;
/// Address and port of the service whose backend is the server.
pub const SERVICE: (Ipv4Addr, u16) = (Ipv4Addr::new(10, 96, 0, 1), 80);

/// A client, a server, and what connects them.
pub struct Arena {
    /// What is between them: `kernel`, `offload on`.
    pub name: String,
    /// The pod that opens flows.
    pub client: Endpoint,
    /// The pod that serves.
    pub server: Endpoint,
    /// Whatever has to live as long as the arena, and is removed with it.
    pub kept: Box<dyn Any + Send + Sync>,
}

/// Where packets are sent to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Target {
    /// The server's own address.
    Server,
    /// Its IPv6 address.
    ServerOverIpv6,
    /// The address of its service.
    Service,
}

impl Arena {
    /// Address and port of a target.
    pub fn address(&self, target: Target) -> SocketAddr {
        match target {
            Target::Server => (self.server.ipv4, SERVER_PORT).into(),
            Target::ServerOverIpv6 => (self.server.ipv6, SERVER_PORT).into(),
            Target::Service => SERVICE.into(),
        }
    }

    /// The client's address of the target's family.
    pub fn source(&self, target: Target) -> IpAddr {
        self.client.address(self.address(target).is_ipv6())
    }

    /// A TCP socket of the server for what is sent to a target.
    ///
    /// # Errors
    /// If it cannot be opened.
    pub fn listen(&self, target: Target) -> Result<TcpListener, String> {
        let own = (self.server.address(self.address(target).is_ipv6()), SERVER_PORT);
        let listener = self.server.host.enter(|| TcpListener::bind(own));
        listener.map_err(|error| format!("{}: TCP port {SERVER_PORT}: {error}", self.server.host.netns))
    }
}

/// A pod and its link to its node.
#[derive(Clone, Debug)]
pub struct Endpoint {
    /// The pod's namespace.
    pub host: Host,
    /// The node's namespace.
    pub node: Host,
    /// The pod's address.
    pub ipv4: Ipv4Addr,
    /// The pod's other address.
    pub ipv6: Ipv6Addr,
    /// Link-layer address of `eth0`.
    pub mac: MacAddr,
    /// Index of `eth0` in the pod.
    pub interface: u32,
    /// Index of the other end, in the node.
    pub link: u32,
    /// Link-layer address of the other end, the pod's gateway.
    pub gateway: MacAddr,
}

impl Endpoint {
    /// Looks up the links of a pod that is connected by `eth0`.
    ///
    /// # Errors
    /// If it is not.
    pub fn find(host: Host, node: Host, ipv4: Ipv4Addr, ipv6: Ipv6Addr) -> Result<Endpoint, String> {
        let own = one_link(&host, "eth0")?;
        let index = |link: &Value, key: &str| {
            let index = link[key].as_u64().and_then(|index| u32::try_from(index).ok());
            index.ok_or_else(|| format!("{}: no {key} in {link}", host.netns))
        };
        let (interface, link) = (index(&own, "ifindex")?, index(&own, "link_index")?);
        let links = links(&node)?;
        let other = links.iter().find(|other| other["ifindex"] == link);
        let other = other.ok_or_else(|| format!("{}: no interface {link}", node.netns))?;
        let (mac, gateway) = (mac(&own)?, mac(other)?);
        Ok(Endpoint { host, node, ipv4, ipv6, mac, interface, link, gateway })
    }

    /// Its address of a family.
    fn address(&self, ipv6: bool) -> IpAddr {
        if ipv6 { self.ipv6.into() } else { self.ipv4.into() }
    }
}

/// Index of an interface.
///
/// # Errors
/// If there is none of this name.
pub fn ifindex(host: &Host, name: &str) -> Result<u32, String> {
    let index = one_link(host, name)?["ifindex"].as_u64().and_then(|index| u32::try_from(index).ok());
    index.ok_or_else(|| format!("{}: {name} has no index", host.netns))
}

fn one_link(host: &Host, name: &str) -> Result<Value, String> {
    let found = links(host)?.into_iter().find(|link| link["ifname"] == name);
    found.ok_or_else(|| format!("{}: no interface {name}", host.netns))
}

fn links(host: &Host) -> Result<Vec<Value>, String> {
    let shown = host.run("ip -j link show")?;
    serde_json::from_str(&shown).map_err(|error| format!("ip -j link show: {error}"))
}

fn mac(link: &Value) -> Result<MacAddr, String> {
    let text = link["address"].as_str().unwrap_or_default();
    let bytes: Vec<u8> = text.split(':').filter_map(|byte| u8::from_str_radix(byte, 16).ok()).collect();
    bytes.try_into().map(MacAddr).map_err(|_| format!("no link-layer address: {link}"))
}

/// Namespaces under a name that nobody else has; removed when dropped.
pub struct Namespaces {
    prefix: String,
}

impl Namespaces {
    /// None yet.
    #[allow(clippy::new_without_default, reason = "a name is taken")]
    pub fn new() -> Namespaces {
        wait::stop_gracefully_on_signals();
        Namespaces { prefix: world::unique() }
    }

    /// The name that all of them begin with.
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// Makes one.
    pub fn host(&self, name: &str) -> Host {
        Host::create(&format!("{}-{name}", self.prefix))
    }
}

impl Drop for Namespaces {
    fn drop(&mut self) {
        for complaint in teardown::remove(&self.prefix) {
            eprintln!("left behind: {complaint}");
        }
    }
}
