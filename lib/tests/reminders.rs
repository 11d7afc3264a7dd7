//! Reminders against a plain model: once for each open, overdue task and time bucket, through random histories of
//! edits, clocks, windows, crashes, lost caches and scans at once.
#![expect(clippy::unwrap_used, reason = "a test that cannot set itself up has failed")]
#![expect(clippy::disallowed_methods, reason = "a test damages files itself")]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    fs::OpenOptions,
    io::Write,
    path::Path,
    sync::Arc,
    time::Duration,
};

use milepost::{
    Result, Timestamp,
    chain::Chain,
    journal::{Item, JournalName, Reader},
    logs::Logs,
    reminder::{Listed, Scanned, Scanner, When, Window},
    task::{Offer, Status, Task, TaskEmitter},
};
use milepost_testing::disk::DyingDisk;
use serde_json::{Value, json};
use tempfile::TempDir;

/// How many histories: the claim of exactly once is made under at least so many.
const HISTORIES: u64 = 10_000;

/// The generator of a history: splitmix64, so that a seed is all that is needed to see it again.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut it = self.0;
        it = (it ^ (it >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        it = (it ^ (it >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (it ^ (it >> 31)) % sides
    }
    fn one_of<T: Copy>(&mut self, all: &[T]) -> T {
        all[usize::try_from(self.roll(all.len() as u64)).unwrap()]
    }
}

struct World {
    seed: u64,
    dir: TempDir,
    disk: Arc<DyingDisk>,
    logs: Logs,
    dice: Dice,
    now: Timestamp,
    /// How many tasks a table keeps in memory.
    keeps: usize,
    /// How every task stands: due date, and whether it is open.
    tasks: BTreeMap<(String, String), (Timestamp, bool)>,
    /// The keys of all reminders.
    reminded: BTreeSet<String>,
}

const SCOPES: [&str; 3] = ["chat:42", "user:7", "chat:42:x"];
/// The last three are one.
const IDS: [&str; 5] = [
    "pay",
    "call",
    "0192F0C1-7B7E-7D3F-9A51-0D7A5C1F2E3B",
    "0192f0c17b7e7d3f9a510d7a5c1f2e3b",
    "urn:uuid:{0192f0c1-7b7e-7d3f-9a51-0d7a5c1f2e3b}",
];
/// Instants at which clocks and calendars do something: summer time begins and ends in Berlin and New York, a leap
/// second, leap days, the turn of years, 1970, and the ends of time.
const INSTANTS: [&str; 10] = [
    "2026-03-29T01:00:00Z",
    "2026-10-25T01:00:00Z",
    "2026-03-08T07:00:00Z",
    "2016-12-31T23:59:59Z",
    "2024-02-29T23:59:59.999Z",
    "2026-12-31T23:59:30Z",
    "1970-01-01T00:00:00Z",
    "1969-12-31T23:59:59Z",
    "9999-12-31T23:59:59.999Z",
    "0000-01-01T00:00:00Z",
];

impl World {
    fn new(seed: u64) -> World {
        // Where there is one, a disk in memory: it is the order of things that is tested here.
        let dir = if Path::new("/dev/shm").is_dir() {
            tempfile::tempdir_in("/dev/shm")
        } else {
            tempfile::tempdir()
        };
        let dir = dir.unwrap();
        let disk = DyingDisk::healthy();
        let mut dice = Dice(seed);
        let rotate = dice.one_of(&[700, 3000, 1 << 20]);
        let logs = Logs::open(Some(dir.path()), "test").unwrap().on_disk(disk.clone()).rotate_at(rotate);
        // Mostly as it is; sometimes so few that the tree on disk is used for everything.
        let keeps = if dice.roll(4) == 0 { dice.roll(3).try_into().unwrap() } else { 1 << 16 };
        let now = Timestamp::parse_utc(dice.one_of(&INSTANTS)).unwrap();
        World { seed, dir, disk, logs, dice, now, keeps, tasks: BTreeMap::new(), reminded: BTreeSet::new() }
    }

    fn scanner(&self) -> Scanner {
        let mut scanner = Scanner::new(&self.logs).unwrap();
        scanner.keep_at_most(self.keeps);
        scanner
    }

    fn when(&mut self) -> When {
        let window: Window =
            self.dice.one_of(&["1m", "7m", "15m", "1h", "1h", "1h", "90m", "1d"]).parse().unwrap();
        let lead = Duration::from_secs(self.dice.one_of(&[0, 0, 0, 1800, 86_400]));
        When { now: self.now, made_at: self.now, window, lead }
    }

    /// What a scan must have reminded of by now.
    fn expected(&self, when: &When) -> BTreeSet<String> {
        let due = |it: &&(Timestamp, bool)| it.1 && it.0.millis() <= when.until().millis();
        let minutes = when.window.bucket(when.now).to_string();
        self.tasks
            .iter()
            .filter(|(_, it)| due(it))
            .map(|((scope, id), _)| format!("rem:{scope}:{id}:{minutes}"))
            .collect()
    }

    /// All keys in the journal of reminders, each once.
    fn written(&self) -> BTreeSet<String> {
        let mut keys = BTreeSet::new();
        for record in self.records("reminders") {
            let key = record["idempotency_key"].as_str().unwrap().to_owned();
            let payload = &record["payload"];
            let parts = ["scope", "task_id", "time_bucket"].map(|it| payload[it].as_str().unwrap());
            assert_eq!(key, format!("rem:{}", parts.join(":")), "seed {}", self.seed);
            assert!(keys.insert(key.clone()), "seed {}: {key} is there twice", self.seed);
        }
        keys
    }

    fn records(&self, journal: &str) -> Vec<Value> {
        let mut reader = Reader::open_at(&self.logs, &JournalName::internal(journal), 0).unwrap();
        let mut records = Vec::new();
        while let Some(item) = reader.next_item().unwrap() {
            let Item::Line { text, .. } = item else { panic!("seed {}: {item:?}", self.seed) };
            records.push(serde_json::from_slice(text).unwrap());
        }
        records
    }

    fn step(&mut self) {
        match self.dice.roll(20) {
            0..=6 => self.emit(None),
            7 => {
                let after = self.dice.roll(25);
                self.emit(Some(after));
            }
            8..=10 => self.move_clock(),
            11..=14 => self.scan(),
            15 => self.scans_at_once(),
            16 | 17 => self.scan_that_dies(),
            18 => self.lose_a_cache(),
            _ => self.leave_a_torn_line(),
        }
    }

    /// Adds or edits a task; the disk dies after so many operations, if it does.
    fn emit(&mut self, dies_after: Option<u64>) {
        let (scope, id) = (self.dice.one_of(&SCOPES), self.dice.one_of(&IDS));
        let far = self.dice.one_of(&[0, 1, 1, 59, 60, 61, 1440, 525_600 * 3]);
        let due = match self.dice.roll(2) {
            0 => self.now.minus(Duration::from_secs(far * 60)),
            _ => self.now.plus(Duration::from_secs(far * 60)),
        };
        let status = self.dice.one_of(&["open", "open", "open", "done", "cancelled"]);
        let title = self.dice.one_of(&["a", "b"]);
        let task = json!({ "task_id": id, "scope": scope, "title": title, "due_at": due, "status": status });
        let (task, left_out) = Task::from_value(task, self.now).unwrap();
        let name = (task.scope.clone(), task.task_id.clone());
        let stands = (task.due_at, task.status == Status::Open);
        if let Some(operations) = dies_after {
            self.disk.die_after(operations);
        }
        let offer = Offer::Task { place: "here".into(), task, left_out };
        let emitted = TaskEmitter::new(&self.logs).and_then(|mut it| it.commit(&[offer]));
        self.disk.heal();
        if emitted.is_ok() {
            self.tasks.insert(name, stands);
        } else {
            // Nobody was told that it is there, but it may be: settling decides.
            drop(milepost::task::tasks(&self.logs).write().unwrap());
            self.tasks.clear();
            for record in self.records("tasks") {
                let task: Task = serde_json::from_value(record).unwrap();
                self.tasks.insert((task.scope, task.task_id), (task.due_at, task.status == Status::Open));
            }
        }
    }

    fn move_clock(&mut self) {
        let minutes = self.dice.one_of(&[0, 1, 7, 30, 60, 61, 1440, 525_600, 525_600 * 30]);
        let step = Duration::from_millis(minutes * 60_000 + self.dice.roll(2000));
        self.now = match self.dice.roll(5) {
            0 => Timestamp::parse_utc(self.dice.one_of(&INSTANTS)).unwrap(),
            1 | 2 => self.now.minus(step),
            _ => self.now.plus(step),
        };
    }

    fn scan(&mut self) {
        let when = self.when();
        let scanned = self.scanner().scan(&when, &mut |it| panic!("{it}")).unwrap();
        let written = self.check(&when, &[scanned]);
        assert_eq!(written, self.dry_run_of(&when), "seed {}: looking shows what is reminded", self.seed);
    }

    /// What a listing says is due and reminded of after a scan.
    fn dry_run_of(&self, when: &When) -> BTreeSet<String> {
        let mut keys = BTreeSet::new();
        let mut show = |it: Listed| {
            assert!(!it.is_due || it.is_reminded, "seed {}: {it:?}", self.seed);
            if it.is_due {
                keys.insert(milepost::reminder::key_of(&it.task, when.bucket()));
            }
        };
        self.scanner().list(when, None, 3, &mut |it| panic!("{it}"), &mut show).unwrap();
        keys
    }

    /// Checks what scans have written, and takes it into the model; gives what is due.
    fn check(&mut self, when: &When, scanned: &[Scanned]) -> BTreeSet<String> {
        let expected = self.expected(when);
        let new = expected.difference(&self.reminded).count() as u64;
        let told: u64 = scanned.iter().map(|it| it.reminded).sum();
        assert_eq!(told, new, "seed {}", self.seed);
        self.reminded.extend(expected.iter().cloned());
        assert_eq!(self.written(), self.reminded, "seed {}", self.seed);
        for it in scanned {
            assert_eq!(it.reminded + it.known, expected.len() as u64, "seed {}", self.seed);
            let next = self.tasks.values().filter(|it| it.1 && it.0 > when.until()).map(|it| it.0).min();
            assert_eq!(it.next_due, next, "seed {}", self.seed);
        }
        expected
    }

    fn scans_at_once(&mut self) {
        let when = self.when();
        let scanned: Vec<Scanned> = std::thread::scope(|threads| {
            let scan = || self.scanner().scan(&when, &mut |it| panic!("{it}")).unwrap();
            let running: Vec<_> = (0..3).map(|_| threads.spawn(scan)).collect();
            running.into_iter().map(|it| it.join().unwrap()).collect()
        });
        self.check(&when, &scanned);
    }

    fn scan_that_dies(&mut self) {
        let when = self.when();
        self.disk.die_after(self.dice.roll(40));
        let mut scanner = self.scanner_or_none();
        let outcome: Option<Result<Scanned>> = scanner.as_mut().map(|it| it.scan(&when, &mut |_| {}));
        drop(scanner);
        self.disk.heal();
        let expected = self.expected(&when);
        if let Some(Ok(scanned)) = &outcome {
            self.check(&when, std::slice::from_ref(scanned));
            return;
        }
        // Whatever of it is there was due, and the next scan does the rest.
        drop(milepost::reminder::reminders(&self.logs).write().unwrap());
        let written = self.written();
        assert!(written.is_superset(&self.reminded), "seed {}: a reminder is gone", self.seed);
        let new: BTreeSet<String> = written.difference(&self.reminded).cloned().collect();
        assert!(new.is_subset(&expected), "seed {}: {new:?} was not due", self.seed);
        self.reminded = written;
    }

    fn scanner_or_none(&self) -> Option<Scanner> {
        let mut scanner = Scanner::new(&self.logs).ok()?;
        scanner.keep_at_most(self.keeps);
        Some(scanner)
    }

    /// The caches go, or one is damaged.
    fn lose_a_cache(&mut self) {
        let caches = self.dir.path().join(".index");
        let table = caches.join("tasks.table1");
        match (self.dice.roll(3), fs::read(&table)) {
            (0, Ok(mut bytes)) if !bytes.is_empty() => {
                let at = usize::try_from(self.dice.roll(bytes.len() as u64)).unwrap();
                bytes[at] ^= 0x40;
                fs::write(&table, bytes).unwrap();
            }
            (1, Ok(bytes)) => {
                let length = usize::try_from(self.dice.roll(1 + bytes.len() as u64)).unwrap();
                fs::write(&table, &bytes[..length]).unwrap();
            }
            _ => {
                let _ = fs::remove_dir_all(caches);
            }
        }
    }

    /// A writer of tasks or reminders was killed in its write.
    fn leave_a_torn_line(&mut self) {
        let journal = self.dice.one_of(&["tasks.jsonl", "reminders.jsonl"]);
        if let Ok(mut file) = OpenOptions::new().append(true).open(self.dir.path().join(journal)) {
            file.write_all(b"{\"task_id\":\"x\",\"sc").unwrap();
        }
    }

    /// Every reminder is in the audit once, and the chain holds.
    fn end(self) {
        drop(milepost::reminder::reminders(&self.logs).write().unwrap());
        let mut chain = Chain::default();
        let mut audited = BTreeSet::new();
        let name = JournalName::audit();
        let mut reader = Reader::open_at(&self.logs, &name, 0).unwrap();
        while let Some(item) = reader.next_item().unwrap() {
            let Item::Line { text, .. } = item else { panic!("seed {}", self.seed) };
            chain.step(text).unwrap_or_else(|it| panic!("seed {}: {it}", self.seed));
            let record: Value = serde_json::from_slice(text).unwrap();
            if record["detail"]["journal"] == "reminders" && record["idempotency_key"].is_string() {
                let key = record["idempotency_key"].as_str().unwrap().to_owned();
                assert!(audited.insert(key), "seed {}: audited twice: {record}", self.seed);
            }
        }
        assert_eq!(audited, self.written(), "seed {}", self.seed);
    }
}

#[test]
fn each_open_overdue_task_is_reminded_of_once_a_bucket_in_every_history() {
    let threads = 2;
    std::thread::scope(|scope| {
        for thread in 0..threads {
            scope.spawn(move || {
                for seed in (0..HISTORIES).filter(|it| it % threads == thread) {
                    let mut world = World::new(seed);
                    for _ in 0..6 + world.dice.roll(10) {
                        world.step();
                    }
                    world.scan();
                    world.end();
                }
            });
        }
    });
}

fn emitted(logs: &Logs, tasks: Vec<Value>) {
    let offers: Vec<Offer> = tasks
        .into_iter()
        .map(|it| {
            let (task, left_out) = Task::from_value(it, Timestamp::from_millis(0)).unwrap();
            Offer::Task { place: String::new(), task, left_out }
        })
        .collect();
    let mut emitter = TaskEmitter::new(logs).unwrap();
    for batch in offers.chunks(4096) {
        emitter.commit(batch).unwrap();
    }
    emitter.finish().unwrap();
}

fn at(now: &str) -> When {
    let now = Timestamp::parse_utc(now).unwrap();
    When { now, made_at: now, window: Window::HOUR, lead: Duration::ZERO }
}

#[test]
fn after_a_pause_only_the_present_bucket_is_reminded() {
    let dir = tempfile::tempdir().unwrap();
    let logs = Logs::open(Some(dir.path()), "test").unwrap();
    emitted(
        &logs,
        vec![json!({ "task_id": "a", "scope": "chat:1", "title": "t", "due_at": "2026-03-01T09:00:00Z" })],
    );
    let scan = |now| Scanner::new(&logs).unwrap().scan(&at(now), &mut |it| panic!("{it}")).unwrap().reminded;
    assert_eq!(scan("2026-03-01T08:59:59.999Z"), 0);
    assert_eq!(scan("2026-03-01T09:00:00Z"), 1);
    assert_eq!(scan("2026-03-01T09:59:59Z"), 0);
    assert_eq!(scan("2026-03-09T17:30:00Z"), 1, "eight days later, once");
    assert_eq!(scan("2026-03-01T09:30:00Z"), 0, "the clock went back to a bucket that was reminded in");
}

#[test]
fn a_damaged_line_is_kept_told_of_once_and_stops_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let logs = Logs::open(Some(dir.path()), "test").unwrap();
    let task = |id: &str| json!({ "task_id": id, "scope": "chat:1", "title": "tttt", "due_at": "2026-03-01T09:00:00Z" });
    emitted(&logs, vec![task("a"), task("b"), task("c")]);
    let path = dir.path().join("tasks.jsonl");
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, text.replacen("\"task_id\":\"b\"", "\"task_id\":\"\u{7f}\"", 1)).unwrap();
    let when = at("2026-03-01T10:00:00Z");
    let mut told = Vec::new();
    Scanner::new(&logs)
        .unwrap()
        .list(&when, None, 0, &mut |it| told.push(it.to_string()), &mut |_| {})
        .unwrap();
    assert!(told.len() == 1 && told[0].contains("/task_id: holds a control character"), "{told:?}");
    assert!(!dir.path().join("quarantine").exists(), "looking keeps nothing");
    told.clear();
    let scanned = Scanner::new(&logs).unwrap().scan(&when, &mut |it| told.push(it.to_string())).unwrap();
    assert_eq!((scanned.reminded, scanned.rejected, told.len()), (2, 1, 1));
    let kept = fs::read_dir(dir.path().join("quarantine")).unwrap().next().unwrap().unwrap().path();
    assert!(fs::read_to_string(kept).unwrap().starts_with("{\"task_id\":\"\u{7f}\""));
    let again = Scanner::new(&logs).unwrap().scan(&when, &mut |it| panic!("{it}")).unwrap();
    assert_eq!((again.reminded, again.rejected, again.known), (0, 0, 2));
    let mut reader = Reader::open_at(&logs, &JournalName::audit(), 0).unwrap();
    let mut quarantined = 0;
    while let Some(Item::Line { text, .. }) = reader.next_item().unwrap() {
        quarantined += usize::from(String::from_utf8_lossy(text).contains("\"quarantined\""));
    }
    assert_eq!(quarantined, 1);
}

#[test]
fn many_tasks_are_handed_to_the_tree_and_scanned_in_batches() {
    let dir = tempfile::tempdir().unwrap();
    let logs = Logs::open(Some(dir.path()), "test").unwrap();
    let task = |it: u32, status: &str| {
        let due = if it.is_multiple_of(2) { "2026-03-01T09:00:00Z" } else { "2030-03-01T09:00:00Z" };
        json!({ "task_id": format!("t{it}"), "scope": format!("chat:{}", it % 7), "title": "t", "due_at": due,
            "status": status })
    };
    emitted(&logs, (0..10_000).map(|it| task(it, "open")).collect());
    assert!(dir.path().join(".index/tasks.table1").exists());
    let scan = |now| Scanner::new(&logs).unwrap().scan(&at(now), &mut |it| panic!("{it}")).unwrap();
    let first = scan("2026-03-01T10:00:00Z");
    assert_eq!((first.reminded, first.known), (5000, 0));
    assert_eq!(first.next_due.unwrap().to_string(), "2030-03-01T09:00:00.000Z");
    assert_eq!(scan("2026-03-01T10:30:00Z").known, 5000);
    emitted(&logs, (0..4000).map(|it| task(it, "done")).collect());
    emitted(&logs, (0..4000).map(|it| task(it, "done")).collect());
    assert_eq!(scan("2026-03-01T11:00:00Z").reminded, 3000);
    let mut listed = Vec::new();
    let when = at("2026-03-01T11:00:00Z");
    let mut show = |it: Listed| listed.push(it);
    Scanner::new(&logs).unwrap().list(&when, Some("chat:3"), 5, &mut |it| panic!("{it}"), &mut show).unwrap();
    assert!(listed.iter().all(|it| it.task.scope == "chat:3"));
    assert_eq!(listed.iter().filter(|it| !it.is_due).count(), 5);
    let expected = (4000..10_000).filter(|it| it % 2 == 0 && it % 7 == 3).count();
    assert_eq!(listed.iter().filter(|it| it.is_due && it.is_reminded).count(), expected);
}
