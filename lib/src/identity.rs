//! What an event is called everywhere: its key, its trace, its ids. All follow from what it is.
//!
//! ```text
//! idempotency_key   milestone:{milestoneId}   or   rem:{scope}:{task_id}:{time_bucket}
//! trace_id          printf %s "milestone:release.2.4.0" | sha256sum | cut -c -32
//! event_id          evt_ and: printf %s "milestone.emitted:milestone:release.2.4.0" | sha256sum | cut -c -32
//! webhook-id        msg_ and the trace_id
//! ```
//!
//! # Invariants
//! - Pure: the same event has the same names at every time, in every tool, and in a shell.
//!
//! Not here: ids for events that were given none (`event`).

use data_encoding::HEXLOWER;
use sha2::{Digest, Sha256};

/// The idempotency key of a milestone.
pub fn milestone_key(milestone_id: &str) -> String {
    ["milestone:", milestone_id].concat()
}

/// The idempotency key of the reminder of one task in one time bucket (`YYYY-MM-DDTHH:MMZ`). It is read
/// from the right: bucket and task hold a known number of colons, the scope may hold any.
pub fn reminder_key(scope: &str, task_id: &str, time_bucket: &str) -> String {
    format!("rem:{scope}:{task_id}:{time_bucket}")
}

/// What a task is audited under. No event has this key.
pub fn task_key(scope: &str, task_id: &str) -> String {
    format!("task:{scope}:{task_id}")
}

/// The trace of the event with this key: 32 lower-case hex digits.
pub fn trace_id(idempotency_key: &str) -> String {
    half_hash("", &[idempotency_key])
}

/// The id of the event of this type with this key: `evt_` and 32 lower-case hex digits.
pub fn event_id(event_type: &str, idempotency_key: &str) -> String {
    half_hash("evt_", &[event_type, ":", idempotency_key])
}

/// The `webhook-id` header of every attempt to deliver the event with this trace.
pub fn webhook_id(trace_id: &str) -> String {
    format!("msg_{trace_id}")
}

/// `bytes` as lower-case hex digits.
pub fn hex(bytes: &[u8]) -> String {
    HEXLOWER.encode(bytes)
}

/// `before`, and the first 32 hex digits of SHA-256 of the parts, joined.
fn half_hash(before: &str, parts: &[&str]) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update(part);
    }
    let mut name = String::with_capacity(before.len() + 32);
    name.push_str(before);
    HEXLOWER.encode_append(&hash.finalize()[..16], &mut name);
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each made with `printf %s … | sha256sum`.
    #[test]
    fn names_are_what_sha256sum_says() {
        let key = milestone_key("release.2.4.0");
        assert_eq!(key, "milestone:release.2.4.0");
        assert_eq!(trace_id(&key), "8a381341d5a51c44c9ec972875e57930");
        assert_eq!(event_id("milestone.emitted", &key), "evt_a9e51eb97fdb25a92e657ef508a02b63");
        assert_eq!(webhook_id(&trace_id(&key)), "msg_8a381341d5a51c44c9ec972875e57930");

        let key = reminder_key("chat:42", "zażółć", "2026-03-01T09:00Z");
        assert_eq!(key, "rem:chat:42:zażółć:2026-03-01T09:00Z");
        assert_eq!(trace_id(&key), "72dace34d5568ee77a8b50d4f5e9741a");
        assert_eq!(event_id("reminder.due", &key), "evt_9b680b780bf0be05927e02453ae25610");
    }
}
