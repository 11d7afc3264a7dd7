//! A person closes dead letters that are not to be delivered any more, each once and with a reason.
//!
//! The audit record is all that there is of it: the dead letter stays where it is, and whoever wants to know
//! which ones are closed reads the audit ([`Discarded`]). That costs a pass over the audit, which an operator's
//! command may; nothing that runs by itself does it.
//!
//! # Invariants
//! - Of a dead letter either one record puts it back or one audit record closes it, never both: each is decided
//!   and written under the queue's lock.
//! - What a writer that died left in the audit is settled before it is read for a decision.
//!
//! Not here: putting back (`redrive`), sending again all the same (`resend`).

use std::{borrow::Cow, collections::BTreeMap};

use serde::Deserialize;
use serde_json::json;

use crate::{
    Result,
    audit::{self, Action, Draft, Outcome},
    index::Index,
    journal::{Batch, Item, Journal, JournalName, Reader},
    logs::Logs,
    queue,
    redrive::{self, Selection},
    requeue,
};

/// The dead letters of one endpoint that were discarded, as the audit tells.
#[derive(Debug)]
pub struct Discarded {
    logs: Logs,
    queue: String,
    endpoint: String,
    /// Idempotency keys, by the dead letter's offset.
    letters: BTreeMap<u64, String>,
    /// The audit was read up to this logical offset.
    read_to: u64,
}

/// What is read of an audit record.
#[derive(Deserialize)]
struct Record<'l> {
    #[serde(borrow)]
    idempotency_key: Cow<'l, str>,
    #[serde(borrow)]
    detail: Detail<'l>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Detail<'l> {
    #[serde(borrow)]
    queue: Cow<'l, str>,
    #[serde(borrow)]
    endpoint: Cow<'l, str>,
    dead_letter: u64,
}

impl Discarded {
    /// Reads the audit from its beginning.
    pub fn read(logs: &Logs, queue: &JournalName, endpoint: &str) -> Result<Discarded> {
        let mut discarded = Discarded::unread(logs, queue, endpoint);
        discarded.read_on()?;
        Ok(discarded)
    }

    /// Knows of none yet.
    pub(crate) fn unread(logs: &Logs, queue: &JournalName, endpoint: &str) -> Discarded {
        Discarded {
            logs: logs.clone(),
            queue: queue.as_str().to_owned(),
            endpoint: endpoint.to_owned(),
            letters: BTreeMap::new(),
            read_to: 0,
        }
    }

    /// Whether the dead letter at this offset, of the event with this key, was discarded.
    pub fn holds(&self, dead_letter: u64, key: &str) -> bool {
        // The key too: dead letters that were moved away and began anew have the old offsets again.
        self.letters.get(&dead_letter).is_some_and(|it| it == key)
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.letters.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.letters.is_empty()
    }

    /// Reads what came since, for a decision: under the queue's lock nothing further comes until it is let go.
    pub(crate) fn catch_up(&mut self) -> Result<()> {
        audit::settle(&self.logs)?;
        self.read_on()
    }

    /// Reads what came since. Before the lock is taken, so that little is left to read under it.
    pub(crate) fn read_on(&mut self) -> Result<()> {
        let mut reader = Reader::open_at(&self.logs, &JournalName::audit(), self.read_to)?;
        while let Some(item) = reader.next_item()? {
            // Damage in the audit is `audit-tail --verify`'s to name.
            let Item::Line { text, .. } = item else { continue };
            // Lines are canonical, so this is how a record of ours begins; all others cost no more than this.
            if !text.starts_with(b"{\"action\":\"discard\",") {
                continue;
            }
            let Ok(Record { idempotency_key, detail }) = serde_json::from_slice::<Record<'_>>(text) else {
                continue;
            };
            if detail.queue == self.queue && detail.endpoint == self.endpoint {
                self.letters.insert(detail.dead_letter, idempotency_key.into_owned());
            }
        }
        self.read_to = reader.offset();
        Ok(())
    }
}

/// What discarding came to.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Discards {
    /// Dead letters that were discarded.
    pub discarded: u64,
    /// Dead letters that had been discarded before.
    pub known: u64,
    /// Keys of which every dead letter was put back: they are not dead any more.
    pub put_back: Vec<String>,
    /// Keys that no dead letter has.
    pub missing: Vec<String>,
}

/// Discards the dead letters of an endpoint that have one of these keys.
pub fn discard(queue: &Journal, endpoint: &str, keys: &[String], reason: &str) -> Result<Discards> {
    let dead = redrive::dead_letters(queue.logs(), queue.name(), endpoint);
    dead.settle_if_needed()?;
    let selection = Selection::of_keys(keys);
    let mut letters = Vec::new();
    redrive::each_letter(&dead, &selection, &mut |offset, letter| {
        let scope = queue::scope_of(letter.envelope()).unwrap_or_default();
        letters.push((offset, letter.envelope().idempotency_key.clone(), scope));
        Ok(())
    })?;
    let found = letters.iter().map(|(_, key, _)| key.as_str());
    let mut discards = Discards { missing: selection.keys_without(found), ..Discards::default() };
    if letters.is_empty() {
        return Ok(discards);
    }
    let mut discarded = Discarded::read(queue.logs(), queue.name(), endpoint)?;
    let mut writer = queue.write()?;
    discarded.catch_up()?;
    let mut index = Index::open(queue, queue::keys_of)?;
    let mut lines = queue.lines();
    let mut batch = Batch::default();
    // By key: whether any of its dead letters is closed by a discard, now or before.
    let mut closed: BTreeMap<&str, bool> = BTreeMap::new();
    for (offset, key, scope) in &letters {
        let is_closed = closed.entry(key).or_default();
        if discarded.holds(*offset, key) {
            discards.known += 1;
            *is_closed = true;
            continue;
        }
        if requeue::is_put_back(&mut index, &mut lines, endpoint, *offset, key)? {
            continue;
        }
        let detail = json!({
            "queue": queue.name().as_str(),
            "endpoint": endpoint,
            "deadLetter": offset,
            "reason": reason,
        });
        batch.audit(Draft::of(Action::Discard, Outcome::Done, key, scope, detail));
        discards.discarded += 1;
        *is_closed = true;
    }
    discards.put_back = closed.iter().filter(|(_, it)| !**it).map(|(key, _)| (*key).to_owned()).collect();
    if !batch.is_empty() {
        writer.append(&batch)?;
    }
    Ok(discards)
}
