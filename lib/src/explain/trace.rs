//! Everything that the journals hold of one event.
//!
//! # Invariants
//! - A place that the audit or an index names is believed after the record there was read.
//!
//! Not here: what follows for its deliveries (`outlook`).

use std::collections::BTreeMap;

use memchr::memmem::Finder;
use serde::Deserialize;
use serde_json::{Value, value::RawValue};

use super::{Record, Step};
use crate::{
    Result, Timestamp, emit, identity,
    index::Index,
    inventory,
    journal::{Extent, Journal, JournalName, Lines, lines_from},
    logs::Logs,
    queue,
};

/// An audit record of the event.
#[derive(Debug, Deserialize)]
pub(super) struct Audited {
    #[serde(skip)]
    pub offset: u64,
    pub timestamp: Option<Timestamp>,
    pub tool: String,
    pub action: String,
    pub outcome: String,
    pub trace_id: Option<String>,
    pub idempotency_key: Option<String>,
    pub scope: Option<String>,
    pub detail: Value,
}

impl Audited {
    /// A field of the detail as text.
    pub fn text(&self, field: &str) -> Option<&str> {
        self.detail[field].as_str()
    }

    /// A field of the detail as a number.
    pub fn number(&self, field: &str) -> Option<u64> {
        self.detail[field].as_u64()
    }
}

/// A record of the event in a journal.
#[derive(Debug)]
pub(super) struct Place {
    pub journal: JournalName,
    pub offset: u64,
    pub line: Vec<u8>,
}

/// See the head of this file.
#[derive(Debug)]
pub(super) struct Trace {
    pub key: String,
    pub scope: Option<String>,
    pub audited: Vec<Audited>,
    /// By journal and offset.
    pub places: BTreeMap<(JournalName, u64), Place>,
    logs: Logs,
}

/// What every record of an event says about who it is, whichever journal it is in.
#[derive(Deserialize)]
struct Identity {
    #[serde(alias = "idempotencyKey")]
    idempotency_key: Option<String>,
    #[serde(rename = "milestoneId")]
    milestone_id: Option<String>,
}

impl Trace {
    /// Looks for an event with one of these trace ids.
    pub fn find(logs: &Logs, names: &[String]) -> Result<Option<Trace>> {
        let mut audited = audit_of(logs, names)?;
        // The first of the names that anything is known of: an id may look like another event's trace.
        let known = names.iter().find(|name| audited.iter().any(|it| it.trace_id.as_ref() == Some(*name)));
        if let Some(name) = known {
            audited.retain(|it| it.trace_id.as_ref() == Some(name));
        }
        let key = audited.iter().find_map(|it| it.idempotency_key.clone());
        let scope = audited.iter().find_map(|it| it.scope.clone());
        let key = match key {
            Some(it) => it,
            // No audit record tells of it, and yet it may be there.
            None => match in_queues(logs, names)? {
                Some(it) => it,
                None => return Ok(None),
            },
        };
        let mut trace = Trace { key, scope, audited, places: BTreeMap::new(), logs: logs.clone() };
        trace.follow_audit();
        trace.look_into_sources()?;
        trace.look_into_queues()?;
        if trace.scope.is_none() {
            trace.scope = trace.places.values().find_map(|it| queue::describe(&it.line)?.scope);
        }
        Ok(Some(trace))
    }

    /// The records that the audit names.
    fn follow_audit(&mut self) {
        let mut named = Vec::new();
        for it in &self.audited {
            let journal = it.text("journal").map(|name| (name.to_owned(), it.number("offset")));
            let queued = it.text("queue").map(|name| (name.to_owned(), it.number("queueOffset")));
            named.extend([journal, queued].into_iter().flatten());
            // A duplicate names the first one.
            if let Some(offset) = it.number("of") {
                named.push((emit::SOURCE.to_owned(), Some(offset)));
            }
        }
        for (name, offset) in named {
            if let Some(offset) = offset {
                self.take(&JournalName::internal(name), offset);
            }
        }
    }

    /// Reads the record at a place, if it is one of this event. Says whether it is.
    fn take(&mut self, name: &JournalName, offset: u64) -> bool {
        let place = (name.clone(), offset);
        if self.places.contains_key(&place) {
            return true;
        }
        let Some(line) = Lines::new(&self.logs, name).get(offset).unwrap_or_default() else {
            return false;
        };
        let is_ours = key_in(&line).is_some_and(|it| it == self.key);
        if is_ours {
            self.places.insert(place, Place { journal: name.clone(), offset, line });
        }
        is_ours
    }

    fn holds(&self, name: &JournalName) -> bool {
        self.places.keys().any(|(it, _)| it == name)
    }

    /// A milestone that no audit record names.
    fn look_into_sources(&mut self) -> Result<()> {
        let Some(id) = self.key.strip_prefix("milestone:").map(str::to_owned) else { return Ok(()) };
        let journal = emit::milestones(&self.logs);
        if self.holds(journal.name()) {
            return Ok(());
        }
        self.look_up(&journal, &id)
    }

    /// The event's own record in each queue; redriven ones are named by the audit.
    fn look_into_queues(&mut self) -> Result<()> {
        for name in queues(&self.logs)? {
            let is_own = |it: &Place| it.journal == name && address_of(&it.line).is_none();
            if !self.places.values().any(is_own) {
                let key = queue::event_key(&self.key);
                self.look_up(&queue::open(&self.logs, name), &key)?;
            }
        }
        Ok(())
    }

    /// Looks a key up by the journal's index, and reads on where that ends.
    fn look_up(&mut self, journal: &Journal, key: &str) -> Result<()> {
        let mut from = 0;
        if let Some((offsets, known)) = Index::peek(journal, key)? {
            for offset in offsets {
                if self.take(journal.name(), offset) {
                    return Ok(());
                }
            }
            from = known;
        }
        let found = first_with(&self.logs, journal.name(), from, &self.key)?;
        if let Some(offset) = found {
            self.take(journal.name(), offset);
        }
        Ok(())
    }

    /// What happened, in order.
    pub fn steps(&self) -> Result<Vec<Step>> {
        let mut steps: Vec<Step> = self.audited.iter().map(|it| super::step::step(&self.logs, it)).collect();
        for place in self.places.values().filter(|it| it.journal.stem().is_some()) {
            // What was put back has an audit record of its own.
            if address_of(&place.line).is_some() {
                continue;
            }
            let file = file_of(&self.logs, &place.journal, place.offset);
            let step = Step {
                at_utc: self.queued_at(place)?,
                tool: Some("milestone-queue".to_owned()),
                action: "enqueue".to_owned(),
                outcome: "queued".to_owned(),
                endpoint: None,
                what: "queued".to_owned(),
                file: Some(file),
                offset: Some(place.offset),
                audit_offset: None,
            };
            // Right behind the step that made it: what comes between in the audit is another sender's.
            let makes = |it: &Step| matches!(it.outcome.as_str(), "appended" | "reminded" | "recovered");
            let at = steps.iter().position(|it| it.action != "receive" && makes(it)).map_or(0, |it| it + 1);
            steps.insert(at, step);
        }
        Ok(steps)
    }

    /// When a queue's record was written. An envelope that was one in the source already keeps the time that it has
    /// there: then only the audit record of its batch knows.
    fn queued_at(&self, place: &Place) -> Result<Option<Timestamp>> {
        let own = time_of(&place.line);
        if !self.in_source().any(|it| time_of(&it.line) == own) {
            return Ok(own);
        }
        let mut at = None;
        lines_from(&self.logs, &JournalName::audit(), 0, &mut |_, text| {
            // Lines are canonical, so the action is their first field.
            if text.starts_with(br#"{"action":"enqueue","#)
                && let Ok(record) = serde_json::from_slice::<Audited>(text)
                && record.text("journal") == Some(place.journal.as_str())
                && let (Some(from), Some(to)) = (record.number("from"), record.number("to"))
                && (from..to).contains(&place.offset)
            {
                at = record.timestamp;
            }
            at.is_none()
        })?;
        Ok(at)
    }

    /// The records as they stand in the journals.
    pub fn records(&self) -> Vec<Record> {
        let record = |it: &Place| {
            let record: Box<RawValue> = serde_json::from_slice(&it.line).ok()?;
            Some(Record { file: file_of(&self.logs, &it.journal, it.offset), offset: it.offset, record })
        };
        self.places.values().filter_map(record).collect()
    }

    /// The event's records in a queue, in order.
    pub fn in_queue<'t>(&'t self, queue: &'t JournalName) -> impl Iterator<Item = &'t Place> {
        self.places.values().filter(move |it| it.journal == *queue)
    }

    /// The event in its source, if it is one that has a queue.
    pub fn in_source(&self) -> impl Iterator<Item = &Place> {
        self.places.values().filter(|it| inventory::queue_of(&it.journal).is_some())
    }
}

/// The queues of a folder.
pub(super) fn queues(logs: &Logs) -> Result<Vec<JournalName>> {
    Ok(inventory::journals(logs)?.into_iter().filter(|it| it.stem().is_some()).collect())
}

/// The only endpoint that a queue record is meant for.
pub(super) fn address_of(line: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    struct Addressed {
        endpoint: Option<String>,
    }
    serde_json::from_slice::<Addressed>(line).ok()?.endpoint
}

/// The file that holds an offset of a journal.
pub(super) fn file_of(logs: &Logs, name: &JournalName, offset: u64) -> String {
    Extent::of(logs, name).map_or_else(|_| name.file(), |it| it.file_of(name, offset).0)
}

fn key_in(line: &[u8]) -> Option<String> {
    let identity: Identity = serde_json::from_slice(line).ok()?;
    identity.idempotency_key.or_else(|| identity.milestone_id.map(|it| identity::milestone_key(&it)))
}

fn time_of(line: &[u8]) -> Option<Timestamp> {
    #[derive(Deserialize)]
    struct Timed {
        timestamp: Timestamp,
    }
    serde_json::from_slice::<Timed>(line).ok().map(|it| it.timestamp)
}

/// Every audit record with one of these trace ids.
fn audit_of(logs: &Logs, names: &[String]) -> Result<Vec<Audited>> {
    let name = JournalName::audit();
    let mut audited: Vec<Audited> = Vec::new();
    lines_from(logs, &name, 0, &mut |offset, text| {
        // Lines are canonical, so the trace is their last field: most are passed over by a look at their ends.
        let ends = |it: &String| text.strip_suffix(b"\"}").is_some_and(|text| text.ends_with(it.as_bytes()));
        if names.iter().any(ends)
            && let Ok(record) = serde_json::from_slice::<Audited>(text)
            && record.trace_id.as_ref().is_some_and(|it| names.contains(it))
        {
            audited.push(Audited { offset, ..record });
        }
        true
    })?;
    Ok(audited)
}

/// The key of a queue record with one of these trace ids.
fn in_queues(logs: &Logs, names: &[String]) -> Result<Option<String>> {
    let mut key = None;
    let finders: Vec<_> = names.iter().map(|it| Finder::new(it.as_bytes())).collect();
    for queue in queues(logs)? {
        lines_from(logs, &queue, 0, &mut |_, text| {
            if finders.iter().any(|it| it.find(text).is_some()) {
                key = key_in(text).filter(|it| names.contains(&identity::trace_id(it)));
            }
            key.is_none()
        })?;
    }
    Ok(key)
}

/// The first record with this key, from an offset on.
fn first_with(logs: &Logs, name: &JournalName, from: u64, key: &str) -> Result<Option<u64>> {
    // As it stands in a line: with its quotes and escapes. A milestone's own line has its id alone.
    let written = serde_json::to_string(key.strip_prefix("milestone:").unwrap_or(key)).unwrap_or_default();
    let finder = Finder::new(written.trim_matches('"').as_bytes());
    let mut found = None;
    lines_from(logs, name, from, &mut |offset, text| {
        if finder.find(text).is_some() && key_in(text).is_some_and(|it| it == key) {
            found = Some(offset);
        }
        found.is_none()
    })?;
    Ok(found)
}
