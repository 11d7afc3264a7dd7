//! What memory has not, read from the journal: pages of the past, a scope's lists, what follows a place.
//!
//! # Invariants
//! - A question that finds little answers after some [`SCANNED_MAX`] lines with what it has, and says where to go on.
//!   Only a scope whose lists were dropped costs the whole feed, and then has them again.
//! - The state is not held while the journal is read, but for the little that came while a scope's lists were made.
//!
//! Not here: what memory answers, and the threads that these reads run in (the parent).

use std::{collections::BTreeSet, sync::Arc};

use milepost::{
    Result, Timestamp,
    journal::{self, Lines, Reader},
};

use super::{Before, Cursor, Feed, Filter, Found, Line, PAGE_BYTES_MAX, PAGE_ITEMS_MAX, Page, blocks::Block};
use crate::{
    item::Item,
    latest::{Lists, Place},
};

/// Lines that one question about the past looks at before it answers with what it has.
const SCANNED_MAX: usize = 20_000;

impl Feed {
    /// The newest milestones before a place in the order by time, newest first.
    pub(super) fn read_newest(&self, filter: &Filter, before: Option<Before>, limit: usize) -> Result<Page> {
        let mut known = self.state().known(filter, before, limit);
        if known.is_none()
            && let Some(scope) = &filter.scope
            && self.state().latest.is_dropped(scope)
        {
            if !self.restore(scope)? {
                return Ok(Page { items: Vec::new(), next: None });
            }
            known = self.state().known(filter, before, limit);
        }
        let Found { places, next } = match known {
            Some(it) => it,
            None => self.scan(filter, before, limit)?,
        };
        let mut items = Vec::with_capacity(places.len());
        let mut lines = self.journal.lines();
        for place in places {
            if let Some(item) = self.state().recent(place.seq, self.show) {
                items.push(item);
            } else if let Some(item) = self.item_at(&mut lines, place)? {
                items.push(Arc::new(item));
            }
        }
        Ok(Page { items, next })
    }

    fn item_at(&self, lines: &mut Lines, place: Place) -> Result<Option<Item>> {
        let Some(line) = lines.get(place.offset)? else { return Ok(None) };
        let item = Item::from_line(&line, self.show).filter(|it| it.seq == place.seq);
        if item.is_none() {
            self.tell_damage(place.offset, place.offset + line.len() as u64 + 1)?;
        }
        Ok(item)
    }

    /// The newest before a place, from the journal: block by block, those with the latest times first.
    fn scan(&self, filter: &Filter, before: Option<Before>, limit: usize) -> Result<Found> {
        let (blocks, end) = {
            let state = self.state();
            (state.blocks.by_time(state.end), state.end)
        };
        let before = before.unwrap_or((Timestamp::from_millis(i64::MAX), u64::MAX));
        let mut reader = Reader::open_at(self.logs(), self.journal.name(), 0)?;
        let mut found: BTreeSet<Place> = BTreeSet::new();
        let mut scanned = 0;
        for (Block { offset, earliest, latest, .. }, block_end) in blocks {
            // Nothing in this block or in those after it is newer than what is found already.
            let is_enough =
                found.len() > limit && found.iter().nth_back(limit).is_some_and(|it| it.time > latest);
            if is_enough || filter.since.is_some_and(|it| latest < it) {
                break;
            }
            if scanned > SCANNED_MAX && latest < before.0 {
                // What is as new as this block may be older than something in it.
                found.retain(|it| it.time > latest);
                let mut found = Found::of(found, limit);
                found.next.get_or_insert((latest, u64::MAX));
                return Ok(found);
            }
            if earliest > before.0 {
                continue;
            }
            reader.seek(offset);
            while reader.offset() < block_end.min(end)
                && let Some(item) = reader.next_item()?
            {
                scanned += 1;
                let journal::Item::Line { offset, text, .. } = item else { continue };
                let Some(Line { seq, event, .. }) = Line::read(text) else { continue };
                if (event.timestamp_utc, seq) < before
                    && filter.takes(&event)
                    && filter.words.as_ref().is_none_or(|words| {
                        // What is hidden cannot be searched for either.
                        Item::from_line(text, self.show).is_some_and(|it| it.has(words))
                    })
                {
                    found.insert(Place { time: event.timestamp_utc, seq, offset });
                    if found.len() > limit + 1 {
                        found.pop_first();
                    }
                }
            }
        }
        Ok(Found::of(found, limit))
    }

    /// Makes the lists of a scope again by reading the whole feed; false when it has no milestone. Then nothing is
    /// kept: whoever asks for scopes that never were must not drive out those that are.
    fn restore(&self, scope: &str) -> Result<bool> {
        let mut lists = Lists::default();
        let mut reader = Reader::open_at(self.logs(), self.journal.name(), 0)?;
        let until = reader.end();
        add_scope(&mut lists, &mut reader, scope, until)?;
        // What came meanwhile is little; with the state held, nothing can come in between.
        let mut state = self.state();
        reader.refresh()?;
        add_scope(&mut lists, &mut reader, scope, state.end)?;
        let is_there = !lists.is_empty();
        if is_there {
            state.latest.restore(scope, lists);
        }
        Ok(is_there)
    }

    pub(super) fn read_after(&self, from: Cursor) -> Result<(Vec<Arc<Item>>, Cursor)> {
        let (start, until) = {
            let state = self.state();
            (from.offset.unwrap_or_else(|| state.blocks.before(from.after + 1)), state.end)
        };
        let mut reader = Reader::open_at(self.logs(), self.journal.name(), start)?;
        let (mut items, mut bytes, mut cursor) = (Vec::new(), 0, from);
        while items.len() < PAGE_ITEMS_MAX && bytes < PAGE_BYTES_MAX && reader.offset() < until {
            let Some(item) = reader.next_item()? else { break };
            if let journal::Item::Line { text, .. } = item
                && let Some(item) = Item::from_line(text, self.show).filter(|it| it.seq > cursor.after)
            {
                cursor.after = item.seq;
                bytes += item.bytes;
                items.push(Arc::new(item));
            }
        }
        cursor.offset = Some(reader.offset());
        Ok((items, cursor))
    }
}

/// Adds the milestones of a scope up to the logical offset `until`.
fn add_scope(lists: &mut Lists, reader: &mut Reader, scope: &str, until: u64) -> Result<()> {
    while reader.offset() < until
        && let Some(item) = reader.next_item()?
    {
        let journal::Item::Line { offset, text, .. } = item else { continue };
        let Some(line) = Line::read(text) else { continue };
        if line.event.scope == scope {
            let place = Place { time: line.event.timestamp_utc, seq: line.seq, offset };
            lists.add(place, line.event.risk_status);
        }
    }
    Ok(())
}
