//! Tables in Cilium's look: left-aligned columns, three spaces apart.

use serde::Serialize;
use std::io::{self, Write};
use tabwriter::TabWriter;

/// How a list is printed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, clap::ValueEnum)]
pub(super) enum Format {
    /// Aligned columns.
    #[default]
    Table,
    /// JSON.
    Json,
    /// YAML.
    Yaml,
}

/// `-o`, for every command that shows something.
#[derive(Clone, Copy, Debug, clap::Args)]
pub(super) struct Output {
    /// How to print the answer: table, json or yaml [default: table].
    #[arg(
        short = 'o',
        long = "output",
        value_enum,
        default_value_t,
        hide_default_value = true,
        hide_possible_values = true
    )]
    pub(super) format: Format,
}

impl Output {
    /// Prints `value` as asked; `table` renders it for people.
    pub(super) fn print<T: Serialize>(self, value: &T, table: impl FnOnce(&T) -> String) -> io::Result<()> {
        let text = match self.format {
            Format::Table => table(value),
            Format::Json => serde_json::to_string_pretty(value)? + "\n",
            Format::Yaml => serde_norway::to_string(value).map_err(io::Error::other)?,
        };
        io::stdout().lock().write_all(text.as_bytes())
    }
}

/// How one of many things is printed, as it comes.
#[derive(Clone, Copy, Debug, Default, clap::ValueEnum)]
enum LineFormat {
    /// For people.
    #[default]
    Text,
    /// JSON, an object a line.
    Json,
}

/// `-o`, for every command that prints while it goes on.
#[derive(Clone, Copy, Debug, clap::Args)]
pub(super) struct Lines {
    /// How to print: text or json, an object a line [default: text].
    #[arg(
        short = 'o',
        long = "output",
        value_name = "FORMAT",
        value_enum,
        default_value_t,
        hide_default_value = true,
        hide_possible_values = true
    )]
    format: LineFormat,
}

impl Lines {
    /// Prints `value` as asked, at once: whoever reads a pipe wants it now. `text` renders it for people.
    pub(super) fn print<T: Serialize>(self, value: &T, text: impl FnOnce(&T) -> String) -> io::Result<()> {
        let line = match self.format {
            LineFormat::Text => text(value),
            LineFormat::Json => serde_json::to_string(value)?,
        };
        let mut out = io::stdout().lock();
        writeln!(out, "{line}")?;
        out.flush()
    }
}

/// Collects the lines of one table.
#[derive(Debug, Default)]
pub(super) struct Table(String);

impl Table {
    /// A table with these column titles.
    pub(super) fn new<const N: usize>(titles: [&str; N]) -> Table {
        let mut table = Table::default();
        table.row(titles);
        table
    }

    /// Adds one line.
    pub(super) fn row<S: AsRef<str>>(&mut self, cells: impl IntoIterator<Item = S>) {
        for (i, cell) in cells.into_iter().enumerate() {
            if i > 0 {
                self.0.push('\t');
            }
            self.0.push_str(cell.as_ref());
        }
        self.0.push('\n');
    }

    /// The aligned text, without spaces at line ends.
    pub(super) fn render(self) -> String {
        let mut writer = TabWriter::new(Vec::new()).minwidth(2).padding(3);
        // Writing to memory cannot fail.
        let _ = writer.write_all(self.0.as_bytes());
        let aligned = writer.into_inner().map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
        let mut text = String::new();
        for line in aligned.unwrap_or(self.0).lines() {
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_three_spaces_apart_and_lines_end_clean() {
        let mut table = Table::new(["ID", "Frontend", "Backend"]);
        table.row(["7", "10.96.14.7:80/TCP", "1 => a"]);
        table.row(["", "", "2 => b"]);
        table.row(["8", "x", ""]);
        assert_eq!(
            table.render(),
            "ID   Frontend            Backend\n\
             7    10.96.14.7:80/TCP   1 => a\n\
             \u{20}                        2 => b\n\
             8    x\n"
        );
    }
}
