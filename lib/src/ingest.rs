//! The ingest contract: the bodies that are sent and the answers that count (`docs/CONTRACT.md`).
//!
//! # Invariants
//! - A body is canonical JSON and a function of the queue record alone, so every attempt of a key has the
//!   same bytes and both signature schemes sign the same ones.
//! - An answer judges an item only when it is the contract's own form and names that item.
//!
//! Many items in one request: [`batch`]. Reading what our own tools wrote: [`walk`].
//!
//! Not here: headers and signatures (`signing`), what an answer leads to (`delivery`), the checks of the
//! receiver (its crate).

pub mod batch;
pub mod walk;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::{Timestamp, canonical};

/// Where milestones are posted.
pub const MILESTONES_PATH: &str = "/internal/milestones/ingest";
/// Where every other event is posted, in its envelope.
pub const EVENTS_PATH: &str = "/internal/events/ingest";
/// The idempotency key of a ping begins so.
pub const PING_PREFIX: &str = "ping:";

/// The body for one milestone: `{"event","idempotencyKey","sentAtUtc"}`, canonical.
pub fn milestone_body(idempotency_key: &str, sent_at: Timestamp, event: &Value) -> Vec<u8> {
    canonical::to_vec(&json!({ "idempotencyKey": idempotency_key, "sentAtUtc": sent_at, "event": event }))
}

/// The body for any other event: `{"envelope","idempotencyKey","sentAtUtc"}`, canonical.
pub fn event_body(idempotency_key: &str, sent_at: Timestamp, envelope: &Value) -> Vec<u8> {
    canonical::to_vec(
        &json!({ "idempotencyKey": idempotency_key, "sentAtUtc": sent_at, "envelope": envelope }),
    )
}

/// The body of a ping: signed like a milestone, stored nowhere.
pub fn ping_body(name: &str, sent_at: Timestamp) -> Vec<u8> {
    milestone_body(&format!("{PING_PREFIX}{name}"), sent_at, &Value::Null)
}

/// What the receiver says of an item.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// It is on the receiver's disk.
    Accepted,
    /// The first one with this key and content is on the receiver's disk.
    Duplicate,
    /// It is not taken; `reason` says why.
    Rejected,
    /// The answer to a ping.
    Pong,
}

/// Where the event stands in the receiver's own hash chain.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Receipt {
    /// The `seq` of its line.
    pub seq: u64,
    /// The `hash` of its line, 64 hex digits.
    pub head: String,
}

/// An answer of the receiver.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Answer {
    /// Whether the item is taken.
    pub ok: bool,
    /// How.
    pub status: Status,
    /// The milestone it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub milestone_id: Option<String>,
    /// The other event it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub event_id: Option<String>,
    /// Why it is not taken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Proof that the receiver has it; an older receiver gives none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub receipt: Option<Receipt>,
}

impl Answer {
    /// Reads an answer's body; `None` when it is not of the contract's form.
    pub fn parse(body: &[u8]) -> Option<Answer> {
        let answer: Answer = serde_json::from_slice(body).ok()?;
        // `ok` and `status` say the same twice; an answer that contradicts itself is nobody's verdict.
        (answer.ok != (answer.status == Status::Rejected)).then_some(answer)
    }

    /// Whether the answer is about the item with this id: a milestone's id or an event's.
    pub fn is_about(&self, id: &str) -> bool {
        self.milestone_id.as_deref().or(self.event_id.as_deref()) == Some(id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_contracts_form_is_an_answer() {
        let parse = |text: &str| Answer::parse(text.as_bytes());
        let accepted = parse(r#"{"ok":true,"status":"accepted","milestoneId":"a"}"#).unwrap();
        assert!(accepted.is_about("a") && !accepted.is_about("b"));
        assert!(parse(r#"{"ok":false,"status":"rejected","reason":"x"}"#).is_some());
        for text in [
            "",
            "{}",
            "null",
            "<html>",
            r#"{"ok":true}"#,
            r#"{"ok":false,"status":"accepted"}"#,
            r#"{"ok":true,"status":"rejected"}"#,
            r#"{"ok":true,"status":"queued"}"#,
            r#"[{"ok":true}]"#,
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
