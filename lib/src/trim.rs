//! Taking away what is old of a journal: whole sealed segments that every consumer has passed.
//!
//! | journal | consumers | what stays for ever |
//! | --- | --- | --- |
//! | `milestones`, `reminders` | each queue that is or was filled from it | the keys, so that a duplicate is known |
//! | a queue | each endpoint it was ever brought to | the keys, so that nothing is queued or put back again |
//!
//! # Invariants
//! - A segment goes when the keys of its records are on disk and the audit tells of it, never before.
//! - A consumer whose state is missing has passed nothing, and so has a journal's nobody: without a consumer all stays.
//! - The newest sealed segment stays, and whoever stands exactly at a segment's end has not passed it: the line before
//!   each stored position is there, by which the position is believed (J5).
//! - From the oldest on, one at a time, each removal synced: a crash leaves no gap.
//!
//! Never trimmed: the audit, of which states are rebuilt and which proves all the rest; dead letters, commands and
//! tasks, of which an old line may be the one that counts; the receiver's journals, which are what it shows.
//!
//! Not here: the bytes of what stays (`journal::keys`), how it is found again (`index`).

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
    fs,
    os::unix::fs::MetadataExt,
    time::Duration,
};

use serde::Deserialize;
use serde_json::json;

use crate::{
    Error, Kind, Result, Timestamp,
    audit::{Action, Draft, Outcome},
    delivery::{Consumer, State},
    emit, inventory,
    journal::{Batch, Extent, Journal, JournalName, Kept, Segment, digest, keys, lines_from},
    lock::Lock,
    logs::Logs,
    queue,
    state_file::{self, Loaded},
};

/// Which segments are meant, of those that may go.
#[derive(Clone, Copy, Debug, Default)]
pub struct Wanted {
    /// Only those that were last written to so long ago.
    pub older: Option<Duration>,
    /// Nothing is removed; what would be is told.
    pub dry_run: bool,
}

/// What a trim came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trimmed {
    /// Segments that were removed.
    pub segments: u64,
    /// Bytes in them.
    pub bytes: u64,
    /// Logical offset at which the journal begins now.
    pub begins: u64,
    /// Up to where every consumer has come.
    pub passed: u64,
    /// Who has come least far; none where there is no consumer.
    pub by: Option<String>,
}

/// Trims a source of queues.
///
/// # Errors
/// [`Kind::Usage`] for a journal whose consumers are not known.
pub fn source(source: &Journal, wanted: Wanted, now: Timestamp) -> Result<Trimmed> {
    if inventory::queue_of(source.name()).is_none() {
        let what = format!("{} may have readers that nobody knows of", source.name().file());
        return Err(
            Error::new(Kind::Usage, "", what).cure("only milestones.jsonl and reminders.jsonl are trimmed")
        );
    }
    let passed = passed_by_queues(source)?;
    trim(source, passed, wanted, now)
}

/// Trims a queue.
pub fn queue(queue: &Journal, wanted: Wanted, now: Timestamp) -> Result<Trimmed> {
    let passed = passed_by_endpoints(queue)?;
    trim(queue, passed, wanted, now)
}

/// The consumer that has come least far.
type Passed = Option<(u64, String)>;

fn passed_by_queues(source: &Journal) -> Result<Passed> {
    let logs = source.logs();
    let mut filled = sources_told(logs)?;
    for name in inventory::journals(logs)?.into_iter().filter(|it| it.stem().is_some()) {
        let said = queue::start_of(logs, &name).map(|it| it.source).or_else(|| inventory::source_of(&name));
        if let Some(it) = said {
            let of_queue = filled.entry(name.as_str().to_owned()).or_default();
            of_queue.last.get_or_insert_with(|| it.as_str().to_owned());
            of_queue.all.insert(it.as_str().to_owned());
        }
    }
    let own = source.name().as_str();
    let mut passed = Vec::new();
    for (name, Sources { last, .. }) in filled.into_iter().filter(|(_, it)| it.all.contains(own)) {
        let queue = queue::open(logs, JournalName::internal(name));
        // A queue that is filled from elsewhere by now says nothing of where it had come to here.
        let at = if last.as_deref() == Some(own) { queue::resume(&queue, source.name())?.offset } else { 0 };
        passed.push((at, queue.name().file()));
    }
    Ok(passed.into_iter().min())
}

/// From which journals a queue was filled.
#[derive(Default)]
struct Sources {
    all: BTreeSet<String>,
    last: Option<String>,
}

/// By queue, the journals that it was filled from by the word of the audit.
fn sources_told(logs: &Logs) -> Result<BTreeMap<String, Sources>> {
    #[derive(Deserialize)]
    struct Record<'l> {
        #[serde(borrow)]
        detail: Detail<'l>,
    }
    #[derive(Deserialize)]
    struct Detail<'l> {
        #[serde(borrow)]
        journal: Option<Cow<'l, str>>,
        #[serde(borrow)]
        queue: Option<Cow<'l, str>>,
        #[serde(borrow)]
        source: Option<Cow<'l, str>>,
    }
    let mut told: BTreeMap<String, Sources> = BTreeMap::new();
    lines_from(logs, &JournalName::audit(), 0, &mut |_, text| {
        // Lines are canonical, so these records begin so; all others cost no more than this.
        let is_meant = [&b"{\"action\":\"enqueue\","[..], b"{\"action\":\"resync\","]
            .iter()
            .any(|it| text.starts_with(it));
        if is_meant
            && let Ok(Record { detail: Detail { journal, queue, source: Some(source) } }) =
                serde_json::from_slice(text)
            && let Some(queue) = journal.or(queue)
        {
            let of_queue = told.entry(queue.into_owned()).or_default();
            of_queue.all.insert(source.clone().into_owned());
            of_queue.last = Some(source.into_owned());
        }
        true
    })?;
    Ok(told)
}

fn passed_by_endpoints(queue: &Journal) -> Result<Passed> {
    let (logs, name) = (queue.logs(), queue.name());
    let mut endpoints = inventory::endpoints(logs, name, "state", ".json")?;
    endpoints.extend(inventory::endpoints(logs, name, "deadletter", ".jsonl")?);
    endpoints.extend(inventory::deliverers(logs, name)?);
    let mut passed = Vec::new();
    for endpoint in endpoints {
        let consumer = Consumer::new(logs, name.clone(), &endpoint)?;
        let file = consumer.state_file();
        let at = match state_file::load::<State>(logs, &file)? {
            Loaded::Found(it) if it.endpoint == endpoint => {
                let lanes = it.retries.iter().map(|(_, lane)| lane.offset);
                lanes.chain([it.cursor.offset]).min().unwrap_or(0)
            }
            Loaded::Found(_) | Loaded::Missing | Loaded::Damaged(_) => 0,
        };
        passed.push((at, file));
    }
    Ok(passed.into_iter().min())
}

fn trim(journal: &Journal, passed: Passed, wanted: Wanted, now: Timestamp) -> Result<Trimmed> {
    let (logs, name) = (journal.logs(), journal.name());
    let _only = Lock::acquire(logs, &format!("{name}@trim"))?;
    let extent = Extent::of(logs, name)?;
    let begins = extent.sealed.first().map_or(extent.active.base, |it| it.base);
    let (passed, by) = passed.map_or((0, None), |(at, by)| (at, Some(by)));
    let mut trimmed = Trimmed { segments: 0, bytes: 0, begins, passed, by };
    let mut going = Vec::new();
    for segment in extent.sealed.iter().take(extent.sealed.len().saturating_sub(1)) {
        let end = segment.base + segment.length;
        if end >= passed || !is_old(logs, name, *segment, wanted.older, now)? {
            break;
        }
        going.push(*segment);
        trimmed.segments += 1;
        trimmed.bytes += segment.length;
        trimmed.begins = end;
    }
    if going.is_empty() || wanted.dry_run {
        return Ok(trimmed);
    }
    for segment in &going {
        keys::write(logs, name, segment.base, &kept_of(logs, name, *segment)?)?;
    }
    // Under the lock, since an index that is rebuilt reads these files.
    let mut writer = journal.write()?;
    let mut batch = Batch::default();
    let detail = json!({ "trimmed": name.as_str(), "to": trimmed.begins, "segments": trimmed.segments });
    batch.audit(Draft::new(Action::Checkpoint, Outcome::Done, detail));
    writer.append(&batch)?;
    for segment in &going {
        let path = logs.dir().join(name.sealed(segment.base));
        let removed = logs.disk().remove(&path);
        // A power cut that brought an earlier one back and not a later one would leave a gap.
        let synced = removed.and_then(|()| logs.disk().sync_dir(path.parent().unwrap_or(logs.dir())));
        synced.map_err(|it| Error::io("cannot remove the segment", &path, it))?;
    }
    Ok(trimmed)
}

fn is_old(
    logs: &Logs,
    name: &JournalName,
    segment: Segment,
    older: Option<Duration>,
    now: Timestamp,
) -> Result<bool> {
    let Some(older) = older else { return Ok(true) };
    let path = logs.dir().join(name.sealed(segment.base));
    let looked = fs::metadata(&path).map_err(|it| Error::io("cannot look at the segment", &path, it))?;
    Ok(Timestamp::from_millis(looked.mtime().saturating_mul(1000)).plus(older) <= now)
}

/// What stays of the records of a segment.
fn kept_of(logs: &Logs, name: &JournalName, segment: Segment) -> Result<Vec<(u64, Kept)>> {
    let path = logs.dir().join(name.sealed(segment.base));
    let text = fs::read(&path).map_err(|it| Error::io("cannot read the segment", &path, it))?;
    let mut all = Vec::new();
    let mut offset = segment.base;
    for line in text.split_inclusive(|it| *it == b'\n') {
        let record = line.strip_suffix(b"\n").unwrap_or(line);
        if name.as_str() == emit::SOURCE {
            all.extend(emit::kept(record).map(|it| (offset, it)));
        } else {
            keep_envelope(name, record, &mut |it| all.push((offset, it)));
        }
        offset += line.len() as u64;
    }
    Ok(all)
}

/// What stays of an envelope, under each key by which it is looked up.
fn keep_envelope(name: &JournalName, line: &[u8], keep: &mut dyn FnMut(Kept)) {
    let Some(described) = queue::describe(line) else { return };
    let rest = digest(described.key.as_bytes());
    let mut under = |key: &str| keep(Kept { key: digest(key.as_bytes()), content: digest(line), rest });
    if name.stem().is_some() {
        queue::keys_of(line, &mut under);
    } else {
        under(&described.key);
    }
}
