//! Dead letters against the queue, and what puts them back.
//!
//! Not here: which of them are closed (`walk`).

use std::collections::BTreeMap;

use super::{
    book::Book,
    finding::{Finding, FindingKind, Findings},
    flow::Flow,
};
use crate::journal::JournalName;

/// Each dead letter is a record of its queue, each redriven record a dead letter, and none twice.
pub(super) fn check_letters(books: &[Book], flows: &[Flow], findings: &mut Findings) {
    for flow in flows {
        let Some(queue) = flow.book else { continue };
        for endpoint in &flow.endpoints {
            let Some(letters) = letters_of(books, &flow.queue, &endpoint.name) else { continue };
            let (letters, queue) = (&books[letters], &books[queue]);
            for (at, letter) in letters.entries.iter().enumerate().filter(|(_, it)| !it.is_damaged) {
                let queue_offset = letters.extra[at].0;
                let found = queue.entries.binary_search_by_key(&queue_offset, |it| it.offset);
                let is_same = found.is_ok_and(|it| {
                    let record = &queue.entries[it];
                    record.is_damaged || (record.key, record.content) == (letter.key, letter.content)
                });
                if !is_same && queue_offset >= queue.begins {
                    let what = format!("it is not the record at offset {queue_offset} of {queue}");
                    let finding = Finding::at(FindingKind::LetterDiffers, &letters.name, letter.offset, what);
                    findings.add(finding.with_endpoint(&endpoint.name));
                }
            }
        }
        check_redriven(books, flow, queue, findings);
    }
}

fn check_redriven(books: &[Book], flow: &Flow, queue: usize, findings: &mut Findings) {
    let queue = &books[queue];
    let mut seen = BTreeMap::new();
    for it in &queue.addressed {
        let Some(offset) = it.redrive_of else { continue };
        let entry = &queue.entries[it.at];
        let letters = letters_of(books, &flow.queue, &it.endpoint).map(|it| &books[it]);
        let letter = letters.and_then(|it| {
            let at = it.entries.binary_search_by_key(&offset, |it| it.offset).ok()?;
            Some(&it.entries[at])
        });
        let is_newer = letters.is_some_and(|it| offset >= it.read_end() || offset < it.begins);
        if !is_newer && letter.is_none_or(|it| !it.is_damaged && it.key != entry.key) {
            let what = format!("it puts back the dead letter at offset {offset}, which is not there");
            let finding = Finding::at(FindingKind::RedriveOfNothing, &queue.name, entry.offset, what);
            findings.add(finding.with_endpoint(&it.endpoint));
        }
        if let Some(first) = seen.insert((it.endpoint.as_str(), offset), entry.offset) {
            let what = format!(
                "it puts back the dead letter at offset {offset}, as the record at offset {first} does"
            );
            let finding = Finding::at(FindingKind::RedrivenTwice, &queue.name, entry.offset, what);
            findings.add(finding.with_endpoint(&it.endpoint));
        }
    }
}

/// The dead letters of an endpoint of a queue.
pub(super) fn letters_of(books: &[Book], queue: &JournalName, endpoint: &str) -> Option<usize> {
    let dot = if endpoint.is_empty() { "" } else { "." };
    let name = format!("{}-deadletter{dot}{endpoint}", queue.stem().unwrap_or_default());
    books.iter().position(|it| it.name.as_str() == name)
}
