//! Conservation: emitted = acknowledged + pending + dead-lettered + discarded, by id and endpoint.
//!
//! ```text
//! state files, then the extents of dead letters … queues … sources, last the audit     (`inventory`, `journal::Extent`)
//!      │
//!      ├── book     each journal's records: place, key, content, line, as hashes  (`scan`, `parse`, `links`)
//!      ├── walk     the audit: its chain, what it tells of (`told`), what it settles
//!      ├── letters  dead letters against the queue
//!      ├── feed     receipts against the receiver's journals, where they are here
//!      ├── flow     source against queue
//!      ├── states   what the state files claim
//!      └── balance  the sums, and what is in none of them
//! ```
//!
//! # Invariants
//! - It only reads and takes no lock: it can run beside everything else, on a folder that it may not write to.
//! - What is below the marks never changes, so a look is consistent when whoever *tells* is looked at after what it
//!   tells of, and whoever *consumes* before. What seems broken all the same is looked at once more, and is told
//!   only if it is found again.
//! - Every line of every journal is read, and about 70 bytes of it are kept: time and memory follow history.
//! - Trimmed segments (`.keys` files stand for them, and the audit tells of them) are gone by right. Nothing else is:
//!   a journal that begins later without them, and an audit that does, has lost its beginning.
//!
//! What it cannot see: a folder that was put back as a whole, all journals, marks and states at once, to an earlier
//! time. Only a receipt or an audit head that was kept elsewhere shows that.
//!
//! Not here: how it is shown (`milestone-status`).

mod balance;
mod book;
mod feed;
mod finding;
mod flow;
mod letters;
mod links;
mod parse;
mod scan;
mod states;
mod told;
mod walk;

use std::{
    collections::{BTreeMap, BTreeSet},
    thread,
};

use serde::Serialize;

pub use self::{
    balance::{Balance, QueueBalance},
    finding::{Finding, FindingKind},
};
use self::{
    book::{Book, Contents},
    finding::Findings,
    flow::{Endpoint, Flow},
    walk::Walk,
};
use crate::{
    Error, Kind, Result,
    delivery::{Consumer, State},
    enqueue, inventory,
    journal::{Extent, JournalName},
    logs::Logs,
    queue,
    state_file::{self, Loaded},
};

/// The answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// Nothing is lost, nothing is there twice, nothing was changed.
    Holds,
    /// Something is.
    Broken,
}

/// A journal that was read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct JournalRead {
    /// Its file.
    pub journal: String,
    /// Records below the mark.
    pub records: u64,
    /// Bytes below the mark.
    pub bytes: u64,
}

/// What a check came to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// The answer.
    pub status: Status,
    /// The logs folder.
    pub logs: String,
    /// What every id came to.
    pub queues: Vec<QueueBalance>,
    /// What was read.
    pub journals: Vec<JournalRead>,
    /// What is wrong, causes first.
    pub findings: Vec<Finding>,
    /// Further findings of the kinds and places of those that are listed.
    pub omitted: u64,
}

/// Checks a logs folder.
///
/// # Errors
/// When something cannot be read at all.
pub fn check(logs: &Logs) -> Result<Report> {
    let (report, findings) = look(logs)?;
    if findings.is_empty() {
        return Ok(report);
    }
    let (report, mut again) = look(logs)?;
    again.confirmed_by(&findings);
    let (findings, omitted) = again.finished(logs);
    let status = if findings.is_empty() { Status::Holds } else { Status::Broken };
    Ok(Report { status, findings, omitted, ..report })
}

/// One look at everything.
fn look(logs: &Logs) -> Result<(Report, Findings)> {
    let mut findings = Findings::default();
    let names = inventory::journals(logs)?;
    let mut flows = flows(logs, &names)?;
    // Who refers comes before what it refers to, since nothing that is there goes away.
    let mut in_order: Vec<_> = names.iter().collect();
    in_order.sort_by_key(|it| match Contents::of(it) {
        Contents::Source => 2,
        Contents::Queue => 1,
        _ => 0,
    });
    let mut extents = Vec::new();
    for name in in_order {
        let extent = Extent::of(logs, name)?;
        if !extent.is_absent() {
            extents.push((name, extent));
        }
    }
    let audit = Extent::of(logs, &JournalName::audit())?;

    let mut books = read_all(logs, extents, &mut findings)?;
    for flow in &mut flows {
        flow.book = books.iter().position(|it| it.name == flow.queue);
        flow.source_book = books.iter().position(|it| Some(&it.name) == flow.source.as_ref());
        let entries = flow.book.map_or(0, |it| books[it].entries.len());
        for endpoint in &mut flow.endpoints {
            *endpoint = Endpoint::new(&endpoint.name, endpoint.state.take(), entries);
        }
        for name in inventory::endpoints(logs, &flow.queue, "deadletter", ".jsonl")? {
            flow.endpoint(&name, entries);
        }
    }
    check_ids(&books, &mut findings);

    let mut walk = Walk::new(logs, &mut books, &mut flows, &mut findings);
    let audited = walk.audit(&audit)?;
    walk.look_beyond()?;
    walk.check_trims();
    let received = std::mem::take(&mut walk.received);

    told::check_told(&books, &mut findings);
    letters::check_letters(&books, &flows, &mut findings);
    check_audit_end(&books, audit.physical_end(), &mut findings);
    feed::check(logs, &books, &flows, received, &mut findings)?;
    let mut queues = Vec::new();
    for flow in &mut flows {
        flow.compare(logs, &books, &mut findings)?;
        flow.check_skipped(&books, &mut findings);
        flow.check_states(logs, &books, audit.physical_end(), &mut findings)?;
        queues.push(flow.balance(logs, &books, &mut findings)?);
    }
    let mut journals: Vec<_> = books
        .iter()
        .map(|it| JournalRead {
            journal: it.name.file(),
            records: it.believed as u64,
            bytes: it.extent.end(),
        })
        .collect();
    journals.sort_by(|a, b| a.journal.cmp(&b.journal));
    if !audit.is_absent() {
        let journal = JournalName::audit().file();
        journals.push(JournalRead { journal, records: audited, bytes: audit.end() });
    }
    let logs = logs.dir().display().to_string();
    let report = Report { status: Status::Holds, logs, queues, journals, findings: Vec::new(), omitted: 0 };
    Ok((report, findings))
}

/// The queues, with what their state files say.
fn flows(logs: &Logs, names: &BTreeSet<JournalName>) -> Result<Vec<Flow>> {
    let due = names.iter().filter_map(inventory::queue_of);
    let queues: BTreeSet<_> = names.iter().filter(|it| it.stem().is_some()).cloned().chain(due).collect();
    let mut flows = Vec::new();
    for queue in queues {
        let start = queue::start_of(logs, &queue);
        let source = start.as_ref().map(|it| it.source.clone()).or_else(|| inventory::source_of(&queue));
        let mut endpoints = Vec::new();
        for name in inventory::endpoints(logs, &queue, "state", ".json")? {
            let Ok(consumer) = Consumer::new(logs, queue.clone(), &name) else { continue };
            let state = match state_file::load::<State>(logs, &consumer.state_file())? {
                Loaded::Found(it) if it.endpoint == name => Some(it),
                // The next run rebuilds it.
                Loaded::Found(_) | Loaded::Missing | Loaded::Damaged(_) => None,
            };
            endpoints.push(Endpoint::new(&name, state, 0));
        }
        let passed_to = enqueue::passage(logs, &queue)?;
        flows.push(Flow {
            book: None,
            source_book: None,
            source,
            endpoints,
            position: 0,
            told_to: 0,
            sourced_from: 0,
            skipped: Vec::new(),
            start: start.map(|it| (it.position.offset, it.queue_offset)),
            passed_to: passed_to.map(|(after, to)| (after.offset, to.offset)),
            queue,
        });
    }
    Ok(flows)
}

/// Reads the journals, several at a time.
fn read_all(logs: &Logs, extents: Vec<(&JournalName, Extent)>, findings: &mut Findings) -> Result<Vec<Book>> {
    let read = thread::scope(|scope| {
        let readers: Vec<_> = extents
            .into_iter()
            .map(|(name, extent)| scope.spawn(move || Book::read(logs, name, extent)))
            .collect();
        readers.into_iter().map(thread::ScopedJoinHandle::join).collect::<Vec<_>>()
    });
    let mut books = Vec::new();
    for one in read {
        let one = one.map_err(|_| Error::new(Kind::Io, "", "a thread that read a journal ended early"))?;
        let (book, own) = one?;
        findings.append(own);
        books.push(book);
    }
    Ok(books)
}

/// Ids that a journal may have once.
fn check_ids(books: &[Book], findings: &mut Findings) {
    use book::Contents::{Events, Feed, Source};
    for book in books.iter().filter(|it| matches!(it.contents, Source | Feed | Events)) {
        for pair in book.by_key().windows(2).filter(|it| it[0].0 == it[1].0) {
            let [first, again] = [pair[0].1, pair[1].1].map(|it| &book.entries[it as usize]);
            let what = format!("its id is there already, at offset {}", first.offset);
            findings.add(Finding::at(FindingKind::IdTwice, &book.name, again.offset, what));
        }
    }
}

/// No mark rests on more audit than there is.
fn check_audit_end(books: &[Book], end: u64, findings: &mut Findings) {
    let cut: BTreeMap<_, _> = books
        .iter()
        .filter(|it| it.extent.audit_offset > end)
        .map(|it| (it.extent.audit_offset, &it.name))
        .collect();
    if let Some((offset, name)) = cut.last_key_value() {
        let what = format!("it ends at offset {end}; {name} was audited up to offset {offset}");
        findings.add(Finding::in_journal(FindingKind::AuditCut, &JournalName::audit(), what));
    }
}
