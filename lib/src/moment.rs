//! A time as people give it on a command line: an instant, a day, or how long ago.
//!
//! # Invariants
//! - Pure: what "ago" means is said by a parameter.
//! - A day is one of UTC. `--until` takes it whole: `--since 2026-03-01 --until 2026-03-01` is that day.
//! - Errors do not repeat the value; whoever reports them shows it (`cli` does).
//!
//! Not here: instants (`clock`), durations (`units`).

use std::time::Duration;

use crate::{Timestamp, units::DurationArg};

/// A time as people give it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// An instant.
    At(Timestamp),
    /// A day in UTC, by its start.
    Day(Timestamp),
    /// So long ago.
    Ago(DurationArg),
}

impl std::str::FromStr for Moment {
    type Err = String;

    fn from_str(text: &str) -> Result<Moment, String> {
        if let Ok(ago) = text.parse() {
            return Ok(Moment::Ago(ago));
        }
        if let Ok(start) = Timestamp::parse_utc(&format!("{text}T00:00Z")) {
            return Ok(Moment::Day(start));
        }
        Timestamp::parse_rfc3339(text).map(Moment::At).map_err(|why| {
            if text.contains('T') {
                why
            } else {
                "is neither a time such as 2026-03-01T09:00:00Z, nor a date such as 2026-03-01, nor a duration such as 2h"
                    .to_owned()
            }
        })
    }
}

impl Moment {
    /// The first instant that counts for `--since`.
    pub fn since(self, now: Timestamp) -> Timestamp {
        match self {
            Moment::At(at) | Moment::Day(at) => at,
            Moment::Ago(ago) => now.minus(ago.get()),
        }
    }

    /// The first instant that no longer counts for `--until`.
    pub fn until(self, now: Timestamp) -> Timestamp {
        const DAY: Duration = Duration::from_secs(86_400);
        match self {
            Moment::At(at) => at,
            Moment::Day(start) => start.plus(DAY),
            Moment::Ago(ago) => now.minus(ago.get()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_is_a_time_a_day_or_a_while_ago() {
        let now = Timestamp::parse_utc("2026-03-02T12:00:00Z").unwrap();
        let since = |text: &str| text.parse::<Moment>().map(|it| it.since(now).to_string());
        let until = |text: &str| text.parse::<Moment>().map(|it| it.until(now).to_string());
        assert_eq!(since("2h").unwrap(), "2026-03-02T10:00:00.000Z");
        assert_eq!(since("2026-03-01").unwrap(), "2026-03-01T00:00:00.000Z");
        assert_eq!(until("2026-03-01").unwrap(), "2026-03-02T00:00:00.000Z");
        assert_eq!(since("2026-03-01T09:00:00+01:00").unwrap(), "2026-03-01T08:00:00.000Z");
        for bad in ["yesterday", "2026-02-30", "2", "2026-03-01T25:00Z", ""] {
            assert!(since(bad).is_err(), "{bad}");
        }
    }
}
