//! The index: damage makes it slower, never wrong.
//!
//! An input is a list of edits of its file, eight bytes each: what to do, which page, where in it, how many bytes,
//! which byte. Edits that make a page's checksum good again say things that no disk makes up: then only an answer
//! is asked for, not the right one.

use std::{fs, path::PathBuf, sync::OnceLock};

use milepost::{
    index::Index,
    journal::{Journal, JournalName, Position, Writer},
};
use serde_json::json;

use milepost_fuzz::scratch;

const RECORDS: u64 = 200;
const PAGE: usize = 4096;

/// A journal under its lock, its index as it should be, and where each record lies.
struct Ground {
    file: PathBuf,
    journal: Journal,
    _lock: Writer,
    index: Vec<u8>,
    offsets: Vec<u64>,
}

fn keys_of(line: &[u8], each: &mut dyn FnMut(&str)) {
    let record: serde_json::Value = serde_json::from_slice(line).unwrap_or_default();
    if let Some(key) = record["k"].as_str() {
        each(key);
    }
}

fn ground() -> &'static Ground {
    static GROUND: OnceLock<Ground> = OnceLock::new();
    GROUND.get_or_init(|| {
        let (mut lines, mut offsets) = (String::new(), Vec::new());
        for number in 0..RECORDS {
            offsets.push(lines.len() as u64);
            lines += &format!("{{\"k\":\"key {number}\"}}\n");
        }
        let mark = scratch::mark(&json!({
            "version": 1, "base": 0, "length": lines.len(), "auditOffset": 0, "undo": false, "seq": 0, "head": "",
        }));
        let folder = scratch::folder("index");
        let files = [(".lock/things.lock".to_owned(), mark), ("things.jsonl".to_owned(), lines.into_bytes())];
        let logs = scratch::fill(&folder, &files);
        let journal = Journal::new(&logs, JournalName::internal("things"), |_| None);
        let lock = journal.write().expect("nothing is to be settled");
        Index::open(&journal, keys_of).expect("it is built").finish().expect("it is kept");
        let file = folder.join(".index/things.index");
        let index = fs::read(&file).expect("it was written");
        assert!(index.len() >= 4 * PAGE, "it has some pages");
        Ground { file, journal, _lock: lock, index, offsets }
    })
}

pub fn seeds() -> Vec<Vec<u8>> {
    vec![
        vec![],
        vec![0, 0, 0, 24, 0, 8, 255, 0],
        vec![1, 0, 0, 24, 0, 8, 255, 0],
        vec![1, 0, 0, 32, 0, 8, 255, 0],
        vec![1, 0, 0, 40, 0, 1, 7, 0],
        vec![1, 0, 0, 48, 0, 16, 48, 0],
        vec![0, 1, 0, 16, 0, 16, 0, 0],
        vec![1, 2, 0, 16, 0, 255, 0, 0],
        vec![2, 2, 0, 100, 0, 0, 0, 0],
        vec![3, 1, 2, 0, 0, 0, 0, 0],
        vec![4, 1, 2, 0, 0, 0, 0, 0],
    ]
}

pub fn run(input: &[u8]) {
    let ground = ground();
    let mut file = ground.index.clone();
    let mut is_made_up = false;
    for edit in input.chunks_exact(8).take(64) {
        let pages = file.len() / PAGE;
        if pages == 0 {
            break;
        }
        let page = usize::from(edit[1]) % pages;
        let at = (usize::from(edit[4]) << 8 | usize::from(edit[3])) % PAGE;
        let start = page * PAGE + at;
        match edit[0] % 5 {
            kind @ (0 | 1) => {
                let end = (start + usize::from(edit[5])).min((page + 1) * PAGE);
                file[start..end].fill(edit[6]);
                if kind == 1 {
                    is_made_up = true;
                    let check = crc32fast::hash(&file[page * PAGE + 8..(page + 1) * PAGE]);
                    file[page * PAGE..page * PAGE + 4].copy_from_slice(&check.to_le_bytes());
                }
            }
            // Shorter.
            2 => file.truncate(start),
            // Two pages in each other's place; a page in two places.
            kind => {
                let other = usize::from(edit[2]) % pages;
                let (one, two) = (page * PAGE, other * PAGE);
                let kept = file[one..one + PAGE].to_vec();
                if kind == 3 {
                    file.copy_within(two..two + PAGE, one);
                }
                file[two..two + PAGE].copy_from_slice(&kept);
            }
        }
    }
    fs::write(&ground.file, &file).expect("it can be written");
    let opened = Index::open(&ground.journal, keys_of);
    if !is_made_up {
        assert!(opened.is_ok(), "a damaged index is begun again: {opened:?}");
    }
    let Ok(mut index) = opened else { return };
    for number in 0..RECORDS {
        let found = index.find(&format!("key {number}"));
        let offset = ground.offsets[number as usize];
        if !is_made_up {
            assert!(found.is_ok_and(|it| it.contains(&offset)), "record {number} is in the journal");
        }
    }
    assert!(is_made_up || *index.position() != Position::default() || index.is_long());
    let _ = index.finish();
    let length = fs::metadata(&ground.file).expect("it is there").len();
    assert!(length <= 64 * PAGE as u64, "{RECORDS} records took {length} bytes");
}
