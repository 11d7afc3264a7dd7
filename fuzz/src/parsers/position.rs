//! Stored positions: one that is believed is a place in this very journal.
//!
//! An input is the text of a position, or of `X-source.json`; or `#` and a number, a comma and a fingerprint.

use std::{fs, path::PathBuf, sync::OnceLock};

use milepost::{
    emit,
    journal::{JournalName, Position, Reader, Resync},
    logs::Logs,
    queue,
};

use milepost_fuzz::{scratch, seeds};

/// A journal of three segments, which nobody changes, and its bytes.
struct Ground {
    folder: PathBuf,
    logs: Logs,
    bytes: Vec<u8>,
}

fn ground() -> &'static Ground {
    static GROUND: OnceLock<Ground> = OnceLock::new();
    GROUND.get_or_init(|| {
        let lines: Vec<String> = (0..6).map(scratch::milestone).collect();
        let parts: Vec<Vec<u8>> = lines.chunks(2).map(|it| it.concat().into_bytes()).collect();
        let bytes = parts.concat();
        let length = parts[0].len();
        let mark = scratch::mark(&serde_json::json!({
            "version": 1, "base": 2 * length, "length": parts[2].len(), "auditOffset": 0, "undo": false, "seq": 0,
            "head": "",
        }));
        let files = [
            (".lock/milestones.lock".to_owned(), mark),
            (format!("milestones.{:020}.jsonl", 0), parts[0].clone()),
            (format!("milestones.{length:020}.jsonl"), parts[1].clone()),
            ("milestones.jsonl".to_owned(), parts[2].clone()),
        ];
        let folder = scratch::folder("position");
        let logs = scratch::fill(&folder, &files);
        Ground { folder, logs, bytes }
    })
}

pub fn seeds() -> Vec<Vec<u8>> {
    let Ground { bytes, .. } = ground();
    let mut all = seeds::texts(&[
        "{\"offset\":0,\"fingerprint\":\"\"}",
        "#0,",
        "#18446744073709551615,0123456789abcdef",
        "start",
        "end",
        "400",
    ]);
    let mut end = 0;
    for line in bytes.split_inclusive(|it| *it == b'\n') {
        end += line.len();
        let print = &scratch::hex(&line[..line.len() - 1])[..16];
        all.push(format!("#{end},{print}").into_bytes());
        all.push(format!("{{\"offset\":{end},\"fingerprint\":\"{print}\"}}").into_bytes());
        all.push(
            format!(
                "{{\"version\":1,\"source\":\"milestones\",\"offset\":{end},\"fingerprint\":\"{print}\",\"queueOffset\":0}}"
            )
            .into_bytes(),
        );
    }
    all
}

pub fn run(input: &[u8]) {
    let Ground { folder, logs, bytes } = ground();
    let name = JournalName::internal("milestones");
    let text = String::from_utf8_lossy(input);
    let short = text.strip_prefix('#').and_then(|it| it.split_once(','));
    let position = match short {
        Some((offset, print)) => {
            offset.parse().ok().map(|offset| Position { offset, fingerprint: print.to_owned() })
        }
        None => serde_json::from_slice(input).ok(),
    };
    if let Some(position) = position {
        let written = serde_json::to_vec(&position).expect("a position has a form");
        assert_eq!(serde_json::from_slice::<Position>(&written).ok(), Some(position.clone()));
        let is_believed = Reader::open(logs, &name, &position).is_ok();
        assert_eq!(is_believed, is_a_place(bytes, position.offset, &position.fingerprint), "{position:?}");
    }
    if let Ok(to) = text.parse::<Resync>() {
        let journal = emit::milestones(logs);
        let place = match to {
            Resync::Start => journal.position_chosen(0),
            Resync::End => journal.position_chosen(bytes.len() as u64),
            Resync::Offset(offset) => journal.position_chosen(offset),
        };
        match (place, to) {
            (Ok(it), _) => assert!(is_a_place(bytes, it.offset, &it.fingerprint), "{it:?}"),
            (Err(error), Resync::Offset(offset)) => assert!(!is_boundary(bytes, offset), "{offset}: {error}"),
            (Err(error), _) => panic!("{to} is always a place: {error}"),
        }
    }
    // The same bytes as the state of a queue that is empty so far.
    fs::write(folder.join("milestone-delivery-source.json"), input).expect("it can be written");
    let queue = queue::open(logs, JournalName::internal("milestone-delivery-queue"));
    match queue::resume(&queue, &name) {
        Ok(it) => {
            let again = queue::resume(&queue, &name);
            assert_eq!(again.ok(), Some(it), "the same gives the same");
        }
        Err(error) => assert_eq!(error.kind(), milepost::Kind::BadData, "{error}"),
    }
}

fn is_boundary(bytes: &[u8], offset: u64) -> bool {
    let at = usize::try_from(offset).unwrap_or(usize::MAX);
    at == 0 || at <= bytes.len() && bytes[at - 1] == b'\n'
}

/// J5, by hand. At 0 nothing is compared. The newline itself may be damaged, and then whatever stands in its place
/// belongs to the line.
fn is_a_place(bytes: &[u8], offset: u64, print: &str) -> bool {
    if offset == 0 {
        return true;
    }
    let at = usize::try_from(offset).unwrap_or(usize::MAX);
    if at > bytes.len() {
        return false;
    }
    let line = bytes[..at].strip_suffix(b"\n").unwrap_or(&bytes[..at]);
    let start = line.iter().rposition(|it| *it == b'\n').map_or(0, |it| it + 1);
    scratch::hex(&line[start..])[..16] == *print
}
