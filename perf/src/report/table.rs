//! Rows of a section as cells of one table.

use super::{Environment, Row};

/// Name of a column, and the text of a row's cell in it.
type Cell = (String, String);

/// Header and rows. Columns are the values, then the ratios, that any row has.
pub(super) fn cells(rows: &[Row]) -> (Vec<String>, Vec<Vec<String>>) {
    let own: Vec<[Vec<Cell>; 2]> = rows.iter().map(|row| [values(row), ratios(row)]).collect();
    let mut columns: Vec<&String> = Vec::new();
    for part in 0..2 {
        for (name, _) in own.iter().flat_map(|cells| &cells[part]) {
            if !columns.contains(&name) {
                columns.push(name);
            }
        }
    }
    let header = ["what", "on"].map(String::from).into_iter().chain(columns.iter().copied().cloned());
    let lines = rows.iter().zip(&own).map(|(row, own)| {
        let find = |column: &String| own.iter().flatten().find(|(name, _)| name == column);
        let cells = columns.iter().map(|column| find(column).map_or(String::new(), |(_, text)| text.clone()));
        [row.what.clone(), row.variant.clone()].into_iter().chain(cells).collect()
    });
    (header.collect(), lines.collect())
}

fn values(row: &Row) -> Vec<Cell> {
    let cell = |value: &super::Value| {
        (format!("{} {}", value.name, value.unit).trim().to_owned(), value.summary.to_string())
    };
    row.values.iter().map(cell).collect()
}

fn ratios(row: &Row) -> Vec<Cell> {
    let cell = |ratio: &super::Ratio| (format!("{} / {}", ratio.of, ratio.to), ratio.summary.to_string());
    row.ratios.iter().map(cell).collect()
}

impl Environment {
    /// Names and values, as lines of text.
    pub(super) fn facts(&self) -> Vec<(&'static str, String)> {
        let busy: Vec<String> =
            self.busy.iter().map(|(name, percent)| format!("{name} {percent} %")).collect();
        let mut facts = vec![
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
