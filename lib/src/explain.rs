//! One event's life, and all that its next attempt hangs on.
//!
//! ```text
//! KEY ──► trace id ──► every audit record of the trace          (`trace`)
//!                          │ journal and offset
//!                          ▼
//!                      the records themselves; the queue's index where the audit names none
//!                          │
//!                          ▼
//!                      per endpoint: settled, or what it waits for     (`outlook`)
//! ```
//!
//! # Invariants
//! - It only reads and takes no lock. An index is looked at, never made.
//! - Steps are in the order of the audit, which is that in which they happened, whatever the clocks said.
//! - The audit has no index, so what it costs is one pass over it at the speed of memory.
//!
//! Not here: how it is shown (`milestone-status`), whether anything is wrong (`conservation`).

mod outlook;
mod step;
mod trace;

use serde::Serialize;
use serde_json::value::RawValue;

pub use self::outlook::{Blocking, Delay, DelayBy, Delivery, Fate, Next, Wait};
use self::trace::Trace;
use crate::{Result, Timestamp, identity, logs::Logs};

/// What is known of an event.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Life {
    /// Always `known`.
    pub status: &'static str,
    /// The event's key.
    pub idempotency_key: String,
    /// Its trace: what to look for with grep.
    pub trace_id: String,
    /// The scope within which order is kept.
    pub scope: Option<String>,
    /// What has happened to it, in order.
    pub steps: Vec<Step>,
    /// Where it is, or was to be, delivered.
    pub deliveries: Vec<Delivery>,
    /// Its records in the journals.
    pub records: Vec<Record>,
}

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Step {
    /// When it was written.
    pub at_utc: Option<Timestamp>,
    /// The tool that did it.
    pub tool: Option<String>,
    /// What it did; `queued` for the record in a queue, which its batch's audit record tells of.
    pub action: String,
    /// How it ended.
    pub outcome: String,
    /// The endpoint that it concerns; empty for the one without a name.
    pub endpoint: Option<String>,
    /// The same in words for people.
    pub what: String,
    /// The file of the record that it is about, relative to the logs folder.
    pub file: Option<String>,
    /// Logical offset of that record.
    pub offset: Option<u64>,
    /// Logical offset of the audit record; none for a record that has none of its own.
    pub audit_offset: Option<u64>,
}

/// A record of the event.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Record {
    /// The file, relative to the logs folder.
    pub file: String,
    /// Its logical offset.
    pub offset: u64,
    /// The record as it stands there.
    pub record: Box<RawValue>,
}

/// Tells the life of the event that `key` names: an idempotency key, a milestone's id, or a trace id. `None` when no
/// journal knows of it.
///
/// # Errors
/// When something cannot be read.
pub fn explain(logs: &Logs, key: &str, now: Timestamp) -> Result<Option<Life>> {
    let is_trace = key.len() == 32 && key.bytes().all(|it| matches!(it, b'0'..=b'9' | b'a'..=b'f'));
    let mut names = vec![identity::trace_id(key), identity::trace_id(&identity::milestone_key(key))];
    if is_trace {
        names.push(key.to_owned());
    }
    let Some(trace) = Trace::find(logs, &names)? else { return Ok(None) };
    let deliveries = outlook::deliveries(logs, &trace, now)?;
    Ok(Some(Life {
        status: "known",
        steps: trace.steps()?,
        scope: trace.scope.clone(),
        trace_id: identity::trace_id(&trace.key),
        records: trace.records(),
        deliveries,
        idempotency_key: trace.key,
    }))
}
