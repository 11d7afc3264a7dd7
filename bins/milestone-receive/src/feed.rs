//! The feed as readers see it: the newest milestones, and everything after a given one.
//!
//! The journal is the feed; in memory are only places in it and the lines of the last minutes. The store
//! publishes a line after it is on disk and audited, never before.
//!
//! # Invariants
//! - Memory is bounded whatever the feed's length: places (`latest`), blocks (`blocks`), and recent lines up to
//!   [`RECENT_MAX`] and [`RECENT_BYTES_MAX`].
//! - Whoever asks for what follows seq N gets every later line once, in order: from memory, or else from the
//!   journal.
//! - A start reads what came since the places were last remembered, in a file that may be deleted ([`VIEW`]).
//! - A line that the disk damaged is told of, kept in quarantine, and passed over.
//!
//! Parts: `past` (what is read from the journal), `blocks` and `days` (where lines are, how many there are).
//!
//! Not here: who asks (`reads`, `stream`, `page`), what is shown of an item (`item`).

mod blocks;
mod days;
mod past;

use std::{
    cell::OnceCell,
    collections::{BTreeSet, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use milepost::{
    Result, Timestamp,
    cli::Messages,
    event::RiskStatus,
    journal::{self, Journal, Position, Reader, keep_in_quarantine},
    logs::Logs,
    state_file::{self, Loaded},
};
use serde::{Deserialize, Serialize};
use tokio::sync::{Semaphore, watch};

use self::blocks::Blocks;
pub use self::days::Days;
use crate::{
    item::{Item, ShowEvidence},
    latest::{self, Latest, Place},
};

/// What is remembered for the next start, relative to the logs folder.
const VIEW: &str = ".index/receive.feed.view.json";
const VIEW_VERSION: u32 = 1;
/// Lines after which it is remembered anew: a start after a kill reads as many, in a fraction of a second.
const LINES_UNREMEMBERED_MAX: u64 = 1 << 15;
/// Items that a stream finds in memory.
const RECENT_MAX: usize = 1024;
/// Bytes of their lines.
const RECENT_BYTES_MAX: usize = 4 << 20;
/// Items that are read from the journal at a time, and bytes of their lines.
const PAGE_ITEMS_MAX: usize = 64;
const PAGE_BYTES_MAX: usize = 64 << 10;
/// Reads of the journal at a time: half of the threads for what takes long (`THREADS_MAX` in main), so that readers
/// never keep long batches from being examined.
const READS_MAX: usize = 2;
/// Damaged lines that are remembered as told.
const DAMAGED_MAX: usize = 1000;

/// The feed.
#[derive(Debug)]
pub struct Feed {
    journal: Journal,
    show: ShowEvidence,
    messages: Messages,
    state: Mutex<State>,
    /// Offsets of damaged lines that were told of.
    damaged: Mutex<BTreeSet<u64>>,
    /// The last seq, for those who wait for the next.
    last: watch::Sender<u64>,
    reads: Semaphore,
}

#[derive(Debug, Default)]
struct State {
    latest: Latest,
    blocks: Blocks,
    days: Days,
    recent: VecDeque<Recent>,
    recent_bytes: usize,
    /// Logical offset up to which all this knows the journal.
    end: u64,
    head: String,
    /// The last seq when the places were remembered.
    remembered: u64,
}

/// What is remembered for the next start.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct View {
    version: u32,
    position: Position,
    seq: u64,
    head: String,
    latest: Latest,
    blocks: Blocks,
    days: Days,
}

/// A milestone that was just appended.
#[derive(Debug)]
pub struct Published<'l> {
    /// The logical offset of its line.
    pub offset: u64,
    /// The logical offset behind it.
    pub end: u64,
    /// Its number.
    pub seq: u64,
    /// When it happened.
    pub time: Timestamp,
    /// The hash of its scope ([`latest::scope_hash`]).
    pub scope: &'l str,
    /// Its risk status.
    pub risk: RiskStatus,
    /// The line.
    pub line: &'l [u8],
}

/// A line of the last minutes, and the item that it becomes when the first reader asks for it.
#[derive(Debug)]
struct Recent {
    seq: u64,
    line: Vec<u8>,
    item: OnceCell<Option<Arc<Item>>>,
}

impl Recent {
    fn item(&self, show: ShowEvidence) -> Option<Arc<Item>> {
        self.item.get_or_init(|| Item::from_line(&self.line, show).map(Arc::new)).clone()
    }
}

/// What readers filter by.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// One scope, or all.
    pub scope: Option<String>,
    /// One risk status, or all.
    pub risk: Option<RiskStatus>,
    /// From this time on, or always.
    pub since: Option<Timestamp>,
    /// With these words, in lower case, or with any.
    pub words: Option<String>,
}

/// The newest milestones that were asked for, and where to go on.
#[derive(Debug)]
pub struct Page {
    /// Newest first.
    pub items: Vec<Arc<Item>>,
    /// What is older begins before this time and seq; none when there is nothing older.
    pub next: Option<Before>,
}

/// A place in the order by time: what stands before it is older.
pub type Before = (Timestamp, u64);

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

impl Filter {
    fn takes(&self, event: &Event) -> bool {
        self.scope.as_ref().is_none_or(|it| *it == event.scope)
            && self.risk.is_none_or(|it| it == event.risk_status)
            && self.since.is_none_or(|it| event.timestamp_utc >= it)
    }
}

impl Feed {
    /// A feed that knows nothing yet: see [`Feed::recall`] and [`Feed::catch_up`].
    pub fn new(journal: Journal, show: ShowEvidence, messages: Messages) -> Feed {
        Feed {
            journal,
            show,
            messages,
            state: Mutex::default(),
            damaged: Mutex::default(),
            last: watch::Sender::new(0),
            reads: Semaphore::new(READS_MAX),
        }
    }

    /// Takes over what an earlier run remembered, if it is about this journal.
    pub fn recall(&self) {
        let Ok(Loaded::Found(view)) = state_file::load::<View>(self.logs(), VIEW) else { return };
        if view.version != VIEW_VERSION || self.journal.read_from(&view.position).is_err() {
            return;
        }
        let View { position, seq, head, latest, blocks, days, .. } = view;
        let mut state = self.state();
        *state =
            State { latest, blocks, days, end: position.offset, head, remembered: seq, ..State::default() };
        self.last.send_replace(seq);
    }

    /// Remembers the places for the next start. Without that it reads the feed once.
    pub fn remember(&self) {
        let remembered = {
            let state = self.state();
            let seq = *self.last.borrow();
            if state.remembered == seq {
                return;
            }
            self.journal.position_at(state.end).and_then(|position| {
                let (head, latest, blocks) = (state.head.clone(), state.latest.clone(), state.blocks.clone());
                let days = state.days.clone();
                let view = View { version: VIEW_VERSION, position, seq, head, latest, blocks, days };
                drop(state);
                state_file::save(self.logs(), VIEW, &view).map(|()| seq)
            })
        };
        match remembered {
            Ok(seq) => self.state().remembered = seq,
            // A cache: nothing hangs on it.
            Err(error) => self.messages.warn(error),
        }
    }

    /// The same, when enough has come since.
    pub fn remember_now_and_then(&self) {
        if *self.last.borrow() > self.state().remembered + LINES_UNREMEMBERED_MAX {
            self.remember();
        }
    }

    /// Reads what the journal has beyond what is known.
    pub fn catch_up(&self) -> Result<()> {
        let mut reader = Reader::open_at(self.logs(), self.journal.name(), self.state().end)?;
        while let Some(item) = reader.next_item()? {
            let (offset, end) = match item {
                journal::Item::Line { offset, end, text } => {
                    if self.learn(offset, end, text) {
                        continue;
                    }
                    (offset, end)
                }
                journal::Item::Overlong { offset, end } => {
                    self.state().end = end;
                    (offset, end)
                }
            };
            self.tell_damage(offset, end)?;
        }
        Ok(())
    }

    /// Publishes what was appended, in order, right behind what is known; `head` is the hash of the last line.
    pub fn publish<'l>(&self, published: impl ExactSizeIterator<Item = Published<'l>>, head: String) {
        let mut state = self.state();
        let mut last = None;
        // Of very many the last push out the first, and everything before.
        let surplus = published.len().saturating_sub(RECENT_MAX);
        if surplus > 0 {
            state.forget_recent();
        }
        for (at, it) in published.enumerate() {
            let Published { offset, end, seq, time, scope, risk, line } = it;
            state.latest.add_hashed(Place { time, seq, offset }, scope, risk);
            state.blocks.add(seq, offset, time);
            state.days.add(time, risk);
            state.end = end;
            last = Some(seq);
            if at >= surplus {
                state.remember(Recent { seq, line: line.to_vec(), item: OnceCell::new() });
            }
        }
        if let Some(seq) = last {
            state.head = head;
            self.last.send_replace(seq);
        }
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

    /// How many milestones there are by day.
    pub fn days(&self) -> Days {
        self.state().days.clone()
    }

    /// About how many bytes were published after this seq; of what memory has not, as much as there can be.
    pub fn bytes_after(&self, seq: u64) -> u64 {
        let state = self.state();
        if seq >= *self.last.borrow() {
            return 0;
        }
        match state.recent.front() {
            Some(first) if first.seq <= seq + 1 => {
                let after = state.recent.iter().rev().take_while(|it| it.seq > seq);
                after.map(|it| it.line.len() as u64).sum()
            }
            _ => u64::MAX,
        }
    }

    /// Changes whenever something is published.
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.last.subscribe()
    }

    /// The newest milestones before a place in the order by time, newest first.
    pub async fn newest(
        self: &Arc<Feed>,
        filter: Filter,
        before: Option<Before>,
        limit: usize,
    ) -> Result<Page> {
        {
            let state = self.state();
            if let Some(Found { places, next }) = state.known(&filter, before, limit) {
                let recent: Option<Vec<_>> =
                    places.iter().map(|it| state.recent(it.seq, self.show)).collect();
                if let Some(items) = recent {
                    return Ok(Page { items, next });
                }
            }
        }
        self.off_the_loop(move |feed| feed.read_newest(&filter, before, limit)).await
    }

    /// The milestone whose line begins at `offset`; none when it is damaged.
    pub async fn at(self: &Arc<Feed>, offset: u64) -> Result<Option<Item>> {
        self.off_the_loop(move |feed| {
            let line = feed.journal.lines().get(offset)?;
            Ok(line.and_then(|it| Item::from_line(&it, feed.show)))
        })
        .await
    }

    /// The last lines of the journal, at most `count`, in order.
    pub async fn last_lines(self: &Arc<Feed>, count: usize) -> Result<Vec<Vec<u8>>> {
        self.off_the_loop(move |feed| feed.journal.last_lines(count)).await
    }

    /// How much of evidence readers see.
    pub fn show(&self) -> ShowEvidence {
        self.show
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
        if seq >= *self.last.borrow() { Some(Vec::new()) } else { state.recent_after(seq, self.show) }
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

    /// Learns of one line that is read from the journal; false when it is no record.
    fn learn(&self, offset: u64, end: u64, line: &[u8]) -> bool {
        let parsed: Option<Line> = Line::read(line);
        let mut state = self.state();
        state.end = end;
        let Some(line) = parsed else { return false };
        let place = Place { time: line.event.timestamp_utc, seq: line.seq, offset };
        state.latest.add(place, &line.event.scope, line.event.risk_status);
        state.blocks.add(line.seq, offset, place.time);
        state.days.add(place.time, line.event.risk_status);
        state.head = line.hash;
        state.forget_recent();
        self.last.send_replace(line.seq);
        true
    }

    /// Keeps what is left of a damaged line and says so, once a run.
    fn tell_damage(&self, offset: u64, end: u64) -> Result<()> {
        {
            let mut damaged = self.damaged.lock().unwrap_or_else(PoisonError::into_inner);
            if damaged.len() >= DAMAGED_MAX || !damaged.insert(offset) {
                return Ok(());
            }
        }
        let bytes = self.journal.bytes(offset, end)?;
        let copy = keep_in_quarantine(self.logs(), self.journal.name(), offset, &bytes)?;
        self.messages.warn(format!(
            "{}: offset {offset}: the line is damaged and passed over; restore it from a backup; \
             what is left of it is in {copy}",
            self.journal.name().file()
        ));
        Ok(())
    }

    fn logs(&self) -> &Logs {
        self.journal.logs()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A panic while it was held is a bug that was reported; the lists are whole after every step.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Places that were asked for, newest first, and where to go on.
struct Found {
    places: Vec<Place>,
    next: Option<Before>,
}

impl Found {
    /// The newest `limit` of `places`; when there are more, the rest is asked for next.
    fn of(places: impl IntoIterator<Item = Place, IntoIter: DoubleEndedIterator>, limit: usize) -> Found {
        let mut newest = places.into_iter().rev();
        let places: Vec<Place> = newest.by_ref().take(limit).collect();
        let next = newest.next().and(places.last()).map(|it| (it.time, it.seq));
        Found { places, next }
    }
}

impl State {
    /// The answer to a question, as far as the lists have it.
    fn known(&self, filter: &Filter, before: Option<Before>, limit: usize) -> Option<Found> {
        if filter.words.is_some() {
            return None;
        }
        let latest::Answer::Known(list) = self.latest.newest(filter.scope.as_deref(), filter.risk) else {
            return None;
        };
        let is_asked = |it: &&Place| {
            before.is_none_or(|before| (it.time, it.seq) < before)
                && filter.since.is_none_or(|since| it.time >= since)
        };
        let is_all = list.len() < latest::TOP_MAX
            || filter.since.is_some_and(|since| list.first().is_some_and(|it| it.time < since));
        let found: Vec<Place> = list.iter().filter(is_asked).copied().collect();
        (is_all || found.len() > limit).then(|| Found::of(found, limit))
    }

    fn forget_recent(&mut self) {
        self.recent.clear();
        self.recent_bytes = 0;
    }

    fn remember(&mut self, recent: Recent) {
        self.recent_bytes += recent.line.len();
        self.recent.push_back(recent);
        while self.recent.len() > RECENT_MAX || self.recent_bytes > RECENT_BYTES_MAX {
            let Some(oldest) = self.recent.pop_front() else { break };
            self.recent_bytes -= oldest.line.len();
        }
    }

    fn recent(&self, seq: u64, show: ShowEvidence) -> Option<Arc<Item>> {
        let first = self.recent.front()?.seq;
        let at = usize::try_from(seq.checked_sub(first)?).ok()?;
        self.recent.get(at).filter(|it| it.seq == seq)?.item(show)
    }

    fn recent_after(&self, seq: u64, show: ShowEvidence) -> Option<Vec<Arc<Item>>> {
        let first = self.recent.front()?.seq;
        let at = usize::try_from((seq + 1).checked_sub(first)?).ok()?;
        let mut bytes = 0;
        let fits = |it: &&Recent| {
            let fits = bytes < PAGE_BYTES_MAX;
            bytes += it.line.len();
            fits
        };
        self.recent.iter().skip(at).take(PAGE_ITEMS_MAX).take_while(fits).map(|it| it.item(show)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_lines_are_in_memory_however_many_come_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let logs = Logs::open(Some(dir.path()), "test").unwrap();
        let feed = Feed::new(crate::store::feed_journal(&logs), ShowEvidence::Full, Messages::new("test"));
        let mut last = 0;
        for count in [3, RECENT_MAX + 500, 7, RECENT_MAX] {
            let of = |seq: u64| Published {
                offset: seq,
                end: seq + 1,
                seq,
                time: Timestamp::from_millis(0),
                scope: "s",
                risk: RiskStatus::OnTrack,
                line: b"line\n",
            };
            let published: Vec<_> = (last + 1..).map(of).take(count).collect();
            feed.publish(published.into_iter(), format!("head {count}"));
            last += count as u64;
            assert_eq!(feed.head(), (last, format!("head {count}")));
            let state = feed.state();
            let first = last + 1 - state.recent.len() as u64;
            assert!(state.recent.iter().map(|it| it.seq).eq(first..=last));
            assert_eq!(state.recent.len() as u64, last.min(RECENT_MAX as u64));
            assert_eq!(state.recent_bytes, state.recent.len() * 5);
        }
    }
}
