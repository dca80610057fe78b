//! Measuring in turns: A B C A B C, so that what disturbs the machine disturbs all alike.

use crate::progress::Progress;
use crate::report::Summary;

/// What was measured of every variant, round by round.
pub struct Turns<T> {
    samples: Vec<Vec<T>>,
}

impl<T> Turns<T> {
    /// Measures every variant once a round.
    ///
    /// # Errors
    /// The first that `measure` returns.
    pub fn take<V>(
        rounds: u32,
        variants: &[V],
        progress: &Progress,
        mut measure: impl FnMut(&V) -> Result<T, String>,
    ) -> Result<Turns<T>, String> {
        let mut samples: Vec<Vec<T>> = variants.iter().map(|_| Vec::new()).collect();
        for _ in 0..rounds {
            for (variant, samples) in variants.iter().zip(&mut samples) {
                samples.push(measure(variant)?);
                progress.step();
            }
        }
        Ok(Turns { samples })
    }

    /// The samples of a variant, by its position, in the order of the rounds.
    pub fn of(&self, variant: usize) -> &[T] {
        &self.samples[variant]
    }

    /// One quantity of a variant.
    pub fn summary(&self, variant: usize, quantity: impl Fn(&T) -> f64) -> Summary {
        Summary::of(self.of(variant).iter().map(quantity))
    }

    /// One quantity of a variant as ratio to a baseline, round by round.
    pub fn ratio(&self, variant: usize, baseline: usize, quantity: impl Fn(&T) -> f64 + Copy) -> Summary {
        Summary::of_ratios(self.of(variant).iter().map(quantity), self.of(baseline).iter().map(quantity))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_round_measures_every_variant_in_turn() {
        let mut calls = Vec::new();
        let turns = Turns::take(3, &["a", "b"], &Progress::new(6), |&variant| {
            calls.push(variant);
            Ok(calls.len() as f64)
        });
        let turns = turns.unwrap();
        assert_eq!(turns.of(1), [2.0, 4.0, 6.0]);
        assert_eq!(turns.ratio(1, 0, |&value| value).max, 2.0);
        assert_eq!(calls, ["a", "b", "a", "b", "a", "b"]);
    }
}
