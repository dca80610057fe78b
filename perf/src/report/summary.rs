//! Many values as three.

use serde::Serialize;
use std::fmt;

/// Median and extremes of repeated measurements.
#[derive(Clone, Copy, PartialEq, Debug, Serialize)]
pub struct Summary {
    /// The middle one; the mean of the two in the middle of an even number.
    pub median: f64,
    /// The least.
    pub min: f64,
    /// The greatest.
    pub max: f64,
    /// How many there were.
    pub n: usize,
}

impl Summary {
    /// Of these values.
    ///
    /// # Panics
    /// If there are none.
    pub fn of(values: impl IntoIterator<Item = f64>) -> Summary {
        let mut values: Vec<f64> = values.into_iter().collect();
        values.sort_by(f64::total_cmp);
        let (n, half) = (values.len(), values.len() / 2);
        assert!(n > 0, "a summary of no values");
        let median = if n % 2 == 1 { values[half] } else { (values[half - 1] + values[half]) / 2.0 };
        Summary { median, min: values[0], max: values[n - 1], n }
    }

    /// Of the ratios of values that were taken in turns, pair by pair.
    ///
    /// # Panics
    /// If there are no pairs.
    pub fn of_ratios(
        values: impl IntoIterator<Item = f64>,
        baseline: impl IntoIterator<Item = f64>,
    ) -> Summary {
        Summary::of(values.into_iter().zip(baseline).map(|(value, baseline)| value / baseline))
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.n {
            1 => f.write_str(&number(self.median)),
            _ => write!(f, "{} ({}-{})", number(self.median), number(self.min), number(self.max)),
        }
    }
}

/// A number with about three significant digits.
pub fn number(value: f64) -> String {
    match value.abs() {
        size if !size.is_finite() || size >= 100.0 || size == 0.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        size if size >= 0.1 => format!("{value:.2}"),
        _ => format!("{value:.4}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_in_the_middle() {
        let odd = Summary::of([3.0, 1.0, 2.0]);
        assert_eq!(odd, Summary { median: 2.0, min: 1.0, max: 3.0, n: 3 });
        assert_eq!(Summary::of([4.0, 1.0, 2.0, 3.0]).median, 2.5);
        assert_eq!(odd.to_string(), "2.00 (1.00-3.00)");
        assert_eq!(Summary::of([1234.5]).to_string(), "1234");
    }

    #[test]
    fn ratios_are_taken_pair_by_pair() {
        let ratios = Summary::of_ratios([2.0, 8.0, 30.0], [1.0, 2.0, 10.0]);
        assert_eq!(ratios, Summary { median: 3.0, min: 2.0, max: 4.0, n: 3 });
    }
}
