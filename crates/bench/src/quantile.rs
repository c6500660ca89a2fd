//! Percentiles and medians, as pure functions.
//!
//! Promises: the nearest-rank percentile, so that every figure was really measured.
//! Never: an interpolated figure, or one for an empty set.

use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Latencies in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Latency {
    /// Half of all were at most this.
    pub p50: f64,
    /// Nine of ten were at most this.
    pub p90: f64,
    /// Ninety-nine of a hundred were at most this.
    pub p99: f64,
    /// The slowest.
    pub max: f64,
}

impl Latency {
    /// Sorts `all` and reads the figures off; nothing for an empty set.
    pub fn of(all: &mut [Duration]) -> Option<Self> {
        all.sort_unstable();
        let ms = |per_mille| rank(all, per_mille).map(|d| d.as_secs_f64() * 1e3);
        Some(Self {
            p50: ms(500)?,
            p90: ms(900)?,
            p99: ms(990)?,
            max: ms(1000)?,
        })
    }
}

/// The nearest-rank value at `per_mille` of a sorted slice: the smallest that at least
/// `per_mille` / 1000 of all do not exceed.
pub fn rank<T: Copy>(sorted: &[T], per_mille: usize) -> Option<T> {
    let place = (sorted.len() * per_mille).div_ceil(1000).max(1) - 1;
    sorted.get(place).or(sorted.last()).copied()
}

/// The median (nearest rank, so the lower of two middle ones), the smallest and the largest.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Spread {
    /// The middle one.
    pub median: f64,
    /// The smallest.
    pub min: f64,
    /// The largest.
    pub max: f64,
}

impl Spread {
    /// Of all figures that are numbers; nothing when there is none.
    pub fn of(figures: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut all: Vec<f64> = figures.into_iter().filter(|f| f.is_finite()).collect();
        all.sort_by(f64::total_cmp);
        Some(Self {
            median: rank(&all, 500)?,
            min: *all.first()?,
            max: *all.last()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nearest_rank() {
        let hundred: Vec<u32> = (1..=100).collect();
        assert_eq!(rank(&hundred, 500), Some(50));
        assert_eq!(rank(&hundred, 900), Some(90));
        assert_eq!(rank(&hundred, 990), Some(99));
        assert_eq!(rank(&hundred, 1000), Some(100));
        assert_eq!(rank(&hundred, 0), Some(1));
        assert_eq!(rank(&[7], 990), Some(7));
        assert_eq!(rank::<u32>(&[], 500), None);
    }

    #[test]
    fn latency_sorts_and_speaks_in_milliseconds() {
        let mut all: Vec<Duration> = (1..=200).rev().map(Duration::from_millis).collect();
        let latency = Latency::of(&mut all).unwrap();
        assert_eq!(
            (latency.p50, latency.p90, latency.p99, latency.max),
            (100.0, 180.0, 198.0, 200.0)
        );
        assert_eq!(Latency::of(&mut []), None);
    }

    #[test]
    fn spread_takes_the_lower_middle_and_leaves_out_what_is_no_number() {
        let spread = Spread::of([4.0, f64::NAN, 1.0, 3.0, 2.0]).unwrap();
        assert_eq!((spread.median, spread.min, spread.max), (2.0, 1.0, 4.0));
        assert_eq!(Spread::of([f64::INFINITY]), None);
    }
}
