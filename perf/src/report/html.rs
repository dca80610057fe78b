//! A report as one page that needs nothing else.

use super::{Report, Section};
use std::fmt::Write;

const STYLE: &str = "
body { font: 15px/1.45 system-ui, sans-serif; color: #222; max-width: 1100px; margin: 2em auto; padding: 0 1em }
h1 { font-size: 1.6em } h2 { font-size: 1.2em; margin-top: 2.2em } h3 { font-size: 1em; margin: 1.6em 0 0 }
table { border-collapse: collapse; margin: 1em 0; font-variant-numeric: tabular-nums }
th, td { padding: .25em .8em; border-bottom: 1px solid #ddd; text-align: right; white-space: nowrap }
th:first-child, td:first-child, .facts td, .goals td:nth-child(2), .goals th:nth-child(2) { text-align: left }
.facts td { white-space: normal }
th:first-child, td:first-child { white-space: pre }
.scroll { overflow-x: auto } .missed td { color: #b00020 } .met td:first-child { color: #1b7f3b }
.heading td { border-bottom: 0; padding-top: .8em; font-weight: 600 } .values td { border-bottom: 0 }
.ratios td { border-bottom: 0; color: #555 } nav li { line-height: 1.7 }
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
             <style>{STYLE}</style>\n<h1>{title}</h1>\n<table class=\"facts\">\n"
        );
        for (name, value) in self.environment.facts() {
            page += &format!("<tr><td>{name}<td>{}\n", escape(&value));
        }
        page += "</table>\n";
        if !self.goals.is_empty() {
            page += "<h2>Goals</h2>\n<div class=\"scroll\"><table class=\"goals\"><tr><th><th>goal<th>wanted<th>measured\n";
            for goal in &self.goals {
                let class = if goal.met { "met" } else { "missed" };
                write_row(&mut page, class, &goal.cells());
            }
            page += "</table></div>\n";
        }
        if self.sections.len() > 1 {
            let links = (1..).zip(&self.sections);
            let links: String = links
                .map(|(at, section)| format!("<li><a href=\"#{at}\">{}</a>\n", escape(&section.title)))
                .collect();
            page += &format!("<nav><h2>Contents</h2>\n<ol>\n{links}</ol></nav>\n");
        }
        for (at, section) in (1..).zip(&self.sections) {
            section.write_html(at, &mut page)?;
        }
        Ok(page + "</html>\n")
    }
}

impl Section {
    fn write_html(&self, at: u32, page: &mut String) -> Result<(), String> {
        *page += &format!("<h2 id=\"{at}\">{}</h2>\n", escape(&self.title));
        if !self.command.is_empty() {
            *page += &format!("<p><code>{}</code>\n", escape(&self.command));
        }
        if !self.notes.is_empty() {
            let notes: String = self.notes.iter().map(|note| format!("<li>{}\n", escape(note))).collect();
            *page += &format!("<ul class=\"note\">\n{notes}</ul>\n");
        }
        let mut names: Vec<&str> = Vec::new();
        for series in self.plots.iter().flat_map(|plot| &plot.series) {
            if !names.contains(&series.name.as_str()) {
                names.push(&series.name);
            }
        }
        for plot in &self.plots {
            *page += &format!("<h3>{}</h3>\n{}\n", escape(&plot.title), plot.svg(&names)?);
        }
        let table = self.table();
        let header: String = table.header.iter().map(|name| format!("<th>{}", escape(name))).collect();
        *page += &format!("<div class=\"scroll\"><table><tr>{header}\n");
        for line in &table.lines {
            write_row(page, line.kind.name(), &line.cells);
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
