//! One record of a queue as something to deliver: whom it concerns, what is sent, how it is recognised.
//!
//! # Invariants
//! - The body follows from the record alone; `resume`, `endpoint` and `redrive_of` are not part of it, so a
//!   redriven record has the bytes of the first one.
//! - A record whose [`Head`] can be read belongs to the same lane whether or not the rest of it is valid.
//!
//! Not here: the form of the bodies (`ingest`), what a record is (`envelope`).

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::{Value, value::RawValue};

use crate::{
    envelope::{EventEnvelope, MILESTONE_EMITTED},
    ingest,
};

/// Which of the receiver's two doors an item goes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route {
    /// A milestone.
    Milestones,
    /// Any other event.
    Events,
}

/// What is read of a record to know whether it is this consumer's and what it waits for.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Head<'a> {
    pub key: Cow<'a, str>,
    pub scope: Option<Cow<'a, str>>,
    /// The only endpoint it is meant for.
    pub endpoint: Option<Cow<'a, str>>,
}

#[derive(Deserialize)]
struct RecordHead<'a> {
    #[serde(borrow)]
    idempotency_key: Cow<'a, str>,
    #[serde(borrow, default)]
    endpoint: Option<Cow<'a, str>>,
    #[serde(borrow)]
    payload: &'a RawValue,
}

#[derive(Deserialize)]
struct PayloadHead<'a> {
    #[serde(borrow, default)]
    scope: Option<Cow<'a, str>>,
}

impl<'a> Head<'a> {
    /// Reads a line; `None` when it is no record at all.
    pub fn read(line: &'a [u8]) -> Option<Head<'a>> {
        let head: RecordHead = serde_json::from_slice(line).ok()?;
        // A payload may be anything; one without a scope waits for nobody.
        let scope = serde_json::from_str::<PayloadHead>(head.payload.get()).ok().and_then(|it| it.scope);
        let scope = scope.filter(|it| !it.is_empty());
        Some(Head { key: head.idempotency_key, scope, endpoint: head.endpoint })
    }

    /// Whether it is meant for this endpoint.
    pub fn is_for(&self, endpoint: &str) -> bool {
        self.endpoint.as_deref().is_none_or(|it| it == endpoint)
    }
}

/// A record that can be delivered.
#[derive(Clone, Debug)]
pub struct Item {
    /// Logical offset of the record in the queue.
    pub offset: u64,
    /// Logical offset after it.
    pub end: u64,
    /// The record.
    pub envelope: EventEnvelope,
    /// The scope within which order is kept.
    pub scope: Option<String>,
    /// Which door it goes to.
    pub route: Route,
    /// What the receiver calls it: the milestone's id, or the event's.
    pub id: String,
    payload: Value,
}

impl Item {
    /// Makes an item of a line.
    ///
    /// # Errors
    /// One sentence that says why it can never be delivered.
    pub fn read(offset: u64, end: u64, line: &[u8]) -> Result<Item, String> {
        let envelope = EventEnvelope::from_line(line).map_err(|faults| match faults.first() {
            Some(it) => it.to_string(),
            None => "is no valid record".to_owned(),
        })?;
        let payload: Value =
            serde_json::from_str(envelope.payload.get()).map_err(|it| format!("payload: {it}"))?;
        let scope = payload["scope"].as_str().filter(|it| !it.is_empty()).map(str::to_owned);
        let (route, id) = if envelope.event_type == MILESTONE_EMITTED {
            let id = payload["milestoneId"].as_str().filter(|it| !it.is_empty());
            (Route::Milestones, id.ok_or("payload: has no milestoneId")?.to_owned())
        } else {
            (Route::Events, envelope.event_id.clone())
        };
        Ok(Item { offset, end, envelope, scope, route, id, payload })
    }

    /// The idempotency key.
    pub fn key(&self) -> &str {
        &self.envelope.idempotency_key
    }

    /// The bytes that are sent in every attempt.
    pub fn body(&self) -> Vec<u8> {
        match self.route {
            Route::Milestones => ingest::milestone_body(self.key(), self.envelope.timestamp, &self.payload),
            Route::Events => {
                let plain =
                    EventEnvelope { resume: None, endpoint: None, redrive_of: None, ..self.envelope.clone() };
                // An envelope always has a JSON form; what has none could not have been read.
                let envelope = serde_json::to_value(&plain).unwrap_or_default();
                ingest::event_body(self.key(), self.envelope.timestamp, &envelope)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::Timestamp;

    fn line(event_type: &str, payload: &Value) -> Vec<u8> {
        let now = Timestamp::parse_utc("2026-11-20T10:00:00Z").unwrap();
        let it = EventEnvelope::new(event_type, "test", "feed", "milestone:m1".into(), payload, now).unwrap();
        let mut line = Vec::new();
        it.write_line(&mut line).unwrap();
        line
    }

    #[test]
    fn a_milestone_is_sent_as_the_contract_says() {
        let item =
            Item::read(0, 1, &line(MILESTONE_EMITTED, &json!({"milestoneId":"m1","scope":"s"}))).unwrap();
        assert_eq!(
            (item.route, item.id.as_str(), item.scope.as_deref()),
            (Route::Milestones, "m1", Some("s"))
        );
        assert_eq!(
            String::from_utf8(item.body()).unwrap(),
            r#"{"event":{"milestoneId":"m1","scope":"s"},"idempotencyKey":"milestone:m1","sentAtUtc":"2026-11-20T10:00:00.000Z"}"#
        );
    }

    #[test]
    fn a_redriven_record_has_the_same_bytes() {
        let line = line("reminder.due", &json!({"scope":"chat:42","task_id":"t"}));
        let mut record: Value = serde_json::from_slice(&line).unwrap();
        record["endpoint"] = json!("backup");
        record["redrive_of"] = json!(7);
        record["resume"] = json!({"offset": 9, "fingerprint": "ab"});
        let first = Item::read(0, 1, &line).unwrap();
        let again = Item::read(5, 6, record.to_string().as_bytes()).unwrap();
        assert_eq!((first.route, first.id.as_str()), (Route::Events, first.envelope.event_id.as_str()));
        assert_eq!(first.body(), again.body());
    }

    #[test]
    fn the_head_agrees_with_the_record() {
        let line = line(MILESTONE_EMITTED, &json!({"milestoneId":"m1","scope":"a \u{1f680}\n"}));
        let head = Head::read(&line).unwrap();
        let item = Item::read(0, 1, &line).unwrap();
        assert_eq!((head.key.as_ref(), head.scope.as_deref()), (item.key(), item.scope.as_deref()));
        assert!(head.is_for("") && head.is_for("backup"));
        for bad in [&b""[..], b"{", b"null", br#"{"idempotency_key":1,"payload":{}}"#] {
            assert_eq!(Head::read(bad), None);
        }
    }

    #[test]
    fn a_milestone_without_an_id_can_never_be_delivered() {
        assert!(Item::read(0, 1, &line(MILESTONE_EMITTED, &json!({"scope":"s"}))).is_err());
        assert!(Item::read(0, 1, b"{}").is_err());
    }
}
