//! What happened and is not on disk yet, in the order in which it happened.
//!
//! # Invariants
//! - What waits here takes little more room than its audit records will: there are thousands.
//! - Its audit records are those of the events that were pushed, in their order.
//!
//! Not here: when it is written, and what else is (`store`).

use super::event::Event;
use crate::{
    Error, Kind, Result,
    audit::{self, Action, Draft, Outcome},
    envelope::DeadLetter,
    journal::{Batch, Journal},
    logs::Logs,
};

/// See the head of this file.
#[derive(Debug, Default)]
pub(super) struct Group {
    entries: Vec<Entry>,
    /// The texts of plain entries, one after the other: key, scope, detail.
    texts: Vec<u8>,
    /// Bytes of dead letters.
    dead_bytes: usize,
    has_dead: bool,
}

#[derive(Debug)]
enum Entry {
    /// An ordinary acknowledgement: how long its texts are.
    Plain { outcome: Outcome, key: Option<usize>, scope: Option<usize>, detail: usize },
    /// Any other event; a dead letter is given its place when it is written.
    Whole(Box<(Event, Option<DeadLetter>)>),
}

impl Group {
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Bytes of the dead letters in it.
    pub fn dead_bytes(&self) -> usize {
        self.dead_bytes
    }

    pub fn has_dead(&self) -> bool {
        self.has_dead
    }

    /// Forgets everything but the room that it took.
    pub fn clear(&mut self) {
        self.entries.clear();
        self.texts.clear();
        (self.dead_bytes, self.has_dead) = (0, false);
    }

    pub fn push(&mut self, event: Event, dead: Option<DeadLetter>) {
        let entry = if dead.is_none() { self.plain(&event) } else { None };
        self.dead_bytes += dead.as_ref().map_or(0, |it| it.envelope().payload.get().len() + 4096);
        self.has_dead |= dead.is_some();
        self.entries.push(entry.unwrap_or_else(|| Entry::Whole(Box::new((event, dead)))));
    }

    fn plain(&mut self, event: &Event) -> Option<Entry> {
        let Event::Item { outcome, key, scope, detail } = event else { return None };
        let start = self.texts.len();
        for text in [key, scope].into_iter().flatten() {
            self.texts.extend_from_slice(text.as_bytes());
        }
        let detail_at = self.texts.len();
        if !detail.write_plain(&mut self.texts) {
            self.texts.truncate(start);
            return None;
        }
        let (key, scope) = (key.as_ref().map(String::len), scope.as_ref().map(String::len));
        Some(Entry::Plain { outcome: *outcome, key, scope, detail: self.texts.len() - detail_at })
    }

    /// Appends the audit records of all; there are no dead letters. Returns the logical end of the audit.
    pub fn append(&self, logs: &Logs) -> Result<u64> {
        let mut drafts = Vec::with_capacity(self.entries.len());
        let mut texts = self.texts();
        drafts.extend(self.entries.iter().map(|it| it.draft(&mut texts)));
        audit::append(logs, &drafts).map_err(|it| it.error)
    }

    /// Appends the dead letters, and the audit records of all. Returns the logical end of the dead letters.
    pub fn append_with_dead(&mut self, dead_letters: &Journal) -> Result<u64> {
        let mut writer = dead_letters.write()?;
        let start = writer.end();
        let name = dead_letters.name();
        let mut batch = Batch::default();
        for entry in &mut self.entries {
            let Entry::Whole(whole) = entry else { continue };
            let (event, Some(dead)) = &mut **whole else { continue };
            let mut line = Vec::with_capacity(1024);
            dead.write_line(&mut line)
                .map_err(|it| Error::new(Kind::BadData, name.file(), it.to_string()))?;
            if let Event::Item { detail, .. } = event {
                detail.journal = Some(name.as_str().to_owned());
                detail.offset = Some(start + batch.bytes());
            }
            batch.push(&line);
        }
        let mut texts = self.texts();
        self.entries.iter().for_each(|it| batch.audit(it.draft(&mut texts)));
        writer.append(&batch)?;
        Ok(writer.end())
    }

    fn texts(&self) -> &str {
        // Only texts were put there.
        std::str::from_utf8(&self.texts).unwrap_or_default()
    }
}

impl Entry {
    /// The audit record; a plain entry takes its texts from the front of `texts`.
    fn draft<'g>(&'g self, texts: &mut &'g str) -> Draft<'g> {
        let mut take = |length: usize| {
            let (text, rest) = texts.split_at_checked(length).unwrap_or_default();
            *texts = rest;
            text
        };
        match self {
            Entry::Plain { outcome, key, scope, detail } => {
                let (key, scope) = (key.map(&mut take), scope.map(&mut take));
                let detail = audit::Detail::Canonical(take(*detail).into());
                Draft {
                    key: key.map(Into::into),
                    scope: scope.map(Into::into),
                    ..Draft::new(Action::Deliver, *outcome, detail)
                }
            }
            Entry::Whole(whole) => whole.0.draft(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::delivery::event::Detail;

    #[test]
    fn plain_or_whole_the_records_are_those_of_the_events() {
        let event = |key: Option<&str>, scope: Option<&str>, answer: &str| Event::Item {
            outcome: Outcome::Acknowledged,
            key: key.map(str::to_owned),
            scope: scope.map(str::to_owned),
            detail: Box::new(Detail { answer: answer.to_owned(), ..Detail::default() }),
        };
        let events = [
            event(Some("milestone:é\"1"), Some("a"), ""),
            event(Some("milestone:2"), None, "odd"),
            event(None, Some("\u{1f680}\n"), ""),
            event(Some(""), Some(""), ""),
        ];
        let mut group = Group::default();
        for round in 0..2 {
            for it in &events {
                group.push(it.clone(), None);
            }
            let whole = group.entries.iter().filter(|it| matches!(it, Entry::Whole(_))).count();
            assert_eq!((group.len(), whole), (4, 1), "round {round}");
            let mut texts = group.texts();
            let drafts: Vec<_> = group.entries.iter().map(|it| it.draft(&mut texts)).collect();
            assert_eq!(drafts, events.iter().map(Event::draft).collect::<Vec<_>>());
            assert_eq!(texts, "");
            drop(drafts);
            group.clear();
            assert!(group.is_empty() && !group.has_dead());
        }
    }
}
