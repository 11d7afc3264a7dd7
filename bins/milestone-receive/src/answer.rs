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
use milepost::ingest::{Answer, Status};
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

/// The request is refused for good, before anything in it was looked at.
pub fn rejected(status: StatusCode, reason: String) -> Response {
    let answer = Answer {
        ok: false,
        status: Status::Rejected,
        milestone_id: None,
        event_id: None,
        reason: Some(reason),
        receipt: None,
    };
    json(status, &answer)
}
