//! One TCP stream of iperf3, if it is installed: somebody else's sender and receiver to compare
//! our own with.

use super::arena::{Arena, SERVER_PORT, Target};
use super::traffic::Rate;
use serde_json::Value;
use std::path::Path;
use std::time::Duration;
use tests::command::output;
use tests::eventually;
use tests::process::Process;

/// Runs it; whole seconds are the least that it knows.
pub(super) fn run(arena: &Arena, target: Target, turn: Duration) -> Result<Rate, String> {
    let to = arena.address(target);
    let own_port = SERVER_PORT.to_string();
    let mut server = arena.server.host.command("iperf3");
    server
        .args(["--server", "--one-off", "--port", &own_port])
        .args(["--bind", &arena.server.ipv4.to_string()]);
    let _server = Process::start(&mut server, Path::new("/dev/null"));
    eventually("iperf3 listens", || {
        let listening = arena.server.host.run(&format!("ss -Hltn sport = :{own_port}"))?;
        if listening.is_empty() { Err("not yet".to_owned()) } else { Ok(()) }
    });
    let seconds = turn.as_secs().max(1).to_string();
    let mut client = arena.client.host.command("iperf3");
    client.args([
        "--json",
        "--client",
        &to.ip().to_string(),
        "--port",
        &to.port().to_string(),
        "--time",
        &seconds,
    ]);
    let shown = output(&mut client)?;
    let shown: Value = serde_json::from_str(&shown).map_err(|error| format!("iperf3: {error}"))?;
    let bits = shown["end"]["sum_received"]["bits_per_second"].as_f64();
    Ok(Rate { packets: 0.0, bits: bits.ok_or_else(|| format!("iperf3 says no rate: {shown}"))? })
}
