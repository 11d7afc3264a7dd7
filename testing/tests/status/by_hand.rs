//! What anybody with an editor can do to a file.

use std::{fs, path::Path};

use serde_json::Value;

use crate::{
    folder::segments,
    plants::{CONTROL, FEED, LETTERS, MILESTONES, Plant, QUEUE, REJECTED, plant},
};

const JOURNALS: [&str; 10] = [
    MILESTONES,
    QUEUE,
    LETTERS,
    CONTROL,
    FEED,
    REJECTED,
    "receive/events",
    "reminders",
    "reminder-delivery-queue",
    "audit",
];

pub fn lines(path: &Path) -> Vec<Vec<u8>> {
    fs::read(path).unwrap().split_inclusive(|it| *it == b'\n').map(<[u8]>::to_vec).collect()
}

fn write(path: &Path, lines: &[Vec<u8>]) {
    fs::write(path, lines.concat()).unwrap();
}

pub fn edit(path: &Path, change: impl FnOnce(&mut Vec<Vec<u8>>)) {
    let mut all = lines(path);
    change(&mut all);
    write(path, &all);
}

/// The mark of a journal, said anew with the right checksum.
pub fn set_mark(logs: &Path, name: &str, change: impl FnOnce(&mut Value)) {
    let path = logs.join(format!(".lock/{name}.lock"));
    let text = String::from_utf8(fs::read(&path).unwrap()).unwrap();
    let (body, _) = text.rsplit_once(",\"check\":").unwrap();
    let mut mark: Value = serde_json::from_str(&format!("{body}}}")).unwrap();
    change(&mut mark);
    // In the order of the fields.
    let fields = ["version", "base", "length", "auditOffset", "undo", "seq", "head"];
    let body: Vec<_> = fields.iter().map(|it| format!("\"{it}\":{}", mark[it])).collect();
    let body = format!("{{{}", body.join(","));
    let line = format!("{body},\"check\":\"{:08x}\"}}", crc32fast::hash(body.as_bytes()));
    fs::write(path, format!("{line:<319}\n")).unwrap();
}

/// Makes the mark say that the active segment is as long as it is.
fn believe(logs: &Path, name: &str) {
    let length = fs::metadata(logs.join(format!("{name}.jsonl"))).unwrap().len();
    set_mark(logs, name, |mark| {
        mark["length"] = length.into();
        mark["seq"] = 0.into();
        mark["head"] = "".into();
    });
}

/// Another string of the same length in one field of a line.
pub fn change_field(line: &mut Vec<u8>, pointer: &str) {
    let text = String::from_utf8(line.clone()).unwrap();
    let record: Value = serde_json::from_str(&text).unwrap();
    let old = record.pointer(pointer).unwrap_or_else(|| panic!("{pointer} in {text}")).to_string();
    let at = old.rfind(|it: char| it.is_ascii_alphanumeric()).unwrap();
    let other = if old.as_bytes()[at] == b'3' { "4" } else { "3" };
    let mut new = old.clone();
    new.replace_range(at..=at, other);
    let name = pointer.rsplit('/').next().unwrap();
    let (old, new) = (format!("\"{name}\":{old}"), format!("\"{name}\":{new}"));
    assert!(text.contains(&old), "{old} in {text}");
    *line = text.replacen(&old, &new, 1).into_bytes();
}

fn a_field(name: &str) -> &'static str {
    match name {
        MILESTONES => "/claim",
        CONTROL => "/at",
        FEED => "/event/claim",
        REJECTED => "/detail",
        "receive/events" => "/envelope/payload/title",
        "reminders" | "reminder-delivery-queue" => "/payload/title",
        "audit" => "/timestamp",
        LETTERS => "/reason",
        _ => "/payload/claim",
    }
}

/// Something that is done to line `at` of a file of the journal `name`.
type ToLine = fn(logs: &Path, name: &str, file: &Path, at: usize);

const TO_A_LINE: [(&str, ToLine); 6] = [
    ("removed", |_, _, file, at| edit(file, |all| drop(all.remove(at)))),
    ("removed and the mark moved", |logs, name, file, at| {
        edit(file, |all| drop(all.remove(at)));
        believe(logs, name);
    }),
    ("twice", |logs, name, file, at| {
        edit(file, |all| all.insert(at, all[at].clone()));
        believe(logs, name);
    }),
    ("changed", |_, name, file, at| edit(file, |all| change_field(&mut all[at], a_field(name)))),
    ("made zeros", |_, _, file, at| {
        edit(file, |all| {
            let length = all[at].len() - 1;
            all[at][..length].fill(0);
        });
    }),
    ("joined with the next", |_, _, file, at| {
        edit(file, |all| all[at].last_mut().into_iter().for_each(|it| *it = b' '));
    }),
];

/// Something that is done to the active segment of the journal `name`.
type ToFile = fn(logs: &Path, name: &str, file: &Path);

const TO_THE_ACTIVE_SEGMENT: [(&str, &[&str], ToFile); 5] = [
    ("tail cut", &["cut"], |_, _, file| {
        let whole = fs::read(file).unwrap();
        fs::write(file, &whole[..whole.len() - 7]).unwrap();
    }),
    ("all cut and no mark", &[], |logs, name, file| {
        fs::write(file, "").unwrap();
        fs::remove_file(logs.join(format!(".lock/{name}.lock"))).unwrap();
    }),
    ("file removed", &["cut"], |_, _, file| fs::remove_file(file).unwrap()),
    ("all gone, locks too", &["record-missing", "segment-missing", "audit-cut"], |logs, name, _| {
        for file in segments(logs, name) {
            fs::remove_file(file).unwrap();
        }
        fs::remove_file(logs.join(format!(".lock/{name}.lock"))).unwrap();
    }),
    ("a record that nobody audited", &["record-unaudited", "chain-broken"], |logs, name, file| {
        edit(file, |all| {
            let mut new = all.last().unwrap().clone();
            // Of the same kind, and with another name, so that nothing else is wrong with it.
            let text = String::from_utf8(new.clone()).unwrap();
            if let Some(id) = serde_json::from_str::<Value>(&text).unwrap()["milestoneId"].as_str() {
                new = text.replace(id, "planted").into_bytes();
            }
            all.push(new);
        });
        believe(logs, name);
    }),
];

/// All of it, for every journal.
pub fn plants() -> Vec<Plant> {
    let mut plants = Vec::new();
    for name in JOURNALS {
        let has_sealed = ![CONTROL, LETTERS, REJECTED].contains(&name);
        for sealed in [true, false].into_iter().filter(|it| has_sealed || !it) {
            for (what, damage) in TO_A_LINE {
                for is_last in [false, true] {
                    plants.push(to_a_line(name, sealed, is_last, what, damage));
                }
            }
        }
        for (what, kinds, damage) in TO_THE_ACTIVE_SEGMENT {
            plants.push(plant(&format!("{name}: {what}"), kinds, name, move |logs| {
                damage(logs, name, segments(logs, name).last().unwrap());
            }));
        }
        for which in ["first", "middle", "newest"].into_iter().filter(|_| has_sealed) {
            let what = format!("{name}: {which} sealed segment gone");
            plants.push(plant(&what, &["segment-missing"], name, move |logs| {
                let files = segments(logs, name);
                let newest = files.len() - 2;
                let at = [("first", 0), ("middle", newest / 2), ("newest", newest)];
                fs::remove_file(&files[at.iter().find(|it| it.0 == which).unwrap().1]).unwrap();
            }));
        }
    }
    plants
}

fn to_a_line(name: &'static str, sealed: bool, is_last: bool, what: &str, damage: ToLine) -> Plant {
    let place = if sealed { "a sealed segment" } else { "the active segment" };
    let line = if is_last { "last" } else { "first" };
    plant(&format!("{name}: the {line} line of {place} {what}"), &[], name, move |logs| {
        let files = segments(logs, name);
        assert!(!sealed || files.len() > 1, "{name} has no sealed segment");
        let file = if sealed { &files[(files.len() - 2) / 2] } else { files.last().unwrap() };
        let at = if is_last { lines(file).len() - 1 } else { 0 };
        damage(logs, name, file, at);
    })
}
