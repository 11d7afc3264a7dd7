//! Watches the hash chains, and counts what the audit tells of: what is new each time, and a piece of what is old.
//!
//! Each look follows every chain over what was added since the last one. Behind that it goes round through the whole
//! history, a bounded piece a look, since disks and people also change what was written long ago.
//!
//! # Invariants
//! - What a look reads is what is new and at most [`ROUND_BYTES`] of each chain, whatever there is; only the first
//!   one reads all.
//! - A break is told of until a round has found none. A chain in which what was seen before is not there is broken.
//! - What it remembers is disposable: without it the counts begin anew, as counters do when a process restarts.
//!
//! Not here: a verification that compares everything (`audit-tail --verify`), names for monitoring (`metrics`).

use std::collections::BTreeMap;

use milepost::{
    Kind, Result, Timestamp,
    audit::line::RawLine,
    chain::Chain,
    journal::{Extent, Item, Journal, JournalName, Position, Reader},
    logs::Logs,
    state_file::{self, Loaded},
};
use serde::{Deserialize, Serialize};

/// Where it is remembered how far each chain was seen.
const FILE: &str = ".index/status.metrics.json";
const VERSION: u32 = 1;
/// How much of each chain's history a look verifies once more.
const ROUND_BYTES: u64 = 4 << 20;

/// What is remembered.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Chains {
    version: u32,
    by_journal: BTreeMap<String, Watched>,
    /// Records of the audit, by tool, action and outcome, with a space between.
    counts: BTreeMap<String, u64>,
}

/// A chain.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Watched {
    /// Up to here it was seen.
    followed: Place,
    /// Here the round goes on; none at its beginning.
    round: Option<Place>,
    /// Whether this round has found a break.
    round_is_broken: bool,
    is_broken: bool,
    /// When the last whole round ended.
    round_ended_utc: Option<Timestamp>,
}

/// A place in a chain, believing what is before it.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Place {
    journal: String,
    position: Position,
    seq: u64,
    head: String,
}

/// What is known of a chain.
#[derive(Debug)]
pub struct ChainStatus {
    /// The journal's file.
    pub journal: String,
    /// Records in it.
    pub records: u64,
    /// Whether no break is known.
    pub is_intact: bool,
    /// When all of it had been verified last.
    pub verified_utc: Option<Timestamp>,
}

impl Chains {
    /// What was remembered, or nothing.
    pub fn load(logs: &Logs) -> Result<Chains> {
        Ok(match state_file::load::<Chains>(logs, FILE)? {
            Loaded::Found(it) if it.version == VERSION => it,
            _ => Chains { version: VERSION, ..Chains::default() },
        })
    }

    /// Remembers.
    pub fn save(&self, logs: &Logs) -> Result<()> {
        state_file::save(logs, FILE, self)
    }

    /// Follows every chain of the folder.
    pub fn look(&mut self, journals: &[Journal], now: Timestamp) -> Result<Vec<ChainStatus>> {
        let is_chain = |it: &&Journal| it.name() == &JournalName::audit() || it.name().as_str().contains('/');
        journals.iter().filter(is_chain).map(|it| self.look_at(it, now)).collect()
    }

    /// Files of the journals whose chains were broken when they were looked at last.
    pub fn broken(&self) -> impl Iterator<Item = String> {
        let broken = self.by_journal.iter().filter(|it| it.1.is_broken);
        broken.map(|(name, _)| JournalName::internal(name.as_str()).file())
    }

    /// How often the audit tells of what: tool, action, outcome.
    pub fn counts(&self) -> impl Iterator<Item = ([&str; 3], u64)> {
        self.counts.iter().filter_map(|(words, count)| {
            let mut words = words.splitn(3, ' ');
            Some(([words.next()?, words.next()?, words.next()?], *count))
        })
    }

    fn look_at(&mut self, journal: &Journal, now: Timestamp) -> Result<ChainStatus> {
        let (logs, name) = (journal.logs(), journal.name());
        let counts = (*name == JournalName::audit()).then_some(&mut self.counts);
        let begin = beginning(logs, name)?;
        let looked = match self.by_journal.remove(name.as_str()) {
            // Else what was seen was trimmed since.
            Some(it) if it.followed.position.offset >= begin.position.offset => {
                it.follow(logs, &begin, counts)
            }
            _ => Watched::new(logs, &begin, counts),
        };
        match looked.and_then(|it| it.go_round(logs, &begin, now)) {
            Ok(watched) => {
                let status = ChainStatus {
                    journal: name.file(),
                    records: watched.followed.seq,
                    is_intact: !watched.is_broken,
                    verified_utc: watched.round_ended_utc,
                };
                self.by_journal.insert(name.to_string(), watched);
                Ok(status)
            }
            // Shorter than its mark, or with a gap.
            Err(error) if error.kind() == Kind::BadData => {
                let journal = name.file();
                Ok(ChainStatus { journal, records: 0, is_intact: false, verified_utc: None })
            }
            Err(error) => Err(error),
        }
    }
}

type Counts = BTreeMap<String, u64>;

impl Watched {
    /// A chain that is seen for the first time.
    fn new(logs: &Logs, begin: &Place, mut counts: Option<&mut Counts>) -> Result<Watched> {
        if let Some(counts) = &mut counts {
            counts.clear();
        }
        let mut followed = begin.clone();
        let is_whole = walk(logs, &mut followed, u64::MAX, counts)?;
        Ok(Watched {
            followed,
            round: None,
            round_is_broken: !is_whole,
            is_broken: !is_whole,
            round_ended_utc: None,
        })
    }

    fn follow(mut self, logs: &Logs, begin: &Place, mut counts: Option<&mut Counts>) -> Result<Watched> {
        match walk(logs, &mut self.followed, u64::MAX, counts.as_deref_mut()) {
            Ok(is_whole) => {
                self.is_broken |= !is_whole;
                self.round_is_broken |= !is_whole;
                Ok(self)
            }
            // What was seen is not there any more.
            Err(error) if error.kind() == Kind::BadData => {
                let new = Watched::new(logs, begin, counts)?;
                Ok(Watched { is_broken: true, round_is_broken: true, ..new })
            }
            Err(error) => Err(error),
        }
    }

    /// Verifies a piece of what was followed before.
    fn go_round(mut self, logs: &Logs, begin: &Place, now: Timestamp) -> Result<Watched> {
        let mut place = match self.round.take() {
            Some(it) if it.position.offset >= begin.position.offset => it,
            _ => begin.clone(),
        };
        let end = self.followed.position.offset;
        let until = end.min(place.position.offset + ROUND_BYTES);
        let is_whole = match walk(logs, &mut place, until, None) {
            Err(error) if error.kind() == Kind::BadData => {
                place = begin.clone();
                false
            }
            other => other?,
        };
        self.round_is_broken |= !is_whole;
        self.is_broken |= !is_whole;
        if place.position.offset >= end {
            self.is_broken = self.round_is_broken;
            self.round_is_broken = false;
            self.round_ended_utc = Some(now);
        } else {
            self.round = Some(place);
        }
        Ok(self)
    }
}

/// Where what is there of a chain begins.
fn beginning(logs: &Logs, name: &JournalName) -> Result<Place> {
    let extent = Extent::of(logs, name)?;
    let offset = extent.sealed.first().map_or(extent.active.base, |it| it.base);
    let position = Position { offset, fingerprint: String::new() };
    Ok(Place { journal: name.to_string(), position, seq: 0, head: String::new() })
}

/// Goes on from a place until `until`, or to the end. False when the chain is broken on the way.
fn walk(logs: &Logs, place: &mut Place, until: u64, mut counts: Option<&mut Counts>) -> Result<bool> {
    let name = &JournalName::internal(place.journal.as_str());
    let is_beginning = place.position.fingerprint.is_empty();
    let mut reader = if is_beginning {
        Reader::open_at(logs, name, place.position.offset)?
    } else {
        Reader::open(logs, name, &place.position)?
    };
    let mut chain = Chain { seq: place.seq, head: std::mem::take(&mut place.head) };
    // What was trimmed is not there to be verified.
    let mut is_known = !is_beginning || place.position.offset == 0;
    let mut is_whole = true;
    let mut last = None;
    while reader.offset() < until {
        let Some(item) = reader.next_item()? else { break };
        let Item::Line { end, text, .. } = item else {
            (is_whole, is_known) = (false, false);
            continue;
        };
        if !is_known {
            chain = Chain::before(text).unwrap_or_default();
        }
        is_known = chain.step(text).is_ok();
        if !is_known {
            is_whole = false;
            if let Some(after) = Chain::after(text) {
                (chain, is_known) = (after, true);
            }
        }
        if let Some(counts) = &mut counts
            && let Some(words) = words_of(text)
        {
            match counts.get_mut(&words) {
                Some(count) => *count += 1,
                None => drop(counts.insert(words, 1)),
            }
        }
        match &mut last {
            Some((offset, line)) => {
                *offset = end;
                Vec::clear(line);
                line.extend_from_slice(text);
            }
            None => last = Some((end, text.to_vec())),
        }
    }
    if let Some((end, line)) = last {
        place.position = Position::after(end, &line);
    }
    (place.seq, place.head) = (chain.seq, chain.head);
    Ok(is_whole)
}

/// Tool, action and outcome of an audit record.
fn words_of(line: &[u8]) -> Option<String> {
    let record = RawLine::read(line)?;
    let word = |it| std::str::from_utf8(it).ok();
    Some(format!("{} {} {}", word(record.tool)?, word(record.action)?, word(record.outcome)?))
}
