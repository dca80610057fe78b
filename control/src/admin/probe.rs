//! The way to an etcd, endpoint by endpoint: name, port, TLS.

use super::certificate::Certificate;
use super::client::ANSWER;
use super::tls::{Handshake, Material, Refusal};
use crate::mesh::config::Endpoint;
use std::io;
use std::net::{IpAddr, SocketAddr};
use tokio::net::{TcpStream, lookup_host};
use tokio::time::timeout;

/// What is wrong, and what to do about it.
pub(super) struct Trouble {
    pub(super) what: String,
    pub(super) fix: String,
}

/// What was found, in words.
pub(super) type Found<T> = Result<(T, String), Trouble>;

/// Finds the addresses of an endpoint.
pub(super) async fn resolve(endpoint: &Endpoint) -> Found<Vec<SocketAddr>> {
    let mut addresses = Vec::new();
    for url in &endpoint.dial {
        let authority = url.split_once("://").map_or(url.as_str(), |(_, authority)| authority);
        let found = timeout(ANSWER, lookup_host(authority)).await;
        match found.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
            Ok(found) => addresses.extend(found),
            Err(error) => {
                return Err(Trouble {
                    what: format!("{}: {error}", endpoint.host),
                    fix: format!(
                        "correct the name, have DNS know it, or list {} with its addresses under \
                         cilium-host-aliases",
                        endpoint.host
                    ),
                });
            }
        }
    }
    let shown = match endpoint.host.parse::<IpAddr>() {
        Ok(ip) => ip.to_string(),
        Err(_) => {
            let ips: Vec<_> = addresses.iter().map(|address| address.ip().to_string()).collect();
            format!("{} is {}", endpoint.host, ips.join(", "))
        }
    };
    Ok((addresses, shown))
}

/// Connects to the first address that accepts.
pub(super) async fn reach(addresses: &[SocketAddr]) -> Found<TcpStream> {
    let mut trouble = Trouble { what: "no address".into(), fix: "correct the endpoint's host name".into() };
    for address in addresses {
        let error = match timeout(ANSWER, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => return Ok((stream, address.to_string())),
            Ok(Err(error)) => error,
            Err(_) => io::ErrorKind::TimedOut.into(),
        };
        trouble = Trouble {
            what: format!("{address}: {error}"),
            fix: match error.kind() {
                io::ErrorKind::ConnectionRefused => format!(
                    "start etcd there, with --listen-client-urls on {address}, or correct the endpoint's port"
                ),
                _ => format!("let packets reach {address} from here: check routes and firewalls on the way"),
            },
        };
    }
    Err(trouble)
}

/// Shakes hands, as far as the endpoint is to be reached by TLS.
pub(super) async fn secure(endpoint: &Endpoint, stream: TcpStream, material: Option<&Material>) -> Found<()> {
    let Some(material) = material.filter(|_| endpoint.url.starts_with("https://")) else {
        return Ok(((), format!("{}: not used, as it is http", endpoint.url)));
    };
    let Handshake { server, result } = material.handshake(&endpoint.host, stream).await;
    let refusal = match result {
        Err(refusal) => refusal,
        Ok(()) => {
            let what = server.map(|server| {
                format!("{}, issued by {}, valid until {}", server.subject, server.issuer, server.not_after)
            });
            return Ok(((), what.unwrap_or_else(|| endpoint.host.clone())));
        }
    };
    Err(explain(endpoint, material, server.as_ref(), refusal))
}

fn explain(
    endpoint: &Endpoint,
    material: &Material,
    server: Option<&Certificate>,
    refusal: Refusal,
) -> Trouble {
    let url = &endpoint.url;
    let of = |part: fn(&Certificate) -> String| server.map(part).unwrap_or_default();
    let issuer = of(|server| server.issuer.clone());
    let trusted = match material.authorities.as_slice() {
        [] => "only CAs that the system trusts are accepted".into(),
        all => {
            let all: Vec<_> = all.iter().map(|ca| format!("'{}'", ca.subject)).collect();
            format!("trusted-ca-file has {}", all.join(", "))
        }
    };
    let (what, fix) = match refusal {
        Refusal::UnknownAuthority => (
            format!("the server's certificate is signed by '{issuer}', but {trusted}"),
            format!("put the CA certificate of '{issuer}' with which {url} is signed into trusted-ca-file"),
        ),
        Refusal::OtherName => (
            format!(
                "the server's certificate is for {}, not for {}",
                of(|server| server.names.join(", ")),
                endpoint.host
            ),
            format!(
                "use one of these names in endpoints (cilium-host-aliases gives it an address), or issue a \
                 certificate that has {} too",
                endpoint.host
            ),
        ),
        Refusal::Expired => (
            format!("the server's certificate expired at {}", of(|server| server.not_after.to_string())),
            format!("renew the server certificate of the etcd at {url}"),
        ),
        Refusal::NotValidYet => (
            format!(
                "the server's certificate is not valid before {}",
                of(|server| server.not_before.to_string())
            ),
            "set the clocks of this node and of the CA right".into(),
        ),
        Refusal::Client(alert) => match material.client.first() {
            Some(client) => (
                format!("the server refuses the client certificate '{}': {alert}", client.subject),
                format!(
                    "use a cert-file that is signed by a CA in the --trusted-ca-file of the etcd at {url}; this one \
                     is signed by '{}'",
                    client.issuer
                ),
            ),
            None => (
                format!("the server wants a client certificate: {alert}"),
                "add cert-file and key-file with one that it accepts".into(),
            ),
        },
        Refusal::Plain => (
            "the server does not speak TLS".into(),
            format!("give etcd --cert-file and --key-file, or write http:// instead of {url}"),
        ),
        Refusal::Other(what) => (what, format!("look into the log of the etcd at {url}")),
    };
    Trouble { what: format!("{url}: {what}"), fix }
}
