//! What is said of one item, alone or in a batch.

use axum::{
    http::{HeaderName, HeaderValue, StatusCode},
    response::Response,
};
use milepost::ingest::{
    Answer, Receipt, Status,
    batch::{self, BatchResult},
};

use crate::{answer, reason::Kept, store};

/// Items in a batch: at a hundred, what a request costs no longer shows, and more only takes memory.
pub const BATCH_ITEMS_MAX: usize = 128;
const BATCH_ITEMS_MAX_TEXT: &str = "128";

/// What an item is about.
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

/// What became of an item.
#[derive(Debug)]
pub enum Verdict {
    /// Secret and clock fit.
    Pong,
    /// It is on disk.
    Accepted(Receipt),
    /// The first one is on disk.
    Duplicate(Receipt),
    /// It is refused, and kept.
    Refused(Kept, String),
}

impl Verdict {
    /// What the store's answer means; `refusal` is what was wrong already. None when it may pass.
    pub fn of(answer: store::Answer, refusal: Option<(Kept, String)>) -> Option<Verdict> {
        match (answer, refusal) {
            (store::Answer::Accepted(receipt), _) => Some(Verdict::Accepted(receipt)),
            (store::Answer::Duplicate(receipt), _) => Some(Verdict::Duplicate(receipt)),
            (store::Answer::Conflict(detail), _) => Some(Verdict::Refused(Kept::Conflict, detail)),
            (store::Answer::Kept, Some((reason, detail))) => Some(Verdict::Refused(reason, detail)),
            _ => None,
        }
    }

    /// How it is counted: outcome and reason.
    pub fn counted(&self) -> (&'static str, &'static str) {
        match self {
            Verdict::Pong => ("pong", ""),
            Verdict::Accepted(_) => ("accepted", ""),
            Verdict::Duplicate(_) => ("duplicate", ""),
            Verdict::Refused(Kept::Conflict, _) => ("conflict", Kept::Conflict.code()),
            Verdict::Refused(reason, _) => ("rejected", reason.code()),
        }
    }

    /// The answer to a single request.
    pub fn into_response(self, id: Id) -> Response {
        let status = match &self {
            Verdict::Refused(Kept::Conflict, _) => StatusCode::CONFLICT,
            Verdict::Refused(..) => StatusCode::BAD_REQUEST,
            _ => StatusCode::OK,
        };
        let BatchResult { status: word, milestone_id, event_id, reason, receipt, .. } =
            self.into_result(String::new(), id);
        let ok = word != Status::Rejected;
        let mut response =
            answer::json(status, &Answer { ok, status: word, milestone_id, event_id, reason, receipt });
        if ok {
            offer_batches(&mut response);
        }
        response
    }

    /// The item's result in the answer to a batch.
    pub fn into_result(self, idempotency_key: String, id: Id) -> BatchResult {
        let (status, id, reason, receipt) = match self {
            Verdict::Pong => (Status::Pong, Id::Unknown, None, None),
            Verdict::Accepted(receipt) => (Status::Accepted, id, None, Some(receipt)),
            Verdict::Duplicate(receipt) => (Status::Duplicate, id, None, Some(receipt)),
            Verdict::Refused(_, detail) => (Status::Rejected, id, Some(detail), None),
        };
        let (milestone_id, event_id) = id.split();
        BatchResult { idempotency_key, status, milestone_id, event_id, reason, receipt }
    }
}

/// Tells a sender whose request was taken that it may send many at a time.
pub fn offer_batches(response: &mut Response) {
    let name = HeaderName::from_static(batch::HEADER);
    response.headers_mut().insert(name, HeaderValue::from_static(BATCH_ITEMS_MAX_TEXT));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_header_says_the_limit() {
        assert_eq!(batch::items_max(BATCH_ITEMS_MAX_TEXT), Some(BATCH_ITEMS_MAX));
    }
}
