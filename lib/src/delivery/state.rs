//! What a delivery remembers between runs, and how each event changes it.
//!
//! One high-water mark (the cursor), the lanes below it that are not settled, and the breaker.
//!
//! # Invariants
//! - Every item before the cursor is settled, or a lane covers it and `skip` does not name it. Behind the cursor an
//!   item is settled only if `ahead` or `skip` names it, and waits for a retry only if it is the first of a lane.
//! - [`State::apply`] is the only thing that changes it by an event, now and when the audit is read back.
//! - Its size follows the blocked scopes, never the queue.
//!
//! Not here: the file (`store`), what to do next (`engine`).

use std::{collections::BTreeSet, time::Duration};

use serde::{Deserialize, Serialize};

use super::{
    breaker::{Breaker, Cause},
    control::Command,
    event::{ControlDetail, Detail, Event},
    lanes::{LaneName, Lanes, Retry},
    verdict::Fault,
};
use crate::{Timestamp, audit::Outcome, envelope::Attempt, ingest::Receipt};

/// The version of the state file that is written and read.
pub const VERSION: u32 = 1;

/// The state file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct State {
    /// `VERSION`.
    pub version: u32,
    /// The endpoint's name; empty for the one without a name.
    pub endpoint: String,
    /// Where was sent to last.
    pub url: Option<String>,
    /// The high-water mark.
    pub cursor: Cursor,
    /// What waits below it.
    pub retries: Lanes,
    /// The last acknowledgement.
    pub last_ack: Option<LastAck>,
    /// The circuit breaker.
    pub breaker: Breaker,
    /// The audit is covered up to here.
    pub audit_offset: u64,
    /// The dead letters are covered up to here.
    pub dead_letter_offset: u64,
    /// The operator's commands were followed up to here.
    pub control_offset: u64,
    /// What the endpoint's clock said last, beside this one. Not in the audit: the next answer tells again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clock: Option<ClockDifference>,
    /// When the endpoint took the previous secret and not the current one, if that is how its last answer came.
    /// Not in the audit either.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous_secret_utc: Option<Timestamp>,
}

/// See [`State::clock`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ClockDifference {
    /// By how many milliseconds the endpoint's clock is ahead; negative when it is behind. Its header has whole
    /// seconds, and what the answer was on its way is in it.
    pub ahead_ms: i64,
    /// When that was seen.
    pub at_utc: Timestamp,
}

/// See [`State::cursor`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cursor {
    /// Logical offset in the queue.
    pub offset: u64,
    /// Fingerprint of the line before it (J5), as it was when the state was saved.
    pub fingerprint: String,
    /// Offsets beyond the mark of items that are settled although others before them are not: those that were
    /// under way at the same time, a probe that was acknowledged. Bounded by what is read ahead.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub ahead: BTreeSet<u64>,
    /// Offsets of dead letters whose audit record was lost in a crash, with those of items before them in their
    /// scope, maybe: settled, whatever lane covers them.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub skip: BTreeSet<u64>,
}

impl Cursor {
    /// Whether the item at `offset` is settled out of turn.
    pub fn has_settled(&self, offset: u64) -> bool {
        self.ahead.contains(&offset) || self.skip.contains(&offset)
    }
}

/// See [`State::last_ack`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LastAck {
    /// The key of the item.
    pub idempotency_key: String,
    /// When.
    pub at_utc: Timestamp,
    /// How many there were, this one included.
    pub count: u64,
    /// The receiver's proof.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub receipt: Option<Receipt>,
}

impl State {
    /// The state of an endpoint that was never sent to.
    pub fn new(endpoint: &str) -> State {
        State {
            version: VERSION,
            endpoint: endpoint.to_owned(),
            url: None,
            cursor: Cursor::default(),
            retries: Lanes::default(),
            last_ack: None,
            breaker: Breaker::default(),
            audit_offset: 0,
            dead_letter_offset: 0,
            control_offset: 0,
            clock: None,
            previous_secret_utc: None,
        }
    }

    /// Acknowledgements so far.
    pub fn acks(&self) -> u64 {
        self.last_ack.as_ref().map_or(0, |it| it.count)
    }

    /// Whether the item at this offset is still to be sent, by what this state knows.
    pub fn owes(&self, scope: Option<&str>, key: &str, offset: u64) -> bool {
        if self.cursor.has_settled(offset) {
            return false;
        }
        offset >= self.cursor.offset || self.retries.covering(scope, key, offset).is_some()
    }

    /// The retry of the item at this offset, if it waits for one.
    pub fn retry_of(&self, scope: Option<&str>, key: &str, offset: u64) -> Option<&Retry> {
        let name = self.retries.covering(scope, key, offset)?;
        let lane = self.retries.get(&name)?;
        lane.retry.as_ref().filter(|_| lane.offset == offset)
    }

    /// Changes the state as the event says. With `replayed`, what waits in the lanes is not known, and
    /// lanes stay until they are counted again.
    pub fn apply(&mut self, event: &Event, replayed: bool) {
        match event {
            Event::Item { outcome, key, scope, detail } => {
                let (key, scope) = (key.as_deref().unwrap_or_default(), scope.as_deref());
                self.apply_item(*outcome, key, scope, detail, replayed);
            }
            Event::Breaker(detail) => {
                self.breaker = detail.breaker.clone();
                self.url.clone_from(&detail.url);
            }
            // One that was followed from the control journal is not followed again from the audit.
            Event::Control(detail) if detail.from >= self.control_offset => self.apply_control(detail),
            Event::Control(_) => {}
            Event::Resync(detail) => {
                self.cursor = Cursor { offset: detail.cursor, ..Cursor::default() };
                self.retries = Lanes::default();
            }
        }
    }

    fn apply_control(&mut self, detail: &ControlDetail) {
        self.control_offset = detail.to;
        self.follow(&detail.command, detail.at);
    }

    /// Follows a command of the operator.
    pub fn follow(&mut self, command: &Command, at: Timestamp) {
        match command {
            Command::Hold { reason } => self.breaker.hold(Cause::Operator, reason, at),
            Command::Release => self.breaker.reset(),
            Command::RetryNow => {
                self.retries.rebase(at, true);
                self.breaker.probe_now(at);
            }
        }
    }

    /// Brings due times nearer that a clock that went back has put off. Says whether there were any; then
    /// the state must be saved, or the next process would put them off anew.
    pub fn rebase(&mut self, now: Timestamp) -> bool {
        self.breaker.rebase(now) | self.retries.rebase(now, false)
    }

    fn apply_item(
        &mut self,
        outcome: Outcome,
        key: &str,
        scope: Option<&str>,
        detail: &Detail,
        replayed: bool,
    ) {
        match outcome {
            Outcome::Acknowledged => {
                self.settle(key, scope, detail, replayed);
                let count = self.acks() + 1;
                let last = self.last_ack.get_or_insert_default();
                key.clone_into(&mut last.idempotency_key);
                last.receipt.clone_from(&detail.receipt);
                (last.at_utc, last.count) = (detail.at, count);
                self.breaker.count_acknowledged();
            }
            Outcome::DeadLettered => {
                self.settle(key, scope, detail, replayed);
                if let Some(fault) = detail.fault.filter(|_| !detail.ahead) {
                    self.breaker.count_failed(fault, detail.own);
                }
            }
            Outcome::Quarantined => self.settle(key, scope, detail, replayed),
            Outcome::Retried => self.apply_retried(key, scope, detail),
            _ => {}
        }
    }

    fn settle(&mut self, key: &str, scope: Option<&str>, detail: &Detail, replayed: bool) {
        let offset = detail.queue_offset;
        // No lane covered a probe from beyond the mark: one that is kept here was gone by then.
        if (!detail.ahead || replayed && detail.probe)
            && let Some(name) = self.retries.covering(scope, key, offset)
        {
            self.retries.settle(&name, offset, replayed);
        }
        if detail.ahead && !detail.probe {
            self.cursor.skip.insert(offset);
        } else if offset >= detail.cursor {
            self.cursor.ahead.insert(offset);
        }
        self.pass_to(detail.cursor);
    }

    /// Moves the mark on; what was settled ahead of it and is passed now need not be remembered.
    pub fn pass_to(&mut self, offset: u64) {
        let from = self.cursor.offset;
        if from < offset && !self.cursor.ahead.is_empty() {
            self.cursor.ahead = self.cursor.ahead.split_off(&offset);
        }
        if !self.cursor.skip.is_empty() {
            // What no lane can cover any more need not be skipped.
            let first_lane = self.retries.iter().map(|(_, it)| it.offset).min().unwrap_or(u64::MAX);
            self.cursor.skip.retain(|it| *it >= offset || *it > first_lane);
        }
        self.cursor.offset = offset;
    }

    fn apply_retried(&mut self, key: &str, scope: Option<&str>, detail: &Detail) {
        let fault = detail.fault.unwrap_or(Fault::Application);
        if fault == Fault::Gone {
            return;
        }
        let due = detail.due.unwrap_or(detail.at);
        let delay = Duration::from_millis(detail.delay_ms.unwrap_or(0));
        if detail.probe {
            self.breaker.probe_failed(detail.queue_offset, detail.ahead, detail.at, delay);
            return;
        }
        let mut retry = match self.retry_of(scope, key, detail.queue_offset) {
            Some(it) => it.clone(),
            None => Retry {
                key: key.to_owned(),
                attempts: 0,
                tries: 0,
                first: detail.at,
                acks_at_first: self.acks(),
                due,
                delay,
                reason: String::new(),
                is_own: false,
                history: Vec::new(),
            },
        };
        retry.attempts = detail.attempt;
        retry.tries = detail.tries;
        retry.due = due;
        retry.delay = delay;
        detail.reason.clone_into(&mut retry.reason);
        retry.is_own = detail.own;
        if detail.counted {
            retry.remember(attempt_of(detail));
        }
        let name = self.retries.covering(scope, key, detail.queue_offset).unwrap_or_else(|| match scope {
            Some(scope) if !detail.alone => LaneName::Scope(scope.to_owned()),
            _ => LaneName::Item(key.to_owned()),
        });
        self.retries.block(name, detail.queue_offset, retry);
        self.pass_to(detail.cursor);
        self.breaker.count_failed(fault, detail.own);
    }
}

/// The attempt that an event tells of, as a dead letter lists it.
pub(super) fn attempt_of(detail: &Detail) -> Attempt {
    let answer = if detail.answer.is_empty() { detail.reason.clone() } else { detail.answer.clone() };
    Attempt { at: detail.at, status: detail.status, answer }
}
