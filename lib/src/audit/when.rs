//! When a record was written, by the word of the audit: milestones and tasks say when something happened, and that may
//! be years ago.
//!
//! # Invariants
//! - Read-only, without a lock.
//! - Its cost does not follow the length of the audit: the records about one journal stand in the order of their
//!   offsets, so it is halved until little is left. Where so few records are about the journal that this would mean
//!   reading far, the answer is that it is not known.

use serde::Deserialize;

use super::line::RawLine;
use crate::{
    Result, Timestamp,
    journal::{Extent, Item, JournalName, Reader},
    logs::Logs,
};

/// What is read from beginning to end.
const LITTLE_BYTES: u64 = 128 << 10;
/// How far is read for a record about the journal.
const FAR_BYTES: u64 = 1 << 20;

/// When the record at this logical offset of a journal was appended; `None` when the audit does not say.
///
/// # Errors
/// When the audit cannot be read.
pub fn appended_at(logs: &Logs, name: &JournalName, offset: u64) -> Result<Option<Timestamp>> {
    let audit = JournalName::audit();
    let extent = Extent::of(logs, &audit)?;
    let mut reader = Reader::open_at(logs, &audit, 0)?;
    let mut from = extent.sealed.first().map_or(extent.active.base, |it| it.base);
    let mut to = reader.end();
    while to.saturating_sub(from) > LITTLE_BYTES {
        let middle = from + (to - from) / 2;
        reader.seek(middle);
        // It begins within a line.
        reader.next_item()?;
        let begin = reader.offset();
        match next_about(&mut reader, name, to.min(begin + FAR_BYTES))? {
            Some(it) if it.from > offset => to = middle,
            Some(_) => from = begin,
            None if reader.offset() >= to => to = middle,
            None => return Ok(None),
        }
    }
    reader.seek(from);
    while let Some(it) = next_about(&mut reader, name, to.saturating_add(LITTLE_BYTES))? {
        if (it.from..it.to).contains(&offset) {
            return Ok(Some(it.at));
        }
    }
    Ok(None)
}

/// A record that tells which of a journal's records were appended with it.
struct About {
    from: u64,
    to: u64,
    at: Timestamp,
}

/// The next one before `to`.
fn next_about(reader: &mut Reader, name: &JournalName, to: u64) -> Result<Option<About>> {
    while reader.offset() < to {
        let Some(item) = reader.next_item()? else { return Ok(None) };
        let Item::Line { text, .. } = item else { continue };
        if let Some(it) = about(text, name) {
            return Ok(Some(it));
        }
    }
    Ok(None)
}

fn about(text: &[u8], name: &JournalName) -> Option<About> {
    #[derive(Deserialize)]
    struct Record {
        timestamp: Timestamp,
        detail: Detail,
    }
    #[derive(Deserialize)]
    struct Detail {
        journal: String,
        offset: Option<u64>,
        from: Option<u64>,
        to: Option<u64>,
    }
    let is_first =
        matches!(RawLine::read(text)?.outcome, b"appended" | b"queued" | b"recovered" | b"reminded");
    let Record { timestamp: at, detail } = serde_json::from_slice(text).ok().filter(|_| is_first)?;
    let from = detail.offset.or(detail.from).filter(|_| detail.journal == name.as_str())?;
    Some(About { from, to: detail.to.unwrap_or(from + 1), at })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::audit::{Action, Draft, Outcome, append};

    #[test]
    fn each_record_is_found_among_many_and_what_is_not_there_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let logs = Logs::open(Some(dir.path()), "test").unwrap().rotate_at(1 << 20);
        let (name, other) = (JournalName::internal("milestones"), JournalName::internal("tasks"));
        for batch in 0..20_u64 {
            let drafts: Vec<Draft> = (0..500_u64)
                .map(|at| {
                    let offset = (batch * 500 + at) * 100;
                    // Now and then something else.
                    let (journal, outcome) = if at % 7 == 0 {
                        ("elsewhere", Outcome::Retried)
                    } else {
                        ("milestones", Outcome::Appended)
                    };
                    Draft::new(Action::Emit, outcome, json!({ "journal": journal, "offset": offset }))
                })
                .collect();
            append(&logs, &drafts).map_err(|it| it.error).unwrap();
        }
        for offset in [100, 600, 249_800, 499_900, 999_900] {
            assert!(appended_at(&logs, &name, offset).unwrap().is_some(), "{offset}");
        }
        for offset in [0, 50, 700, 1_000_000] {
            assert_eq!(appended_at(&logs, &name, offset).unwrap(), None, "{offset}");
        }
        assert_eq!(appended_at(&logs, &other, 100).unwrap(), None);
    }
}
