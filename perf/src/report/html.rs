//! A report as one page that needs nothing else.

use super::{Report, Section, table};
use std::fmt::Write;

const STYLE: &str = "
body { font: 15px/1.45 system-ui, sans-serif; color: #222; max-width: 1100px; margin: 2em auto; padding: 0 1em }
h1 { font-size: 1.6em } h2 { font-size: 1.2em; margin-top: 2.2em } h3 { font-size: 1em; margin: 1.6em 0 0 }
table { border-collapse: collapse; margin: 1em 0; font-variant-numeric: tabular-nums }
th, td { padding: .25em .8em; border-bottom: 1px solid #ddd; text-align: right; white-space: nowrap }
th:first-child, td:first-child, th:nth-child(2), td:nth-child(2) { text-align: left }
.scroll { overflow-x: auto } .missed td { color: #b00020 } .met td:first-child { color: #1b7f3b }
svg { max-width: 100%; height: auto } ul { padding-left: 1.2em } .note { color: #555 }
";

impl Report {
    /// The whole page.
    ///
    /// # Errors
    /// If a picture cannot be drawn.
    pub fn html(&self) -> Result<String, String> {
        let title = escape(&self.title);
        let mut page = format!(
            "<!doctype html>\n<html lang=\"en\"><meta charset=\"utf-8\"><title>{title}</title>\n\
             <style>{STYLE}</style>\n<h1>{title}</h1>\n<table>\n"
        );
        for (name, value) in self.environment.facts() {
            page += &format!("<tr><td>{name}<td>{}\n", escape(&value));
        }
        page += "</table>\n";
        if !self.goals.is_empty() {
            page += "<h2>Goals</h2>\n<table><tr><th><th>goal<th>wanted<th>measured\n";
            for goal in &self.goals {
                let class = if goal.met { "met" } else { "missed" };
                write_row(&mut page, class, &goal.cells());
            }
            page += "</table>\n";
        }
        for section in &self.sections {
            section.write_html(&mut page)?;
        }
        Ok(page + "</html>\n")
    }
}

impl Section {
    fn write_html(&self, page: &mut String) -> Result<(), String> {
        *page += &format!("<h2>{}</h2>\n", escape(&self.title));
        if !self.notes.is_empty() {
            let notes: String = self.notes.iter().map(|note| format!("<li>{}\n", escape(note))).collect();
            *page += &format!("<ul class=\"note\">\n{notes}</ul>\n");
        }
        for plot in &self.plots {
            *page += &format!("<h3>{}</h3>\n{}\n", escape(&plot.title), plot.svg()?);
        }
        let (header, rows) = table::cells(&self.rows);
        let header: String = header.iter().map(|name| format!("<th>{}", escape(name))).collect();
        *page += &format!("<div class=\"scroll\"><table><tr>{header}\n");
        for row in &rows {
            write_row(page, "", row);
        }
        *page += "</table></div>\n";
        Ok(())
    }
}

fn write_row(page: &mut String, class: &str, cells: &[String]) {
    let cells: String = cells.iter().map(|cell| format!("<td>{}", escape(cell))).collect();
    writeln!(page, "<tr class=\"{class}\">{cells}").expect("a string takes everything");
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
