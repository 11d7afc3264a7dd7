//! Time as Milepost writes it: UTC, milliseconds, `YYYY-MM-DDTHH:MM:SS.sssZ`.
//!
//! # Invariants
//! - [`Timestamp`] is a whole number of milliseconds; what is finer is cut, never rounded.
//! - Its text form has always 24 characters and sorts like the time that it names.
//! - Only [`now`] reads the clock. Logic takes the time as a parameter.
//!
//! The grammar is RFC 3339 section 5.6 with seconds optional, narrowed for events: offset `Z` only, capital letters only.

use std::{
    fmt,
    str::FromStr,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use time::{Date, Month, OffsetDateTime};

/// An instant: milliseconds since 1970-01-01T00:00:00Z, negative before it, years 0000 to 9999.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(i64);

/// Milliseconds at 0000-01-01T00:00:00.000Z and at 9999-12-31T23:59:59.999Z.
const MILLIS_RANGE: std::ops::RangeInclusive<i64> = -62_167_219_200_000..=253_402_300_799_999;

/// The time of day by the system's clock.
#[expect(clippy::disallowed_methods, reason = "this is the one place that reads the clock")]
pub fn now() -> Timestamp {
    let millis = match SystemTime::now().duration_since(UNIX_EPOCH) {
        Ok(since) => i64::try_from(since.as_millis()).unwrap_or(i64::MAX),
        // A clock before 1970 is a wrong clock, not a reason to stop.
        Err(before) => i64::try_from(before.duration().as_millis()).map_or(i64::MIN, |it| -it),
    };
    Timestamp::from_millis(millis)
}

impl Timestamp {
    /// The last instant: the end of the year 9999.
    pub const MAX: Timestamp = Timestamp(*MILLIS_RANGE.end());

    /// The instant `millis` after 1970, held within the years 0000 to 9999.
    pub fn from_millis(millis: i64) -> Timestamp {
        Timestamp(millis.clamp(*MILLIS_RANGE.start(), *MILLIS_RANGE.end()))
    }

    /// Milliseconds since 1970.
    pub fn millis(self) -> i64 {
        self.0
    }

    /// Whole seconds since 1970, as `webhook-timestamp` wants them.
    pub fn unix_seconds(self) -> i64 {
        self.0.div_euclid(1000)
    }

    /// This instant and `later` more.
    #[must_use]
    pub fn plus(self, later: Duration) -> Timestamp {
        let millis = i64::try_from(later.as_millis()).unwrap_or(i64::MAX);
        Timestamp::from_millis(self.0.saturating_add(millis))
    }

    /// This instant and `earlier` less.
    #[must_use]
    pub fn minus(self, earlier: Duration) -> Timestamp {
        let millis = i64::try_from(earlier.as_millis()).unwrap_or(i64::MAX);
        Timestamp::from_millis(self.0.saturating_sub(millis))
    }

    /// How long after `earlier` this is; zero when it is not.
    pub fn since(self, earlier: Timestamp) -> Duration {
        Duration::from_millis(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }

    /// Parses what an event may say: `YYYY-MM-DDTHH:MM[:SS[.f…]]Z`, any precision, cut to milliseconds.
    ///
    /// # Errors
    /// A sentence that says what is wrong: another form, an impossible date, `24:00`, second 60.
    pub fn parse_utc(text: &str) -> Result<Timestamp, String> {
        let (local, offset) = split(text, b"T")?;
        if offset != "Z" {
            return Err(format!("{text:?} must be in UTC and end in Z"));
        }
        Ok(Timestamp(local))
    }

    /// Parses any RFC 3339 time, also with an offset such as `+02:00`.
    ///
    /// # Errors
    /// As [`Timestamp::parse_utc`].
    pub fn parse_rfc3339(text: &str) -> Result<Timestamp, String> {
        let (local, offset) = split(text, b"Tt")?;
        if offset.eq_ignore_ascii_case("Z") {
            return Ok(Timestamp(local));
        }
        let bad = || format!("{text:?} has no valid offset: expected Z or +HH:MM");
        let bytes = offset.as_bytes();
        let sign = match bytes.first() {
            Some(b'+') => 1,
            Some(b'-') => -1,
            _ => return Err(bad()),
        };
        if bytes.len() != 6 || bytes[3] != b':' {
            return Err(bad());
        }
        let hours = digits(&bytes[1..3]).filter(|it| *it < 24).ok_or_else(bad)?;
        let minutes = digits(&bytes[4..6]).filter(|it| *it < 60).ok_or_else(bad)?;
        let millis = local - sign * (hours * 60 + minutes) * 60_000;
        if !MILLIS_RANGE.contains(&millis) {
            return Err(format!("{text:?} is outside the years 0000 to 9999"));
        }
        Ok(Timestamp(millis))
    }
}

/// The instant of the digits as if they were UTC, and the text of the offset. One of `separators` stands before the
/// time of day.
fn split<'t>(text: &'t str, separators: &[u8]) -> Result<(i64, &'t str), String> {
    let form = || format!("{text:?} is no RFC 3339 time: expected YYYY-MM-DDTHH:MM:SSZ");
    let bytes = text.as_bytes();
    let fixed = bytes.len() >= 17
        && text.is_ascii()
        && bytes[4] == b'-'
        && bytes[7] == b'-'
        && separators.contains(&bytes[10])
        && bytes[13] == b':';
    if !fixed {
        return Err(form());
    }
    let field = |from: usize, to: usize| bytes.get(from..to).and_then(digits).ok_or_else(form);
    let (year, month, day) = (field(0, 4)?, field(5, 7)?, field(8, 10)?);
    let (hour, minute) = (field(11, 13)?, field(14, 16)?);
    let mut second = 0;
    let mut millis = 0;
    let mut at = 16;
    if bytes[16] == b':' {
        second = field(17, 19)?;
        at = 19;
        if bytes.get(19) == Some(&b'.') {
            let fraction = bytes[20..].iter().take_while(|it| it.is_ascii_digit()).count();
            if fraction == 0 {
                return Err(form());
            }
            for place in 0..3 {
                let digit = if place < fraction { i64::from(bytes[20 + place] - b'0') } else { 0 };
                millis = millis * 10 + digit;
            }
            at = 20 + fraction;
        }
    }
    if hour > 23 || minute > 59 {
        return Err(format!("{text:?} names no time of day: hours go to 23, minutes to 59"));
    }
    if second > 59 {
        return Err(format!("{text:?} names no second: seconds go to 59"));
    }
    let date = u8::try_from(month)
        .ok()
        .and_then(|it| Month::try_from(it).ok())
        .zip(i32::try_from(year).ok().zip(u8::try_from(day).ok()))
        .and_then(|(month, (year, day))| Date::from_calendar_date(year, month, day).ok())
        .ok_or_else(|| format!("{text:?} names a date that does not exist"))?;
    let seconds = date.midnight().assume_utc().unix_timestamp() + hour * 3600 + minute * 60 + second;
    Ok((seconds * 1000 + millis, &text[at..]))
}

fn digits(bytes: &[u8]) -> Option<i64> {
    bytes.iter().try_fold(0, |sum, byte| byte.is_ascii_digit().then(|| sum * 10 + i64::from(byte - b'0')))
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (second, millis) = (self.0.div_euclid(1000), self.0.rem_euclid(1000));
        // The range of `MILLIS_RANGE` is well within what the crate can name.
        let at = OffsetDateTime::from_unix_timestamp(second).unwrap_or(OffsetDateTime::UNIX_EPOCH);
        // By hand: a receiver writes several for each milestone, and the formatting machinery costs more than the rest.
        let mut text = *b"0000-00-00T00:00:00.000Z";
        let mut put = |place: std::ops::Range<usize>, mut number: usize| {
            for digit in text[place].iter_mut().rev() {
                *digit = b"0123456789"[number % 10];
                number /= 10;
            }
        };
        put(0..4, usize::try_from(at.year()).unwrap_or(0));
        put(5..7, usize::from(u8::from(at.month())));
        put(8..10, usize::from(at.day()));
        put(11..13, usize::from(at.hour()));
        put(14..16, usize::from(at.minute()));
        put(17..19, usize::from(at.second()));
        put(20..23, usize::try_from(millis).unwrap_or(0));
        f.write_str(std::str::from_utf8(&text).unwrap_or_default())
    }
}

impl FromStr for Timestamp {
    type Err = String;

    fn from_str(text: &str) -> Result<Timestamp, String> {
        Timestamp::parse_rfc3339(text)
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Timestamp, D::Error> {
        let text = String::deserialize(deserializer)?;
        Timestamp::parse_rfc3339(&text).map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn utc(text: &str) -> String {
        Timestamp::parse_utc(text).map_or_else(|it| it, |it| it.to_string())
    }

    #[test]
    fn any_precision_is_cut_to_milliseconds() {
        assert_eq!(utc("2026-03-01T09:05Z"), "2026-03-01T09:05:00.000Z");
        assert_eq!(utc("2026-03-01T09:05:07Z"), "2026-03-01T09:05:07.000Z");
        assert_eq!(utc("2026-03-01T09:05:07.1Z"), "2026-03-01T09:05:07.100Z");
        assert_eq!(utc("2026-03-01T09:05:07.999999999999Z"), "2026-03-01T09:05:07.999Z");
        assert_eq!(utc("0000-01-01T00:00:00Z"), "0000-01-01T00:00:00.000Z");
        assert_eq!(utc("9999-12-31T23:59:59.999Z"), "9999-12-31T23:59:59.999Z");
        assert_eq!(utc("1969-12-31T23:59:59.9999Z"), "1969-12-31T23:59:59.999Z");
        assert_eq!(utc("2024-02-29T00:00:00Z"), "2024-02-29T00:00:00.000Z");
    }

    #[test]
    fn what_is_no_utc_time_is_refused() {
        for text in [
            "",
            "Z",
            "2026-03-01",
            "2026-03-01 09:05:00Z",
            "2026-03-01t09:05:00Z",
            "2026-03-01T09:05:00z",
            "2026-03-01T09:05:00",
            "2026-03-01T09:05:00+00:00",
            "2026-03-01T09:05:00-00:00",
            "2026-03-01T09:05:60Z",
            "2026-03-01T24:00:00Z",
            "2026-03-01T09:60:00Z",
            "2026-02-29T00:00:00Z",
            "2026-13-01T00:00:00Z",
            "2026-00-01T00:00:00Z",
            "2026-01-00T00:00:00Z",
            "2026-03-01T09:05:00.Z",
            "2026-03-01T09:05:0Z",
            "2026-03-01T09:05:00.1ZZ",
            "+026-03-01T09:05:00Z",
            "2026-03-01T09:05:00,5Z",
            "２026-03-01T09:05:00Z",
            "2026-03-01T09:05:00.1２Z",
        ] {
            assert!(Timestamp::parse_utc(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn offsets_are_taken_where_any_rfc_3339_is() {
        let parse = |text| Timestamp::parse_rfc3339(text).map(|it| it.to_string());
        assert_eq!(parse("2026-03-01T01:05:00+02:00").unwrap(), "2026-02-28T23:05:00.000Z");
        assert_eq!(parse("2026-03-01T01:05:00.5-00:30").unwrap(), "2026-03-01T01:35:00.500Z");
        assert_eq!(parse("2026-03-01t01:05:00.5z").unwrap(), "2026-03-01T01:05:00.500Z");
        assert!(parse("2026-03-01 01:05:00Z").is_err());
        assert!(parse("2026-03-01T01:05:00+2:00").is_err());
        assert!(parse("0000-01-01T00:00:00+00:01").is_err());
    }

    #[test]
    fn seconds_before_1970_round_down() {
        assert_eq!(Timestamp::from_millis(-1).unix_seconds(), -1);
        assert_eq!(Timestamp::from_millis(-1).to_string(), "1969-12-31T23:59:59.999Z");
    }
}
