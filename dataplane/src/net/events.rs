//! What the kernel tells about changes of links, addresses, routes and neighbours.

use super::links::{Neighbor, Route, neighbor};
use super::{Context, Result};
use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use rtnetlink::MulticastGroup;
use rtnetlink::packet_core::NetlinkPayload;
use rtnetlink::packet_route::{AddressFamily, RouteNetlinkMessage};

/// One change.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Event {
    /// The link with this index is gone.
    LinkGone(u32),
    /// Links, addresses or routes are no longer what they were.
    NodeChanged,
    /// An entry of the neighbour table is new, changed or no longer usable.
    Neighbor(Route, Option<Neighbor>),
    /// Changes were missed.
    Missed,
}

/// A subscription to changes in the network namespace of the thread that made it.
pub struct Events(BoxStream<'static, Event>);

impl Events {
    /// Subscribes; must be called inside a tokio runtime.
    pub fn subscribe() -> Result<Events> {
        let groups = [
            MulticastGroup::Link,
            MulticastGroup::Neigh,
            MulticastGroup::Ipv4Ifaddr,
            MulticastGroup::Ipv6Ifaddr,
            MulticastGroup::Ipv4Route,
            MulticastGroup::Ipv6Route,
        ];
        let connection = rtnetlink::new_multicast_connection(&groups);
        let (connection, _, messages) = connection.context(|| "subscribe to rtnetlink".into())?;
        tokio::spawn(connection);
        Ok(Events(messages.filter_map(async |(message, _)| event(&message.payload)).boxed()))
    }

    /// The next change; `None` when the connection broke.
    pub async fn next(&mut self) -> Option<Event> {
        self.0.next().await
    }
}

fn event(payload: &NetlinkPayload<RouteNetlinkMessage>) -> Option<Event> {
    use RouteNetlinkMessage as Message;
    match payload {
        NetlinkPayload::InnerMessage(message) => match message {
            // AF_BRIDGE only says that it left its bridge.
            Message::DelLink(link) if link.header.interface_family == AddressFamily::Unspec => {
                Some(Event::LinkGone(link.header.index))
            }
            Message::NewNeighbour(entry) => neighbor(entry).map(|(of, entry)| Event::Neighbor(of, entry)),
            Message::DelNeighbour(entry) => neighbor(entry).map(|(of, _)| Event::Neighbor(of, None)),
            Message::NewLink(_)
            | Message::NewAddress(_)
            | Message::DelAddress(_)
            | Message::NewRoute(_)
            | Message::DelRoute(_) => Some(Event::NodeChanged),
            _ => None,
        },
        NetlinkPayload::Overrun(_) => Some(Event::Missed),
        _ => None,
    }
}
