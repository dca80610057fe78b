//! Reading frames before anything is decided about them.

use crate::cache::Question;
use crate::frame::Frame;
use crate::{Context, Port};
use wire::{Malformed, Network};

/// What a frame says.
#[derive(Clone, Copy, Debug)]
pub struct Preview {
    pub(crate) port: Port,
    pub(crate) network: Result<Network, Malformed>,
    /// What the verdict cache is to be asked, if it may know the packet.
    pub(crate) question: Option<Question>,
}

impl Preview {
    /// Reads a frame that came in by `port`, and asks for the memory that the decision about it
    /// will need. Read a whole burst before the first decision, and memory is waited for once.
    pub fn read(ctx: &Context<'_>, port: Port, frame: &Frame<'_>) -> Preview {
        let network = wire::parse_split(frame.bytes(), frame.tail);
        let question = match &network {
            Ok(Network::Ip(packet)) => Question::about(ctx, port, frame, packet),
            _ => None,
        };
        Preview { port, network, question }
    }
}
