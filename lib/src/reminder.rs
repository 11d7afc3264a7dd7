//! A reminder: an open task is overdue in some window of time. The record of `reminders.jsonl`.
//!
//! A window is a whole number of minutes long; windows follow one another from 1970-01-01T00:00Z on. The start of
//! the one that holds an instant is its *time bucket*.
//!
//! # Invariants
//! - Pure. A reminder is named by scope, task and time bucket, and by nothing else: an edited title or due date
//!   makes no other reminder, another bucket does.
//! - All times are UTC: no zone, no summer time, no calendar is in it.
//!
//! Not here: which tasks are due (`task`), that each reminder is written once (`scan`).

mod scan;

use std::{fmt, str::FromStr, time::Duration};

use serde::{Deserialize, Serialize, Serializer};

pub use self::scan::{Listed, Scanned, Scanner};
use crate::{
    Timestamp,
    envelope::EventEnvelope,
    identity,
    journal::{Journal, JournalName},
    logs::Logs,
    queue,
    schema::FieldError,
    task::Task,
    units::DurationArg,
};

/// The journal of reminders.
pub const REMINDERS: &str = "reminders";
/// The event type of a reminder.
pub const REMINDER_DUE: &str = "reminder.due";

/// The journal of reminders in a logs folder.
pub fn reminders(logs: &Logs) -> Journal {
    Journal::new(logs, JournalName::internal(REMINDERS), queue::describe)
}

/// When a scan takes place, and what it counts as due.
#[derive(Clone, Copy, Debug)]
pub struct When {
    /// What time it is.
    pub now: Timestamp,
    /// What is written into the envelopes as the time of their making: the same, but for `--now`.
    pub made_at: Timestamp,
    /// The length of a window.
    pub window: Window,
    /// How long before it is due a task is reminded of.
    pub lead: Duration,
}

impl When {
    /// The bucket that is reminded in.
    pub fn bucket(&self) -> TimeBucket {
        self.window.bucket(self.now)
    }

    /// Tasks due by then are reminded of.
    pub fn until(&self) -> Timestamp {
        self.now.plus(self.lead)
    }
}

/// The length of a window: a whole number of minutes, at least one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    minutes: i64,
}

const MINUTE_MILLIS: i64 = 60_000;

impl Window {
    /// What is meant when nothing is said.
    pub const HOUR: Window = Window { minutes: 60 };

    /// A window of this length.
    ///
    /// # Errors
    /// A sentence when it is no whole number of minutes, or none at all.
    pub fn new(length: Duration) -> Result<Window, String> {
        let millis = i64::try_from(length.as_millis()).unwrap_or(i64::MAX);
        if millis < MINUTE_MILLIS || millis % MINUTE_MILLIS != 0 {
            return Err("is not a whole number of minutes, at least 1m".to_owned());
        }
        Ok(Window { minutes: millis / MINUTE_MILLIS })
    }

    /// The bucket that `now` falls into.
    pub fn bucket(self, now: Timestamp) -> TimeBucket {
        let minute = now.millis().div_euclid(MINUTE_MILLIS);
        let start = minute.div_euclid(self.minutes).saturating_mul(self.minutes);
        // One that begins before the year 0 is named by that year's first minute: it is the only such bucket.
        TimeBucket(Timestamp::from_millis(start.saturating_mul(MINUTE_MILLIS)))
    }
}

impl FromStr for Window {
    type Err = String;

    fn from_str(text: &str) -> Result<Window, String> {
        Window::new(text.parse::<DurationArg>()?.get())
    }
}

/// The start of a window. `Display` is its name, `YYYY-MM-DDTHH:MMZ`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TimeBucket(Timestamp);

impl fmt::Display for TimeBucket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let start = self.0.to_string();
        write!(f, "{}Z", start.get(..16).unwrap_or(&start))
    }
}

impl Serialize for TimeBucket {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// The payload of a reminder. Field order is the order on disk.
#[derive(Debug, Serialize)]
struct Payload<'t> {
    task_id: &'t str,
    scope: &'t str,
    title: &'t str,
    due_at: Timestamp,
    time_bucket: TimeBucket,
}

/// The idempotency key of the reminder of a task in a bucket.
pub fn key_of(task: &Task, bucket: TimeBucket) -> String {
    identity::reminder_key(&task.scope, &task.task_id, &bucket.to_string())
}

/// The reminder of a task.
///
/// # Errors
/// None that a task can cause.
pub fn envelope_of(task: &Task, when: &When) -> Result<EventEnvelope, FieldError> {
    let time_bucket = when.bucket();
    let Task { task_id, scope, title, due_at, .. } = task;
    let payload = Payload { task_id, scope, title, due_at: *due_at, time_bucket };
    let key = key_of(task, time_bucket);
    EventEnvelope::new(REMINDER_DUE, "reminder-scan", "reminders", key, &payload, when.made_at)
}

/// The look-up key of a line of `reminders.jsonl`.
fn keys_of(line: &[u8], each: &mut dyn FnMut(&str)) {
    if let Some(key) = key_in(line) {
        each(&key);
    }
}

fn key_in(line: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    struct Key {
        idempotency_key: String,
    }
    serde_json::from_slice::<Key>(line).ok().map(|it| it.idempotency_key)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn bucket(window: &str, now: &str) -> String {
        let now = Timestamp::parse_utc(now).unwrap();
        window.parse::<Window>().unwrap().bucket(now).to_string()
    }

    #[test]
    fn a_bucket_is_the_start_of_the_window_in_utc() {
        assert_eq!(bucket("1h", "2026-03-01T09:59:59.999Z"), "2026-03-01T09:00Z");
        assert_eq!(bucket("1h", "2026-03-01T10:00:00Z"), "2026-03-01T10:00Z");
        assert_eq!(bucket("15m", "2026-03-01T09:59:00Z"), "2026-03-01T09:45Z");
        assert_eq!(bucket("1d", "2026-03-01T09:59:00Z"), "2026-03-01T00:00Z");
        assert_eq!(bucket("1m", "1969-12-31T23:59:59.999Z"), "1969-12-31T23:59Z");
        assert_eq!(bucket("7m", "1970-01-01T00:06:59Z"), "1970-01-01T00:00Z");
        assert_eq!(bucket("1h", "0000-01-01T00:00:00Z"), "0000-01-01T00:00Z");
        assert_eq!(bucket("100000d", "0000-01-01T00:00:00Z"), "0000-01-01T00:00Z");
        assert_eq!(bucket("1h", "9999-12-31T23:59:59.999Z"), "9999-12-31T23:00Z");
    }

    #[test]
    fn a_window_is_a_whole_number_of_minutes() {
        for bad in ["0m", "0s", "59s", "90s", "1500ms", "60001ms", "1", "-1h", ""] {
            assert!(bad.parse::<Window>().is_err(), "{bad}");
        }
        for good in ["60s", "1m", "90m", "1d", "120000ms", "100000000000d"] {
            assert!(good.parse::<Window>().is_ok(), "{good}");
        }
    }

    /// The example that stands with the schemas.
    #[test]
    fn a_reminder_is_the_envelope_that_the_schema_shows() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../schemas/examples/valid/reminder.v1/due.json");
        let example: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
        let task = json!({ "task_id": "pay-invoice-17", "scope": "chat:42", "title": "Pay invoice 17",
            "due_at": "2026-02-28T12:00:00Z" });
        let (task, _) = Task::from_value(task, Timestamp::from_millis(0)).unwrap();
        let when = When {
            now: Timestamp::parse_utc("2026-03-01T09:05:01Z").unwrap(),
            made_at: Timestamp::parse_utc("2026-03-01T09:05:01.250Z").unwrap(),
            window: "1h".parse().unwrap(),
            lead: Duration::ZERO,
        };
        let envelope = envelope_of(&task, &when).unwrap();
        assert_eq!(serde_json::to_value(&envelope).unwrap(), example);
        let mut line = Vec::new();
        envelope.write_line(&mut line).unwrap();
        assert_eq!(key_in(&line).as_deref(), Some("rem:chat:42:pay-invoice-17:2026-03-01T09:00Z"));
    }
}
