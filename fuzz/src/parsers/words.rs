//! What people write on a command line and pipe in: durations, sizes, times, evidence, dead letters.

use std::collections::BTreeSet;

use milepost::{
    Timestamp,
    event::Evidence,
    journal::Resync,
    redrive::Selection,
    units::{DurationArg, Size},
};
use serde_json::Value;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use milepost_fuzz::seeds;

pub fn unit_seeds() -> Vec<Vec<u8>> {
    seeds::texts(&[
        "250ms",
        "5s",
        "10m",
        "6h",
        "1d",
        "0d",
        "64MiB",
        "4096",
        "4096B",
        "512KiB",
        "1GiB",
        "16777216TiB",
        "18446744073709551615ms",
        "18446744073709551616ms",
        "213503982335d",
        "5",
        "+5s",
        "5 s",
        "1.5s",
        "start",
        "end",
        "00000000000000000000000001s",
    ])
}

pub fn units(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let model = |units: &[(&str, u128)], bare: Option<u128>| {
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        let factor = match &text[digits..] {
            "" => bare,
            unit => units.iter().find(|(name, _)| *name == unit).map(|(_, factor)| *factor),
        };
        // More digits than a u128 holds are too many in any unit, unless they are zeros.
        let number = text[..digits].trim_start_matches('0');
        let number = if digits == 0 {
            None
        } else if number.is_empty() {
            Some(0)
        } else {
            number.parse().ok()
        };
        let product: Option<u128> =
            factor.zip(number).and_then(|(factor, number): (u128, u128)| factor.checked_mul(number));
        product.and_then(|it| u64::try_from(it).ok())
    };
    let durations = [("ms", 1), ("s", 1000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];
    let parsed = text.parse::<DurationArg>();
    let millis = parsed.as_ref().ok().and_then(|it| u64::try_from(it.get().as_millis()).ok());
    assert_eq!(millis, model(&durations, None), "{parsed:?}");
    match parsed {
        Ok(it) => assert_eq!(it.to_string().parse(), Ok(it), "what is shown is read back"),
        Err(why) => assert!(!why.is_empty() && !why.contains(|it: char| it.is_control())),
    }

    let sizes = [("B", 1), ("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30), ("TiB", 1 << 40)];
    let parsed = text.parse::<Size>();
    assert_eq!(parsed.as_ref().ok().map(|it| it.bytes()), model(&sizes, Some(1)), "{parsed:?}");
    match parsed {
        Ok(it) => assert_eq!(it.to_string().parse(), Ok(it), "what is shown is read back"),
        Err(why) => assert!(!why.is_empty() && !why.contains(|it: char| it.is_control())),
    }

    if let Ok(it) = text.parse::<Resync>() {
        assert_eq!(it.to_string().parse(), Ok(it), "what is shown is read back");
    }
}

pub fn time_seeds() -> Vec<Vec<u8>> {
    seeds::texts(&[
        "2026-03-01T09:05Z",
        "2026-03-01T09:05:07.999999999999Z",
        "2024-02-29T23:59:59.1Z",
        "0000-01-01T00:00:00Z",
        "9999-12-31T23:59:59.999Z",
        "2026-03-01T01:05:00.5-00:30",
        "2026-03-01T01:05:00+23:59",
        "2026-03-01T24:00:00Z",
        "2026-03-01T09:05:60Z",
        "2026-02-29T00:00:00Z",
        "2026-03-01 09:05:00Z",
        "Fri, 20 Nov 2026 10:00:30 GMT",
        "Friday, 20-Nov-26 10:00:30 GMT",
        "Fri Nov 20 10:00:30 2026",
    ])
}

pub fn time(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let parsed = Timestamp::parse_rfc3339(text);
    let theirs = OffsetDateTime::parse(text, &Rfc3339).ok();
    if let Ok(it) = &parsed {
        let shown = it.to_string();
        assert_eq!(shown.len(), 24, "{shown}");
        assert_eq!(Timestamp::parse_utc(&shown).as_ref(), Ok(it), "what is shown is read back");
        assert_eq!(serde_json::from_value::<Timestamp>(Value::from(shown)).ok().as_ref(), Some(it));
        assert_eq!(Timestamp::from_millis(it.millis()), *it);
        assert_eq!(it.unix_seconds(), it.millis().div_euclid(1000));
        // Another reader of RFC 3339 agrees, where seconds are given at all.
        let has_seconds = text.as_bytes()[16] == b':';
        if has_seconds {
            let theirs = theirs.expect("the crate's reader takes what ours takes");
            assert_eq!(theirs.unix_timestamp_nanos().div_euclid(1_000_000), i128::from(it.millis()));
        }
    } else if let Some(theirs) = theirs {
        // It takes more: a space for T, small letters, second 60, years that leave the range in UTC.
        let year = theirs.to_offset(time::UtcOffset::UTC).year();
        let is_narrow = text.contains([' ', 't', 'z']) || text.contains(":60") || !(0..=9999).contains(&year);
        assert!(is_narrow || text.as_bytes()[10] != b'T' || theirs.second() == 59, "{text:?}: {parsed:?}");
    }
    match Timestamp::parse_utc(text) {
        Ok(it) => assert!(parsed == Ok(it) && text.ends_with('Z')),
        Err(why) => assert!(!why.is_empty()),
    }
    if let Some(it) = milepost::delivery::backoff::http_date(text) {
        assert_eq!(it.millis() % 1000, 0, "HTTP counts in seconds");
    }
}

pub fn evidence_seeds() -> Vec<Vec<u8>> {
    seeds::texts(&[
        "type=log,path=/var/log/a.log,summary=exit 0",
        "type=commit,path=.,summary=a, b, and path = c,ref=abc",
        "summary=x,path=y,type=pr",
        "type=log,type=log",
        "type=a,b,path=c,summary=d",
        "typ=log",
        "type=,path=,summary=,ref=",
        "",
    ])
}

pub fn evidence(input: &[u8]) {
    let Ok(flag) = std::str::from_utf8(input) else { return };
    match Evidence::from_flag(flag) {
        Ok(value) => {
            let fields = value.as_object().expect("an object");
            assert!(["type", "path", "summary"].iter().all(|it| fields.contains_key(*it)));
            assert!(fields.keys().all(|it| ["type", "path", "summary", "ref"].contains(&it.as_str())));
            // Nothing is lost, nothing made up: the parts are the flag.
            let mut parts: Vec<(usize, String)> = fields
                .iter()
                .map(|(name, text)| {
                    let part = format!("{name}={}", text.as_str().expect("a text"));
                    let starts = [String::new(), ",".to_owned()].map(|it| it + &part);
                    let at = if flag.starts_with(&starts[0]) { Some(0) } else { flag.find(&starts[1]) };
                    (at.expect("each part stands in the flag"), part)
                })
                .collect();
            parts.sort();
            let joined: Vec<&str> = parts.iter().map(|(_, part)| part.as_str()).collect();
            assert_eq!(joined.join(",").len(), flag.len(), "{joined:?}");
            assert_eq!(Evidence::from_flag(&joined.join(",")), Ok(value.clone()), "the same again");
        }
        Err(why) => {
            assert!(!why.is_empty() && !why.contains(|it: char| it.is_control()), "{why:?}");
            assert_eq!(Evidence::from_flag(flag), Err(why), "the same gives the same");
        }
    }
}

pub fn redrive_seeds() -> Vec<Vec<u8>> {
    let mut all = seeds::examples("dead-letter.v1");
    let both = all[..2].concat();
    all.push(both);
    all.extend(seeds::texts(&[
        "",
        " \n",
        "{\"idempotency_key\":\"k\",\"queue_offset\":0}{}",
        "[1]",
        "{\"queue_offset\":-1",
    ]));
    all
}

pub fn redrive(input: &[u8]) {
    let values: Result<Vec<Value>, _> = serde_json::Deserializer::from_slice(input).into_iter().collect();
    let letters = |values: Vec<Value>| {
        let letter = |it: &Value| {
            Some((it.get("idempotency_key")?.as_str()?.to_owned(), it.get("queue_offset")?.as_u64()?))
        };
        values.iter().map(letter).collect::<Option<BTreeSet<_>>>()
    };
    let expected = values.ok().and_then(letters);
    match Selection::of_json(input) {
        Ok(Selection::Letters(found)) => {
            assert_eq!(Some(&found), expected.as_ref());
            // In any layout: printed anew, they are the same ones.
            let print = |(key, offset): &(String, u64)| {
                serde_json::json!({ "idempotency_key": key, "queue_offset": offset }).to_string()
            };
            let lines: Vec<String> = found.iter().map(print).collect();
            let again = Selection::of_json(lines.join("\n").as_bytes());
            assert!(matches!(again, Ok(Selection::Letters(again)) if again == found));
        }
        Ok(other) => panic!("standard input names single letters, not {other:?}"),
        Err(error) => {
            assert_eq!(expected, None, "{error}");
            assert!(!error.to_string().contains(|it: char| it.is_control()), "{error}");
        }
    }
}
