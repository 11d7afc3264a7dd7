//! Many bodies in one request, and the results that come back in one answer.
//!
//! A receiver offers it by the header [`HEADER`] on its acknowledgements. A batch saves round trips and syncs;
//! it changes nothing about its items: each is judged as if it had come alone, after those before it.
//!
//! # Invariants
//! - A batch's body is canonical JSON and a function of its items' bodies alone, as theirs are of their records.
//! - An answer judges items only when it has one result for each, in order, each with the item's own key.
//!   Every other answer judges none of them.
//!
//! Not here: when a batch is worth while and what a result leads to (`delivery`), the receiver's checks.

use std::borrow::Borrow;

use serde::{Deserialize, Serialize};

use super::{Receipt, Status};
use crate::identity;

/// Where milestones are posted, many at a time.
pub const MILESTONES_PATH: &str = "/internal/milestones/ingest-batch";
/// Where other events are posted, many at a time.
pub const EVENTS_PATH: &str = "/internal/events/ingest-batch";
/// The header of an acknowledgement that says how many items a batch may have.
pub const HEADER: &str = "x-milestone-batch";
/// The most bytes of a batch's body that a receiver takes.
pub const BODY_BYTES_MAX: usize = 8 << 20;

/// The body of a batch: `{"items":[…]}`. Each item is the body of a single request, which is canonical.
pub fn body<T: AsRef<[u8]>>(items: impl IntoIterator<Item = T, IntoIter: Clone>) -> Vec<u8> {
    const START: &[u8] = b"{\"items\":[";
    let items = items.into_iter();
    let length: usize = items.clone().map(|it| body_grows_by(it.as_ref().len())).sum();
    let mut body = Vec::with_capacity(START.len() + length + 2);
    body.extend_from_slice(START);
    for (at, item) in items.enumerate() {
        if at > 0 {
            body.push(b',');
        }
        body.extend_from_slice(item.as_ref());
    }
    body.extend_from_slice(b"]}");
    body
}

/// By how many bytes an item of `item_bytes` makes a batch's body longer, so that a sender can stop in time
/// without making it.
pub fn body_grows_by(item_bytes: usize) -> usize {
    item_bytes + 1
}

/// The `webhook-id` of a batch: `msg_` and the first 32 hex digits of SHA-256 of its keys, `\n` between.
pub fn webhook_id<K: Borrow<str>>(keys: &[K]) -> String {
    identity::webhook_id(&identity::trace_id(&keys.join("\n")))
}

/// How many items a receiver takes at a time, by the value of its [`HEADER`]; `None` when it is no number
/// that would make a batch.
pub fn items_max(header: &str) -> Option<usize> {
    header.trim().parse().ok().filter(|it| *it > 1)
}

/// What became of one item of a batch: the fields of an answer to it alone, and whose it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BatchResult {
    /// The item's key; empty when it had none that could be one.
    pub idempotency_key: String,
    /// What is said of it.
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
    /// Proof that the receiver has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub receipt: Option<Receipt>,
}

impl BatchResult {
    /// Whether the result is about the item with this id: a milestone's id or an event's.
    pub fn is_about(&self, id: &str) -> bool {
        self.milestone_id.as_deref().or(self.event_id.as_deref()) == Some(id)
    }
}

/// The answer to a batch that was judged.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BatchAnswer {
    /// Always true: a batch that is not judged is answered as a single request would be.
    pub ok: bool,
    /// One for each item, in order.
    pub results: Vec<BatchResult>,
}

impl BatchAnswer {
    /// The answer with these results.
    pub fn new(results: Vec<BatchResult>) -> BatchAnswer {
        BatchAnswer { ok: true, results }
    }

    /// Reads the answer to a batch of items with these keys; `None` when it does not judge just them.
    pub fn parse<K: Borrow<str>>(body: &[u8], keys: &[K]) -> Option<BatchAnswer> {
        let answer: BatchAnswer = serde_json::from_slice(body).ok()?;
        let theirs = answer.results.iter().map(|it| it.idempotency_key.as_str());
        (answer.ok && theirs.eq(keys.iter().map(Borrow::borrow))).then_some(answer)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::{Timestamp, canonical, ingest};

    fn result(key: &str, status: Status) -> BatchResult {
        let receipt = Some(Receipt { seq: 7, head: "ab".repeat(32) });
        BatchResult {
            idempotency_key: key.into(),
            status,
            milestone_id: None,
            event_id: None,
            reason: None,
            receipt,
        }
    }

    #[test]
    fn a_body_is_canonical_and_holds_the_bytes_of_each_item() {
        let item = |id: &str| {
            let event = json!({ "milestoneId": id, "claim": "é\u{1f680}\n" });
            ingest::milestone_body(&identity::milestone_key(id), Timestamp::from_millis(0), &event)
        };
        let items = [item("a"), item("b")];
        let body = body(&items);
        assert_eq!(canonical::to_vec(&serde_json::from_slice(&body).unwrap()), body);
        assert!(items.iter().all(|it| body.windows(it.len()).any(|part| part == it)));
        let expected =
            items.iter().fold(super::body::<&[u8]>([]).len(), |sum, it| sum + body_grows_by(it.len()));
        // The last one needs no comma.
        assert_eq!(body.len(), expected - 1);
        assert_eq!(super::body::<&[u8]>([]), b"{\"items\":[]}");
    }

    /// Made with `printf 'milestone:a\nmilestone:b' | sha256sum`.
    #[test]
    fn the_id_is_what_sha256sum_says_of_the_keys() {
        assert_eq!(webhook_id(&["milestone:a", "milestone:b"]), "msg_34a2ddd47f19bcdeb93b080d715eeab1");
        assert_eq!(webhook_id(&["milestone:a"]), identity::webhook_id(&identity::trace_id("milestone:a")));
    }

    #[test]
    fn only_a_result_for_each_item_in_order_judges() {
        let answer = BatchAnswer::new(vec![result("a", Status::Accepted), result("b", Status::Rejected)]);
        let printed = serde_json::to_vec(&answer).unwrap();
        assert_eq!(BatchAnswer::parse(&printed, &["a", "b"]), Some(answer));
        for keys in [&["b", "a"][..], &["a"], &["a", "b", "c"], &[]] {
            assert_eq!(BatchAnswer::parse(&printed, keys), None, "{keys:?}");
        }
        for text in
            ["", "{}", r#"{"ok":true}"#, r#"{"ok":false,"results":[]}"#, r#"{"ok":true,"status":"accepted"}"#]
        {
            assert_eq!(BatchAnswer::parse::<&str>(text.as_bytes(), &[]), None, "{text}");
        }
    }

    #[test]
    fn the_header_says_how_many() {
        assert_eq!(items_max(" 256 "), Some(256));
        for no in ["", "0", "1", "-3", "many", "1e3"] {
            assert_eq!(items_max(no), None, "{no}");
        }
    }
}
