//! What a report consists of.

use super::{Environment, Summary};
use hdrhistogram::Histogram;
use serde::Serialize;

/// Results of a run, and what it ran on.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// What was measured.
    pub title: String,
    /// On what.
    pub environment: Environment,
    /// What must be reached, and what was.
    pub goals: Vec<Goal>,
    /// The results.
    pub sections: Vec<Section>,
}

/// What one subcommand has found.
#[derive(Clone, Debug, Default)]
pub struct Findings {
    /// The results.
    pub sections: Vec<Section>,
    /// What must be reached, and what was.
    pub goals: Vec<Goal>,
}

impl Findings {
    /// Says by which command they were found.
    #[must_use]
    pub fn by(mut self, command: &str) -> Findings {
        self.sections.iter_mut().for_each(|section| command.clone_into(&mut section.command));
        self
    }

    /// Adds those of another subcommand.
    pub fn extend(&mut self, other: Findings) {
        self.sections.extend(other.sections);
        self.goals.extend(other.goals);
    }
}

/// Results that belong together: one table and its plots.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Section {
    /// What was measured.
    pub title: String,
    /// The command that measures it.
    pub command: String,
    /// How, and what limits it.
    pub notes: Vec<String>,
    /// The table. All rows of a section have the same columns as far as they have them.
    pub rows: Vec<Row>,
    /// Pictures of it.
    pub plots: Vec<Plot>,
}

impl Section {
    /// An empty one.
    pub fn new(title: impl Into<String>, notes: &[&str]) -> Section {
        let notes = notes.iter().map(ToString::to_string).collect();
        Section { title: title.into(), notes, ..Section::default() }
    }
}

/// One thing done on one variant.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// What was done: `one TCP stream`.
    pub what: String,
    /// Who did it: `kernel`, `offload on`; empty if there is only one.
    pub variant: String,
    /// What came of it.
    pub values: Vec<Value>,
    /// How that compares.
    pub ratios: Vec<Ratio>,
}

impl Row {
    /// A row with neither values nor ratios yet.
    pub fn new(what: impl Into<String>, variant: impl Into<String>) -> Row {
        Row { what: what.into(), variant: variant.into(), values: Vec::new(), ratios: Vec::new() }
    }

    /// Adds a value.
    #[must_use]
    pub fn value(mut self, name: &'static str, unit: &'static str, summary: Summary) -> Row {
        self.values.push(Value { name, unit, summary });
        self
    }

    /// Adds the ratio of the value called `of` to the one of the variant `to`.
    #[must_use]
    pub fn ratio(mut self, of: &'static str, to: impl Into<String>, summary: Summary) -> Row {
        self.ratios.push(Ratio { of, to: to.into(), summary });
        self
    }
}

/// A measured quantity.
#[derive(Clone, Debug, Serialize)]
pub struct Value {
    /// What it is: `p50`.
    pub name: &'static str,
    /// In what: `us`; empty for plain numbers.
    pub unit: &'static str,
    /// How much.
    pub summary: Summary,
}

/// A quantity of this variant divided by that of a baseline, measured in turns.
#[derive(Clone, Debug, Serialize)]
pub struct Ratio {
    /// Name of the value.
    pub of: &'static str,
    /// The baseline.
    pub to: String,
    /// How many times as much.
    pub summary: Summary,
}

/// What must be reached.
#[derive(Clone, Debug, Serialize)]
pub struct Goal {
    /// Of what.
    pub what: String,
    /// How much.
    pub bound: Bound,
    /// What was measured: a ratio if the unit is empty.
    pub measured: Summary,
    /// In what.
    pub unit: &'static str,
    /// The median is within the bound.
    pub met: bool,
}

impl Goal {
    /// Compares the median with the bound.
    pub fn new(what: impl Into<String>, bound: Bound, measured: Summary, unit: &'static str) -> Goal {
        let met = match bound {
            Bound::AtLeast(least) => measured.median >= least,
            Bound::AtMost(most) => measured.median <= most,
        };
        Goal { what: what.into(), bound, measured, unit, met }
    }
}

/// A limit.
#[derive(Clone, Copy, PartialEq, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Bound {
    /// This or more.
    AtLeast(f64),
    /// This or less.
    AtMost(f64),
}

/// A picture.
#[derive(Clone, Debug, Serialize)]
pub struct Plot {
    /// What it shows.
    pub title: String,
    /// How.
    pub form: Form,
    /// What the values are.
    pub y_label: String,
    /// Values on a logarithmic scale.
    pub y_log: bool,
    /// What is compared.
    pub series: Vec<Series>,
}

/// How a picture shows its series.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Form {
    /// Groups of bars; the x of a point is the index of its group.
    Bars {
        /// Names of the groups.
        groups: Vec<String>,
    },
    /// Lines over a logarithmic scale.
    Lines {
        /// What the scale is.
        x_label: String,
    },
    /// Lines over percentiles; x is 1 / (1 - quantile), so that every decade is another nine.
    Percentiles,
}

/// One line or one colour of bars.
#[derive(Clone, Debug, Serialize)]
pub struct Series {
    /// What it is.
    pub name: String,
    /// Its points, x ascending.
    pub points: Vec<Point>,
}

/// A point, and how far it was off.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Point {
    /// Where.
    pub x: f64,
    /// How much.
    pub y: Summary,
}

impl Series {
    /// From summaries at places.
    pub fn new(name: impl Into<String>, points: impl IntoIterator<Item = (f64, Summary)>) -> Series {
        Series { name: name.into(), points: points.into_iter().map(|(x, y)| Point { x, y }).collect() }
    }

    /// The percentiles of a histogram for [`Form::Percentiles`], its values divided by `scale`.
    pub fn percentiles(name: impl Into<String>, histogram: &Histogram<u64>, scale: f64) -> Series {
        const STEPS_PER_DECADE: i32 = 8;
        let decades = (histogram.len().max(1) as f64).log10();
        let steps = (decades * f64::from(STEPS_PER_DECADE)) as i32;
        let points = (0..=steps).map(|step| {
            let x = 10f64.powf(f64::from(step) / f64::from(STEPS_PER_DECADE));
            let value = histogram.value_at_quantile(1.0 - 1.0 / x) as f64 / scale;
            (x, Summary::of([value]))
        });
        Series::new(name, points)
    }
}
