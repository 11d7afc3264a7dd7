//! The feed as readers see it: the newest milestones, and everything after a given one.
//!
//! The journal is the feed; in memory are only places in it and the items of the last minutes. The store
//! publishes a line after it is on disk and audited, never before.
//!
//! # Invariants
//! - Memory is bounded whatever the feed's length: places (`latest`), [`STEPS_MAX`] offsets by seq, and
//!   recent items up to [`RECENT_MAX`] and [`RECENT_BYTES_MAX`].
//! - Whoever asks for what follows seq N gets every later line once, in order: from memory, or else from the
//!   journal.
//! - A line that the disk damaged is passed over.
//!
//! Not here: who asks (`reads`, `stream`, `page`), what is shown of an item (`item`).

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use milepost::{
    Result, Timestamp,
    event::RiskStatus,
    journal::{self, JournalName, Lines, Reader},
    logs::Logs,
};
use serde::Deserialize;
use tokio::sync::{Semaphore, watch};

use crate::{
    item::{Item, ShowEvidence},
    latest::{self, Latest, Lists, Place},
};

/// Offsets by seq that are kept; when they are full, every second one is dropped.
const STEPS_MAX: usize = 4096;
/// Items that a stream finds in memory.
const RECENT_MAX: usize = 1024;
/// Bytes of their JSON.
const RECENT_BYTES_MAX: usize = 8 << 20;
/// Items that are read from the journal at a time, and bytes of their JSON.
const PAGE_ITEMS_MAX: usize = 64;
const PAGE_BYTES_MAX: usize = 512 << 10;
/// Reads of the journal at a time: they take turns on one disk anyway.
const READS_MAX: usize = 4;

/// The feed.
#[derive(Debug)]
pub struct Feed {
    logs: Logs,
    name: JournalName,
    show: ShowEvidence,
    state: Mutex<State>,
    /// The last seq, for those who wait for the next.
    last: watch::Sender<u64>,
    reads: Semaphore,
}

#[derive(Debug, Default)]
struct State {
    latest: Latest,
    steps: Steps,
    recent: VecDeque<Arc<Item>>,
    recent_bytes: usize,
    /// Logical offset up to which all this knows the journal.
    end: u64,
    head: String,
}

/// What readers filter by.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// One scope, or all.
    pub scope: Option<String>,
    /// One risk status, or all.
    pub risk: Option<RiskStatus>,
}

/// A reader's place in the feed.
#[derive(Clone, Copy, Debug)]
pub struct Cursor {
    /// What follows this seq is wanted.
    pub after: u64,
    /// Where that begins, if it is known.
    offset: Option<u64>,
}

impl Cursor {
    /// Everything after this seq.
    pub fn after(seq: u64) -> Cursor {
        Cursor { after: seq, offset: None }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Line {
    seq: u64,
    event: Event,
    hash: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Event {
    timestamp_utc: Timestamp,
    scope: String,
    risk_status: RiskStatus,
}

impl Line {
    /// What is in a line; `None` when it is damaged.
    fn read(line: &[u8]) -> Option<Line> {
        // serde_json does not look into fields that it passes over: a damaged line would pass as whole.
        serde_json::from_str(std::str::from_utf8(line).ok()?).ok()
    }
}

impl Feed {
    /// A feed that knows nothing yet: see [`Feed::catch_up`].
    pub fn new(logs: &Logs, name: JournalName, show: ShowEvidence) -> Feed {
        Feed {
            logs: logs.clone(),
            name,
            show,
            state: Mutex::default(),
            last: watch::Sender::new(0),
            reads: Semaphore::new(READS_MAX),
        }
    }

    /// Reads what the journal has beyond what is known. Returns where lines that are no records begin and end.
    pub fn catch_up(&self) -> Result<Vec<(u64, u64)>> {
        let mut reader = Reader::open_at(&self.logs, &self.name, self.state().end)?;
        let mut damaged = Vec::new();
        while let Some(item) = reader.next_item()? {
            match item {
                journal::Item::Line { offset, end, text } => {
                    if !self.learn(offset, end, text, false) {
                        damaged.push((offset, end));
                    }
                }
                journal::Item::Overlong { offset, end } => {
                    damaged.push((offset, end));
                    self.state().end = end;
                }
            }
        }
        Ok(damaged)
    }

    /// Publishes a line that was appended at `offset` and ends at `end`.
    pub fn publish(&self, offset: u64, end: u64, line: &[u8]) {
        self.learn(offset, end, line.strip_suffix(b"\n").unwrap_or(line), true);
    }

    /// The last seq and its hash.
    pub fn head(&self) -> (u64, String) {
        let state = self.state();
        (*self.last.borrow(), state.head.clone())
    }

    /// Logical length of the feed in bytes.
    pub fn bytes(&self) -> u64 {
        self.state().end
    }

    /// Changes whenever something is published.
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.last.subscribe()
    }

    /// The newest milestones, newest first.
    pub async fn newest(self: &Arc<Feed>, filter: Filter, limit: usize) -> Result<Vec<Arc<Item>>> {
        {
            let state = self.state();
            let known = state.latest.newest(filter.scope.as_deref(), filter.risk, limit);
            if let latest::Answer::Known(places) = known {
                let recent: Option<Vec<_>> = places.iter().map(|it| state.recent(it.seq)).collect();
                if let Some(items) = recent {
                    return Ok(items);
                }
            }
        }
        self.off_the_loop(move |feed| feed.read_newest(&filter, limit)).await
    }

    /// What follows `cursor`, in order, as much as makes a good piece; empty when nothing does yet. The
    /// cursor moves behind it.
    pub async fn following(self: &Arc<Feed>, cursor: &mut Cursor) -> Result<Vec<Arc<Item>>> {
        let from = *cursor;
        let (items, next) = match self.recent_after(from.after) {
            Some(items) => {
                let last = items.last().map_or(from.after, |it| it.seq);
                (items, Cursor::after(last))
            }
            None => self.off_the_loop(move |feed| feed.read_after(from)).await?,
        };
        *cursor = next;
        Ok(items)
    }

    /// What memory has after this seq: nothing when it is the last one, `None` when the journal must be read.
    fn recent_after(&self, seq: u64) -> Option<Vec<Arc<Item>>> {
        let state = self.state();
        if seq >= *self.last.borrow() { Some(Vec::new()) } else { state.recent_after(seq) }
    }

    async fn off_the_loop<T: Send + 'static>(
        self: &Arc<Feed>,
        read: impl FnOnce(&Feed) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        // The semaphore is never closed, so there is a permit or we wait for one.
        let _turn = self.reads.acquire().await.ok();
        let feed = Arc::clone(self);
        tokio::task::spawn_blocking(move || read(&feed)).await.unwrap_or_else(|bug| {
            Err(milepost::Error::new(milepost::Kind::Io, "", "reading the feed broke off").because(bug))
        })
    }

    /// Learns of one line; false when it is no record.
    fn learn(&self, offset: u64, end: u64, line: &[u8], is_live: bool) -> bool {
        let parsed: Option<Line> = Line::read(line);
        let item = if is_live { Item::from_line(line, self.show).map(Arc::new) } else { None };
        let mut state = self.state();
        state.end = end;
        let Some(line) = parsed else { return false };
        let place = Place { time: line.event.timestamp_utc, seq: line.seq, offset };
        state.latest.add(place, &line.event.scope, line.event.risk_status);
        state.steps.add(line.seq, offset);
        state.head = line.hash;
        if let Some(item) = item {
            state.remember(item);
        } else {
            state.recent.clear();
            state.recent_bytes = 0;
        }
        self.last.send_replace(line.seq);
        true
    }

    fn read_newest(&self, filter: &Filter, limit: usize) -> Result<Vec<Arc<Item>>> {
        let scope = filter.scope.as_deref();
        let mut answer = self.state().latest.newest(scope, filter.risk, limit);
        if let (latest::Answer::Dropped, Some(scope)) = (&answer, scope) {
            self.restore(scope)?;
            answer = self.state().latest.newest(Some(scope), filter.risk, limit);
        }
        let latest::Answer::Known(places) = answer else { return Ok(Vec::new()) };
        let mut items = Vec::with_capacity(places.len());
        let mut lines = Lines::new(&self.logs, &self.name);
        for place in places {
            if let Some(item) = self.state().recent(place.seq) {
                items.push(item);
                continue;
            }
            if let Some(line) = lines.get(place.offset)?
                && let Some(item) = Item::from_line(&line, self.show).filter(|it| it.seq == place.seq)
            {
                items.push(Arc::new(item));
            }
        }
        Ok(items)
    }

    /// Makes the lists of a scope again by reading the whole feed.
    fn restore(&self, scope: &str) -> Result<()> {
        let mut lists = Lists::default();
        let mut reader = Reader::open_at(&self.logs, &self.name, 0)?;
        let until = reader.end();
        add_scope(&mut lists, &mut reader, scope, until)?;
        // What came meanwhile is little; with the state held, nothing can come in between.
        let mut state = self.state();
        reader.refresh()?;
        add_scope(&mut lists, &mut reader, scope, state.end)?;
        state.latest.restore(scope, lists);
        Ok(())
    }

    fn read_after(&self, from: Cursor) -> Result<(Vec<Arc<Item>>, Cursor)> {
        let (start, until) = {
            let state = self.state();
            (from.offset.unwrap_or_else(|| state.steps.before(from.after + 1)), state.end)
        };
        let mut reader = Reader::open_at(&self.logs, &self.name, start)?;
        let (mut items, mut bytes, mut cursor) = (Vec::new(), 0, from);
        while items.len() < PAGE_ITEMS_MAX && bytes < PAGE_BYTES_MAX && reader.offset() < until {
            let Some(item) = reader.next_item()? else { break };
            if let journal::Item::Line { text, .. } = item
                && let Some(item) = Item::from_line(text, self.show).filter(|it| it.seq > cursor.after)
            {
                cursor.after = item.seq;
                bytes += item.json.len();
                items.push(Arc::new(item));
            }
        }
        cursor.offset = Some(reader.offset());
        Ok((items, cursor))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A panic while it was held is a bug that was reported; the lists are whole after every step.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
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

impl State {
    fn remember(&mut self, item: Arc<Item>) {
        self.recent_bytes += item.json.len();
        self.recent.push_back(item);
        while self.recent.len() > RECENT_MAX || self.recent_bytes > RECENT_BYTES_MAX {
            let Some(oldest) = self.recent.pop_front() else { break };
            self.recent_bytes -= oldest.json.len();
        }
    }

    fn recent(&self, seq: u64) -> Option<Arc<Item>> {
        let first = self.recent.front()?.seq;
        let at = usize::try_from(seq.checked_sub(first)?).ok()?;
        self.recent.get(at).filter(|it| it.seq == seq).cloned()
    }

    fn recent_after(&self, seq: u64) -> Option<Vec<Arc<Item>>> {
        let first = self.recent.front()?.seq;
        let at = usize::try_from((seq + 1).checked_sub(first)?).ok()?;
        Some(self.recent.iter().skip(at).take(PAGE_ITEMS_MAX).cloned().collect())
    }
}

/// Offsets of some lines by their seq.
#[derive(Debug)]
struct Steps {
    places: Vec<(u64, u64)>,
    /// Every how many seqs one is kept.
    stride: u64,
}

impl Default for Steps {
    fn default() -> Steps {
        Steps { places: Vec::new(), stride: 16 }
    }
}

impl Steps {
    fn add(&mut self, seq: u64, offset: u64) {
        if !seq.is_multiple_of(self.stride) {
            return;
        }
        self.places.push((seq, offset));
        if self.places.len() >= STEPS_MAX {
            self.stride *= 2;
            let stride = self.stride;
            self.places.retain(|it| it.0.is_multiple_of(stride));
        }
    }

    /// An offset at or before the line with this seq.
    fn before(&self, seq: u64) -> u64 {
        let after = self.places.partition_point(|it| it.0 <= seq);
        after.checked_sub(1).map_or(0, |at| self.places[at].1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_stay_few_and_never_lead_past_a_line() {
        let mut steps = Steps::default();
        for seq in 1..=1_000_000 {
            steps.add(seq, seq * 10);
        }
        assert!(steps.places.len() < STEPS_MAX && steps.places.len() >= STEPS_MAX / 2 - 1);
        for seq in [1, 2, 511, 512, 513, 777_777, 1_000_000, 2_000_000] {
            let before = steps.before(seq);
            assert!(before <= seq * 10, "{seq}");
            assert!(seq > 1_000_000 || seq * 10 - before <= steps.stride * 10, "{seq}");
        }
    }
}
