//! Trimming: what goes, what stays, and that nobody notices but for the space.
#![expect(clippy::unwrap_used, reason = "a test that cannot set itself up has failed")]
#![expect(clippy::disallowed_methods, reason = "a test damages files itself")]

use std::{fs, path::Path, time::Duration};

use milepost::{
    Kind, Timestamp, conservation,
    emit::{self, Emitted, Emitter, Offer},
    enqueue::{self, Enqueuer},
    event::{Defaults, MilestoneEvent},
    journal::{Extent, Journal, JournalName, Resync},
    logs::Logs,
    queue,
    trim::{self, Trimmed, Wanted},
};
use milepost_testing::disk::DyingDisk;
use serde_json::{Value, json};
use tempfile::TempDir;

const COUNT: u32 = 24;
/// Three milestones fill a segment.
const ROTATE: u64 = 600;

fn open(dir: &Path) -> Logs {
    Logs::open(Some(dir), "test").unwrap().rotate_at(ROTATE)
}

fn queue_of(logs: &Logs) -> Journal {
    queue::open(logs, JournalName::internal("milestone-delivery-queue"))
}

fn document(number: u32) -> Value {
    json!({
        "milestoneId": format!("m{number}"),
        "timestampUtc": "2026-03-01T09:05:00.000Z",
        "scope": "runtime",
        "claim": format!("Step {number} is done."),
        "evidence": [{ "type": "issue", "path": "tracker/17", "summary": "closed", "ref": "17" }],
        "riskStatus": "on-track",
        "nextAction": "Go on.",
        "source": "agent",
    })
}

fn offer(document: Value) -> Offer {
    let (event, left_out) = MilestoneEvent::from_value(document, &Defaults::JSON).unwrap();
    Offer::Event { place: "test".into(), event, left_out }
}

fn emit(logs: &Logs, document: Value) -> Emitted {
    let mut emitter = Emitter::new(logs);
    let became = emitter.commit(&[offer(document)]).unwrap()[0];
    emitter.finish().unwrap();
    became
}

/// Takes the milestones of this folder into its queue; how many were new.
fn enqueue(logs: &Logs) -> u64 {
    let mut enqueuer = Enqueuer::new(emit::milestones(logs), queue_of(logs));
    enqueuer.pass(&mut |it| panic!("{it}"), &|| false).unwrap().queued
}

/// A folder with milestones in many segments, all of them queued.
fn folder() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    let logs = open(dir.path());
    for number in 0..COUNT {
        assert!(matches!(emit(&logs, document(number)), Emitted::Appended(_)));
        if number % 4 == 3 {
            assert_eq!(enqueue(&logs), 4);
        }
    }
    dir
}

fn copy(from: &Path, to: &Path) {
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let there = to.join(entry.file_name());
        if entry.path().is_dir() {
            fs::create_dir(&there).unwrap();
            copy(&entry.path(), &there);
        } else {
            fs::copy(entry.path(), there).unwrap();
        }
    }
}

fn trim_source(logs: &Logs) -> milepost::Result<Trimmed> {
    trim::source(&emit::milestones(logs), Wanted::default(), Timestamp::default())
}

fn holds(logs: &Logs) {
    let report = conservation::check(logs).unwrap();
    assert_eq!(report.findings, []);
}

/// Whatever was emitted is known, with index and without.
fn all_are_known(logs: &Logs) {
    for is_rebuilt in [false, true] {
        if is_rebuilt {
            fs::remove_dir_all(logs.dir().join(".index")).unwrap();
        }
        for number in 0..COUNT {
            let emitted = emit(logs, document(number));
            assert!(matches!(emitted, Emitted::Duplicate(_)), "{number}, rebuilt {is_rebuilt}: {emitted:?}");
        }
    }
}

fn sealed(logs: &Logs, name: &str) -> usize {
    Extent::of(logs, &JournalName::internal(name)).unwrap().sealed.len()
}

#[test]
fn what_every_queue_has_passed_goes_and_its_duplicates_are_known() {
    let dir = folder();
    let logs = open(dir.path());
    let before = sealed(&logs, "milestones");
    let trimmed = trim_source(&logs).unwrap();
    assert_eq!(sealed(&logs, "milestones"), 1, "the newest stays");
    assert_eq!(trimmed.segments, before as u64 - 1);
    assert_eq!(trimmed.by.as_deref(), Some("milestone-delivery-queue.jsonl"));
    holds(&logs);
    all_are_known(&logs);
    assert_eq!(trim_source(&logs).unwrap().segments, 0);
    assert!(matches!(emit(&logs, document(COUNT)), Emitted::Appended(_)));
    assert_eq!(enqueue(&logs), 1);
    holds(&logs);
}

#[test]
fn what_somebody_else_took_away_is_missing_also_with_keys_in_its_place() {
    let dir = folder();
    let logs = open(dir.path());
    let name = JournalName::internal("milestones");
    let first = Extent::of(&logs, &name).unwrap().sealed[0];
    fs::remove_file(dir.path().join(name.sealed(first.base))).unwrap();
    fs::write(dir.path().join(name.keys(first.base)), "").unwrap();
    let report = conservation::check(&logs).unwrap();
    assert!(
        report.findings.iter().any(|it| it.message.contains("the audit tells of trims up to 0")),
        "{report:?}"
    );
}

#[test]
fn a_trimmed_milestone_is_compared_by_its_hashes() {
    let dir = folder();
    let logs = open(dir.path());
    trim_source(&logs).unwrap();
    let changed = |field: &str, value: &str| {
        let mut document = document(0);
        document[field] = value.into();
        document
    };
    assert_eq!(emit(&logs, changed("claim", "Another one.")), Emitted::Conflict(0));
    assert_eq!(emit(&logs, changed("source", "operator")), Emitted::Conflict(0));
    assert_eq!(emit(&logs, changed("timestampUtc", "2026-03-02T09:05:00.000Z")), Emitted::Conflict(0));
    // As soon as a caller leaves out one of what may be left out, none of it is compared: of each there is no hash.
    let mut partial = document(0);
    let fields = partial.as_object_mut().unwrap();
    fields.remove("source");
    fields.remove("timestampUtc");
    let defaults = Defaults { timestamp: Some(Timestamp::default()), ..Defaults::JSON };
    let (event, left_out) = MilestoneEvent::from_value(partial, &defaults).unwrap();
    let offer = Offer::Event { place: "test".into(), event, left_out };
    assert_eq!(Emitter::new(&logs).commit(&[offer]).unwrap(), [Emitted::Duplicate(0)]);
}

#[test]
fn who_has_not_passed_holds_everything() {
    let dir = folder();
    let logs = open(dir.path());
    // The queue was brought to nobody, then to somebody of whom only the lock is left, then to a state that is damaged.
    let trim_queue = || trim::queue(&queue_of(&logs), Wanted::default(), Timestamp::default()).unwrap();
    assert_eq!((trim_queue().segments, trim_queue().by), (0, None));
    fs::write(logs.dir().join(".lock/milestone-delivery-queue@deliver.backup.lock"), "").unwrap();
    assert_eq!(trim_queue().by.as_deref(), Some("milestone-delivery-state.backup.json"));
    fs::write(logs.dir().join("milestone-delivery-state.backup.json"), "{").unwrap();
    assert_eq!((trim_queue().segments, trim_queue().passed), (0, 0));
    // Another queue is filled from the same source, and has not come far.
    let slow = queue::open(&logs, JournalName::internal("slow-queue"));
    enqueue::resync(&emit::milestones(&logs), &slow, emit::milestones(&logs).position_chosen(0).unwrap())
        .unwrap();
    let trimmed = trim_source(&logs).unwrap();
    assert_eq!((trimmed.segments, trimmed.by.as_deref()), (0, Some("slow-queue.jsonl")));
    // A journal that anybody may read.
    let other = Journal::new(&logs, JournalName::internal("others"), queue::describe);
    assert_eq!(
        trim::source(&other, Wanted::default(), Timestamp::default()).unwrap_err().kind(),
        Kind::Usage
    );
}

#[test]
fn only_what_is_old_goes_and_a_dry_run_removes_nothing() {
    let dir = folder();
    let logs = open(dir.path());
    let (now, day) = (milepost::clock::now(), Duration::from_secs(86_400));
    let older = Wanted { older: Some(day), dry_run: false };
    assert_eq!(trim::source(&emit::milestones(&logs), older, now).unwrap().segments, 0);
    let before = sealed(&logs, "milestones");
    let dry = Wanted { dry_run: true, ..older };
    let later = now.plus(2 * day);
    assert_eq!(trim::source(&emit::milestones(&logs), dry, later).unwrap().segments, before as u64 - 1);
    assert_eq!(sealed(&logs, "milestones"), before);
    assert_eq!(trim::source(&emit::milestones(&logs), older, later).unwrap().segments, before as u64 - 1);
}

#[test]
fn a_queue_that_begins_again_takes_what_is_left_and_queues_nothing_twice() {
    let dir = folder();
    let logs = open(dir.path());
    trim_source(&logs).unwrap();
    let source = emit::milestones(&logs);
    enqueue::resync(&source, &queue_of(&logs), source.resync_position(Resync::Start).unwrap()).unwrap();
    assert_eq!(enqueue(&logs), 0);
    holds(&logs);
}

#[test]
fn wherever_it_is_killed_nothing_is_forgotten_and_the_next_one_goes_on() {
    let template = folder();
    let mut is_done = false;
    for fail_at in 0..200 {
        let dir = tempfile::tempdir().unwrap();
        copy(template.path(), dir.path());
        let disk = DyingDisk::after(fail_at);
        let ended = trim_source(&open(dir.path()).on_disk(disk));
        let logs = open(dir.path());
        holds(&logs);
        if fail_at % 5 == 0 || ended.is_ok() {
            all_are_known(&logs);
        }
        trim_source(&logs).unwrap();
        assert_eq!(sealed(&logs, "milestones"), 1, "{fail_at}");
        holds(&logs);
        is_done = ended.is_ok();
        if is_done {
            break;
        }
    }
    assert!(is_done, "it never gets to its end");
}
