//! A report as text for terminals.

use super::{Bound, Goal, Report, Section, summary::number};
use std::fmt;
use std::io::Write;
use tabwriter::TabWriter;

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}\n", self.title)?;
        for (name, value) in self.environment.facts() {
            writeln!(f, "{name}: {value}")?;
        }
        for section in &self.sections {
            write!(f, "\n{section}")?;
        }
        if !self.goals.is_empty() {
            let header = ["", "goal", "wanted", "measured"].map(String::from).to_vec();
            let rows = self.goals.iter().map(|goal| goal.cells().to_vec());
            write!(f, "\n{}", aligned(std::iter::once(header).chain(rows)))?;
        }
        Ok(())
    }
}

impl fmt::Display for Section {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.title)?;
        for note in &self.notes {
            writeln!(f, "  {note}")?;
        }
        if !self.command.is_empty() {
            writeln!(f, "  {}", self.command)?;
        }
        let table = self.table();
        let lines = table.lines.into_iter().map(|line| line.cells);
        f.write_str(&aligned(std::iter::once(table.header).chain(lines)))
    }
}

impl Goal {
    /// Its line of the table of goals.
    pub(super) fn cells(&self) -> [String; 4] {
        let bound = match self.bound {
            Bound::AtLeast(least) => format!(">= {}", number(least)),
            Bound::AtMost(most) => format!("<= {}", number(most)),
        };
        [
            if self.met { "met" } else { "MISSED" }.to_owned(),
            self.what.clone(),
            format!("{bound} {}", self.unit).trim_end().to_owned(),
            format!("{} {}", self.measured, self.unit).trim_end().to_owned(),
        ]
    }
}

fn aligned(rows: impl Iterator<Item = Vec<String>>) -> String {
    let mut writer = TabWriter::new(Vec::new()).padding(3);
    for row in rows {
        writeln!(writer, "{}", row.join("\t")).expect("memory takes everything");
    }
    let text = writer.into_inner().expect("memory takes everything");
    String::from_utf8(text).expect("what was written was text")
}
