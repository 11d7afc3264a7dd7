//! A person puts dead letters back into the queue, under the same key, each once.
//!
//! # Invariants
//! - A dead letter is named by its queue, its endpoint and its offset; the queue record that puts it back says
//!   which one it was, and under the queue's lock no second one is written.
//! - The record is the one that was given up on, byte for byte in its payload and time, so every attempt of the
//!   key has the same body.
//! - The queue's instance lock is not taken: redriving works while the queue is being written.
//!
//! Not here: giving up (`delivery`).

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::{
    Error, Kind, Result,
    audit::{Action, Draft, Outcome},
    envelope::{DeadLetter, EventEnvelope, Resume},
    index::Index,
    journal::{BATCH_RECORDS_MAX, Batch, Described, Item, Journal, JournalName, Position},
    logs::Logs,
    queue,
};

/// The dead letters of a queue's endpoint; the endpoint without a name is empty.
pub fn dead_letters(logs: &Logs, queue: &JournalName, endpoint: &str) -> Journal {
    let stem = queue.stem().unwrap_or(queue.as_str());
    let dot = if endpoint.is_empty() { "" } else { "." };
    Journal::new(logs, JournalName::internal(format!("{stem}-deadletter{dot}{endpoint}")), describe)
}

/// What settling must know of a dead letter.
fn describe(line: &[u8]) -> Option<Described> {
    let letter = DeadLetter::from_line(line).ok()?;
    let scope = queue::scope_of(letter.envelope());
    Some(Described { key: letter.envelope().idempotency_key.clone(), scope })
}

/// Which dead letters are meant.
#[derive(Debug)]
pub enum Selection {
    /// All of them.
    All,
    /// Those with one of these idempotency keys, or the milestone ids in them.
    Keys(BTreeSet<String>),
    /// Exactly these: idempotency key and offset in the queue.
    Letters(BTreeSet<(String, u64)>),
}

impl Selection {
    /// The keys that people give: `milestone:ID`, or just the `ID`.
    pub fn of_keys(keys: &[String]) -> Selection {
        Selection::Keys(keys.iter().cloned().collect())
    }

    /// Dead letters as JSON values, one after the other and in any layout, as jq prints them. Only the
    /// identity is taken from them.
    ///
    /// # Errors
    /// [`Kind::BadData`] when something is no JSON, or names no dead letter.
    pub fn of_json(text: &[u8]) -> Result<Selection> {
        let mut letters = BTreeSet::new();
        for (number, value) in (1..).zip(serde_json::Deserializer::from_slice(text).into_iter::<Value>()) {
            let place = format!("stdin: value {number}");
            let value = value.map_err(|it| Error::new(Kind::BadData, &place, format!("is no JSON: {it}")))?;
            let identity = (value["idempotency_key"].as_str(), value["queue_offset"].as_u64());
            let (Some(key), Some(offset)) = identity else {
                return Err(Error::new(
                    Kind::BadData,
                    &place,
                    "is no dead letter: idempotency_key or queue_offset is missing",
                )
                .cure(
                    "pass dead letters whole, such as jq 'select(…)' milestone-delivery-deadletter.jsonl",
                ));
            };
            letters.insert((key.to_owned(), offset));
        }
        Ok(Selection::Letters(letters))
    }

    fn holds(&self, letter: &DeadLetter) -> bool {
        let key = &letter.envelope().idempotency_key;
        match self {
            Selection::All => true,
            Selection::Keys(keys) => {
                keys.contains(key) || key.strip_prefix("milestone:").is_some_and(|id| keys.contains(id))
            }
            Selection::Letters(letters) => letters.contains(&(key.clone(), letter.queue_offset)),
        }
    }

    /// Those that were asked for by name and not found.
    fn missing(&self, found: &BTreeSet<(String, u64)>) -> Vec<String> {
        match self {
            Selection::All => Vec::new(),
            Selection::Keys(keys) => {
                let is_found = |key: &String| {
                    found.iter().any(|(it, _)| it == key || it.strip_prefix("milestone:") == Some(key))
                };
                keys.iter().filter(|it| !is_found(it)).cloned().collect()
            }
            Selection::Letters(letters) => letters.difference(found).map(|(key, _)| key.clone()).collect(),
        }
    }
}

/// What redriving came to.
#[derive(Debug, Default)]
pub struct Redriven {
    /// Dead letters that were put back.
    pub queued: u64,
    /// Those that had been put back before.
    pub known: u64,
    /// Keys that no dead letter has.
    pub missing: Vec<String>,
}

/// Puts the selected dead letters of an endpoint back into the queue.
pub fn redrive(
    queue: &Journal,
    source: &JournalName,
    endpoint: &str,
    selection: &Selection,
) -> Result<Redriven> {
    let dead = dead_letters(queue.logs(), queue.name(), endpoint);
    dead.settle_if_needed()?;
    let mut redriven = Redriven::default();
    let mut found = BTreeSet::new();
    let mut reader = dead.read_from(&Position::default())?;
    let mut letters = Vec::new();
    loop {
        let item = reader.next_item()?;
        let is_last = item.is_none();
        if let Some(Item::Line { offset, text, .. }) = item
            && let Ok(letter) = DeadLetter::from_line(text)
            && selection.holds(&letter)
        {
            found.insert((letter.envelope().idempotency_key.clone(), letter.queue_offset));
            letters.push((offset, letter));
        }
        if is_last || letters.len() >= BATCH_RECORDS_MAX {
            put_back(queue, source, endpoint, &std::mem::take(&mut letters), &mut redriven)?;
        }
        if is_last {
            redriven.missing = selection.missing(&found);
            return Ok(redriven);
        }
    }
}

fn put_back(
    queue: &Journal,
    source: &JournalName,
    endpoint: &str,
    letters: &[(u64, DeadLetter)],
    redriven: &mut Redriven,
) -> Result<()> {
    if letters.is_empty() {
        return Ok(());
    }
    let mut writer = queue.write()?;
    let mut index = Index::open(queue, queue::keys_of)?;
    let Position { offset, fingerprint } = queue::resume(queue, source)?;
    let resume = Resume { offset, fingerprint };
    let mut lines = queue.lines();
    let mut batch = Batch::default();
    for (dead_letter, letter) in letters {
        let key = queue::redrive_key(endpoint, *dead_letter);
        let mut is_back = false;
        for candidate in index.find(&key)? {
            let line = lines.get(candidate)?.unwrap_or_default();
            is_back |= EventEnvelope::from_line(&line).is_ok_and(|it| {
                it.redrive_of == Some(*dead_letter) && it.endpoint.as_deref() == Some(endpoint)
            });
        }
        if is_back {
            redriven.known += 1;
            continue;
        }
        let record = EventEnvelope {
            resume: Some(resume.clone()),
            endpoint: Some(endpoint.to_owned()),
            redrive_of: Some(*dead_letter),
            ..letter.envelope().clone()
        };
        let offset = writer.end() + batch.bytes();
        let mut line = Vec::with_capacity(1024);
        record.write_line(&mut line).map_err(|it| Error::new(Kind::BadData, it.path, it.message))?;
        batch.push(&line);
        let detail = json!({
            "journal": queue.name().as_str(),
            "offset": offset,
            "endpoint": endpoint,
            "deadLetter": dead_letter,
        });
        let scope = queue::scope_of(&record).unwrap_or_default();
        batch.audit(Draft::of(Action::Redrive, Outcome::Queued, &record.idempotency_key, &scope, detail));
        redriven.queued += 1;
    }
    writer.append(&batch)
}
