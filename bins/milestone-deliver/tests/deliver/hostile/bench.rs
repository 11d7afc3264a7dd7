//! A queue, a hostile receiver, and what must hold of every meeting of the two.
//!
//! In a meeting the receiver misbehaves for one pass over the queue, which must end soon, in little memory, and
//! with the right reason in the audit. Then it behaves, and everything that is not refused for good must be there,
//! once. All bodies of a key must be the same, and all signatures right, throughout.

use std::{
    collections::BTreeSet,
    fs,
    io::{BufRead, BufReader},
    process::{Child, Command},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use milepost_testing::{
    Run, Scratch,
    hostile::{Hostile, Mode},
    signature,
};
use serde_json::Value;

use crate::queue::{QUEUE, SECRET, TOOL, append, record, terminate};

/// How many requests are in flight: every meeting takes place with each of these.
pub const CONCURRENCY: &[&[&str]] = &[&["--concurrency", "1"], &["--concurrency", "8"]];

/// What a pass may take at most: each attempt its `--timeout`, twice where a kept connection was stale, and a
/// machine that has other things to do.
const PASS_MAX: Duration = Duration::from_secs(25);
/// The most memory that a deliverer ever takes, in KiB.
const MEMORY_MAX_KIB: u64 = 50 << 10;

/// What must come of an attempt.
#[derive(Clone, Copy, Debug)]
pub struct Expected {
    pub outcome: &'static str,
    /// Any of these.
    pub reasons: &'static [&'static str],
    /// Whose fault it is.
    pub fault: Option<&'static str>,
    /// Whether an attempt is used.
    pub is_counted: bool,
    pub breaker: &'static str,
}

const RETRIED: Expected =
    Expected { outcome: "retried", reasons: &[], fault: None, is_counted: false, breaker: "closed" };

pub const ACCEPTED: Expected =
    Expected { outcome: "acknowledged", reasons: &["accepted"], is_counted: true, ..RETRIED };

pub const DUPLICATE: Expected = Expected { reasons: &["duplicate"], ..ACCEPTED };

pub const REJECTED: Expected = Expected {
    outcome: "dead-lettered",
    reasons: &["rejected"],
    fault: Some("item"),
    is_counted: true,
    breaker: "closed",
};

/// No answer, or one that may pass: no attempt is used.
pub const fn endpoint(reasons: &'static [&'static str]) -> Expected {
    Expected { reasons, fault: Some("endpoint"), ..RETRIED }
}

/// The application stumbles: an attempt is used.
pub const fn application(reasons: &'static [&'static str]) -> Expected {
    Expected { reasons, fault: Some("application"), is_counted: true, ..RETRIED }
}

/// Something else answers in the application's place: no attempt is used, and sending stops at once.
pub const fn configuration(reasons: &'static [&'static str]) -> Expected {
    Expected { reasons, fault: Some("configuration"), breaker: "open", ..RETRIED }
}

/// The endpoint wants no more: everything is held.
pub const fn gone(reasons: &'static [&'static str]) -> Expected {
    Expected { reasons, fault: Some("gone"), breaker: "held", ..RETRIED }
}

/// The answer was broken off, mis-framed or without end.
pub const BROKEN: Expected = application(&["broken-answer"]);

/// A scratch folder with a queue in it.
pub struct Bench {
    pub scratch: Scratch,
    pub keys: Vec<String>,
    env: Vec<(&'static str, String)>,
    more: &'static [&'static str],
}

/// A pass that ended by itself.
pub struct Pass {
    pub summary: Value,
    pub stderr: String,
}

impl Bench {
    /// Some milestones, each in a scope of its own.
    pub fn new(count: usize) -> Bench {
        Bench::with_scopes(count, count)
    }

    /// So many milestones in so many scopes, by turns.
    pub fn with_scopes(count: usize, scopes: usize) -> Bench {
        let scratch = Scratch::new();
        scratch.secret("secret", SECRET);
        let ids = (0..count).map(|it| (format!("m{it}"), format!("scope {}", it % scopes)));
        let records: Vec<_> = ids.map(|(id, scope)| record(&id, &scope)).collect();
        append(&scratch, QUEUE, &records);
        let keys = records.into_iter().map(|it| it.idempotency_key).collect();
        Bench { scratch, keys, env: Vec::new(), more: &[] }
    }

    /// The same with an environment variable for the deliverer.
    pub fn env(mut self, name: &'static str, value: String) -> Bench {
        self.env.push((name, value));
        self
    }

    /// The same with more options for the deliverer.
    pub fn more(mut self, more: &'static [&'static str]) -> Bench {
        self.more = more;
        self
    }

    pub fn command(&self, url: &str, more: &[&str]) -> Command {
        let mut command = self.scratch.command(TOOL);
        command.args(["--url", url, "--secret-file", "secret"]).args(self.more).args(more);
        command.envs(self.env.iter().map(|(name, value)| (name, value)));
        command
    }

    pub fn run(&self, url: &str, more: &[&str]) -> Run {
        Run::of(self.command(url, more).spawn().unwrap())
    }

    /// One pass over the queue that meets what is expected, in bounded time and memory.
    pub fn pass(&self, url: &str, expected: &Expected, more: &[&str]) -> Pass {
        // Short only where it is to run out: a busy machine may take its time for all else.
        let timeout = if expected.reasons.contains(&"timeout") { "400ms" } else { "8s" };
        let first = ["--watch", "--timeout", timeout, "--backoff-base", "1h"];
        let began = Instant::now();
        let mut child = self.command(url, &[&first, more].concat()).spawn().unwrap();
        let watchdog = Watchdog::of(&child);
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert!(began.elapsed() < PASS_MAX, "a pass took {:?}", began.elapsed());
        let memory = memory_kib(&child);
        assert!(memory < MEMORY_MAX_KIB, "it took {memory} KiB");
        terminate(&child);
        let run = Run::of(child).exits(0);
        drop(watchdog);
        Pass { summary: serde_json::from_str(&line).unwrap(), stderr: run.stderr }
    }

    /// The audit records of attempts.
    pub fn attempts(&self) -> Vec<Value> {
        let mut audit = self.scratch.records("audit");
        audit.retain(|it| it["action"] == "deliver" && it["outcome"] != "done");
        audit
    }

    pub fn state(&self) -> Value {
        let bytes = fs::read(self.scratch.log("milestone-delivery-state.json")).unwrap();
        serde_json::from_slice(&bytes).unwrap()
    }

    /// The keys with this outcome in the audit, each asserted to have it once.
    pub fn settled(&self, outcome: &str) -> BTreeSet<String> {
        let mut keys = BTreeSet::new();
        for record in self.attempts().iter().filter(|it| it["outcome"] == outcome) {
            let key = record["idempotency_key"].as_str().unwrap().to_owned();
            assert!(keys.insert(key), "{outcome} twice: {record}");
        }
        keys
    }

    /// What must hold of a pass that met nothing else than this.
    pub fn expect(&self, expected: &Expected) {
        let attempts = self.attempts();
        assert!(!attempts.is_empty(), "nothing was tried");
        for record in &attempts {
            let detail = &record["detail"];
            assert_eq!(record["outcome"], expected.outcome, "{record}");
            let reason = detail["reason"].as_str().unwrap();
            assert!(
                expected.reasons.contains(&reason),
                "{reason} is none of {:?}: {record}",
                expected.reasons
            );
            assert_eq!(detail["fault"].as_str(), expected.fault, "{record}");
            assert_eq!(detail["attempt"].as_u64() > Some(0), expected.is_counted, "{record}");
        }
        assert_eq!(self.state()["breaker"]["state"], expected.breaker);
        let is_stopped = expected.breaker != "closed";
        assert!(is_stopped || attempts.len() == self.keys.len(), "each was tried once: {attempts:?}");
    }

    /// From now on the receiver behaves: what was not refused arrives, once.
    pub fn recover(&self, server: &Hostile) {
        server.turn(Mode::Good);
        self.run(&server.url(), &["--release"]).exits(0);
        self.run(&server.url(), &["--retry-now"]).exits(0);
        // Of the first attempts some used one.
        let drain = ["--drain", "--drain-timeout", "30s", "--backoff-base", "5ms"];
        self.run(&server.url(), &drain).exits(0);
        let (taken, dead) = (self.settled("acknowledged"), self.settled("dead-lettered"));
        assert!(taken.is_disjoint(&dead), "{taken:?} {dead:?}");
        let all: BTreeSet<String> = self.keys.iter().cloned().collect();
        assert_eq!(&taken | &dead, all, "all of them are settled");
        let stored: BTreeSet<String> = server.stored().into_iter().collect();
        assert!(taken.is_subset(&stored), "what was acknowledged is there: {taken:?} {stored:?}");
        check_requests(server, &[SECRET]);
    }
}

/// All bodies of a key are the same, and all signatures right.
pub fn check_requests(server: &Hostile, secrets: &[&str]) {
    server.bodies();
    for request in server.requests().iter().filter(|it| !it.body.is_empty()) {
        signature::check(request, secrets).unwrap();
        assert_eq!(request.header("content-type"), Some("application/json"));
    }
}

/// A pass in this mode, what must come of it, and a good end.
pub fn meet(mode: &Mode, expected: &Expected) {
    for concurrency in CONCURRENCY {
        let server = Hostile::start(mode.clone());
        let bench = Bench::new(3).more(concurrency);
        bench.pass(&server.url(), expected, &[]);
        bench.expect(expected);
        // One more for each where a kept connection was stale.
        assert!(server.connections() <= 6 && server.count() <= 6, "{mode:?}: {}", server.count());
        bench.recover(&server);
    }
}

/// The most memory that a running process has had so far.
fn memory_kib(child: &Child) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap();
    let line = status.lines().find(|it| it.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// Kills a process that does not end, so that a test fails where it would hang.
pub struct Watchdog {
    _end: mpsc::Sender<()>,
}

impl Watchdog {
    pub fn of(child: &Child) -> Watchdog {
        let (end, ended) = mpsc::channel::<()>();
        let pid = child.id().to_string();
        thread::spawn(move || {
            if ended.recv_timeout(PASS_MAX * 2) == Err(mpsc::RecvTimeoutError::Timeout) {
                drop(Command::new("kill").args(["-9", &pid]).status());
            }
        });
        Watchdog { _end: end }
    }
}
