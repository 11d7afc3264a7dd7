//! A logs folder with a queue, and the outside that the engine sees: answers, clock and luck by a script.

use std::{collections::VecDeque, panic, time::Duration};

use milepost::{
    Result, Timestamp,
    delivery::{
        Consumer, Engine, Fate, Level, Outgoing, Pause, Returned, Settings, State, Summary, World,
        verdict::{AckMode, Attempted, HttpAnswer, Unanswered},
    },
    envelope::{DeadLetter, EventEnvelope, MILESTONE_EMITTED},
    journal::{Batch, Item, JournalName, Reader},
    logs::Logs,
};
use serde_json::{Value, json};

/// A logs folder with a queue.
pub struct Bench {
    pub dir: tempfile::TempDir,
    pub logs: Logs,
}

impl Bench {
    pub fn new() -> Bench {
        let dir = tempfile::tempdir().unwrap();
        let logs = Logs::open(Some(dir.path()), "milestone-deliver").unwrap();
        Bench { dir, logs }
    }

    pub fn consumer(&self) -> Consumer {
        Consumer::new(&self.logs, JournalName::internal("milestone-delivery-queue"), "").unwrap()
    }

    /// Appends a milestone for each (id, scope).
    pub fn enqueue(&self, items: &[(String, String)]) {
        self.enqueue_for(items, None);
    }

    pub fn enqueue_for(&self, items: &[(String, String)], endpoint: Option<&str>) {
        let mut lines = Vec::new();
        for (id, scope) in items {
            let payload = json!({ "milestoneId": id, "scope": scope, "claim": "done" });
            let mut it = EventEnvelope::new(
                MILESTONE_EMITTED,
                "t",
                "feed",
                format!("milestone:{id}"),
                &payload,
                start(),
            )
            .unwrap();
            it.endpoint = endpoint.map(str::to_owned);
            let mut line = Vec::new();
            it.write_line(&mut line).unwrap();
            lines.push(line);
        }
        self.append(&lines);
    }

    pub fn append(&self, lines: &[Vec<u8>]) {
        let mut writer = self.consumer().queue().write().unwrap();
        for chunk in lines.chunks(1000) {
            let mut batch = Batch::default();
            for it in chunk {
                batch.push(it);
            }
            writer.append(&batch).unwrap();
        }
    }

    pub fn state(&self) -> State {
        serde_json::from_slice(&std::fs::read(self.dir.path().join(self.consumer().state_file())).unwrap())
            .unwrap()
    }

    pub fn forget_state(&self) {
        drop(std::fs::remove_file(self.dir.path().join(self.consumer().state_file())));
    }

    pub fn dead_letters(&self) -> Vec<DeadLetter> {
        self.lines("milestone-delivery-deadletter")
            .iter()
            .map(|it| DeadLetter::from_line(it).unwrap())
            .collect()
    }

    pub fn audit(&self, action: &str, outcome: &str) -> Vec<Value> {
        let all = self.lines("audit");
        let all = all.iter().map(|it| serde_json::from_slice::<Value>(it).unwrap());
        all.filter(|it| it["action"] == action && it["outcome"] == outcome).collect()
    }

    pub fn lines(&self, name: &str) -> Vec<Vec<u8>> {
        let mut reader = Reader::open_at(&self.logs, &JournalName::internal(name), 0).unwrap();
        let mut lines = Vec::new();
        while let Some(Item::Line { text, .. }) = reader.next_item().unwrap() {
            lines.push(text.to_vec());
        }
        lines
    }

    pub fn engine(&self, wire: &mut Wire<'_>) -> Engine {
        Engine::open(&self.consumer(), settings(), wire).unwrap()
    }

    /// One run: what it did, and when the next attempt is due.
    pub fn run(&self, wire: &mut Wire<'_>) -> Summary {
        run(&self.consumer(), Settings { concurrency: wire.couriers, ..settings() }, wire).unwrap()
    }

    /// Runs at every due time until nothing is pending.
    pub fn drain(&self, wire: &mut Wire<'_>) -> Summary {
        for _ in 0..100_000 {
            let summary = self.run(wire);
            match summary.next_attempt_utc {
                Some(due) if summary.pending > 0 => wire.now = wire.now.max(due),
                _ => return summary,
            }
        }
        panic!("it never ends");
    }
}

pub fn run(consumer: &Consumer, settings: Settings, wire: &mut Wire<'_>) -> Result<Summary> {
    // A process takes what it had under way with it.
    (wire.runs, wire.begun, wire.returned) = Default::default();
    let mut engine = Engine::open(consumer, settings, wire)?;
    let pause = engine.run(wire)?;
    let Pause::Until(next) = pause else { panic!("stopped") };
    engine.finish()?;
    engine.summary(next)
}

pub fn settings() -> Settings {
    Settings { url: "http://127.0.0.1/".into(), ..Settings::default() }
}

pub fn start() -> Timestamp {
    Timestamp::parse_utc("2026-11-20T10:00:00Z").unwrap()
}

pub fn items(count: usize, scopes: usize) -> Vec<(String, String)> {
    (0..count).map(|it| (format!("m{it}"), format!("s{}", it % scopes))).collect()
}

/// What a request was.
#[derive(Clone, Debug)]
pub struct Posted {
    pub at: Timestamp,
    pub id: String,
    pub scope: String,
    pub body: Vec<u8>,
}

/// The scripted outside.
pub struct Wire<'a> {
    pub now: Timestamp,
    pub answer: Box<dyn FnMut(&Posted) -> Attempted + 'a>,
    pub posts: Vec<Posted>,
    pub runs: VecDeque<VecDeque<Outgoing>>,
    /// Each courier's request with its answer, and the rest of its run.
    pub begun: Vec<(Outgoing, Attempted, VecDeque<Outgoing>)>,
    pub returned: Vec<Returned>,
    /// How many requests are on the wire at once; which of them is answered first is a matter of luck.
    pub couriers: usize,
    pub luck: Dice,
    /// How many items a batch may have, as it is announced.
    pub batch: Option<usize>,
    /// How long the answer to an item takes.
    pub takes: Duration,
    /// Panics in this post, after the answer was made: the process dies with the answer unread.
    pub die_in: Option<usize>,
    pub said: Vec<(Level, String)>,
}

impl<'a> Wire<'a> {
    pub fn new(answer: impl FnMut(&Posted) -> Attempted + 'a) -> Wire<'a> {
        Wire {
            now: start(),
            answer: Box::new(answer),
            posts: Vec::new(),
            runs: VecDeque::new(),
            begun: Vec::new(),
            returned: Vec::new(),
            couriers: 1,
            luck: Dice(1),
            batch: None,
            takes: Duration::from_millis(7),
            die_in: None,
            said: Vec::new(),
        }
    }

    /// With one courier or several, to a receiver that takes batches or does not.
    pub fn varied(mut self, seed: u64) -> Wire<'a> {
        self.couriers = [1, 3, 8][usize::try_from(seed % 3).unwrap()];
        self.batch = [None, Some(10)][usize::try_from(seed / 3 % 2).unwrap()];
        self.luck = Dice(seed);
        self
    }

    pub fn ids(&self) -> Vec<&str> {
        self.posts.iter().map(|it| it.id.as_str()).collect()
    }
}

impl World for Wire<'_> {
    fn now(&mut self) -> Timestamp {
        self.now
    }

    fn start(&mut self, run: Vec<Outgoing>) -> Result<()> {
        self.runs.push_back(run.into());
        Ok(())
    }

    /// Begins what can be begun, and answers one of the requests on the wire.
    fn returned(&mut self, _: Duration) -> Vec<Returned> {
        while self.begun.len() < self.couriers
            && let Some(run) = self.runs.pop_front()
        {
            self.begin(run);
        }
        if self.returned.is_empty() {
            let lucky = self.luck.roll(self.begun.len() as u64);
            let (outgoing, attempted, rest) = self.begun.swap_remove(usize::try_from(lucky).unwrap());
            let judged = outgoing.judge(&attempted, AckMode::Contract, self.now);
            if judged.is_all_well() {
                self.begin(rest);
            } else {
                self.runs.push_back(rest);
                self.recall();
            }
            self.returned.push(Returned { ticket: outgoing.ticket, fate: Fate::Judged(Box::new(judged)) });
        }
        std::mem::take(&mut self.returned)
    }

    fn recall(&mut self) {
        let rests = self.begun.iter_mut().flat_map(|it| std::mem::take(&mut it.2));
        let unsent = self.runs.drain(..).flatten().chain(rests);
        self.returned.extend(unsent.map(|it| Returned { ticket: it.ticket, fate: Fate::Unsent }));
    }

    fn is_stopping(&self) -> bool {
        false
    }

    fn say(&mut self, level: Level, text: &str) {
        self.said.push((level, text.to_owned()));
    }
}

impl Wire<'_> {
    /// Makes the first request of a run; its answer comes later.
    pub fn begin(&mut self, mut run: VecDeque<Outgoing>) {
        let Some(outgoing) = run.pop_front() else { return };
        let attempted = self.post(&outgoing);
        self.begun.push((outgoing, attempted, run));
    }

    pub fn post(&mut self, outgoing: &Outgoing) -> Attempted {
        let bytes = outgoing.body();
        let body: Value = serde_json::from_slice(&bytes).unwrap();
        if !outgoing.is_batch {
            let answer = self.answer_to(&body, &bytes);
            return match answer {
                Attempted::Answered(it) => {
                    let batch = self.batch.map(|it| it.to_string());
                    Attempted::Answered(HttpAnswer { batch, ..it })
                }
                other => other,
            };
        }
        let items = body["items"].as_array().unwrap();
        assert!(items.len() <= self.batch.unwrap() && items.len() == outgoing.items.len());
        let mut results = Vec::new();
        for item in items {
            let answer = self.answer_to(item, &serde_json::to_vec(item).unwrap());
            let Attempted::Answered(HttpAnswer { status: 200 | 400, body, .. }) = &answer else {
                return answer;
            };
            let mut result: Value = serde_json::from_slice(body).unwrap();
            result["idempotencyKey"] = item["idempotencyKey"].clone();
            results.push(result);
        }
        status(200, &json!({ "ok": true, "results": results }).to_string())
    }

    pub fn answer_to(&mut self, body: &Value, bytes: &[u8]) -> Attempted {
        let text = |it: &Value| it.as_str().unwrap_or_default().to_owned();
        let posted = Posted {
            at: self.now,
            id: text(&body["event"]["milestoneId"]),
            scope: text(&body["event"]["scope"]),
            body: bytes.to_vec(),
        };
        self.posts.push(posted.clone());
        self.now = self.now.plus(self.takes);
        let answer = (self.answer)(&posted);
        if self.die_in == Some(self.posts.len()) {
            panic::resume_unwind(Box::new("killed"));
        }
        answer
    }
}

pub fn status(status: u16, body: &str) -> Attempted {
    Attempted::Answered(HttpAnswer { status, body: body.into(), ..HttpAnswer::default() })
}

pub fn accepted(it: &Posted) -> Attempted {
    status(200, &json!({"ok":true,"status":"accepted","milestoneId":it.id}).to_string())
}

pub fn rejected() -> Attempted {
    status(400, r#"{"ok":false,"status":"rejected","reason":"no"}"#)
}

pub fn timeout() -> Attempted {
    Attempted::Unanswered { how: Unanswered::Timeout, what: "no answer within 30 s".into() }
}

/// Small, fast, repeatable: an LCG of Knuth's.
pub struct Dice(pub u64);

impl Dice {
    pub fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % sides
    }
}
