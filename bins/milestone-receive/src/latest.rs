//! Which milestones are the newest, overall and for each scope and risk status.
//!
//! Only places are kept (time, seq, offset); the lines stay in the journal.
//!
//! # Invariants
//! - Newest `timestampUtc` first; of equal times the one that came last.
//! - Memory is bounded: [`TOP_MAX`] places a list, [`SCOPES_MAX`] scopes. A scope that was dropped is not
//!   forgotten silently: asking for it answers [`Answer::Dropped`], and the caller reads the feed once.

use std::collections::{HashMap, VecDeque};

use milepost::{Timestamp, event::RiskStatus, identity};
use serde::{Deserialize, Serialize};

/// The most places of one list, and so the most that a reader may ask for.
pub const TOP_MAX: usize = 200;
/// Scopes whose lists are kept: with all lists full about 15 MB, in practice far less.
const SCOPES_MAX: usize = 256;

/// Where a milestone is, ordered by how new it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(from = "(i64, u64, u64)", into = "(i64, u64, u64)")]
pub struct Place {
    /// When it happened.
    pub time: Timestamp,
    /// Its number in the feed.
    pub seq: u64,
    /// The logical offset of its line.
    pub offset: u64,
}

impl From<(i64, u64, u64)> for Place {
    fn from((millis, seq, offset): (i64, u64, u64)) -> Place {
        Place { time: Timestamp::from_millis(millis), seq, offset }
    }
}

impl From<Place> for (i64, u64, u64) {
    fn from(it: Place) -> (i64, u64, u64) {
        (it.time.millis(), it.seq, it.offset)
    }
}

/// What is known of a question.
#[derive(Debug, PartialEq, Eq)]
pub enum Answer<'a> {
    /// The newest places, oldest first: all there are, if they are fewer than [`TOP_MAX`].
    Known(&'a Newest),
    /// The scope's lists were dropped; whoever asks must make them again ([`Lists`]).
    Dropped,
}

/// The list of a scope that nobody has named yet.
static NOTHING: Newest = Newest(VecDeque::new());

/// The newest places, at most [`TOP_MAX`], oldest first. What comes in order, as nearly everything does, costs no
/// search.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Vec<Place>")]
pub struct Newest(VecDeque<Place>);

impl Newest {
    /// Adds a place, dropping the oldest when the list is full.
    fn add(&mut self, place: Place) {
        let Newest(places) = self;
        let at = match places.back() {
            Some(last) if *last >= place => places.partition_point(|it| *it < place),
            _ => places.len(),
        };
        let is_full = places.len() >= TOP_MAX;
        if places.get(at) == Some(&place) || is_full && at == 0 {
            return;
        }
        places.insert(at, place);
        if is_full {
            places.pop_front();
        }
    }

    /// The places, oldest first.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &Place> {
        self.0.iter()
    }

    /// The oldest.
    pub fn first(&self) -> Option<&Place> {
        self.0.front()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }
}

impl From<Vec<Place>> for Newest {
    /// Of places that were kept in a file, where somebody may have turned them around.
    fn from(mut places: Vec<Place>) -> Newest {
        places.sort_unstable();
        places.dedup();
        let surplus = places.len().saturating_sub(TOP_MAX);
        Newest(places.into_iter().skip(surplus).collect())
    }
}

/// The newest of one scope, or of all.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Lists {
    all: Newest,
    /// In the order of [`risk_index`].
    by_risk: [Newest; 4],
    /// The largest seq that was added: the scope with the smallest is dropped first.
    last_seq: u64,
}

/// All lists.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Latest {
    overall: Lists,
    /// By a hash of 128 bits instead of the name, which may be long.
    by_scope: HashMap<String, Lists>,
    any_dropped: bool,
}

impl Lists {
    /// Adds a milestone, dropping the oldest where a list is full.
    pub fn add(&mut self, place: Place, risk: RiskStatus) {
        self.all.add(place);
        self.by_risk[risk_index(risk)].add(place);
        self.last_seq = self.last_seq.max(place.seq);
    }

    /// Whether nothing was added.
    pub fn is_empty(&self) -> bool {
        self.all.len() == 0
    }

    fn of(&self, risk: Option<RiskStatus>) -> &Newest {
        risk.map_or(&self.all, |it| &self.by_risk[risk_index(it)])
    }
}

impl Latest {
    /// Adds a milestone.
    pub fn add(&mut self, place: Place, scope: &str, risk: RiskStatus) {
        self.add_hashed(place, &scope_hash(scope), risk);
    }

    /// The same, by the hash of its scope.
    pub fn add_hashed(&mut self, place: Place, scope: &str, risk: RiskStatus) {
        self.overall.add(place, risk);
        if let Some(lists) = self.by_scope.get_mut(scope) {
            lists.add(place, risk);
        } else if !self.any_dropped {
            // Once any scope was dropped, an unknown one may have a past: its lists are made when asked for.
            let mut lists = Lists::default();
            lists.add(place, risk);
            self.keep(scope.to_owned(), lists);
        }
    }

    /// The newest places, of one scope or all, of one risk status or all.
    pub fn newest(&self, scope: Option<&str>, risk: Option<RiskStatus>) -> Answer<'_> {
        let Some(scope) = scope else { return Answer::Known(self.overall.of(risk)) };
        match self.by_scope.get(&scope_hash(scope)) {
            Some(lists) => Answer::Known(lists.of(risk)),
            None if self.any_dropped => Answer::Dropped,
            None => Answer::Known(&NOTHING),
        }
    }

    /// Whether the lists of a scope must be made again.
    pub fn is_dropped(&self, scope: &str) -> bool {
        self.newest(Some(scope), None) == Answer::Dropped
    }

    /// Takes over lists that were made by reading the whole feed.
    pub fn restore(&mut self, scope: &str, lists: Lists) {
        self.keep(scope_hash(scope), lists);
    }

    fn keep(&mut self, hash: String, lists: Lists) {
        if self.by_scope.len() >= SCOPES_MAX
            && let Some(quietest) = self.by_scope.iter().min_by_key(|it| it.1.last_seq).map(|it| it.0.clone())
        {
            self.by_scope.remove(&quietest);
            self.any_dropped = true;
        }
        self.by_scope.insert(hash, lists);
    }
}

/// A name that nobody can make two scopes share, of the same length for all.
pub fn scope_hash(scope: &str) -> String {
    identity::trace_id(scope)
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

    fn seqs(answer: Answer<'_>, limit: usize) -> Vec<u64> {
        match answer {
            Answer::Known(places) => places.iter().rev().take(limit).map(|it| it.seq).collect(),
            Answer::Dropped => panic!("dropped"),
        }
    }

    #[test]
    fn the_newest_time_comes_first_and_then_the_newest_seq() {
        let mut latest = Latest::default();
        for (seq, time) in [(1, 30), (2, 10), (3, 30), (4, 20)] {
            latest.add(place(time, seq), "s", RiskStatus::OnTrack);
        }
        assert_eq!(seqs(latest.newest(None, None), 10), [3, 1, 4, 2]);
        assert_eq!(seqs(latest.newest(Some("s"), Some(RiskStatus::OnTrack)), 2), [3, 1]);
        assert_eq!(seqs(latest.newest(Some("s"), Some(RiskStatus::Blocked)), 2), [0; 0]);
        assert_eq!(seqs(latest.newest(Some("t"), None), 2), [0; 0]);
    }

    #[test]
    fn a_list_keeps_the_newest_whatever_order_they_come_in() {
        let mut latest = Latest::default();
        for seq in 1..=1000 {
            latest.add(place(i64::try_from(seq * 7919 % 1009).unwrap(), seq), "s", RiskStatus::AtRisk);
        }
        let newest = latest.newest(None, None);
        let Answer::Known(places) = newest else { panic!("known") };
        assert_eq!(places.len(), TOP_MAX);
        let mut all: Vec<_> =
            (1..=1000).map(|seq| place(i64::try_from(seq * 7919 % 1009).unwrap(), seq)).collect();
        all.sort_unstable_by(|a, b| b.cmp(a));
        assert!(places.iter().rev().eq(&all[..TOP_MAX]));
    }

    #[test]
    fn a_dropped_scope_is_told_and_can_be_restored() {
        let mut latest = Latest::default();
        for seq in 0..=SCOPES_MAX as u64 {
            latest.add(place(0, seq), &format!("s{seq}"), RiskStatus::OnTrack);
        }
        assert_eq!(latest.newest(Some("s0"), None), Answer::Dropped);
        assert_eq!(latest.newest(Some("never"), None), Answer::Dropped);
        assert_eq!(seqs(latest.newest(Some("s2"), None), 1), [2]);
        // A dropped scope that goes on must not come back with its past missing.
        latest.add(place(9, 9999), "s0", RiskStatus::OnTrack);
        assert_eq!(latest.newest(Some("s0"), None), Answer::Dropped);
        let mut lists = Lists::default();
        lists.add(place(0, 0), RiskStatus::OnTrack);
        lists.add(place(9, 9999), RiskStatus::OnTrack);
        latest.restore("s0", lists);
        assert_eq!(seqs(latest.newest(Some("s0"), None), 9), [9999, 0]);
        assert!(latest.by_scope.len() <= SCOPES_MAX);
    }
}
