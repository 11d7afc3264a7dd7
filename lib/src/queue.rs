//! A delivery queue: one record for each event that is to be delivered, and where its source goes on.
//!
//! # Invariants
//! - Every record carries `resume`: the position in the source after the line that it came from (J7). The last
//!   record says where to go on; a record that came from no line copies the one before.
//! - A key is enqueued once. Only a redriven or resent record has a key that is there already, and such a
//!   record names its endpoint.
//!
//! Not here: what is read from the source (`enqueue`), what becomes of the records (`delivery`).

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use crate::{
    Error, Kind, Result,
    envelope::EventEnvelope,
    event::MilestoneEvent,
    journal::{Described, Journal, JournalName, Position},
    logs::Logs,
    state_file::{self, Loaded},
};

/// The queue of milestones.
pub const MILESTONE_QUEUE: &str = "milestone-delivery-queue.jsonl";

/// The queue `name` of a logs folder.
pub fn open(logs: &Logs, name: JournalName) -> Journal {
    Journal::new(logs, name, describe)
}

/// What settling must know of an envelope.
pub fn describe(line: &[u8]) -> Option<Described> {
    let record = EventEnvelope::from_line(line).ok()?;
    let scope = scope_of(&record);
    Some(Described { key: record.idempotency_key, scope })
}

/// The scope of the event in an envelope: its payload's `scope`, if it has one.
pub fn scope_of(record: &EventEnvelope) -> Option<String> {
    #[derive(Deserialize)]
    struct Scoped {
        scope: Option<String>,
    }
    serde_json::from_str::<Scoped>(record.payload.get()).ok()?.scope
}

/// The look-up keys of a queue record: the key of an event, or for which endpoint it is there once more and
/// which dead letter was put back by it.
pub fn keys_of(line: &[u8], each: &mut dyn FnMut(&str)) {
    #[derive(Deserialize)]
    struct Keys<'l> {
        #[serde(borrow)]
        idempotency_key: Cow<'l, str>,
        #[serde(borrow)]
        endpoint: Option<Cow<'l, str>>,
        redrive_of: Option<u64>,
    }
    match serde_json::from_slice(line) {
        Ok(Keys { endpoint: None, idempotency_key, .. }) => each(&event_key(&idempotency_key)),
        Ok(Keys { endpoint: Some(endpoint), idempotency_key, redrive_of }) => {
            each(&again_key(&endpoint, &idempotency_key));
            if let Some(offset) = redrive_of {
                each(&redrive_key(&endpoint, offset));
            }
        }
        Err(_) => {}
    }
}

/// The look-up key of an event.
pub fn event_key(idempotency_key: &str) -> String {
    ["event ", idempotency_key].concat()
}

/// The look-up key of an event that was put in once more for one endpoint, resent or redriven.
pub fn again_key(endpoint: &str, idempotency_key: &str) -> String {
    // The name of an endpoint has no space, so no two of these are alike.
    format!("again {endpoint} {idempotency_key}")
}

/// The look-up key of a dead letter that was put back.
pub fn redrive_key(endpoint: &str, dead_letter: u64) -> String {
    format!("redrive {endpoint} {dead_letter}")
}

/// The content of a source line: a milestone, or an event that is in its envelope already.
pub fn event_of(line: &[u8], now: crate::Timestamp) -> Result<EventEnvelope, String> {
    let words = |errors: Vec<crate::schema::FieldError>| {
        errors.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
    };
    match MilestoneEvent::from_line(line) {
        Ok(event) => EventEnvelope::for_milestone(&event, now).map_err(|it| it.to_string()),
        Err(errors) => {
            let is_envelope = memchr::memmem::find(line, b"\"event_type\"").is_some();
            if is_envelope { EventEnvelope::from_line(line).map_err(words) } else { Err(words(errors)) }
        }
    }
}

/// `X-source.json`: where to begin while the queue has no later record (`--from-now`, `--resync`).
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Start {
    version: u32,
    source: String,
    #[serde(flatten)]
    position: Position,
    /// Where the queue ended when this was said; a record behind it says more.
    queue_offset: u64,
}

const START_VERSION: u32 = 1;

fn start_file(queue: &JournalName) -> String {
    format!("{}-source.json", queue.stem().unwrap_or(queue.as_str()))
}

/// What `X-source.json` says.
#[derive(Clone, Debug)]
pub struct StartSaid {
    /// The journal that the queue is filled from.
    pub source: JournalName,
    /// Where to begin in it.
    pub position: Position,
    /// Where the queue ended when this was said.
    pub queue_offset: u64,
}

/// What `X-source.json` of a queue says, if it is there and can be read.
pub fn start_of(logs: &Logs, queue: &JournalName) -> Option<StartSaid> {
    match state_file::load::<Start>(logs, &start_file(queue)) {
        Ok(Loaded::Found(Start { source, position, queue_offset, .. })) => {
            Some(StartSaid { source: JournalName::internal(source), position, queue_offset })
        }
        _ => None,
    }
}

/// Where the queue's writer goes on in `source`.
pub fn resume(queue: &Journal, source: &JournalName) -> Result<Position> {
    let last = queue.last_line()?;
    let file = start_file(queue.name());
    let start = match state_file::load::<Start>(queue.logs(), &file)? {
        Loaded::Found(start) if start.version == START_VERSION && start.source == source.as_str() => {
            Some(start)
        }
        Loaded::Found(_) | Loaded::Missing => None,
        Loaded::Damaged(why) => {
            return Err(Error::new(Kind::BadData, why, "says where to begin and cannot be read")
                .cure("say it again with --resync start, end or an offset"));
        }
    };
    let end = last.as_ref().map_or(0, |(position, _)| position.offset);
    if let Some(start) = start.filter(|it| it.queue_offset >= end) {
        return Ok(start.position);
    }
    let Some((_, line)) = last else { return Ok(Position::default()) };
    let record = EventEnvelope::from_line(&line).map_err(|errors| {
        let why = errors.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        Error::new(Kind::BadData, queue.name().file(), format!("the last record is damaged: {why}"))
            .cure("go on with --resync start (what is there is not enqueued again), end or an offset")
    })?;
    match record.resume {
        Some(position) => Ok(position),
        None => Err(Error::new(Kind::BadData, queue.name().file(), "the last record has no resume")
            .cure("go on with --resync start (what is there is not enqueued again), end or an offset")),
    }
}

/// Whether somebody has said where to begin.
pub fn has_start(queue: &Journal) -> bool {
    queue.logs().dir().join(start_file(queue.name())).exists()
}

/// Sets where the queue's writer goes on in `source`, whatever the queue's last record says.
pub fn begin_at(queue: &Journal, source: &JournalName, position: Position) -> Result<()> {
    let queue_offset = queue.last_line()?.map_or(0, |(position, _)| position.offset);
    let start = Start { version: START_VERSION, source: source.to_string(), position, queue_offset };
    state_file::save(queue.logs(), &start_file(queue.name()), &start)
}
