//! Ingest requests, single and in batches: the contract's checks, in the contract's order.
//!
//! ```text
//! size 413 · content type 415 · headers and time window 401 · parse 400 · signature 401
//! · fields and event 400 · identity 200 or 409 (the store decides)
//! ```
//!
//! Of a batch the first five are checked once, the others for each item, as if it had come alone.
//!
//! # Invariants
//! - Nothing unauthenticated is stored or shown: up to the signature a failure is only counted, by reason.
//! - What is refused after the signature is kept before it is answered.
//! - Whatever may pass is 503, never 4xx, and no later than [`PATIENCE`] after the request has come; of a
//!   batch, the whole.
//!
//! Parts: `head` (headers), `quick` (requests without a fault), `fields` (all others), `verdict` (answers).
//! Not here: what is signed and how (`milepost::signing`), reading within limits (`body`).

pub mod fields;
mod head;
mod quick;
mod verdict;

use std::{sync::Arc, time::Duration};

use axum::{
    body::Body,
    extract::State,
    http::{HeaderMap, Request, StatusCode, header},
    response::Response,
};
use milepost::{
    Timestamp, canonical, clock,
    ingest::batch::{self, BatchAnswer},
    json, signing,
};
use serde_json::Value;
use tokio::time::{Instant, timeout_at};

use self::{
    fields::{Fault, Fields},
    verdict::{BATCH_ITEMS_MAX, Id, Verdict},
};
use crate::{
    answer,
    app::App,
    body,
    metrics::Metrics,
    reason::{self, Kept},
    record::{Milestone, Refused},
    store::{self, Offer},
};

/// Bytes of a body; `record::REQUEST_BYTES_KEPT` is as large.
const BODY_BYTES_MAX: usize = 512 << 10;
/// How long a request waits for what may pass.
pub const PATIENCE: Duration = Duration::from_secs(8);
/// Bodies from here on are examined beside the loop, which serves everybody else meanwhile.
const LONG_BYTES: usize = 64 << 10;

/// What kind of events a request brings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route {
    /// Milestones, for the feed.
    Milestones,
    /// Others, in their envelopes.
    Events,
}

/// How many at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Single,
    Batch,
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
    pub fn field(self) -> &'static str {
        match self {
            Route::Milestones => "event",
            Route::Events => "envelope",
        }
    }
}

impl Form {
    fn bytes_max(self) -> usize {
        match self {
            Form::Single => BODY_BYTES_MAX,
            Form::Batch => batch::BODY_BYTES_MAX,
        }
    }

    fn size_in_words(self) -> &'static str {
        match self {
            Form::Single => "524288 bytes (512 KiB)",
            Form::Batch => "8388608 bytes (8 MiB)",
        }
    }
}

/// A request that goes no further, and how it is counted.
struct Stop {
    outcome: &'static str,
    reason: &'static str,
    response: Box<Response>,
}

/// One item that passed the checks of its request.
struct Candidate {
    key: String,
    id: Id,
    /// What the store is asked; nothing for a ping.
    offer: Option<Offer>,
    /// What is wrong with it.
    refusal: Option<(Kept, String)>,
}

/// `POST /internal/milestones/ingest`
pub async fn milestones(State(app): State<Arc<App>>, request: Request<Body>) -> Response {
    ingest(&app, Route::Milestones, Form::Single, request).await
}

/// `POST /internal/events/ingest`
pub async fn events(State(app): State<Arc<App>>, request: Request<Body>) -> Response {
    ingest(&app, Route::Events, Form::Single, request).await
}

/// `POST /internal/milestones/ingest-batch`
pub async fn milestones_batch(State(app): State<Arc<App>>, request: Request<Body>) -> Response {
    ingest(&app, Route::Milestones, Form::Batch, request).await
}

/// `POST /internal/events/ingest-batch`
pub async fn events_batch(State(app): State<Arc<App>>, request: Request<Body>) -> Response {
    ingest(&app, Route::Events, Form::Batch, request).await
}

async fn ingest(app: &App, route: Route, form: Form, request: Request<Body>) -> Response {
    judge(app, route, form, request).await.unwrap_or_else(|stop| {
        app.metrics.request(route.label(), stop.outcome, stop.reason);
        *stop.response
    })
}

async fn judge(app: &App, route: Route, form: Form, request: Request<Body>) -> Result<Response, Stop> {
    // The time of the attempt is compared with that of its arrival, however slowly the body comes.
    let arrived = clock::now();
    let (parts, body) = request.into_parts();
    let headers = parts.headers;
    let bytes_max = form.bytes_max();
    let read = body::read(&headers, body, bytes_max, &app.large_bodies, PATIENCE).await;
    // Its share of memory is held until the answer: what was read out of the body is there in two forms, each as large.
    let body::Read { bytes, share: _share } = read.map_err(|it| unread(it, form))?;
    let deadline = Instant::now() + PATIENCE;

    let length = bytes.len();
    let (verifier, metrics) = (app.verifier(), Arc::clone(&app.metrics));
    let examine = move || examine(&verifier, &metrics, route, form, &headers, arrived, &bytes);
    // A batch that has no items is answered as a single request is: nothing of it was judged.
    let (form, candidates) = if length < LONG_BYTES {
        examine()?
    } else {
        let examined = tokio::task::spawn_blocking(examine).await;
        examined
            .unwrap_or_else(|_bug| Err(unavailable(reason::STORE, "the request could not be examined")))?
    };

    let (mut asked, mut offers) = (Vec::with_capacity(candidates.len()), Vec::new());
    for Candidate { key, id, offer, refusal } in candidates {
        asked.push((key, id, offer.is_some(), refusal));
        offers.extend(offer);
    }
    let answers = if offers.is_empty() {
        Vec::new()
    } else {
        let answers = timeout_at(deadline, app.store.offer(offers, length)).await;
        answers.map_err(|_late| unavailable(reason::OVERLOADED, "the store is busy"))?
    };
    let mut answers = answers.into_iter();
    let mut judged = Vec::with_capacity(asked.len());
    for (key, id, is_offered, refusal) in asked {
        let verdict = if is_offered {
            let answer = answers.next().unwrap_or(store::Answer::Unavailable);
            let not_now = || unavailable(reason::STORE, "the store cannot take anything at the moment");
            Verdict::of(answer, refusal).ok_or_else(not_now)?
        } else {
            Verdict::Pong
        };
        judged.push((key, id, verdict));
    }
    Ok(respond(&app.metrics, route, form, judged))
}

fn respond(metrics: &Metrics, route: Route, form: Form, judged: Vec<(String, Id, Verdict)>) -> Response {
    let counted = |it: &(String, Id, Verdict)| it.2.counted();
    for alike in judged.chunk_by(|left, right| counted(left) == counted(right)) {
        let (outcome, reason) = counted(&alike[0]);
        metrics.items(route.label(), outcome, reason, alike.len());
    }
    let mut judged = judged.into_iter();
    match (form, judged.next()) {
        (Form::Single, Some((_, id, verdict))) => verdict.into_response(id),
        (_, first) => {
            metrics.batch_request();
            let results =
                first.into_iter().chain(judged).map(|(key, id, verdict)| verdict.into_result(key, id));
            let mut response = answer::json(StatusCode::OK, &BatchAnswer::new(results.collect()));
            verdict::offer_batches(&mut response);
            response
        }
    }
}

/// Every check but identity; it waits for nothing. The form is that of the answer.
fn examine(
    verifier: &signing::Verifier,
    metrics: &Metrics,
    route: Route,
    form: Form,
    headers: &HeaderMap,
    arrived: Timestamp,
    body: &[u8],
) -> Result<(Form, Vec<Candidate>), Stop> {
    head::check_content_type(headers)?;
    let signatures = head::signature_headers(headers)?;
    let checked = verifier.check_headers(&signatures, arrived).map_err(|it| not_authentic(&it))?;
    let authentic = |which: Result<signing::Which, signing::Rejection>| {
        which.map(|it| metrics.authentic(it, checked.is_legacy())).map_err(|it| not_authentic(&it))
    };

    let quick = match (route, form) {
        (Route::Milestones, Form::Single) => quick::milestone(body).map(|it| vec![it]),
        (Route::Milestones, Form::Batch) => quick::batch(body),
        (Route::Events, _) => None,
    };
    // Of a batch that is too long something must be said.
    if let Some(milestones) = quick.filter(|it| (1..=BATCH_ITEMS_MAX).contains(&it.len())) {
        authentic(verifier.verify_canonical(&checked, body))?;
        return Ok((form, milestones.into_iter().map(Candidate::of_milestone).collect()));
    }

    let parsed = match form {
        Form::Single => json::parse(body),
        // An item stands in an array in an object.
        Form::Batch => json::parse_to_depth(body, json::DEPTH_MAX + 2),
    };
    let parsed = parsed.map_err(|it| {
        let text = format!("the body is not taken as JSON: {it}");
        Stop::rejected(reason::MALFORMED_JSON, StatusCode::BAD_REQUEST, text)
    })?;
    authentic(verifier.verify(&checked, body, &parsed))?;
    // From here on the sender is known.
    Ok(match form {
        Form::Single => (form, vec![candidate(route, parsed)]),
        Form::Batch => match items_of(parsed) {
            Ok(items) => (form, items.into_iter().map(|it| item(route, it, body.len())).collect()),
            Err((request, detail)) => {
                let refused =
                    Refused { reason: Kept::InvalidRequest, detail, key: None, scope: None, request };
                (Form::Single, vec![Candidate::refused(refused)])
            }
        },
    })
}

/// The items of a batch, or what is wrong with it.
fn items_of(mut body: Value) -> Result<Vec<Value>, (Value, String)> {
    let items = match &mut body {
        Value::Object(fields) if fields.len() == 1 => fields.get_mut("items"),
        _ => None,
    };
    let Some(Value::Array(items)) = items else {
        return Err((body, "a batch is an object with the one field items, an array".into()));
    };
    match items.len() {
        1..=BATCH_ITEMS_MAX => Ok(std::mem::take(items)),
        length => {
            let detail = format!("the batch has {length} items; 1 to {BATCH_ITEMS_MAX} are allowed");
            Err((body, detail))
        }
    }
}

/// One item of a batch of so many bytes.
fn item(route: Route, item: Value, batch_bytes: usize) -> Candidate {
    // Alone it would have been refused for its size. Its own text is gone; the canonical one is as long.
    if batch_bytes > BODY_BYTES_MAX && canonical::to_vec(&item).len() > BODY_BYTES_MAX {
        let detail = format!("the body is larger than {}", Form::Single.size_in_words());
        let key = fields::key_of(&item);
        return Candidate::refused(Refused {
            reason: Kept::InvalidRequest,
            detail,
            key,
            scope: None,
            request: item,
        });
    }
    candidate(route, item)
}

fn candidate(route: Route, body: Value) -> Candidate {
    match fields::fields(route, &body) {
        Ok(Fields::Ping) => {
            let key = fields::key_of(&body).unwrap_or_default();
            Candidate { key, id: Id::Unknown, offer: None, refusal: None }
        }
        Ok(Fields::Milestone(it)) => Candidate::of_milestone(it),
        Ok(Fields::Event(it)) => Candidate {
            key: it.key.clone(),
            id: Id::Event(it.envelope.event_id.clone()),
            offer: Some(Offer::Event(Box::new(it))),
            refusal: None,
        },
        Err(Fault { reason, detail }) => {
            let key = fields::key_of(&body);
            Candidate::refused(Refused { reason, detail, key, scope: None, request: body })
        }
    }
}

impl Candidate {
    fn of_milestone(it: Milestone) -> Candidate {
        Candidate {
            key: it.key.clone(),
            id: Id::Milestone(it.id.clone()),
            offer: Some(Offer::Milestone(Box::new(it))),
            refusal: None,
        }
    }

    fn refused(it: Refused) -> Candidate {
        Candidate {
            key: it.key.clone().unwrap_or_default(),
            id: Id::Unknown,
            refusal: Some((it.reason, it.detail.clone())),
            offer: Some(Offer::Refused(Box::new(it))),
        }
    }
}

impl Stop {
    /// A refusal in the contract's form.
    fn rejected(reason: &'static str, status: StatusCode, text: String) -> Stop {
        Stop { outcome: "rejected", reason, response: Box::new(answer::rejected(status, text)) }
    }

    fn unauthenticated(reason: &'static str, text: String) -> Stop {
        let response = answer::rejected(StatusCode::UNAUTHORIZED, text);
        Stop { outcome: "unauthenticated", reason, response: Box::new(response) }
    }
}

fn unavailable(reason: &'static str, text: &str) -> Stop {
    Stop { outcome: "unavailable", reason, response: Box::new(answer::unavailable(text)) }
}

fn not_authentic(it: &signing::Rejection) -> Stop {
    Stop::unauthenticated(it.reason.code(), it.to_string())
}

fn unread(failure: body::Failure, form: Form) -> Stop {
    match failure {
        body::Failure::TooLarge(rest) => {
            if let Some(rest) = rest {
                body::drain(rest);
            }
            let text = format!("the body is larger than {}", form.size_in_words());
            let mut stop = Stop::rejected(reason::TOO_LARGE, StatusCode::PAYLOAD_TOO_LARGE, text);
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
