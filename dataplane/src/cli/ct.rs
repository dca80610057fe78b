//! `dataplane ct`: connection tracking.

use super::table::{Format, Output};
use super::{Connection, Failure};
use crate::api::model::{FlowView, Removed};
use std::io::{self, BufWriter, Write};
use std::net::SocketAddr;

#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// List all connections, one a line.
    List(List),
    /// Forget all connections; packets of established ones are then judged as new.
    Flush(Connection),
}

#[derive(Debug, clap::Args)]
pub(super) struct List {
    /// Show how many seconds each connection has left.
    #[arg(long)]
    time_diff: bool,
    #[command(flatten)]
    connection: Connection,
    #[command(flatten)]
    output: Output,
}

impl Command {
    pub(super) async fn run(self) -> Result<(), Failure> {
        match self {
            Command::List(list) => list.run().await,
            Command::Flush(connection) => {
                let Removed { removed } = connection.client().delete("/v1/conntrack").await?;
                Ok(writeln!(io::stdout(), "{removed} entries removed")?)
            }
        }
    }
}

impl List {
    async fn run(self) -> Result<(), Failure> {
        let mut flows = self.connection.client().lines("/v1/conntrack").await?;
        let mut out = BufWriter::new(io::stdout().lock());
        if self.output.format == Format::Table {
            while let Some(flow) = flows.next::<FlowView>().await? {
                writeln!(out, "{}", line(&flow, self.time_diff))?;
            }
            return Ok(out.flush()?);
        }
        let mut all = Vec::new();
        while let Some(flow) = flows.next::<FlowView>().await? {
            all.push(flow);
        }
        drop(out);
        Ok(self.output.print(&all, |_| String::new())?)
    }
}

/// One entry as `cilium-dbg bpf ct list` prints it. `Tx` is what the opener sent.
fn line(flow: &FlowView, time_diff: bool) -> String {
    let remaining = match time_diff {
        true => format!(" (remaining: {} sec(s))", flow.remaining_seconds),
        false => String::new(),
    };
    let bits = flow.flags.iter().fold(0, |bits, flag| {
        bits | match flag.as_str() {
            "RxClosing" => 0x1,
            "TxClosing" => 0x2,
            "SeenNonSyn" => 0x10,
            _ => 0,
        }
    });
    let translated = match (&flow.translated, flow.kind.as_str()) {
        (None, _) => String::new(),
        (Some(backend), "SVC") => format!(" Backend={backend}"),
        (Some(frontend), _) => format!(" Frontend={frontend}"),
    };
    let offloaded = if flow.offloaded { " Offloaded" } else { "" };
    format!(
        "{} {} {} -> {} expires={}{remaining} Packets={} Bytes={} TxPackets={} TxBytes={} RxPackets={} RxBytes={} \
         RxFlagsSeen={:#04x} TxFlagsSeen={:#04x} LastSeen={} Flags={bits:#06x} [ {} ] RevNAT={} \
         SourceSecurityID={} DestinationSecurityID={}{translated}{offloaded}",
        flow.protocol,
        flow.kind,
        SocketAddr::new(flow.source, flow.source_port),
        SocketAddr::new(flow.destination, flow.destination_port),
        flow.expires,
        flow.packets + flow.reply_packets,
        flow.bytes + flow.reply_bytes,
        flow.packets,
        flow.bytes,
        flow.reply_packets,
        flow.reply_bytes,
        flow.reply_tcp_flags,
        flow.tcp_flags,
        flow.last_seen,
        flow.flags.join(" "),
        flow.service,
        flow.source_identity,
        flow.destination_identity,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_looks_like_ciliums() {
        let flow = FlowView {
            protocol: "TCP".into(),
            kind: "OUT".into(),
            source: "10.1.0.9".parse().unwrap(),
            source_port: 41288,
            destination: "10.3.0.15".parse().unwrap(),
            destination_port: 6379,
            translated: Some("10.96.0.10:6379".into()),
            expires: 1184532,
            remaining_seconds: 8000,
            last_seen: 1176532,
            packets: 5,
            bytes: 300,
            reply_packets: 4,
            reply_bytes: 250,
            tcp_flags: 0x1a,
            reply_tcp_flags: 0x12,
            flags: vec!["Replied".into(), "SeenNonSyn".into()],
            source_identity: 131200,
            destination_identity: 197121,
            service: 7,
            offloaded: true,
        };
        assert_eq!(
            line(&flow, true),
            "TCP OUT 10.1.0.9:41288 -> 10.3.0.15:6379 expires=1184532 (remaining: 8000 sec(s)) Packets=9 Bytes=550 \
             TxPackets=5 TxBytes=300 RxPackets=4 RxBytes=250 RxFlagsSeen=0x12 TxFlagsSeen=0x1a LastSeen=1176532 \
             Flags=0x0010 [ Replied SeenNonSyn ] RevNAT=7 SourceSecurityID=131200 DestinationSecurityID=197121 \
             Frontend=10.96.0.10:6379 Offloaded"
        );
    }
}
