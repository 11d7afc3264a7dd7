//! How many milestones happened on which day, by risk status.

use std::collections::BTreeMap;

use milepost::{Timestamp, event::RiskStatus};
use serde::{Deserialize, Serialize};

use crate::query;

/// Days that are kept: the newest.
const DAYS_MAX: usize = 400;
const DAY_S: i64 = 86_400;

/// Counts by day since 1970 in UTC, in the order of [`query::RISKS`].
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Days(BTreeMap<i64, [u64; 4]>);

impl Days {
    /// Counts one.
    pub fn add(&mut self, time: Timestamp, risk: RiskStatus) {
        let counts = self.0.entry(Days::day_of(time)).or_default();
        counts[query::RISKS.iter().position(|it| it.0 == risk).unwrap_or(0)] += 1;
        if self.0.len() > DAYS_MAX {
            self.0.pop_first();
        }
    }

    /// The counts of a day.
    pub fn of(&self, day: i64) -> [u64; 4] {
        self.0.get(&day).copied().unwrap_or_default()
    }

    /// The day of a time.
    pub fn day_of(time: Timestamp) -> i64 {
        time.unix_seconds().div_euclid(DAY_S)
    }

    /// When a day begins.
    pub fn start_of(day: i64) -> Timestamp {
        Timestamp::from_millis(day.saturating_mul(DAY_S * 1000))
    }
}
