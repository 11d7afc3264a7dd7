//! A journal against a plain list, through random appends, rotations, crashes, lost and old marks and reads.
#![expect(clippy::unwrap_used, reason = "a test that cannot set itself up has failed")]
#![expect(clippy::disallowed_methods, reason = "a test damages files itself")]

use std::{fs, fs::OpenOptions, io::Write, path::PathBuf};

use milepost::{
    audit::{Action, Draft, Outcome},
    journal::{Batch, Described, Item, Journal, JournalName, Position},
    logs::Logs,
};
use proptest::{collection::vec, prelude::*};
use serde_json::{Value, json};
use tempfile::TempDir;

#[derive(Clone, Debug)]
enum Step {
    /// A batch of so many records, each padded by so many bytes.
    Append(usize, usize),
    /// The same, wholly or not at all.
    AppendAll(usize),
    /// A writer dies: so many whole records beyond the mark, then so many bytes of another, then so much noise.
    Die(usize, usize, Vec<u8>),
    /// Power cuts the mark back to what it was after some earlier step.
    OldMark(usize),
    /// The lock files are gone.
    NoMark,
    /// A consumer reads on from where it was, at most so many records.
    Consume(usize),
    /// A rotation dies after its rename, or after it created the new file.
    HalfRotation(bool),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        5 => (1..6usize, 0..200usize).prop_map(|(records, padding)| Step::Append(records, padding)),
        1 => (1..6usize).prop_map(Step::AppendAll),
        3 => (0..3usize, 0..40usize, vec(any::<u8>(), 0..8)).prop_map(|(whole, torn, noise)| Step::Die(whole, torn, noise)),
        1 => any::<usize>().prop_map(Step::OldMark),
        1 => Just(Step::NoMark),
        3 => (1..20usize).prop_map(Step::Consume),
        1 => any::<bool>().prop_map(Step::HalfRotation),
    ]
}

fn describe(line: &[u8]) -> Option<Described> {
    let record: Value = serde_json::from_slice(line).ok()?;
    Some(Described { key: record.get("id")?.as_u64()?.to_string(), scope: None })
}

struct Model {
    dir: TempDir,
    journal: Journal,
    /// All ids, in the order of the journal.
    ids: Vec<u64>,
    next_id: u64,
    consumed: Position,
    seen: Vec<u64>,
    /// Earlier contents of the journal's lock file.
    marks: Vec<Vec<u8>>,
}

impl Model {
    fn new() -> Model {
        let dir = tempfile::tempdir().unwrap();
        let logs = Logs::open(Some(dir.path()), "test").unwrap().rotate_at(600);
        let journal = Journal::new(&logs, JournalName::internal("things"), describe);
        Model {
            dir,
            journal,
            ids: vec![],
            next_id: 0,
            consumed: Position::default(),
            seen: vec![],
            marks: vec![],
        }
    }

    fn path(&self, file: &str) -> PathBuf {
        self.dir.path().join(file)
    }

    fn line(&mut self, padding: usize) -> String {
        self.next_id += 1;
        format!("{{\"id\":{},\"padding\":\"{}\"}}\n", self.next_id, "x".repeat(padding))
    }

    fn append(&mut self, records: usize, padding: usize, all_or_nothing: bool) {
        let mut writer = self.journal.write().unwrap();
        let mut batch = Batch::default();
        for _ in 0..records {
            let offset = writer.end() + batch.bytes();
            let line = self.line(padding);
            batch.push(line.as_bytes());
            let detail = json!({ "journal": "things", "offset": offset });
            batch.audit(Draft::of(Action::Emit, Outcome::Appended, self.next_id.to_string(), "s", detail));
            self.ids.push(self.next_id);
        }
        if all_or_nothing {
            writer.append_all_or_nothing(&batch).unwrap();
        } else {
            writer.append(&batch).unwrap();
        }
        drop(writer);
        self.marks.push(fs::read(self.path(".lock/things.lock")).unwrap());
    }

    fn take(&mut self, step: &Step) {
        match step {
            Step::Append(records, padding) => self.append(*records, *padding, false),
            Step::AppendAll(records) => self.append(*records, 0, true),
            Step::Die(whole, torn, noise) => {
                // Who dies has settled what was there before, since it had the lock.
                drop(self.journal.write().unwrap());
                let mut bytes = Vec::new();
                for _ in 0..*whole {
                    bytes.extend(self.line(3).into_bytes());
                    self.ids.push(self.next_id);
                }
                let last = self.line(30);
                bytes.extend(&last.as_bytes()[..(*torn).min(last.len() - 1)]);
                bytes.extend(noise.iter().map(|it| if *it == b'\n' { 0 } else { *it }));
                let mut file = OpenOptions::new().append(true).open(self.path("things.jsonl")).unwrap();
                file.write_all(&bytes).unwrap();
            }
            Step::OldMark(which) => {
                let mark = self.marks.get(which % self.marks.len().max(1));
                if let Some(mark) = mark.filter(|_| self.path(".lock").exists()) {
                    fs::write(self.path(".lock/things.lock"), mark).unwrap();
                }
            }
            Step::NoMark => {
                if self.path(".lock").exists() {
                    fs::remove_dir_all(self.path(".lock")).unwrap();
                }
            }
            Step::Consume(most) => self.consume(*most),
            Step::HalfRotation(created) => {
                drop(self.journal.write().unwrap());
                let end = self.journal.end().unwrap();
                let length = fs::metadata(self.path("things.jsonl")).unwrap().len();
                if length > 0 {
                    let sealed = format!("things.{:020}.jsonl", end - length);
                    fs::rename(self.path("things.jsonl"), self.path(&sealed)).unwrap();
                    if *created {
                        fs::write(self.path("things.jsonl"), "").unwrap();
                    }
                }
            }
        }
    }

    fn consume(&mut self, most: usize) {
        self.journal.settle_if_needed().unwrap();
        let mut reader = self.journal.read_from(&self.consumed).unwrap();
        for _ in 0..most {
            let Some(Item::Line { end, text, .. }) = reader.next_item().unwrap() else { return };
            self.seen.push(describe(text).unwrap().key.parse().unwrap());
            self.consumed = Position::after(end, text);
        }
    }

    fn check(&mut self) {
        drop(self.journal.write().unwrap());
        milepost::audit::settle(self.journal.logs()).unwrap();
        self.consume(usize::MAX);
        assert_eq!(self.seen, self.ids, "the consumer saw every record once, in order");
        let mut audited: Vec<u64> = self
            .audit()
            .iter()
            .filter(|it| it["outcome"] == "appended" || it["outcome"] == "recovered")
            .map(|it| it["idempotency_key"].as_str().unwrap().parse().unwrap())
            .collect();
        audited.sort_unstable();
        assert_eq!(audited, self.ids, "every record is audited once");
    }

    /// All audit records, checked to be one chain.
    fn audit(&self) -> Vec<Value> {
        let mut chain = milepost::chain::Chain::default();
        let logs = self.journal.logs();
        let Ok(mut reader) =
            milepost::journal::Reader::open(logs, &JournalName::audit(), &Position::default())
        else {
            return Vec::new();
        };
        let mut records = Vec::new();
        while let Some(Item::Line { text, .. }) = reader.next_item().unwrap() {
            chain.step(text).unwrap();
            records.push(serde_json::from_slice(text).unwrap());
        }
        records
    }
}

/// 60 random histories, or as many as `PROPTEST_CASES` says.
fn config() -> ProptestConfig {
    let cases = std::env::var("PROPTEST_CASES").ok().and_then(|it| it.parse().ok()).unwrap_or(60);
    ProptestConfig { cases, max_shrink_iters: 500, failure_persistence: None, ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn a_journal_is_a_list_whatever_happens_to_it(steps in vec(step(), 1..25)) {
        let mut model = Model::new();
        for step in &steps {
            model.take(step);
        }
        model.check();
    }
}
