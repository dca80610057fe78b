//! Which events a listener wants.

use engine::{Event, EventKind};
use serde::{Deserialize, Serialize};

/// A filter as it travels in the URL; every list is separated by commas, an empty one means all.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Query {
    /// `drop`, `trace`, `policy-verdict`.
    #[serde(rename = "type")]
    pub kinds: String,
    /// Endpoints that sent the packet.
    pub from: String,
    /// Endpoints that the packet goes to.
    pub to: String,
    /// Endpoints that sent the packet or that it goes to.
    pub related_to: String,
}

/// Kinds of events that can be asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
pub enum Kind {
    /// Dropped packets.
    Drop,
    /// Forwarded packets: once per flow, direction and change of state.
    Trace,
    /// What policy said about new flows.
    PolicyVerdict,
}

/// A filter: values in one list are alternatives, the lists must all match.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    kinds: Vec<Kind>,
    from: Vec<u16>,
    to: Vec<u16>,
    related_to: Vec<u16>,
}

impl Query {
    /// The filter, or what is wrong with it.
    pub fn filter(&self) -> Result<Filter, String> {
        let kinds = self.kinds.split(',').filter(|part| !part.is_empty()).map(|part| match part {
            "drop" => Ok(Kind::Drop),
            "trace" => Ok(Kind::Trace),
            "policy-verdict" => Ok(Kind::PolicyVerdict),
            other => Err(format!("type: {other}: must be drop, trace or policy-verdict")),
        });
        Ok(Filter {
            kinds: kinds.collect::<Result<_, _>>()?,
            from: endpoints("from", &self.from)?,
            to: endpoints("to", &self.to)?,
            related_to: endpoints("related-to", &self.related_to)?,
        })
    }
}

fn endpoints(name: &str, list: &str) -> Result<Vec<u16>, String> {
    let parts = list.split(',').filter(|part| !part.is_empty());
    parts
        .map(|part| part.parse().map_err(|_| format!("{name}: {part}: must be an endpoint id, 0 to 65535")))
        .collect()
}

impl Filter {
    /// Whether events of this kind are wanted at all.
    pub fn wants(&self, kind: Kind) -> bool {
        self.kinds.is_empty() || self.kinds.contains(&kind)
    }

    /// Whether this event is wanted.
    pub fn matches(&self, event: &Event) -> bool {
        let any = |list: &[u16], ids: &[u16]| list.is_empty() || ids.iter().any(|id| list.contains(id));
        let (src, dst) = (event.src_endpoint, event.dst_endpoint);
        self.wants(kind(event))
            && any(&self.from, &[src])
            && any(&self.to, &[dst])
            && any(&self.related_to, &[src, dst])
    }
}

fn kind(event: &Event) -> Kind {
    match event.kind {
        EventKind::Drop { .. } => Kind::Drop,
        EventKind::Trace { .. } => Kind::Trace,
        EventKind::Verdict { .. } => Kind::PolicyVerdict,
    }
}
