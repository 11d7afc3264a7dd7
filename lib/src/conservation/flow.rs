//! A queue between its source and its endpoints, and how it compares with the source.
//!
//! # Invariants
//! - What a queue holds comes from a line of its source, once; what it is beyond, it holds. Only an audited command
//!   makes exceptions.
//!
//! Not here: what the audit says (`walk`), the sums (`balance`), the state files (`states`).

use super::{
    book::Book,
    finding::{Finding, FindingKind, Findings, key_at},
};
use crate::{
    Result,
    delivery::State,
    event::MilestoneEvent,
    journal::{JournalName, Lines},
    logs::Logs,
};

/// What has become of a queue record at an endpoint, by the audit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Fate {
    /// Nothing yet.
    #[default]
    Open,
    Acknowledged,
    Dead,
    Discarded,
    /// It was no record for the deliverer, or a resync went beyond it.
    PassedOver,
}

impl Fate {
    /// The word for it.
    pub fn word(self) -> &'static str {
        match self {
            Fate::Open => "open",
            Fate::Acknowledged => "acknowledged",
            Fate::Dead => "dead-lettered",
            Fate::Discarded => "discarded",
            Fate::PassedOver => "passed over",
        }
    }
}

/// What the audit tells of an acknowledgement.
#[derive(Clone, Copy, Debug)]
pub(super) struct Receipt {
    pub seq: u64,
    pub head: u64,
    /// The place of its record in the queue's book.
    pub at: u32,
}

/// One endpoint of a queue.
#[derive(Debug)]
pub(super) struct Endpoint {
    pub name: String,
    /// What the state file says; none when it is absent or damaged, since it will be rebuilt.
    pub state: Option<State>,
    /// Where the audit tells of its last resync.
    pub resynced_at: Option<u64>,
    /// By the queue's entries.
    pub fates: Vec<Fate>,
    pub acknowledgements: u64,
    pub receipts: Vec<Receipt>,
}

/// A queue, its source, and where its records go.
#[derive(Debug)]
pub(super) struct Flow {
    pub queue: JournalName,
    /// Its place among the books; none when there is no queue yet.
    pub book: Option<usize>,
    pub source: Option<JournalName>,
    pub source_book: Option<usize>,
    pub endpoints: Vec<Endpoint>,
    /// Where the queue's writer had come to in the source, by what of the audit was read so far.
    pub position: u64,
    /// Behind the last queue record that the part of the audit that was read tells of.
    pub told_to: u64,
    /// Queue records before this offset came from a source that was replaced since, by the word of an operator.
    pub sourced_from: u64,
    /// What an audited command passed over in the source: behind the first number, up to the second.
    pub skipped: Vec<(u64, u64)>,
    /// The position that `X-source.json` gives, and where the queue ended then.
    pub start: Option<(u64, u64)>,
    /// Lines behind the queue's last position that gave no record, up to here.
    pub passed_to: Option<(u64, u64)>,
}

impl Endpoint {
    pub fn new(name: &str, state: Option<State>, entries: usize) -> Endpoint {
        Endpoint {
            name: name.to_owned(),
            state,
            resynced_at: None,
            fates: vec![Fate::Open; entries],
            acknowledgements: 0,
            receipts: Vec::new(),
        }
    }
}

impl Flow {
    /// The endpoint of this name.
    pub fn endpoint(&mut self, name: &str, entries: usize) -> &mut Endpoint {
        let at = self.endpoints.iter().position(|it| it.name == name).unwrap_or_else(|| {
            self.endpoints.push(Endpoint::new(name, None, entries));
            self.endpoints.len() - 1
        });
        &mut self.endpoints[at]
    }

    /// Compares the queue with its source. The audit was read: a replaced source cannot be compared with.
    pub fn compare(&self, logs: &Logs, books: &[Book], findings: &mut Findings) -> Result<()> {
        let Some(queue) = self.book.map(|it| &books[it]) else { return Ok(()) };
        let source = self.source_book.map(|it| &books[it]);
        let mut before = 0;
        for (at, entry) in queue.entries.iter().enumerate().filter(|(_, it)| !it.is_damaged) {
            let (resume, fingerprint) = queue.extra[at];
            let add = |findings: &mut Findings, kind, what: String| {
                findings.add(Finding::at(kind, &queue.name, entry.offset, what));
            };
            let Some(source) = source else { continue };
            let is_addressed = queue.addressed_at(at).is_some();
            let origin = source.with_key(entry.key).next().map(|it| &source.entries[it]);
            match origin {
                // What was trimmed or replaced can no longer be compared.
                None if resume <= source.begins || entry.offset < self.sourced_from => {}
                // What was put back or sent again names the end of what was queued then, not its own line.
                None if source.begins > 0
                    && key_of(logs, queue, at).is_some_and(|it| source.had_event(&it)) => {}
                None => add(findings, FindingKind::FromNowhere, format!("no line of {source} has its key")),
                Some(origin) if origin.content != entry.content => {
                    if !same_milestone(logs, source, origin.offset, queue, entry.offset)? {
                        let what =
                            format!("its payload is not what is in {source} at offset {}", origin.offset);
                        add(findings, FindingKind::PayloadDiffers, what);
                    }
                }
                Some(_) if entry.offset < self.sourced_from => {}
                Some(origin) if !is_addressed && (resume, fingerprint) != (origin.end(), origin.line) => {
                    let what = format!(
                        "it goes on at offset {resume} of {source}, but its event ends at {}{}",
                        origin.end(),
                        if resume == origin.end() { " and is another line now" } else { "" }
                    );
                    add(findings, FindingKind::ResumeDiffers, what);
                }
                Some(_) => {}
            }
            let is_comparable = resume > source.begins && entry.offset >= self.sourced_from;
            if is_addressed && is_comparable && resume != before {
                let is_there = source.ending_at(resume).is_some_and(|it| it.line == fingerprint);
                if !is_there {
                    let what = format!("it goes on at offset {resume} of {source}, where no line ends so");
                    add(findings, FindingKind::ResumeDiffers, what);
                }
            }
            before = resume;
        }
        for pair in queue.by_key().windows(2).filter(|it| it[0].0 == it[1].0) {
            let of = |at: u32| (at as usize, queue.addressed_at(at as usize).is_none());
            if let ((_, true), (again, true)) = (of(pair[0].1), of(pair[1].1)) {
                let entry = &queue.entries[again];
                let first = queue.entries[pair[0].1 as usize].offset;
                let what = format!("its key is there already, at offset {first}");
                findings.add(Finding::at(FindingKind::IdTwice, &queue.name, entry.offset, what));
            }
        }
        Ok(())
    }

    /// Events of the source that the queue went beyond without taking them, and without being told to.
    pub fn check_skipped(&mut self, books: &[Book], findings: &mut Findings) {
        let Some(source) = self.source_book.map(|it| &books[it]) else { return };
        let queue = self.book.map(|it| &books[it]);
        let resume_below = |end: u64| {
            let queue = queue?;
            let at = queue.entries[..queue.believed].partition_point(|it| it.end() <= end);
            (0..at).rev().find(|it| !queue.entries[*it].is_damaged).map(|it| queue.extra[it].0)
        };
        if let Some((position, queue_end)) = self.start {
            // The command may have been killed before it was audited; it holds all the same.
            self.skipped.push((resume_below(queue_end).unwrap_or(0), position));
        }
        let mut position = resume_below(u64::MAX).unwrap_or(0);
        if let Some((after, to)) = self.passed_to.filter(|it| it.0 == position) {
            position = to.max(after);
        }
        for entry in source.entries[..source.believed].iter().filter(|it| it.key != 0 && !it.is_damaged) {
            let is_queued =
                || queue.is_some_and(|it| it.with_key(entry.key).next().is_some() || it.had_key(entry.key));
            if entry.end() <= position && !self.is_skipped(entry.end()) && !is_queued() {
                let what = format!("{} goes on behind it and does not hold it", self.queue.file());
                findings.add(Finding::at(FindingKind::Skipped, &source.name, entry.offset, what));
            }
        }
    }

    pub fn is_skipped(&self, end: u64) -> bool {
        self.skipped.iter().any(|(from, to)| end > *from && end <= *to)
    }
}

/// Whether two records hold the same milestone, however it is written.
pub(super) fn same_milestone(logs: &Logs, a: &Book, at: u64, b: &Book, bt: u64) -> Result<bool> {
    let read = |book: &Book, offset: u64| -> Result<Option<MilestoneEvent>> {
        let line = Lines::new(logs, &book.name).get(offset)?.unwrap_or_default();
        Ok(milestone_in(&line))
    };
    let (a, b) = (read(a, at)?, read(b, bt)?);
    Ok(a.is_some() && a == b)
}

fn milestone_in(line: &[u8]) -> Option<MilestoneEvent> {
    if let Ok(event) = MilestoneEvent::from_line(line) {
        return Some(event);
    }
    let record: serde_json::Value = serde_json::from_slice(line).ok()?;
    let event = record.get("payload").or(record.get("event"))?;
    MilestoneEvent::from_line(&serde_json::to_vec(event).ok()?).ok()
}

/// The key of a queue record in words.
pub(super) fn key_of(logs: &Logs, book: &Book, at: usize) -> Option<String> {
    let entry = book.entries.get(at)?;
    key_at(logs, &book.name, entry.offset, entry.key)
}
