//! Append, crash, settle, rotate, read: the journal rules J1 to J6 on real files.
#![expect(clippy::unwrap_used, reason = "a test that cannot set itself up has failed")]
#![expect(clippy::disallowed_methods, reason = "a test damages files itself")]

use std::{fs, os::unix::fs::MetadataExt, path::Path};

use milepost::{
    Kind,
    audit::{Action, Draft, Outcome},
    journal::{Batch, Described, Item, Journal, JournalName, Position},
    logs::Logs,
};
use milepost_testing::disk::DyingDisk;
use serde_json::{Value, json};

fn describe(line: &[u8]) -> Option<Described> {
    let record: Value = serde_json::from_slice(line).ok()?;
    Some(Described { key: record.get("id")?.to_string(), scope: None })
}

fn journal(logs: &Logs) -> Journal {
    Journal::new(logs, JournalName::from_file("things.jsonl").unwrap(), describe)
}

fn open(dir: &Path) -> Logs {
    Logs::open(Some(dir), "test").unwrap()
}

fn append(journal: &Journal, ids: impl IntoIterator<Item = u64>) -> milepost::Result<()> {
    let mut writer = journal.write()?;
    let mut batch = Batch::default();
    for id in ids {
        let offset = writer.end() + batch.bytes();
        batch.push(format!("{{\"id\":{id}}}\n").as_bytes());
        let detail = json!({ "journal": "things", "offset": offset });
        batch.audit(Draft::of(Action::Emit, Outcome::Appended, id.to_string(), "s", detail));
    }
    writer.append(&batch)
}

fn ids(journal: &Journal) -> Vec<u64> {
    let mut reader = journal.read_from(&Position::default()).unwrap();
    let mut ids = Vec::new();
    while let Some(item) = reader.next_item().unwrap() {
        let Item::Line { text, .. } = item else { panic!("{item:?}") };
        ids.push(serde_json::from_slice::<Value>(text).unwrap()["id"].as_u64().unwrap());
    }
    ids
}

fn outcomes(logs: &Logs) -> Vec<String> {
    let text = fs::read_to_string(logs.dir().join("audit.jsonl")).unwrap_or_default();
    text.lines()
        .map(|it| serde_json::from_str::<Value>(it).unwrap()["outcome"].as_str().unwrap().to_owned())
        .collect()
}

#[test]
fn what_is_appended_is_read_and_audited() {
    let dir = tempfile::tempdir().unwrap();
    let logs = open(dir.path());
    let journal = journal(&logs);
    assert!(ids(&journal).is_empty());
    append(&journal, 1..=3).unwrap();
    append(&journal, 4..=4).unwrap();
    assert_eq!(ids(&journal), [1, 2, 3, 4]);
    assert_eq!(outcomes(&logs), ["appended"; 4]);
}

#[test]
fn a_torn_tail_is_settled_wherever_it_was_cut() {
    let torn = b"{\"id\":7}\n{\"id\":8}\n";
    for cut in 0..=torn.len() {
        let dir = tempfile::tempdir().unwrap();
        let logs = open(dir.path());
        let journal = journal(&logs);
        append(&journal, 1..=2).unwrap();
        let path = dir.path().join("things.jsonl");
        let mut bytes = fs::read(&path).unwrap();
        bytes.extend_from_slice(&torn[..cut]);
        fs::write(&path, &bytes).unwrap();
        assert_eq!(ids(&journal), [1, 2], "a reader sees only what lies below the mark");
        append(&journal, 9..=9).unwrap();
        let (whole, rest) = (cut / 9, cut % 9);
        let mut expected = vec![1, 2];
        expected.extend([7, 8].iter().take(whole));
        expected.push(9);
        assert_eq!(ids(&journal), expected, "cut at {cut}");
        assert!(
            fs::read_to_string(&path).unwrap().lines().all(|it| it.starts_with('{') && it.ends_with('}'))
        );
        let kept: Vec<_> = fs::read_dir(dir.path().join("quarantine")).map_or(vec![], Iterator::collect);
        assert_eq!(kept.len(), usize::from(rest > 0), "cut at {cut}");
        let mut audited = vec!["appended"; 2];
        audited.extend(vec!["recovered"; whole]);
        audited.extend(vec!["quarantined"; usize::from(rest > 0)]);
        audited.push("appended");
        assert_eq!(outcomes(&logs), audited, "cut at {cut}");
    }
}

#[test]
fn a_lost_mark_loses_no_record_and_audits_none_twice() {
    let dir = tempfile::tempdir().unwrap();
    let logs = open(dir.path());
    let journal = journal(&logs);
    append(&journal, 1..=5).unwrap();
    fs::remove_dir_all(dir.path().join(".lock")).unwrap();
    append(&journal, 6..=6).unwrap();
    assert_eq!(ids(&journal), [1, 2, 3, 4, 5, 6]);
    assert_eq!(outcomes(&logs), ["appended"; 6]);
}

#[test]
fn zeros_before_a_valid_end_are_damage() {
    let dir = tempfile::tempdir().unwrap();
    let logs = open(dir.path());
    let journal = journal(&logs);
    append(&journal, 1..=1).unwrap();
    let path = dir.path().join("things.jsonl");
    let mut bytes = fs::read(&path).unwrap();
    bytes.extend_from_slice(&[0; 40]);
    bytes.extend_from_slice(b"\n{\"id\":2}\n");
    fs::write(&path, bytes).unwrap();
    journal.settle_if_needed().unwrap();
    assert_eq!(ids(&journal), [1]);
    assert_eq!(outcomes(&logs), ["appended", "quarantined"]);
}

#[test]
fn rotation_is_invisible_to_readers_and_writers() {
    let dir = tempfile::tempdir().unwrap();
    let logs = open(dir.path()).rotate_at(40);
    let journal = journal(&logs);
    let mut slow = journal.read_from(&Position::default()).unwrap();
    for id in 1..=30 {
        append(&journal, id..=id).unwrap();
        slow.refresh().unwrap();
        let Some(Item::Line { text, .. }) = slow.next_item().unwrap() else {
            panic!("record {id} is missing")
        };
        assert_eq!(text, format!("{{\"id\":{id}}}").as_bytes());
    }
    assert_eq!(ids(&journal), (1..=30).collect::<Vec<_>>());
    let sealed = fs::read_dir(dir.path())
        .unwrap()
        .filter(|it| it.as_ref().unwrap().file_name().to_str().unwrap().starts_with("things.0"));
    assert!(sealed.count() > 5);
    assert_eq!(outcomes(&logs).len(), 1, "the audit rotates as well");
}

#[test]
fn a_crash_between_the_steps_of_a_rotation_is_settled() {
    for step in ["renamed", "created"] {
        let dir = tempfile::tempdir().unwrap();
        let logs = open(dir.path());
        let journal = journal(&logs);
        append(&journal, 1..=3).unwrap();
        let path = dir.path().join("things.jsonl");
        fs::rename(&path, dir.path().join("things.00000000000000000000.jsonl")).unwrap();
        if step == "created" {
            fs::write(&path, "").unwrap();
        }
        assert_eq!(ids(&journal), [1, 2, 3], "{step}");
        append(&journal, 4..=4).unwrap();
        assert_eq!(ids(&journal), [1, 2, 3, 4], "{step}");
        assert_eq!(outcomes(&logs), ["appended"; 4]);
    }
}

#[test]
fn an_older_mark_that_a_power_cut_in_a_rotation_brings_back_hides_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let logs = open(dir.path());
    let journal = journal(&logs);
    let mark = dir.path().join(".lock/things.lock");
    append(&journal, 1..=1).unwrap();
    let older = fs::read(&mark).unwrap();
    append(&journal, 2..=3).unwrap();
    let path = dir.path().join("things.jsonl");
    fs::rename(&path, dir.path().join("things.00000000000000000000.jsonl")).unwrap();
    fs::write(&path, "").unwrap();
    fs::write(&mark, older).unwrap();
    assert_eq!(ids(&journal), [1, 2, 3]);
    assert_eq!(journal.last_line().unwrap().unwrap().1, b"{\"id\":3}");
    append(&journal, 4..=4).unwrap();
    assert_eq!(ids(&journal), [1, 2, 3, 4]);
}

#[test]
fn a_truncated_or_rewritten_journal_stops_writers_and_readers() {
    let dir = tempfile::tempdir().unwrap();
    let logs = open(dir.path());
    let journal = journal(&logs);
    append(&journal, 1..=3).unwrap();
    let position = journal.last_line().unwrap().unwrap().0;
    let path = dir.path().join("things.jsonl");
    fs::write(&path, "{\"id\":1}\n").unwrap();
    let error = append(&journal, 4..=4).unwrap_err();
    assert_eq!(error.kind(), Kind::BadData);
    assert!(error.to_string().contains("copytruncate"), "{error}");
    fs::write(&path, "{\"id\":1}\n{\"id\":2}\n{\"id\":9}\n").unwrap();
    let error = journal.read_from(&position).unwrap_err();
    assert!(error.to_string().contains("--resync"), "{error}");
    fs::write(&path, "{\"id\":1}\n").unwrap();
    journal.accept_as_it_is().unwrap();
    append(&journal, 4..=4).unwrap();
    assert_eq!(ids(&journal), [1, 4]);
}

#[test]
fn a_sealed_segment_that_became_shorter_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let logs = open(dir.path()).rotate_at(20);
    let journal = journal(&logs);
    for id in 1..=6 {
        append(&journal, [id]).unwrap();
    }
    // Each line has 9 bytes, so each segment has two of them.
    let file = |base: u64| format!("things.{base:020}.jsonl");
    let second = dir.path().join(file(18));
    let whole = fs::read(&second).unwrap();
    let is_named = |journal: &Journal, position: &Position, base: u64, end: u64| {
        let mut reader = journal.read_from(position).unwrap();
        let text = loop {
            match reader.next_item() {
                Ok(it) => assert!(it.is_some(), "the end was reached"),
                Err(error) => break error.to_string(),
            }
        };
        let what = format!("it ends at offset {end}, but the next file begins at offset 36");
        assert!(text.contains(&file(base)) && text.contains(&what), "{text}");
        assert!(text.contains("go on with --resync end,"), "{text}");
    };
    for length in [0, 1, 9, 17] {
        fs::write(&second, &whole[..length]).unwrap();
        is_named(&journal, &Position::default(), 18, 18 + length as u64);
    }
    fs::remove_file(&second).unwrap();
    is_named(&journal, &Position::default(), 0, 18);

    // Cut between the reader's look at the line before and what it reads next.
    fs::write(&second, &whole).unwrap();
    let mut reader = journal.read_from(&Position::after(27, b"{\"id\":3}")).unwrap();
    fs::write(&second, &whole[..9]).unwrap();
    let text = reader.next_item().unwrap_err().to_string();
    assert!(text.contains(&file(18)) && text.contains("it ends at offset 27, but"), "{text}");
}

#[test]
fn whatever_operation_fails_acknowledged_records_stay_and_the_next_run_goes_on() {
    for only_once in [true, false] {
        let mut fail_at = 0;
        loop {
            let dir = tempfile::tempdir().unwrap();
            let logs = open(dir.path()).rotate_at(30);
            append(&journal(&logs), 1..=2).unwrap();
            let disk =
                if only_once { DyingDisk::failing_once_after(fail_at) } else { DyingDisk::after(fail_at) };
            let failing = journal(&logs.clone().on_disk(disk.clone()));
            let acknowledged: Vec<u64> = (3..=6)
                .filter(|id| append(&failing, [*id, *id + 100]).is_ok())
                .flat_map(|id| [id, id + 100])
                .collect();
            append(&journal(&logs), 7..=7).unwrap();
            let found = ids(&journal(&logs));
            for id in [1, 2].iter().chain(&acknowledged).chain(&[7]) {
                assert_eq!(
                    found.iter().filter(|it| *it == id).count(),
                    1,
                    "id {id}, failed at {fail_at}: {found:?}"
                );
            }
            if !disk.has_failed() {
                break;
            }
            fail_at += 1;
        }
        assert!(fail_at > 20, "only {fail_at} operations were made to fail");
    }
}

#[test]
fn a_name_that_no_sync_can_have_proved_is_made_anew() {
    let dir = tempfile::tempdir().unwrap();
    let (logs, path) = (open(dir.path()), dir.path().join("things.jsonl"));
    // What a process leaves that dies before its file's name is on disk, or when the sync of that fails.
    let left = fs::File::create(&path).unwrap();
    append(&journal(&logs), 1..=1).unwrap();
    assert_eq!(left.metadata().unwrap().nlink(), 0, "no later sync proves what a failed one covered");
    let proved = fs::File::open(&path).unwrap();
    append(&journal(&logs), 2..=2).unwrap();
    assert_eq!((proved.metadata().unwrap().nlink(), ids(&journal(&logs)).len()), (1, 2));

    // What somebody has put there on purpose stays.
    let elsewhere = dir.path().join("elsewhere");
    fs::File::create(&elsewhere).unwrap();
    std::os::unix::fs::symlink(&elsewhere, dir.path().join("others.jsonl")).unwrap();
    let linked = Journal::new(&logs, JournalName::from_file("others.jsonl").unwrap(), describe);
    append(&linked, 1..=1).unwrap();
    assert_eq!(fs::read_to_string(&elsewhere).unwrap(), "{\"id\":1}\n");
}

#[test]
fn whatever_fails_beside_the_making_of_many_audit_records_they_tell_of_what_is_there() {
    let mut fail_at = 0;
    loop {
        let dir = tempfile::tempdir().unwrap();
        let logs = open(dir.path());
        append(&journal(&logs), 1..=1).unwrap();
        let disk = DyingDisk::failing_once_after(fail_at);
        let done = append(&journal(&logs.clone().on_disk(disk.clone())), 2..=400);
        append(&journal(&logs), 999..=999).unwrap();
        let found = ids(&journal(&logs));
        let audit = fs::read_to_string(dir.path().join("audit.jsonl")).unwrap();
        let records = audit.lines().map(|it| serde_json::from_str::<Value>(it).unwrap());
        let told: Vec<u64> = records
            .filter(|it| it["outcome"] != "quarantined")
            .map(|it| it["idempotency_key"].as_str().unwrap().parse().unwrap())
            .collect();
        assert_eq!(told, found, "failed at {fail_at}");
        assert!(done.is_err() || found.len() == 401, "failed at {fail_at}: {}", found.len());
        if !disk.has_failed() {
            break;
        }
        fail_at += 1;
    }
    assert!(fail_at > 5, "only {fail_at} operations were made to fail");
}

#[test]
fn all_or_nothing_leaves_nothing_when_it_is_cut_short() {
    let mut fail_at = 0;
    loop {
        let dir = tempfile::tempdir().unwrap();
        let logs = open(dir.path());
        append(&journal(&logs), 1..=1).unwrap();
        let disk = DyingDisk::after(fail_at);
        let failing = journal(&logs.clone().on_disk(disk.clone()));
        let mut batch = Batch::default();
        (2..=4).for_each(|id| batch.push(format!("{{\"id\":{id}}}\n").as_bytes()));
        let done = failing.write().and_then(|mut it| it.append_all_or_nothing(&batch));
        append(&journal(&logs), 9..=9).unwrap();
        let found = ids(&journal(&logs));
        let all = [1, 2, 3, 4, 9];
        assert!(found == all || done.is_err() && found == [1, 9], "failed at {fail_at}: {found:?}");
        if !disk.has_failed() {
            break;
        }
        fail_at += 1;
    }
    assert!(fail_at > 5);
}

#[test]
fn many_threads_append_without_losing_or_mixing() {
    let dir = tempfile::tempdir().unwrap();
    let logs = open(dir.path()).rotate_at(500);
    std::thread::scope(|scope| {
        for thread in 0..8 {
            let logs = &logs;
            scope.spawn(move || (0..20).for_each(|it| append(&journal(logs), [thread * 100 + it]).unwrap()));
        }
    });
    let mut found = ids(&journal(&logs));
    found.sort_unstable();
    assert_eq!(found, (0..8).flat_map(|it| it * 100..it * 100 + 20).collect::<Vec<_>>());
}
