//! A record for people: one aligned line, in colour where that can be seen.
//!
//! # Invariants
//! - Nothing that came from outside can colour or move the terminal.
//! - Nothing of a record is made up: what there is no room for is cut with an ellipsis, and JSON shows it all.

use std::fmt::Write as _;

use milepost::{Timestamp, text};
use serde_json::Value;
use tz::TimeZone;

/// How records are drawn.
pub struct Pretty {
    zone: Option<TimeZone>,
    colour: bool,
}

impl Pretty {
    /// In colour or not, and in local time where a zone is given.
    pub fn new(zone: Option<TimeZone>, colour: bool) -> Pretty {
        Pretty { zone, colour }
    }

    /// A record as one line.
    pub fn line(&self, record: &[u8]) -> String {
        let record: Value = serde_json::from_slice(record).unwrap_or_default();
        let word = |name: &str| text::for_people(record[name].as_str().unwrap_or("-")).into_owned();
        let outcome = word("outcome");
        let mut line = format!(
            "{}  {:<17} {:<10} ",
            self.dim(&self.time(record["timestamp"].as_str().unwrap_or_default())),
            word("tool"),
            word("action"),
        );
        let _ = write!(line, "{}", self.paint(colour_of(&outcome), &format!("{outcome:<13}")));
        let _ = write!(line, " {:<14} {}", word("scope"), word("idempotency_key"));
        let detail = detail(&record["detail"]);
        if !detail.is_empty() {
            let _ = write!(line, "  {}", self.dim(&detail));
        }
        let mut line = line.trim_end().to_owned();
        line.push('\n');
        line
    }

    /// A line that is no record.
    pub fn damaged(&self, line: &[u8]) -> String {
        const SHOWN_CHARS_MAX: usize = 160;
        let all = String::from_utf8_lossy(line);
        let mut shown: String = all.chars().take(SHOWN_CHARS_MAX).collect();
        if shown.len() < all.len() {
            shown.push('…');
        }
        format!("{} {}\n", self.paint(31, "damaged:"), text::for_people(&shown))
    }

    fn time(&self, stamp: &str) -> String {
        let Ok(at) = Timestamp::parse_utc(stamp) else { return text::for_people(stamp).into_owned() };
        let seconds = self
            .zone
            .as_ref()
            .and_then(|it| it.find_local_time_type(at.unix_seconds()).ok().map(tz::LocalTimeType::ut_offset));
        let Some(seconds) = seconds else { return stamp.replace('T', " ") };
        let local = Timestamp::from_millis(at.millis() + i64::from(seconds) * 1000).to_string();
        let minutes = seconds.abs() / 60;
        let sign = if seconds < 0 { '-' } else { '+' };
        format!(
            "{}{sign}{:02}:{:02}",
            local.trim_end_matches('Z').replace('T', " "),
            minutes / 60,
            minutes % 60
        )
    }

    fn dim(&self, text: &str) -> String {
        self.paint(2, text)
    }

    fn paint(&self, code: u8, text: &str) -> String {
        if self.colour && code > 0 { format!("\u{1b}[{code}m{text}\u{1b}[0m") } else { text.to_owned() }
    }
}

fn colour_of(outcome: &str) -> u8 {
    match outcome {
        "appended" | "acknowledged" | "queued" | "reminded" | "closed" | "done" => 32,
        "retried" | "duplicate" | "skipped" | "recovered" => 33,
        "conflict" | "rejected" | "dead-lettered" | "quarantined" | "opened" => 31,
        _ => 0,
    }
}

/// What a detail says, in its own words: the plain ones of it, each cut.
fn detail(detail: &Value) -> String {
    const WORD_CHARS_MAX: usize = 60;
    let mut words = Vec::new();
    for (name, value) in detail.as_object().into_iter().flatten() {
        let value = match value {
            Value::String(it) => it.clone(),
            Value::Object(_) | Value::Array(_) => value.to_string(),
            other => other.to_string(),
        };
        if value.is_empty() {
            continue;
        }
        let mut shown: String = value.chars().take(WORD_CHARS_MAX).collect();
        if shown.len() < value.len() {
            shown.push('…');
        }
        words.push(format!("{}={}", text::for_people(name), text::for_people(&shown)));
    }
    words.join(" ")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn record(detail: Value) -> Vec<u8> {
        let record = json!({
            "seq": 1, "timestamp": "2026-07-01T09:05:01.250Z", "tool": "milestone-deliver", "action": "deliver",
            "outcome": "retried", "idempotency_key": "milestone:a", "scope": "run\u{1b}[31mtime", "detail": detail,
        });
        serde_json::to_vec(&record).unwrap()
    }

    #[test]
    fn a_line_is_aligned_and_safe() {
        let line =
            Pretty::new(None, false).line(&record(json!({ "reason": "x\n", "attempt": 2, "answer": "" })));
        assert_eq!(
            line,
            "2026-07-01 09:05:01.250Z  milestone-deliver deliver    retried       run\\u{1b}[31mtime milestone:a  \
             attempt=2 reason=x\\u{a}\n"
        );
        let coloured = Pretty::new(None, true).line(&record(json!({})));
        assert!(coloured.contains("\u{1b}[33mretried      \u{1b}[0m"), "{coloured:?}");
    }

    #[test]
    fn local_time_names_its_offset() {
        let zone = |text: &str| TimeZone::from_posix_tz(text).unwrap();
        let line = Pretty::new(Some(zone("CET-1CEST,M3.5.0,M10.5.0/3")), false).line(&record(json!({})));
        assert!(line.starts_with("2026-07-01 11:05:01.250+02:00  "), "{line}");
        let line = Pretty::new(Some(zone("NST3:30")), false).line(&record(json!({})));
        assert!(line.starts_with("2026-07-01 05:35:01.250-03:30  "), "{line}");
    }
}
