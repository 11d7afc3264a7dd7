//! The sums: what every event of a source came to at every endpoint.
//!
//! # Invariants
//! - Every id is in exactly one of: acknowledged, pending, dead-lettered, discarded, passed over, lost.
//! - An id is what its last record in the queue is: a redrive takes the place of the dead letter that it puts back.
//!
//! Not here: where the fates come from (`walk`).

use serde::Serialize;

use super::{
    book::Book,
    finding::{Finding, FindingKind, Findings},
    flow::{Endpoint, Fate, Flow},
};
use crate::{
    Result,
    delivery::State,
    journal::{JournalName, Lines},
    logs::Logs,
    queue,
};

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

impl Flow {
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
        // A state from before the last resync is set right by the next run, from the audit.
        let is_outdated = |it: &&State| endpoint.resynced_at.is_some_and(|at| at >= it.audit_offset);
        let Some(state) = endpoint.state.as_ref().filter(|it| !is_outdated(it)) else { return Ok(lost) };
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
            // What was trimmed from the queue has come to something everywhere, and is not counted any more.
            let is_queued =
                keys.binary_search_by_key(key, |it| it.0).is_ok() || queue.is_some_and(|it| it.had_key(*key));
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
}
