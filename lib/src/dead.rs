//! Which dead letters are open: given up on, and neither put back nor closed.
//!
//! # Invariants
//! - It only reads and takes no lock. What it costs follows the dead letters and what came since the oldest open one,
//!   not all of history.
//!
//! Not here: putting back (`redrive`).

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
};

use serde::Deserialize;

use crate::{
    Result, Timestamp,
    delivery::Consumer,
    index::Index,
    journal::{Extent, JournalName, digest, keys, lines_from},
    queue,
};

/// A dead letter that waits for somebody.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenLetter {
    /// Its logical offset in the dead letters.
    pub offset: u64,
    /// The event's key.
    pub key: String,
    /// When it was given up.
    pub dead_at: Timestamp,
    /// Why.
    pub reason: String,
}

#[derive(Deserialize)]
struct Letter {
    idempotency_key: String,
    reason: String,
    dead_at: Timestamp,
    queue_offset: u64,
}

/// The open dead letters of a consumer, in their order.
pub fn open_letters(consumer: &Consumer) -> Result<Vec<OpenLetter>> {
    let mut letters = Vec::new();
    lines_from(consumer.logs(), consumer.dead_letters().name(), 0, &mut |offset, text| {
        if let Ok(letter) = serde_json::from_slice::<Letter>(text) {
            letters.push((offset, letter));
        }
        true
    })?;
    let put_back = put_back(consumer, &letters)?;
    letters.retain(|(offset, _)| !put_back.contains(offset));
    let Some(oldest) = letters.iter().map(|(_, it)| it.dead_at).min() else { return Ok(Vec::new()) };
    let closed = closed(consumer, oldest)?;
    letters.retain(|(offset, _)| !closed.contains(offset));
    let open = letters.into_iter().map(|(offset, it)| OpenLetter {
        offset,
        key: it.idempotency_key,
        dead_at: it.dead_at,
        reason: it.reason,
    });
    Ok(open.collect())
}

/// Offsets of the dead letters that a queue record puts back.
fn put_back(consumer: &Consumer, letters: &[(u64, Letter)]) -> Result<BTreeSet<u64>> {
    let mut found = BTreeSet::new();
    let Some(first) = letters.iter().map(|(_, it)| it.queue_offset).min() else { return Ok(found) };
    let queue = consumer.queue();
    let mut lines = queue.lines();
    // Behind the index the queue is read; without one, from the first record that was given up.
    let mut known = first;
    for (offset, _) in letters {
        let redrive_key = queue::redrive_key(consumer.endpoint(), *offset);
        let Some((candidates, to)) = Index::peek(&queue, &redrive_key)? else {
            found.extend(put_back_before_trim(consumer, letters)?);
            known = first;
            break;
        };
        known = to;
        for candidate in candidates {
            match lines.get(candidate)? {
                Some(line) => found.extend(letter_in(&line, consumer.endpoint()).filter(|it| it == offset)),
                None => found.extend(lines.kept(candidate, &redrive_key)?.map(|_| *offset)),
            }
        }
    }
    lines_from(consumer.logs(), queue.name(), known, &mut |_, text| {
        found.extend(letter_in(text, consumer.endpoint()));
        true
    })?;
    Ok(found)
}

/// Offsets of the dead letters that a trimmed queue record puts back.
fn put_back_before_trim(consumer: &Consumer, letters: &[(u64, Letter)]) -> Result<Vec<u64>> {
    let key = |it: &u64| digest(queue::redrive_key(consumer.endpoint(), *it).as_bytes());
    let by_key: BTreeMap<_, _> = letters.iter().map(|(offset, _)| (key(offset), *offset)).collect();
    let mut found = Vec::new();
    keys::each(consumer.logs(), consumer.queue_name(), &mut |_, kept| {
        found.extend(by_key.get(&kept.key));
        Ok(())
    })?;
    Ok(found)
}

/// The dead letter of this endpoint that a queue record puts back.
fn letter_in(line: &[u8], endpoint: &str) -> Option<u64> {
    #[derive(Deserialize)]
    struct Redriven<'l> {
        #[serde(borrow)]
        endpoint: Cow<'l, str>,
        redrive_of: u64,
    }
    memchr::memmem::rfind(line, b"\"redrive_of\":")?;
    let it: Redriven = serde_json::from_slice(line).ok()?;
    (it.endpoint == endpoint).then_some(it.redrive_of)
}

/// Offsets of the dead letters that were closed since a time.
fn closed(consumer: &Consumer, since: Timestamp) -> Result<BTreeSet<u64>> {
    #[derive(Deserialize)]
    struct Record {
        detail: Discard,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Discard {
        queue: String,
        endpoint: String,
        dead_letter: u64,
    }
    let mut closed = BTreeSet::new();
    let from = audit_at(consumer, since)?;
    lines_from(consumer.logs(), &JournalName::audit(), from, &mut |_, text| {
        // Lines are canonical, so a record of ours begins so; all others cost no more than this.
        if text.starts_with(b"{\"action\":\"discard\",")
            && let Ok(Record { detail }) = serde_json::from_slice(text)
            && detail.queue == consumer.queue_name().as_str()
            && detail.endpoint == consumer.endpoint()
        {
            closed.insert(detail.dead_letter);
        }
        true
    })?;
    Ok(closed)
}

/// Where to begin in the audit so as to see all that was written since a time: a segment that began before it.
fn audit_at(consumer: &Consumer, since: Timestamp) -> Result<u64> {
    #[derive(Deserialize)]
    struct Timed {
        timestamp: Timestamp,
    }
    let name = JournalName::audit();
    let extent = Extent::of(consumer.logs(), &name)?;
    for segment in extent.sealed.iter().rev() {
        let mut began = None;
        lines_from(consumer.logs(), &name, segment.base, &mut |_, text| {
            began = serde_json::from_slice::<Timed>(text).ok().map(|it| it.timestamp);
            false
        })?;
        // A clock that went back may have written later what looks earlier; a day more is looked at for that.
        if began.is_some_and(|it| it.plus(std::time::Duration::from_secs(86_400)) <= since) {
            return Ok(segment.base);
        }
    }
    Ok(0)
}
