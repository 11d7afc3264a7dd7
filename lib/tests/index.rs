//! The duplicate index against a plain map: any growth, any damage, always the right answer.
#![expect(clippy::unwrap_used, reason = "a test that cannot set itself up has failed")]
#![expect(clippy::disallowed_methods, reason = "a test damages files itself")]

use std::{collections::BTreeMap, fs, path::Path};

use milepost::{
    index::Index,
    journal::{Batch, Described, Journal, JournalName},
    logs::Logs,
};
use serde_json::Value;

fn describe(line: &[u8]) -> Option<Described> {
    Some(Described { key: key_of(line)?, scope: None })
}

fn key_of(line: &[u8]) -> Option<String> {
    serde_json::from_slice::<Value>(line).ok()?.get("id")?.as_str().map(str::to_owned)
}

fn keys_of(line: &[u8], each: &mut dyn FnMut(&str)) {
    if let Some(key) = key_of(line) {
        each(&key);
    }
}

struct Things {
    journal: Journal,
    offsets: BTreeMap<String, u64>,
}

impl Things {
    fn open(dir: &Path) -> Things {
        let logs = Logs::open(Some(dir), "test").unwrap().rotate_at(100_000);
        Things {
            journal: Journal::new(&logs, JournalName::internal("things"), describe),
            offsets: BTreeMap::new(),
        }
    }

    fn append(&mut self, ids: std::ops::Range<u32>) {
        let mut writer = self.journal.write().unwrap();
        let mut index = Index::open(&self.journal, keys_of).unwrap();
        let mut batch = Batch::default();
        let mut added = Vec::new();
        for id in ids {
            let id = format!("thing-{id}");
            assert!(index.find(&id).unwrap().is_empty());
            let line = format!("{{\"id\":\"{id}\"}}\n");
            let offset = writer.end() + batch.bytes();
            batch.push(line.as_bytes());
            added.push((offset, line));
            self.offsets.insert(id, offset);
        }
        writer.append(&batch).unwrap();
        for (offset, line) in added {
            index.add(offset, offset + line.len() as u64, line.trim_end().as_bytes());
        }
        index.finish().unwrap();
    }

    fn check(&self) {
        let _writer = self.journal.write().unwrap();
        let mut index = Index::open(&self.journal, keys_of).unwrap();
        let mut lines = self.journal.lines();
        for (id, offset) in self.offsets.iter().step_by(7) {
            let found = index.find(id).unwrap();
            assert!(found.contains(offset), "{id}: {found:?}");
            let line = lines.get(*offset).unwrap().unwrap();
            assert_eq!(key_of(&line).as_ref(), Some(id));
        }
        for id in 0..50 {
            assert!(index.find(&format!("absent-{id}")).unwrap().is_empty());
        }
    }

    fn index_file(&self) -> std::path::PathBuf {
        self.journal.logs().dir().join(".index/things.index")
    }
}

#[test]
fn every_key_is_found_while_the_table_grows() {
    let dir = tempfile::tempdir().unwrap();
    let mut things = Things::open(dir.path());
    let mut next = 0;
    for count in [1, 1, 62, 1, 1, 200, 3000, 1, 5000, 80, 4000] {
        things.append(next..next + count);
        next += count;
        things.check();
    }
    assert!(fs::metadata(things.index_file()).unwrap().len() > 100 * 4096, "the table has grown");
}

#[test]
fn a_missing_damaged_or_foreign_index_is_rebuilt() {
    let dir = tempfile::tempdir().unwrap();
    let mut things = Things::open(dir.path());
    things.append(0..700);
    let path = things.index_file();
    let whole = fs::read(&path).unwrap();
    fs::remove_file(&path).unwrap();
    things.check();
    for at in (0..whole.len()).step_by(331) {
        let mut damaged = whole.clone();
        damaged[at] ^= 0x40;
        fs::write(&path, &damaged).unwrap();
        things.check();
    }
    for length in [0, 1, 4095, 4096, 4097, whole.len() / 2, whole.len() - 1] {
        fs::write(&path, &whole[..length]).unwrap();
        things.check();
    }
    let other = tempfile::tempdir().unwrap();
    let mut others = Things::open(other.path());
    others.append(1_000_000..1_004_000);
    fs::copy(others.index_file(), &path).unwrap();
    things.check();
}

#[test]
fn an_old_index_catches_up() {
    let dir = tempfile::tempdir().unwrap();
    let mut things = Things::open(dir.path());
    things.append(0..3000);
    let old = fs::read(things.index_file()).unwrap();
    things.append(3000..9000);
    fs::write(things.index_file(), old).unwrap();
    things.check();
}

#[test]
fn a_long_call_finds_all_that_is_there_whatever_others_do_meanwhile() {
    fn check(things: &Things, index: &mut Index) {
        for (id, offset) in &things.offsets {
            assert!(index.find(id).unwrap().contains(offset), "{id}");
        }
    }
    // So many that the call makes itself a filter.
    fn look_for_new(index: &mut Index) {
        assert!((0..6000).all(|it| index.find(&format!("absent-{it}")).unwrap().is_empty()));
    }
    let dir = tempfile::tempdir().unwrap();
    let mut things = Things::open(dir.path());
    things.append(0..6000);
    let mut index = Index::open(&things.journal, keys_of).unwrap();
    look_for_new(&mut index);
    check(&things, &mut index);
    // A few stay out of the table, more of them go into it.
    for ids in [6000..6003, 6003..7000, 7000..7001] {
        things.append(ids);
        index.refresh().unwrap();
        check(&things, &mut index);
        look_for_new(&mut index);
        check(&things, &mut index);
    }
    let path = things.index_file();
    let mut damaged = fs::read(&path).unwrap();
    damaged.iter_mut().skip(4096).step_by(4096).for_each(|it| *it ^= 1);
    fs::write(&path, &damaged).unwrap();
    look_for_new(&mut index);
    check(&things, &mut index);
    look_for_new(&mut index);
    check(&things, &mut index);
    fs::remove_file(&path).unwrap();
    things.append(7001..7100);
    let mut index = Index::open(&things.journal, keys_of).unwrap();
    check(&things, &mut index);
}

#[test]
fn pages_of_a_newer_insertion_under_an_old_header_do_no_harm() {
    // What a kill or a power cut between the pages and the header leaves.
    let dir = tempfile::tempdir().unwrap();
    let mut things = Things::open(dir.path());
    things.append(0..3000);
    let old = fs::read(things.index_file()).unwrap();
    things.append(3000..9000);
    let mut mixed = fs::read(things.index_file()).unwrap();
    mixed[..4096].copy_from_slice(&old[..4096]);
    fs::write(things.index_file(), mixed).unwrap();
    things.check();
    things.append(9000..9100);
    things.check();
}

#[test]
fn a_header_with_numbers_that_no_table_has_is_begun_again() {
    let dir = tempfile::tempdir().unwrap();
    let mut things = Things::open(dir.path());
    things.append(0..700);
    let whole = fs::read(things.index_file()).unwrap();
    // Number of buckets, number of entries; the page's check fits.
    for (at, number) in [(24, u64::MAX), (24, 1 << 60), (32, u64::MAX), (32, 1 << 40)] {
        let mut made_up = whole.clone();
        made_up[at..at + 8].copy_from_slice(&number.to_le_bytes());
        let check = crc32fast::hash(&made_up[8..4096]);
        made_up[..4].copy_from_slice(&check.to_le_bytes());
        fs::write(things.index_file(), made_up).unwrap();
        things.check();
    }
}
