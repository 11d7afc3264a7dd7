//! One record of a queue as something to deliver: whom it concerns, what is sent, how it is recognised.
//!
//! # Invariants
//! - The body follows from the record alone; `resume`, `endpoint` and `redrive_of` are not part of it, so a
//!   redriven record has the bytes of the first one.
//! - A record whose [`Head`] can be read belongs to the same lane whether or not the rest of it is valid.
//!
//! Not here: the form of the bodies (`ingest`), what a record is (`envelope`).

use std::{borrow::Cow, sync::LazyLock};

use memchr::memmem::Finder;
use serde::Deserialize;
use serde_json::{Value, value::RawValue};

use super::wire::Sent;
use crate::{
    Timestamp,
    envelope::{EventEnvelope, MILESTONE_EMITTED, SCHEMA_VERSION},
    ingest::{self, walk::Walk},
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

    /// Whether a line may be one that is meant for a single endpoint; most are not, and need no parsing to know it.
    pub fn may_have_endpoint(line: &[u8]) -> bool {
        // Made once: of short lines making it is most of the search.
        static ENDPOINT: LazyLock<Finder> = LazyLock::new(|| Finder::new("\"endpoint\":"));
        ENDPOINT.find(line).is_some()
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
    /// The scope within which order is kept.
    pub scope: Option<String>,
    /// Which door it goes to.
    pub route: Route,
    /// Its idempotency key, and what the receiver calls it.
    pub name: Sent,
    /// The bytes that are sent in every attempt; or one sentence that says why it can never be delivered.
    pub body: Result<Vec<u8>, String>,
}

impl Item {
    /// Makes an item of a line; `None` when it is no record at all, not even one that cannot be delivered.
    pub fn read(offset: u64, end: u64, line: &[u8]) -> Option<Item> {
        let why = match Item::valid(offset, end, line) {
            Ok(item) => return Some(item),
            Err(why) => why,
        };
        let Head { key, scope, .. } = Head::read(line)?;
        let name = Sent { key: key.into_owned(), id: String::new() };
        let scope = scope.map(Cow::into_owned);
        Some(Item { offset, end, scope, route: Route::Milestones, name, body: Err(why) })
    }

    fn valid(offset: u64, end: u64, line: &[u8]) -> Result<Item, String> {
        if let Some(item) = quick(offset, end, line) {
            return Ok(item);
        }
        let envelope = EventEnvelope::from_line(line).map_err(|faults| match faults.first() {
            Some(it) => it.to_string(),
            None => "is no valid record".to_owned(),
        })?;
        let payload: Value =
            serde_json::from_str(envelope.payload.get()).map_err(|it| format!("payload: {it}"))?;
        let scope = payload["scope"].as_str().filter(|it| !it.is_empty()).map(str::to_owned);
        let key = envelope.idempotency_key.clone();
        let (route, id, body) = if envelope.event_type == MILESTONE_EMITTED {
            let id = payload["milestoneId"].as_str().filter(|it| !it.is_empty());
            let id = id.ok_or("payload: has no milestoneId")?.to_owned();
            (Route::Milestones, id, ingest::milestone_body(&key, envelope.timestamp, &payload))
        } else {
            let plain = EventEnvelope { resume: None, endpoint: None, redrive_of: None, ..envelope };
            let document = serde_json::to_value(&plain).map_err(|it| it.to_string())?;
            let body = ingest::event_body(&key, plain.timestamp, &document);
            (Route::Events, plain.event_id, body)
        };
        Ok(Item { offset, end, scope, route, name: Sent { key, id }, body: Ok(body) })
    }

    /// The idempotency key.
    pub fn key(&self) -> &str {
        &self.name.key
    }
}

/// A milestone's record in the form in which we write it ourselves: nearly every one. Its body is put together of
/// pieces of the record; whatever is different in any way is read the long way.
fn quick(offset: u64, end: u64, line: &[u8]) -> Option<Item> {
    let mut walk = Walk::of(line)?;
    walk.string("{\"event_id\":")?;
    (walk.string(",\"event_type\":")?.says == MILESTONE_EMITTED).then_some(())?;
    (walk.string(",\"schema_version\":")?.says == SCHEMA_VERSION).then_some(())?;
    walk.string(",\"source\":")?;
    walk.string(",\"target\":")?;
    let sent_at = walk.string(",\"timestamp\":")?;
    walk.string(",\"trace_id\":")?;
    let key = walk.string(",\"idempotency_key\":")?;
    let id = walk.string(",\"payload\":{\"milestoneId\":")?;
    let at = walk.string(",\"timestampUtc\":")?;
    let scope = walk.string(",\"scope\":")?;
    let claim = walk.string(",\"claim\":")?;
    // A record has at least so much that a body has not: ids, type, version, target, resume. Thousands wait in memory.
    let mut body = Vec::with_capacity(line.len().saturating_sub(200));
    let mut add = |parts: &[&str]| parts.iter().for_each(|it| body.extend_from_slice(it.as_bytes()));
    add(&["{\"event\":{\"claim\":", claim.raw]);
    let (mut before, mut name) = (",\"evidence\":[{\"path\":", ",\"evidence\":[{\"type\":");
    while walk.rest().starts_with(name) {
        let kind = walk.string(name)?;
        let path = walk.string(",\"path\":")?;
        let summary = walk.string(",\"summary\":")?;
        add(&[before, path.raw]);
        if walk.rest().starts_with(",\"ref\":") {
            add(&[",\"ref\":", walk.string(",\"ref\":")?.raw]);
        }
        add(&[",\"summary\":", summary.raw, ",\"type\":", kind.raw]);
        (before, name) = ("},{\"path\":", "},{\"type\":");
    }
    let risk = walk.string("}],\"riskStatus\":")?;
    let next_action = walk.string(",\"nextAction\":")?;
    let source = walk.string(",\"source\":")?;
    walk.number("},\"resume\":{\"offset\":")?;
    walk.string(",\"fingerprint\":")?;
    walk.pass("}}")?;
    add(&["}],\"milestoneId\":", id.raw, ",\"nextAction\":", next_action.raw, ",\"riskStatus\":", risk.raw]);
    add(&[",\"scope\":", scope.raw, ",\"source\":", source.raw, ",\"timestampUtc\":", at.raw]);
    add(&["},\"idempotencyKey\":", key.raw, ",\"sentAtUtc\":", sent_at.raw, "}"]);
    // Of so many characters the form is the one in which a time is always written.
    let is_time = sent_at.says.len() == 24 && Timestamp::parse_utc(&sent_at.says).is_ok();
    if !is_time || id.says.is_empty() || !walk.rest().is_empty() {
        return None;
    }
    let scope = Some(scope.says.into_owned()).filter(|it| !it.is_empty());
    let name = Sent { key: key.says.into_owned(), id: id.says.into_owned() };
    Some(Item { offset, end, scope, route: Route::Milestones, name, body: Ok(body) })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::{Timestamp, event::MilestoneEvent, journal::Position};

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
            (item.route, item.name.id.as_str(), item.scope.as_deref()),
            (Route::Milestones, "m1", Some("s"))
        );
        assert_eq!(
            std::str::from_utf8(item.body.as_ref().unwrap()).unwrap(),
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
        let id = serde_json::from_slice::<Value>(&line).unwrap()["event_id"].as_str().unwrap().to_owned();
        assert_eq!((first.route, first.name.id.as_str()), (Route::Events, id.as_str()));
        assert_eq!(first.body, again.body);
    }

    /// Each of these is read the long way when it is only a little different, and then has the same bytes.
    #[test]
    fn the_quick_way_gives_what_the_long_way_gives() {
        let payload = |reference: &str| {
            format!(
                r#"{{"milestoneId":"m \u0001\"1","timestampUtc":"2026-11-20T10:00:00.000Z","scope":"a \ud83d\ude80\n","claim":"\u007f / \u2028","evidence":[{{"type":"log","path":"p\\q","summary":"s"}},{{"type":"doc","path":"p","summary":"é"{reference}}}],"riskStatus":"on-track","nextAction":"\b\f","source":"agent"}}"#
            )
        };
        let resume = Position { offset: 9, fingerprint: "ab".into() };
        for payload in [payload(""), payload(r#","ref":"r""#)] {
            let event: MilestoneEvent = serde_json::from_str(&payload).unwrap();
            let now = Timestamp::parse_utc("2026-11-20T10:00:00Z").unwrap();
            let record = EventEnvelope::for_milestone(&event, now).unwrap();
            let text = |endpoint: Option<String>| {
                let mut line = Vec::new();
                let it = EventEnvelope { resume: Some(resume.clone()), endpoint, ..record.clone() };
                it.write_line(&mut line).unwrap();
                line.pop();
                line
            };
            let found = quick(3, 4, &text(None)).expect("as we write it");
            assert!(quick(3, 4, &text(Some(String::new()))).is_none(), "not as we write it");
            let long = Item::read(3, 4, &text(Some(String::new()))).unwrap();
            assert_eq!(found.body, long.body);
            assert_eq!((&found.name, &found.scope), (&long.name, &long.scope));
            let line = String::from_utf8(text(None)).unwrap();
            for (from, to) in [
                ("1.0.0", "1.0.1"),
                (":00.000Z\",\"trace_id", ":00Z\",\"trace_id"),
                ("\"scope\":", "\"scope\": "),
                ("\"claim\":\"", "\"claim\":\"\\u0041"),
                ("\"source\":\"agent\"}", "\"source\":\"agent\",\"more\":1}"),
                ("\"offset\":9", "\"offset\":-9"),
                ("}}", "}} "),
            ] {
                let odd = line.replacen(from, to, 1);
                assert_ne!(odd, line, "{from}");
                assert!(quick(3, 4, odd.as_bytes()).is_none(), "{odd}");
            }
        }
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
    fn a_milestone_without_an_id_can_never_be_delivered_and_keeps_its_place_in_its_scope() {
        let item = Item::read(0, 1, &line(MILESTONE_EMITTED, &json!({"scope":"s"}))).unwrap();
        assert_eq!(
            (item.scope.as_deref(), item.body),
            (Some("s"), Err("payload: has no milestoneId".into()))
        );
        assert!(Item::read(0, 1, b"{}").is_none());
    }
}
