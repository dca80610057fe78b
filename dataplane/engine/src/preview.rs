//! Looking at frames before anything is decided about them.

use crate::cache::Question;
use crate::frame::Frame;
use crate::{Context, Port};

/// What is known of a frame ahead of the decision about it.
#[derive(Clone, Copy, Debug)]
pub struct Preview {
    pub(crate) port: Port,
    /// What the verdict cache is to be asked, if it may know the packet.
    pub(crate) question: Option<Question>,
}

impl Preview {
    /// Looks at a frame that came in by `port`, and asks for the memory that the decision about it
    /// will need. Do so with a whole burst before the first decision, and memory is waited for once.
    #[inline(always)]
    pub fn read(ctx: &Context<'_>, port: Port, frame: &Frame<'_>) -> Preview {
        Preview { port, question: Question::about(ctx, port, frame) }
    }
}
