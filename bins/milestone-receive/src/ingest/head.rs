//! The headers of an ingest request: its type, and what it is signed with.
//!
//! Not here: whether the signatures are right (`milepost::signing`).

use axum::http::{HeaderMap, StatusCode, header};
use milepost::signing::{self, SignatureHeaders};

use crate::{ingest::Stop, reason};

/// Whether the body is JSON as it stands.
pub fn check_content_type(headers: &HeaderMap) -> Result<(), Stop> {
    let refuse = |what: &str| {
        Err(Stop::rejected(reason::CONTENT_TYPE, StatusCode::UNSUPPORTED_MEDIA_TYPE, what.to_owned()))
    };
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
pub fn signature_headers(headers: &HeaderMap) -> Result<SignatureHeaders<'_>, Stop> {
    let one = |name: &'static str| {
        let mut values = headers.get_all(name).iter();
        let first = values.next();
        let what = match (first.map(header::HeaderValue::to_str), values.next()) {
            (None, _) => return Ok(None),
            (Some(Ok(it)), None) => return Ok(Some(it)),
            (Some(Ok(_)), Some(_)) => "came more than once",
            (Some(Err(_)), _) => "is not plain text",
        };
        Err(Stop::unauthenticated(reason::MALFORMED_HEADER, format!("{name} {what}")))
    };
    Ok(SignatureHeaders {
        openclaw_signature: one(signing::OPENCLAW_SIGNATURE)?,
        openclaw_timestamp: one(signing::OPENCLAW_TIMESTAMP)?,
        webhook_id: one(signing::WEBHOOK_ID)?,
        webhook_timestamp: one(signing::WEBHOOK_TIMESTAMP)?,
        webhook_signature: one(signing::WEBHOOK_SIGNATURE)?,
    })
}
