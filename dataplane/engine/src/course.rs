//! The memory that the pipeline will read for a packet, asked for ahead of time.
//!
//! Large tables lie far from the processor, and where to read next often stands in what was read
//! before. Taking each such step for some packets, they wait together. All here is guessed, and
//! nothing is decided by it.

use crate::{Context, Port};
use flow::Side;
use tables::{Frontend, Service};
use verdicts::{Key, Verdict};
use wire::{Address, Tuple};

/// Packets that take their ways together: as many as a processor waits for at once, and few enough
/// for what they have asked for to stay near.
pub(crate) const TOGETHER: usize = 16;

/// Where a packet most likely comes by.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Course<'a> {
    received: Tuple,
    /// After service translation, once that is known.
    translated: Tuple,
    from_hub: bool,
    /// What it is to, with the hash that chooses the backend.
    service: Option<(&'a Service, u64)>,
}

impl<'a> Course<'a> {
    /// The first step.
    pub(crate) fn begin(ctx: &Context<'_>, port: Port, received: Tuple) -> Course<'a> {
        let course = Course { received, translated: received, from_hub: port == Port::Hub, service: None };
        ctx.flows.prefetch(&received);
        ctx.tables.ipcache.prefetch(course.peer());
        if course.from_hub {
            ctx.tables.services.prefetch(frontend(&received));
        }
        course
    }

    /// The first step of a packet that a verdict is about, of which more is known.
    fn of_verdict(ctx: &Context<'_>, verdict: &Verdict) -> Course<'a> {
        let Verdict { key: Key { ifindex, tuple: received }, flow, .. } = *verdict;
        let translated = if verdict.side == Side::Original { verdict.tuple } else { received };
        let from_hub = ctx.tables.endpoints.by_ifindex(ifindex).is_some();
        let course = Course { received, translated, from_hub, service: None };
        ctx.flows.prefetch_flow(flow);
        ctx.tables.ipcache.prefetch(course.peer());
        if from_hub {
            ctx.tables.services.prefetch(frontend(&received));
        }
        if translated != received {
            ctx.flows.prefetch_service(&received);
        }
        course
    }

    /// The ways of some packets.
    pub(crate) fn take(ctx: &Context<'a>, courses: &mut [Option<Course<'a>>]) {
        courses.iter_mut().flatten().for_each(|course| course.find_service(ctx));
        courses.iter().flatten().for_each(Course::find_choice);
        courses.iter_mut().flatten().for_each(|course| course.translate(ctx));
        courses.iter().flatten().for_each(|course| course.end(ctx));
    }

    /// The ways of packets that verdicts are about.
    pub(crate) fn retake(ctx: &Context<'a>, verdicts: &[Verdict]) {
        let mut courses = [None; TOGETHER];
        let courses = &mut courses[..verdicts.len().min(TOGETHER)];
        for (course, verdict) in courses.iter_mut().zip(verdicts) {
            *course = Some(Course::of_verdict(ctx, verdict));
        }
        courses.iter_mut().flatten().for_each(|course| course.find_service(ctx));
        courses.iter().flatten().for_each(Course::find_choice);
        for course in courses.iter().flatten().filter(|course| course.service.is_some()) {
            ctx.flows.prefetch_service_entry(&course.received);
        }
    }

    /// The second: what service it is to, if to one.
    fn find_service(&mut self, ctx: &Context<'a>) {
        if self.from_hub && ctx.tables.services.is_virtual(self.received.dst) {
            let service = ctx.tables.services.lookup(frontend(&self.received));
            self.service = service.map(|service| (service, self.received.directed_hash(0)));
        }
        if let Some((service, _)) = self.service {
            service.prefetch();
        }
    }

    /// The third: what chooses the service's backend.
    fn find_choice(&self) {
        if let Some((service, hash)) = self.service {
            service.prefetch_choice(hash);
        }
    }

    /// The fourth: where the service leads to.
    fn translate(&mut self, ctx: &Context<'_>) {
        if let Some(backend) = self.service.and_then(|(service, hash)| service.select(hash)) {
            (self.translated.dst, self.translated.dport) = (backend.address, backend.port);
            ctx.flows.prefetch(&self.translated);
            ctx.flows.prefetch_service(&self.received);
            ctx.verdicts.prefetch(&self.received);
            ctx.tables.ipcache.prefetch(self.peer());
        }
    }

    /// The last: the entries in conntrack.
    fn end(&self, ctx: &Context<'_>) {
        ctx.flows.prefetch_entry(&self.translated);
        if self.translated != self.received {
            ctx.flows.prefetch_service_entry(&self.received);
        }
    }

    /// The end of it that is no pod of this node, maybe.
    fn peer(&self) -> Address {
        if self.from_hub { self.translated.dst } else { self.received.src }
    }
}

fn frontend(client: &Tuple) -> Frontend {
    Frontend { address: client.dst, port: client.dport, proto: client.proto }
}
