//! What has become of an event at each endpoint, and what its next attempt hangs on.
//!
//! # Invariants
//! - The state is brought up to the audit first, as the deliverer does at its start: so what is said is what the next
//!   run will find.
//! - Nothing is guessed: limits that only the deliverer's command line knows are given as its defaults, and said to be.

use std::time::Duration;

use serde::Serialize;

use super::{
    Step,
    trace::{Audited, Place, Trace, address_of, each_line, file_of, queues},
};
use crate::{
    Result, Timestamp,
    delivery::{
        Consumer, Event, LANES_MAX, LaneName, State,
        backoff::{self, Schedule},
        breaker::Breaker,
    },
    inventory,
    journal::JournalName,
    logs::Logs,
    state_file::{self, Loaded},
    text::quoted,
};

/// What has become of an event at an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Fate {
    /// The endpoint has it.
    Acknowledged,
    /// It is not settled yet.
    Pending,
    /// It was given up, and is neither put back nor closed.
    DeadLettered,
    /// It was given up, and closed by an operator.
    Discarded,
    /// The deliverer was set to a place behind it.
    PassedOver,
}

/// One endpoint's view of an event.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Delivery {
    /// The queue's file.
    pub queue: String,
    /// The endpoint's name; empty for the one without a name.
    pub endpoint: String,
    /// Where is sent to, as far as the state says it.
    pub url: Option<String>,
    /// What has become of it.
    pub fate: Fate,
    /// Logical offset of the queue record that this is about: the last one for this endpoint. None when it is not in
    /// the queue yet.
    pub queue_offset: Option<u64>,
    /// When it was settled.
    pub settled_utc: Option<Timestamp>,
    /// What its next attempt hangs on, while it is pending.
    pub next: Option<Next>,
}

/// The inputs to the next attempt.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Next {
    /// What must pass before it is sent, in this order.
    pub waits_for: Vec<Wait>,
    /// Not before this time, as far as that is known now.
    pub due_utc: Option<Timestamp>,
    /// Attempts used, for the limit.
    pub attempts: u32,
    /// After so many it is given up: the default, unless `--max-attempts` says otherwise.
    pub attempts_max: u32,
    /// Failed tries, for the backoff.
    pub tries: u32,
    /// When the first of them was.
    pub first_try_utc: Option<Timestamp>,
    /// By the next attempt that fails after this time it is given up, unless `--max-age` says otherwise.
    pub too_old_utc: Option<Timestamp>,
    /// When the last one was.
    pub last_try_utc: Option<Timestamp>,
    /// The HTTP status of the last answer.
    pub last_status: Option<u16>,
    /// What was wrong with it: a short name that never changes.
    pub last_reason: Option<String>,
    /// What the receiver said.
    pub last_answer: Option<String>,
    /// Whether others are acknowledged while it fails, so that every failure uses an attempt.
    pub own_fault: bool,
    /// How the delay after the last try was made.
    pub delay: Option<Delay>,
    /// The circuit breaker.
    pub breaker: Breaker,
    /// What stands before it in its scope.
    pub blocked_by: Option<Blocking>,
    /// Bytes of the queue between the high-water mark and it; 0 when the mark has passed it.
    pub behind_bytes: u64,
    /// Records of the queue there.
    pub behind_records: u64,
    /// Scopes that wait for a retry; at 10,000 nothing new is sent.
    pub lanes: usize,
}

/// What must pass before an event is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Wait {
    /// milestone-queue has not taken it yet.
    Queue,
    /// Delivery is held by an operator, or because the endpoint wanted no more.
    Release,
    /// The breaker is open: only probes are sent.
    Breaker,
    /// Another event of its scope waits for a retry.
    Scope,
    /// Its own next attempt is not due.
    Backoff,
    /// So many scopes wait that nothing new is sent.
    Pause,
    /// Others stand before it in the queue.
    Turn,
    /// Nothing: milestone-deliver sends it when it runs.
    Deliverer,
}

/// How a delay was made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Delay {
    /// The delay that counts, in milliseconds.
    pub delay_ms: u64,
    /// Who made it.
    pub by: DelayBy,
    /// What the schedule says for this try; that of the defaults when the server asked for more.
    pub scheduled_ms: u64,
    /// What jitter adds to that: a fraction of a quarter of it.
    pub jitter_ms: u64,
    /// The fraction is the first 32 bits of SHA-256 of this text.
    pub jitter_of: String,
}

/// Who made a delay.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum DelayBy {
    /// The schedule, as it is without flags.
    Default,
    /// The schedule as flags have set it (`--backoff-base`, `--backoff-cap`).
    Flags,
    /// The endpoint (`Retry-After`).
    Server,
}

/// The event that stands before another one of its scope.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Blocking {
    /// Its key; none while its scope is looked through for the next one.
    pub idempotency_key: Option<String>,
    /// Its logical offset in the queue.
    pub queue_offset: u64,
    /// When its next attempt is due.
    pub due_utc: Option<Timestamp>,
}

/// Every endpoint of every queue that holds the event or should.
pub(super) fn deliveries(logs: &Logs, trace: &Trace, now: Timestamp) -> Result<Vec<Delivery>> {
    let mut deliveries = Vec::new();
    let due = trace.in_source().filter_map(|it| inventory::queue_of(&it.journal));
    let mut names: Vec<JournalName> = queues(logs)?.into_iter().chain(due).collect();
    names.sort();
    names.dedup();
    for queue in names {
        let is_due = trace.in_source().any(|it| inventory::queue_of(&it.journal).as_ref() == Some(&queue));
        let is_there = trace.in_queue(&queue).next().is_some();
        if !is_due && !is_there {
            continue;
        }
        let mut endpoints = inventory::endpoints(logs, &queue, "state", ".json")?;
        let audited = trace.audited.iter().filter(|it| it.text("queue") == Some(queue.as_str()));
        endpoints.extend(audited.filter_map(|it| it.text("endpoint").map(str::to_owned)));
        if endpoints.is_empty() {
            endpoints.insert(String::new());
        }
        for endpoint in endpoints {
            let consumer = Consumer::new(logs, queue.clone(), &endpoint)?;
            deliveries.push(delivery(&consumer, trace, now)?);
        }
    }
    Ok(deliveries)
}

fn delivery(consumer: &Consumer, trace: &Trace, now: Timestamp) -> Result<Delivery> {
    let state = state_now(consumer)?;
    let is_for = |it: &&Place| address_of(&it.line).is_none_or(|it| it == consumer.endpoint());
    let record = trace.in_queue(consumer.queue_name()).filter(is_for).last();
    let base = Delivery {
        queue: consumer.queue_name().file(),
        endpoint: consumer.endpoint().to_owned(),
        url: state.url.clone(),
        fate: Fate::Pending,
        queue_offset: record.map(|it| it.offset),
        settled_utc: None,
        next: None,
    };
    let Some(record) = record else {
        let next = Next { waits_for: vec![Wait::Queue], ..Next::new(&state) };
        return Ok(Delivery { next: Some(next), ..base });
    };
    let of_it = |it: &&Audited| {
        it.text("queue") == Some(consumer.queue_name().as_str())
            && it.text("endpoint") == Some(consumer.endpoint())
    };
    let settled = trace.audited.iter().filter(of_it).rfind(|it| {
        it.action == "deliver"
            && it.number("queueOffset") == Some(record.offset)
            && matches!(it.outcome.as_str(), "acknowledged" | "dead-lettered" | "quarantined")
    });
    let is_owed = state.owes(trace.scope.as_deref(), &trace.key, record.offset);
    let closed = trace.audited.iter().filter(of_it).rfind(|it| it.action == "discard");
    let fate = match (settled, is_owed) {
        (_, true) => Fate::Pending,
        (None, false) => Fate::PassedOver,
        (Some(it), false) if it.outcome == "acknowledged" => Fate::Acknowledged,
        (Some(it), false) if it.outcome == "quarantined" => Fate::PassedOver,
        (Some(it), false) if closed.is_some_and(|closed| closed.offset > it.offset) => Fate::Discarded,
        (Some(_), false) => Fate::DeadLettered,
    };
    if fate != Fate::Pending {
        let last = if fate == Fate::Discarded { closed } else { settled };
        return Ok(Delivery { fate, settled_utc: last.and_then(|it| it.timestamp), ..base });
    }
    let last = trace
        .audited
        .iter()
        .filter(of_it)
        .rfind(|it| it.outcome == "retried" && it.number("queueOffset") == Some(record.offset));
    Ok(Delivery { next: Some(next(consumer, &state, trace, record, last, now)?), ..base })
}

/// The state as the next run of the deliverer finds it.
fn state_now(consumer: &Consumer) -> Result<State> {
    let logs = consumer.logs();
    let mut state = match state_file::load::<State>(logs, &consumer.state_file())? {
        Loaded::Found(it) if it.endpoint == consumer.endpoint() => it,
        Loaded::Found(_) | Loaded::Missing | Loaded::Damaged(_) => State::new(consumer.endpoint()),
    };
    let (queue, endpoint) = (consumer.queue_name().as_str(), consumer.endpoint());
    each_line(logs, &JournalName::audit(), state.audit_offset, &mut |_, text| {
        if let Some(event) = Event::read(text, queue, endpoint) {
            state.apply(&event, true);
        }
        true
    })?;
    Ok(state)
}

impl Next {
    fn new(state: &State) -> Next {
        Next {
            waits_for: Vec::new(),
            due_utc: None,
            attempts: 0,
            attempts_max: Schedule::default().attempts_max,
            tries: 0,
            first_try_utc: None,
            too_old_utc: None,
            last_try_utc: None,
            last_status: None,
            last_reason: None,
            last_answer: None,
            own_fault: false,
            delay: None,
            breaker: state.breaker.clone(),
            blocked_by: None,
            behind_bytes: 0,
            behind_records: 0,
            lanes: state.retries.len(),
        }
    }
}

fn next(
    consumer: &Consumer,
    state: &State,
    trace: &Trace,
    record: &Place,
    last: Option<&Audited>,
    now: Timestamp,
) -> Result<Next> {
    let scope = trace.scope.as_deref();
    let mut next = Next::new(state);
    if let Some(last) = last {
        next.last_try_utc = last.text("at").and_then(|it| Timestamp::parse_utc(it).ok());
        next.last_status = last.number("status").and_then(|it| u16::try_from(it).ok());
        next.last_reason = last.text("reason").map(str::to_owned);
        next.last_answer = last.text("answer").filter(|it| !it.is_empty()).map(str::to_owned);
    }
    if let Some(retry) = state.retry_of(scope, &trace.key, record.offset) {
        let schedule = Schedule::default();
        next.attempts = retry.attempts;
        next.tries = retry.tries;
        next.first_try_utc = Some(retry.first);
        next.too_old_utc = Some(retry.first.plus(schedule.age_max));
        next.own_fault = retry.is_own;
        next.due_utc = Some(retry.due);
        next.delay = Some(delay_of(&trace.key, retry.tries, retry.delay));
    }
    let is_ahead = record.offset >= state.cursor.offset;
    if is_ahead {
        next.behind_bytes = record.offset - state.cursor.offset;
        each_line(consumer.logs(), consumer.queue_name(), state.cursor.offset, &mut |offset, _| {
            next.behind_records += u64::from(offset < record.offset);
            offset < record.offset
        })?;
    }
    next.blocked_by = blocking(state, scope, &trace.key, record.offset);
    next.waits_for = waits(state, &next, is_ahead, now);
    if next.due_utc.is_none() && state.breaker.is_open() {
        next.due_utc = state.breaker.due_utc;
    }
    Ok(next)
}

/// How the delay after a try was made. The flags of that run are not written down anywhere, but jitter tells: only one
/// scheduled delay makes this one with it. A server asks for whole seconds.
fn delay_of(key: &str, tries: u32, delay: Duration) -> Delay {
    let (scheduled, jitter) = Schedule::default().parts(key, tries);
    let made = |by, scheduled, jitter| Delay {
        delay_ms: millis(delay),
        by,
        scheduled_ms: millis(scheduled),
        jitter_ms: millis(jitter),
        jitter_of: format!("{key}:{tries}"),
    };
    if scheduled + jitter == delay {
        return made(DelayBy::Default, scheduled, jitter);
    }
    match backoff::scheduled_of(key, tries, delay) {
        Some(other) if delay.subsec_millis() != 0 => made(DelayBy::Flags, other, delay.saturating_sub(other)),
        _ => made(DelayBy::Server, scheduled, jitter),
    }
}

/// The event of the same scope that stands before the one at `offset`.
fn blocking(state: &State, scope: Option<&str>, key: &str, offset: u64) -> Option<Blocking> {
    let name = state
        .retries
        .covering(scope, key, offset)
        .or_else(|| scope.map(|it| LaneName::Scope(it.to_owned())))?;
    let lane = state.retries.get(&name).filter(|it| it.offset < offset)?;
    Some(Blocking {
        idempotency_key: lane.retry.as_ref().map(|it| it.key.clone()),
        queue_offset: lane.offset,
        due_utc: lane.retry.as_ref().map(|it| it.due),
    })
}

fn waits(state: &State, next: &Next, is_ahead: bool, now: Timestamp) -> Vec<Wait> {
    let mut waits = Vec::new();
    if state.breaker.is_held() {
        waits.push(Wait::Release);
    }
    if state.breaker.is_open() {
        waits.push(Wait::Breaker);
    }
    if next.blocked_by.is_some() {
        waits.push(Wait::Scope);
    }
    if next.delay.is_some() && next.due_utc.is_some_and(|it| it > now) {
        waits.push(Wait::Backoff);
    }
    if is_ahead && state.retries.len() >= LANES_MAX {
        waits.push(Wait::Pause);
    }
    if next.behind_records > 0 {
        waits.push(Wait::Turn);
    }
    if waits.is_empty() {
        waits.push(Wait::Deliverer);
    }
    waits
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// An audit record in words.
pub(super) fn step(logs: &Logs, it: &Audited) -> Step {
    let place = match (it.text("journal"), it.number("offset")) {
        (Some(journal), Some(offset)) => Some((journal, offset)),
        _ => it.text("queue").zip(it.number("queueOffset")),
    };
    let file = place.map(|(name, offset)| file_of(logs, &JournalName::internal(name), offset));
    Step {
        at_utc: it.timestamp,
        tool: Some(it.tool.clone()),
        action: it.action.clone(),
        outcome: it.outcome.clone(),
        endpoint: it.text("endpoint").map(str::to_owned),
        what: words(it),
        file,
        offset: place.map(|(_, offset)| offset),
        audit_offset: Some(it.offset),
    }
}

fn words(it: &Audited) -> String {
    let said = || {
        let status = it.number("status").map_or(String::new(), |it| format!("HTTP {it} "));
        let answer = it.text("answer").filter(|it| !it.is_empty()).or(it.text("reason")).unwrap_or_default();
        format!("{status}{answer}")
    };
    let due = || it.text("due").map_or(String::new(), |it| format!("; next not before {it}"));
    match (it.action.as_str(), it.outcome.as_str()) {
        ("emit", "appended") => "emitted".to_owned(),
        ("emit", "duplicate") => "emitted again: a duplicate, nothing changed".to_owned(),
        ("emit", "conflict") => "emitted again with other content: refused".to_owned(),
        ("remind", "reminded") => "a reminder was due".to_owned(),
        ("enqueue", "duplicate") => "met again in the source, passed over".to_owned(),
        ("deliver", "acknowledged") => {
            let receipt = it.detail["receipt"]["seq"].as_u64();
            let receipt = receipt.map_or(String::new(), |it| format!(", receipt: seq {it}"));
            format!("acknowledged as {}{receipt}", it.text("reason").unwrap_or_default())
        }
        ("deliver", "retried") if it.detail["probe"] == true => format!("probe failed: {}{}", said(), due()),
        ("deliver", "retried") => {
            format!("try {} failed: {}{}", it.number("tries").unwrap_or_default(), said(), due())
        }
        ("deliver", "dead-lettered") => format!("given up: {}", said()),
        ("deliver", "quarantined") => format!("no valid record, passed over: {}", said()),
        ("redrive", "queued") => "put back into the queue".to_owned(),
        ("resend", "queued") => "sent again by an operator".to_owned(),
        ("discard", _) => {
            format!("closed by an operator: {}", quoted(it.text("reason").unwrap_or_default()))
        }
        ("receive", "appended") => {
            format!("received here as seq {}", it.number("seq").unwrap_or_default())
        }
        ("receive", "duplicate") => "received here again: known already".to_owned(),
        ("receive", "conflict") => "refused here: its id has another content".to_owned(),
        ("receive", "rejected") => {
            format!("refused here: {}", it.text("reason").unwrap_or_default())
        }
        ("settle", "recovered") => "left by a killed writer, found whole and kept".to_owned(),
        (action, outcome) => format!("{action}: {outcome}"),
    }
}
