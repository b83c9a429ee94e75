//! Keeps what goes over a line below so many bytes a second, on either end of it.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// The least that is sent at a time, in bytes.
const PART_MIN: u64 = 1 << 10;

/// A rate that all who share it keep to together.
pub struct Limit {
    per_second: Option<u64>,
    /// When what was let through so far would have been through at that rate.
    through: Mutex<Instant>,
}

impl Limit {
    /// So many bytes a second; none: as fast as it goes.
    pub fn new(per_second: Option<u64>) -> Self {
        Self { per_second: per_second.filter(|rate| *rate > 0), through: Mutex::new(Instant::now()) }
    }

    /// How much to send at a time, up to `most`: several times a second something goes through.
    pub fn part(&self, most: u64) -> u64 {
        self.per_second.map_or(most, |rate| (rate / 16).clamp(PART_MIN, most))
    }

    /// How long to wait before so many bytes more go through.
    pub fn delay(&self, bytes: usize) -> Duration {
        let Some(rate) = self.per_second else { return Duration::ZERO };
        let takes = Duration::from_secs_f64(bytes as f64 / rate as f64);
        let mut through = self.through.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let begins = (*through).max(now);
        *through = begins + takes;
        begins - now
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_wait_for_those_before_them() {
        let limit = Limit::new(Some(1000));
        assert_eq!(limit.delay(500), Duration::ZERO);
        let delay = limit.delay(500);
        assert!(delay > Duration::from_millis(400) && delay <= Duration::from_millis(500), "{delay:?}");
        assert!(limit.delay(0) > Duration::from_millis(900));
        assert_eq!(Limit::new(None).delay(usize::MAX), Duration::ZERO);
    }
}
