//! What the state files claim, against what the journals hold.
//!
//! Not here: what a state is beyond without an end (`balance`: lost).

use super::{
    book::Book,
    finding::{Finding, FindingKind, Findings},
    flow::Flow,
    parse::{hash_of_hex, hash_of_key},
};
use crate::{Result, delivery::Consumer, journal::JournalName, logs::Logs};

impl Flow {
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
                let is_there = key == Some(hash_of_key(&retry.key));
                let what =
                    format!("{:?} waits at offset {} of the queue and is not there", retry.key, lane.offset);
                claim(is_there || lane.offset < queue.begins, what);
            }
        }
        Ok(())
    }
}
