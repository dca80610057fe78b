//! What was measured, on what, as text, JSON, or a page with pictures.

mod environment;
mod html;
mod model;
mod plot;
mod summary;
mod table;
mod text;

pub use environment::{Environment, cpus};
pub use model::{Bound, Findings, Form, Goal, Plot, Point, Ratio, Report, Row, Section, Series, Value};
pub use summary::{Summary, number};

use std::fs;
use std::path::{Path, PathBuf};

impl Report {
    /// Writes `report.html` and `report.json` into a directory, which is made if needed; returns the page's path.
    ///
    /// # Errors
    /// If a picture cannot be drawn or a file not be written.
    pub fn write(&self, directory: &Path) -> Result<PathBuf, String> {
        let failed = |path: &Path| {
            let path = path.display().to_string();
            move |error| format!("{path}: {error}")
        };
        fs::create_dir_all(directory).map_err(failed(directory))?;
        let (page, data) = (directory.join("report.html"), directory.join("report.json"));
        fs::write(&page, self.html()?).map_err(failed(&page))?;
        fs::write(&data, self.json()?).map_err(failed(&data))?;
        Ok(page)
    }

    /// All of it as JSON.
    ///
    /// # Errors
    /// None that is known of: numbers and strings have a form in JSON.
    pub fn json(&self) -> Result<String, String> {
        serde_json::to_string_pretty(self).map_err(|error| error.to_string())
    }
}

#[cfg(test)]
mod tests;
