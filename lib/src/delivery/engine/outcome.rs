//! What comes of an attempt: judged, remembered, and put in line to become durable.
//!
//! # Invariants
//! - Whatever changes the state goes through an event.
//! - A failed probe uses no attempt, except that the contract's own rejection judges the item.
//!
//! Not here: which item is sent (`next`), how events become durable (`store`).

use super::{CLOCK_DIFFERENCE_MAX, Engine, Job, OWN_FAULT_TRIES, Origin, World};
use crate::{
    Error, Kind, Result, Timestamp,
    audit::Outcome,
    delivery::{
        Level, Retry, backoff,
        breaker::{Breaker, Cause},
        event::{BreakerDetail, Detail, Event},
        item::Item,
        lanes::LaneName,
        state::{ClockDifference, attempt_of},
        verdict::{Fault, Judgement, Verdict},
        wire::Judged,
    },
    envelope::{DeadLetter, EventEnvelope},
    text,
};

impl Engine {
    /// Before the first request: nothing is sent that could not be audited.
    pub(super) fn check_room(&mut self) -> Result<()> {
        if !self.has_room {
            self.store.check_room()?;
            // A disk that takes no state takes no audit either; better to know before than after.
            self.store.touch();
            self.store.commit(&mut self.state)?;
            self.has_room = true;
        }
        self.store.check()
    }

    /// These were taken back before they were sent.
    pub(super) fn unsent(&mut self, jobs: &[Job]) {
        for job in jobs {
            match &job.origin {
                Origin::Window(number) => self.window.unsend(*number),
                // It was found, but stays where it is: what finds it again must begin anew.
                Origin::Lane(_) | Origin::Beyond => self.sweep = None,
            }
        }
    }

    /// What came of an attempt.
    pub(super) fn judged(&mut self, jobs: &[Job], judged: Judged, world: &mut impl World) -> Result<()> {
        let now = judged.at;
        self.compare_clocks(judged.date.as_deref(), now, world);
        if let Some(by_previous) = judged.by_previous {
            self.state.previous_secret_utc = by_previous.then_some(now);
        }
        let is_well = judged.is_all_well();
        let judgements = match judged.items {
            Ok(it) => it,
            Err(whole) => {
                self.batch_failed(jobs, &whole, now, world);
                return Ok(());
            }
        };
        for (job, judgement) in jobs.iter().zip(&judgements) {
            match &judgement.verdict {
                Verdict::Acknowledged { duplicate, .. } => {
                    self.acknowledged(job, judgement, *duplicate, now, world);
                }
                Verdict::Failed(fault) => self.failed(job, judgement, *fault, now, world)?,
                // Only a ping is answered so, and no item is one.
                Verdict::Pong => self.failed(job, judgement, Fault::Configuration, now, world)?,
            }
            if let Origin::Lane(name) = &job.origin {
                self.lane_moved(name);
            }
            if judgement.is_gone {
                self.hold_as_gone(judgement, now, world);
            }
        }
        if is_well {
            self.pace.grow(jobs.len());
            if let Some(first) = jobs.first() {
                self.pace.announced(first.item.route, judged.batch);
            }
        }
        self.pass_blocked();
        Ok(())
    }

    /// Nothing is said of the items of a batch: they go singly for a while, and what comes of that is theirs.
    fn batch_failed(&mut self, jobs: &[Job], whole: &Judgement, now: Timestamp, world: &mut impl World) {
        self.unsent(jobs);
        if let Some(first) = jobs.first() {
            self.pace.batch_failed(first.item.route, now, whole.retry_after);
        }
        self.pace.halve();
        let count = jobs.len();
        let text = format!("a batch of {count} was not judged: {}; they go one by one", said(whole));
        world.say(Level::Note, &text);
        if whole.is_gone {
            self.hold_as_gone(whole, now, world);
        }
    }

    fn hold_as_gone(&mut self, judged: &Judgement, now: Timestamp, world: &mut impl World) {
        // Several were under way.
        if self.state.breaker.is_held() {
            return;
        }
        let mut breaker = self.state.breaker.clone();
        let reason = format!("the endpoint wants no more deliveries ({})", said(judged));
        breaker.hold(Cause::Gone, &reason, now);
        self.move_breaker(breaker, now);
        world.say(Level::Error, &format!("{reason}; all is held until --release"));
    }

    /// Something happened to a lane: when it is gone, what was read beyond the mark goes on.
    pub(super) fn lane_moved(&mut self, name: &LaneName) {
        if self.state.retries.get(name).is_some() {
            return;
        }
        // A lane from before another `--order` may hold several of the window's.
        let is_ours = match name {
            LaneName::Scope(scope) => self.lane_name(Some(scope), "") == *name,
            LaneName::Item(_) => true,
        };
        if is_ours { self.window.wake(name) } else { self.window.wake_all() }
    }

    fn acknowledged(
        &mut self,
        job: &Job,
        judged: &Judgement,
        duplicate: bool,
        now: Timestamp,
        world: &mut impl World,
    ) {
        let receipt = match &judged.verdict {
            Verdict::Acknowledged { receipt, .. } => receipt.clone(),
            _ => None,
        };
        if let Origin::Window(number) = job.origin {
            self.window.settle(number);
        }
        let retry = self.retry_of(&job.item);
        let detail = Detail {
            receipt,
            attempt: retry.as_ref().map_or(0, |it| it.attempts) + 1,
            tries: retry.as_ref().map_or(0, |it| it.tries) + 1,
            answer: String::new(),
            ..self.detail(job, judged, now)
        };
        self.happened(job, Outcome::Acknowledged, detail, None, now);
        if duplicate {
            self.counts.duplicate += 1;
        } else {
            self.counts.delivered += 1;
        }
        if self.state.breaker.is_open() {
            self.close_breaker("acknowledged again", now, world);
        }
    }

    fn failed(
        &mut self,
        job: &Job,
        judged: &Judgement,
        fault: Fault,
        now: Timestamp,
        world: &mut impl World,
    ) -> Result<()> {
        let item = &job.item;
        let key = item.key();
        if fault == Fault::Gone {
            self.unsent(std::slice::from_ref(job));
            let detail = Detail { fault: Some(fault), ahead: false, ..self.detail(job, judged, now) };
            self.happened(job, Outcome::Retried, detail, None, now);
            return Ok(());
        }
        if let Origin::Window(number) = job.origin {
            self.window.settle(number);
        }
        let detail = Detail { fault: Some(fault), ..self.detail(job, judged, now) };
        let cause = self.state.breaker.cause;
        if job.is_probe && (fault != Fault::Item || cause == Some(Cause::Items)) {
            self.probe_failed(job, judged, detail, now, world);
            return Ok(());
        }
        let before = self.retry_of(item);
        let tries = before.as_ref().map_or(0, |it| it.tries) + 1;
        let others_passed = before.as_ref().is_some_and(|it| self.state.acks() > it.acks_at_first);
        let own = before.as_ref().is_some_and(|it| it.is_own) || (tries >= OWN_FAULT_TRIES && others_passed);
        // Of several under way the first one opens it.
        let may_open = !job.is_probe && !self.state.breaker.is_open() && !self.state.breaker.is_held();
        let opens = self.state.breaker.would_open(fault, own).filter(|_| may_open);
        let is_rejected = fault == Fault::Item && opens.is_none();
        let counted = own || matches!(fault, Fault::Application | Fault::Item) && opens.is_none();
        let attempt = before.as_ref().map_or(0, |it| it.attempts) + u32::from(counted);
        let first = before.as_ref().map_or(now, |it| it.first);
        let schedule = self.settings.schedule;
        let is_over = attempt >= schedule.attempts_max || now.since(first) >= schedule.age_max;
        let detail = Detail { attempt, tries, counted, own, ..detail };
        if is_rejected || (counted && is_over) {
            let mut attempts = before.map_or_else(Vec::new, |it| it.history);
            attempts.push(attempt_of(&detail));
            let reason = if is_rejected && judged.status.is_none() {
                // In a batch: without a status it begins with that word anyway.
                said(judged)
            } else if is_rejected {
                format!("rejected: {}", said(judged))
            } else if attempt >= schedule.attempts_max {
                format!("given up after {attempt} attempts: {}", said(judged))
            } else {
                format!("given up as too old after {attempt} attempts: {}", said(judged))
            };
            world.say(Level::Warning, &format!("{}: dead letter: {reason}", shown(key)));
            let record = self.record(item)?;
            let endpoint = self.consumer.endpoint();
            let dead = DeadLetter::new(record, endpoint, reason, attempts, now, item.offset);
            self.happened(job, Outcome::DeadLettered, detail, Some(dead), now);
            self.counts.dead_lettered += 1;
            if job.is_probe {
                self.close_breaker("the application judges again", now, world);
            }
            return Ok(());
        }
        let delay = schedule.delay(key, tries, judged.retry_after);
        let due = now.plus(delay);
        world.say(
            Level::Note,
            &format!(
                "{}: try {tries} failed ({attempt} of {} attempts used): {}; next at {due}",
                shown(key),
                schedule.attempts_max,
                said(judged)
            ),
        );
        let delay_ms = u64::try_from(delay.as_millis()).ok();
        let alone = matches!(self.lane_name(item.scope.as_deref(), key), LaneName::Item(_));
        let detail = Detail { due: Some(due), delay_ms, alone, ..detail };
        self.happened(job, Outcome::Retried, detail, None, now);
        if let Some(cause) = opens {
            self.open_breaker(cause, judged, now, world);
        } else if fault == Fault::Endpoint {
            self.pace.halve();
        }
        Ok(())
    }

    /// The record of an item, as it stands in the queue.
    fn record(&self, item: &Item) -> Result<EventEnvelope> {
        let line = self.queue.bytes(item.offset, item.end)?;
        EventEnvelope::from_line(&line).map_err(|_| {
            let place = format!("{} at offset {}", self.queue.name().file(), item.offset);
            Error::new(Kind::BadData, place, "was a record and is none any more")
                .cure("restore the file from a copy")
        })
    }

    fn probe_failed(
        &mut self,
        job: &Job,
        judged: &Judgement,
        detail: Detail,
        now: Timestamp,
        world: &mut impl World,
    ) {
        let probes = self.state.breaker.probes + 1;
        let delay = self.settings.schedule.probe_delay(self.consumer.endpoint(), probes, judged.retry_after);
        let due = now.plus(delay);
        world.say(Level::Note, &format!("probe {probes} failed: {}; next at {due}", said(judged)));
        let retry = self.retry_of(&job.item);
        let detail = Detail {
            attempt: retry.as_ref().map_or(0, |it| it.attempts),
            tries: retry.as_ref().map_or(0, |it| it.tries),
            due: Some(due),
            delay_ms: u64::try_from(delay.as_millis()).ok(),
            ..detail
        };
        self.happened(job, Outcome::Retried, detail, None, now);
        self.sweep = None;
    }

    fn open_breaker(&mut self, cause: Cause, judged: &Judgement, now: Timestamp, world: &mut impl World) {
        let what = match cause {
            Cause::Endpoint => "the endpoint failed several times in a row",
            Cause::Items => "the endpoint rejects one item after another",
            _ => "wrong secret, wrong URL, or something else answers in the application's place",
        };
        let reason = format!("{what}: {}", said(judged));
        let delay = self.settings.schedule.probe_delay(self.consumer.endpoint(), 0, judged.retry_after);
        let mut breaker = self.state.breaker.clone();
        breaker.open(cause, &reason, now, delay);
        let level = if cause == Cause::Endpoint { Level::Warning } else { Level::Error };
        world.say(level, &format!("{reason}; items wait, the first probe is at {}", now.plus(delay)));
        self.pace.restart();
        self.move_breaker(breaker, now);
    }

    fn close_breaker(&mut self, why: &str, now: Timestamp, world: &mut impl World) {
        let mut breaker = self.state.breaker.clone();
        breaker.reset();
        world.say(Level::Note, &format!("{why}: delivery goes on"));
        self.move_breaker(breaker, now);
    }

    pub(super) fn move_breaker(&mut self, breaker: Breaker, now: Timestamp) {
        let event = Event::Breaker(BreakerDetail {
            queue: self.queue.name().as_str().to_owned(),
            endpoint: self.consumer.endpoint().to_owned(),
            url: self.state.url.clone(),
            breaker,
        });
        self.state.apply(&event, false);
        self.push(event, None, now);
    }

    /// The event's detail as far as every outcome has it: the mark goes on over what is settled in the window.
    fn detail(&mut self, job: &Job, judged: &Judgement, now: Timestamp) -> Detail {
        let cursor = self.window.pass_settled(self.state.cursor.offset);
        Detail {
            queue: self.queue.name().as_str().to_owned(),
            endpoint: self.consumer.endpoint().to_owned(),
            queue_offset: job.item.offset,
            cursor,
            at: now,
            status: judged.status,
            reason: judged.reason.to_owned(),
            answer: judged.answer.clone(),
            probe: job.is_probe,
            ahead: job.origin == Origin::Beyond,
            ..Detail::default()
        }
    }

    fn happened(
        &mut self,
        job: &Job,
        outcome: Outcome,
        detail: Detail,
        dead: Option<DeadLetter>,
        now: Timestamp,
    ) {
        if job.origin == Origin::Beyond && detail.ahead && outcome != Outcome::Retried {
            self.unread.was_read(job.item.offset);
        }
        let event = Event::Item {
            outcome,
            key: Some(job.item.key().to_owned()),
            scope: job.item.scope.clone(),
            detail: Box::new(detail),
        };
        self.state.apply(&event, false);
        self.push(event, dead, now);
    }

    pub(super) fn push(&mut self, event: Event, dead: Option<DeadLetter>, now: Timestamp) {
        self.events += 1;
        self.store.push(event, dead, now);
    }

    fn retry_of(&self, item: &Item) -> Option<Retry> {
        self.state.retry_of(item.scope.as_deref(), item.key(), item.offset).cloned()
    }

    fn compare_clocks(&mut self, date: Option<&str>, now: Timestamp, world: &mut impl World) {
        let Some(theirs) = date.and_then(backoff::http_date) else { return };
        let difference = now.since(theirs).max(theirs.since(now));
        let ahead_ms = theirs.millis().saturating_sub(now.millis());
        self.state.clock = Some(ClockDifference { ahead_ms, at_utc: now });
        if difference > CLOCK_DIFFERENCE_MAX && !self.has_said_clock {
            self.has_said_clock = true;
            let seconds = difference.as_secs();
            let text = format!(
                "this clock says {now}, the endpoint's {theirs}: {seconds} s apart; signatures may be refused"
            );
            world.say(Level::Warning, &text);
        }
    }
}

/// The status and words of an answer, for one line.
fn said(judged: &Judgement) -> String {
    match (judged.status, judged.answer.as_str()) {
        (Some(status), "") => format!("HTTP {status}"),
        (Some(status), answer) => format!("HTTP {status}: {answer}"),
        (None, "") => judged.reason.to_owned(),
        (None, answer) => format!("{}: {answer}", judged.reason),
    }
}

fn shown(key: &str) -> String {
    text::for_people(key).into_owned()
}
