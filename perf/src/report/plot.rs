//! Pictures as SVG.

use super::{Form, Plot, Point, summary::number};
use plotters::coord::Shift;
use plotters::coord::ranged1d::{AsRangedCoord, ValueFormatter};
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};
use std::error::Error;
use std::ops::Range;

const SIZE: (u32, u32) = (1080, 400);
/// Width of the names of the series.
const LEGEND: u32 = 180;
const COLOURS: [RGBColor; 8] = [
    RGBColor(0x55, 0x5b, 0x66),
    RGBColor(0xd9, 0x8c, 0x1f),
    RGBColor(0x8c, 0x6d, 0x4f),
    RGBColor(0x2c, 0xa0, 0x5a),
    RGBColor(0x1f, 0x77, 0xb4),
    RGBColor(0xc4, 0x3c, 0x4c),
    RGBColor(0x8a, 0x5f, 0xbf),
    RGBColor(0x17, 0x9e, 0xa8),
];
/// Height of the names of groups, and about how wide a letter of them is.
const FONT: i32 = 12;
const LETTER: usize = 6;
/// Part of a group of bars that is filled.
const FILLED: f64 = 0.8;

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Drawn = Result<(), Box<dyn Error>>;

impl Plot {
    /// The picture as an SVG element. Series have the colour of their place among these names.
    ///
    /// # Errors
    /// If the plotting library refuses it.
    pub(super) fn svg(&self, names: &[&str]) -> Result<String, String> {
        let colours: Vec<RGBColor> = self.series.iter().map(|series| colour(&series.name, names)).collect();
        let mut svg = String::new();
        self.draw(&mut svg, &colours).map_err(|error| format!("plot {:?}: {error}", self.title))?;
        Ok(svg)
    }

    fn draw(&self, svg: &mut String, colours: &[RGBColor]) -> Drawn {
        let whole = SVGBackend::with_string(svg, SIZE).into_drawing_area();
        let (area, right) = whole.split_horizontally(SIZE.0 - LEGEND);
        for (index, (series, colour)) in self.series.iter().zip(colours).enumerate() {
            let y = 24 + 22 * index as i32;
            right.draw(&Rectangle::new([(4, y), (16, y + 12)], colour.filled()))?;
            right.draw(&Text::new(series.name.as_str(), (24, y - 2), ("sans-serif", 15)))?;
        }
        match &self.form {
            Form::Bars { groups } => self.bars(&area, groups, colours)?,
            _ if self.y_log => self.lines(&area, self.values().log_scale(), colours)?,
            _ => self.lines(&area, self.values(), colours)?,
        }
        Ok(whole.present()?)
    }

    fn points(&self) -> impl Iterator<Item = &Point> {
        self.series.iter().flat_map(|series| &series.points)
    }

    /// From the least value, or 0 on a linear scale, to somewhat more than the greatest.
    fn values(&self) -> Range<f64> {
        let most = self.points().map(|point| point.y.max).fold(0.0, f64::max);
        let least = self.points().map(|point| point.y.min).fold(f64::INFINITY, f64::min);
        let low = if self.y_log { (least * 0.8).max(1e-6) } else { 0.0 };
        low..(most * 1.1).max(low * 2.0).max(1e-3)
    }

    fn bars(&self, area: &Area<'_>, groups: &[String], colours: &[RGBColor]) -> Drawn {
        let mut chart = frame(area).build_cartesian_2d(0.0..groups.len() as f64, self.values())?;
        chart
            .configure_mesh()
            .disable_x_mesh()
            .light_line_style(TRANSPARENT)
            .x_labels(0)
            .y_label_formatter(&|y| tick(*y))
            .y_desc(&self.y_label)
            .draw()?;
        let width = FILLED / self.series.len().max(1) as f64;
        for (index, (series, colour)) in self.series.iter().zip(colours).enumerate() {
            let left = (1.0 - FILLED) / 2.0 + width * index as f64;
            let bars = series.points.iter().map(|point| {
                let x = point.x + left;
                Rectangle::new([(x, 0.0), (x + width * 0.92, point.y.median)], colour.filled())
            });
            chart.draw_series(bars)?;
            let ranges = series.points.iter().map(|point| {
                let x = point.x + left + width * 0.46;
                PathElement::new([(x, point.y.min), (x, point.y.max)], BLACK)
            });
            chart.draw_series(ranges)?;
        }
        let style = ("sans-serif", FONT).into_font().color(&BLACK).pos(Pos::new(HPos::Center, VPos::Top));
        let room = chart.plotting_area().dim_in_pixel().0 as usize / groups.len().max(1);
        for (group, name) in groups.iter().enumerate() {
            let (x, y) = chart.backend_coord(&(group as f64 + 0.5, 0.0));
            for (row, line) in (0..).zip(wrapped(name, room / LETTER)) {
                area.draw(&Text::new(line, (x, y + 8 + row * (FONT + 1)), style.clone()))?;
            }
        }
        Ok(())
    }

    fn lines<Y>(&self, area: &Area<'_>, values: Y, colours: &[RGBColor]) -> Drawn
    where
        Y: AsRangedCoord<Value = f64>,
        Y::CoordDescType: ValueFormatter<f64>,
    {
        let (low, high) = self
            .points()
            .fold((f64::INFINITY, 1.0), |(low, high), point| (point.x.min(low), point.x.max(high)));
        let scale = (low.min(high / 10.0).max(1e-6)..high).log_scale();
        let (x_label, percentiles) = match &self.form {
            Form::Lines { x_label } => (x_label.as_str(), false),
            _ => ("percentile", true),
        };
        let mut chart = frame(area).build_cartesian_2d(scale, values)?;
        chart
            .configure_mesh()
            .light_line_style(TRANSPARENT)
            .x_desc(x_label)
            .x_label_formatter(&|x| if percentiles { percentile(*x) } else { tick(*x) })
            .y_desc(&self.y_label)
            .y_label_formatter(&|y| tick(*y))
            .draw()?;
        for (series, colour) in self.series.iter().zip(colours) {
            let points = series.points.iter().map(|point| (point.x, point.y.median));
            chart.draw_series(LineSeries::new(points, colour.stroke_width(2)))?;
            if !percentiles {
                let dots = series.points.iter().map(|point| (point.x, point.y.median));
                chart.draw_series(dots.map(|dot| Circle::new(dot, 3, colour.filled())))?;
                let ranges = series
                    .points
                    .iter()
                    .map(|point| PathElement::new([(point.x, point.y.min), (point.x, point.y.max)], *colour));
                chart.draw_series(ranges)?;
            }
        }
        Ok(())
    }
}

fn frame<'a, 'b>(area: &'a Area<'b>) -> ChartBuilder<'a, 'b, SVGBackend<'b>> {
    let mut chart = ChartBuilder::on(area);
    chart.margin(12).x_label_area_size(64).y_label_area_size(70);
    chart
}

fn colour(series: &str, names: &[&str]) -> RGBColor {
    let place = names.iter().position(|name| *name == series).unwrap_or_default();
    COLOURS[place % COLOURS.len()]
}

/// Lines of words, of so many letters if the words are not longer.
fn wrapped(text: &str, most: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split(' ') {
        match lines.last_mut() {
            Some(line) if line.len() + 1 + word.len() <= most => *line = format!("{line} {word}"),
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

/// A number at an axis.
fn tick(value: f64) -> String {
    if value.fract() == 0.0 { format!("{value:.0}") } else { number(value) }
}

/// The percentile at 1 / (1 - quantile).
fn percentile(x: f64) -> String {
    let nines = x.log10().round().max(0.0) as usize;
    format!("{:.*}", nines.saturating_sub(2), 100.0 * (1.0 - 1.0 / x))
}
