//! Which milestones are the newest, overall and for each scope and risk status.
//!
//! Only places are kept (time, seq, offset); the lines stay in the journal.
//!
//! # Invariants
//! - Newest `timestampUtc` first; of equal times the one that came last.
//! - Memory is bounded: [`TOP_MAX`] places a list, [`SCOPES_MAX`] scopes. A scope that was dropped is not
//!   forgotten silently: asking for it answers [`Answer::Dropped`], and the caller reads the feed once.

use std::{
    collections::{BTreeSet, HashMap},
    hash::{BuildHasher, RandomState},
};

use milepost::{Timestamp, event::RiskStatus};

/// The most places of one list, and so the most that a reader may ask for.
pub const TOP_MAX: usize = 200;
/// Scopes whose lists are kept: with all lists full about 30 MB, in practice far less.
const SCOPES_MAX: usize = 512;

/// Where a milestone is, ordered by how new it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// When it happened.
    pub time: Timestamp,
    /// Its number in the feed.
    pub seq: u64,
    /// The logical offset of its line.
    pub offset: u64,
}

/// What is known of a question.
#[derive(Debug, PartialEq, Eq)]
pub enum Answer {
    /// The newest places, newest first.
    Known(Vec<Place>),
    /// The scope's lists were dropped; whoever asks must make them again ([`Lists`]).
    Dropped,
}

/// The newest of one scope, or of all.
#[derive(Debug, Default)]
pub struct Lists {
    all: BTreeSet<Place>,
    /// In the order of [`risk_index`].
    by_risk: [BTreeSet<Place>; 4],
    /// The largest seq that was added: the scope with the smallest is dropped first.
    last_seq: u64,
}

/// All lists.
#[derive(Debug, Default)]
pub struct Latest {
    overall: Lists,
    /// By a keyed hash of 128 bits instead of the name, which may be long: nobody can make two names meet.
    by_scope: HashMap<u128, Lists>,
    keys: (RandomState, RandomState),
    any_dropped: bool,
}

impl Lists {
    /// Adds a milestone, dropping the oldest where a list is full.
    pub fn add(&mut self, place: Place, risk: RiskStatus) {
        for list in [&mut self.all, &mut self.by_risk[risk_index(risk)]] {
            list.insert(place);
            if list.len() > TOP_MAX {
                list.pop_first();
            }
        }
        self.last_seq = self.last_seq.max(place.seq);
    }

    fn newest(&self, risk: Option<RiskStatus>, limit: usize) -> Vec<Place> {
        let list = risk.map_or(&self.all, |it| &self.by_risk[risk_index(it)]);
        list.iter().rev().take(limit).copied().collect()
    }
}

impl Latest {
    /// Adds a milestone.
    pub fn add(&mut self, place: Place, scope: &str, risk: RiskStatus) {
        self.overall.add(place, risk);
        let hash = self.hash(scope);
        if let Some(lists) = self.by_scope.get_mut(&hash) {
            lists.add(place, risk);
        } else if !self.any_dropped {
            // Once any scope was dropped, an unknown one may have a past: its lists are made when asked for.
            let mut lists = Lists::default();
            lists.add(place, risk);
            self.keep(hash, lists);
        }
    }

    /// The newest places, of one scope or all, of one risk status or all.
    pub fn newest(&self, scope: Option<&str>, risk: Option<RiskStatus>, limit: usize) -> Answer {
        let Some(scope) = scope else { return Answer::Known(self.overall.newest(risk, limit)) };
        match self.by_scope.get(&self.hash(scope)) {
            Some(lists) => Answer::Known(lists.newest(risk, limit)),
            None if self.any_dropped => Answer::Dropped,
            None => Answer::Known(Vec::new()),
        }
    }

    /// Takes over lists that were made by reading the whole feed.
    pub fn restore(&mut self, scope: &str, lists: Lists) {
        self.keep(self.hash(scope), lists);
    }

    fn keep(&mut self, hash: u128, lists: Lists) {
        if self.by_scope.len() >= SCOPES_MAX
            && let Some(quietest) = self.by_scope.iter().min_by_key(|it| it.1.last_seq).map(|it| *it.0)
        {
            self.by_scope.remove(&quietest);
            self.any_dropped = true;
        }
        self.by_scope.insert(hash, lists);
    }

    fn hash(&self, scope: &str) -> u128 {
        u128::from(self.keys.0.hash_one(scope)) << 64 | u128::from(self.keys.1.hash_one(scope))
    }
}

/// Place of a risk status in the lists.
fn risk_index(risk: RiskStatus) -> usize {
    match risk {
        RiskStatus::OnTrack => 0,
        RiskStatus::AtRisk => 1,
        RiskStatus::Blocked => 2,
        RiskStatus::Completed => 3,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(time: i64, seq: u64) -> Place {
        Place { time: Timestamp::from_millis(time), seq, offset: seq * 100 }
    }

    fn seqs(answer: Answer) -> Vec<u64> {
        match answer {
            Answer::Known(places) => places.iter().map(|it| it.seq).collect(),
            Answer::Dropped => panic!("dropped"),
        }
    }

    #[test]
    fn the_newest_time_comes_first_and_then_the_newest_seq() {
        let mut latest = Latest::default();
        for (seq, time) in [(1, 30), (2, 10), (3, 30), (4, 20)] {
            latest.add(place(time, seq), "s", RiskStatus::OnTrack);
        }
        assert_eq!(seqs(latest.newest(None, None, 10)), [3, 1, 4, 2]);
        assert_eq!(seqs(latest.newest(Some("s"), Some(RiskStatus::OnTrack), 2)), [3, 1]);
        assert_eq!(seqs(latest.newest(Some("s"), Some(RiskStatus::Blocked), 2)), [0; 0]);
        assert_eq!(seqs(latest.newest(Some("t"), None, 2)), [0; 0]);
    }

    #[test]
    fn a_list_keeps_the_newest_whatever_order_they_come_in() {
        let mut latest = Latest::default();
        for seq in 1..=1000 {
            latest.add(place(i64::try_from(seq * 7919 % 1009).unwrap(), seq), "s", RiskStatus::AtRisk);
        }
        let newest = latest.newest(None, None, TOP_MAX);
        let Answer::Known(places) = newest else { panic!("known") };
        assert_eq!(places.len(), TOP_MAX);
        let mut all: Vec<_> =
            (1..=1000).map(|seq| place(i64::try_from(seq * 7919 % 1009).unwrap(), seq)).collect();
        all.sort_unstable_by(|a, b| b.cmp(a));
        assert_eq!(places, all[..TOP_MAX]);
    }

    #[test]
    fn a_dropped_scope_is_told_and_can_be_restored() {
        let mut latest = Latest::default();
        for seq in 0..=SCOPES_MAX as u64 {
            latest.add(place(0, seq), &format!("s{seq}"), RiskStatus::OnTrack);
        }
        assert_eq!(latest.newest(Some("s0"), None, 1), Answer::Dropped);
        assert_eq!(latest.newest(Some("never"), None, 1), Answer::Dropped);
        assert_eq!(seqs(latest.newest(Some("s2"), None, 1)), [2]);
        // A dropped scope that goes on must not come back with its past missing.
        latest.add(place(9, 9999), "s0", RiskStatus::OnTrack);
        assert_eq!(latest.newest(Some("s0"), None, 1), Answer::Dropped);
        let mut lists = Lists::default();
        lists.add(place(0, 0), RiskStatus::OnTrack);
        lists.add(place(9, 9999), RiskStatus::OnTrack);
        latest.restore("s0", lists);
        assert_eq!(seqs(latest.newest(Some("s0"), None, 9)), [9999, 0]);
        assert!(latest.by_scope.len() <= SCOPES_MAX);
    }
}
