//! A person puts dead letters back into the queue, under the same key, each once.
//!
//! # Invariants
//! - A dead letter is named by its queue, its endpoint and its offset; the queue record that puts it back says
//!   which one it was, and under the queue's lock no second one is written.
//! - One that was discarded is closed: it is not put back, whoever asks.
//! - Memory holds one batch of dead letters, and of those that were asked for by name what they are called.
//!
//! Not here: giving up (`delivery`), appending (`requeue`), closing (`discard`).

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::{
    Error, Kind, Result,
    audit::Action,
    discard::Discarded,
    envelope::DeadLetter,
    journal::{BATCH_BYTES_MAX, BATCH_RECORDS_MAX, Described, Item, Journal, JournalName, Position},
    logs::Logs,
    queue,
    requeue::{Origin, Requeue},
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

    /// The keys that none of the `found` ones answers to, as they were given.
    pub(crate) fn keys_without<'f>(&self, found: impl IntoIterator<Item = &'f str>) -> Vec<String> {
        let Selection::Keys(keys) = self else { return Vec::new() };
        let mut missing = keys.clone();
        for key in found {
            missing.remove(key);
            missing.remove(key.strip_prefix("milestone:").unwrap_or(key));
        }
        missing.into_iter().collect()
    }
}

/// What redriving came to.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Redriven {
    /// Dead letters that were put back.
    pub queued: u64,
    /// Those that had been put back before.
    pub known: u64,
    /// Those that were passed over because they were discarded.
    pub discarded: u64,
    /// Keys that were asked for by name and of which the dead letter that is left was discarded.
    pub closed: Vec<String>,
    /// Keys that no dead letter has.
    pub missing: Vec<String>,
}

/// Calls `each` with the offset of every dead letter that is selected, in order. The journal is settled.
pub(crate) fn each_letter(
    dead: &Journal,
    selection: &Selection,
    each: &mut dyn FnMut(u64, DeadLetter) -> Result<()>,
) -> Result<()> {
    let mut reader = dead.read_from(&Position::default())?;
    while let Some(item) = reader.next_item()? {
        // Damage is whoever's who delivers from it: milestone-status and the deliverer name it.
        if let Item::Line { offset, text, .. } = item
            && let Ok(letter) = DeadLetter::from_line(text)
            && selection.holds(&letter)
        {
            each(offset, letter)?;
        }
    }
    Ok(())
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
    let mut redriving = Redriving {
        requeue: Requeue::new(queue, source, endpoint),
        discarded: Discarded::unread(queue.logs(), queue.name(), endpoint),
        is_by_name: !matches!(selection, Selection::All),
        found: BTreeMap::new(),
        redriven: Redriven::default(),
    };
    let mut letters = Vec::new();
    let mut bytes = 0;
    each_letter(&dead, selection, &mut |offset, letter| {
        bytes += letter.envelope().payload.get().len();
        letters.push((offset, letter));
        if letters.len() >= BATCH_RECORDS_MAX || bytes >= BATCH_BYTES_MAX / 2 {
            bytes = 0;
            redriving.put_back(&std::mem::take(&mut letters))?;
        }
        Ok(())
    })?;
    redriving.put_back(&letters)?;
    Ok(redriving.end(selection))
}

struct Redriving<'q> {
    requeue: Requeue<'q>,
    discarded: Discarded,
    is_by_name: bool,
    /// Of what was asked for by name: key and queue offset, and what became of it.
    found: BTreeMap<(String, u64), Fate>,
    redriven: Redriven,
}

/// What becomes of a dead letter that was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Queued,
    Known,
    Closed,
}

impl Redriving<'_> {
    fn put_back(&mut self, letters: &[(u64, DeadLetter)]) -> Result<()> {
        if letters.is_empty() {
            return Ok(());
        }
        self.discarded.read_on()?;
        let mut turn = self.requeue.turn()?;
        self.discarded.catch_up()?;
        for (offset, letter) in letters {
            let key = &letter.envelope().idempotency_key;
            let fate = if self.discarded.holds(*offset, key) {
                self.redriven.discarded += 1;
                Fate::Closed
            } else if turn.is_put_back(*offset, key)? {
                self.redriven.known += 1;
                Fate::Known
            } else {
                turn.put(&Origin {
                    action: Action::Redrive,
                    record: letter.envelope(),
                    dead_letter: Some(*offset),
                    of: None,
                })?;
                Fate::Queued
            };
            if self.is_by_name {
                self.found.insert((key.clone(), letter.queue_offset), fate);
            }
        }
        self.redriven.queued += turn.finish()?;
        Ok(())
    }

    fn end(mut self, selection: &Selection) -> Redriven {
        match selection {
            Selection::All => {}
            Selection::Keys(_) => {
                let found = self.found.keys().map(|(key, _)| key.as_str());
                self.redriven.missing = selection.keys_without(found);
                // An event that died more than once has several.
                let mut by_key: BTreeMap<String, Vec<Fate>> = BTreeMap::new();
                for ((key, _), fate) in self.found {
                    by_key.entry(key).or_default().push(fate);
                }
                let is_closed =
                    |fates: &[Fate]| fates.contains(&Fate::Closed) && !fates.contains(&Fate::Queued);
                let closed = by_key.into_iter().filter(|(_, fates)| is_closed(fates));
                self.redriven.closed = closed.map(|(key, _)| key).collect();
            }
            Selection::Letters(letters) => {
                let missing = letters.iter().filter(|it| !self.found.contains_key(*it));
                self.redriven.missing = missing.map(|(key, _)| key.clone()).collect();
                let closed = self.found.into_iter().filter(|(_, fate)| *fate == Fate::Closed);
                self.redriven.closed = closed.map(|((key, _), _)| key).collect();
            }
        }
        self.redriven
    }
}
