//! Requests as Milepost's own sender makes them, read in one walk over their bytes.
//!
//! Such a body is its own canonical form, and its milestones are normalised. Then no document need be made, copied,
//! canonicalised and taken apart again: the line that is stored is put together of pieces of the body.
//!
//! # Invariants
//! - What is read here is what the long way would have read: every byte of the body was expected where it stands, or
//!   is a text in the one form that is canonical. Whatever else it is, the long way judges it, and says what is wrong.
//!
//! Not here: requests with a fault, pings and other events (`fields`).

use milepost::{
    Timestamp,
    event::{EvidenceType, ID_CHARS_MAX, RECORD_BYTES_MAX, RiskStatus, Source},
    ingest::{
        PING_PREFIX,
        walk::{Text, Walk},
    },
    text,
};
use serde::de::DeserializeOwned;

use super::fields::KEY_CHARS_MAX;
use crate::record::{Hashes, Milestone};

/// The milestone of a request, if the body is canonical and nothing is wrong with it.
pub fn milestone(body: &[u8]) -> Option<Milestone> {
    let mut walk = Walk::of(body)?;
    let milestone = request(&mut walk)?;
    walk.rest().is_empty().then_some(milestone)
}

/// The milestones of a batch, if the body is canonical and nothing is wrong with any of them.
pub fn batch(body: &[u8]) -> Option<Vec<Milestone>> {
    let mut walk = Walk::of(body)?;
    let mut milestones = Vec::new();
    walk.pass("{\"items\":[")?;
    loop {
        milestones.push(request(&mut walk)?);
        if walk.pass(",").is_none() {
            break;
        }
    }
    walk.pass("]}")?;
    walk.rest().is_empty().then_some(milestones)
}

/// `{"event":{…},"idempotencyKey":"…","sentAtUtc":"…"}`
fn request(walk: &mut Walk<'_>) -> Option<Milestone> {
    walk.pass("{\"event\":")?;
    let event = walk.rest();
    let claim = normal(walk, "{\"claim\":")?;
    walk.pass(",\"evidence\":[")?;
    let mut evidence = String::with_capacity(256);
    loop {
        self::evidence(walk, &mut evidence)?;
        match walk.pass(",") {
            Some(()) => evidence.push(','),
            None => break,
        }
    }
    let id = normal(walk, "],\"milestoneId\":")?;
    let next_action = normal(walk, ",\"nextAction\":")?;
    let (risk, risk_raw) = word::<RiskStatus>(walk, ",\"riskStatus\":")?;
    let scope = normal(walk, ",\"scope\":")?;
    let (_, source_raw) = word::<Source>(walk, ",\"source\":")?;
    let at = walk.string(",\"timestampUtc\":")?;
    walk.pass("}")?;
    let event = &event[..event.len() - walk.rest().len()];
    let key = walk.string(",\"idempotencyKey\":")?.says;
    let sent_at = walk.string(",\"sentAtUtc\":")?.says;
    walk.pass("}")?;

    let time = Timestamp::parse_utc(&at.says).ok().filter(|it| it.to_string() == at.says)?;
    let is_id = id.says.chars().count() <= ID_CHARS_MAX && !id.says.contains(char::is_control);
    let fits = key.len() <= KEY_CHARS_MAX || key.chars().count() <= KEY_CHARS_MAX;
    let is_key = !key.is_empty() && fits && !key.starts_with(PING_PREFIX);
    if !is_id || !is_key || Timestamp::parse_rfc3339(&sent_at).is_err() {
        return None;
    }
    let mut stored = Vec::with_capacity(event.len());
    for part in [
        "{\"milestoneId\":",
        id.raw,
        ",\"timestampUtc\":",
        at.raw,
        ",\"scope\":",
        scope.raw,
        ",\"claim\":",
        claim.raw,
        ",\"evidence\":[",
        &evidence,
        "],\"riskStatus\":",
        risk_raw,
        ",\"nextAction\":",
        next_action.raw,
        ",\"source\":",
        source_raw,
        "}",
    ] {
        stored.extend_from_slice(part.as_bytes());
    }
    // With its newline it is the record that its sender has.
    (stored.len() < RECORD_BYTES_MAX).then(|| Milestone {
        hashes: Hashes::new(&key, &id.says, &scope.says),
        key: key.into_owned(),
        sent_at: sent_at.into_owned(),
        id: id.says.into_owned(),
        scope: scope.says.into_owned(),
        time,
        risk,
        canonical: event.as_bytes().to_vec(),
        stored,
    })
}

/// One evidence; it is added as a line has it.
fn evidence(walk: &mut Walk<'_>, out: &mut String) -> Option<()> {
    let path = normal(walk, "{\"path\":")?;
    let reference =
        if walk.rest().starts_with(",\"ref\":") { Some(normal(walk, ",\"ref\":")?) } else { None };
    let summary = normal(walk, ",\"summary\":")?;
    let (_, kind) = word::<EvidenceType>(walk, ",\"type\":")?;
    walk.pass("}")?;
    for part in ["{\"type\":", kind, ",\"path\":", path.raw, ",\"summary\":", summary.raw] {
        out.push_str(part);
    }
    if let Some(it) = reference {
        out.push_str(",\"ref\":");
        out.push_str(it.raw);
    }
    out.push('}');
    Some(())
}

/// A text of an event behind `name`: trimmed and not empty.
fn normal<'b>(walk: &mut Walk<'b>, name: &str) -> Option<Text<'b>> {
    let text = walk.string(name)?;
    let is_normal = !text.says.is_empty() && text::trim(&text.says).len() == text.says.len();
    is_normal.then_some(text)
}

/// One of a few words behind `name`.
fn word<'b, T: DeserializeOwned>(walk: &mut Walk<'b>, name: &str) -> Option<(T, &'b str)> {
    let raw = walk.string(name)?.raw;
    serde_json::from_str(raw).ok().map(|it| (it, raw))
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
        assert_eq!(quick, long);
        let both = batch(&batch_body([body(&event("a")), body(&event("b"))])).unwrap();
        assert_eq!(both.iter().map(|it| it.id.as_str()).collect::<Vec<_>>(), ["a", "b"]);
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
