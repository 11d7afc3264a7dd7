//! What can happen to a delivery, in the form in which it is audited and read back.
//!
//! # Invariants
//! - An event that was audited and read back is the event that happened: state is rebuilt from it.
//! - `detail.journal` and `detail.offset` stand only where a dead letter was written: settling takes them
//!   for the record of that journal.
//!
//! Not here: what an event does to the state (`state`).

use std::{fmt, io::Write as _, sync::LazyLock};

use memchr::memmem::Finder;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::Value;

use super::{breaker::Breaker, control::Command, verdict::Fault};
use crate::{
    Timestamp,
    audit::{self, Action, Draft, Outcome},
    canonical,
    ingest::Receipt,
};

/// An event, with the key and scope of the item that it is about.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// Something came of an item: acknowledged, retried, dead-lettered or quarantined.
    Item {
        /// Which of the four.
        outcome: Outcome,
        /// The idempotency key; none for what is no record.
        key: Option<String>,
        /// The scope.
        scope: Option<String>,
        /// The rest.
        detail: Box<Detail>,
    },
    /// The breaker opened or closed.
    Breaker(BreakerDetail),
    /// The operator gave a command.
    Control(ControlDetail),
    /// The operator set the position.
    Resync(ResyncDetail),
}

/// `detail` of an item's outcome.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Detail {
    /// The dead letters' journal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub journal: Option<String>,
    /// The dead letter's logical offset in it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub offset: Option<u64>,
    /// The queue's name.
    pub queue: String,
    /// The endpoint's name; empty for the one without a name.
    pub endpoint: String,
    /// The record's logical offset in the queue.
    pub queue_offset: u64,
    /// The high-water mark after this event.
    pub cursor: u64,
    /// When the attempt ended.
    pub at: Timestamp,
    /// Attempts used so far.
    #[serde(default)]
    pub attempt: u32,
    /// Tries so far.
    #[serde(default)]
    pub tries: u32,
    /// When the next one is due.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub due: Option<Timestamp>,
    /// The delay that made it, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delay_ms: Option<u64>,
    /// The HTTP status.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// A short name that never changes.
    pub reason: String,
    /// Whose fault it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fault: Option<Fault>,
    /// What the receiver said.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub answer: String,
    /// The receiver's proof.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub receipt: Option<Receipt>,
    /// The file in quarantine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quarantine: Option<String>,
    /// Whether this try used an attempt.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub counted: bool,
    /// Whether the fault is known to be the item's own.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub own: bool,
    /// Whether the item waits alone, not with its scope.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub alone: bool,
    /// Whether it was a probe.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub probe: bool,
    /// Whether others of the queue before it are not settled yet.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub ahead: bool,
}

/// `detail` of the breaker's moves.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BreakerDetail {
    /// The queue's name.
    pub queue: String,
    /// The endpoint's name.
    pub endpoint: String,
    /// Where is sent to.
    pub url: Option<String>,
    /// The breaker afterwards.
    pub breaker: Breaker,
}

/// `detail` of an operator's command.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ControlDetail {
    /// The control journal.
    pub journal: String,
    /// The logical offset of the command in it.
    pub from: u64,
    /// The logical offset after it.
    pub to: u64,
    /// The queue's name.
    pub queue: String,
    /// The endpoint's name.
    pub endpoint: String,
    /// When it was given.
    pub at: Timestamp,
    /// The command.
    #[serde(flatten)]
    pub command: Command,
}

/// `detail` of a resync.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ResyncDetail {
    /// The queue's name.
    pub queue: String,
    /// The endpoint's name.
    pub endpoint: String,
    /// The logical offset that is gone on from.
    pub cursor: u64,
}

/// What is read of an audit record.
#[derive(Deserialize)]
struct Record {
    action: String,
    outcome: String,
    #[serde(default)]
    idempotency_key: Option<String>,
    #[serde(default)]
    scope: Option<String>,
    detail: Value,
}

impl Detail {
    /// Appends the canonical text of an ordinary acknowledgement's detail, made without a document: there are very
    /// many. Says false, and appends nothing, when it is none.
    pub(super) fn write_plain(&self, out: &mut Vec<u8>) -> bool {
        let Detail {
            at, attempt, cursor, endpoint, queue, queue_offset, reason, receipt, status, tries, ..
        } = self;
        let has_place = self.journal.is_some() || self.offset.is_some() || self.quarantine.is_some();
        let has_failed = self.fault.is_some() || self.due.is_some() || self.delay_ms.is_some();
        let is_odd = self.counted || self.own || self.alone || self.probe || self.ahead;
        if has_place || has_failed || is_odd || !self.answer.is_empty() {
            return false;
        }
        // Numbers beyond what a double holds exactly would have another form.
        let numbers = [*cursor, *queue_offset, receipt.as_ref().map_or(0, |it| it.seq)];
        if numbers.iter().any(|it| *it > 1 << 53) {
            return false;
        }
        let text = |name: &str, says: &str, out: &mut Vec<u8>| {
            out.extend_from_slice(name.as_bytes());
            canonical::write_string(says, out);
        };
        add(out, format_args!(r#"{{"at":"{at}","attempt":{attempt},"cursor":{cursor}"#));
        text(",\"endpoint\":", endpoint, out);
        text(",\"queue\":", queue, out);
        add(out, format_args!(r#","queueOffset":{queue_offset}"#));
        text(",\"reason\":", reason, out);
        if let Some(Receipt { seq, head }) = receipt {
            text(",\"receipt\":{\"head\":", head, out);
            add(out, format_args!(r#","seq":{seq}}}"#));
        }
        if let Some(status) = status {
            add(out, format_args!(r#","status":{status}"#));
        }
        add(out, format_args!(r#","tries":{tries}}}"#));
        true
    }

    /// The same as a text of its own.
    fn plain(&self) -> Option<String> {
        let mut out = Vec::new();
        if self.write_plain(&mut out) { String::from_utf8(out).ok() } else { None }
    }
}

fn add(out: &mut Vec<u8>, text: fmt::Arguments<'_>) {
    // A vector takes everything.
    let _ = out.write_fmt(text);
}

impl Event {
    /// The audit record of this event.
    pub fn draft(&self) -> Draft<'_> {
        match self {
            Event::Item { outcome, key, scope, detail } => {
                let plain = detail.plain().map(|it| audit::Detail::Canonical(it.into()));
                let detail = plain.unwrap_or_else(|| to_value(detail).into());
                Draft {
                    key: key.as_deref().map(Into::into),
                    scope: scope.as_deref().map(Into::into),
                    ..Draft::new(Action::Deliver, *outcome, detail)
                }
            }
            Event::Breaker(detail) => {
                let is_closed = detail.breaker.state == super::breaker::Gate::Closed;
                let outcome = if is_closed { Outcome::Closed } else { Outcome::Opened };
                Draft::new(Action::Breaker, outcome, to_value(detail))
            }
            Event::Control(detail) => {
                let action = match detail.command {
                    Command::Hold { .. } => Action::Hold,
                    Command::Release => Action::Release,
                    Command::RetryNow => Action::Deliver,
                };
                Draft::new(action, Outcome::Done, to_value(detail))
            }
            Event::Resync(detail) => Draft::new(Action::Resync, Outcome::Done, to_value(detail)),
        }
    }

    /// Reads an audit record back; `None` when it is not about this queue and endpoint.
    pub fn read(line: &[u8], queue: &str, endpoint: &str) -> Option<Event> {
        // Most records are other tools': look before parsing.
        static TOOL: LazyLock<Finder> = LazyLock::new(|| Finder::new("\"tool\":\"milestone-deliver\""));
        TOOL.find(line)?;
        let record: Record = serde_json::from_slice(line).ok()?;
        if record.detail["queue"] != queue || record.detail["endpoint"] != endpoint {
            return None;
        }
        let outcome = Outcome::from_word(&record.outcome)?;
        match Action::from_word(&record.action)? {
            Action::Deliver if outcome == Outcome::Done => from_value(record.detail).map(Event::Control),
            Action::Deliver => {
                let detail = Box::new(from_value(record.detail)?);
                Some(Event::Item { outcome, key: record.idempotency_key, scope: record.scope, detail })
            }
            Action::Breaker => from_value(record.detail).map(Event::Breaker),
            Action::Hold | Action::Release => from_value(record.detail).map(Event::Control),
            Action::Resync => from_value(record.detail).map(Event::Resync),
            _ => None,
        }
    }
}

fn to_value(detail: &impl Serialize) -> Value {
    // Structures of strings and numbers always have a JSON form.
    serde_json::to_value(detail).unwrap_or_default()
}

fn from_value<T: DeserializeOwned>(detail: Value) -> Option<T> {
    serde_json::from_value(detail).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_plain_text_of_a_detail_is_its_canonical_form() {
        let receipt = Receipt { seq: 7, head: "ab".into() };
        let plain = Detail {
            queue: "milestone-delivery-queue".into(),
            endpoint: "b\"\u{1}\u{1f680}".into(),
            queue_offset: 12,
            cursor: 1 << 53,
            attempt: 1,
            tries: 3,
            reason: "accepted".into(),
            ..Detail::default()
        };
        for (receipt, status) in [(None, None), (Some(receipt), Some(200))] {
            let detail = Detail { status, receipt, ..plain.clone() };
            let canonical = canonical::to_vec(&to_value(&detail));
            assert_eq!(detail.plain().map(String::into_bytes), Some(canonical));
        }
        for odd in [
            Detail { journal: Some("j".into()), ..plain.clone() },
            Detail { answer: "no".into(), ..plain.clone() },
            Detail { probe: true, ..plain.clone() },
            Detail { cursor: (1 << 53) + 1, ..plain.clone() },
        ] {
            assert_eq!(odd.plain(), None, "{odd:?}");
        }
    }
}
