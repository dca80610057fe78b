//! Rows of a section as one table: values side by side, and their ratios below them, a line for each
//! baseline, so that the table is not wider than the row with most values.

use super::{Environment, Row, Section};

/// A table of text.
pub(super) struct Table {
    /// Names of the columns; the first has none.
    pub(super) header: Vec<String>,
    pub(super) lines: Vec<Line>,
}

/// A line of it.
pub(super) struct Line {
    pub(super) kind: Kind,
    /// One for each column.
    pub(super) cells: Vec<String>,
}

/// What a line is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    /// What was done, above the variants that did it.
    Heading,
    /// The values of a row.
    Values,
    /// How they compare to a baseline.
    Ratios,
}

impl Section {
    /// Its rows as a table.
    pub(super) fn table(&self) -> Table {
        let columns = columns(&self.rows);
        let header = columns.iter().map(|(name, unit)| format!("{name} {unit}").trim().to_owned());
        let mut lines = Vec::new();
        for rows in self.rows.chunk_by(|a, b| a.what == b.what) {
            let headed = rows.len() > 1;
            if headed {
                let mut cells = vec![String::new(); columns.len() + 1];
                cells[0].clone_from(&rows[0].what);
                lines.push(Line { kind: Kind::Heading, cells });
            }
            for row in rows {
                let names = [row.what.as_str(), row.variant.as_str()];
                let name = match headed {
                    true => format!("  {}", row.variant),
                    false => {
                        names.iter().filter(|name| !name.is_empty()).copied().collect::<Vec<_>>().join(", ")
                    }
                };
                row.add_lines(name, &columns, &mut lines);
            }
        }
        Table { header: [String::new()].into_iter().chain(header).collect(), lines }
    }
}

/// Names and units of all quantities that any row has.
fn columns(rows: &[Row]) -> Vec<(&'static str, &'static str)> {
    let mut columns: Vec<(&str, &str)> = Vec::new();
    for value in rows.iter().flat_map(|row| &row.values) {
        if columns.iter().all(|(name, _)| *name != value.name) {
            columns.push((value.name, value.unit));
        }
    }
    columns
}

impl Row {
    /// A line for the values and one for each baseline.
    fn add_lines(&self, name: String, columns: &[(&str, &str)], lines: &mut Vec<Line>) {
        let cells = |first: String, text: &dyn Fn(&str) -> Option<String>| {
            let rest = columns.iter().map(|(name, _)| text(name).unwrap_or_default());
            [first].into_iter().chain(rest).collect()
        };
        let value = |name: &str| self.values.iter().find(|value| value.name == name);
        let values = cells(name, &|name| value(name).map(|value| value.summary.to_string()));
        lines.push(Line { kind: Kind::Values, cells: values });
        let mut baselines: Vec<&str> = self.ratios.iter().map(|ratio| ratio.to.as_str()).collect();
        baselines.dedup();
        for baseline in baselines {
            let ratio =
                |name: &str| self.ratios.iter().find(|ratio| ratio.to == baseline && ratio.of == name);
            let ratios = cells(format!("    / {baseline}"), &|name| {
                ratio(name).map(|ratio| ratio.summary.to_string())
            });
            lines.push(Line { kind: Kind::Ratios, cells: ratios });
        }
    }
}

impl Kind {
    /// For style sheets.
    pub(super) fn name(self) -> &'static str {
        match self {
            Kind::Heading => "heading",
            Kind::Values => "values",
            Kind::Ratios => "ratios",
        }
    }
}

impl Environment {
    /// Names and values, as lines of text.
    pub(super) fn facts(&self) -> Vec<(&'static str, String)> {
        let busy: Vec<String> =
            self.busy.iter().map(|(name, percent)| format!("{name} {percent} %")).collect();
        let mut facts = vec![
            ("command", self.command.clone()),
            ("kernel", format!("Linux {}", self.kernel)),
            ("CPUs", format!("{} x {}, {} MiB of memory", self.cpus, self.cpu, self.memory)),
            ("load average", self.load_average.clone()),
            ("other busy processes", if busy.is_empty() { "none".to_owned() } else { busy.join(", ") }),
            ("versions", self.versions.join(", ")),
        ];
        if !self.optimised {
            facts.push(("warning", "this is not a release build, its numbers say nothing".to_owned()));
        }
        facts
    }
}
