//! The loop: what is next, send it, judge the answer, remember what came of it.
//!
//! What is next, in this order: a probe while the breaker is open, else a retry that is due, else an item
//! of a lane that became free, else the next record beyond the mark.
//!
//! # Invariants
//! - An item is sent only when no other of its scope is unsettled before it (`--order scope`), none of the
//!   queue at all (`strict`), or whenever it is reached (`none`).
//! - Nothing is sent after an event could not be made durable.
//! - A pass in which nothing happened writes nothing.
//!
//! Not here: the wire, the clock and messages (behind [`World`]).

use std::{collections::BTreeSet, time::Duration};

use serde::Serialize;

use super::{
    Consumer, Level,
    backoff::Schedule,
    breaker::{Breaker, Cause, Gate},
    control::Control,
    event::{BreakerDetail, Detail, Event},
    item::{Head, Item, Route},
    lanes::{LANES_MAX, LaneName},
    state::{State, attempt_of},
    store::Store,
    verdict::{self, AckMode, Attempted, Fault, Judgement, Verdict},
};
use crate::{
    Result, Timestamp,
    audit::Outcome,
    envelope::DeadLetter,
    identity,
    journal::{self, Item as Found, Journal, Reader},
    state_file::{self, Loaded},
    text,
};

/// An item's own fault shows at this failed try, if another was acknowledged meanwhile.
const OWN_FAULT_TRIES: u32 = 3;
/// How far beyond the mark a probe is looked for.
const PROBE_RECORDS_MAX: usize = 1000;
/// Records passed over before commands and signals are looked for again.
const PASSED_MAX: usize = 4096;
/// A clock that differs more from the endpoint's is reported.
const CLOCK_DIFFERENCE_MAX: Duration = Duration::from_secs(60);
/// How often a long pass looks for the operator's commands.
const CONTROL_INTERVAL: Duration = Duration::from_millis(200);

/// Which items wait for which (`--order`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Order {
    /// Within a scope.
    #[default]
    Scope,
    /// All for the first unsettled one.
    Strict,
    /// None.
    None,
}

/// How to deliver.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// Where is sent to, as the state records it: another one resets the breaker.
    pub url: String,
    /// When failed attempts are repeated.
    pub schedule: Schedule,
    /// Which items wait for which.
    pub order: Order,
    /// What counts as an acknowledgement.
    pub ack: AckMode,
}

/// One request to be made.
#[derive(Debug)]
pub struct Outgoing<'a> {
    /// Which door it goes to.
    pub route: Route,
    /// The message's id in Standard Webhooks, without a full stop.
    pub webhook_id: &'a str,
    /// The bytes to be signed and sent.
    pub body: &'a [u8],
}

/// What the engine sees of the outside.
pub trait World {
    /// The time of day.
    fn now(&mut self) -> Timestamp;
    /// Makes one attempt.
    fn post(&mut self, outgoing: &Outgoing<'_>) -> Attempted;
    /// Whether to end after what is in flight.
    fn is_stopping(&self) -> bool;
    /// Tells a person.
    fn say(&mut self, level: Level, text: &str);
}

/// Why a pass ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pause {
    /// Nothing more is due; the next attempt is at this time, if one is known.
    Until(Option<Timestamp>),
    /// It was asked to end.
    Stopped,
}

/// What a run did and what is left.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Summary {
    /// Always `ok`.
    pub status: &'static str,
    /// Accepted by the receiver.
    pub delivered: u64,
    /// The receiver had them.
    pub duplicate: u64,
    /// Items that wait for another attempt now.
    pub retrying: u64,
    /// Given up.
    pub dead_lettered: u64,
    /// All that is not settled, those that wait for another attempt included.
    pub pending: u64,
    /// When the next attempt is due; null when none is planned.
    pub next_attempt_utc: Option<Timestamp>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    delivered: u64,
    duplicate: u64,
    dead_lettered: u64,
}

/// Where an item was found, and so what follows when it is settled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Origin {
    /// At the mark.
    Mark,
    /// In a lane.
    Lane,
    /// Beyond the mark, as a probe.
    Beyond,
}

#[derive(Debug)]
struct Job {
    item: Item,
    origin: Origin,
    is_probe: bool,
}

#[derive(Debug)]
enum Next {
    Send(Box<Job>),
    Wait(Option<Timestamp>),
    /// Something was settled without sending; look again.
    Again,
}

/// Delivers one queue to one endpoint. The caller holds the instance lock.
#[derive(Debug)]
pub struct Engine {
    consumer: Consumer,
    settings: Settings,
    queue: Journal,
    state: State,
    store: Store,
    forward: Reader,
    sweep: Option<Sweep>,
    counts: Counts,
    last_now: Timestamp,
    control_seen: Option<Timestamp>,
    has_room: bool,
    has_said_clock: bool,
    /// Events of this run.
    events: u64,
}

/// A pass over the queue below the mark, for the lanes that are free.
///
/// A lane that becomes free on the way takes part only if the pass has not left items of it behind: order
/// within the lane hangs on that. The next pass finds those.
#[derive(Debug)]
struct Sweep {
    reader: Reader,
    start: u64,
    left_behind: BTreeSet<LaneName>,
    has_found: bool,
}

impl Engine {
    /// Reads the state and makes ready to deliver.
    ///
    /// # Errors
    /// [`crate::Kind::BadData`] when the queue is not the one that the state was taken from (J5).
    pub fn open(consumer: &Consumer, settings: Settings, world: &mut impl World) -> Result<Engine> {
        let (store, state, note) = Store::open(consumer)?;
        if let Some(note) = note {
            world.say(Level::Warning, &note);
        }
        let now = world.now();
        let forward = Reader::open_at(consumer.logs(), consumer.queue_name(), state.cursor.offset)?;
        let mut engine = Engine {
            consumer: consumer.clone(),
            settings,
            queue: consumer.queue(),
            state,
            store,
            forward,
            sweep: None,
            counts: Counts::default(),
            last_now: now,
            control_seen: None,
            has_room: false,
            has_said_clock: false,
            events: 0,
        };
        if engine.state.rebase(now) {
            engine.store.touch();
        }
        engine.take_url(now, world);
        Ok(engine)
    }

    /// How much has happened in this run: a number that grows with every event.
    pub fn events(&self) -> u64 {
        self.events
    }

    /// What is remembered.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// Another URL is another endpoint: what the breaker knows is of the old one.
    fn take_url(&mut self, now: Timestamp, world: &mut impl World) {
        let url = Some(self.settings.url.clone());
        if self.state.url == url {
            return;
        }
        let was_known = self.state.url.is_some();
        self.state.url = url;
        let by_operator = self.state.breaker.cause == Some(Cause::Operator);
        if was_known && self.state.breaker != Breaker::default() && !by_operator {
            world.say(Level::Note, "the URL is another one: the breaker is reset");
            let mut breaker = self.state.breaker.clone();
            breaker.reset();
            self.move_breaker(breaker, now);
        }
    }

    /// Delivers what is due. All that happened is on disk when this returns; see also [`Engine::finish`].
    ///
    /// # Errors
    /// What stops delivery altogether; the next run goes on from what is on disk.
    pub fn run(&mut self, world: &mut impl World) -> Result<Pause> {
        self.queue.settle_if_needed()?;
        self.forward.refresh()?;
        loop {
            let now = world.now();
            self.follow_clock(now);
            self.follow_control(now, world)?;
            if world.is_stopping() {
                self.store.commit_group(&mut self.state)?;
                return Ok(Pause::Stopped);
            }
            match self.next(now, world)? {
                Next::Send(job) => self.deliver(&job, world)?,
                Next::Wait(until) => {
                    self.store.commit_group(&mut self.state)?;
                    return Ok(Pause::Until(until));
                }
                Next::Again => {}
            }
            if self.store.is_due(world.now()) {
                self.store.commit_group(&mut self.state)?;
            }
        }
    }

    /// Saves the state before the consumer is left. Without it nothing is lost, but more is read back.
    pub fn finish(&mut self) -> Result<()> {
        self.store.commit(&mut self.state)
    }

    /// Whether something may have come up since the last pass: records, commands, or a due time.
    pub fn has_more(&mut self, now: Timestamp) -> Result<bool> {
        let seen = self.forward.end();
        let has_new = self.forward.refresh()? > seen;
        let control = self.consumer.control();
        let control_end = Reader::open_at(self.consumer.logs(), control.name(), 0)?.end();
        let is_due = self.state.retries.first_due().is_some_and(|(due, _)| due <= now);
        let is_closed = self.state.breaker.state == Gate::Closed;
        Ok(control_end > self.state.control_offset || is_closed && (has_new || is_due))
    }

    /// What this run did so far and what is left. Costs a look at every record beyond the mark.
    pub fn summary(&mut self, next: Option<Timestamp>) -> Result<Summary> {
        Ok(Summary {
            status: "ok",
            delivered: self.counts.delivered,
            duplicate: self.counts.duplicate,
            retrying: self.state.retries.retrying() as u64,
            dead_lettered: self.counts.dead_lettered,
            pending: pending(&self.consumer, &self.state)?,
            next_attempt_utc: next,
        })
    }

    /// A clock that went back would put due times off.
    fn follow_clock(&mut self, now: Timestamp) {
        if now < self.last_now && self.state.rebase(now) {
            self.store.touch();
        }
        self.last_now = now;
    }

    fn follow_control(&mut self, now: Timestamp, world: &mut impl World) -> Result<()> {
        let is_early = |seen: Timestamp| now >= seen && now.since(seen) < CONTROL_INTERVAL;
        if self.control_seen.is_some_and(is_early) {
            return Ok(());
        }
        self.control_seen = Some(now);
        let breaker = self.state.breaker.clone();
        let journal = self.consumer.control();
        let mut reader = Reader::open_at(self.consumer.logs(), journal.name(), self.state.control_offset)?;
        while let Some(found) = reader.next_item()? {
            let (Found::Line { end, .. } | Found::Overlong { end, .. }) = found;
            if let Found::Line { text, .. } = found
                && let Ok(control) = serde_json::from_slice::<Control>(text)
            {
                world.say(Level::Note, &format!("told to {}", control.command));
                self.state.follow(&control.command, now);
            }
            self.state.control_offset = end;
            self.store.touch();
        }
        // The command itself was audited when it was given, maybe before a move of the breaker that came
        // before it was followed; so where it led is audited too.
        if self.state.breaker != breaker {
            self.move_breaker(self.state.breaker.clone(), now);
        }
        Ok(())
    }

    // What is next.

    fn next(&mut self, now: Timestamp, world: &mut impl World) -> Result<Next> {
        if self.state.breaker.is_held() {
            return Ok(Next::Wait(None));
        }
        if self.state.breaker.is_open() {
            return self.next_probe(now, world);
        }
        let lanes = &self.state.retries;
        if self.settings.order == Order::Strict && !lanes.is_empty() {
            return match lanes.first() {
                Some((_, lane)) => match &lane.retry {
                    Some(retry) if retry.due > now => Ok(Next::Wait(Some(retry.due))),
                    Some(_) => {
                        let offset = lane.offset;
                        self.send_from_lane(offset, false, now, world)
                    }
                    None => self.next_swept(now, world),
                },
                None => Ok(Next::Again),
            };
        }
        let due = lanes.due(now).next().map(|(_, lane)| lane.offset);
        if let Some(offset) = due {
            return self.send_from_lane(offset, false, now, world);
        }
        if self.state.retries.first_free().is_some() {
            return self.next_swept(now, world);
        }
        // At the limit only the retries go on, until one of them is settled.
        if self.state.retries.len() < LANES_MAX
            && let Some(next) = self.next_forward(now, world)?
        {
            return Ok(next);
        }
        Ok(Next::Wait(self.state.retries.first_due().map(|(due, _)| due)))
    }

    /// The first unsettled item of a lane.
    fn send_from_lane(
        &mut self,
        offset: u64,
        is_probe: bool,
        now: Timestamp,
        world: &mut impl World,
    ) -> Result<Next> {
        let mut reader = Reader::open_at(self.consumer.logs(), self.queue.name(), offset)?;
        let Some(Found::Line { offset, end, text }) = reader.next_item()? else {
            // Below the mark, so it was there: the queue was cut meanwhile, and its reader says so.
            self.forward.refresh()?;
            return Ok(Next::Wait(None));
        };
        match Item::read(offset, end, text) {
            Ok(item) => Ok(Next::Send(Box::new(Job { item, origin: Origin::Lane, is_probe }))),
            Err(why) => {
                let text = text.to_vec();
                self.quarantine(offset, self.state.cursor.offset, &text, &why, now, world)?;
                Ok(Next::Again)
            }
        }
    }

    /// The next item of a free lane. A sweep that finds none proves that none is there.
    fn next_swept(&mut self, now: Timestamp, world: &mut impl World) -> Result<Next> {
        if self.sweep.is_none() {
            let Some(from) = self.state.retries.first_free() else { return Ok(Next::Again) };
            let reader = Reader::open_at(self.consumer.logs(), self.queue.name(), from)?;
            self.sweep = Some(Sweep { reader, start: from, left_behind: BTreeSet::new(), has_found: false });
        }
        let Some(sweep) = &mut self.sweep else { return Ok(Next::Again) };
        while self.state.retries.first_free().is_some() && sweep.reader.offset() < self.state.cursor.offset {
            let Some(found) = sweep.reader.next_item()? else { break };
            let Found::Line { offset, end, text } = found else { continue };
            let Some(head) = Head::read(text).filter(|it| it.is_for(self.consumer.endpoint())) else {
                continue;
            };
            let lanes = &mut self.state.retries;
            let Some(name) = lanes.covering(head.scope.as_deref(), &head.key, offset) else { continue };
            let Some(lane) = lanes.get(&name) else { continue };
            if lane.retry.is_some() || lane.offset < sweep.start || sweep.left_behind.contains(&name) {
                sweep.left_behind.insert(name);
                continue;
            }
            sweep.has_found = true;
            if self.state.cursor.ahead.remove(&offset) {
                lanes.settle(&name, offset, false);
                self.store.touch();
                continue;
            }
            return match Item::read(offset, end, text) {
                Ok(item) => Ok(Next::Send(Box::new(Job { item, origin: Origin::Lane, is_probe: false }))),
                Err(why) => {
                    let text = text.to_vec();
                    self.quarantine(offset, self.state.cursor.offset, &text, &why, now, world)?;
                    Ok(Next::Again)
                }
            };
        }
        if !sweep.has_found {
            self.state.retries.drop_all_free();
            self.store.touch();
        }
        self.sweep = None;
        Ok(Next::Again)
    }

    /// The next record beyond the mark that nothing blocks; `None` at the end of the queue.
    fn next_forward(&mut self, now: Timestamp, world: &mut impl World) -> Result<Option<Next>> {
        if self.forward.offset() != self.state.cursor.offset {
            self.forward.seek(self.state.cursor.offset);
        }
        for _ in 0..PASSED_MAX {
            let Some(found) = self.forward.next_item()? else { return Ok(None) };
            let (offset, end, text) = match found {
                Found::Line { offset, end, text } => (offset, end, text),
                Found::Overlong { offset, end } => {
                    let bytes = self.queue.bytes(offset, end)?;
                    self.quarantine(offset, end, &bytes, "is longer than any record", now, world)?;
                    return Ok(Some(Next::Again));
                }
            };
            let Some(head) = Head::read(text) else {
                let text = text.to_vec();
                self.quarantine(offset, end, &text, "is no record of a queue", now, world)?;
                return Ok(Some(Next::Again));
            };
            let is_passed = !head.is_for(self.consumer.endpoint()) || self.state.cursor.ahead.remove(&offset);
            let blocking = if is_passed {
                None
            } else {
                self.state.retries.covering(head.scope.as_deref(), &head.key, offset)
            };
            if let Some(name) = &blocking {
                self.state.retries.wait_behind(name);
            }
            if is_passed || blocking.is_some() {
                self.state.cursor.offset = end;
                self.store.touch();
                continue;
            }
            return match Item::read(offset, end, text) {
                Ok(item) => {
                    let job = Job { item, origin: Origin::Mark, is_probe: false };
                    Ok(Some(Next::Send(Box::new(job))))
                }
                Err(why) => {
                    let text = text.to_vec();
                    self.quarantine(offset, end, &text, &why, now, world)?;
                    Ok(Some(Next::Again))
                }
            };
        }
        Ok(Some(Next::Again))
    }

    /// The next probe: in turn a retry that is due and a fresh item, each time of another scope.
    fn next_probe(&mut self, now: Timestamp, world: &mut impl World) -> Result<Next> {
        let breaker = &self.state.breaker;
        let due = breaker.due(now);
        if due > now {
            return Ok(Next::Wait(Some(due)));
        }
        let (probes, waiting, beyond) = (breaker.probes, breaker.probed_waiting, breaker.probed_beyond);
        let is_strict = self.settings.order == Order::Strict;
        let from_lane = self.lane_to_probe(waiting, now);
        let may_read = !(is_strict && !self.state.retries.is_empty());
        let beyond = if may_read && (from_lane.is_none() || probes % 2 == 1) {
            self.beyond_to_probe(beyond)?
        } else {
            None
        };
        if let Some(item) = beyond {
            return Ok(Next::Send(Box::new(Job { item, origin: Origin::Beyond, is_probe: true })));
        }
        if let Some(offset) = from_lane {
            return self.send_from_lane(offset, true, now, world);
        }
        if self.state.retries.first_free().is_some() {
            // A probe that fails leaves the lane as it is, so the sweep begins anew.
            self.sweep = None;
            let next = self.next_swept(now, world)?;
            return Ok(match next {
                Next::Send(job) => Next::Send(Box::new(Job { is_probe: true, ..*job })),
                other => other,
            });
        }
        Ok(Next::Wait(self.state.retries.first_due().map(|(due, _)| due)))
    }

    /// The first item of a lane whose retry is due, after the last probed one in the order of the queue.
    fn lane_to_probe(&self, probed: Option<u64>, now: Timestamp) -> Option<u64> {
        if self.settings.order == Order::Strict {
            let (_, lane) = self.state.retries.first()?;
            return lane.retry.as_ref().filter(|it| it.due <= now).map(|_| lane.offset);
        }
        let offsets = || self.state.retries.due(now).map(|(_, lane)| lane.offset);
        let after = probed.and_then(|last| offsets().filter(|it| *it > last).min());
        after.or_else(|| offsets().min())
    }

    /// An item beyond the mark that is the first of its scope, after the last probed one.
    fn beyond_to_probe(&mut self, probed: Option<u64>) -> Result<Option<Item>> {
        let mut reader = Reader::open_at(self.consumer.logs(), self.queue.name(), self.state.cursor.offset)?;
        let mut seen: BTreeSet<LaneName> = BTreeSet::new();
        let mut first = None;
        for _ in 0..PROBE_RECORDS_MAX {
            let Some(found) = reader.next_item()? else { break };
            let Found::Line { offset, end, text } = found else { continue };
            let Some(head) = Head::read(text).filter(|it| it.is_for(self.consumer.endpoint())) else {
                continue;
            };
            let scope = head.scope.as_deref();
            let is_settled = self.state.cursor.ahead.contains(&offset);
            if is_settled || self.state.retries.covering(scope, &head.key, offset).is_some() {
                continue;
            }
            if !seen.insert(self.lane_name(scope, &head.key)) {
                continue;
            }
            if probed.is_none_or(|last| offset > last) {
                first = Some((offset, end, text.to_vec()));
                break;
            }
            first.get_or_insert_with(|| (offset, end, text.to_vec()));
            if self.settings.order == Order::Strict {
                break;
            }
        }
        // One that is invalid is found out when the mark comes to it.
        Ok(first.and_then(|(offset, end, text)| Item::read(offset, end, &text).ok()))
    }

    fn lane_name(&self, scope: Option<&str>, key: &str) -> LaneName {
        match scope {
            Some(scope) if self.settings.order != Order::None => LaneName::Scope(scope.to_owned()),
            _ => LaneName::Item(key.to_owned()),
        }
    }

    // What came of it.

    fn deliver(&mut self, job: &Job, world: &mut impl World) -> Result<()> {
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
                self.acknowledged(job, &judged, *duplicate, now, world)
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
            self.counts.duplicate += 1
        } else {
            self.counts.delivered += 1
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
        let detail = Detail { attempt, tries, own, counted, ..detail };
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

    fn move_breaker(&mut self, breaker: Breaker, now: Timestamp) {
        let event = Event::Breaker(BreakerDetail {
            queue: self.queue.name().as_str().to_owned(),
            endpoint: self.consumer.endpoint().to_owned(),
            url: self.state.url.clone(),
            breaker,
        });
        self.state.apply(&event, false);
        self.push(event, None, now);
    }

    fn quarantine(
        &mut self,
        offset: u64,
        cursor: u64,
        line: &[u8],
        why: &str,
        now: Timestamp,
        world: &mut impl World,
    ) -> Result<()> {
        let kept = journal::keep_in_quarantine(self.consumer.logs(), self.queue.name(), offset, line)?;
        let file = self.queue.name().file();
        world.say(
            Level::Error,
            &format!("{file}: offset {offset}: {why}; kept in quarantine and passed over"),
        );
        let head = Head::read(line);
        let detail = Box::new(Detail {
            queue: self.queue.name().as_str().to_owned(),
            endpoint: self.consumer.endpoint().to_owned(),
            queue_offset: offset,
            cursor,
            at: now,
            reason: "invalid-record".to_owned(),
            answer: why.to_owned(),
            quarantine: Some(kept),
            ..Detail::default()
        });
        let key = head.as_ref().map(|it| it.key.to_string()).filter(|it| !it.is_empty());
        let scope = head.and_then(|it| it.scope).map(|it| it.to_string());
        let event = Event::Item { outcome: Outcome::Quarantined, key, scope, detail };
        self.state.apply(&event, false);
        self.push(event, None, now);
        Ok(())
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

    fn push(&mut self, event: Event, dead: Option<DeadLetter>, now: Timestamp) {
        self.events += 1;
        self.store.push(event, dead, now);
    }

    fn retry_of(&self, item: &Item) -> Option<super::Retry> {
        self.state.retry_of(item.scope.as_deref(), item.key(), item.offset).cloned()
    }

    fn compare_clocks(&mut self, attempted: &Attempted, now: Timestamp, world: &mut impl World) {
        let Attempted::Answered(answer) = attempted else { return };
        let Some(theirs) = answer.date.as_deref().and_then(super::backoff::http_date) else { return };
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

/// What another instance has saved, and how much is not settled by it; none when it has saved nothing yet.
pub fn outlook(consumer: &Consumer) -> Result<Option<(State, u64)>> {
    Ok(match state_file::load::<State>(consumer.logs(), &consumer.state_file())? {
        Loaded::Found(state) => {
            let pending = pending(consumer, &state)?;
            Some((state, pending))
        }
        Loaded::Missing | Loaded::Damaged(_) => None,
    })
}

/// Items of this consumer that are not settled: what waits in lanes, and every record beyond the mark.
fn pending(consumer: &Consumer, state: &State) -> Result<u64> {
    let mut reader = Reader::open_at(consumer.logs(), consumer.queue_name(), state.cursor.offset)?;
    let mut beyond = 0;
    while let Some(found) = reader.next_item()? {
        let Found::Line { offset, text, .. } = found else { continue };
        // Only redriven and resent records are meant for one endpoint; most lines need no parsing.
        let is_addressed = memchr::memmem::find(text, b"\"endpoint\":").is_some();
        if is_addressed && !Head::read(text).is_some_and(|it| it.is_for(consumer.endpoint())) {
            continue;
        }
        if !state.cursor.ahead.contains(&offset) {
            beyond += 1;
        }
    }
    Ok(state.retries.unsettled() + beyond)
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
