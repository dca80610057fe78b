//! Looking at frames before anything is decided about them.

use crate::cache::Question;
use crate::course::Course;
use crate::frame::Frame;
use crate::{Context, Port};

/// What is known of a frame ahead of the decision about it.
#[derive(Clone, Copy, Debug)]
pub struct Preview {
    pub(crate) port: Port,
    /// What the verdict cache is to be asked, if it may know the packet.
    pub(crate) question: Option<Question>,
    /// What the pipeline will read, if it is to decide.
    course: Option<Course>,
}

impl Preview {
    /// Looks at a frame that came in by `port`, and asks for the memory that the decision about it
    /// will need. Do so with a whole burst before the first decision, and memory is waited for once.
    #[inline(always)]
    pub fn read(ctx: &Context<'_>, port: Port, frame: &Frame<'_>) -> Preview {
        let question = Question::about(ctx, port, frame);
        let course = if question.is_none() { Course::of_frame(ctx, port, frame) } else { None };
        Preview { port, question, course }
    }

    /// Goes on where [`Preview::read`] of a whole burst has ended: with memory whose address stands
    /// in what that has asked for.
    #[inline]
    pub fn read_on(ctx: &Context<'_>, burst: &mut [Preview]) {
        if !burst.iter().all(|preview| preview.is_cached(ctx)) {
            read_tables(ctx, burst);
        }
    }

    /// Whether the verdict cache most likely knows the packet.
    #[inline(always)]
    fn is_cached(&self, ctx: &Context<'_>) -> bool {
        self.question.as_ref().is_some_and(|question| question.has_answer(ctx))
    }
}

/// Takes the steps through the tables for those packets of a burst that are not cached.
#[inline(never)]
fn read_tables(ctx: &Context<'_>, burst: &mut [Preview]) {
    for preview in &mut *burst {
        if let Some(question) = preview.question.as_ref().filter(|question| !question.has_answer(ctx)) {
            preview.course = Some(Course::begin(ctx, preview.port, question.tuple()));
        }
    }
    for course in burst.iter_mut().filter_map(|preview| preview.course.as_mut()) {
        course.find_service(ctx);
    }
    for course in burst.iter().filter_map(|preview| preview.course.as_ref()) {
        course.find_choice(ctx);
    }
    for course in burst.iter_mut().filter_map(|preview| preview.course.as_mut()) {
        course.translate(ctx);
    }
    for course in burst.iter().filter_map(|preview| preview.course.as_ref()) {
        course.end(ctx);
    }
}
