//! Durations and sizes as people write them on a command line: `250ms`, `6h`, `64MiB`.
//!
//! # Invariants
//! - A [`DurationArg`] is a whole number of milliseconds, a [`Size`] one of bytes; neither ever overflows.
//! - What `Display` writes parses to the same value, in the largest unit that divides it.
//! - A duration always names its unit: nobody can mistake seconds for milliseconds.
//! - Errors do not repeat the value; whoever reports them shows it (`cli` does).
//!
//! The grammar is the one of every tool (durations `250ms`, `5s`, `10m`, `6h`, `1d`; sizes `64MiB`): one whole
//! number and one unit, no sign, no fraction, no space, no sum such as `1h30m`.
//!
//! Not here: times of day (`clock`).

use std::{fmt, str::FromStr, time::Duration};

const DURATION_UNITS: [(&str, u64); 5] =
    [("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];

const SIZE_UNITS: [(&str, u64); 5] =
    [("B", 1), ("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30), ("TiB", 1 << 40)];

/// A length of time given by a person, in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DurationArg {
    millis: u64,
}

/// A number of bytes given by a person; units are powers of 1024.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Size {
    bytes: u64,
}

impl DurationArg {
    /// So many milliseconds, for defaults.
    pub const fn from_millis(millis: u64) -> DurationArg {
        DurationArg { millis }
    }

    /// So many seconds, for defaults; held at the longest duration.
    pub const fn from_secs(seconds: u64) -> DurationArg {
        DurationArg { millis: seconds.saturating_mul(1_000) }
    }

    /// As the standard library counts time.
    pub const fn get(self) -> Duration {
        Duration::from_millis(self.millis)
    }
}

impl Size {
    /// So many bytes, for defaults.
    pub const fn from_bytes(bytes: u64) -> Size {
        Size { bytes }
    }

    /// The number of bytes.
    pub const fn bytes(self) -> u64 {
        self.bytes
    }
}

impl FromStr for DurationArg {
    type Err = String;

    fn from_str(text: &str) -> Result<DurationArg, String> {
        let (number, unit) =
            split(text, "a duration: write a whole number and one unit, such as 250ms, 5s, 10m, 6h or 1d")?;
        if unit.is_empty() {
            return Err(format!(
                "has no unit: write {number}ms, {number}s, {number}m, {number}h or {number}d"
            ));
        }
        multiply(number, unit, &DURATION_UNITS).map(|millis| DurationArg { millis })
    }
}

impl FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Size, String> {
        let (number, unit) =
            split(text, "a size: write a whole number and one unit, such as 4096B, 512KiB, 64MiB or 1GiB")?;
        let unit = if unit.is_empty() { "B" } else { unit };
        multiply(number, unit, &SIZE_UNITS).map(|bytes| Size { bytes })
    }
}

/// The digits in front and what follows them.
fn split<'a>(text: &'a str, wanted: &str) -> Result<(&'a str, &'a str), String> {
    let end = text.find(|it: char| !it.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    if number.is_empty() || !unit.bytes().all(|it| it.is_ascii_alphabetic()) {
        return Err(format!("is not {wanted}"));
    }
    Ok((number, unit))
}

fn multiply(number: &str, unit: &str, units: &[(&str, u64)]) -> Result<u64, String> {
    let Some((_, factor)) = units.iter().find(|(name, _)| *name == unit) else {
        let names: Vec<&str> = units.iter().map(|(name, _)| *name).collect();
        return Err(format!(
            "has the unknown unit {}: use one of {}",
            crate::text::quoted(unit),
            names.join(", ")
        ));
    };
    number.parse::<u64>().ok().and_then(|it| it.checked_mul(*factor)).ok_or_else(|| "is too large".to_owned())
}

/// Writes `amount` in the largest unit that divides it; zero in the unit `zero`.
fn write_in_units(f: &mut fmt::Formatter<'_>, amount: u64, zero: &str, units: &[(&str, u64)]) -> fmt::Result {
    match units.iter().rev().find(|(_, factor)| amount != 0 && amount.is_multiple_of(*factor)) {
        Some((name, factor)) => write!(f, "{}{name}", amount / factor),
        None => write!(f, "0{zero}"),
    }
}

impl fmt::Display for DurationArg {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_in_units(f, self.millis, "s", &DURATION_UNITS)
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_in_units(f, self.bytes, "B", &SIZE_UNITS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn duration(text: &str) -> Result<u128, String> {
        text.parse::<DurationArg>().map(|it| it.get().as_millis())
    }

    fn size(text: &str) -> Result<u64, String> {
        text.parse::<Size>().map(Size::bytes)
    }

    #[test]
    fn durations_have_one_number_and_one_unit() {
        assert_eq!(duration("250ms"), Ok(250));
        assert_eq!(duration("5s"), Ok(5_000));
        assert_eq!(duration("10m"), Ok(600_000));
        assert_eq!(duration("6h"), Ok(21_600_000));
        assert_eq!(duration("1d"), Ok(86_400_000));
        assert_eq!(duration("0s"), Ok(0));
        for text in ["", "s", "-5s", "+5s", "1.5s", " 5s", "5 s", "1h30m", "5s\u{202e}", "5٣s"] {
            assert!(duration(text).unwrap_err().starts_with("is not a duration"), "{text:?}");
        }
        for text in ["5S", "5sec", "5M"] {
            assert!(duration(text).unwrap_err().starts_with("has the unknown unit"), "{text:?}");
        }
    }

    #[test]
    fn a_duration_without_unit_is_refused_with_the_ways_to_write_it() {
        assert_eq!(duration("5").unwrap_err(), "has no unit: write 5ms, 5s, 5m, 5h or 5d");
    }

    #[test]
    fn sizes_count_in_powers_of_1024() {
        assert_eq!(size("64MiB"), Ok(64 << 20));
        assert_eq!(size("512KiB"), Ok(512 << 10));
        assert_eq!(size("1GiB"), Ok(1 << 30));
        assert_eq!(size("4096"), Ok(4096));
        assert_eq!(size("4096B"), Ok(4096));
        assert_eq!(
            size("64MB").unwrap_err(),
            "has the unknown unit \"MB\": use one of B, KiB, MiB, GiB, TiB"
        );
        assert!(size("MiB").unwrap_err().starts_with("is not a size"));
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        assert_eq!(duration("18446744073709551615ms"), Ok(u128::from(u64::MAX)));
        assert_eq!(duration("18446744073709551616ms").unwrap_err(), "is too large");
        assert_eq!(duration("213503982335d").unwrap_err(), "is too large");
        assert_eq!(size("99999999999999999999999").unwrap_err(), "is too large");
        assert_eq!(size("16777216TiB").unwrap_err(), "is too large");
    }

    #[test]
    fn what_is_shown_parses_to_the_same_value() {
        for (text, shown) in
            [("300s", "5m"), ("90s", "90s"), ("48h", "2d"), ("1500ms", "1500ms"), ("0d", "0s")]
        {
            assert_eq!(text.parse::<DurationArg>().unwrap().to_string(), shown);
            assert_eq!(duration(shown), duration(text));
        }
        for (text, shown) in [("65536KiB", "64MiB"), ("1000", "1000B"), ("0", "0B"), ("2048GiB", "2TiB")] {
            assert_eq!(text.parse::<Size>().unwrap().to_string(), shown);
            assert_eq!(size(shown), size(text));
        }
    }
}
