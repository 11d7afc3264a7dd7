//! Folders for the targets that work on files, and the bytes of journals by `docs/FORMAT.md`, not by the library.

use std::{
    env,
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    process,
    sync::Arc,
};

use milepost::{
    durable::Disk,
    journal::{JournalName, Reader},
    logs::Logs,
};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// A disk that is told to sync and does not: nobody cuts the power here, and it is a hundred times as fast.
#[derive(Debug)]
struct NoSync;

impl Disk for NoSync {
    fn sync_data(&self, _: &File) -> io::Result<()> {
        Ok(())
    }

    fn sync_dir(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }
}

/// A folder of this process, which `scripts/fuzz` removes with the whole scratch folder.
pub fn folder(name: &str) -> PathBuf {
    let root = env::var_os("MILEPOST_FUZZ_SCRATCH").map_or_else(env::temp_dir, PathBuf::from);
    let folder = root.join(format!("milepost-fuzz.{name}.{}", process::id()));
    fs::create_dir_all(&folder).expect("the scratch folder can be written to");
    folder
}

/// The files of a folder and below, by relative path.
pub type Files = Vec<(String, Vec<u8>)>;

/// Reads a folder whole, in a fixed order.
pub fn read_all(folder: &Path) -> Files {
    let (mut found, mut todo) = (Files::new(), vec![folder.to_owned()]);
    while let Some(next) = todo.pop() {
        for entry in fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                todo.push(path);
            } else {
                let name = path.strip_prefix(folder).unwrap().to_str().unwrap().to_owned();
                found.push((name, fs::read(path).unwrap()));
            }
        }
    }
    found.sort();
    found
}

/// Makes the folder hold exactly these files, and opens it.
pub fn fill(folder: &Path, files: &[(String, Vec<u8>)]) -> Logs {
    fs::remove_dir_all(folder).unwrap();
    fs::create_dir(folder).unwrap();
    for (name, bytes) in files {
        let path = folder.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }
    open(folder)
}

/// Opens a logs folder on a disk that does not sync.
pub fn open(folder: &Path) -> Logs {
    Logs::open(Some(folder), "fuzz").expect("the folder is there").on_disk(Arc::new(NoSync))
}

/// A line of `milestones.jsonl` with its newline.
pub fn milestone(number: u64) -> String {
    format!(
        concat!(
            r#"{{"milestoneId":"m{}","timestampUtc":"2026-03-01T09:05:00.000Z","scope":"s","claim":"c","evidence":"#,
            r#"[{{"type":"log","path":"p","summary":"s"}}],"riskStatus":"on-track","nextAction":"n","source":"agent"}}"#,
            "\n"
        ),
        number
    )
}

/// A chain of audit records, by the book.
#[derive(Debug)]
pub struct Audit {
    /// Its lines.
    pub lines: Vec<u8>,
    seq: u64,
    head: String,
}

impl Default for Audit {
    fn default() -> Audit {
        Audit::new()
    }
}

impl Audit {
    /// One without records.
    pub fn new() -> Audit {
        Audit { lines: Vec::new(), seq: 0, head: "0".repeat(64) }
    }

    /// Adds a record.
    pub fn push(&mut self, action: &str, outcome: &str, key: Option<&str>, detail: &Value) {
        self.seq += 1;
        let mut record = json!({
            "seq": self.seq, "timestamp": "2026-03-01T09:05:00.000Z", "tool": "fuzz", "action": action,
            "outcome": outcome, "trace_id": key.map(|it| hex(it.as_bytes())[..32].to_owned()), "idempotency_key": key,
            "scope": key.map(|_| "s"), "detail": detail, "prev": self.head,
        });
        // serde_json sorts by bytes, which is the canonical order for these names.
        self.head = hex(format!("{}{record}", self.head).as_bytes());
        record["hash"] = Value::from(self.head.as_str());
        self.lines.extend(format!("{record}\n").bytes());
    }

    /// The bytes of its lock file.
    pub fn mark(&self) -> Vec<u8> {
        mark(&json!({
            "version": 1, "base": 0, "length": self.lines.len(), "auditOffset": 0, "undo": false, "seq": self.seq,
            "head": self.head,
        }))
    }
}

/// SHA-256 in hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    data_encoding::HEXLOWER.encode(&Sha256::digest(bytes))
}

/// A mark with these fields: 320 bytes.
pub fn mark(fields: &Value) -> Vec<u8> {
    let names = ["version", "base", "length", "auditOffset", "undo", "seq", "head"];
    let body: Vec<String> = names.iter().map(|it| format!("\"{it}\":{}", fields[*it])).collect();
    sealed_mark(format!("{{{}", body.join(",")).as_bytes())
}

/// A mark of these bytes, whatever they are, with the check that belongs to them.
pub fn sealed_mark(body: &[u8]) -> Vec<u8> {
    let mut mark = [body, format!(",\"check\":\"{:08x}\"}}", crc32fast::hash(body)).as_bytes()].concat();
    mark.resize(319, b' ');
    mark.push(b'\n');
    mark
}

/// All lines that a reader of this journal shows.
pub fn lines(logs: &Logs, name: &JournalName) -> milepost::Result<Vec<Vec<u8>>> {
    let mut reader = Reader::open_at(logs, name, 0)?;
    let mut found = Vec::new();
    while let Some(item) = reader.next_item()? {
        if let milepost::journal::Item::Line { text, .. } = item {
            found.push(text.to_vec());
        }
    }
    Ok(found)
}
