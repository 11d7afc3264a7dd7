//! A damaged byte anywhere: the tools go on with nothing else lost, or name the place and stop.
#![expect(clippy::unwrap_used, reason = "a test that cannot set itself up has failed")]
#![expect(clippy::disallowed_methods, reason = "a test damages files itself")]

use std::{collections::BTreeMap, fs, path::Path};

use milepost::{
    Result,
    emit::{self, Emitter, Offer},
    enqueue::Enqueuer,
    event::{Defaults, MilestoneEvent},
    journal::JournalName,
    logs::Logs,
    queue,
};
use serde_json::json;

const FILES: [&str; 7] = [
    "milestones.jsonl",
    "milestone-delivery-queue.jsonl",
    "audit.jsonl",
    ".lock/milestones.lock",
    ".lock/milestone-delivery-queue.lock",
    ".lock/audit.lock",
    ".index/milestones.index",
];

fn emit(logs: &Logs, ids: &[&str]) -> Result<()> {
    let offers: Vec<Offer> = ids
        .iter()
        .map(|id| {
            let document = json!({
                "milestoneId": id, "timestampUtc": "2026-03-01T09:05:00Z", "scope": "s", "claim": "c",
                "evidence": [{"type": "issue", "path": "p", "summary": "s"}], "riskStatus": "on-track", "nextAction": "n",
            });
            let (event, left_out) = MilestoneEvent::from_value(document, &Defaults::JSON).unwrap();
            Offer::Event { place: (*id).to_owned(), event, left_out }
        })
        .collect();
    Emitter::new(logs).commit(&offers).map(drop)
}

fn enqueue(logs: &Logs) -> Result<()> {
    let queue = queue::open(logs, JournalName::from_queue_file(queue::MILESTONE_QUEUE)?);
    Enqueuer::new(emit::milestones(logs), queue).pass(&mut |_| {}, &|| false).map(drop)
}

/// The lines of a journal, by the id in them, damaged ones left out.
fn lines(dir: &Path, file: &str) -> BTreeMap<String, Vec<u8>> {
    let bytes = fs::read(dir.join(file)).unwrap();
    let mut lines = BTreeMap::new();
    for line in bytes.split(|it| *it == b'\n') {
        if let Ok(record) = serde_json::from_slice::<serde_json::Value>(line) {
            let id =
                record["milestoneId"].as_str().or(record["idempotency_key"].as_str()).unwrap_or_default();
            lines.insert(id.to_owned(), line.to_vec());
        }
    }
    lines
}

#[test]
fn one_damaged_byte_costs_at_most_its_own_record() {
    let dir = tempfile::tempdir().unwrap();
    let logs = Logs::open(Some(dir.path()), "test").unwrap();
    emit(&logs, &["a", "b"]).unwrap();
    enqueue(&logs).unwrap();
    emit(&logs, &["c"]).unwrap();
    let whole: BTreeMap<&str, Vec<u8>> =
        FILES.iter().map(|it| (*it, fs::read(dir.path().join(it)).unwrap())).collect();
    let mut stopped = 0;
    let mut went_on = 0;
    for file in FILES {
        let length = whole[file].len();
        // A prime step, another place for each kind of damage; the index is mostly empty.
        let stride = if file.ends_with("index") { 509 } else { 61 };
        for (number, damage) in [|it: u8| it ^ 0x01, |_| 0u8, |_| b'\n', |_| b'"'].into_iter().enumerate() {
            for at in (number * 5..length).step_by(stride) {
                let mut files = whole.clone();
                let damaged = damage(whole[file][at]);
                files.insert(file, [&whole[file][..at], &[damaged], &whole[file][at + 1..]].concat());
                let place = format!("{file} at {at}: {:?} -> {:?}", whole[file][at] as char, damaged as char);
                if goes_on(&files, file, whole[file][at], &place) { went_on += 1 } else { stopped += 1 }
            }
        }
    }
    assert!(went_on > 80 && stopped > 0, "went on {went_on} times, stopped {stopped} times");
}

/// Emits and enqueues one more on these files; says whether it went on, or stopped and named the damaged file.
fn goes_on(files: &BTreeMap<&str, Vec<u8>>, damaged: &str, original: u8, place: &str) -> bool {
    let dir = tempfile::tempdir().unwrap();
    for (file, bytes) in files {
        let path = dir.path().join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }
    let logs = Logs::open(Some(dir.path()), "test").unwrap();
    if let Err(error) = emit(&logs, &["d"]).and_then(|()| enqueue(&logs)) {
        let name = Path::new(damaged).file_stem().unwrap().to_str().unwrap();
        assert!(error.to_string().contains(name), "{place}: {error} does not name the place");
        return false;
    }
    let stored = lines(dir.path(), "milestones.jsonl");
    let queued = lines(dir.path(), "milestone-delivery-queue.jsonl");
    assert!(stored.contains_key("d") && queued.contains_key("milestone:d"), "{place}: d is lost");
    let is_lost = |id: &&str| !stored.contains_key(*id) || !queued.contains_key(&format!("milestone:{id}"));
    let lost: Vec<_> = ["a", "b", "c"].into_iter().filter(|it| is_lost(it)).collect();
    // A newline that was damaged joins two records.
    let bound = if original == b'\n' { 2 } else { 1 };
    assert!(lost.len() <= bound, "{place}: {lost:?} are lost");
    true
}
