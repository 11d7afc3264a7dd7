//! The lines of the receiver's journals: what was accepted, and what was refused although it was authentic.
//!
//! ```text
//! receive/feed.jsonl      {"seq","receivedAtUtc","idempotencyKey","sentAtUtc","event","prev","hash"}
//! receive/events.jsonl    {"seq","receivedAtUtc","idempotencyKey","sentAtUtc","envelope","prev","hash"}
//! receive/rejected.jsonl  {"seq","receivedAtUtc","reason","detail","idempotencyKey"?,"request"?,"prev","hash"}
//! ```
//!
//! # Invariants
//! - Each journal is a chain of its own: `hash` is over `prev` and the canonical line without `hash`.
//! - A refused request is kept whole up to [`REQUEST_BYTES_KEPT`]; beyond that only what is said about it.
//!
//! Not here: appending (`store`), who may see what (`item`).

use std::borrow::Cow;

use milepost::{
    Timestamp, canonical,
    chain::{self, Chain},
    envelope::EventEnvelope,
    event::{MilestoneEvent, RiskStatus},
    identity,
    ingest::Receipt,
    journal::{self, Described, Digest},
    queue,
    text::quoted,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    item::{ShowEvidence, hide},
    latest,
    reason::Kept,
};

/// Bytes of a refused request that are kept: all that a request may have (`ingest::BODY_BYTES_MAX`). Only numbers
/// can take more room here than there, and a line has its limit.
const REQUEST_BYTES_KEPT: usize = 512 << 10;

/// A milestone that passed every check but identity: what must be known of it, and the texts that its line is put
/// together of. The one thread that stores all of them has nothing left to read or to write out.
#[derive(Clone, Debug, PartialEq)]
pub struct Milestone {
    /// The idempotency key.
    pub key: String,
    /// `sentAtUtc` as it was received.
    pub sent_at: String,
    /// Its `milestoneId`.
    pub id: String,
    /// Its scope.
    pub scope: String,
    /// Its `timestampUtc`.
    pub time: Timestamp,
    /// Its risk status.
    pub risk: RiskStatus,
    /// The event, normalised, in canonical form: equal events have equal bytes.
    pub canonical: Vec<u8>,
    /// The event as a line has it, its fields in the order of the schema.
    pub stored: Vec<u8>,
    /// The hashes by which it is known.
    pub hashes: Hashes,
}

/// What is hashed of a milestone's key, id and scope: made where it is examined, since all of them are stored by one
/// thread.
#[derive(Clone, Debug, PartialEq)]
pub struct Hashes {
    /// Of its names in the index.
    names: Vec<Digest>,
    /// The trace of its key.
    trace_id: String,
    /// [`latest::scope_hash`].
    pub scope: String,
}

impl Hashes {
    /// Those of a milestone with this key, id and scope.
    pub fn new(key: &str, id: &str, scope: &str) -> Hashes {
        let names = milestone_names(key, id).iter().map(|it| journal::digest(it.as_bytes())).collect();
        Hashes { names, trace_id: identity::trace_id(key), scope: latest::scope_hash(scope) }
    }
}

impl Milestone {
    /// The milestone with this event.
    pub fn new(key: String, sent_at: String, event: MilestoneEvent) -> Milestone {
        let mut canonical = Vec::with_capacity(512);
        event.write_canonical(&mut canonical);
        let mut stored = Vec::with_capacity(512);
        event.write_json(&mut stored);
        let MilestoneEvent { milestone_id: id, scope, timestamp_utc: time, risk_status: risk, .. } = event;
        let hashes = Hashes::new(&key, &id, &scope);
        Milestone { key, sent_at, id, scope, time, risk, canonical, stored, hashes }
    }
}

/// Another event that passed every check but identity.
#[derive(Clone, Debug)]
pub struct OtherEvent {
    /// The idempotency key, also the envelope's own.
    pub key: String,
    /// `sentAtUtc` as it was received.
    pub sent_at: String,
    /// The event in its envelope.
    pub envelope: EventEnvelope,
}

/// An authentic request that is refused.
#[derive(Clone, Debug)]
pub struct Refused {
    /// Which of the fixed reasons.
    pub reason: Kept,
    /// The sentence that the sender gets.
    pub detail: String,
    /// Its idempotency key, if it had one that can be one.
    pub key: Option<String>,
    /// The scope of its event, where that is a good one and refused for its identity.
    pub scope: Option<String>,
    /// The body.
    pub request: Value,
}

/// What the journals of accepted events have in common: identity, and a line.
pub trait Entry: Sized {
    /// The names under which the index may find whatever shares its identity, as digests. Others may have one too.
    fn names(&self) -> Cow<'_, [Digest]>;
    /// Whether the two have an identity in common.
    fn is_kin(&self, other: &Self) -> bool;
    /// Whether this is the same event.
    fn is_same(&self, other: &Self) -> bool;
    /// The idempotency key.
    fn key(&self) -> &str;
    /// The scope that it is audited under.
    fn scope(&self) -> Option<Cow<'_, str>>;
    /// The trace of its key, if it was made already.
    fn trace_id(&self) -> Option<&str>;
    /// What to call it in a sentence.
    fn title(&self) -> String;
    /// Puts the line at `seq`, received at this time, into `line`, instead of what is there; returns its hash.
    fn write_line(
        &self,
        seq: u64,
        received_at: &str,
        prev: &str,
        line: &mut Vec<u8>,
    ) -> serde_json::Result<String>;
    /// Reads a line, with its receipt.
    fn from_line(line: &[u8]) -> Option<(Self, Receipt)>;
    /// The request as it is kept when it is refused.
    fn to_request(&self) -> Value;
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct FeedLine<E> {
    seq: u64,
    received_at_utc: Timestamp,
    idempotency_key: String,
    sent_at_utc: String,
    event: E,
    prev: String,
    hash: String,
}

impl Entry for Milestone {
    fn names(&self) -> Cow<'_, [Digest]> {
        Cow::Borrowed(&self.hashes.names)
    }

    fn is_kin(&self, other: &Milestone) -> bool {
        self.key == other.key || self.id == other.id
    }

    fn is_same(&self, other: &Milestone) -> bool {
        self.canonical == other.canonical
    }

    fn key(&self) -> &str {
        &self.key
    }

    fn scope(&self) -> Option<Cow<'_, str>> {
        Some(self.scope.as_str().into())
    }

    fn trace_id(&self) -> Option<&str> {
        Some(&self.hashes.trace_id)
    }

    fn title(&self) -> String {
        let words = format!("milestone {}", quoted(&self.id));
        // Either of the two may be the one that is known.
        if self.key == identity::milestone_key(&self.id) {
            words
        } else {
            format!("{words} or its key {}", quoted(&self.key))
        }
    }

    fn write_line(
        &self,
        seq: u64,
        received_at: &str,
        prev: &str,
        line: &mut Vec<u8>,
    ) -> serde_json::Result<String> {
        let seq = seq.to_string();
        // As `sealed` does it, but both forms are there already. First what is hashed, then the line in its place.
        line.clear();
        line.extend_from_slice(b"{\"event\":");
        line.extend_from_slice(&self.canonical);
        line.extend_from_slice(b",\"idempotencyKey\":");
        canonical::write_string(&self.key, line);
        line.extend_from_slice(b",\"prev\":\"");
        line.extend_from_slice(prev.as_bytes());
        line.extend_from_slice(b"\",\"receivedAtUtc\":\"");
        line.extend_from_slice(received_at.as_bytes());
        line.extend_from_slice(b"\",\"sentAtUtc\":");
        canonical::write_string(&self.sent_at, line);
        line.extend_from_slice(b",\"seq\":");
        line.extend_from_slice(seq.as_bytes());
        line.push(b'}');
        let hash = chain::link(prev, line);

        line.clear();
        line.extend_from_slice(b"{\"seq\":");
        line.extend_from_slice(seq.as_bytes());
        line.extend_from_slice(b",\"receivedAtUtc\":\"");
        line.extend_from_slice(received_at.as_bytes());
        line.extend_from_slice(b"\",\"idempotencyKey\":");
        canonical::write_string(&self.key, line);
        line.extend_from_slice(b",\"sentAtUtc\":");
        canonical::write_string(&self.sent_at, line);
        line.extend_from_slice(b",\"event\":");
        line.extend_from_slice(&self.stored);
        line.extend_from_slice(b",\"prev\":\"");
        line.extend_from_slice(prev.as_bytes());
        line.extend_from_slice(b"\"}");
        end_with_hash(line, &hash);
        Ok(hash)
    }

    fn from_line(line: &[u8]) -> Option<(Milestone, Receipt)> {
        let line: FeedLine<MilestoneEvent> = serde_json::from_slice(line).ok()?;
        let receipt = Receipt { seq: line.seq, head: line.hash };
        Some((Milestone::new(line.idempotency_key, line.sent_at_utc, line.event), receipt))
    }

    fn to_request(&self) -> Value {
        let event: Value = serde_json::from_slice(&self.canonical).unwrap_or_default();
        serde_json::json!({ "idempotencyKey": self.key, "sentAtUtc": self.sent_at, "event": event })
    }
}

/// A line of `feed.jsonl` as the body it came in.
#[derive(Debug)]
pub struct ToPull {
    /// The idempotency key.
    pub key: String,
    /// `sentAtUtc` as it was received.
    pub sent_at: String,
    /// The event, with its evidence as far as it is shown.
    pub event: MilestoneEvent,
    /// When it was received.
    pub received_at: Timestamp,
}

/// Reads a line of `feed.jsonl` for those who pull; `None` when it is damaged.
pub fn to_pull(line: &[u8], show: ShowEvidence) -> Option<ToPull> {
    let line: FeedLine<MilestoneEvent> = serde_json::from_str(std::str::from_utf8(line).ok()?).ok()?;
    let mut event = line.event;
    event.evidence.iter_mut().for_each(|it| hide(it, show));
    let (key, sent_at, received_at) = (line.idempotency_key, line.sent_at_utc, line.received_at_utc);
    Some(ToPull { key, sent_at, event, received_at })
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct EventLine {
    seq: u64,
    received_at_utc: Timestamp,
    idempotency_key: String,
    sent_at_utc: String,
    envelope: EventEnvelope,
    prev: String,
    hash: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct NewEventLine<'a> {
    seq: u64,
    received_at_utc: &'a str,
    idempotency_key: &'a str,
    sent_at_utc: &'a str,
    envelope: &'a EventEnvelope,
    prev: &'a str,
}

impl Entry for OtherEvent {
    fn names(&self) -> Cow<'_, [Digest]> {
        Cow::Owned(vec![journal::digest(key_name(&self.key).as_bytes())])
    }

    fn is_kin(&self, other: &OtherEvent) -> bool {
        self.key == other.key
    }

    fn is_same(&self, other: &OtherEvent) -> bool {
        let canonical = |it: &EventEnvelope| serde_json::to_value(it).map(|it| canonical::to_vec(&it)).ok();
        let ours = canonical(&self.envelope);
        ours.is_some() && ours == canonical(&other.envelope)
    }

    fn key(&self) -> &str {
        &self.key
    }

    fn scope(&self) -> Option<Cow<'_, str>> {
        queue::scope_of(&self.envelope).map(Into::into)
    }

    fn trace_id(&self) -> Option<&str> {
        None
    }

    fn title(&self) -> String {
        format!("event {}", quoted(&self.key))
    }

    fn write_line(
        &self,
        seq: u64,
        received_at: &str,
        prev: &str,
        line: &mut Vec<u8>,
    ) -> serde_json::Result<String> {
        let (sealed, hash) = sealed(
            prev,
            &NewEventLine {
                seq,
                received_at_utc: received_at,
                idempotency_key: &self.key,
                sent_at_utc: &self.sent_at,
                envelope: &self.envelope,
                prev,
            },
        )?;
        *line = sealed;
        Ok(hash)
    }

    fn from_line(line: &[u8]) -> Option<(OtherEvent, Receipt)> {
        let line: EventLine = serde_json::from_slice(line).ok()?;
        let receipt = Receipt { seq: line.seq, head: line.hash };
        let event =
            OtherEvent { key: line.idempotency_key, sent_at: line.sent_at_utc, envelope: line.envelope };
        Some((event, receipt))
    }

    fn to_request(&self) -> Value {
        serde_json::json!({ "idempotencyKey": self.key, "sentAtUtc": self.sent_at, "envelope": self.envelope })
    }
}

/// A line of `rejected.jsonl`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RejectedLine {
    /// Its number, from 1.
    pub seq: u64,
    /// When it was refused.
    pub received_at_utc: Timestamp,
    /// [`Kept::code`].
    pub reason: String,
    /// The sentence that the sender got.
    pub detail: String,
    /// Its idempotency key, if it had one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idempotency_key: Option<String>,
    /// The body, unless it was too long to be kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request: Option<Value>,
    /// `hash` of the line before.
    pub prev: String,
    /// Absent only while the line is made.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub hash: String,
}

impl Refused {
    /// The line at `seq` and its hash.
    pub fn to_line(&self, seq: u64, now: Timestamp, prev: &str) -> serde_json::Result<(Vec<u8>, String)> {
        let fits = serde_json::to_vec(&self.request).is_ok_and(|it| it.len() <= REQUEST_BYTES_KEPT);
        let line = RejectedLine {
            seq,
            received_at_utc: now,
            reason: self.reason.code().to_owned(),
            detail: self.detail.clone(),
            idempotency_key: self.key.clone(),
            request: fits.then(|| self.request.clone()),
            prev: prev.to_owned(),
            hash: String::new(),
        };
        sealed(prev, &line)
    }
}

/// The index's name of an idempotency key.
fn key_name(key: &str) -> String {
    format!("k:{key}")
}

/// The index's name of a milestone id.
pub fn milestone_name(id: &str) -> String {
    format!("m:{id}")
}

/// The index's names of a milestone. A key of the usual form has the name of the id in it: so most milestones
/// have one name, and the index half the entries.
fn milestone_names(key: &str, id: &str) -> Vec<String> {
    let of_id = milestone_name(id);
    match key.strip_prefix("milestone:") {
        Some(in_key) if in_key == id => vec![of_id],
        Some(in_key) => vec![milestone_name(in_key), of_id],
        None => vec![key_name(key), of_id],
    }
}

/// The line of `record`, which has everything but its hash, and that hash.
fn sealed(prev: &str, record: &impl Serialize) -> serde_json::Result<(Vec<u8>, String)> {
    let mut line = serde_json::to_vec(record)?;
    // The canonical form is made of the text itself: whoever checks the chain starts from there too.
    let hash = chain::link(prev, &canonical::to_vec(&serde_json::from_slice(&line)?));
    end_with_hash(&mut line, &hash);
    Ok((line, hash))
}

/// Adds the last field to a line that is whole but for it.
fn end_with_hash(line: &mut Vec<u8>, hash: &str) {
    line.pop();
    line.extend_from_slice(b",\"hash\":\"");
    line.extend_from_slice(hash.as_bytes());
    line.extend_from_slice(b"\"}\n");
}

/// Whether a line's hash is the one of its content.
fn is_whole(line: &[u8], seq: u64, prev: &str) -> bool {
    Chain { seq: seq.wrapping_sub(1), head: prev.to_owned() }.step(line).is_ok()
}

/// How settling recognises a line of `feed.jsonl`.
pub fn describe_milestone(line: &[u8]) -> Option<Described> {
    let it: FeedLine<MilestoneEvent> = serde_json::from_slice(line).ok()?;
    is_whole(line, it.seq, &it.prev)
        .then_some(Described { key: it.idempotency_key, scope: Some(it.event.scope) })
}

/// How settling recognises a line of `events.jsonl`.
pub fn describe_event(line: &[u8]) -> Option<Described> {
    let it: EventLine = serde_json::from_slice(line).ok()?;
    let scope = queue::scope_of(&it.envelope);
    is_whole(line, it.seq, &it.prev).then_some(Described { key: it.idempotency_key, scope })
}

/// How settling recognises a line of `rejected.jsonl`.
pub fn describe_rejected(line: &[u8]) -> Option<Described> {
    let it: RejectedLine = serde_json::from_slice(line).ok()?;
    is_whole(line, it.seq, &it.prev)
        .then_some(Described { key: it.idempotency_key.unwrap_or_default(), scope: None })
}

/// The index's names of a line of `feed.jsonl`.
pub fn names_of_milestone(line: &[u8], name: &mut dyn FnMut(&str)) {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Names {
        idempotency_key: String,
        event: Id,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Id {
        milestone_id: String,
    }
    if let Ok(it) = serde_json::from_slice::<Names>(line) {
        for it in milestone_names(&it.idempotency_key, &it.event.milestone_id) {
            name(&it);
        }
    }
}

/// The index's names of a line of `events.jsonl`.
pub fn names_of_event(line: &[u8], name: &mut dyn FnMut(&str)) {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Names {
        idempotency_key: String,
    }
    if let Ok(it) = serde_json::from_slice::<Names>(line) {
        name(&key_name(&it.idempotency_key));
    }
}

/// The index of `rejected.jsonl` would hold nothing: no request is looked for there.
pub fn no_names(_line: &[u8], _name: &mut dyn FnMut(&str)) {}

#[cfg(test)]
mod tests {
    use milepost::{clock, event::Defaults};
    use serde_json::json;

    use super::*;

    fn milestone(id: &str) -> Milestone {
        let event = json!({
            "milestoneId": id, "timestampUtc": "2026-03-01T09:05Z", "scope": "s", "claim": "c",
            "evidence": [{ "type": "log", "path": "p", "summary": "s" }],
            "riskStatus": "on-track", "nextAction": "n",
        });
        let (event, _) = MilestoneEvent::from_value(event, &Defaults::JSON).unwrap();
        Milestone::new(format!("milestone:{id}"), "2026-03-01T09:05:00.000Z".into(), event)
    }

    #[test]
    fn a_feed_line_has_its_fields_in_the_fixed_order_and_continues_the_chain() {
        let mut chain = Chain::default();
        for id in ["a", "b\u{1f600}"] {
            let mut line = b"another one".to_vec();
            let now = clock::now().to_string();
            let hash = milestone(id).write_line(chain.seq + 1, &now, chain.prev(), &mut line).unwrap();
            let text = String::from_utf8(line.clone()).unwrap();
            let order = ["seq", "receivedAtUtc", "idempotencyKey", "sentAtUtc", "event", "prev", "hash"];
            let places: Vec<_> =
                order.iter().map(|it| text.find(&format!("\"{it}\":")).expect("a field")).collect();
            assert!(places.is_sorted(), "{text}");
            chain.step(line.trim_ascii_end()).unwrap();
            assert_eq!(chain.head, hash);
            assert!(describe_milestone(line.trim_ascii_end()).is_some());
            assert_eq!(Milestone::from_line(&line).unwrap().1.head, hash);
        }
    }

    #[test]
    fn a_line_whose_hash_is_not_its_own_is_no_record() {
        let mut line = Vec::new();
        let now = clock::now().to_string();
        milestone("a").write_line(1, &now, chain::FIRST_PREV, &mut line).unwrap();
        let forged = String::from_utf8(line).unwrap().replace("\"claim\":\"c\"", "\"claim\":\"d\"");
        assert_eq!(describe_milestone(forged.trim_end().as_bytes()), None);
    }

    #[test]
    fn a_long_refused_request_is_named_but_not_kept() {
        let refused = |length: usize| Refused {
            reason: Kept::InvalidEvent,
            detail: "x".into(),
            key: None,
            scope: None,
            request: json!({ "event": "y".repeat(length) }),
        };
        let line = |length| refused(length).to_line(1, clock::now(), chain::FIRST_PREV).unwrap().0;
        assert!(String::from_utf8(line(10)).unwrap().contains("yyyyyyyyyy"));
        assert!(line(REQUEST_BYTES_KEPT).len() < 1000);
        assert!(describe_rejected(line(10).trim_ascii_end()).is_some());
    }
}
