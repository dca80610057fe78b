//! Looking at frames before anything is decided about them.

use crate::cache::Question;
use crate::course::{Course, TOGETHER};
use crate::frame::Frame;
use crate::{Context, Port};
use wire::Tuple;

/// What is known of a frame ahead of the decision about it.
#[derive(Clone, Copy, Debug)]
pub struct Preview {
    pub(crate) port: Port,
    pub(crate) seen: Seen,
}

/// What a frame most likely holds.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Seen {
    /// A packet that the verdict cache may know.
    Plain(Question),
    /// A packet with this tuple that it does not.
    Other(Tuple),
    /// Something that no table is read for.
    Nothing,
}

impl Preview {
    /// Looks at a frame that came in by `port`, and asks for the memory that the decision about it
    /// will need. Do so with a whole burst before the first decision, and memory is waited for once.
    #[inline(always)]
    pub fn read(ctx: &Context<'_>, port: Port, frame: &Frame<'_>) -> Preview {
        let seen = match Question::about(ctx, port, frame) {
            Some(question) => Seen::Plain(question),
            None => Seen::of_other(frame),
        };
        Preview { port, seen }
    }

    /// Goes on where [`Preview::read`] of a whole burst has ended: with what the tables will be asked
    /// about packets that the verdict cache does not know.
    #[inline]
    pub fn read_on(ctx: &Context<'_>, burst: &[Preview]) {
        if !burst.iter().all(|preview| preview.is_cached(ctx)) {
            burst.chunks(TOGETHER).for_each(|previews| read_tables(ctx, previews));
        }
    }

    /// Whether the verdict cache most likely knows the packet.
    #[inline(always)]
    fn is_cached(&self, ctx: &Context<'_>) -> bool {
        matches!(&self.seen, Seen::Plain(question) if question.has_answer(ctx))
    }

    /// The packet's way through the tables, if it has to take it.
    fn course<'a>(&self, ctx: &Context<'a>) -> Option<Course<'a>> {
        match &self.seen {
            Seen::Plain(question) if question.has_answer(ctx) => None,
            Seen::Plain(question) => Some(Course::begin(ctx, self.port, question.tuple())),
            Seen::Other(tuple) => Some(Course::begin(ctx, self.port, *tuple)),
            Seen::Nothing => None,
        }
    }
}

impl Seen {
    #[inline(never)]
    fn of_other(frame: &Frame<'_>) -> Seen {
        wire::glimpse(frame.bytes()).map_or(Seen::Nothing, Seen::Other)
    }
}

/// Takes the steps through the tables for those of some packets that are not cached.
#[inline(never)]
fn read_tables(ctx: &Context<'_>, previews: &[Preview]) {
    let mut courses = [None; TOGETHER];
    for (course, preview) in courses.iter_mut().zip(previews) {
        *course = preview.course(ctx);
    }
    Course::take(ctx, &mut courses);
}
