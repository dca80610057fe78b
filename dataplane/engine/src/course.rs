//! The memory that the pipeline will read for a packet, asked for ahead of time.
//!
//! Large tables lie far from the processor, and where to read next often stands in what was read
//! before. Taking each such step for a whole burst, its packets wait together. All here is guessed, and
//! nothing is decided by it.

use crate::frame::Frame;
use crate::{Context, Port};
use tables::Frontend;
use wire::{Address, Tuple};

/// Where a packet most likely comes by.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Course {
    received: Tuple,
    /// After service translation, once that is known.
    translated: Tuple,
    from_hub: bool,
    to_service: bool,
}

impl Course {
    #[inline(never)]
    pub(crate) fn of_frame(ctx: &Context<'_>, port: Port, frame: &Frame<'_>) -> Option<Course> {
        wire::glimpse(frame.bytes()).map(|tuple| Course::begin(ctx, port, tuple))
    }

    /// The first step.
    pub(crate) fn begin(ctx: &Context<'_>, port: Port, received: Tuple) -> Course {
        let course =
            Course { received, translated: received, from_hub: port == Port::Hub, to_service: false };
        ctx.flows.prefetch(&received);
        ctx.tables.ipcache.prefetch(course.peer());
        if course.from_hub {
            ctx.tables.services.prefetch(frontend(&received));
        }
        course
    }

    /// The second: what service it is to, if to one.
    pub(crate) fn find_service(&mut self, ctx: &Context<'_>) {
        let services = &ctx.tables.services;
        self.to_service = self.from_hub && services.is_virtual(self.received.dst);
        if self.to_service {
            services.prefetch_service(frontend(&self.received));
        }
    }

    /// The third: what chooses the service's backend.
    pub(crate) fn find_choice(&self, ctx: &Context<'_>) {
        if self.to_service {
            let hash = self.received.directed_hash(0);
            ctx.tables.services.prefetch_choice(frontend(&self.received), hash);
        }
    }

    /// The fourth: where the service leads to.
    pub(crate) fn translate(&mut self, ctx: &Context<'_>) {
        if !self.to_service {
            return;
        }
        let service = ctx.tables.services.lookup(frontend(&self.received));
        if let Some(backend) = service.and_then(|service| service.select(self.received.directed_hash(0))) {
            (self.translated.dst, self.translated.dport) = (backend.address, backend.port);
            ctx.flows.prefetch(&self.translated);
            ctx.flows.prefetch_service(&self.received);
            ctx.verdicts.prefetch(&self.received);
            ctx.tables.ipcache.prefetch(self.peer());
        }
    }

    /// The last: the entries in conntrack.
    pub(crate) fn end(&self, ctx: &Context<'_>) {
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
