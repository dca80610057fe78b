//! `dataplane monitor`.

use super::table::Lines;
use super::{Connection, Failure, values};
use crate::monitor::text::Style;
use crate::monitor::{Kind, Query, Record};
use clap::ValueEnum;
use std::io::{self, Write};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Kind of events to show: drop, trace or policy-verdict; repeat for several [default: all].
    #[arg(short = 't', long = "type", value_name = "KIND", value_enum, hide_possible_values = true)]
    kinds: Vec<Kind>,
    /// Only packets that this endpoint sent; repeat for several.
    #[arg(long, value_name = "ENDPOINT", value_parser = values::endpoint)]
    from: Vec<u16>,
    /// Only packets that go to this endpoint; repeat for several.
    #[arg(long, value_name = "ENDPOINT", value_parser = values::endpoint)]
    to: Vec<u16>,
    /// Only packets that this endpoint sent or that go to it; repeat for several.
    #[arg(long, value_name = "ENDPOINT", value_parser = values::endpoint)]
    related_to: Vec<u16>,
    /// Show length, interface and worker too.
    #[arg(short, long)]
    verbose: bool,
    /// Show identities as numbers, never as names.
    #[arg(short, long)]
    numeric: bool,
    #[command(flatten)]
    lines: Lines,
    #[command(flatten)]
    connection: Connection,
}

impl Args {
    fn query(&self) -> Query {
        let kinds: Vec<_> = self.kinds.iter().filter_map(ValueEnum::to_possible_value).collect();
        let kinds: Vec<_> = kinds.iter().map(|kind| kind.get_name()).collect();
        let ids = |ids: &[u16]| ids.iter().map(u16::to_string).collect::<Vec<_>>().join(",");
        Query {
            kinds: kinds.join(","),
            from: ids(&self.from),
            to: ids(&self.to),
            related_to: ids(&self.related_to),
        }
    }

    pub(super) async fn run(self) -> Result<(), Failure> {
        let Query { kinds, from, to, related_to } = self.query();
        let path = format!("/v1/monitor?type={kinds}&from={from}&to={to}&related-to={related_to}");
        let mut records = self.connection.client().lines(&path).await?;
        writeln!(io::stderr(), "Listening for events on the agent's workers\nPress Ctrl-C to quit")?;
        let style = Style { numeric: self.numeric, verbose: self.verbose };
        while let Some(record) = records.next::<Record>().await? {
            self.lines.print(&record, |record| style.text(record))?;
        }
        Err(Failure::Message("the agent stopped".into()))
    }
}
