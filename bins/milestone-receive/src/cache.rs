//! Answers of the feed that were made already, for as long as the feed stands where it stood.
//!
//! Most readers ask for the same few things again and again. A body is made once for each state of the feed, and
//! whoever has it already is told so (`304`).
//!
//! # Invariants
//! - What is kept was made from a feed at least as new as its version says, and is not used for another version.
//! - Memory is bounded: [`ENTRIES_MAX`] bodies of [`BODY_BYTES_MAX`] together, all dropped with each new milestone.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

use axum::{
    body::{Body, Bytes},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::Response,
};

use crate::answer;

const ENTRIES_MAX: usize = 256;
const BODY_BYTES_MAX: usize = 8 << 20;
/// A query longer than this is answered, but not remembered.
const KEY_BYTES_MAX: usize = 512;

/// The answers.
#[derive(Debug, Default)]
pub struct Cache(Mutex<Ready>);

#[derive(Debug, Default)]
struct Ready {
    version: Version,
    bodies: HashMap<String, Bytes>,
    bytes: usize,
}

/// A state of the feed: its last seq and its head.
pub type Version = (u64, String);

impl Cache {
    /// The body for `key`, if it was made from this version.
    pub fn get(&self, version: &Version, key: &str) -> Option<Bytes> {
        let ready = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if ready.version == *version { ready.bodies.get(key).cloned() } else { None }
    }

    /// Keeps a body that was made after the feed had this version.
    pub fn put(&self, version: &Version, key: &str, body: &Bytes) {
        let mut ready = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if ready.version.0 > version.0 || key.len() > KEY_BYTES_MAX {
            return;
        }
        let is_full = ready.bodies.len() >= ENTRIES_MAX || ready.bytes + body.len() > BODY_BYTES_MAX;
        if ready.version != *version || is_full {
            *ready = Ready { version: version.clone(), ..Ready::default() };
        }
        if body.len() <= BODY_BYTES_MAX && ready.bodies.insert(key.to_owned(), body.clone()).is_none() {
            ready.bytes += body.len();
        }
    }
}

/// The tag of what a URL shows at this version. It is a weak one: a body of a later version may have it.
pub fn etag((seq, head): &Version) -> String {
    format!("W/\"{seq}.{}\"", head.get(..16).unwrap_or(head))
}

/// Whether the reader has what this version shows.
pub fn is_known(headers: &HeaderMap, version: &Version) -> bool {
    let etag = etag(version);
    let known = headers.get_all(header::IF_NONE_MATCH).iter().filter_map(|it| it.to_str().ok());
    known.flat_map(|it| it.split(',')).any(|it| it.trim() == etag || it.trim() == "*")
}

/// The answer with a body, which a reader may keep and must ask about.
pub fn found(version: &Version, content_type: &'static str, body: Bytes) -> Response {
    tagged(version, answer::with_type(StatusCode::OK, content_type, body))
}

/// The answer to a reader who has it.
pub fn not_modified(version: &Version) -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::NOT_MODIFIED;
    tagged(version, response)
}

fn tagged(version: &Version, mut response: Response) -> Response {
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    if let Ok(etag) = HeaderValue::from_str(&etag(version)) {
        headers.insert(header::ETAG, etag);
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(seq: u64) -> Version {
        (seq, "ab".repeat(32))
    }

    #[test]
    fn a_body_is_for_its_version_only() {
        let cache = Cache::default();
        let body = Bytes::from_static(b"x");
        cache.put(&version(2), "a", &body);
        assert_eq!(cache.get(&version(2), "a"), Some(body.clone()));
        assert_eq!(cache.get(&version(3), "a"), None);
        assert_eq!(cache.get(&version(2), "b"), None);
        // A slow reader does not put the past back.
        cache.put(&version(3), "a", &body);
        cache.put(&version(2), "b", &body);
        assert_eq!(cache.get(&version(2), "b"), None);
        assert_eq!(cache.get(&version(3), "a"), Some(body));
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let cache = Cache::default();
        let body = Bytes::from(vec![0; BODY_BYTES_MAX / 4]);
        for at in 0..1000 {
            cache.put(&version(1), &at.to_string(), &body);
            assert!(cache.0.lock().unwrap().bytes <= BODY_BYTES_MAX);
        }
        assert!(cache.get(&version(1), "999").is_some());
        cache.put(&version(1), &"k".repeat(KEY_BYTES_MAX + 1), &body);
        assert_eq!(cache.get(&version(1), &"k".repeat(KEY_BYTES_MAX + 1)), None);
    }

    #[test]
    fn a_reader_says_what_it_has() {
        let has = |text: &str| {
            let headers =
                HeaderMap::from_iter([(header::IF_NONE_MATCH, HeaderValue::from_str(text).unwrap())]);
            is_known(&headers, &version(7))
        };
        assert!(has("W/\"7.abababababababab\"") && has("\"x\", W/\"7.abababababababab\"") && has("*"));
        assert!(!has("W/\"8.abababababababab\"") && !has(""));
        assert!(!is_known(&HeaderMap::new(), &version(7)));
    }
}
