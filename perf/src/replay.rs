//! Captured packets through the pipeline, on the tables of a node: any drop can be looked at again
//! elsewhere, with its reason.

mod capture;
mod entry;
mod show;

use capture::Captured;
use clap::Args;
use dataplane::api::state::Loaded;
use dataplane::monitor::Record;
use dataplane::monitor::resolve::{self, Resolver};
use engine::event::Interest;
use engine::{Context, Counters, DropReason, Engine, Event, EventKind, Frame, Port, Sink, Verdict};
use entry::{Elsewhere, Entry};
use flow::{Seconds, Table};
use show::Show;
use std::fs;
use std::io::{self, Write};
use std::path::PathBuf;

/// Bytes behind a frame that answers and errors may take.
const ROOM: usize = 2048;
const SECOND: i128 = 1_000_000_000;

/// What is replayed on what.
#[derive(Args, Clone, Debug)]
pub struct Replay {
    /// Capture, pcap or pcapng, of a pod's host-side interface, an uplink, the hub or `any`
    #[arg(value_name = "FILE")]
    capture: PathBuf,
    /// The node's tables, from `dataplane state dump`, taken while it was as it was then
    #[arg(long, value_name = "FILE")]
    state: PathBuf,
    /// Where the packets were captured, if the capture does not say: a pod's name (namespace/name),
    /// number or host-side interface, an uplink, or dphub0
    #[arg(long, value_name = "NAME")]
    interface: Option<String>,
}

/// What became of a packet.
struct Outcome {
    verdict: Result<Verdict, Elsewhere>,
    events: Vec<Event>,
}

/// A worker of the node whose state this is.
struct Node {
    loaded: Loaded,
    /// Made when the first packet says what time it is.
    flows: Option<Table>,
    verdicts: verdicts::Table,
    engine: Box<Engine>,
    counters: Box<Counters>,
}

#[derive(Default)]
struct Events(Vec<Event>);

impl Sink for Events {
    fn event(&mut self, event: &Event) {
        self.0.push(*event);
    }
}

impl Replay {
    /// Replays and prints, as text or as JSON lines.
    ///
    /// # Errors
    /// If capture or state cannot be read or understood, or it cannot be known where the packets
    /// were captured.
    pub fn run(&self, json: bool) -> Result<(), String> {
        let shown = self.state.display();
        let state = fs::read(&self.state).map_err(|error| format!("state: {shown}: {error}"))?;
        let loaded = Loaded::read(&state).map_err(|error| format!("state: {shown}: {error}"))?;
        let named = self.interface.as_deref().map(|name| Entry::named(&loaded, name)).transpose()?;
        let mut node = Node::new(loaded);
        let mut show = Show::new(json);
        let mut out = io::stdout().lock();
        let read = capture::read(&self.capture, |captured| {
            let outcome = match self.entry(named, &node.loaded, &captured)? {
                Some(entry) => node.replay(entry, &captured),
                None => Outcome { verdict: Err(Elsewhere::OtherInterface), events: Vec::new() },
            };
            write(&mut out, &show.packet(&captured, &outcome, &mut node.loaded))
        });
        // What has been replayed of a capture that is cut off stands.
        write(&mut out, &show.end()).and(read)
    }

    /// Where a packet came in; `None` if not here.
    fn entry(
        &self,
        named: Option<Entry>,
        loaded: &Loaded,
        captured: &Captured,
    ) -> Result<Option<Entry>, String> {
        match (named, &captured.place) {
            (Some(entry), _) => Ok(Some(entry)),
            (None, capture::Place::Unsaid) => Err(format!(
                "capture: {}: does not say where it was taken; say it with --interface",
                self.capture.display()
            )),
            (None, place) => Ok(Entry::of_place(loaded, place)),
        }
    }
}

fn write(out: &mut impl Write, text: &str) -> Result<(), String> {
    match out.write_all(text.as_bytes()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => std::process::exit(0),
        result => result.map_err(|error| format!("output: {error}")),
    }
}

impl Node {
    fn new(loaded: Loaded) -> Node {
        Node {
            loaded,
            flows: None,
            verdicts: verdicts::Table::boxed(1),
            engine: Box::new(Engine::new()),
            counters: Box::default(),
        }
    }

    fn replay(&mut self, entry: Entry, captured: &Captured) -> Outcome {
        let mut events = Events::default();
        let (port, frame) = match entry.frame(self.loaded.tables(), captured) {
            Ok(found) => found,
            Err(elsewhere) => return Outcome { verdict: Err(elsewhere), events: events.0 },
        };
        let now = self.clock(captured.time);
        let verdict = self.process(port, frame, now, &mut events);
        Outcome { verdict: Ok(verdict), events: events.0 }
    }

    fn process(&mut self, port: Port, mut frame: Vec<u8>, now: Seconds, events: &mut Events) -> Verdict {
        let len = frame.len();
        frame.resize(len + ROOM, 0);
        let context = Context {
            tables: self.loaded.tables(),
            flows: self.flows.get_or_insert_with(|| self.loaded.conntrack(now)),
            verdicts: &self.verdicts,
            cache_after: 0,
            now,
            clock: 0,
            interest: Interest { trace: true, verdict: true },
            may_hold: false,
        };
        let mut frame = Frame { buf: &mut frame, head: 0, len, tail: 0 };
        self.engine.process(&context, &self.counters, port, &mut frame, events)
    }

    /// The node's clock, which conntrack lives by, when a packet was captured.
    fn clock(&self, captured: u64) -> Seconds {
        let taken = self.loaded.state.taken;
        let since = i128::from(captured).div_euclid(SECOND) - i128::from(taken.unix);
        (i128::from(taken.boot) + since).clamp(0, Seconds::MAX.into()) as Seconds
    }
}

impl Outcome {
    /// Why it was dropped, if it was. The sender may have been told: then something was sent.
    fn dropped(&self) -> Option<DropReason> {
        self.events.iter().find_map(|event| match event.kind {
            EventKind::Drop { reason, .. } => Some(reason),
            _ => None,
        })
    }

    /// As the monitor tells it.
    fn records(&self, resolver: &mut impl Resolver) -> Vec<Record> {
        self.events.iter().map(|event| resolve::record(0, event, resolver)).collect()
    }
}

#[cfg(test)]
mod tests;
