//! One worker's loop.

use super::{
    INTEREST_DROP, INTEREST_TRACE, INTEREST_VERDICT, WorkerShared, coarse_clock,
    hold::Hold,
    mailbox::Mailbox,
    now,
    ports::{Ports, Sent},
};
use crossbeam::queue::ArrayQueue;
use engine::{Context, DropReason, Engine, Event, EventKind, Preview, Sink, Verdict, event::Interest};
use flow::{Seconds, Table};
use nix::{
    sched::{CpuSet, sched_setaffinity},
    unistd::Pid,
};
use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering::Relaxed},
    },
};
use tables::Reader;
use verdicts::Nanoseconds;
use xsk::{BURST, Batch, Frame, Pool, Waiter};

/// Empty rounds before a worker sleeps: about 10 µs, less than a wakeup costs.
const SPINS: u32 = 64;
/// Longest sleep in milliseconds, so that a stop request is noticed.
const SLEEP_MS: i32 = 100;
/// Longest sleep in milliseconds while frames wait for the device.
const RETRY_MS: i32 = 1;
/// Longest sleep in milliseconds while packets wait for newer tables.
const HOLD_MS: i32 = 5;

/// Everything one thread owns.
pub(super) struct Worker {
    pub(super) engine: Box<Engine>,
    pub(super) basis: Basis,
    pub(super) ports: Ports,
    pub(super) hold: Hold,
    pub(super) mailbox: Arc<Mailbox>,
    pub(super) shared: Arc<WorkerShared>,
    pub(super) events: Arc<ArrayQueue<Event>>,
    pub(super) stop: Arc<AtomicBool>,
    pub(super) busy: bool,
}

/// What decisions rest on.
pub(super) struct Basis {
    pub(super) reader: Reader,
    pub(super) flows: &'static Table,
    pub(super) verdicts: &'static verdicts::Table,
    pub(super) cache_after: u32,
    pub(super) interest: Arc<AtomicU8>,
}

impl Basis {
    /// As things are now, with the newest tables and no room to hold packets; and whether somebody
    /// listens to drops.
    fn now(&mut self, clock: &Clock) -> (Context<'_>, bool) {
        let bits = self.interest.load(Relaxed);
        let interest = Interest { trace: bits & INTEREST_TRACE != 0, verdict: bits & INTEREST_VERDICT != 0 };
        let context = Context {
            tables: self.reader.pin(),
            flows: self.flows,
            verdicts: self.verdicts,
            cache_after: self.cache_after,
            now: clock.seconds,
            clock: clock.coarse,
            interest,
            may_hold: false,
        };
        (context, bits & INTEREST_DROP != 0)
    }
}

/// Queues events for the monitor; a full queue counts and forgets.
struct Events<'a> {
    /// Somebody listens to drops; other events are not made unless somebody listens.
    drops: bool,
    queue: &'a ArrayQueue<Event>,
    lost: &'a AtomicU64,
}

impl Sink for Events<'_> {
    fn event(&mut self, event: &Event) {
        let unheard = matches!(event.kind, EventKind::Drop { .. }) && !self.drops;
        if !unheard && self.queue.push(*event).is_err() {
            self.lost.store(self.lost.load(Relaxed) + 1, Relaxed);
        }
    }
}

/// The time, read once a round.
#[derive(Default)]
struct Clock {
    coarse: Nanoseconds,
    seconds: Seconds,
}

impl Clock {
    /// The cheap clock tells whether the other one can have moved.
    fn read(&mut self) {
        let coarse = coarse_clock();
        if coarse != self.coarse {
            *self = Clock { coarse, seconds: now() };
        }
    }
}

/// A burst under way; kept, so that its memory is.
struct Burst {
    frames: Batch,
    previews: Vec<Preview>,
}

impl Worker {
    /// Serves until it is told to stop; an error says why it cannot go on.
    pub(super) fn run(&mut self) -> io::Result<()> {
        let mut burst = Burst { frames: Batch::with_capacity(BURST), previews: Vec::with_capacity(BURST) };
        let mut waiter = self.ports.waiter(&self.mailbox);
        let (mut clock, mut idle) = (Clock::default(), 0);
        while !self.stop.load(Relaxed) {
            clock.read();
            if self.shared.heartbeat.load(Relaxed) != clock.seconds {
                self.shared.heartbeat.store(clock.seconds, Relaxed);
                self.every_second(&mut waiter)?;
            }
            let mut work = self.forward_parcels();
            if !self.hold.is_empty() {
                work += self.retry(&clock);
            }
            for index in 0..self.ports.len() {
                work += self.serve(index, &clock, &mut burst);
            }
            let left = match self.ports.kick() {
                Ok(left) => left,
                Err(dead) => {
                    self.lose(dead, &mut waiter)?;
                    true
                }
            };
            idle = if work > 0 { 0 } else { idle + 1 };
            if idle > SPINS && !self.busy {
                let held = if self.hold.is_empty() { SLEEP_MS } else { HOLD_MS };
                self.sleep(&mut waiter, if left { RETRY_MS } else { held })?;
            }
        }
        Ok(())
    }

    /// Brings what others see up to date and looks for devices that went away.
    fn every_second(&mut self, waiter: &mut Waiter) -> io::Result<()> {
        self.ports.refresh_stats();
        match self.ports.find_dead() {
            Some(dead) => self.lose(dead, waiter),
            None => Ok(()),
        }
    }

    /// One burst: receive, read ahead, decide, send.
    fn serve(&mut self, index: usize, clock: &Clock, burst: &mut Burst) -> usize {
        let Worker { engine, basis, ports, hold, shared, events, .. } = self;
        let (port, received) = ports.receive(index, &mut burst.frames);
        if received == 0 {
            return 0;
        }
        let (mut context, drops) = basis.now(clock);
        context.may_hold = hold.has_room(port);
        let mut sink = Events { drops, queue: events, lost: &shared.events_lost };
        let pool = ports.pool(index);
        burst.previews.clear();
        burst
            .previews
            .extend(burst.frames.iter_mut().map(|frame| Preview::read(&context, port, &view(pool, frame))));
        Preview::read_on(&context, &burst.previews);
        for (mut frame, preview) in burst.frames.drain(..).zip(&burst.previews) {
            let pool = ports.pool(index);
            let mut decide = |context: &Context<'_>, pool: &mut Pool, frame: &mut Frame| {
                let mut view = view(pool, frame);
                let verdict = engine.decide(context, &shared.counters, preview, &mut view, &mut sink);
                (frame.head, frame.len, frame.tail) = (view.head, view.len, view.tail);
                verdict
            };
            let mut verdict = decide(&context, pool, &mut frame);
            if verdict == Verdict::Hold {
                if !hold.put(port, pool.parts(&frame), context.tables.generation, clock.coarse) {
                    verdict = decide(&Context { may_hold: false, ..context }, pool, &mut frame);
                }
                context.may_hold = hold.has_room(port);
            } else if verdict == Verdict::Drop(DropReason::UnknownIdentity) && !context.may_hold {
                hold.refuse();
            }
            match verdict {
                Verdict::Transmit(to) => count(shared, ports.send(index, frame, to)),
                Verdict::Drop(_) | Verdict::Hold => pool.free(frame),
            }
        }
        received
    }

    /// Decides again about packets that are held, if the tables are newer or their time is over.
    fn retry(&mut self, clock: &Clock) -> usize {
        let Worker { engine, basis, ports, hold, shared, events, .. } = self;
        let (context, drops) = basis.now(clock);
        let mut sink = Events { drops, queue: events, lost: &shared.events_lost };
        hold.retry(context.tables.generation, clock.coarse, |port, frame, may_hold| {
            let context = Context { may_hold, ..context };
            let verdict = engine.process(&context, &shared.counters, port, frame, &mut sink);
            if let Verdict::Transmit(to) = verdict {
                count(shared, ports.send_copy(frame.bytes(), to));
            }
            verdict
        })
    }

    /// Sends what workers without a socket of their own left here, one burst at most.
    fn forward_parcels(&mut self) -> usize {
        for sent in 0..BURST {
            let Some(parcel) = self.mailbox.take() else { return sent };
            count(&self.shared, self.ports.send_bytes(parcel.bytes(), parcel.uplink));
            self.mailbox.recycle(parcel);
        }
        BURST
    }

    /// Waits for frames, unless another worker left some in the meantime.
    fn sleep(&mut self, waiter: &mut Waiter, timeout_ms: i32) -> io::Result<()> {
        if self.mailbox.doze() {
            let outcome = waiter.wait(timeout_ms);
            self.mailbox.awake();
            outcome?;
        }
        Ok(())
    }

    /// A device is gone. Without the hub there is nothing left to do; other uplinks go on.
    fn lose(&mut self, index: usize, waiter: &mut Waiter) -> io::Result<()> {
        waiter.forget(index);
        self.shared.sockets[index].dead.store(true, Relaxed);
        let device = self.ports.bury(index);
        if index == 0 {
            return Err(io::Error::other(format!("the hub's interface {device} was removed")));
        }
        tracing::error!(worker = self.shared.index, device, "uplink was removed");
        Ok(())
    }
}

/// A frame as the engine sees it.
fn view<'a>(pool: &'a mut Pool, frame: &'a mut Frame) -> engine::Frame<'a> {
    let Frame { head, len, tail, .. } = *frame;
    engine::Frame { buf: pool.buffer(frame), head, len, tail }
}

fn count(shared: &WorkerShared, sent: Sent) {
    let counter = match sent {
        Sent::Queued => return,
        Sent::NoRoom => &shared.handoff_full,
        Sent::NoFrame => &shared.no_frame,
        Sent::Gone => &shared.uplink_gone,
    };
    counter.store(counter.load(Relaxed) + 1, Relaxed);
}

/// Pins the calling thread to a CPU.
pub(super) fn pin_to(cpu: usize) -> io::Result<()> {
    let mut set = CpuSet::new();
    set.set(cpu)?;
    sched_setaffinity(Pid::from_raw(0), &set)
        .map_err(|e| io::Error::other(format!("cannot pin the worker to CPU {cpu}: {e}")))
}
