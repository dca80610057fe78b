//! Records as lines of text in Cilium's form, and after it why.

use super::record::{Drop, Lost, Packet, Record, Trace, Verdict};
use wire::Identity;

/// How much a line says.
#[derive(Clone, Copy, Debug, Default)]
pub struct Style {
    /// Identities as numbers only.
    pub numeric: bool,
    /// A header line with length, interface and mark before each event.
    pub verbose: bool,
}

impl Style {
    /// The text of one record, without the last newline.
    pub fn text(self, record: &Record) -> String {
        match record {
            Record::Drop(drop) => self.headed(self.drop_header(drop), self.drop(drop)),
            Record::Trace(trace) => self.headed(self.trace_header(trace), self.trace(trace)),
            Record::PolicyVerdict(verdict) => self.verdict(verdict),
            Record::Lost(Lost { cpu: Some(cpu), count }) => {
                format!("{} Lost {count} events", cpu)
            }
            Record::Lost(Lost { cpu: None, count }) => {
                format!("Lost {count} events: they come faster than they are read here")
            }
        }
    }

    fn headed(self, header: String, line: String) -> String {
        if self.verbose { format!("{}\n{header}\n{line}", "-".repeat(78)) } else { line }
    }

    fn drop(self, drop: &Drop) -> String {
        let packet = &drop.packet;
        let line = format!(
            "xx drop ({}) flow {} to endpoint {}, identity {}: {}",
            drop.reason,
            packet.mark,
            packet.dst_id,
            self.identities(packet),
            packet.summary
        );
        line + &reason(packet, drop.why.as_deref())
    }

    fn trace(self, trace: &Trace) -> String {
        let packet = &trace.packet;
        format!(
            "{} flow {} , identity {} state {} ifindex {} orig-ip {}: {}{}",
            trace.summary,
            packet.mark,
            self.identities(packet),
            trace.state,
            packet.ifindex,
            trace.orig_ip,
            packet.summary,
            reason(packet, None)
        )
    }

    fn verdict(self, verdict: &Verdict) -> String {
        let packet = &verdict.packet;
        format!(
            "Policy verdict log: flow {} local EP ID {}, remote ID {}, proto {}, {}, action {}, auth: disabled, match {}, {}{}",
            packet.mark,
            verdict.endpoint,
            self.identity(verdict.remote),
            verdict.proto,
            verdict.direction,
            verdict.action,
            verdict.matched,
            packet.summary,
            reason(packet, verdict.why.as_deref())
        )
    }

    fn drop_header(self, drop: &Drop) -> String {
        format!(
            "{} DROP: {} bytes, reason {}{}",
            from(&drop.packet),
            drop.packet.bytes,
            drop.reason,
            self.to(&drop.packet)
        )
    }

    fn trace_header(self, trace: &Trace) -> String {
        let packet = &trace.packet;
        format!(
            "{} {}: {} bytes, state {}, interface {}, orig-ip {}{}",
            from(packet),
            trace.point,
            packet.bytes,
            trace.state,
            packet.ifindex,
            trace.orig_ip,
            self.to(packet)
        )
    }

    fn to(self, packet: &Packet) -> String {
        format!(", identity {}, to endpoint {}", self.identities(packet), packet.dst_id)
    }

    fn identities(self, packet: &Packet) -> String {
        format!("{}->{}", self.identity(packet.src_label), self.identity(packet.dst_label))
    }

    fn identity(self, number: u32) -> String {
        if self.numeric { number.to_string() } else { Identity(number).to_string() }
    }
}

fn from(packet: &Packet) -> String {
    format!("{} MARK {} FROM {}", packet.cpu, packet.mark, packet.source)
}

/// What Cilium does not say: the service that was addressed, and why.
fn reason(packet: &Packet, why: Option<&str>) -> String {
    let service = packet.service.as_ref().map(|frontend| format!("service {frontend}"));
    match (service, why) {
        (None, None) => String::new(),
        (Some(service), None) => format!(" [{service}]"),
        (None, Some(why)) => format!(" [{why}]"),
        (Some(service), Some(why)) => format!(" [{service}: {why}]"),
    }
}
