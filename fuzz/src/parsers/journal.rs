//! Settling: whatever bytes stand behind the mark, and in it, what is left is whole, audited once, and settled.

use std::path::{Path, PathBuf};

use milepost::{
    audit,
    chain::Chain,
    emit,
    event::MilestoneEvent,
    identity,
    journal::{Journal, JournalName},
    logs::Logs,
};
use serde_json::{Value, json};

use milepost_fuzz::scratch::{self, Audit, Files};

/// A folder with `count` milestones in it, and where the last of them ends.
fn folder_with(count: u64) -> (Files, Audit, usize) {
    let (mut milestones, mut audit) = (Vec::new(), Audit::new());
    for number in 0..count {
        let detail = json!({ "journal": "milestones", "offset": milestones.len() });
        audit.push("emit", "appended", Some(&format!("milestone:m{number}")), &detail);
        milestones.extend(scratch::milestone(number).bytes());
    }
    let length = milestones.len();
    let mark = scratch::mark(&json!({
        "version": 1, "base": 0, "length": length, "auditOffset": audit.lines.len(), "undo": false, "seq": 0, "head": "",
    }));
    let files = vec![
        (".lock/audit.lock".to_owned(), audit.mark()),
        (".lock/milestones.lock".to_owned(), mark),
        ("audit.jsonl".to_owned(), audit.lines.clone()),
        ("milestones.jsonl".to_owned(), milestones),
    ];
    (files, audit, length)
}

fn file<'f>(files: &'f Files, name: &str) -> Option<&'f [u8]> {
    files.iter().find(|(it, _)| it == name).map(|(_, bytes)| bytes.as_slice())
}

fn place() -> PathBuf {
    scratch::folder("journal")
}

// What a writer left

pub fn settle_seeds() -> Vec<Vec<u8>> {
    let next = scratch::milestone(7);
    let mut all = Vec::new();
    for first in [0, 1, 2, 5, 6] {
        all.push([&[first], next.as_bytes(), &next.as_bytes()[..60]].concat());
        all.push([&[first][..], b"\0\0\0\0", next.as_bytes()].concat());
        all.push([&[first][..], b"{\"a\":1}\n", next.as_bytes()].concat());
        all.push([&[first], next.as_bytes(), scratch::milestone(8).as_bytes()].concat());
        all.push(vec![first]);
    }
    all
}

/// The first byte says how many milestones there are, and whether their mark was lost; the rest is what a dead
/// writer left behind them.
pub fn settle(input: &[u8]) {
    let Some((first, tail)) = input.split_first() else { return };
    let (mut files, _, honest) = folder_with(u64::from(first & 3));
    let before = [file(&files, "milestones.jsonl").unwrap(), tail].concat();
    files.retain(|(name, _)| name != ".lock/milestones.lock" || first & 4 == 0);
    files.last_mut().unwrap().1.clone_from(&before);
    let place = place();
    let logs = scratch::fill(&place, &files);
    let journal = emit::milestones(&logs);
    drop(journal.write().expect("what a dead writer left stops nobody"));

    let after = scratch::read_all(&place);
    let kept = file(&after, "milestones.jsonl").expect("the journal is there");
    assert!(before.starts_with(kept), "only the end is cut");
    assert!(kept.len() >= honest, "nothing that was acknowledged is cut");
    let lost = &before[kept.len()..];
    let mut offset = 0;
    let mut told = told_of(&after, "milestones");
    for line in kept.split_inclusive(|it| *it == b'\n') {
        assert!(line.ends_with(b"\n"), "every line is whole");
        assert!(serde_json::from_slice::<Value>(line).is_ok_and(|it| it.is_object()), "and a JSON object");
        let event = MilestoneEvent::from_line(line).expect("and a milestone");
        let key = identity::milestone_key(&event.milestone_id);
        let outcome = if offset < honest { "appended" } else { "recovered" };
        assert_eq!(told.remove(&offset), Some(vec![(outcome.to_owned(), key)]), "and audited once");
        offset += line.len();
    }
    let quarantine: Vec<_> = after.iter().filter(|(name, _)| name.starts_with("quarantine/")).collect();
    if lost.is_empty() {
        assert!(quarantine.is_empty());
    } else {
        let name = format!("quarantine/milestones.{:020}.{}", kept.len(), &scratch::hex(lost)[..16]);
        assert!(
            matches!(&quarantine[..], [(it, bytes)] if *it == name && bytes == lost),
            "{name} has the rest"
        );
        assert_eq!(told.remove(&kept.len()), Some(vec![("quarantined".to_owned(), String::new())]));
        // No more than the first damage and what is behind it.
        let line = lost.split_inclusive(|it| *it == b'\n').next().unwrap();
        assert!(
            !line.ends_with(b"\n") || MilestoneEvent::from_line(line).is_err(),
            "a good line was cut off"
        );
    }
    assert!(told.is_empty(), "the audit tells of nothing else: {told:?}");
    is_settled(&logs, &journal, &place, kept);
}

/// Doing it again does nothing, and readers show all of it.
fn is_settled(logs: &Logs, journal: &Journal, place: &Path, kept: &[u8]) {
    let after = scratch::read_all(place);
    drop(journal.write().expect("a settled journal is open to all"));
    journal.settle_if_needed().expect("nothing is to be done");
    assert_eq!(scratch::read_all(place), after, "settling twice is settling once");
    let shown = scratch::lines(logs, journal.name()).expect("readers read it").join(&b'\n');
    assert_eq!(shown, kept.strip_suffix(b"\n").unwrap_or_default(), "readers show what is there");
}

/// What the audit tells of a journal, by offset: outcome and key. Its chain must hold.
fn told_of(files: &Files, name: &str) -> std::collections::BTreeMap<usize, Vec<(String, String)>> {
    let mut told = std::collections::BTreeMap::new();
    let mut chain = Chain::default();
    for line in file(files, "audit.jsonl").unwrap().split_inclusive(|it| *it == b'\n') {
        chain.step(line).expect("the chain holds");
        let record: Value = serde_json::from_slice(line).unwrap();
        if record["detail"]["journal"] == name {
            let offset = usize::try_from(record["detail"]["offset"].as_u64().unwrap()).unwrap();
            let word = |name: &str| record[name].as_str().unwrap_or_default().to_owned();
            let entry: &mut Vec<_> = told.entry(offset).or_default();
            entry.push((word("outcome"), word("idempotency_key")));
        }
    }
    told
}

// The audit itself

pub fn audit_seeds() -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    for count in [0, 1, 2] {
        let (_, mut audit, _) = folder_with(u64::from(count));
        let start = audit.lines.len();
        audit.push("breaker", "opened", None, &json!({ "queue": "q" }));
        let one = audit.lines.len();
        audit.push("queue", "skipped", Some("milestone:x"), &json!({}));
        let next = audit.lines.split_off(start);
        for lost in [0, 4] {
            let first = [count | lost];
            all.push([&first[..], &next[..]].concat());
            all.push([&first[..], &next[..next.len() - 9]].concat());
            all.push([&first[..], &next[one - start..]].concat());
            all.push([&first[..], b"\0\0", &next[..]].concat());
        }
    }
    all
}

/// As `settle`, of the audit journal: what stays is a chain.
pub fn audit(input: &[u8]) {
    let Some((first, tail)) = input.split_first() else { return };
    let (mut files, mut chain, _) = folder_with(u64::from(first & 3));
    let honest = chain.lines.len();
    chain.lines.extend(tail);
    let before = chain.lines;
    files.retain(|(name, _)| name != ".lock/audit.lock" || first & 4 == 0);
    files.iter_mut().find(|(name, _)| name == "audit.jsonl").unwrap().1.clone_from(&before);
    let place = place();
    let logs = scratch::fill(&place, &files);
    audit::settle(&logs).expect("what a dead writer left stops nobody");

    let after = scratch::read_all(&place);
    let mut told = told_of(&after, "audit");
    let audit = file(&after, "audit.jsonl").unwrap();
    let quarantine: Vec<_> = after.iter().filter(|(name, _)| name.starts_with("quarantine/")).collect();
    match quarantine[..] {
        [] => assert_eq!(audit, before, "what is a chain stays"),
        [(name, lost)] => {
            let kept = before.len() - lost.len();
            assert!(kept >= honest && before[..kept] == audit[..kept] && before[kept..] == lost[..]);
            assert_eq!(*name, format!("quarantine/audit.{kept:020}.{}", &scratch::hex(lost)[..16]));
            assert_eq!(told.remove(&kept).map(|it| it[0].0.clone()).as_deref(), Some("quarantined"));
            assert_eq!(audit[kept..].iter().filter(|it| **it == b'\n').count(), 1, "one record says so");
        }
        _ => panic!("one piece was left, not {}", quarantine.len()),
    }
    audit::settle(&logs).expect("a settled audit is open to all");
    assert_eq!(scratch::read_all(&place), after, "settling twice is settling once");
    let shown = scratch::lines(&logs, &JournalName::audit()).expect("readers read it");
    assert_eq!(shown.concat().len() + shown.len(), audit.len(), "readers show what is there");
}

// The mark

pub fn mark_seeds() -> Vec<Vec<u8>> {
    let (files, ..) = folder_with(2);
    let whole = file(&files, ".lock/milestones.lock").unwrap();
    let text = String::from_utf8_lossy(whole).into_owned();
    let body = text.split(",\"check\"").next().unwrap();
    let mut all = vec![[b"r", whole].concat(), [b"r", &whole[..200]].concat(), b"r".to_vec()];
    for change in [
        ("\"undo\":false", "\"undo\":true"),
        ("\"base\":0", "\"base\":18446744073709551615"),
        ("\"base\":0", "\"base\":9223372036854775807"),
        ("\"length\":", "\"length\":1"),
        ("\"length\":", "\"length\":18446744073709551615,\"x\":"),
        ("\"auditOffset\":", "\"auditOffset\":9"),
        ("\"version\":1", "\"version\":2"),
        ("\"seq\":0", "\"seq\":18446744073709551615"),
    ] {
        all.push(format!("c{}", body.replace(change.0, change.1)).into_bytes());
        all.push(format!("a{}", body.replace(change.0, change.1)).into_bytes());
    }
    all
}

/// A lock file of any bytes. `r`: as they are; `c`: with the check that belongs to them, so that they are believed;
/// `a`: the same, for the audit.
pub fn mark(input: &[u8]) {
    let Some((kind, body)) = input.split_first() else { return };
    let (mut files, ..) = folder_with(2);
    let content = file(&files, "milestones.jsonl").unwrap().to_vec();
    let is_audit = *kind == b'a';
    let lock = if is_audit { ".lock/audit.lock" } else { ".lock/milestones.lock" };
    let raw = if matches!(kind, b'c' | b'a') { scratch::sealed_mark(body) } else { body.to_vec() };
    // By chance no check is right, so a mark that is believed is one that was made here.
    let is_made =
        matches!(kind, b'c' | b'a') || files.iter().any(|(name, bytes)| name == lock && *bytes == raw);
    files.iter_mut().find(|(name, _)| name == lock).unwrap().1 = raw;
    let place = place();
    let logs = scratch::fill(&place, &files);
    let journal = emit::milestones(&logs);
    // Whatever it says, readers and writers come back, with an answer or with an error that names the place.
    let shown = scratch::lines(&logs, journal.name());
    let opened = journal.write().map(drop);
    let settled = audit::settle(&logs);
    if !is_made {
        assert!(shown.is_ok() && opened.is_ok() && settled.is_ok(), "a mark that cannot be believed is none");
        let after = scratch::read_all(&place);
        assert_eq!(file(&after, "milestones.jsonl"), Some(&content[..]), "and nothing is lost for it");
        is_settled(&logs, &journal, &place, &content);
    }
    if !is_audit && opened.is_ok() {
        assert!(journal.write().is_ok(), "what could be opened can be opened again");
    }
}
