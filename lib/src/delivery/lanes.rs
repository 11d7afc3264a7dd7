//! What waits: for each blocked scope its first unsettled item, and how many wait behind it.
//!
//! A lane is the part of the queue below the mark that belongs to one scope (`--order none`: to one key) and
//! is not settled. It is *blocked* while its first item waits for a retry. When that item is settled and
//! others wait behind it, the lane is *free*: its next item is somewhere after `offset`, and a sweep over
//! the queue finds it. With nothing behind, the lane is gone.
//!
//! # Invariants
//! - An item below the mark is unsettled exactly if a lane covers it (and it is not settled ahead).
//! - `waiting` counts the items below the mark behind the first one, so nobody sweeps for nothing.
//! - One entry a lane, however many items wait in it.
//!
//! Not here: who finds the next item (`engine`), what moves a lane (`state`).

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::backoff;
use crate::{Timestamp, envelope::Attempt};

/// At most so many lanes wait; then reading ahead pauses.
pub const LANES_MAX: usize = 10_000;
/// The most attempts that are kept for the dead letter: the last ones.
const HISTORY_MAX: usize = 20;

/// What the items of a lane have in common.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LaneName {
    /// The scope.
    Scope(String),
    /// The key: items without a scope, and all under `--order none`.
    Item(String),
}

/// The first unsettled item of a lane and its next attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Retry {
    /// Its idempotency key.
    pub key: String,
    /// Attempts used, for the limit.
    pub attempts: u32,
    /// Failed tries, for the backoff.
    pub tries: u32,
    /// When the first of them was.
    pub first: Timestamp,
    /// Acknowledgements of this endpoint before the first of them.
    pub acks_at_first: u64,
    /// Not before this time.
    pub due: Timestamp,
    /// The delay that made it.
    pub delay: Duration,
    /// Why the last try failed: a short name that never changes.
    pub reason: String,
    /// Whether others were acknowledged while this one failed, so that the fault is its own.
    pub is_own: bool,
    /// The attempts that were used.
    pub history: Vec<Attempt>,
}

impl Retry {
    /// Remembers an attempt that was used.
    pub fn remember(&mut self, attempt: Attempt) {
        self.history.push(attempt);
        let surplus = self.history.len().saturating_sub(HISTORY_MAX);
        self.history.drain(..surplus);
    }
}

/// See the head of this file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lane {
    /// Logical offset of the first unsettled item, or, when the lane is free, of the last settled one.
    pub offset: u64,
    /// How many items below the mark wait behind it.
    pub waiting: u64,
    /// The retry of the first item; none when the lane is free.
    pub retry: Option<Retry>,
}

impl Lane {
    /// Whether the item at `offset`, which is below the mark, is unsettled because of this lane.
    pub fn covers(&self, offset: u64) -> bool {
        if self.retry.is_some() { offset >= self.offset } else { offset > self.offset }
    }
}

/// All lanes, with what is due next.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lanes {
    by_name: BTreeMap<LaneName, Lane>,
    due: BTreeSet<(Timestamp, LaneName)>,
    free: BTreeSet<(u64, LaneName)>,
}

impl Lanes {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.by_name.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.by_name.is_empty()
    }

    /// Every lane, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&LaneName, &Lane)> {
        self.by_name.iter()
    }

    /// The lane of this name.
    pub fn get(&self, name: &LaneName) -> Option<&Lane> {
        self.by_name.get(name)
    }

    /// Items that wait for a retry.
    pub fn retrying(&self) -> usize {
        self.due.len()
    }

    /// All unsettled items below the mark.
    pub fn unsettled(&self) -> u64 {
        self.due.len() as u64 + self.by_name.values().map(|it| it.waiting).sum::<u64>()
    }

    /// The lane whose retry is due first.
    pub fn first_due(&self) -> Option<(Timestamp, &LaneName)> {
        self.due.first().map(|(due, name)| (*due, name))
    }

    /// When the first retry of the lanes that count is due.
    pub fn next_due(&self, counts: impl Fn(&LaneName) -> bool) -> Option<Timestamp> {
        self.due.iter().find(|(_, name)| counts(name)).map(|(due, _)| *due)
    }

    /// Blocked lanes whose retry is due by `now`, earliest first.
    pub fn due(&self, now: Timestamp) -> impl Iterator<Item = (&LaneName, &Lane)> {
        let due = self.due.iter().take_while(move |(due, _)| *due <= now);
        due.filter_map(|(_, name)| self.by_name.get(name).map(|it| (name, it)))
    }

    /// The lane that begins first.
    pub fn first(&self) -> Option<(&LaneName, &Lane)> {
        self.by_name.iter().min_by_key(|(_, it)| it.offset)
    }

    /// The lowest offset after which a free lane goes on.
    pub fn first_free(&self) -> Option<u64> {
        self.free.first().map(|(offset, _)| *offset)
    }

    /// The lowest offset after which one of the free lanes that count goes on.
    pub fn next_free(&self, counts: impl Fn(&LaneName) -> bool) -> Option<u64> {
        self.free.iter().find(|(_, name)| counts(name)).map(|(offset, _)| *offset)
    }

    /// The lane because of which the item at `offset` below the mark is unsettled.
    pub fn covering(&self, scope: Option<&str>, key: &str, offset: u64) -> Option<LaneName> {
        if self.by_name.is_empty() {
            return None;
        }
        let scope = scope.map(|it| LaneName::Scope(it.to_owned()));
        let names = scope.into_iter().chain([LaneName::Item(key.to_owned())]);
        names.into_iter().find(|it| self.by_name.get(it).is_some_and(|lane| lane.covers(offset)))
    }

    /// Whether the item at `offset` is one that waits for its retry.
    pub fn is_retrying(&self, scope: Option<&str>, key: &str, offset: u64) -> bool {
        let lane = self.covering(scope, key, offset).and_then(|it| self.by_name.get(&it));
        lane.is_some_and(|it| it.offset == offset)
    }

    /// Counts an item that the mark passes over while its lane is blocked.
    pub fn wait_behind(&mut self, name: &LaneName) {
        if let Some(lane) = self.by_name.get_mut(name) {
            lane.waiting += 1;
        }
    }

    /// The item at `offset` failed: it is the first unsettled one of its lane, and waits.
    pub fn block(&mut self, name: LaneName, offset: u64, retry: Retry) {
        let waiting = match self.take(&name) {
            Some(lane) if lane.retry.is_none() => lane.waiting.saturating_sub(1),
            Some(lane) => lane.waiting,
            None => 0,
        };
        self.put(name, Lane { offset, waiting, retry: Some(retry) });
    }

    /// The item at `offset`, the first unsettled one of its lane, is settled. The lane stays while others
    /// wait behind it, and always with `keep`.
    pub fn settle(&mut self, name: &LaneName, offset: u64, keep: bool) {
        let Some(lane) = self.take(name) else { return };
        let waiting = if lane.retry.is_none() { lane.waiting.saturating_sub(1) } else { lane.waiting };
        if keep || waiting > 0 {
            self.put(name.clone(), Lane { offset, waiting, retry: None });
        }
    }

    /// Sets how many wait behind each lane's first item; free lanes without any are dropped.
    pub fn recount(&mut self, waiting: &BTreeMap<LaneName, u64>) {
        for (name, lane) in &mut self.by_name {
            lane.waiting = waiting.get(name).copied().unwrap_or(0);
        }
        self.drop_free(|_, lane| lane.waiting == 0);
    }

    /// Drops the free lanes of which nothing waits any more.
    pub fn drop_free(&mut self, mut gone: impl FnMut(&LaneName, &Lane) -> bool) {
        self.by_name.retain(|name, lane| lane.retry.is_some() || !gone(name, lane));
        let lanes = &self.by_name;
        self.free.retain(|(_, name)| lanes.contains_key(name));
    }

    /// Makes every retry due by `now` if `all`, else those that lie further away than their own delay, which
    /// then begins now. Says whether any was moved.
    pub fn rebase(&mut self, now: Timestamp, all: bool) -> bool {
        let mut is_moved = false;
        for retry in self.by_name.values_mut().filter_map(|it| it.retry.as_mut()) {
            let due = if all { retry.due.min(now) } else { backoff::still_due(retry.due, retry.delay, now) };
            is_moved |= due != retry.due;
            retry.due = due;
        }
        if !is_moved {
            return false;
        }
        let due = self.by_name.iter().filter_map(|(name, it)| Some((it.retry.as_ref()?.due, name.clone())));
        self.due = due.collect();
        true
    }

    fn take(&mut self, name: &LaneName) -> Option<Lane> {
        let lane = self.by_name.remove(name)?;
        match &lane.retry {
            Some(retry) => self.due.remove(&(retry.due, name.clone())),
            None => self.free.remove(&(lane.offset, name.clone())),
        };
        Some(lane)
    }

    fn put(&mut self, name: LaneName, lane: Lane) {
        match &lane.retry {
            Some(retry) => self.due.insert((retry.due, name.clone())),
            None => self.free.insert((lane.offset, name.clone())),
        };
        self.by_name.insert(name, lane);
    }
}

/// A lane as it stands in the state file, in `retries`.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Entry {
    scope: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    key: Option<String>,
    offset: u64,
    #[serde(default)]
    waiting: u64,
    attempts: u32,
    tries: u32,
    due_utc: Timestamp,
    /// Absent when the lane is free.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    retry: Option<EntryRetry>,
    /// Whether the lane is that of the key alone.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    alone: bool,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct EntryRetry {
    first_utc: Timestamp,
    acks_at_first: u64,
    delay_ms: u64,
    reason: String,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    own_fault: bool,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    history: Vec<Attempt>,
}

impl Serialize for Lanes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.by_name.iter().map(|(name, lane)| entry(name, lane)))
    }
}

fn entry(name: &LaneName, lane: &Lane) -> Entry {
    let (scope, alone_key) = match name {
        LaneName::Scope(scope) => (scope.clone(), None),
        LaneName::Item(key) => (String::new(), Some(key.clone())),
    };
    let retry = lane.retry.as_ref();
    Entry {
        scope,
        alone: alone_key.is_some(),
        key: alone_key.or_else(|| retry.map(|it| it.key.clone())),
        offset: lane.offset,
        waiting: lane.waiting,
        attempts: retry.map_or(0, |it| it.attempts),
        tries: retry.map_or(0, |it| it.tries),
        due_utc: retry.map_or(Timestamp::default(), |it| it.due),
        retry: retry.map(|it| EntryRetry {
            first_utc: it.first,
            acks_at_first: it.acks_at_first,
            delay_ms: u64::try_from(it.delay.as_millis()).unwrap_or(u64::MAX),
            reason: it.reason.clone(),
            own_fault: it.is_own,
            history: it.history.clone(),
        }),
    }
}

impl<'de> Deserialize<'de> for Lanes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Lanes, D::Error> {
        let mut lanes = Lanes::default();
        for it in Vec::<Entry>::deserialize(deserializer)? {
            let key = it.key.unwrap_or_default();
            let name = if it.alone { LaneName::Item(key.clone()) } else { LaneName::Scope(it.scope) };
            let retry = it.retry.map(|more| Retry {
                key,
                attempts: it.attempts,
                tries: it.tries,
                first: more.first_utc,
                acks_at_first: more.acks_at_first,
                due: it.due_utc,
                delay: Duration::from_millis(more.delay_ms),
                reason: more.reason,
                is_own: more.own_fault,
                history: more.history,
            });
            lanes.put(name, Lane { offset: it.offset, waiting: it.waiting, retry });
        }
        Ok(lanes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Timestamp {
        Timestamp::default().plus(Duration::from_secs(seconds))
    }

    fn retry(due: u64) -> Retry {
        Retry {
            key: format!("k{due}"),
            attempts: 1,
            tries: 2,
            first: at(1),
            acks_at_first: 3,
            due: at(due),
            delay: Duration::from_secs(5),
            reason: "server-error".into(),
            is_own: true,
            history: vec![Attempt { at: at(1), status: Some(500), answer: "x".into() }],
        }
    }

    fn scope(name: &str) -> LaneName {
        LaneName::Scope(name.into())
    }

    #[test]
    fn a_lane_covers_its_first_item_and_all_behind_it() {
        let mut lanes = Lanes::default();
        lanes.block(scope("a"), 100, retry(5));
        assert_eq!(lanes.covering(Some("a"), "k", 99), None);
        assert_eq!(lanes.covering(Some("a"), "k", 100), Some(scope("a")));
        assert_eq!(lanes.covering(Some("b"), "k", 100), None);
        lanes.wait_behind(&scope("a"));
        lanes.settle(&scope("a"), 100, false);
        assert_eq!(lanes.covering(Some("a"), "k", 100), None);
        assert_eq!(lanes.covering(Some("a"), "k", 200), Some(scope("a")));
    }

    #[test]
    fn a_lane_ends_with_its_last_waiting_item() {
        let mut lanes = Lanes::default();
        lanes.block(scope("a"), 100, retry(5));
        lanes.wait_behind(&scope("a"));
        lanes.wait_behind(&scope("a"));
        assert_eq!(lanes.unsettled(), 3);
        lanes.settle(&scope("a"), 100, false);
        assert_eq!((lanes.unsettled(), lanes.first_free()), (2, Some(100)));
        lanes.block(scope("a"), 200, retry(9));
        assert_eq!((lanes.unsettled(), lanes.first_free(), lanes.retrying()), (2, None, 1));
        lanes.settle(&scope("a"), 200, false);
        lanes.settle(&scope("a"), 300, false);
        assert!(lanes.is_empty());
        assert_eq!((lanes.first_due(), lanes.first_free()), (None, None));
    }

    #[test]
    fn the_earliest_is_due_first() {
        let mut lanes = Lanes::default();
        for (name, due) in [("a", 30), ("b", 10), ("c", 20)] {
            lanes.block(scope(name), due, retry(due));
        }
        let due: Vec<_> = lanes.due(at(20)).map(|(name, _)| name.clone()).collect();
        assert_eq!(due, [scope("b"), scope("c")]);
        lanes.rebase(at(0), false);
        assert_eq!(lanes.first_due().map(|(due, _)| due), Some(at(5)), "the clock went back");
        lanes.rebase(at(1), true);
        assert_eq!(lanes.due(at(1)).count(), 3);
    }

    #[test]
    fn lanes_survive_the_state_file() {
        let mut lanes = Lanes::default();
        lanes.block(scope("a"), 100, retry(30));
        lanes.block(
            LaneName::Item("milestone:x".into()),
            200,
            Retry { key: "milestone:x".into(), ..retry(1) },
        );
        lanes.block(scope(""), 300, retry(7));
        lanes.wait_behind(&scope(""));
        lanes.settle(&scope(""), 300, false);
        let text = serde_json::to_string(&lanes).unwrap();
        assert_eq!(serde_json::from_str::<Lanes>(&text).unwrap(), lanes);
    }
}
