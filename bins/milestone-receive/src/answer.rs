//! Answers as JSON: the contract's own to whoever posts, and plain ones to whoever reads.
//!
//! # Invariants
//! - An answer in the contract's form (`status`) is a judgement of the item; every other refusal has none,
//!   so that no sender takes it for one.
//! - What may pass is 503 with `Retry-After`, never 4xx: the existing emitter gives up for ever on any 4xx.

use axum::{
    body::Body,
    http::{HeaderValue, StatusCode, header},
    response::Response,
};
use milepost::ingest::{Answer, Receipt, Status};
use serde::Serialize;
use serde_json::json;

/// Seconds after which to try again.
const RETRY_AFTER_S: &str = "2";

/// `body` as JSON.
pub fn json(status: StatusCode, body: &impl Serialize) -> Response {
    // Our own types always have a JSON form.
    with_type(status, "application/json", serde_json::to_vec(body).unwrap_or_default())
}

/// A body of a type, not to be kept by caches.
pub fn with_type(status: StatusCode, content_type: &'static str, body: impl Into<Body>) -> Response {
    let mut response = Response::new(body.into());
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// Something that is no judgement of an item.
pub fn refused(status: StatusCode, reason: &str) -> Response {
    json(status, &json!({ "ok": false, "reason": reason }))
}

/// Not now; the same request may be taken a little later.
pub fn unavailable(reason: &str) -> Response {
    let mut response = json(
        StatusCode::SERVICE_UNAVAILABLE,
        &json!({ "ok": false, "status": "unavailable", "reason": reason }),
    );
    response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static(RETRY_AFTER_S));
    response
}

/// The item is refused for good; `milestone` and `event` name it where it is known.
pub fn rejected(status: StatusCode, reason: String, id: Id) -> Response {
    let (milestone_id, event_id) = id.split();
    let answer = Answer {
        ok: false,
        status: Status::Rejected,
        milestone_id,
        event_id,
        reason: Some(reason),
        receipt: None,
    };
    json(status, &answer)
}

/// The item is taken, now or before.
pub fn taken(status: Status, id: Id, receipt: Receipt) -> Response {
    let (milestone_id, event_id) = id.split();
    let receipt = Some(receipt);
    json(StatusCode::OK, &Answer { ok: true, status, milestone_id, event_id, reason: None, receipt })
}

/// Secret and clock fit.
pub fn pong() -> Response {
    let answer = Answer {
        ok: true,
        status: Status::Pong,
        milestone_id: None,
        event_id: None,
        reason: None,
        receipt: None,
    };
    json(StatusCode::OK, &answer)
}

/// What an answer is about.
#[derive(Clone, Debug)]
pub enum Id {
    /// A milestone, by its id.
    Milestone(String),
    /// Another event, by its id.
    Event(String),
    /// Nothing that could be named.
    Unknown,
}

impl Id {
    fn split(self) -> (Option<String>, Option<String>) {
        match self {
            Id::Milestone(it) => (Some(it), None),
            Id::Event(it) => (None, Some(it)),
            Id::Unknown => (None, None),
        }
    }
}
