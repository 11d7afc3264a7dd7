//! One request and what came of it, between the engine, which says what is sent and what follows, and the
//! wire, which knows neither.
//!
//! # Invariants
//! - An answer to a batch judges its items only when it is the contract's own and names each of them in order;
//!   every other one judges none.
//! - A request that was handed over comes back exactly once: judged, or unsent.
//!
//! Not here: what an answer means (`verdict`), the threads (`couriers`), signing and HTTP (the tool).

use std::{borrow::Cow, sync::Arc};

use super::{
    item::{Item, Route},
    verdict::{self, AckMode, Attempted, Fault, HttpAnswer, Judgement, Verdict},
};
use crate::{
    Timestamp,
    ingest::{self, Status, batch::BatchAnswer},
};

/// An item as a request names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sent {
    /// The idempotency key.
    pub key: String,
    /// What the receiver calls it: the milestone's id, or the event's.
    pub id: String,
}

/// One request to be made.
#[derive(Clone, Debug)]
pub struct Outgoing {
    /// Names it while it is on its way.
    pub ticket: u64,
    /// Which door it goes to.
    pub route: Route,
    /// The items in it, each with a body.
    pub items: Vec<Arc<Item>>,
    /// Whether it goes to the door for batches.
    pub is_batch: bool,
}

/// What came of a request.
#[derive(Clone, Debug)]
pub struct Returned {
    /// Which one it was.
    pub ticket: u64,
    /// What came of it.
    pub fate: Fate,
}

/// See [`Returned::fate`].
#[derive(Clone, Debug)]
pub enum Fate {
    /// It was taken back before it was sent.
    Unsent,
    /// An attempt was made.
    Judged(Box<Judged>),
}

/// What one attempt came to.
#[derive(Clone, Debug)]
pub struct Judged {
    /// When it ended.
    pub at: Timestamp,
    /// What is said of each item; or of the whole request, when it is a batch and nothing is said of its items.
    pub items: Result<Vec<Judgement>, Judgement>,
    /// The header `Date`.
    pub date: Option<String>,
    /// Whether the endpoint took only the previous secret; none when that cannot be said.
    pub by_previous: Option<bool>,
    /// How many items a batch may have, if the receiver takes batches at this door.
    pub batch: Option<usize>,
}

impl Judged {
    /// Whether every item was acknowledged, and more of them are welcome.
    pub fn is_all_well(&self) -> bool {
        self.items.as_ref().is_ok_and(|items| {
            items.iter().all(|it| matches!(it.verdict, Verdict::Acknowledged { .. }) && !it.is_gone)
        })
    }
}

impl Outgoing {
    /// The message's id in Standard Webhooks, without a full stop.
    pub fn webhook_id(&self) -> String {
        let keys: Vec<&str> = self.items.iter().map(|it| it.key()).collect();
        // That of a single item is that of a batch with it alone.
        ingest::batch::webhook_id(&keys)
    }

    /// The bytes to be signed and sent.
    pub fn body(&self) -> Cow<'_, [u8]> {
        let bodies: Vec<&[u8]> = self.items.iter().filter_map(|it| it.body.as_deref().ok()).collect();
        match bodies.first() {
            Some(body) if !self.is_batch => Cow::Borrowed(body),
            _ => Cow::Owned(ingest::batch::body(bodies)),
        }
    }

    /// Judges what the attempt that ended `now` came to.
    pub fn judge(&self, attempted: &Attempted, mode: AckMode, now: Timestamp) -> Judged {
        let answer = match attempted {
            Attempted::Answered(answer) => Some(answer),
            _ => None,
        };
        let items = if self.is_batch {
            let judging = answer.filter(|it| (200..300).contains(&it.status));
            // No item has this id, so the whole is never taken for an acknowledgement of one.
            judging
                .and_then(|it| self.results(it, now))
                .ok_or_else(|| verdict::judge(attempted, "", mode, now))
        } else {
            let id = self.items.first().map_or("", |it| it.name.id.as_str());
            Ok(vec![verdict::judge(attempted, id, mode, now)])
        };
        Judged {
            at: now,
            items,
            date: answer.and_then(|it| it.date.clone()),
            // Who is not let in, and who meets a proxy, does not learn which secret counts.
            by_previous: answer.filter(|it| (200..300).contains(&it.status)).map(|it| it.by_previous),
            batch: answer.and_then(|it| it.batch.as_deref()).and_then(ingest::batch::items_max),
        }
    }

    fn results(&self, whole: &HttpAnswer, now: Timestamp) -> Option<Vec<Judgement>> {
        let keys: Vec<&str> = self.items.iter().map(|it| it.key()).collect();
        let answer = BatchAnswer::parse(&whole.body, &keys)?;
        let retry_after = verdict::retry_after(whole, now);
        let mut judgements = Vec::with_capacity(keys.len());
        for (item, result) in self.items.iter().zip(answer.results) {
            let is_about = result.is_about(&item.name.id);
            let (verdict, reason) = match result.status {
                Status::Accepted if is_about => {
                    (Verdict::Acknowledged { duplicate: false, receipt: result.receipt }, "accepted")
                }
                Status::Duplicate if is_about => {
                    (Verdict::Acknowledged { duplicate: true, receipt: result.receipt }, "duplicate")
                }
                Status::Rejected => (Verdict::Failed(Fault::Item), "rejected"),
                _ => return None,
            };
            // The status of the whole says that all were judged. Alone a taken item would have had the same, a refused
            // one another, which no result tells.
            let status = Some(whole.status).filter(|_| verdict != Verdict::Failed(Fault::Item));
            let answer = verdict::shortened(&result.reason.unwrap_or_default());
            judgements.push(Judgement { verdict, reason, status, answer, retry_after, is_gone: false });
        }
        // That no more are wanted is said once.
        if let Some(last) = judgements.last_mut() {
            last.is_gone = whole.disable;
        }
        Some(judgements)
    }
}
