//! Services and policy as nftables rules, the way kube-proxy's nftables mode and network policy
//! engines write them: a verdict map to a chain per service, a chain per backend, conntrack for
//! what is established, and a chain per pod that its policy selects.

use super::Load;
use super::arena::{SERVER_PORT, SERVICE};
use std::io::Write;
use std::net::Ipv4Addr;
use std::process::Stdio;
use tests::Host;

/// Services loaded at once: the time that the kernel takes for them is not linear.
const STEP: u32 = 2000;

/// Loads the rules into a node.
///
/// # Errors
/// What `nft` says against them.
pub fn load(node: &Host, server: Ipv4Addr, load: Load) -> Result<(), String> {
    feed(node, &policy(server, load.rules))?;
    feed(node, BASE)?;
    for first in (0..load.services).step_by(STEP as usize) {
        feed(node, &services(server, first..load.services.min(first + STEP)))?;
    }
    Ok(())
}

fn feed(node: &Host, rules: &str) -> Result<(), String> {
    let failed = |error: std::io::Error| format!("nft: {error}");
    let mut command = node.command("nft");
    command.args(["-f", "-"]).stdin(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(failed)?;
    // Dropped afterwards, which is the end of its input.
    let fed = child.stdin.take().ok_or("nft: no input")?.write_all(rules.as_bytes());
    let output = child.wait_with_output().map_err(failed)?;
    match output.status.success() {
        true => fed.map_err(failed),
        false => Err(format!("nft: {}", String::from_utf8_lossy(&output.stderr))),
    }
}

/// What does not depend on the number of services.
const BASE: &str = "table ip kube-proxy {
map service-ips { type ipv4_addr . inet_proto . inet_service : verdict; }
chain mark-for-masquerade { meta mark set meta mark or 0x4000; }
chain services { ip daddr . meta l4proto . th dport vmap @service-ips; }
chain nat-prerouting { type nat hook prerouting priority dstnat; policy accept; jump services; }
chain nat-output { type nat hook output priority -100; policy accept; jump services; }
chain nat-postrouting { type nat hook postrouting priority srcnat; policy accept;
meta mark & 0x4000 == 0 return; meta mark set meta mark xor 0x4000; masquerade fully-random; }
}
";

/// The server's service is the first one; the others have backends that are nowhere.
fn services(server: Ipv4Addr, numbers: std::ops::Range<u32>) -> String {
    let (mut elements, mut chains) = (String::new(), String::new());
    for number in numbers {
        let (vip, backend) = if number == 0 { (SERVICE.0, server) } else { other_service(number) };
        let protocols: &[&str] = if number == 0 { &["tcp", "udp"] } else { &["tcp"] };
        for protocol in protocols {
            let (name, port) = (format!("{number}-{protocol}"), SERVICE.1);
            elements += &format!("{vip} . {protocol} . {port} : goto service-{name},\n");
            chains += &format!(
                "chain endpoint-{name} {{ ip saddr {backend} jump mark-for-masquerade; \
                 meta l4proto {protocol} dnat to {backend}:{SERVER_PORT}; }}\n\
                 chain service-{name} {{ numgen random mod 1 vmap {{ 0 : goto endpoint-{name} }}; }}\n"
            );
        }
    }
    format!(
        "table ip kube-proxy {{
map service-ips {{ type ipv4_addr . inet_proto . inet_service : verdict; elements = {{ {elements} }} }}
{chains}}}
"
    )
}

/// Rules for the server, of which the last lets the client in.
fn policy(server: Ipv4Addr, rules: u32) -> String {
    let to_server = format!("meta l4proto {{ tcp, udp }} th dport {SERVER_PORT} accept;");
    let others: String =
        (1..rules).map(|number| format!("ip saddr {} {to_server}\n", other_peer(number))).collect();
    format!(
        "table ip network-policy {{
chain pod-server {{ {others}ip saddr 10.61.0.0/16 {to_server}
drop; }}
chain forward {{ type filter hook forward priority filter; policy accept;
ct state established,related accept; ip daddr vmap {{ {server} : jump pod-server }}; }}
}}
"
    )
}

/// Address and backend of another service.
pub(super) fn other_service(number: u32) -> (Ipv4Addr, Ipv4Addr) {
    (Ipv4Addr::from(0x0a61_0000 + number), Ipv4Addr::from(0x0a80_0000 + number))
}

/// Somebody else whom a rule allows.
pub(super) fn other_peer(number: u32) -> Ipv4Addr {
    Ipv4Addr::from(0xac10_0000 + number)
}
