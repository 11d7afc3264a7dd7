//! What comes of an attempt: judged, remembered, and put in line to become durable.
//!
//! # Invariants
//! - Whatever changes the state goes through an event.
//! - A failed probe uses no attempt, except that the contract's own rejection judges the item.
//!
//! Not here: which item is sent (`next`), how events become durable (`store`).

use super::{CLOCK_DIFFERENCE_MAX, Engine, Job, OWN_FAULT_TRIES, Origin, Outgoing, World};
use crate::{
    Result, Timestamp,
    audit::Outcome,
    delivery::{
        Level, Retry, backoff,
        breaker::{Breaker, Cause},
        event::{BreakerDetail, Detail, Event},
        item::Item,
        lanes::LaneName,
        state::attempt_of,
        verdict::{self, Attempted, Fault, Judgement, Verdict},
    },
    envelope::DeadLetter,
    identity, text,
};

impl Engine {
    pub(super) fn deliver(&mut self, job: &Job, world: &mut impl World) -> Result<()> {
        if !self.has_room {
            self.store.check_room()?;
            // A disk that takes no state takes no audit either; better to know before than after.
            self.store.touch();
            self.store.commit(&mut self.state)?;
            self.has_room = true;
        }
        let item = &job.item;
        let webhook_id = identity::webhook_id(&identity::trace_id(item.key()));
        let outgoing = Outgoing { route: item.route, webhook_id: &webhook_id, body: &item.body() };
        let attempted = world.post(&outgoing);
        let now = world.now();
        self.follow_clock(now);
        self.compare_clocks(&attempted, now, world);
        let judged = verdict::judge(&attempted, &item.id, self.settings.ack, now);
        match &judged.verdict {
            Verdict::Acknowledged { duplicate, .. } => {
                self.acknowledged(job, &judged, *duplicate, now, world);
            }
            Verdict::Failed(fault) => self.failed(job, &judged, *fault, now, world),
            // Only a ping is answered so, and no item is one.
            Verdict::Pong => self.failed(job, &judged, Fault::Configuration, now, world),
        }
        if judged.is_gone {
            let mut breaker = self.state.breaker.clone();
            let reason = format!("the endpoint wants no more deliveries ({})", said(&judged));
            breaker.hold(Cause::Gone, &reason, now);
            self.move_breaker(breaker, now);
            world.say(Level::Error, &format!("{reason}; all is held until --release"));
        }
        Ok(())
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
    ) {
        let item = &job.item;
        let key = item.key();
        let detail = Detail { fault: Some(fault), ..self.detail(job, judged, now) };
        if fault == Fault::Gone {
            let detail = Detail { cursor: self.state.cursor.offset, ahead: false, ..detail };
            self.happened(job, Outcome::Retried, detail, None, now);
            // It was found, but stays where it is: what finds it again must begin anew.
            self.sweep = None;
            return;
        }
        let cause = self.state.breaker.cause;
        if job.is_probe && (fault != Fault::Item || cause == Some(Cause::Items)) {
            self.probe_failed(job, judged, detail, now, world);
            return;
        }
        let before = self.retry_of(item);
        let tries = before.as_ref().map_or(0, |it| it.tries) + 1;
        let others_passed = before.as_ref().is_some_and(|it| self.state.acks() > it.acks_at_first);
        let own = before.as_ref().is_some_and(|it| it.is_own) || (tries >= OWN_FAULT_TRIES && others_passed);
        let opens = if job.is_probe { None } else { self.state.breaker.would_open(fault, own) };
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
            let reason = if is_rejected {
                format!("rejected: {}", said(judged))
            } else if attempt >= schedule.attempts_max {
                format!("given up after {attempt} attempts: {}", said(judged))
            } else {
                format!("given up as too old after {attempt} attempts: {}", said(judged))
            };
            world.say(Level::Warning, &format!("{}: dead letter: {reason}", shown(key)));
            let endpoint = self.consumer.endpoint();
            let dead = DeadLetter::new(item.envelope.clone(), endpoint, reason, attempts, now, item.offset);
            self.happened(job, Outcome::DeadLettered, detail, Some(dead), now);
            self.counts.dead_lettered += 1;
            if job.is_probe {
                self.close_breaker("the application judges again", now, world);
            }
            return;
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
        }
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

    /// The event's detail as far as every outcome has it: the mark goes on if the item stood at it.
    fn detail(&self, job: &Job, judged: &Judgement, now: Timestamp) -> Detail {
        let cursor = if job.origin == Origin::Mark { job.item.end } else { self.state.cursor.offset };
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

    fn compare_clocks(&mut self, attempted: &Attempted, now: Timestamp, world: &mut impl World) {
        let Attempted::Answered(answer) = attempted else { return };
        let Some(theirs) = answer.date.as_deref().and_then(backoff::http_date) else { return };
        let difference = now.since(theirs).max(theirs.since(now));
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
