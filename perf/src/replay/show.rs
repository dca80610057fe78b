//! What became of packets, as text or as JSON lines.

use super::Outcome;
use super::capture::Captured;
use super::entry::Elsewhere;
use dataplane::monitor::Record;
use dataplane::monitor::resolve::Resolver;
use dataplane::monitor::text::Style;
use engine::{Port, Verdict};
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt::Write;
use wire::{L4, Network};

/// Prints packets and counts them.
pub(super) struct Show {
    json: bool,
    packets: u64,
    forwarded: u64,
    /// Drops by reason.
    dropped: BTreeMap<&'static str, u64>,
    elsewhere: BTreeMap<Elsewhere, u64>,
}

/// A line of JSON.
#[derive(Serialize)]
struct Line {
    number: u64,
    /// Nanoseconds since 1970.
    time: u64,
    /// `forwarded`, `dropped` or `not-replayed`.
    verdict: &'static str,
    /// Why it is not replayed.
    #[serde(skip_serializing_if = "Option::is_none")]
    because: Option<&'static str>,
    /// Bytes that the capture has cut off.
    #[serde(skip_serializing_if = "is_zero")]
    missing: usize,
    /// What the monitor would have said.
    events: Vec<Record>,
}

fn is_zero(count: &usize) -> bool {
    *count == 0
}

impl Show {
    pub(super) fn new(json: bool) -> Show {
        Show { json, packets: 0, forwarded: 0, dropped: BTreeMap::new(), elsewhere: BTreeMap::new() }
    }

    /// The lines about one packet.
    pub(super) fn packet(
        &mut self,
        captured: &Captured,
        outcome: &Outcome,
        resolver: &mut impl Resolver,
    ) -> String {
        self.packets += 1;
        let records = outcome.records(resolver);
        match (outcome.verdict, outcome.dropped()) {
            (Err(elsewhere), _) => *self.elsewhere.entry(elsewhere).or_default() += 1,
            (Ok(_), Some(reason)) => *self.dropped.entry(reason.text()).or_default() += 1,
            (Ok(_), None) => self.forwarded += 1,
        }
        match self.json {
            true => json(captured, outcome, records),
            false => text(captured, outcome, &records),
        }
    }

    /// What is to be said at the end.
    pub(super) fn end(&self) -> String {
        if self.json {
            return String::new();
        }
        let dropped: u64 = self.dropped.values().sum();
        let elsewhere: u64 = self.elsewhere.values().sum();
        let mut text = format!("{} packets: {} forwarded, {dropped} dropped", self.packets, self.forwarded);
        list(&mut text, self.dropped.iter().map(|(reason, count)| (*reason, *count)));
        let _ = write!(text, ", {elsewhere} not replayed");
        list(&mut text, self.elsewhere.iter().map(|(why, count)| (why.text(), *count)));
        text + "\n"
    }
}

/// Appends counts in parentheses.
fn list(text: &mut String, counts: impl Iterator<Item = (&'static str, u64)>) {
    let counts: Vec<String> = counts.map(|(what, count)| format!("{count} {what}")).collect();
    if !counts.is_empty() {
        let _ = write!(text, " ({})", counts.join(", "));
    }
}

fn json(captured: &Captured, outcome: &Outcome, events: Vec<Record>) -> String {
    let line = Line {
        number: captured.number,
        time: captured.time,
        verdict: match (outcome.verdict, outcome.dropped()) {
            (Err(_), _) => "not-replayed",
            (Ok(_), Some(_)) => "dropped",
            (Ok(_), None) => "forwarded",
        },
        because: outcome.verdict.err().map(Elsewhere::text),
        missing: captured.missing,
        events,
    };
    // A line has nothing in it that JSON cannot say.
    serde_json::to_string(&line).unwrap_or_default() + "\n"
}

fn text(captured: &Captured, outcome: &Outcome, records: &[Record]) -> String {
    let Ok(verdict) = outcome.verdict else { return String::new() };
    let mut lines: Vec<String> = records.iter().map(|record| Style::default().text(record)).collect();
    if lines.is_empty() {
        lines.push(silent(captured, verdict));
    }
    let mut text = String::new();
    for (position, line) in lines.iter().enumerate() {
        let _ = match position {
            0 => writeln!(text, "{:>7} {} {line}", captured.number, time(captured.time)),
            _ => writeln!(text, "{:24}{line}", ""),
        };
    }
    text
}

/// A packet that the monitor does not mention: of a known flow, or one that asks for a neighbour.
fn silent(captured: &Captured, verdict: Verdict) -> String {
    let to = match verdict {
        Verdict::Transmit(Port::Hub) => "-> endpoint or host",
        Verdict::Transmit(Port::Uplink(_)) => "-> network",
        Verdict::Drop(_) | Verdict::Hold => "xx drop",
    };
    match wire::parse(&captured.frame) {
        Ok(Network::Arp(_)) => "answered: ARP request".into(),
        Ok(Network::Ip(packet)) if packet.l4 == L4::Neighbor => "answered: neighbour solicitation".into(),
        Ok(Network::Ip(packet)) => {
            let tuple = packet.tuple;
            let socket = |address: wire::Address, port| std::net::SocketAddr::new(address.ip(), port);
            let (src, dst) = (socket(tuple.src, tuple.sport), socket(tuple.dst, tuple.dport));
            format!("{to}, known flow: {src} -> {dst} {}", tuple.proto)
        }
        Err(_) => to.into(),
    }
}

/// Time of day (UTC) in microseconds.
fn time(nanoseconds: u64) -> String {
    let (seconds, part) = (nanoseconds / 1_000_000_000, nanoseconds % 1_000_000_000 / 1000);
    let (hours, minutes, seconds) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    format!("{hours:02}:{minutes:02}:{seconds:02}.{part:06}")
}
