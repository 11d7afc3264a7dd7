//! Along the audit: every record that it tells of is looked up, every end that it tells of is noted.
//!
//! # Invariants
//! - The audit was looked at after every other journal, so whatever lies below their marks is told of in it.
//! - What it tells of beyond what was read is looked for at the end: it may have been written since.
//!
//! Not here: what a record is compared by (`told`), the sums (`balance`), receipts (`feed`).

use std::{borrow::Cow, collections::BTreeMap};

use serde::{Deserialize, de::IgnoredAny};

use super::{
    book::Book,
    finding::{Finding, FindingKind, Findings},
    flow::{Fate, Flow, Receipt},
    letters::letters_of,
    links::Links,
    parse::hash_of_hex,
    scan::{Line, scan},
    told::Said,
};
use crate::{
    Result,
    journal::{Extent, JournalName},
    logs::Logs,
};

/// What is read of an audit record.
#[derive(Deserialize)]
struct Record<'l> {
    #[serde(borrow)]
    action: Cow<'l, str>,
    #[serde(borrow)]
    outcome: Cow<'l, str>,
    #[serde(borrow)]
    idempotency_key: Option<Cow<'l, str>>,
    #[serde(borrow)]
    trace_id: Option<Cow<'l, str>>,
    #[serde(borrow)]
    detail: Detail<'l>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Detail<'l> {
    #[serde(borrow)]
    journal: Option<Cow<'l, str>>,
    offset: Option<u64>,
    from: Option<u64>,
    to: Option<u64>,
    records: Option<u64>,
    #[serde(borrow)]
    fingerprint: Option<Cow<'l, str>>,
    quarantine: Option<IgnoredAny>,
    #[serde(borrow)]
    queue: Option<Cow<'l, str>>,
    #[serde(borrow)]
    endpoint: Option<Cow<'l, str>>,
    queue_offset: Option<u64>,
    #[serde(borrow)]
    source: Option<Cow<'l, str>>,
    source_offset: Option<u64>,
    dead_letter: Option<u64>,
    cursor: Option<u64>,
    #[serde(borrow)]
    receipt: Option<ReceiptOf<'l>>,
    seq: Option<u64>,
    #[serde(borrow)]
    replaced: Option<Cow<'l, str>>,
    #[serde(borrow)]
    trimmed: Option<Cow<'l, str>>,
}

#[derive(Deserialize)]
struct ReceiptOf<'l> {
    seq: u64,
    #[serde(borrow)]
    head: Cow<'l, str>,
}

/// Something of a journal that was not read: it may be newer than our look.
#[derive(Debug)]
struct Beyond {
    offset: u64,
    id: Option<String>,
    audited_at: u64,
}

/// The journals, and what the audit says about them.
pub(super) struct Walk<'w> {
    pub logs: &'w Logs,
    pub books: &'w mut [Book],
    pub flows: &'w mut [Flow],
    pub findings: &'w mut Findings,
    /// What the receiver in this folder was sent: key and `seq`.
    pub received: Vec<(u64, u64)>,
    /// By journal the last place that the audit tells of behind what was read.
    beyond: BTreeMap<String, Beyond>,
    /// What was found of each journal on the way, until a resync makes it void.
    told: BTreeMap<String, Findings>,
    /// By journal up to where it was trimmed, by the word of the audit.
    trimmed: BTreeMap<String, u64>,
}

impl<'w> Walk<'w> {
    pub fn new(
        logs: &'w Logs,
        books: &'w mut [Book],
        flows: &'w mut [Flow],
        findings: &'w mut Findings,
    ) -> Walk<'w> {
        Walk {
            logs,
            books,
            flows,
            findings,
            received: Vec::new(),
            beyond: BTreeMap::new(),
            told: BTreeMap::new(),
            trimmed: BTreeMap::new(),
        }
    }

    /// Reads the whole audit. Returns how many records it has.
    pub fn audit(&mut self, extent: &Extent) -> Result<u64> {
        let name = JournalName::audit();
        let mut chain = Links::new(extent);
        let mut own = Findings::default();
        let mut records = 0;
        let logs = self.logs;
        scan(logs, &name, extent, &mut own, &mut |line, own| {
            if let Some(fault) = line.fault {
                let what = format!("the line {fault}");
                own.add(Finding::at(FindingKind::LineDamaged, &name, line.offset, what));
                return true;
            }
            if !chain.take(&line, &name, own) {
                return false;
            }
            records += 1;
            match serde_json::from_slice::<Record>(line.text) {
                Ok(record) => self.take(&record, &line),
                Err(cause) => {
                    let what = format!("the line is no audit record: {cause}");
                    own.add(Finding::at(FindingKind::LineDamaged, &name, line.offset, what));
                }
            }
            true
        })?;
        chain.check_mark(&name, &mut own);
        self.findings.append(own);
        for (_, told) in std::mem::take(&mut self.told) {
            self.findings.append(told);
        }
        Ok(records)
    }

    fn take(&mut self, record: &Record<'_>, line: &Line<'_>) {
        let detail = &record.detail;
        if let Some(name) = &detail.replaced {
            self.forget(name, detail.from.unwrap_or(0));
            return;
        }
        // A duplicate names the first one, and tells nothing new of it.
        if detail.quarantine.is_none() && record.outcome != "duplicate" {
            self.tell(record, line);
        }
        match (&*record.action, &*record.outcome) {
            ("deliver", "acknowledged") => self.settle(record, line, Fate::Acknowledged),
            ("deliver", "dead-lettered") => self.settle(record, line, Fate::Dead),
            ("deliver", "quarantined") => self.settle(record, line, Fate::PassedOver),
            ("discard", "done") => self.discard(record, line),
            ("resync", _) => self.resync(detail, line.offset),
            ("checkpoint", "done") => {
                if let (Some(name), Some(to)) = (&detail.trimmed, detail.to) {
                    self.trimmed.insert(name.to_string(), to);
                }
            }
            ("receive", "appended" | "duplicate") => {
                let key = record.trace_id.as_deref().and_then(hash_of_hex);
                self.received.extend(key.zip(detail.seq));
            }
            _ => {}
        }
    }

    fn book(&self, name: &str) -> Option<usize> {
        self.books.iter().position(|it| it.name.as_str() == name)
    }

    /// Something that an audit record tells of `name` and that is not so.
    fn untrue(&mut self, kind: FindingKind, name: &str, line: &Line<'_>, id: Option<&str>, what: String) {
        let finding = Finding::at(kind, &JournalName::audit(), line.offset, what);
        self.told_of(name).add(finding.about(id));
    }

    fn told_of(&mut self, name: &str) -> &mut Findings {
        self.told.entry(name.to_owned()).or_default()
    }

    /// What a journal held from `from` on before it was taken as it is by a resync is gone with the word of an operator.
    fn forget(&mut self, name: &str, from: u64) {
        let Some(at) = self.book(name) else { return };
        let book = &mut self.books[at];
        let first = book.entries.partition_point(|it| it.offset < from);
        for entry in &mut book.entries[first..] {
            entry.told = 0;
            entry.is_recovered = false;
        }
        let name_of_it = book.name.clone();
        self.beyond.remove(name);
        self.told_of(name).forget(&name_of_it, from);
        for flow in
            self.flows.iter_mut().filter(|it| it.source.as_ref().is_some_and(|it| it.as_str() == name))
        {
            flow.sourced_from = flow.told_to;
        }
        for flow in self.flows.iter_mut().filter(|it| it.queue.as_str() == name) {
            for endpoint in &mut flow.endpoints {
                let first = first.min(endpoint.fates.len());
                endpoint.fates[first..].fill(Fate::Open);
                endpoint.receipts.retain(|it| (it.at as usize) < first);
            }
        }
    }

    /// The records that an audit record tells of.
    fn tell(&mut self, record: &Record<'_>, line: &Line<'_>) {
        let detail = &record.detail;
        let Some(name) = &detail.journal else { return };
        let id = record.idempotency_key.as_deref();
        let (from, to) = match (detail.offset, detail.from, detail.to) {
            (Some(offset), ..) => (offset, None),
            (None, Some(from), Some(to)) => (from, Some(to)),
            _ => return,
        };
        let Some(at) = self.book(name) else {
            self.look_later(name, from, id, line);
            return;
        };
        if from >= self.books[at].read_end() {
            self.look_later(name, from, id, line);
            return;
        }
        let said = Said {
            from,
            to,
            key: record.trace_id.as_deref().and_then(hash_of_hex),
            id,
            records: detail.records,
            fingerprint: detail.fingerprint.as_deref().and_then(hash_of_hex),
            is_recovery: record.outcome == "recovered",
            at: line.offset,
        };
        let (finding, position) = said.check(&mut self.books[at]);
        if let Some(finding) = finding {
            self.told_of(name).add(finding);
        }
        if let Some(position) = position {
            self.learn_source(at, detail);
            for flow in self.flows.iter_mut().filter(|it| it.book == Some(at)) {
                flow.position = position;
                flow.told_to = flow.told_to.max(to.unwrap_or(from + 1));
            }
        }
    }

    /// From which journal a queue is filled: the audit of each batch names it. One that comes from another journal
    /// than those before cannot be compared with the same one.
    fn learn_source(&mut self, queue: usize, detail: &Detail<'_>) {
        let Some(source) = &detail.source else { return };
        let source_book = self.book(source);
        for flow in self.flows.iter_mut().filter(|it| it.book == Some(queue)) {
            if flow.source.as_ref().is_none_or(|it| it.as_str() != source) {
                flow.source = Some(JournalName::internal(source.as_ref()));
                flow.source_book = source_book;
                flow.sourced_from = flow.told_to;
            }
        }
    }

    fn look_later(&mut self, name: &str, offset: u64, id: Option<&str>, line: &Line<'_>) {
        let beyond = self.beyond.entry(name.to_owned()).or_insert(Beyond {
            offset: 0,
            id: None,
            audited_at: line.offset,
        });
        if offset >= beyond.offset {
            *beyond = Beyond { offset, id: id.map(str::to_owned), audited_at: line.offset };
        }
    }

    fn settle(&mut self, record: &Record<'_>, line: &Line<'_>, fate: Fate) {
        let detail = &record.detail;
        let (Some(queue), Some(endpoint), Some(offset)) =
            (&detail.queue, &detail.endpoint, detail.queue_offset)
        else {
            return;
        };
        let id = record.idempotency_key.as_deref();
        let Some(flow) = self.flows.iter_mut().find(|it| it.queue.as_str() == queue) else {
            self.look_later(queue, offset, id, line);
            return;
        };
        let Some(book) = flow.book.map(|it| &mut self.books[it]) else {
            self.look_later(queue, offset, id, line);
            return;
        };
        let entries = book.entries.len();
        let to = flow.endpoint(endpoint, entries);
        if fate == Fate::Acknowledged {
            to.acknowledgements += 1;
        }
        if offset < book.begins {
            return;
        }
        if offset >= book.read_end() {
            self.look_later(queue, offset, id, line);
            return;
        }
        let Some(at) = book.find(offset) else {
            let what = format!("it settles offset {offset} of {book}, where no record begins");
            self.untrue(FindingKind::SettledNothing, queue, line, id, what);
            return;
        };
        let entry = book.entries[at];
        let key = record.trace_id.as_deref().and_then(hash_of_hex);
        let is_its = entry.is_damaged || fate == Fate::PassedOver || key == Some(entry.key);
        let is_for = book.addressed_at(at).is_none_or(|it| it.endpoint == **endpoint);
        if !is_its || !is_for {
            let what = format!(
                "it settles offset {offset} of {book}, {}",
                if is_its { "which is meant for another endpoint" } else { "where another event is" }
            );
            self.untrue(FindingKind::SettledNothing, queue, line, id, what);
            return;
        }
        if to.fates[at] != Fate::Open {
            let what = format!(
                "it is {} at audit offset {}, and had been {} already",
                fate.word(),
                line.offset,
                to.fates[at].word()
            );
            let finding = Finding::at(FindingKind::SettledTwice, &book.name, offset, what);
            self.told_of(queue).add(finding.about(id).with_endpoint(endpoint));
            return;
        }
        to.fates[at] = fate;
        if let Some(receipt) = &detail.receipt {
            to.receipts.push(Receipt {
                seq: receipt.seq,
                head: hash_of_hex(&receipt.head).unwrap_or(0),
                at: u32::try_from(at).unwrap_or(u32::MAX),
            });
        }
    }

    /// A dead letter is closed by somebody.
    fn discard(&mut self, record: &Record<'_>, line: &Line<'_>) {
        let detail = &record.detail;
        let (Some(queue), Some(endpoint)) = (&detail.queue, &detail.endpoint) else { return };
        let Some(offset) = detail.dead_letter.or(detail.offset) else { return };
        let id = record.idempotency_key.as_deref();
        let Some(flow) = self.flows.iter().position(|it| it.queue.as_str() == queue) else { return };
        let Some(letters) = letters_of(self.books, &self.flows[flow].queue, endpoint) else {
            let what = "it closes a dead letter, and there are none".to_owned();
            self.untrue(FindingKind::DiscardedNothing, queue, line, id, what);
            return;
        };
        let book = &mut self.books[letters];
        if offset >= book.read_end() {
            let name = book.name.to_string();
            self.look_later(&name, offset, id, line);
            return;
        }
        let found = book.find(offset).map(|it| (book.entries[it], book.extra[it].0));
        let key = record.trace_id.as_deref().and_then(hash_of_hex);
        let Some((_, queue_offset)) = found.filter(|(it, _)| key == Some(it.key)) else {
            let what = format!("it closes the dead letter at offset {offset} of {book}, which is not there");
            self.untrue(FindingKind::DiscardedNothing, queue, line, id, what);
            return;
        };
        let flow = &mut self.flows[flow];
        let Some(queue) = flow.book.map(|it| &mut self.books[it]) else { return };
        let entries = queue.entries.len();
        let Some(at) = queue.find(queue_offset) else { return };
        let fate = &mut flow.endpoint(endpoint, entries).fates[at];
        if *fate == Fate::Discarded {
            let what = format!("it closes the dead letter at offset {offset}, which was closed before");
            let name = flow.queue.to_string();
            self.untrue(FindingKind::DiscardedNothing, &name, line, id, what);
        } else {
            *fate = Fate::Discarded;
        }
    }

    /// Somebody has set a consumer to another position, by the audit's record at `audited_at`.
    fn resync(&mut self, detail: &Detail<'_>, audited_at: u64) {
        let Some(queue) = &detail.queue else { return };
        let Some(flow) = self.flows.iter_mut().find(|it| it.queue.as_str() == queue) else { return };
        if let (Some(_), Some(offset)) = (&detail.source, detail.source_offset) {
            if offset > flow.position {
                flow.skipped.push((flow.position, offset));
            }
            flow.position = offset;
        }
        let (Some(endpoint), Some(cursor)) = (&detail.endpoint, detail.cursor) else { return };
        let Some(book) = flow.book.map(|it| &self.books[it]) else { return };
        let at = book.entries.partition_point(|it| it.offset < cursor);
        let endpoint = flow.endpoint(endpoint, book.entries.len());
        endpoint.resynced_at = Some(audited_at);
        let fates = &mut endpoint.fates;
        for fate in fates[..at].iter_mut().filter(|it| **it == Fate::Open) {
            *fate = Fate::PassedOver;
        }
        // What is sent again is settled again.
        fates[at..].fill(Fate::Open);
    }

    /// Nothing is gone from a journal's beginning but what a trim took: its keys alone could be anybody's.
    pub fn check_trims(&mut self) {
        for book in self.books.iter().filter(|it| it.begins > 0) {
            let trimmed = self.trimmed.get(book.name.as_str()).copied().unwrap_or(0);
            if book.begins > trimmed {
                let what =
                    format!("it begins at offset {}; the audit tells of trims up to {trimmed}", book.begins);
                self.findings.add(Finding::at(FindingKind::SegmentMissing, &book.name, trimmed, what));
            }
        }
    }

    /// Looks for what was told of and lies behind what was read: the journals may have grown since.
    pub fn look_beyond(&mut self) -> Result<()> {
        for (name, beyond) in std::mem::take(&mut self.beyond) {
            let name = JournalName::internal(name);
            let end = Extent::of(self.logs, &name)?.physical_end();
            if beyond.offset < end {
                continue;
            }
            let what = format!(
                "the audit (offset {}) tells of a record at offset {}; the journal ends at {end}",
                beyond.audited_at, beyond.offset
            );
            let finding = Finding::at(FindingKind::RecordMissing, &name, beyond.offset, what);
            self.findings.add(finding.about(beyond.id.as_deref()));
        }
        Ok(())
    }
}
