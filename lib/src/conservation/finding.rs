//! What can be found wrong, each with its place, its words and what to do about it.
//!
//! # Invariants
//! - One damage makes many things wrong behind it; of each kind at most [`LISTED_MAX`] a journal are listed, the
//!   first ones, and the rest is counted.
//! - The words of a kind never change: scripts go by them.
//!
//! Not here: how anything is found (the other parts of `conservation`).

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{BufRead, BufReader, Read},
};

use serde::{Deserialize, Serialize};

use super::parse::hash_of_key;
use crate::{
    journal::{Extent, JournalName, Lines, Segment, open_segment},
    logs::Logs,
};

/// Of one kind in one journal so many are listed.
const LISTED_MAX: u64 = 10;

macro_rules! kinds {
    ($($(#[$doc:meta])* $kind:ident = $cure:expr),+ $(,)?) => {
        /// What is wrong. In the order in which findings are shown: causes before what follows from them.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
        #[serde(rename_all = "kebab-case")]
        pub enum FindingKind { $($(#[$doc])* $kind),+ }

        impl FindingKind {
            /// All of them.
            pub const ALL: &[FindingKind] = &[$(FindingKind::$kind),+];

            /// What to do about it.
            fn cure(self) -> &'static str {
                match self { $(FindingKind::$kind => $cure),+ }
            }
        }
    };
}

const RESTORE: &str = "restore the file from a copy";
const RESTORE_LINE: &str = "restore the line from a copy; the audit and the other journals name the event";
const RESTORE_STATE: &str =
    "stop milestone-deliver, delete the state file (the next run rebuilds it from the audit), and look again";
const ASK_WHO: &str = "find out who wrote there; only Milepost's tools may";

kinds! {
    /// Part of a journal is not there: a segment is gone, or one was cut.
    SegmentMissing = RESTORE,
    /// A sealed segment is longer than its place in the journal.
    SegmentTooLong = RESTORE,
    /// The active segment is shorter than what was synced of it.
    Cut = "restore the file; logrotate with copytruncate is the usual cause. To go on without what is gone: --resync",
    /// A line that is no record of its journal.
    LineDamaged = RESTORE_LINE,
    /// A hash chain does not hold.
    ChainBroken = "restore the file from a copy; from here on the chain proves nothing",
    /// A mark or a state rests on more audit than there is.
    AuditCut = "restore audit.jsonl from a copy",
    /// The audit tells of a record that is nowhere in its journal.
    RecordMissing = RESTORE_LINE,
    /// A record is not what was audited.
    RecordChanged = RESTORE_LINE,
    /// The audit tells of a record that is at another place: something before it was removed or put in.
    RecordMoved = RESTORE,
    /// A record that no audit record tells of.
    RecordUnaudited = ASK_WHO,
    /// Two audit records tell of the same record.
    AuditedTwice = ASK_WHO,
    /// An id that must be in a journal once is there twice.
    IdTwice = "remove neither: find out which one is right, and restore the file from a copy",
    /// The queue is beyond an event that it does not hold.
    Skipped = "run milestone-queue --resync start: what is in the queue already is not enqueued again",
    /// A queue record that comes from no line of its source.
    FromNowhere = ASK_WHO,
    /// What is queued is not what was emitted.
    PayloadDiffers = RESTORE_LINE,
    /// A queue record says that it goes on at a place that its source does not have.
    ResumeDiffers = "restore source and queue from copies of the same time, or go on with milestone-queue --resync",
    /// A queue record puts back a dead letter that is not there.
    RedriveOfNothing = "restore the dead letters from a copy",
    /// A dead letter was put back twice.
    RedrivenTwice = ASK_WHO,
    /// A dead letter is not the queue record that it was made of.
    LetterDiffers = RESTORE_LINE,
    /// The audit settles something that is not in the queue, or not for that endpoint.
    SettledNothing = "restore the queue from a copy",
    /// One delivery was settled twice.
    SettledTwice = ASK_WHO,
    /// A dead letter was closed that is not there, or twice.
    DiscardedNothing = "restore the dead letters from a copy",
    /// A delivery that is neither settled nor will be: the state is beyond it.
    Lost = RESTORE_STATE,
    /// A state claims more than the journals hold.
    StateAhead = RESTORE_STATE,
    /// A receipt that the feed contradicts.
    ReceiptContradicted = "restore receive/ from a copy; the sender's audit holds what the receiver had confirmed",
    /// The feed has another event than was sent.
    FeedDiffers = "restore receive/ from a copy",
}

/// Something wrong, at a place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Finding {
    /// What is wrong.
    pub kind: FindingKind,
    /// The file, relative to the logs folder.
    pub file: String,
    /// The logical offset in its journal.
    pub offset: Option<u64>,
    /// The line of the file, counted from 1.
    pub line: Option<u64>,
    /// The event: its idempotency key.
    pub id: Option<String>,
    /// The endpoint that it concerns; empty for the one without a name.
    pub endpoint: Option<String>,
    /// What is wrong, in words.
    pub message: String,
    /// What to do.
    pub cure: &'static str,
    /// The journal, for what is found out about the place later.
    #[serde(skip)]
    journal: Option<JournalName>,
}

impl Finding {
    /// Something wrong with a journal as a whole.
    pub(super) fn in_journal(kind: FindingKind, name: &JournalName, message: String) -> Finding {
        Finding { journal: Some(name.clone()), ..Finding::in_file(kind, name.file(), message) }
    }

    /// Something wrong at a place of a journal.
    pub(super) fn at(kind: FindingKind, name: &JournalName, offset: u64, message: String) -> Finding {
        Finding { offset: Some(offset), ..Finding::in_journal(kind, name, message) }
    }

    /// Something wrong with a file that is no journal.
    pub(super) fn in_file(kind: FindingKind, file: String, message: String) -> Finding {
        Finding {
            kind,
            file,
            offset: None,
            line: None,
            id: None,
            endpoint: None,
            message,
            cure: kind.cure(),
            journal: None,
        }
    }

    /// About this event.
    pub(super) fn about(self, id: Option<&str>) -> Finding {
        Finding { id: id.map(str::to_owned), ..self }
    }

    /// For this endpoint.
    pub(super) fn with_endpoint(self, endpoint: &str) -> Finding {
        Finding { endpoint: Some(endpoint.to_owned()), ..self }
    }

    /// What makes it the same finding in another look.
    fn identity(&self) -> (FindingKind, String, Option<u64>, Option<String>) {
        let journal = self.journal.as_ref().map_or_else(|| self.file.clone(), ToString::to_string);
        (self.kind, journal, self.offset, self.endpoint.clone())
    }
}

/// Findings so far.
#[derive(Debug, Default)]
pub(super) struct Findings {
    listed: Vec<Finding>,
    counts: BTreeMap<(FindingKind, String), u64>,
    omitted: u64,
}

impl Findings {
    pub fn add(&mut self, finding: Finding) {
        let count = self.counts.entry((finding.kind, finding.file.clone())).or_default();
        *count += 1;
        if *count <= LISTED_MAX {
            self.listed.push(finding);
        } else {
            self.omitted += 1;
        }
    }

    pub fn append(&mut self, other: Findings) {
        self.omitted += other.omitted;
        other.listed.into_iter().for_each(|it| self.add(it));
    }

    pub fn is_empty(&self) -> bool {
        self.listed.is_empty()
    }

    /// Drops all but what was found in a journal before an offset.
    pub fn forget(&mut self, name: &JournalName, from: u64) {
        let is_before =
            |it: &Finding| it.journal.as_ref() == Some(name) && it.offset.is_some_and(|it| it < from);
        *self = std::mem::take(&mut self.listed).into_iter().filter(is_before).fold(
            Findings::default(),
            |mut kept, it| {
                kept.add(it);
                kept
            },
        );
    }

    /// Keeps what another look has found as well: a running pipeline may have moved on under one of them.
    pub fn confirmed_by(&mut self, other: &Findings) {
        let known: BTreeSet<_> = other.listed.iter().map(Finding::identity).collect();
        self.listed.retain(|it| known.contains(&it.identity()));
        if self.listed.is_empty() {
            self.omitted = 0;
        }
    }

    /// The findings in the order in which they are shown, with all that can be said about their places, and how
    /// many more there are.
    pub fn finished(mut self, logs: &Logs) -> (Vec<Finding>, u64) {
        self.listed.sort_by(|a, b| (a.kind, &a.file, a.offset).cmp(&(b.kind, &b.file, b.offset)));
        for finding in &mut self.listed {
            locate(finding, logs);
        }
        (self.listed, self.omitted)
    }
}

/// Names file, line and event of a place in a journal, as far as they can be found out.
fn locate(finding: &mut Finding, logs: &Logs) {
    let (Some(name), Some(offset)) = (&finding.journal, finding.offset) else { return };
    let Ok(extent) = Extent::of(logs, name) else { return };
    let (file, base) = extent.file_of(name, offset);
    finding.file = file;
    finding.line = line_of(logs, name, base, offset);
    if finding.id.is_none()
        && let Ok(Some(line)) = Lines::new(logs, name).get(offset)
    {
        finding.id = id_of(&line);
    }
}

/// The number of the line that begins at `offset`, counted from 1.
fn line_of(logs: &Logs, name: &JournalName, base: u64, offset: u64) -> Option<u64> {
    let file = open_segment(logs, name, Segment { base, length: 0 }).ok()?;
    let mut reader = BufReader::with_capacity(1 << 18, file.take(offset.checked_sub(base)?));
    let mut line = 1;
    loop {
        let bytes = reader.fill_buf().ok()?;
        if bytes.is_empty() {
            return Some(line);
        }
        line += memchr::memchr_iter(b'\n', bytes).count() as u64;
        let length = bytes.len();
        reader.consume(length);
    }
}

/// The idempotency key in a line of any journal.
fn id_of(line: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    struct Ids {
        #[serde(alias = "idempotencyKey")]
        idempotency_key: Option<String>,
        #[serde(rename = "milestoneId")]
        milestone_id: Option<String>,
    }
    let ids: Ids = serde_json::from_slice(line).ok()?;
    ids.idempotency_key.or_else(|| ids.milestone_id.map(|it| crate::identity::milestone_key(&it)))
}

/// The event with this hash as a line of a journal says it.
pub(super) fn key_at(logs: &Logs, name: &JournalName, offset: u64, hash: u64) -> Option<String> {
    let line = Lines::new(logs, name).get(offset).ok()??;
    id_of(&line).filter(|it| hash_of_key(it) == hash)
}
