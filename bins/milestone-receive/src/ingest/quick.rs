//! Requests as Milepost's own sender makes them, read in one pass.
//!
//! Such a body is its own canonical form, and its milestones are normalised. Then the document need not be
//! made, copied, canonicalised and taken apart again, which is most of what a request costs.
//!
//! # Invariants
//! - What is read here is what the long way would have read: the body is compared with the canonical form of
//!   what was understood, byte for byte. Whatever else it is, the long way judges it, and says what is wrong.
//!
//! Not here: requests with a fault, pings and other events (`fields`).

use milepost::{Timestamp, canonical, event::MilestoneEvent, ingest::PING_PREFIX};
use serde::Deserialize;

use super::fields::KEY_CHARS_MAX;
use crate::record::Milestone;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Request {
    event: MilestoneEvent,
    idempotency_key: String,
    sent_at_utc: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Batch {
    items: Vec<Request>,
}

/// The milestone of a request, if the body is canonical and nothing is wrong with it.
pub fn milestone(body: &[u8]) -> Option<Milestone> {
    let request: Request = serde_json::from_slice(body).ok()?;
    let mut canonical = Vec::with_capacity(body.len());
    request.write_canonical(&mut canonical);
    if canonical == body { request.into_milestone() } else { None }
}

/// The milestones of a batch, if the body is canonical and nothing is wrong with any of them.
pub fn batch(body: &[u8]) -> Option<Vec<Milestone>> {
    let Batch { items } = serde_json::from_slice(body).ok()?;
    let mut canonical = Vec::with_capacity(body.len());
    canonical.extend_from_slice(b"{\"items\":[");
    for (at, item) in items.iter().enumerate() {
        if at > 0 {
            canonical.push(b',');
        }
        item.write_canonical(&mut canonical);
    }
    canonical.extend_from_slice(b"]}");
    if canonical == body { items.into_iter().map(Request::into_milestone).collect() } else { None }
}

impl Request {
    fn write_canonical(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"{\"event\":");
        self.event.write_canonical(out);
        out.extend_from_slice(b",\"idempotencyKey\":");
        canonical::write_string(&self.idempotency_key, out);
        out.extend_from_slice(b",\"sentAtUtc\":");
        canonical::write_string(&self.sent_at_utc, out);
        out.push(b'}');
    }

    fn into_milestone(self) -> Option<Milestone> {
        let Request { event, idempotency_key: key, sent_at_utc: sent_at } = self;
        // Of a character there is at least one byte.
        let fits = key.len() <= KEY_CHARS_MAX || key.chars().count() <= KEY_CHARS_MAX;
        let is_right = !key.is_empty()
            && fits
            && !key.starts_with(PING_PREFIX)
            && Timestamp::parse_rfc3339(&sent_at).is_ok()
            && event.is_valid();
        is_right.then_some(Milestone { key, sent_at, event })
    }
}

#[cfg(test)]
mod tests {
    use milepost::ingest::{self, batch::body as batch_body};
    use serde_json::{Value, json};

    use super::*;
    use crate::ingest::{
        Route,
        fields::{Fields, fields},
    };

    fn event(id: &str) -> Value {
        json!({
            "milestoneId": id, "timestampUtc": "2026-03-01T09:05:00.000Z", "scope": "s", "claim": "c\u{1f680}\nd",
            "evidence": [{ "type": "log", "path": "p", "summary": "s", "ref": "r" }],
            "riskStatus": "on-track", "nextAction": "n", "source": "agent",
        })
    }

    fn body(event: &Value) -> Vec<u8> {
        ingest::milestone_body("milestone:a", Timestamp::from_millis(0), event)
    }

    #[test]
    fn what_is_read_in_one_pass_is_what_the_long_way_reads() {
        let bytes = body(&event("a"));
        let quick = milestone(&bytes).unwrap();
        let parsed = serde_json::from_slice(&bytes).unwrap();
        let Ok(Fields::Milestone(long)) = fields(Route::Milestones, &parsed) else { panic!("no milestone") };
        assert_eq!((quick.key, quick.sent_at, quick.event), (long.key, long.sent_at, long.event));
        let both = batch(&batch_body([body(&event("a")), body(&event("b"))])).unwrap();
        assert_eq!(both.iter().map(|it| it.event.milestone_id.as_str()).collect::<Vec<_>>(), ["a", "b"]);
    }

    #[test]
    fn whatever_is_not_canonical_normal_and_whole_goes_the_long_way() {
        let with = |name: &str, value: Value| {
            let mut it = event("a");
            it[name] = value;
            body(&it)
        };
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        let fine = text(body(&event("a")));
        for other in [
            text(with("claim", json!(" c"))),
            text(with("timestampUtc", json!("2026-03-01T09:05Z"))),
            text(with("riskStatus", json!("fine"))),
            text(with("evidence", json!([]))),
            text(with("extra", json!(1))),
            text(with("evidence", json!([{ "type": "log", "path": "p", "summary": "s", "ref": null }]))),
            fine.replace("{\"event\"", "{ \"event\""),
            fine.replace("milestone:a", "ping:a"),
            fine.replace("milestone:a", ""),
            fine.replace("1970-01-01T00:00:00.000Z", "yesterday"),
            fine.replace("\"scope\":\"s\"", "\"scope\":\"\\u0073\""),
            fine.replace("\"scope\":\"s\"", "\"scope\":\"s\",\"scope\":\"s\""),
            fine.replace('\u{1f680}', "\\ud83d\\ude80"),
            format!("{fine} "),
        ] {
            assert_ne!(other, fine);
            assert!(milestone(other.as_bytes()).is_none(), "{other}");
            assert!(batch(&batch_body([fine.as_bytes(), other.as_bytes()])).is_none(), "{other}");
        }
    }
}
