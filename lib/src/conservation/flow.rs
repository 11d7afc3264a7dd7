//! From a source to a queue and on to each endpoint: what every event has come to.
//!
//! # Invariants
//! - Every id of a source is, for every endpoint of its queue, in exactly one of: acknowledged, pending, dead-lettered,
//!   discarded, passed over because somebody said so, or lost.
//! - An id is what its last record in the queue is: a redrive takes the place of the dead letter that it puts back.
//!
//! Not here: what the audit says (`walk`), how the journals are read (`book`).

use serde::Serialize;

use super::{
    book::{Book, hash_of_hex},
    finding::{Finding, FindingKind, Findings, key_at},
};
use crate::{
    Result,
    delivery::{Consumer, State},
    event::MilestoneEvent,
    journal::{JournalName, Lines},
    logs::Logs,
    queue,
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

/// What the audit tells of an acknowledgement.
#[derive(Clone, Copy, Debug)]
pub(super) struct Receipt {
    pub seq: u64,
    pub head: u64,
    /// Of the event, in the queue.
    pub key: u64,
    pub content: u64,
    pub queue_offset: u64,
}

/// One endpoint of a queue.
#[derive(Debug)]
pub(super) struct Endpoint {
    pub name: String,
    /// What the state file says; none when it is absent or damaged, since it will be rebuilt.
    pub state: Option<State>,
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

/// What the events of a source came to at one endpoint. Ids, each counted once.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Balance {
    /// The endpoint's name; empty for the one without a name.
    pub endpoint: String,
    /// In the source.
    pub emitted: u64,
    /// Of these, in the queue.
    pub queued: u64,
    /// The endpoint has them.
    pub acknowledged: u64,
    /// Not settled yet, in the queue or on the way to it.
    pub pending: u64,
    /// Given up on, and not put back.
    pub dead_lettered: u64,
    /// Given up on, and closed by somebody.
    pub discarded: u64,
    /// Left out because somebody said so (`--from-now`, `--resync`), or because it was no valid record.
    pub passed_over: u64,
    /// In none of these.
    pub lost: u64,
}

/// A queue's balances.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct QueueBalance {
    /// The queue's file.
    pub queue: String,
    /// The file that it is filled from.
    pub source: Option<String>,
    /// For each endpoint that is known of.
    pub endpoints: Vec<Balance>,
}

impl Endpoint {
    pub fn new(name: &str, state: Option<State>, entries: usize) -> Endpoint {
        Endpoint {
            name: name.to_owned(),
            state,
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
            let is_queued = || queue.is_some_and(|it| it.with_key(entry.key).next().is_some());
            if entry.end() <= position && !self.is_skipped(entry.end()) && !is_queued() {
                let what = format!("{} goes on behind it and does not hold it", self.queue.file());
                findings.add(Finding::at(FindingKind::Skipped, &source.name, entry.offset, what));
            }
        }
    }

    fn is_skipped(&self, end: u64) -> bool {
        self.skipped.iter().any(|(from, to)| end > *from && end <= *to)
    }

    /// What every id came to at every endpoint. What came to nothing is a finding.
    pub fn balance(&mut self, logs: &Logs, books: &[Book], findings: &mut Findings) -> Result<QueueBalance> {
        let entries = self.book.map_or(0, |it| books[it].entries.len());
        if self.endpoints.is_empty() {
            self.endpoints.push(Endpoint::new("", None, entries));
        }
        self.endpoints.sort_by(|a, b| a.name.cmp(&b.name));
        let mut balances = Vec::new();
        for endpoint in &self.endpoints {
            let lost = self.lost(logs, books, endpoint, findings)?;
            balances.push(self.balance_of(books, endpoint, &lost));
        }
        Ok(QueueBalance {
            queue: self.queue.file(),
            source: self.source.as_ref().map(JournalName::file),
            endpoints: balances,
        })
    }

    /// Queue records that the state is beyond, although nothing settled them.
    fn lost(
        &self,
        logs: &Logs,
        books: &[Book],
        endpoint: &Endpoint,
        findings: &mut Findings,
    ) -> Result<Vec<bool>> {
        let Some(queue) = self.book.map(|it| &books[it]) else { return Ok(Vec::new()) };
        let mut lost = vec![false; queue.entries.len()];
        let Some(state) = &endpoint.state else { return Ok(lost) };
        let mut lines = Lines::new(logs, &queue.name);
        for (at, entry) in queue.entries.iter().enumerate() {
            let is_for = queue.addressed_at(at).is_none_or(|it| it.endpoint == endpoint.name);
            let is_open = is_for && endpoint.fates[at] == Fate::Open && !entry.is_damaged;
            let is_beyond = entry.offset >= state.cursor.offset;
            if !is_open || is_beyond && !state.cursor.has_settled(entry.offset) {
                continue;
            }
            let line = lines.get(entry.offset)?.unwrap_or_default();
            let described = queue::describe(&line);
            let key = described.as_ref().map_or("", |it| it.key.as_str());
            let scope = described.as_ref().and_then(|it| it.scope.as_deref()).filter(|it| !it.is_empty());
            if state.owes(scope, key, entry.offset) {
                continue;
            }
            lost[at] = true;
            let what =
                "it is neither settled nor pending: the state's cursor is beyond it, and neither the audit \
                        nor the dead letters tell of an end"
                    .to_owned();
            let finding = Finding::at(FindingKind::Lost, &queue.name, entry.offset, what);
            findings.add(finding.about(Some(key)).with_endpoint(&endpoint.name));
        }
        Ok(lost)
    }

    fn balance_of(&self, books: &[Book], endpoint: &Endpoint, lost: &[bool]) -> Balance {
        let mut balance = Balance { endpoint: endpoint.name.clone(), ..Balance::default() };
        let queue = self.book.map(|it| &books[it]);
        let source = self.source_book.map(|it| &books[it]);
        let keys = queue.map_or(&[][..], Book::by_key);
        for same in keys.chunk_by(|a, b| a.0 == b.0) {
            let Some(queue) = queue else { break };
            let is_for = |at: &usize| queue.addressed_at(*at).is_none_or(|it| it.endpoint == endpoint.name);
            let Some(at) = same.iter().map(|it| it.1 as usize).filter(is_for).max() else { continue };
            balance.queued += 1;
            balance.emitted += 1;
            let sum = match endpoint.fates[at] {
                Fate::Acknowledged => &mut balance.acknowledged,
                Fate::Dead => &mut balance.dead_lettered,
                Fate::Discarded => &mut balance.discarded,
                Fate::PassedOver => &mut balance.passed_over,
                Fate::Open if lost[at] => &mut balance.lost,
                Fate::Open => &mut balance.pending,
            };
            *sum += 1;
        }
        let position = self.position_now(books);
        let Some(source) = source else { return balance };
        let mut before = 0;
        for (key, at) in source.by_key() {
            let entry = &source.entries[*at as usize];
            let is_queued = keys.binary_search_by_key(key, |it| it.0).is_ok();
            // Beyond the mark counts what the audit tells of: that will be settled.
            let counts = (*at as usize) < source.believed || entry.told > 0;
            if is_queued || !counts || *key == before {
                continue;
            }
            before = *key;
            balance.emitted += 1;
            let sum = if self.is_skipped(entry.end()) {
                &mut balance.passed_over
            } else if entry.end() <= position {
                &mut balance.lost
            } else {
                &mut balance.pending
            };
            *sum += 1;
        }
        balance
    }

    /// Where the queue's writer goes on in the source, by the queue's last record.
    fn position_now(&self, books: &[Book]) -> u64 {
        let Some(queue) = self.book.map(|it| &books[it]) else { return 0 };
        let last = (0..queue.believed).rev().find(|it| !queue.entries[*it].is_damaged);
        let position = last.map_or(0, |it| queue.extra[it].0);
        self.passed_to.filter(|it| it.0 == position).map_or(position, |it| it.1)
    }

    /// Compares what the state files claim with what the journals hold.
    pub fn check_states(
        &self,
        logs: &Logs,
        books: &[Book],
        audit_end: u64,
        findings: &mut Findings,
    ) -> Result<()> {
        for endpoint in &self.endpoints {
            let Some(state) = &endpoint.state else { continue };
            let consumer = Consumer::new(logs, self.queue.clone(), &endpoint.name)?;
            let mut claim = |is_true: bool, what: String| {
                if !is_true {
                    let finding = Finding::in_file(FindingKind::StateAhead, consumer.state_file(), what);
                    findings.add(finding.with_endpoint(&endpoint.name));
                }
            };
            let end_of = |name: &JournalName| {
                books.iter().find(|it| it.name == *name).map_or(0, |it| it.extent.physical_end())
            };
            let ends = [
                ("cursor", state.cursor.offset, self.queue.clone()),
                ("deadLetterOffset", state.dead_letter_offset, consumer.dead_letters().name().clone()),
                ("controlOffset", state.control_offset, consumer.control().name().clone()),
            ];
            for (field, offset, name) in ends {
                let end = end_of(&name);
                claim(offset <= end, format!("{field} is {offset}, {} ends at {end}", name.file()));
            }
            claim(
                state.audit_offset <= audit_end,
                format!("auditOffset is {}, audit.jsonl ends at {audit_end}", state.audit_offset),
            );
            let acks = endpoint.acknowledgements;
            claim(
                state.acks() <= acks,
                format!("it counts {} acknowledgements, the audit has {acks}", state.acks()),
            );
            let Some(queue) = self.book.map(|it| &books[it]) else { continue };
            if state.cursor.offset > queue.begins {
                let line = queue.ending_at(state.cursor.offset).map(|it| it.line);
                let is_same = line.is_some() && line == hash_of_hex(&state.cursor.fingerprint);
                let what = format!(
                    "its cursor, offset {} of {}, is behind another line than there",
                    state.cursor.offset,
                    self.queue.file()
                );
                claim(is_same || state.cursor.offset > queue.extent.physical_end(), what);
            }
            for (_, lane) in state.retries.iter() {
                let Some(retry) = &lane.retry else { continue };
                let found = queue.entries.binary_search_by_key(&lane.offset, |it| it.offset);
                let key = found.ok().map(|it| queue.entries[it].key);
                let is_there = key == Some(super::book::hash_of_key(&retry.key));
                let what =
                    format!("{:?} waits at offset {} of the queue and is not there", retry.key, lane.offset);
                claim(is_there || lane.offset < queue.begins, what);
            }
        }
        Ok(())
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

impl std::fmt::Display for Book {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.name.file())
    }
}
