//! Making what happened durable, in groups, and reading it back at start.
//!
//! | order | written | what a crash after it leaves |
//! | --- | --- | --- |
//! | 1 | dead letters | they count: their audit records are made good at start |
//! | 2 | audit | it counts: the state is brought up to it at start |
//! | 3 | state | nothing to do |
//!
//! # Invariants
//! - Whatever is in the dead letters or the audit counts; the state is only where reading back begins.
//! - An acknowledgement costs no sync of its own: a group shares them.
//! - What came of an item and is not on disk yet is sent again after a crash, with the same key and bytes.
//! - The state is written only when all that led to it is on disk: whatever a `scribe` has is waited for.
//!
//! Not here: what happens (`engine`), what it changes (`state`), the records of a group (`group`).

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use super::{
    Consumer,
    event::{Detail, Event, ResyncDetail},
    group::Group,
    item::Head,
    lanes::LaneName,
    scribe::{Scribe, Written},
    state::{State, VERSION},
};
use crate::{
    Error, Kind, Result, Timestamp,
    audit::{self, Outcome},
    envelope::DeadLetter,
    journal::{Item as Found, Journal, JournalName, Position, Reader, Resync},
    logs::Logs,
    state_file::{self, Loaded},
};

/// The most events of a group.
const GROUP_MAX: usize = 4096;
/// The most bytes of dead letters of a group.
const GROUP_BYTES_MAX: usize = 2 << 20;
/// A group of so many events is worth a thread of its own: the engine goes on meanwhile.
const LARGE: usize = GROUP_MAX / 4;
/// How long an event waits for its group.
const GROUP_WAIT: Duration = Duration::from_millis(100);
/// How long the state file may lag behind the audit while much is going on: it costs more syncs than the audit.
const SAVE_EVERY: Duration = Duration::from_millis(250);
/// Room that must be left on the disk before anything is sent: some groups and their state.
const ROOM_BYTES: u64 = 4 << 20;

/// What is not on disk yet, and how it gets there.
#[derive(Debug)]
pub(super) struct Store {
    consumer: Consumer,
    dead_letters: Journal,
    group: Group,
    scribe: Option<Scribe>,
    /// The room of a group that was written.
    spare: Option<Group>,
    /// The logical end of the audit after what was written last.
    audit_end: Option<u64>,
    since: Option<Timestamp>,
    /// Events of the next group. The first one is alone, so that an audit that cannot be written is found
    /// after one attempt, not after hundreds.
    group_max: usize,
    /// Events that are durable, but not in the state file yet.
    unsaved: usize,
    saved: Option<Timestamp>,
    is_dirty: bool,
}

impl Store {
    /// Reads the state, and brings it up to the audit and the dead letters. Says what a person should know.
    pub fn open(consumer: &Consumer) -> Result<(Store, State, Option<String>)> {
        Store::open_as(consumer, true)
    }

    fn open_as(consumer: &Consumer, checked: bool) -> Result<(Store, State, Option<String>)> {
        let logs = consumer.logs();
        // Opens them for writing, too: an audit that cannot be written stops us here.
        audit::settle(logs)?;
        let dead_letters = consumer.dead_letters();
        dead_letters.settle_if_needed()?;
        consumer.control().settle_if_needed()?;
        consumer.queue().settle_if_needed()?;
        let (mut state, note) = load(consumer)?;
        if checked {
            let Position { offset, fingerprint } = position(&state);
            consumer.queue().read_from(&Position { offset, fingerprint })?;
        }
        let mut store = Store {
            consumer: consumer.clone(),
            dead_letters,
            group: Group::default(),
            scribe: None,
            spare: None,
            audit_end: None,
            since: None,
            group_max: 1,
            unsaved: 0,
            saved: None,
            is_dirty: note.is_some(),
        };
        let accounted = store.read_audit(&mut state)?;
        store.make_good_dead_letters(&mut state, &accounted)?;
        if checked && store.is_dirty {
            recount(consumer, &mut state)?;
        }
        Ok((store, state, note))
    }

    /// Applies what the audit has beyond the state; returns the offsets of the dead letters in it.
    fn read_audit(&mut self, state: &mut State) -> Result<BTreeSet<u64>> {
        let mut reader = Reader::open_at(self.consumer.logs(), &JournalName::audit(), state.audit_offset)?;
        let (queue, endpoint) = (self.consumer.queue_name().as_str(), self.consumer.endpoint());
        let mut accounted = BTreeSet::new();
        while let Some(found) = reader.next_item()? {
            // Damage in the audit is `audit-tail --verify`'s to name.
            let Found::Line { text, .. } = found else { continue };
            let Some(event) = Event::read(text, queue, endpoint) else { continue };
            if let Event::Item { outcome: Outcome::DeadLettered, detail, .. } = &event {
                accounted.extend(detail.offset);
            }
            state.apply(&event, true);
            self.is_dirty = true;
        }
        state.audit_offset = reader.end();
        Ok(accounted)
    }

    /// Dead letters that a crash kept out of the audit: the items are settled, and the audit is made good.
    fn make_good_dead_letters(&mut self, state: &mut State, accounted: &BTreeSet<u64>) -> Result<()> {
        let name = self.dead_letters.name();
        let mut reader = Reader::open_at(self.consumer.logs(), name, state.dead_letter_offset)?;
        let mut found_events = Vec::new();
        while let Some(found) = reader.next_item()? {
            let Found::Line { offset, text, .. } = found else { continue };
            let Ok(dead) = DeadLetter::from_line(text) else { continue };
            if accounted.contains(&offset) || dead.endpoint() != self.consumer.endpoint() {
                continue;
            }
            let scope = Head::read(text).and_then(|it| it.scope).map(std::borrow::Cow::into_owned);
            let key = dead.envelope().idempotency_key.clone();
            let is_first = state.retry_of(scope.as_deref(), &key, dead.queue_offset).is_some();
            let detail = Box::new(Detail {
                journal: Some(name.as_str().to_owned()),
                offset: Some(offset),
                queue: self.consumer.queue_name().as_str().to_owned(),
                endpoint: self.consumer.endpoint().to_owned(),
                queue_offset: dead.queue_offset,
                cursor: state.cursor.offset,
                at: dead.dead_at,
                attempt: u32::try_from(dead.attempts.len()).unwrap_or(u32::MAX),
                reason: "made-good".to_owned(),
                answer: dead.reason,
                ahead: !is_first,
                ..Detail::default()
            });
            found_events.push(Event::Item { outcome: Outcome::DeadLettered, key: Some(key), scope, detail });
        }
        state.dead_letter_offset = reader.end();
        for event in found_events {
            state.apply(&event, true);
            self.push(event, None, Timestamp::default());
        }
        Ok(())
    }

    /// Adds what happened to the group; a dead letter is given its place when the group is written.
    pub fn push(&mut self, event: Event, dead: Option<DeadLetter>, now: Timestamp) {
        self.group.push(event, dead);
        self.since.get_or_insert(now);
        self.is_dirty = true;
    }

    /// Notes a change of the state that no event tells of.
    pub fn touch(&mut self) {
        self.is_dirty = true;
    }

    /// Whether the group should be written now.
    pub fn is_due(&self, now: Timestamp) -> bool {
        self.group.len() >= self.group_max
            || self.group.dead_bytes() >= GROUP_BYTES_MAX
            || self.since.is_some_and(|it| now < it || now.since(it) >= GROUP_WAIT)
    }

    /// Writes dead letters, audit, state. On an error nothing more may be sent.
    pub fn commit(&mut self, state: &mut State) -> Result<()> {
        if !self.is_dirty {
            return Ok(());
        }
        self.write_events(state)?;
        self.save(state)
    }

    /// As [`Store::commit`], in the midst of work: the state is not written again for each group, since what
    /// happened counts without it.
    pub fn commit_group(&mut self, state: &mut State, now: Timestamp) -> Result<()> {
        let is_recent = self.saved.is_some_and(|it| now >= it && now.since(it) < SAVE_EVERY);
        if is_recent {
            let is_large = self.group.len() >= LARGE && !self.group.has_dead();
            return if is_large { self.give_to_scribe(state) } else { self.write_events(state) };
        }
        self.saved = Some(now);
        self.commit_rest(state)
    }

    /// As [`Store::commit`], before a pause: a large state is not written again for a few events.
    pub fn commit_rest(&mut self, state: &mut State) -> Result<()> {
        self.write_events(state)?;
        let is_worth_it = self.unsaved >= state.retries.len() / 4;
        if self.is_dirty && is_worth_it { self.save(state) } else { Ok(()) }
    }

    fn save(&mut self, state: &mut State) -> Result<()> {
        state.cursor.fingerprint = self.consumer.queue().position_at(state.cursor.offset)?.fingerprint;
        state_file::save(self.consumer.logs(), &self.consumer.state_file(), state)?;
        self.unsaved = 0;
        self.is_dirty = false;
        Ok(())
    }

    /// Has the group written while the engine goes on. Waits for the one before.
    fn give_to_scribe(&mut self, state: &mut State) -> Result<()> {
        self.wait()?;
        let Some(mut scribe) = self.scribe.take().or_else(|| Scribe::start(self.consumer.logs())) else {
            return self.write_events(state);
        };
        let spare = self.spare.take().unwrap_or_default();
        let group = std::mem::replace(&mut self.group, spare);
        self.was_taken(group.len());
        scribe.give(group);
        self.scribe = Some(scribe);
        Ok(())
    }

    /// Waits until what the scribe has is on disk.
    fn wait(&mut self) -> Result<()> {
        let written = self.scribe.as_mut().and_then(Scribe::wait);
        written.map_or(Ok(()), |it| self.take_back(it))
    }

    /// Finds out, before anything is sent, whether the scribe could not write.
    pub fn check(&mut self) -> Result<()> {
        let written = self.scribe.as_mut().and_then(Scribe::poll);
        written.map_or(Ok(()), |it| self.take_back(it))
    }

    fn take_back(&mut self, (mut group, end): Written) -> Result<()> {
        self.audit_end = Some(end?);
        group.clear();
        self.spare = Some(group);
        Ok(())
    }

    /// The group is on its way to the disk, or there.
    fn was_taken(&mut self, events: usize) {
        self.unsaved += events;
        self.since = None;
        self.group_max = (self.group_max * 2).min(GROUP_MAX);
    }

    fn write_events(&mut self, state: &mut State) -> Result<()> {
        self.wait()?;
        if !self.group.is_empty() {
            if self.group.has_dead() {
                state.dead_letter_offset = self.group.append_with_dead(&self.dead_letters)?;
                // Others may have appended since; of this queue and endpoint only we write.
                let audit = JournalName::audit();
                self.audit_end = Some(Reader::open_at(self.consumer.logs(), &audit, 0)?.end());
            } else {
                self.audit_end = Some(self.group.append(self.consumer.logs())?);
            }
        }
        state.audit_offset = self.audit_end.unwrap_or(state.audit_offset);
        self.was_taken(self.group.len());
        self.group.clear();
        Ok(())
    }

    /// Refuses to begin when the audit could not be written for want of room.
    ///
    /// # Errors
    /// [`Kind::Temporary`] for a full disk, [`Kind::Io`] for a file size limit.
    pub fn check_room(&self) -> Result<()> {
        let logs = self.consumer.logs();
        check_disk(logs)?;
        check_file_size_limit(logs)
    }
}

fn check_disk(logs: &Logs) -> Result<()> {
    let disk = rustix::fs::statvfs(logs.dir())
        .map_err(|it| Error::io("cannot ask for free space", logs.dir(), it.into()))?;
    // Some file systems, the kernel's own among them, count no blocks at all.
    if disk.f_blocks > 0 && disk.f_bavail.saturating_mul(disk.f_frsize) < ROOM_BYTES {
        let what = "too little space is left to audit what would be sent, so nothing is sent";
        return Err(
            Error::new(Kind::Temporary, logs.dir().display(), what).cure("free some space and run it again")
        );
    }
    Ok(())
}

fn check_file_size_limit(logs: &Logs) -> Result<()> {
    let Some(limit) = rustix::process::getrlimit(rustix::process::Resource::Fsize).current else {
        return Ok(());
    };
    let path = logs.dir().join(JournalName::audit().file());
    let length = std::fs::metadata(&path).map_or(0, |it| it.len());
    // A rotation may begin a new file, but not before this one is full.
    if length.min(logs.rotate_bytes()).saturating_add(ROOM_BYTES / 4) > limit {
        let what = "the file size limit leaves no room to audit what would be sent, so nothing is sent";
        return Err(Error::new(Kind::Io, path.display(), what).cure("raise the file size limit (ulimit -f)"));
    }
    Ok(())
}

/// The state file, or a new state and why.
fn load(consumer: &Consumer) -> Result<(State, Option<String>)> {
    let file = consumer.state_file();
    let fresh = || State::new(consumer.endpoint());
    Ok(match state_file::load::<State>(consumer.logs(), &file)? {
        Loaded::Found(it) if it.version == VERSION && it.endpoint == consumer.endpoint() => (it, None),
        Loaded::Found(it) => {
            let what =
                format!("{file}: is of version {} for endpoint {:?}; rebuilt", it.version, it.endpoint);
            (fresh(), Some(what))
        }
        Loaded::Damaged(why) => (fresh(), Some(format!("{why}; rebuilt from the audit"))),
        Loaded::Missing => (fresh(), None),
    })
}

fn position(state: &State) -> Position {
    Position { offset: state.cursor.offset, fingerprint: state.cursor.fingerprint.clone() }
}

/// Counts what waits in the lanes: what was read back does not tell.
fn recount(consumer: &Consumer, state: &mut State) -> Result<()> {
    let mark = state.cursor.offset;
    let mut skip = BTreeSet::new();
    if let Some(from) = state.retries.iter().map(|(_, lane)| lane.offset).min() {
        let mut waiting: BTreeMap<LaneName, u64> = BTreeMap::new();
        let mut reader = Reader::open_at(consumer.logs(), consumer.queue_name(), from)?;
        while reader.offset() < mark
            && let Some(found) = reader.next_item()?
        {
            let Found::Line { offset, text, .. } = found else { continue };
            let Some(head) = Head::read(text).filter(|it| it.is_for(consumer.endpoint())) else { continue };
            let Some(name) = state.retries.covering(head.scope.as_deref(), &head.key, offset) else {
                continue;
            };
            if state.cursor.skip.contains(&offset) {
                skip.insert(offset);
                continue;
            }
            if state.retries.get(&name).is_some_and(|it| it.offset < offset) {
                *waiting.entry(name).or_default() += 1;
            }
        }
        state.retries.recount(&waiting);
    }
    state.cursor.skip.retain(|it| *it >= mark || skip.contains(it));
    Ok(())
}

/// Sets the consumer to a place in the queue as the queue is now, audited. The caller holds the instance lock.
/// Returns the logical offset.
pub fn resync(consumer: &Consumer, to: Resync, now: Timestamp) -> Result<u64> {
    let queue = consumer.queue();
    let cursor = queue.resync_position(to)?.offset;
    let (mut store, mut state, _) = Store::open_as(consumer, false)?;
    let event = Event::Resync(ResyncDetail {
        queue: queue.name().as_str().to_owned(),
        endpoint: consumer.endpoint().to_owned(),
        cursor,
    });
    state.apply(&event, false);
    store.push(event, None, now);
    store.commit(&mut state)?;
    Ok(cursor)
}
