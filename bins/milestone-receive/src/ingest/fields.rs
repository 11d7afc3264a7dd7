//! The fields of an authentic request: which are there, and whether they say what they should.
//!
//! # Invariants
//! - The same body always gives the same sentence, which names every field at fault.
//! - An event is normalised before it is judged; an absent `source` is orchestrator.
//!
//! Not here: the checks before (`ingest`), the one after, which is identity (`ledger`).

use milepost::{
    Timestamp,
    envelope::EventEnvelope,
    event::{Defaults, MilestoneEvent},
    ingest::PING_PREFIX,
    schema::FieldError,
    text,
};
use serde_json::{Map, Value};

use crate::{
    ingest::Route,
    reason::Kept,
    record::{Milestone, OtherEvent},
};

/// Characters of an idempotency key. The longest of Milepost's own has 210; ours must fit into an audit record.
pub const KEY_CHARS_MAX: usize = 1000;

/// An authentic request whose fields are right.
#[derive(Debug)]
pub enum Fields {
    /// Secret and clock are asked for, nothing else.
    Ping,
    /// A milestone, normalised.
    Milestone(Milestone),
    /// Another event.
    Event(OtherEvent),
}

/// What is wrong with the fields of an authentic request.
#[derive(Debug)]
pub struct Fault {
    /// Which of the fixed reasons.
    pub reason: Kept,
    /// The sentence for the sender.
    pub detail: String,
}

/// What a body asks for.
///
/// # Errors
/// Every fault of it, in one sentence.
pub fn fields(route: Route, body: &Value) -> Result<Fields, Fault> {
    let invalid = |detail: String| Fault { reason: Kept::InvalidRequest, detail };
    let Value::Object(body) = body else {
        return Err(invalid("the body is no JSON object".into()));
    };
    let key = body.get("idempotencyKey").and_then(Value::as_str).unwrap_or_default();
    let event = body.get(route.field());
    // A sender asks for secret and clock with the same body on either route.
    let is_ping = key.starts_with(PING_PREFIX)
        && [Some(&Value::Null), None].contains(&event)
        && body.get("event").or(event).is_some_and(Value::is_null);
    let mut faults = outer_faults(route, body, is_ping);
    let event = match event {
        _ if is_ping => None,
        None => {
            faults.push(FieldError::new(format!("/{}", route.field()), "is missing"));
            None
        }
        Some(event) => Some(event),
    };
    if !faults.is_empty() {
        return Err(invalid(in_words(&faults)));
    }
    let sent_at = body.get("sentAtUtc").and_then(Value::as_str).unwrap_or_default().to_owned();
    let key = key.to_owned();
    match (event, route) {
        (None, _) => Ok(Fields::Ping),
        (Some(event), Route::Milestones) => {
            match MilestoneEvent::from_value(event.clone(), &Defaults::JSON) {
                Ok((event, _)) => Ok(Fields::Milestone(Milestone::new(key, sent_at, event))),
                Err(faults) => Err(Fault { reason: Kept::InvalidEvent, detail: inside("/event", faults) }),
            }
        }
        (Some(envelope), Route::Events) => match envelope_of(&key, envelope) {
            Ok(envelope) => Ok(Fields::Event(OtherEvent { key, sent_at, envelope })),
            Err(faults) => Err(Fault { reason: Kept::InvalidEnvelope, detail: inside("/envelope", faults) }),
        },
    }
}

/// What is wrong around the event.
fn outer_faults(route: Route, body: &Map<String, Value>, is_ping: bool) -> Vec<FieldError> {
    let known = ["idempotencyKey", "sentAtUtc", if is_ping { "event" } else { route.field() }];
    let mut faults = Vec::new();
    for name in body.keys().filter(|it| !known.contains(&it.as_str()) && **it != route.field()) {
        let hint =
            text::nearest(name, known).map(|it| format!("; did you mean \"{it}\"?")).unwrap_or_default();
        faults.push(FieldError::new("", format!("unknown field {}{hint}", text::quoted(name))));
    }
    let mut string = |name: &str, check: &dyn Fn(&str) -> Option<String>| {
        let what = match body.get(name) {
            None => Some("is missing".to_owned()),
            Some(Value::String(it)) => check(it),
            Some(_) => Some("must be a string".to_owned()),
        };
        faults.extend(what.map(|it| FieldError::new(format!("/{name}"), it)));
    };
    string("idempotencyKey", &|it| match it.chars().count() {
        0 => Some("is empty".into()),
        1..=KEY_CHARS_MAX => None,
        length => Some(format!("has {length} characters; at most {KEY_CHARS_MAX} are allowed")),
    });
    string("sentAtUtc", &|it| {
        Timestamp::parse_rfc3339(it)
            .err()
            .map(|_| format!("must be an RFC 3339 time, not {}", text::quoted(it)))
    });
    faults
}

/// The envelope, as an event that left its sender's queue.
fn envelope_of(key: &str, document: &Value) -> Result<EventEnvelope, Vec<FieldError>> {
    let envelope = EventEnvelope::from_value(document.clone())?;
    let mut faults = Vec::new();
    for (name, is_there) in [
        ("resume", envelope.resume.is_some()),
        ("endpoint", envelope.endpoint.is_some()),
        ("redrive_of", envelope.redrive_of.is_some()),
    ] {
        if is_there {
            faults.push(FieldError::new(format!("/{name}"), "belongs to the sender's queue"));
        }
    }
    if envelope.idempotency_key != key {
        faults.push(FieldError::new("/idempotency_key", "is not the request's idempotencyKey"));
    }
    if faults.is_empty() { Ok(envelope) } else { Err(faults) }
}

fn inside(path: &str, faults: Vec<FieldError>) -> String {
    let faults: Vec<_> = faults
        .into_iter()
        .map(|it| {
            // What is said about the whole event, such as how many faults more there are, has no path.
            FieldError::new(format!("{path}{}", it.path), it.message)
        })
        .collect();
    in_words(&faults)
}

fn in_words(faults: &[FieldError]) -> String {
    faults.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

/// The key of a refused request, if it can be one.
pub fn key_of(body: &Value) -> Option<String> {
    let key = body.get("idempotencyKey")?.as_str()?;
    (!key.is_empty() && key.chars().count() <= KEY_CHARS_MAX).then(|| key.to_owned())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn event() -> Value {
        json!({
            "milestoneId": "a", "timestampUtc": "2026-03-01T09:05Z", "scope": " s ", "claim": "c",
            "evidence": [{ "type": "log", "path": "p", "summary": "s", "ref": " " }],
            "riskStatus": "on-track", "nextAction": "n",
        })
    }

    fn body(key: &str, event: &Value) -> Value {
        json!({ "idempotencyKey": key, "sentAtUtc": "2026-03-01T09:05:00.000Z", "event": event })
    }

    fn detail(route: Route, body: &Value) -> String {
        fields(route, body).unwrap_err().detail
    }

    #[test]
    fn an_event_is_normalised_and_an_absent_source_is_orchestrator() {
        let Ok(Fields::Milestone(it)) = fields(Route::Milestones, &body("k", &event())) else { panic!() };
        let line = String::from_utf8(it.stored).unwrap();
        assert!(line.contains(r#""scope":"s""#) && line.contains(r#""source":"orchestrator""#), "{line}");
        assert!(line.contains("2026-03-01T09:05:00.000Z") && !line.contains("ref"), "{line}");
    }

    #[test]
    fn every_fault_is_named_with_its_field() {
        let faulty = json!({ "idempotencyKey": "", "sentAt": "x", "event": event() });
        assert_eq!(
            detail(Route::Milestones, &faulty),
            "unknown field \"sentAt\"; did you mean \"sentAtUtc\"?; /idempotencyKey: is empty; /sentAtUtc: is missing"
        );
        let mut bad = event();
        bad["claim"] = json!("  ");
        bad["evidence"] = json!([]);
        let text = detail(Route::Milestones, &body("k", &bad));
        assert!(text.contains("/event/claim: is empty") && text.contains("/event/evidence: "), "{text}");
        assert_eq!(detail(Route::Milestones, &json!([])), "the body is no JSON object");
        assert_eq!(detail(Route::Milestones, &body("k", &Value::Null)).split(' ').next(), Some("/event:"));
    }

    #[test]
    fn a_ping_is_one_on_either_route_and_only_without_an_event() {
        let ping = body("ping:x", &Value::Null);
        assert!(matches!(fields(Route::Milestones, &ping), Ok(Fields::Ping)));
        assert!(matches!(fields(Route::Events, &ping), Ok(Fields::Ping)));
        assert!(matches!(fields(Route::Milestones, &body("ping:x", &event())), Ok(Fields::Milestone(_))));
        let none = json!({ "idempotencyKey": "ping:x", "sentAtUtc": "2026-03-01T09:05:00.000Z" });
        assert!(fields(Route::Milestones, &none).is_err());
        let both = json!({ "idempotencyKey": "ping:x", "sentAtUtc": "2026-03-01T09:05:00.000Z", "event": null, "x": 1 });
        assert!(fields(Route::Milestones, &both).is_err());
    }

    #[test]
    fn an_envelope_must_have_left_its_queue_and_carry_the_same_key() {
        let now = Timestamp::from_millis(0);
        let envelope =
            EventEnvelope::new("reminder.due", "s", "t", "rem:1".into(), &json!({"a": 1}), now).unwrap();
        let mut envelope = serde_json::to_value(envelope).unwrap();
        let body = |key: &str, envelope: &Value| json!({ "idempotencyKey": key, "sentAtUtc": "2026-03-01T09:05:00.000Z", "envelope": envelope });
        assert!(matches!(fields(Route::Events, &body("rem:1", &envelope)), Ok(Fields::Event(_))));
        assert_eq!(
            detail(Route::Events, &body("rem:2", &envelope)),
            "/envelope/idempotency_key: is not the request's idempotencyKey"
        );
        envelope["redrive_of"] = json!(3);
        assert_eq!(
            detail(Route::Events, &body("rem:1", &envelope)),
            "/envelope/redrive_of: belongs to the sender's queue"
        );
    }
}
