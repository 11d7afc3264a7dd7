//! What the check needs to know of a line: whose it is, and hashes of what it says.
//!
//! # Invariants
//! - Keys are the first 64 bits of SHA-256, as in `trace_id`.
//! - What is not looked at here is covered by the fingerprint of the whole line, which the audit holds.
//!
//! Not here: what is remembered of it (`book`).

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::{Value, value::RawValue};
use sha2::{Digest, Sha256};

use crate::{canonical, identity};

/// What a line says.
#[derive(Debug, Default)]
pub(super) struct Parsed {
    pub key: u64,
    /// None when it is the line itself.
    pub content: Option<u64>,
    pub extra: (u64, u64),
    pub addressed: Option<(String, Option<u64>)>,
}

/// The hash of an idempotency key.
pub(super) fn hash_of_key(key: &str) -> u64 {
    hash_of(key.as_bytes())
}

/// The first 64 bits of SHA-256; as 16 hex digits, a fingerprint.
pub(super) fn hash_of(bytes: &[u8]) -> u64 {
    Sha256::digest(bytes).iter().take(8).fold(0, |hash, it| hash << 8 | u64::from(*it))
}

/// The first 16 digits of a hash in hex.
pub(super) fn hash_of_hex(digits: &str) -> Option<u64> {
    u64::from_str_radix(digits.get(..16)?, 16).ok()
}

fn in_words(cause: serde_json::Error) -> String {
    format!("is no record of this journal: {cause}")
}

#[derive(Deserialize)]
struct Source<'l> {
    #[serde(borrow, rename = "milestoneId")]
    milestone_id: Option<Cow<'l, str>>,
    #[serde(borrow)]
    idempotency_key: Option<Cow<'l, str>>,
    #[serde(borrow)]
    payload: Option<&'l RawValue>,
}

pub(super) fn source(text: &[u8]) -> Result<Parsed, String> {
    let it: Source = serde_json::from_slice(text).map_err(in_words)?;
    match (it.milestone_id, it.idempotency_key, it.payload) {
        (Some(id), None, None) => {
            let key = hash_of_key(&identity::milestone_key(&id));
            Ok(Parsed { key, ..Parsed::default() })
        }
        (None, Some(key), Some(payload)) => {
            let content = Some(content_of(&key, payload));
            Ok(Parsed { key: hash_of_key(&key), content, ..Parsed::default() })
        }
        // A journal of another kind.
        _ => Ok(Parsed::default()),
    }
}

#[derive(Deserialize)]
struct Envelope<'l> {
    #[serde(borrow)]
    event_id: Cow<'l, str>,
    #[serde(borrow)]
    event_type: Cow<'l, str>,
    #[serde(borrow)]
    trace_id: Cow<'l, str>,
    #[serde(borrow)]
    idempotency_key: Cow<'l, str>,
    #[serde(borrow)]
    payload: &'l RawValue,
    #[serde(borrow)]
    resume: Option<Resume<'l>>,
    #[serde(borrow)]
    endpoint: Option<Cow<'l, str>>,
    redrive_of: Option<u64>,
    queue_offset: Option<u64>,
}

#[derive(Deserialize)]
struct Resume<'l> {
    offset: u64,
    #[serde(borrow)]
    fingerprint: Cow<'l, str>,
}

pub(super) fn envelope(text: &[u8]) -> Result<Parsed, String> {
    let it: Envelope = serde_json::from_slice(text).map_err(in_words)?;
    let key = hash_of_key(&it.idempotency_key);
    if hash_of_hex(&it.trace_id) != Some(key) || it.trace_id != identity::trace_id(&it.idempotency_key) {
        return Err("has a trace_id that is not its key's".to_owned());
    }
    if it.event_id != identity::event_id(&it.event_type, &it.idempotency_key) {
        return Err("has an event_id that is not its key's".to_owned());
    }
    let resume = it.resume.map_or((0, 0), |it| (it.offset, hash_of_hex(&it.fingerprint).unwrap_or(0)));
    Ok(Parsed {
        key,
        content: Some(content_of(&it.idempotency_key, it.payload)),
        extra: it.queue_offset.map_or(resume, |it| (it, 0)),
        addressed: it.endpoint.map(|endpoint| (endpoint.into_owned(), it.redrive_of)),
    })
}

/// The content of an event. A milestone is written the same way everywhere; what other events hold is sent in
/// canonical form, and so is compared in it.
fn content_of(key: &str, payload: &RawValue) -> u64 {
    if key.starts_with("milestone:") {
        return hash_of(payload.get().as_bytes());
    }
    let value: Value = serde_json::from_str(payload.get()).unwrap_or_default();
    hash_of(&canonical::to_vec(&value))
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct FeedLine<'l> {
    seq: u64,
    #[serde(borrow)]
    hash: Cow<'l, str>,
    #[serde(borrow)]
    idempotency_key: Option<Cow<'l, str>>,
    #[serde(borrow)]
    event: Option<&'l RawValue>,
    #[serde(borrow)]
    envelope: Option<Enclosed<'l>>,
}

#[derive(Deserialize)]
struct Enclosed<'l> {
    #[serde(borrow)]
    payload: &'l RawValue,
}

pub(super) fn feed(text: &[u8]) -> Result<Parsed, String> {
    let it: FeedLine = serde_json::from_slice(text).map_err(in_words)?;
    let head = hash_of_hex(&it.hash).ok_or("has a hash that is none")?;
    let key = it.idempotency_key.unwrap_or_default();
    let payload = it.envelope.map(|it| it.payload);
    Ok(Parsed {
        key: if key.is_empty() { 0 } else { hash_of_key(&key) },
        content: match (it.event, payload) {
            (Some(event), _) => Some(hash_of(event.get().as_bytes())),
            (None, Some(payload)) => Some(content_of(&key, payload)),
            (None, None) => None,
        },
        extra: (it.seq, head),
        addressed: None,
    })
}

pub(super) fn other(text: &[u8]) -> Result<Parsed, String> {
    #[derive(Deserialize)]
    struct Object {}
    serde_json::from_slice::<Object>(text).map_err(in_words)?;
    Ok(Parsed::default())
}
