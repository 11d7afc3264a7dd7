//! One ingest request: the contract's checks, in the contract's order.
//!
//! ```text
//! size 413 · content type 415 · headers and time window 401 · parse 400 · signature 401
//! · fields and event 400 · identity 200 or 409 (the store decides)
//! ```
//!
//! # Invariants
//! - Nothing unauthenticated is stored or shown: up to the signature a failure is only counted, by reason.
//! - What is refused after the signature is kept before it is answered.
//! - Whatever may pass is 503, never 4xx, and no later than [`PATIENCE`] after the request has come.
//!
//! Not here: what is signed and how (`milepost::signing`), reading within limits (`body`).

use std::{sync::Arc, time::Duration};

use axum::{
    body::Body,
    extract::State,
    http::{HeaderMap, Request, StatusCode, header},
    response::Response,
};
use milepost::{
    Timestamp, clock,
    envelope::EventEnvelope,
    event::{Defaults, MilestoneEvent},
    ingest::{PING_PREFIX, Status},
    json,
    schema::FieldError,
    signing::{self, SignatureHeaders, Which},
    text,
};
use serde_json::{Map, Value};
use tokio::time::{Instant, timeout_at};

use crate::{
    answer::{self, Id},
    app::App,
    body,
    reason::{self, Kept},
    record::{Milestone, OtherEvent, Refused},
    store::{self, Offer},
};

/// Bytes of a body; `record::REQUEST_BYTES_KEPT` is as large.
const BODY_BYTES_MAX: usize = 512 << 10;
/// How long a request waits for what may pass.
pub const PATIENCE: Duration = Duration::from_secs(8);
/// Characters of an idempotency key. The longest of Milepost's own has 210; ours must fit into an audit record.
const KEY_CHARS_MAX: usize = 1000;

/// Which of the two routes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Route {
    Milestones,
    Events,
}

impl Route {
    /// The label of its counters.
    fn label(self) -> &'static str {
        match self {
            Route::Milestones => "milestones",
            Route::Events => "events",
        }
    }

    /// The field that holds the event.
    fn field(self) -> &'static str {
        match self {
            Route::Milestones => "event",
            Route::Events => "envelope",
        }
    }
}

/// A request that goes no further, and how it is counted.
struct Stop {
    outcome: &'static str,
    reason: &'static str,
    response: Box<Response>,
}

/// `POST /internal/milestones/ingest`
pub async fn milestones(State(app): State<Arc<App>>, request: Request<Body>) -> Response {
    ingest(&app, Route::Milestones, request).await
}

/// `POST /internal/events/ingest`
pub async fn events(State(app): State<Arc<App>>, request: Request<Body>) -> Response {
    ingest(&app, Route::Events, request).await
}

async fn ingest(app: &App, route: Route, request: Request<Body>) -> Response {
    let stop = match judge(app, route, request).await {
        Ok(it) | Err(it) => it,
    };
    app.metrics.request(route.label(), stop.outcome, stop.reason);
    *stop.response
}

async fn judge(app: &App, route: Route, request: Request<Body>) -> Result<Stop, Stop> {
    // The time of the attempt is compared with that of its arrival, however slowly the body comes.
    let arrived = clock::now();
    let (head, body) = request.into_parts();
    let body =
        body::read(&head.headers, body, BODY_BYTES_MAX, &app.large_bodies, PATIENCE).await.map_err(unread)?;
    let deadline = Instant::now() + PATIENCE;
    check_content_type(&head.headers)?;

    let headers = signature_headers(&head.headers)?;
    let verifier = app.verifier();
    let checked = verifier.check_headers(&headers, arrived).map_err(|it| unauthenticated(&it))?;
    let parsed = json::parse(&body.bytes).map_err(|it| {
        let reason = format!("the body is not taken as JSON: {it}");
        stop(reason::MALFORMED_JSON, StatusCode::BAD_REQUEST, reason)
    })?;
    let which = verifier.verify(&checked, &body.bytes, &parsed).map_err(|it| unauthenticated(&it))?;
    if which == Which::Previous {
        app.metrics.previous_secret();
    }

    // From here on the sender is known.
    let (offer, id) = match fields(route, &parsed) {
        Ok(Fields::Ping) => return Ok(taken("pong", answer::pong())),
        Ok(Fields::Milestone(it)) => {
            let id = Id::Milestone(it.event.milestone_id.clone());
            (Offer::Milestone(Box::new(it)), id)
        }
        Ok(Fields::Event(it)) => {
            let id = Id::Event(it.envelope.event_id.clone());
            (Offer::Event(Box::new(it)), id)
        }
        Err(Fault { reason, detail }) => {
            let key = key_of(&parsed);
            let refused = Refused { reason, detail, key, request: parsed };
            (Offer::Refused(Box::new(refused)), Id::Unknown)
        }
    };
    let refusal = match &offer {
        Offer::Refused(it) => Some((it.reason, it.detail.clone())),
        _ => None,
    };
    let answer = timeout_at(deadline, app.store.offer(offer, body.bytes.len())).await;
    Ok(match (answer, refusal) {
        (Ok(store::Answer::Accepted(receipt)), _) => {
            taken("accepted", answer::taken(Status::Accepted, id, receipt))
        }
        (Ok(store::Answer::Duplicate(receipt)), _) => {
            taken("duplicate", answer::taken(Status::Duplicate, id, receipt))
        }
        (Ok(store::Answer::Conflict(reason)), _) => Stop {
            outcome: "conflict",
            reason: Kept::Conflict.code(),
            response: Box::new(answer::rejected(StatusCode::CONFLICT, reason, id)),
        },
        (Ok(store::Answer::Kept), Some((reason, detail))) => {
            stop(reason.code(), StatusCode::BAD_REQUEST, detail)
        }
        (Ok(_), _) => unavailable(reason::STORE, "the store cannot take anything at the moment"),
        (Err(_), _) => unavailable(reason::OVERLOADED, "the store is busy"),
    })
}

fn taken(outcome: &'static str, response: Response) -> Stop {
    Stop { outcome, reason: "", response: Box::new(response) }
}

/// A refusal in the contract's form.
fn stop(reason: &'static str, status: StatusCode, text: String) -> Stop {
    Stop { outcome: "rejected", reason, response: Box::new(answer::rejected(status, text, Id::Unknown)) }
}

fn unavailable(reason: &'static str, text: &str) -> Stop {
    Stop { outcome: "unavailable", reason, response: Box::new(answer::unavailable(text)) }
}

fn unauthenticated(it: &signing::Rejection) -> Stop {
    Stop {
        outcome: "unauthenticated",
        reason: it.reason.code(),
        response: Box::new(answer::rejected(StatusCode::UNAUTHORIZED, it.to_string(), Id::Unknown)),
    }
}

fn unread(failure: body::Failure) -> Stop {
    match failure {
        body::Failure::TooLarge(rest) => {
            if let Some(rest) = rest {
                body::drain(rest);
            }
            let text = format!("the body is larger than {BODY_BYTES_MAX} bytes (512 KiB)");
            let mut stop = stop(reason::TOO_LARGE, StatusCode::PAYLOAD_TOO_LARGE, text);
            // What is left of the body stands where the next request would begin.
            let close = header::HeaderValue::from_static("close");
            stop.response.headers_mut().insert(header::CONNECTION, close);
            stop
        }
        body::Failure::Slow => unavailable(reason::SLOW_BODY, "the body did not come in time"),
        body::Failure::BrokenOff => unavailable(reason::SLOW_BODY, "the body was broken off"),
        body::Failure::Crowded => unavailable(reason::OVERLOADED, "too many large requests at the same time"),
    }
}

fn check_content_type(headers: &HeaderMap) -> Result<(), Stop> {
    let refuse =
        |what: &str| Err(stop(reason::CONTENT_TYPE, StatusCode::UNSUPPORTED_MEDIA_TYPE, what.to_owned()));
    let mut types = headers.get_all(header::CONTENT_TYPE).iter();
    let (Some(first), None) = (types.next(), types.next()) else {
        return refuse("content-type must be given once, as application/json");
    };
    let essence = first.to_str().unwrap_or_default().split(';').next().unwrap_or_default();
    if !essence.trim().eq_ignore_ascii_case("application/json") {
        return refuse("content-type is not application/json");
    }
    let encoded = headers.get_all(header::CONTENT_ENCODING).iter();
    if encoded.into_iter().any(|it| !it.as_bytes().eq_ignore_ascii_case(b"identity")) {
        return refuse("content-encoding is not supported: the signed bytes must come as they are");
    }
    Ok(())
}

/// The signature headers, each at most once: of two, another party might take the other one.
fn signature_headers(headers: &HeaderMap) -> Result<SignatureHeaders<'_>, Stop> {
    let one = |name: &'static str| {
        let mut values = headers.get_all(name).iter();
        let first = values.next();
        let what = match (first.map(header::HeaderValue::to_str), values.next()) {
            (None, _) => return Ok(None),
            (Some(Ok(it)), None) => return Ok(Some(it)),
            (Some(Ok(_)), Some(_)) => "came more than once",
            (Some(Err(_)), _) => "is not plain text",
        };
        Err(Stop {
            outcome: "unauthenticated",
            reason: reason::MALFORMED_HEADER,
            response: Box::new(answer::rejected(
                StatusCode::UNAUTHORIZED,
                format!("{name} {what}"),
                Id::Unknown,
            )),
        })
    };
    Ok(SignatureHeaders {
        openclaw_signature: one(signing::OPENCLAW_SIGNATURE)?,
        openclaw_timestamp: one(signing::OPENCLAW_TIMESTAMP)?,
        webhook_id: one(signing::WEBHOOK_ID)?,
        webhook_timestamp: one(signing::WEBHOOK_TIMESTAMP)?,
        webhook_signature: one(signing::WEBHOOK_SIGNATURE)?,
    })
}

/// An authentic request whose fields are right.
#[derive(Debug)]
enum Fields {
    Ping,
    Milestone(Milestone),
    Event(OtherEvent),
}

/// What is wrong with the fields of an authentic request.
#[derive(Debug)]
struct Fault {
    reason: Kept,
    detail: String,
}

fn fields(route: Route, body: &Value) -> Result<Fields, Fault> {
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
                Ok((event, _)) => Ok(Fields::Milestone(Milestone { key, sent_at, event })),
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
fn key_of(body: &Value) -> Option<String> {
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
        let line = serde_json::to_string(&it.event).unwrap();
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
