//! What one attempt came to: whose fault it is, from the answer or from what there was instead. Pure.
//!
//! | answer | verdict |
//! | --- | --- |
//! | 2xx with the contract's body and this item's id (`--ack 2xx`: any 2xx) | acknowledged |
//! | 400 409 413 415 422 with the contract's body (`--ack 2xx`: with any) | the item's fault |
//! | 500 and every 5xx not named below; an answer broken off, mis-framed or too large whose body matters | the application's |
//! | no answer: connection, name, TLS, time; 408 425 429 502 503 504 520–530 | the endpoint's, may pass |
//! | 401 403 404 405, 3xx, other 4xx; a 2xx or 4xx without the contract's body | the configuration's |
//! | 410, or the header `webhook-delivery: disable` with any answer | the endpoint is gone |
//!
//! # Invariants
//! - Only the contract's own answer judges an item: a login page or a proxy's error never does.
//! - Each reason has a short name that never changes.
//!
//! Not here: what follows from a verdict (`state`, `breaker`), when it is tried again (`backoff`).

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::backoff;
use crate::{
    Timestamp,
    ingest::{self, Receipt},
    text,
};

/// The most characters of an answer that are kept in a dead letter and in the audit.
const SHOWN_CHARS_MAX: usize = 200;

/// What counts as an acknowledgement (`--ack`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AckMode {
    /// The ingest contract's answer that names the item.
    #[default]
    Contract,
    /// Any 2xx, for receivers that know nothing of the contract.
    AnySuccess,
}

/// What came of one attempt on the wire.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Attempted {
    /// A complete answer.
    Answered(HttpAnswer),
    /// An answer began, but was broken off, mis-framed or too large.
    Broken {
        /// Status and headers, if they came whole; the body is empty.
        head: Option<HttpAnswer>,
        /// Whether only the body is too large.
        is_oversized: bool,
        /// What is wrong with it.
        what: String,
    },
    /// There was no answer.
    Unanswered {
        /// How far the attempt got.
        how: Unanswered,
        /// What went wrong.
        what: String,
    },
    /// It was not sent, because the configuration forbids the address.
    Forbidden {
        /// Why.
        what: String,
    },
}

/// A complete answer, its body within the bound that is read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HttpAnswer {
    /// The status.
    pub status: u16,
    /// The header `Retry-After`.
    pub retry_after: Option<String>,
    /// The header `Date`.
    pub date: Option<String>,
    /// The header `x-milestone-batch`.
    pub batch: Option<String>,
    /// Whether the header `webhook-delivery` says `disable`.
    pub disable: bool,
    /// Whether it came only once the previous secret had signed.
    pub by_previous: bool,
    /// The body.
    pub body: Vec<u8>,
}

/// Why there was no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unanswered {
    /// The host's name has no address.
    Name,
    /// No connection, or one that ended before the answer began.
    Connection,
    /// No trust, or no common language.
    Tls,
    /// It took too long.
    Timeout,
}

/// Whose fault a failure is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Fault {
    /// The item will never be taken.
    Item,
    /// The application stumbled, maybe over this item.
    Application,
    /// The endpoint cannot be reached or has no time.
    Endpoint,
    /// Wrong secret, wrong URL, or something else answers in the application's place.
    Configuration,
    /// The endpoint wants no more deliveries.
    Gone,
}

/// The verdict on one attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Judgement {
    /// Whether the receiver has the item, else whose fault it is.
    pub verdict: Verdict,
    /// A short name that never changes.
    pub reason: &'static str,
    /// The HTTP status, if an answer came so far; none of an item that was refused in a batch.
    pub status: Option<u16>,
    /// What the receiver said or what went wrong, for people; shortened, nothing escaped.
    pub answer: String,
    /// How long the receiver asked us to wait.
    pub retry_after: Option<Duration>,
    /// Whether the endpoint wants no further deliveries, whatever it says of this one.
    pub is_gone: bool,
}

/// See [`Judgement::verdict`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The receiver has it.
    Acknowledged {
        /// It had it before.
        duplicate: bool,
        /// Its proof.
        receipt: Option<Receipt>,
    },
    /// The answer to a ping.
    Pong,
    /// It has not.
    Failed(Fault),
}

/// Judges an attempt to deliver the item that the receiver knows as `id`.
pub fn judge(attempted: &Attempted, id: &str, mode: AckMode, now: Timestamp) -> Judgement {
    let failed = |fault, reason, status, answer: &str| Judgement {
        verdict: Verdict::Failed(fault),
        reason,
        status,
        answer: shortened(answer),
        retry_after: None,
        is_gone: false,
    };
    match attempted {
        Attempted::Answered(answer) => judge_answer(answer, id, mode, now),
        Attempted::Broken { head: Some(head), is_oversized, what }
            if says_enough(head.status, mode, *is_oversized) =>
        {
            Judgement { answer: shortened(what), ..judge_answer(head, id, mode, now) }
        }
        Attempted::Broken { head, what, .. } => {
            failed(Fault::Application, "broken-answer", head.as_ref().map(|it| it.status), what)
        }
        Attempted::Unanswered { how, what } => {
            let reason = match how {
                Unanswered::Name => "name",
                Unanswered::Connection => "connection",
                Unanswered::Tls => "tls",
                Unanswered::Timeout => "timeout",
            };
            failed(Fault::Endpoint, reason, None, what)
        }
        Attempted::Forbidden { what } => failed(Fault::Configuration, "forbidden-address", None, what),
    }
}

/// Whether a status is judged without its body. The error page of a proxy may be of any size.
fn says_enough(status: u16, mode: AckMode, is_oversized: bool) -> bool {
    match status {
        400 | 409 | 413 | 415 | 422 => false,
        200..=299 => mode == AckMode::AnySuccess && is_oversized,
        300..=599 => true,
        _ => false,
    }
}

fn judge_answer(answer: &HttpAnswer, id: &str, mode: AckMode, now: Timestamp) -> Judgement {
    let status = answer.status;
    let contract = ingest::Answer::parse(&answer.body);
    let (verdict, reason) = match status {
        410 => (Verdict::Failed(Fault::Gone), "gone"),
        200..=299 => judge_success(contract.as_ref(), id, mode),
        400 | 409 | 413 | 415 | 422 => {
            let is_rejection = contract.as_ref().is_some_and(|it| !it.ok);
            if is_rejection || mode == AckMode::AnySuccess {
                (Verdict::Failed(Fault::Item), "rejected")
            } else {
                (Verdict::Failed(Fault::Configuration), "foreign-answer")
            }
        }
        408 | 425 | 502 | 503 | 504 | 520..=530 => (Verdict::Failed(Fault::Endpoint), "unavailable"),
        429 => (Verdict::Failed(Fault::Endpoint), "rate-limited"),
        500..=599 => (Verdict::Failed(Fault::Application), "server-error"),
        300..=399 => (Verdict::Failed(Fault::Configuration), "redirect"),
        401 => (Verdict::Failed(Fault::Configuration), "unauthorized"),
        403 => (Verdict::Failed(Fault::Configuration), "forbidden"),
        404 => (Verdict::Failed(Fault::Configuration), "not-found"),
        405 => (Verdict::Failed(Fault::Configuration), "method-not-allowed"),
        400..=499 => (Verdict::Failed(Fault::Configuration), "client-error"),
        // 101 and numbers that are none: no answer to a POST.
        _ => (Verdict::Failed(Fault::Application), "broken-answer"),
    };
    // A disabling header with a failure says why it failed; an acknowledgement stays one.
    let (verdict, reason) = match verdict {
        Verdict::Failed(_) if answer.disable => (Verdict::Failed(Fault::Gone), "disabled"),
        other => (other, reason),
    };
    let said = contract.and_then(|it| it.reason);
    let said = said.unwrap_or_else(|| String::from_utf8_lossy(&answer.body).into_owned());
    Judgement {
        is_gone: answer.disable || verdict == Verdict::Failed(Fault::Gone),
        verdict,
        reason,
        status: Some(status),
        answer: shortened(&said),
        retry_after: retry_after(answer, now),
    }
}

/// How long the receiver asked us to wait.
pub(super) fn retry_after(answer: &HttpAnswer, now: Timestamp) -> Option<Duration> {
    answer.retry_after.as_deref().and_then(|it| backoff::retry_after(it, answer.date.as_deref(), now))
}

fn judge_success(contract: Option<&ingest::Answer>, id: &str, mode: AckMode) -> (Verdict, &'static str) {
    let receipt = contract.and_then(|it| it.receipt.clone());
    match contract {
        Some(it) if it.is_about(id) && it.status == ingest::Status::Accepted => {
            (Verdict::Acknowledged { duplicate: false, receipt }, "accepted")
        }
        Some(it) if it.is_about(id) && it.status == ingest::Status::Duplicate => {
            (Verdict::Acknowledged { duplicate: true, receipt }, "duplicate")
        }
        Some(it) if it.status == ingest::Status::Pong && id.starts_with(ingest::PING_PREFIX) => {
            (Verdict::Pong, "pong")
        }
        _ if mode == AckMode::AnySuccess => {
            (Verdict::Acknowledged { duplicate: false, receipt: None }, "accepted")
        }
        Some(it) if it.ok => (Verdict::Failed(Fault::Configuration), "other-item"),
        _ => (Verdict::Failed(Fault::Configuration), "foreign-answer"),
    }
}

pub(super) fn shortened(text: &str) -> String {
    let text = text::trim(text);
    match text.char_indices().nth(SHOWN_CHARS_MAX) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ACCEPTED: &str =
        r#"{"ok":true,"status":"accepted","milestoneId":"m1","receipt":{"seq":7,"head":"ab"}}"#;
    const REJECTED: &str = r#"{"ok":false,"status":"rejected","reason":"no such scope"}"#;

    fn answer(status: u16, body: &str) -> HttpAnswer {
        HttpAnswer { status, body: body.into(), ..HttpAnswer::default() }
    }

    fn verdict(status: u16, body: &str, mode: AckMode) -> Result<&'static str, Fault> {
        let judged = judge(&Attempted::Answered(answer(status, body)), "m1", mode, Timestamp::default());
        match judged.verdict {
            Verdict::Failed(fault) => Err(fault),
            _ => Ok(judged.reason),
        }
    }

    #[test]
    fn only_the_contracts_answer_about_this_item_acknowledges() {
        let contract = |status, body| verdict(status, body, AckMode::Contract);
        assert_eq!(contract(200, ACCEPTED), Ok("accepted"));
        assert_eq!(contract(202, r#"{"ok":true,"status":"duplicate","milestoneId":"m1"}"#), Ok("duplicate"));
        for body in [
            "",
            "ok",
            "<html>please log in</html>",
            "{\"ok\":tru",
            r#"{"ok":false}"#,
            r#"{"ok":true}"#,
            r#"{"ok":true,"status":"accepted"}"#,
            r#"{"ok":true,"status":"accepted","milestoneId":"m2"}"#,
            r#"{"ok":true,"status":"accepted","milestoneId":null}"#,
            r#"{"ok":true,"status":"pong"}"#,
            REJECTED,
        ] {
            assert_eq!(contract(200, body), Err(Fault::Configuration), "{body}");
            assert_eq!(verdict(200, body, AckMode::AnySuccess), Ok("accepted"), "{body}");
        }
        assert_eq!(contract(204, ""), Err(Fault::Configuration));
    }

    #[test]
    fn a_receipt_is_kept() {
        let judged =
            judge(&Attempted::Answered(answer(200, ACCEPTED)), "m1", AckMode::Contract, Timestamp::default());
        let receipt = Some(Receipt { seq: 7, head: "ab".into() });
        assert_eq!(judged.verdict, Verdict::Acknowledged { duplicate: false, receipt });
    }

    #[test]
    fn every_status_has_one_fault() {
        for status in 100..=999 {
            let with = verdict(status, REJECTED, AckMode::Contract);
            let without = verdict(status, "<html>", AckMode::Contract);
            let (expected_with, expected_without) = match status {
                400 | 409 | 413 | 415 | 422 => (Fault::Item, Fault::Configuration),
                408 | 425 | 429 | 502 | 503 | 504 | 520..=530 => (Fault::Endpoint, Fault::Endpoint),
                410 => (Fault::Gone, Fault::Gone),
                200..=499 => (Fault::Configuration, Fault::Configuration),
                _ => (Fault::Application, Fault::Application),
            };
            assert_eq!((with, without), (Err(expected_with), Err(expected_without)), "{status}");
        }
    }

    #[test]
    fn with_any_success_a_rejection_needs_no_contract() {
        for status in [400, 409, 413, 415, 422] {
            assert_eq!(verdict(status, "<html>", AckMode::AnySuccess), Err(Fault::Item));
        }
        for status in [401, 403, 404, 405, 301, 418] {
            assert_eq!(verdict(status, "", AckMode::AnySuccess), Err(Fault::Configuration));
        }
    }

    #[test]
    fn a_disabling_header_holds_whatever_the_answer() {
        let judged = |status, body: &str| {
            let it = HttpAnswer { disable: true, ..answer(status, body) };
            judge(&Attempted::Answered(it), "m1", AckMode::Contract, Timestamp::default())
        };
        let acknowledged = judged(200, ACCEPTED);
        assert!(acknowledged.is_gone && matches!(acknowledged.verdict, Verdict::Acknowledged { .. }));
        assert!(judged(503, "").is_gone);
        assert_eq!(judged(400, REJECTED).verdict, Verdict::Failed(Fault::Gone));
    }

    #[test]
    fn no_answer_is_the_endpoints_fault_and_a_broken_one_the_applications() {
        let judged = |it| {
            let it = judge(&it, "m1", AckMode::AnySuccess, Timestamp::default());
            (it.verdict, it.reason)
        };
        for (how, reason) in [
            (Unanswered::Name, "name"),
            (Unanswered::Connection, "connection"),
            (Unanswered::Tls, "tls"),
            (Unanswered::Timeout, "timeout"),
        ] {
            let it = Attempted::Unanswered { how, what: "x".into() };
            assert_eq!(judged(it), (Verdict::Failed(Fault::Endpoint), reason));
        }
        for (head, is_oversized, expected) in [
            (None, false, Fault::Application),
            (Some(200), false, Fault::Application),
            (Some(400), true, Fault::Application),
            (Some(500), false, Fault::Application),
            (Some(503), false, Fault::Endpoint),
            (Some(404), true, Fault::Configuration),
        ] {
            let head = head.map(|it| answer(it, ""));
            let it = Attempted::Broken { head, is_oversized, what: "x".into() };
            assert_eq!(judged(it).0, Verdict::Failed(expected));
        }
        let it = Attempted::Broken { head: Some(answer(200, "")), is_oversized: true, what: "x".into() };
        assert_eq!(judged(it.clone()).1, "accepted", "any success is one, however long");
        let it = judge(&it, "m1", AckMode::Contract, Timestamp::default());
        assert_eq!(it.verdict, Verdict::Failed(Fault::Application));
        let it = Attempted::Forbidden { what: "x".into() };
        assert_eq!(judged(it).0, Verdict::Failed(Fault::Configuration));
    }

    #[test]
    fn answers_are_shortened_and_retry_after_is_read() {
        let it = HttpAnswer { retry_after: Some("7".into()), ..answer(503, &"é".repeat(9999)) };
        let judged = judge(&Attempted::Answered(it), "m1", AckMode::Contract, Timestamp::default());
        assert_eq!(judged.answer.chars().count(), SHOWN_CHARS_MAX + 1);
        assert_eq!(judged.retry_after, Some(Duration::from_secs(7)));
    }
}
