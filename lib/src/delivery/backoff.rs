//! When the next attempt is due. Pure: the clock and the jitter's seed are passed in.
//!
//! # Invariants
//! - Jitter and `Retry-After` only add: nothing is tried earlier than the schedule or the server asked.
//! - Jitter follows from key and try, so that whoever knows both can name the due time.
//! - No delay is zero, so `Retry-After: 0` is no hot loop.
//!
//! Not here: which failures are retried (`verdict`), how often (`state`).

use std::time::{Duration, UNIX_EPOCH};

use sha2::{Digest, Sha256};

use crate::Timestamp;

/// Each delay is this many times the one before.
const FACTOR: u32 = 4;
/// Jitter adds up to one part in so many.
const JITTER_PART: u64 = 4;
/// Nothing is tried again sooner, whatever the operator or the server says.
const DELAY_MIN: Duration = Duration::from_millis(1);
/// A server is not believed that it needs longer.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(24 * 60 * 60);
/// The breaker probes at least this often, jitter included, unless the server asked for more.
const PROBE_DELAY_MAX: Duration = Duration::from_secs(5 * 60);

/// The schedule of attempts, as the operator set it.
#[derive(Clone, Copy, Debug)]
pub struct Schedule {
    /// The first delay.
    pub base: Duration,
    /// No delay is longer, jitter apart.
    pub cap: Duration,
    /// Attempts after which an item is given up.
    pub attempts_max: u32,
    /// Time after the first try at which an item is given up by the next attempt that fails.
    pub age_max: Duration,
}

impl Default for Schedule {
    fn default() -> Schedule {
        Schedule {
            base: Duration::from_secs(5),
            cap: Duration::from_secs(6 * 60 * 60),
            attempts_max: 10,
            age_max: Duration::from_secs(7 * 24 * 60 * 60),
        }
    }
}

impl Schedule {
    /// How long to wait after try number `tries` (from 1) of the item with this key failed.
    pub fn delay(&self, key: &str, tries: u32, retry_after: Option<Duration>) -> Duration {
        let (scheduled, jitter) = self.parts(key, tries);
        longer(scheduled + jitter, retry_after)
    }

    /// What [`Schedule::delay`] is made of: what the schedule says, and the jitter that key and try give.
    pub fn parts(&self, key: &str, tries: u32) -> (Duration, Duration) {
        let scheduled = grown(self.base, tries, self.cap);
        (scheduled, jitter(scheduled, key, tries))
    }

    /// How long to wait after probe number `probes` (from 1; 0 is the opening itself) of an endpoint failed.
    pub fn probe_delay(&self, endpoint: &str, probes: u32, retry_after: Option<Duration>) -> Duration {
        let cap = self.cap.min(PROBE_DELAY_MAX * 4 / 5);
        let scheduled = grown(self.base, probes.saturating_add(1), cap);
        longer(scheduled + jitter(scheduled, endpoint, probes), retry_after)
    }
}

fn grown(base: Duration, tries: u32, cap: Duration) -> Duration {
    let factor = FACTOR.checked_pow(tries.saturating_sub(1)).unwrap_or(u32::MAX);
    base.checked_mul(factor).unwrap_or(cap).min(cap).max(DELAY_MIN)
}

fn longer(delay: Duration, retry_after: Option<Duration>) -> Duration {
    delay.max(retry_after.unwrap_or_default().min(RETRY_AFTER_MAX))
}

/// The first four bytes of SHA-256 of `KEY:TRY`, as a fraction of a quarter of the delay.
fn jitter(delay: Duration, key: &str, tries: u32) -> Duration {
    let hash = Sha256::digest(format!("{key}:{tries}"));
    let fraction = u64::from(u32::from_be_bytes([hash[0], hash[1], hash[2], hash[3]]));
    let room = u64::try_from(delay.as_millis()).unwrap_or(u64::MAX) / JITTER_PART;
    // Neither factor comes near its limit: room is some hours of milliseconds.
    Duration::from_millis(room.saturating_mul(fraction) >> 32)
}

/// The scheduled delay that, with the jitter of this key and try, makes `delay`.
pub fn scheduled_of(key: &str, tries: u32, delay: Duration) -> Option<Duration> {
    // The jitter is at most a quarter, so it lies between four fifths of the delay and all of it, and grows with it.
    let whole = u64::try_from(delay.as_millis()).ok()?;
    let (mut low, mut high) = (whole / 5 * 4, whole);
    while low < high {
        let middle = low + (high - low) / 2;
        let scheduled = Duration::from_millis(middle);
        if scheduled + jitter(scheduled, key, tries) < delay { low = middle + 1 } else { high = middle }
    }
    let scheduled = Duration::from_millis(low);
    (scheduled + jitter(scheduled, key, tries) == delay).then_some(scheduled)
}

/// What `Retry-After` asks for: seconds, or a date, compared with the answer's own `Date` where it has one,
/// since that is the same clock. A date that is past asks for nothing.
pub fn retry_after(header: &str, date: Option<&str>, now: Timestamp) -> Option<Duration> {
    let header = header.trim();
    if !header.is_empty() && header.bytes().all(|it| it.is_ascii_digit()) {
        // More digits than fit is longer than we believe anyway.
        return Some(header.parse().map_or(RETRY_AFTER_MAX, Duration::from_secs).min(RETRY_AFTER_MAX));
    }
    let asked = http_date(header)?;
    let from = date.and_then(http_date).unwrap_or(now);
    Some(asked.since(from).min(RETRY_AFTER_MAX))
}

/// An HTTP date in any of its three forms.
pub fn http_date(text: &str) -> Option<Timestamp> {
    let since = httpdate::parse_http_date(text.trim()).ok()?.duration_since(UNIX_EPOCH).ok()?;
    Some(Timestamp::default().plus(since))
}

/// The due time to go by: one further away than the delay that made it means that the clock went back.
pub fn still_due(due: Timestamp, delay: Duration, now: Timestamp) -> Timestamp {
    due.min(now.plus(delay))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(schedule: &Schedule, tries: u32) -> std::ops::RangeInclusive<f64> {
        let times = |key: u32| schedule.delay(&format!("milestone:{key}"), tries, None).as_secs_f64();
        let all: Vec<f64> = (0..500).map(times).collect();
        all.iter().copied().fold(f64::MAX, f64::min)..=all.iter().copied().fold(0.0, f64::max)
    }

    #[test]
    fn delays_grow_by_four_up_to_six_hours_and_jitter_only_adds() {
        let schedule = Schedule::default();
        for (tries, base) in [(1, 5.0), (2, 20.0), (3, 80.0), (7, 20_480.0), (8, 21_600.0), (99, 21_600.0)] {
            let range = seconds(&schedule, tries);
            assert!(*range.start() >= base && *range.start() < base * 1.01, "{tries}: {range:?}");
            assert!(*range.end() <= base * 1.25 && *range.end() > base * 1.24, "{tries}: {range:?}");
        }
    }

    #[test]
    fn the_same_key_and_try_give_the_same_delay() {
        let schedule = Schedule::default();
        assert_eq!(schedule.delay("a", 3, None), schedule.delay("a", 3, None));
        assert_ne!(schedule.delay("a", 3, None), schedule.delay("b", 3, None));
    }

    #[test]
    fn the_schedule_shows_in_a_delay_whatever_flags_made_it() {
        for (base, tries) in [(5, 1), (90, 1), (90, 4), (7, 3)] {
            let schedule = Schedule { base: Duration::from_secs(base), ..Schedule::default() };
            let (scheduled, jitter) = schedule.parts("milestone:a", tries);
            assert_eq!(
                scheduled_of("milestone:a", tries, scheduled + jitter),
                Some(scheduled),
                "{base} {tries}"
            );
        }
    }

    #[test]
    fn retry_after_only_adds_and_is_bounded() {
        let schedule = Schedule::default();
        let plain = schedule.delay("a", 1, None);
        assert_eq!(schedule.delay("a", 1, Some(Duration::ZERO)), plain);
        assert_eq!(schedule.delay("a", 1, Some(Duration::from_secs(60))), Duration::from_secs(60));
        assert_eq!(schedule.delay("a", 1, Some(Duration::MAX)), RETRY_AFTER_MAX);
        let none = Schedule { base: Duration::ZERO, cap: Duration::ZERO, ..schedule };
        assert!(none.delay("a", 1, Some(Duration::ZERO)) >= DELAY_MIN);
    }

    #[test]
    fn probes_come_at_least_every_five_minutes_unless_the_server_asks_for_more() {
        let schedule = Schedule::default();
        assert!(schedule.probe_delay("", 0, None) < Duration::from_secs(7));
        for probes in 0..1000 {
            assert!(schedule.probe_delay("x", probes, None) <= PROBE_DELAY_MAX);
        }
        assert!(schedule.probe_delay("x", 9, None) >= Duration::from_secs(240));
        assert_eq!(schedule.probe_delay("", 1, Some(Duration::from_secs(3600))), Duration::from_secs(3600));
    }

    #[test]
    fn retry_after_is_read_in_every_form() {
        let now: Timestamp = Timestamp::parse_utc("2026-11-20T10:00:00Z").unwrap();
        let read = |header, date| retry_after(header, date, now);
        assert_eq!(read("120", None), Some(Duration::from_secs(120)));
        assert_eq!(read(" 0 ", None), Some(Duration::ZERO));
        assert_eq!(read("99999999999999999999", None), Some(RETRY_AFTER_MAX));
        assert_eq!(read("Fri, 20 Nov 2026 10:00:30 GMT", None), Some(Duration::from_secs(30)));
        assert_eq!(read("Friday, 20-Nov-26 10:00:30 GMT", None), Some(Duration::from_secs(30)));
        assert_eq!(read("Fri, 20 Nov 2026 09:00:30 GMT", None), Some(Duration::ZERO));
        // The server's clock is ten minutes ahead of ours: it asks for 30 s all the same.
        let (asked, date) = ("Fri, 20 Nov 2026 10:10:30 GMT", Some("Fri, 20 Nov 2026 10:10:00 GMT"));
        assert_eq!(read(asked, date), Some(Duration::from_secs(30)));
        for bad in ["", "soon", "-5", "1.5", "+3", "Fri, 99 Nov 2026 10:00:30 GMT"] {
            assert_eq!(read(bad, None), None, "{bad}");
        }
    }

    #[test]
    fn a_clock_that_went_back_delays_by_no_more_than_the_delay() {
        let at = |text| Timestamp::parse_utc(text).unwrap();
        let delay = Duration::from_secs(80);
        let due = at("2026-11-20T10:01:20Z");
        assert_eq!(still_due(due, delay, at("2026-11-20T10:00:30Z")), due);
        assert_eq!(still_due(due, delay, at("2026-11-20T12:00:00Z")), due);
        assert_eq!(still_due(due, delay, at("2026-11-19T10:00:00Z")), at("2026-11-19T10:01:20Z"));
    }
}
