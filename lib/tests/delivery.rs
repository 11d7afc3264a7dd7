//! The delivery engine against a scripted wire and a scripted clock: order, retries, breaker, crashes.
#![expect(clippy::unwrap_used, reason = "test helpers, not only tests, fail loudly")]

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    fs::File,
    io,
    panic::{self, AssertUnwindSafe},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use milepost::{
    Kind, Result, Timestamp,
    delivery::{
        Command, Consumer, Control, Engine, Fate, LANES_MAX, Level, Outgoing, Pause, Returned, Settings,
        State, Summary, World,
        backoff::Schedule,
        breaker::{Cause, Gate},
        resync,
        verdict::{AckMode, Attempted, HttpAnswer, Unanswered},
    },
    durable::Disk,
    envelope::{DeadLetter, EventEnvelope, MILESTONE_EMITTED},
    journal::{Batch, Item, JournalName, Reader, Resync},
    logs::Logs,
};
use serde_json::{Value, json};

/// A logs folder with a queue.
struct Bench {
    dir: tempfile::TempDir,
    logs: Logs,
}

impl Bench {
    fn new() -> Bench {
        let dir = tempfile::tempdir().unwrap();
        let logs = Logs::open(Some(dir.path()), "milestone-deliver").unwrap();
        Bench { dir, logs }
    }

    fn consumer(&self) -> Consumer {
        Consumer::new(&self.logs, JournalName::internal("milestone-delivery-queue"), "").unwrap()
    }

    /// Appends a milestone for each (id, scope).
    fn enqueue(&self, items: &[(String, String)]) {
        self.enqueue_for(items, None);
    }

    fn enqueue_for(&self, items: &[(String, String)], endpoint: Option<&str>) {
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

    fn append(&self, lines: &[Vec<u8>]) {
        let mut writer = self.consumer().queue().write().unwrap();
        for chunk in lines.chunks(1000) {
            let mut batch = Batch::default();
            for it in chunk {
                batch.push(it);
            }
            writer.append(&batch).unwrap();
        }
    }

    fn state(&self) -> State {
        serde_json::from_slice(&std::fs::read(self.dir.path().join(self.consumer().state_file())).unwrap())
            .unwrap()
    }

    fn forget_state(&self) {
        drop(std::fs::remove_file(self.dir.path().join(self.consumer().state_file())));
    }

    fn dead_letters(&self) -> Vec<DeadLetter> {
        self.lines("milestone-delivery-deadletter")
            .iter()
            .map(|it| DeadLetter::from_line(it).unwrap())
            .collect()
    }

    fn audit(&self, action: &str, outcome: &str) -> Vec<Value> {
        let all = self.lines("audit");
        let all = all.iter().map(|it| serde_json::from_slice::<Value>(it).unwrap());
        all.filter(|it| it["action"] == action && it["outcome"] == outcome).collect()
    }

    fn lines(&self, name: &str) -> Vec<Vec<u8>> {
        let mut reader = Reader::open_at(&self.logs, &JournalName::internal(name), 0).unwrap();
        let mut lines = Vec::new();
        while let Some(Item::Line { text, .. }) = reader.next_item().unwrap() {
            lines.push(text.to_vec());
        }
        lines
    }

    fn engine(&self, wire: &mut Wire<'_>) -> Engine {
        Engine::open(&self.consumer(), settings(), wire).unwrap()
    }

    /// One run: what it did, and when the next attempt is due.
    fn run(&self, wire: &mut Wire<'_>) -> Summary {
        run(&self.consumer(), Settings { concurrency: wire.couriers, ..settings() }, wire).unwrap()
    }

    /// Runs at every due time until nothing is pending.
    fn drain(&self, wire: &mut Wire<'_>) -> Summary {
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

fn run(consumer: &Consumer, settings: Settings, wire: &mut Wire<'_>) -> Result<Summary> {
    // A process takes what it had under way with it.
    (wire.runs, wire.begun, wire.returned) = Default::default();
    let mut engine = Engine::open(consumer, settings, wire)?;
    let pause = engine.run(wire)?;
    let Pause::Until(next) = pause else { panic!("stopped") };
    engine.finish()?;
    engine.summary(next)
}

fn settings() -> Settings {
    Settings { url: "http://127.0.0.1/".into(), ..Settings::default() }
}

fn start() -> Timestamp {
    Timestamp::parse_utc("2026-11-20T10:00:00Z").unwrap()
}

fn items(count: usize, scopes: usize) -> Vec<(String, String)> {
    (0..count).map(|it| (format!("m{it}"), format!("s{}", it % scopes))).collect()
}

/// What a request was.
#[derive(Clone, Debug)]
struct Posted {
    at: Timestamp,
    id: String,
    scope: String,
    body: Vec<u8>,
}

/// The scripted outside.
struct Wire<'a> {
    now: Timestamp,
    answer: Box<dyn FnMut(&Posted) -> Attempted + 'a>,
    posts: Vec<Posted>,
    runs: VecDeque<VecDeque<Outgoing>>,
    /// Each courier's request with its answer, and the rest of its run.
    begun: Vec<(Outgoing, Attempted, VecDeque<Outgoing>)>,
    returned: Vec<Returned>,
    /// How many requests are on the wire at once; which of them is answered first is a matter of luck.
    couriers: usize,
    luck: Dice,
    /// How many items a batch may have, as it is announced.
    batch: Option<usize>,
    /// Panics in this post, after the answer was made: the process dies with the answer unread.
    die_in: Option<usize>,
    said: Vec<(Level, String)>,
}

impl<'a> Wire<'a> {
    fn new(answer: impl FnMut(&Posted) -> Attempted + 'a) -> Wire<'a> {
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
            die_in: None,
            said: Vec::new(),
        }
    }

    /// With one courier or several, to a receiver that takes batches or does not.
    fn varied(mut self, seed: u64) -> Wire<'a> {
        self.couriers = [1, 3, 8][usize::try_from(seed % 3).unwrap()];
        self.batch = [None, Some(10)][usize::try_from(seed / 3 % 2).unwrap()];
        self.luck = Dice(seed);
        self
    }

    fn ids(&self) -> Vec<&str> {
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
    fn begin(&mut self, mut run: VecDeque<Outgoing>) {
        let Some(outgoing) = run.pop_front() else { return };
        let attempted = self.post(&outgoing);
        self.begun.push((outgoing, attempted, run));
    }

    fn post(&mut self, outgoing: &Outgoing) -> Attempted {
        let body: Value = serde_json::from_slice(&outgoing.body).unwrap();
        if !outgoing.is_batch {
            let answer = self.answer_to(&body, &outgoing.body);
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

    fn answer_to(&mut self, body: &Value, bytes: &[u8]) -> Attempted {
        let text = |it: &Value| it.as_str().unwrap_or_default().to_owned();
        let posted = Posted {
            at: self.now,
            id: text(&body["event"]["milestoneId"]),
            scope: text(&body["event"]["scope"]),
            body: bytes.to_vec(),
        };
        self.posts.push(posted.clone());
        self.now = self.now.plus(Duration::from_millis(7));
        let answer = (self.answer)(&posted);
        if self.die_in == Some(self.posts.len()) {
            panic::resume_unwind(Box::new("killed"));
        }
        answer
    }
}

fn status(status: u16, body: &str) -> Attempted {
    Attempted::Answered(HttpAnswer { status, body: body.into(), ..HttpAnswer::default() })
}

fn accepted(it: &Posted) -> Attempted {
    status(200, &json!({"ok":true,"status":"accepted","milestoneId":it.id}).to_string())
}

fn rejected() -> Attempted {
    status(400, r#"{"ok":false,"status":"rejected","reason":"no"}"#)
}

fn timeout() -> Attempted {
    Attempted::Unanswered { how: Unanswered::Timeout, what: "no answer within 30 s".into() }
}

#[test]
fn everything_is_delivered_once_in_order_and_audited_once() {
    let bench = Bench::new();
    bench.enqueue(&items(700, 7));
    let mut wire = Wire::new(accepted);
    let summary = bench.run(&mut wire);
    assert_eq!((summary.delivered, summary.pending, summary.retrying), (700, 0, 0));
    assert_eq!(summary.next_attempt_utc, None);
    let expected: Vec<_> = (0..700).map(|it| format!("m{it}")).collect();
    assert_eq!(wire.ids(), expected);
    assert_eq!(bench.audit("deliver", "acknowledged").len(), 700);
    let audit = bench.lines("audit").len();
    let state = bench.state();
    assert_eq!(state.last_ack.as_ref().unwrap().count, 700);

    let summary = bench.run(&mut wire);
    assert_eq!((summary.delivered, summary.pending), (0, 0));
    assert_eq!((wire.posts.len(), bench.lines("audit").len()), (700, audit));
    assert_eq!(bench.state(), state, "an idle pass changes nothing");
}

#[test]
fn an_idle_pass_writes_nothing_at_all() {
    let bench = Bench::new();
    let mut wire = Wire::new(accepted);
    bench.run(&mut wire);
    assert!(!bench.dir.path().join(bench.consumer().state_file()).exists());
    assert_eq!(bench.lines("audit").len(), 0);
}

#[test]
fn a_blocked_scope_holds_its_own_items_and_no_others() {
    let bench = Bench::new();
    bench.enqueue(&items(9, 3));
    let mut failures = 3;
    let mut wire = Wire::new(move |it| {
        if it.id == "m1" && failures > 0 {
            failures -= 1;
            return status(500, "oops");
        }
        accepted(it)
    });
    let summary = bench.run(&mut wire);
    assert_eq!(wire.ids(), ["m0", "m1", "m2", "m3", "m5", "m6", "m8"]);
    assert_eq!((summary.delivered, summary.retrying, summary.pending), (6, 1, 3));
    let summary = bench.drain(&mut wire);
    assert_eq!(summary.pending, 0);
    assert_eq!(wire.ids()[7..], ["m1", "m1", "m1", "m4", "m7"]);
    let times: Vec<_> = wire.posts.iter().filter(|it| it.id == "m1").map(|it| it.at).collect();
    for (pair, least) in times.windows(2).zip([5, 20, 80]) {
        assert!(pair[1].since(pair[0]) >= Duration::from_secs(least));
    }
    let bodies: BTreeSet<_> = wire.posts.iter().filter(|it| it.id == "m1").map(|it| &it.body).collect();
    assert_eq!(bodies.len(), 1, "every attempt has the same bytes");
}

#[test]
fn strict_order_waits_for_the_first_and_none_for_nobody() {
    for (order, expected) in [
        (milepost::delivery::Order::Strict, vec!["m0", "m1"]),
        (milepost::delivery::Order::None, vec!["m0", "m1", "m2", "m3", "m4", "m5"]),
    ] {
        let bench = Bench::new();
        bench.enqueue(&items(6, 2));
        let mut wire = Wire::new(|it| if it.id == "m1" { status(500, "") } else { accepted(it) });
        run(&bench.consumer(), Settings { order, ..settings() }, &mut wire).unwrap();
        assert_eq!(wire.ids(), expected);
        // Another order from here on: everything is delivered all the same, once.
        let mut wire = Wire::new(accepted);
        wire.now = start().plus(Duration::from_secs(60));
        assert_eq!(bench.drain(&mut wire).pending, 0);
        assert_eq!(wire.posts.len(), 7 - expected.len());
    }
}

#[test]
fn ten_failed_attempts_make_a_dead_letter_that_unblocks_its_scope() {
    let bench = Bench::new();
    bench.enqueue(&items(4, 1));
    let mut wire = Wire::new(|it| if it.id == "m1" { status(500, "boom") } else { accepted(it) });
    let summary = bench.drain(&mut wire);
    assert_eq!((summary.pending, wire.posts.len()), (0, 13));
    assert_eq!(wire.ids()[11..], ["m2", "m3"]);
    let [dead] = &bench.dead_letters()[..] else { panic!("one dead letter") };
    assert_eq!(dead.envelope().idempotency_key, "milestone:m1");
    assert_eq!(dead.attempts.len(), 10);
    assert!(dead.attempts.iter().all(|it| it.status == Some(500) && it.answer == "boom"));
    assert_eq!(dead.reason, "given up after 10 attempts: HTTP 500: boom");
    let [audited] = &bench.audit("deliver", "dead-lettered")[..] else { panic!("audited once") };
    assert_eq!(audited["detail"]["journal"], "milestone-delivery-deadletter");
    assert_eq!(audited["detail"]["offset"], 0);
}

#[test]
fn an_item_that_is_too_old_is_given_up_by_its_next_failed_attempt() {
    let bench = Bench::new();
    bench.enqueue(&items(1, 1));
    let schedule = Schedule { age_max: Duration::from_secs(30), ..Schedule::default() };
    let settings = Settings { schedule, ..settings() };
    let mut wire = Wire::new(|_| status(500, ""));
    for _ in 0..3 {
        run(&bench.consumer(), settings.clone(), &mut wire).unwrap();
        wire.now = wire.now.plus(Duration::from_secs(25));
    }
    assert_eq!((bench.dead_letters().len(), wire.posts.len()), (1, 3));
}

#[test]
fn a_rejection_is_a_dead_letter_at_once() {
    let bench = Bench::new();
    bench.enqueue(&items(3, 1));
    let mut wire = Wire::new(|it| if it.id == "m1" { rejected() } else { accepted(it) });
    let summary = bench.run(&mut wire);
    assert_eq!((summary.delivered, summary.dead_lettered, summary.pending), (2, 1, 0));
    let [dead] = &bench.dead_letters()[..] else { panic!("one dead letter") };
    assert_eq!((dead.reason.as_str(), dead.attempts.len()), ("rejected: HTTP 400: no", 1));
}

#[test]
fn the_tenth_rejection_in_a_row_opens_the_breaker_instead() {
    let bench = Bench::new();
    bench.enqueue(&items(30, 30));
    let mut wire = Wire::new(|_| rejected());
    let summary = bench.run(&mut wire);
    assert_eq!((summary.dead_lettered, summary.pending, wire.posts.len()), (9, 21, 10));
    assert_eq!(bench.state().breaker.cause, Some(Cause::Items));
    for _ in 0..20 {
        wire.now = wire.now.plus(Duration::from_secs(3600));
        assert_eq!(bench.run(&mut wire).dead_lettered, 0);
    }
    assert_eq!(wire.posts.len(), 30);
    wire.answer = Box::new(accepted);
    assert_eq!(bench.drain(&mut wire).pending, 0);
    assert_eq!(bench.dead_letters().len(), 9);
}

#[test]
fn a_wrong_secret_opens_the_breaker_at_once_and_uses_no_attempt() {
    for answer in [status(401, ""), status(404, ""), status(307, ""), status(200, "<html>"), status(418, "")]
    {
        let bench = Bench::new();
        bench.enqueue(&items(10, 10));
        let mut wire = Wire::new(|_| answer.clone());
        let summary = bench.run(&mut wire);
        assert_eq!((wire.posts.len(), summary.pending, summary.dead_lettered), (1, 10, 0));
        let breaker = bench.state().breaker;
        assert_eq!((breaker.state, breaker.cause), (Gate::Open, Some(Cause::Configuration)));
        for _ in 0..50 {
            wire.now = wire.now.plus(Duration::from_secs(400));
            bench.run(&mut wire);
        }
        assert_eq!(wire.posts.len(), 51);
        assert_eq!(bench.dead_letters().len(), 0);
        wire.answer = Box::new(accepted);
        assert_eq!(bench.drain(&mut wire).pending, 0);
    }
}

#[test]
fn a_gone_endpoint_is_held_until_it_is_released() {
    let bench = Bench::new();
    bench.enqueue(&items(5, 5));
    let mut wire = Wire::new(|_| status(410, ""));
    let summary = bench.run(&mut wire);
    assert_eq!((wire.posts.len(), summary.pending, summary.next_attempt_utc), (1, 5, None));
    wire.now = wire.now.plus(Duration::from_secs(86_400));
    bench.run(&mut wire);
    assert_eq!(wire.posts.len(), 1);
    bench.forget_state();
    bench.run(&mut wire);
    assert_eq!((wire.posts.len(), bench.state().breaker.state), (1, Gate::Held), "a rebuild knows it");
    wire.answer = Box::new(accepted);
    Control { at: wire.now, command: Command::Release }.append(&bench.consumer()).unwrap();
    assert_eq!(bench.run(&mut wire).delivered, 5);
    assert_eq!(wire.ids(), ["m0", "m0", "m1", "m2", "m3", "m4"]);
}

#[test]
fn commands_are_followed_once_with_and_without_state() {
    let bench = Bench::new();
    bench.enqueue(&items(2, 1));
    let give = |command| Control { at: start(), command }.append(&bench.consumer()).unwrap();
    give(Command::Hold { reason: "deploying".into() });
    let mut wire = Wire::new(accepted);
    assert_eq!(bench.run(&mut wire).pending, 2);
    bench.forget_state();
    assert_eq!(bench.run(&mut wire).pending, 2);
    assert_eq!(bench.state().breaker.reason, "deploying");
    give(Command::Release);
    bench.forget_state();
    wire.answer = Box::new(|_| status(500, ""));
    assert_eq!(bench.run(&mut wire).retrying, 1);
    give(Command::RetryNow);
    wire.answer = Box::new(accepted);
    assert_eq!(bench.run(&mut wire).delivered, 2);
}

#[test]
fn another_url_resets_the_breaker_but_not_what_the_operator_held() {
    let bench = Bench::new();
    bench.enqueue(&items(2, 1));
    let mut wire = Wire::new(|_| status(404, ""));
    bench.run(&mut wire);
    let other = Settings { url: "http://127.0.0.1/other".into(), ..settings() };
    wire.now = wire.now.plus(Duration::from_secs(8));
    Control { at: start(), command: Command::Hold { reason: "x".into() } }.append(&bench.consumer()).unwrap();
    bench.run(&mut wire);
    run(&bench.consumer(), other.clone(), &mut wire).unwrap();
    assert_eq!((wire.posts.len(), bench.state().breaker.state), (1, Gate::Held));
    Control { at: start(), command: Command::Release }.append(&bench.consumer()).unwrap();
    wire.answer = Box::new(accepted);
    assert_eq!(run(&bench.consumer(), other, &mut wire).unwrap().delivered, 2);
}

#[test]
fn a_day_of_outage_with_ten_thousand_waiting_costs_probes_only() {
    let bench = Bench::new();
    bench.enqueue(&items(10_000, 10_000));
    let mut wire = Wire::new(|_| status(503, ""));
    let mut sizes = Vec::new();
    while wire.now < start().plus(Duration::from_secs(86_400)) {
        let summary = bench.run(&mut wire);
        assert_eq!((summary.pending, summary.dead_lettered), (10_000, 0));
        wire.now = summary.next_attempt_utc.unwrap();
        sizes.push(std::fs::metadata(bench.dir.path().join(bench.consumer().state_file())).unwrap().len());
    }
    assert!(wire.posts.len() < 5 + 24 * 15 + 10, "{}", wire.posts.len());
    assert!(sizes.iter().all(|it| *it < 4096), "{sizes:?}");
    let scopes: BTreeSet<_> = wire.posts[5..105].iter().map(|it| &it.scope).collect();
    assert!(scopes.len() > 45, "probes go through the scopes: {}", scopes.len());
    wire.answer = Box::new(accepted);
    let before = wire.posts.len();
    assert_eq!(bench.drain(&mut wire).pending, 0);
    assert_eq!(wire.posts.len() - before, 10_000, "nothing is sent twice");
    assert!(bench.dead_letters().is_empty());
}

#[test]
fn one_poisoned_text_holds_nothing_for_ever_whatever_it_is_answered() {
    for poison in [status(503, ""), timeout(), status(403, "blocked"), status(500, ""), status(200, "<html>")]
    {
        let bench = Bench::new();
        bench.enqueue(&items(5, 5));
        let mut wire = Wire::new(|it| if it.id == "m2" { poison.clone() } else { accepted(it) });
        let mut later = 0;
        for _ in 0..200 {
            let summary = bench.run(&mut wire);
            // Some traffic goes on, in the poisoned scope too.
            if later < 40 {
                bench.enqueue(&[(format!("x{later}"), format!("s{}", later % 5))]);
                later += 1;
            } else if summary.pending == 0 {
                break;
            }
            wire.now =
                wire.now.max(summary.next_attempt_utc.unwrap_or(wire.now)).plus(Duration::from_secs(1));
        }
        let dead = bench.dead_letters();
        assert_eq!(dead.len(), 1, "{poison:?}");
        assert_eq!(
            (dead[0].envelope().idempotency_key.as_str(), dead[0].attempts.len()),
            ("milestone:m2", 10)
        );
        assert_eq!(bench.audit("deliver", "acknowledged").len(), 44);
    }
}

#[test]
fn the_first_failure_of_every_key_does_not_stop_the_flow() {
    let bench = Bench::new();
    bench.enqueue(&items(100, 20));
    let mut seen = BTreeSet::new();
    let mut wire =
        Wire::new(move |it| if seen.insert(it.id.clone()) { status(503, "") } else { accepted(it) });
    assert_eq!(bench.drain(&mut wire).pending, 0);
    assert_eq!(bench.audit("deliver", "acknowledged").len(), 100);
    assert!(wire.now.since(start()) < Duration::from_secs(3600), "{:?}", wire.now.since(start()));
}

#[test]
fn retry_after_is_never_undercut() {
    let bench = Bench::new();
    bench.enqueue(&items(3, 3));
    let mut not_before: BTreeMap<String, Timestamp> = BTreeMap::new();
    let mut tries: BTreeMap<String, u32> = BTreeMap::new();
    let mut wire = Wire::new(move |it| {
        assert!(not_before.get(&it.id).is_none_or(|due| it.at >= *due), "{} at {}", it.id, it.at);
        let tries = tries.entry(it.id.clone()).or_default();
        *tries += 1;
        if *tries > 4 {
            return accepted(it);
        }
        let seconds = [600, 0, 3, 7200][*tries as usize - 1];
        not_before.insert(it.id.clone(), it.at.plus(Duration::from_secs(seconds)));
        let retry_after = Some(seconds.to_string());
        Attempted::Answered(HttpAnswer { status: 429, retry_after, ..HttpAnswer::default() })
    });
    assert_eq!(bench.drain(&mut wire).pending, 0);
}

#[test]
fn a_clock_that_goes_back_delays_nothing_for_long() {
    let bench = Bench::new();
    bench.enqueue(&items(1, 1));
    let mut fails = 1;
    let mut wire = Wire::new(move |it| {
        fails -= 1;
        if fails >= 0 { status(500, "") } else { accepted(it) }
    });
    bench.run(&mut wire);
    wire.now = start().minus(Duration::from_secs(400 * 86_400));
    let due = bench.run(&mut wire).next_attempt_utc.unwrap();
    assert!(due <= wire.now.plus(Duration::from_secs(7)));
    wire.now = due;
    assert_eq!(bench.run(&mut wire).delivered, 1);
}

#[test]
fn invalid_records_are_kept_aside_once_and_passed_over() {
    let bench = Bench::new();
    bench.enqueue(&items(1, 1));
    bench.append(
        &[
            b"not json\n".to_vec(),
            b"{}\n".to_vec(),
            br#"{"idempotency_key":"milestone:x","payload":{"scope":"s"},"schema_version":"2.0.0"}"#
                .iter()
                .chain(b"\n")
                .copied()
                .collect(),
        ],
    );
    bench.enqueue(&[("last".into(), "s0".into())]);
    let mut wire = Wire::new(accepted);
    let summary = bench.run(&mut wire);
    assert_eq!((summary.delivered, summary.pending), (2, 0));
    assert_eq!(bench.audit("deliver", "quarantined").len(), 3);
    assert_eq!(std::fs::read_dir(bench.dir.path().join("quarantine")).unwrap().count(), 3);
    let errors = wire.said.iter().filter(|(level, _)| *level == Level::Error).count();
    bench.run(&mut wire);
    assert_eq!((errors, wire.said.iter().filter(|(level, _)| *level == Level::Error).count()), (3, 3));
}

#[test]
fn records_for_another_endpoint_are_not_ours() {
    let bench = Bench::new();
    bench.enqueue(&items(2, 1));
    bench.enqueue_for(&[("redriven".into(), "s0".into())], Some("backup"));
    bench.enqueue_for(&[("again".into(), "s0".into())], Some(""));
    let mut wire = Wire::new(|_| status(401, ""));
    assert_eq!(bench.run(&mut wire).pending, 3);
    wire.answer = Box::new(accepted);
    wire.now = wire.now.plus(Duration::from_secs(60));
    bench.run(&mut wire);
    assert_eq!(wire.ids(), ["m0", "m0", "m1", "again"]);
    let backup =
        Consumer::new(&bench.logs, JournalName::internal("milestone-delivery-queue"), "backup").unwrap();
    assert_eq!(backup.state_file(), "milestone-delivery-state.backup.json");
    let mut wire = Wire::new(accepted);
    assert_eq!(run(&backup, settings(), &mut wire).unwrap().delivered, 3);
    assert_eq!(wire.ids(), ["m0", "m1", "redriven"]);
}

#[test]
fn at_the_limit_of_lanes_reading_ahead_pauses() {
    let bench = Bench::new();
    let count = LANES_MAX + 50;
    bench.enqueue(&items(count, count));
    let mut wire = Wire::new(|_| status(500, ""));
    let schedule = Schedule { base: Duration::from_secs(3600), ..Schedule::default() };
    let summary = run(&bench.consumer(), Settings { schedule, ..settings() }, &mut wire).unwrap();
    assert_eq!((wire.posts.len(), summary.retrying, summary.pending), (LANES_MAX, 10_000, count as u64));
    wire.answer = Box::new(accepted);
    wire.now = wire.now.plus(Duration::from_secs(3 * 3600));
    assert_eq!(bench.drain(&mut wire).pending, 0);
    assert_eq!(wire.posts.len(), LANES_MAX + count);
}

#[test]
fn a_queue_that_was_cut_stops_delivery_until_resync() {
    let bench = Bench::new();
    bench.enqueue(&items(20, 2));
    let mut wire = Wire::new(accepted);
    bench.run(&mut wire);
    let path = bench.dir.path().join("milestone-delivery-queue.jsonl");
    let bytes = std::fs::read(&path).unwrap();
    let half = bytes[..bytes.len() / 2].iter().rposition(|it| *it == b'\n').unwrap() as u64 + 1;
    File::options().write(true).open(&path).unwrap().set_len(half).unwrap();
    let error = run(&bench.consumer(), settings(), &mut wire).unwrap_err();
    assert_eq!(error.kind(), Kind::BadData);
    assert!(error.to_string().contains("--resync"), "{error}");
    assert_eq!(resync(&bench.consumer(), Resync::End, start()).unwrap(), half);
    bench.enqueue(&[("new".into(), "s0".into())]);
    bench.forget_state();
    assert_eq!(bench.run(&mut wire).delivered, 1, "a rebuild knows of the resync");
    assert_eq!(resync(&bench.consumer(), Resync::Start, start()).unwrap(), 0);
    assert!(bench.run(&mut wire).delivered > 9);
    assert!(resync(&bench.consumer(), Resync::Offset(7), start()).is_err());
}

/// Small, fast, repeatable: an LCG of Knuth's.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % sides
    }
}

/// What the receiver has: each id once, and in which order.
#[derive(Default)]
struct Receiver {
    stored: Vec<(String, String)>,
    ids: BTreeSet<String>,
    bodies: BTreeMap<String, Vec<u8>>,
}

impl Receiver {
    fn take(&mut self, it: &Posted) -> Attempted {
        let body = self.bodies.entry(it.id.clone()).or_insert_with(|| it.body.clone());
        assert_eq!(*body, it.body, "every attempt has the same bytes");
        if self.ids.insert(it.id.clone()) {
            self.stored.push((it.scope.clone(), it.id.clone()));
            return accepted(it);
        }
        status(200, &json!({"ok":true,"status":"duplicate","milestoneId":it.id}).to_string())
    }

    /// A hostile answer, or an honest one; an id that begins with `bad` is always rejected.
    fn answer(&mut self, dice: &mut Dice, it: &Posted) -> Attempted {
        if it.id.starts_with("bad") {
            return rejected();
        }
        match dice.roll(12) {
            0 => status(503, ""),
            1 => status(500, ""),
            2 => timeout(),
            3 if dice.roll(4) == 0 => status(403, ""),
            // The answer is lost, the event is not.
            4 => {
                self.take(it);
                timeout()
            }
            _ => self.take(it),
        }
    }
}

fn some_items(count: usize, dice: &mut Dice) -> Vec<(String, String)> {
    (0..count)
        .map(|it| {
            let bad = if dice.roll(10) == 0 { "bad" } else { "m" };
            (format!("{bad}{it}"), format!("s{}", dice.roll(6)))
        })
        .collect()
}

/// Nothing lost, nothing in the wrong order within a scope, nothing both acknowledged and dead.
fn check(bench: &Bench, items: &[(String, String)], receiver: &Receiver) {
    let dead: Vec<_> = bench
        .dead_letters()
        .iter()
        .map(|it| it.envelope().idempotency_key.replace("milestone:", ""))
        .collect();
    let unique: BTreeSet<_> = dead.iter().collect();
    assert_eq!(unique.len(), dead.len(), "each is dead once");
    let acknowledged: BTreeSet<_> = bench
        .audit("deliver", "acknowledged")
        .iter()
        .map(|it| it["idempotency_key"].as_str().unwrap().replace("milestone:", ""))
        .collect();
    for (id, _) in items {
        assert!(acknowledged.contains(id) != unique.contains(id), "{id} is settled in one way");
        assert!(!acknowledged.contains(id) || receiver.ids.contains(id), "{id} was really taken");
    }
    let dead_audited = bench.audit("deliver", "dead-lettered").len();
    assert_eq!(dead_audited, dead.len(), "each dead letter is audited once");
    let scopes: BTreeSet<_> = items.iter().map(|(_, scope)| scope).collect();
    for scope in scopes {
        let sent: Vec<_> = receiver.stored.iter().filter(|it| it.0 == *scope).map(|it| &it.1).collect();
        let queued: Vec<_> = items
            .iter()
            .filter(|it| it.1 == *scope && receiver.ids.contains(&it.0))
            .map(|it| &it.0)
            .collect();
        assert_eq!(sent, queued, "order within {scope}");
    }
}

#[test]
fn whatever_is_answered_all_ends_settled_in_order() {
    for seed in 0..24 {
        let bench = Bench::new();
        let mut dice = Dice(seed);
        let items = some_items(120, &mut dice);
        bench.enqueue(&items);
        let mut receiver = Receiver::default();
        let mut wire = Wire::new(|it| receiver.answer(&mut dice, it)).varied(seed);
        assert_eq!(bench.drain(&mut wire).pending, 0);
        drop(wire);
        check(&bench, &items, &receiver);
    }
}

#[test]
fn killed_in_any_post_all_ends_settled_in_order() {
    for seed in 0..25 {
        let bench = Bench::new();
        let mut dice = Dice(seed);
        let mut kills = Dice(seed + 1000);
        let items = some_items(60, &mut dice);
        let (early, late) = items.split_at(30);
        bench.enqueue(early);
        let mut receiver = Receiver::default();
        let mut now = start();
        for round in 0..10_000 {
            if round == 5 {
                bench.enqueue(late);
            }
            let mut wire = Wire::new(|it| receiver.answer(&mut dice, it)).varied(seed);
            wire.now = now;
            wire.die_in = (kills.roll(3) > 0).then(|| 1 + usize::try_from(kills.roll(20)).unwrap());
            let ran = panic::catch_unwind(AssertUnwindSafe(|| bench.run(&mut wire)));
            now = wire.now;
            drop(wire);
            match ran {
                Ok(summary) if summary.pending == 0 && round > 5 => break,
                Ok(summary) => now = now.max(summary.next_attempt_utc.unwrap_or(now)),
                Err(_) if kills.roll(3) == 0 => bench.forget_state(),
                Err(_) => {}
            }
        }
        check(&bench, &items, &receiver);
    }
}

/// A disk that fails for good after so many operations: what a crash or EIO leaves.
#[derive(Debug)]
struct DyingDisk {
    left: AtomicI64,
}

impl DyingDisk {
    fn alive(&self) -> io::Result<()> {
        if self.left.fetch_sub(1, Ordering::SeqCst) > 0 {
            Ok(())
        } else {
            Err(io::Error::from_raw_os_error(5))
        }
    }
}

impl Disk for DyingDisk {
    fn write_at(&self, file: &File, bytes: &[u8], offset: u64) -> io::Result<usize> {
        self.alive()?;
        std::os::unix::fs::FileExt::write_at(file, bytes, offset)
    }
    fn sync_data(&self, _: &File) -> io::Result<()> {
        self.alive()
    }
    fn sync_dir(&self, _: &Path) -> io::Result<()> {
        self.alive()
    }
    fn set_len(&self, file: &File, length: u64) -> io::Result<()> {
        self.alive()?;
        file.set_len(length)
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.alive()?;
        milepost::durable::RealDisk.rename(from, to)
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        self.alive()?;
        std::fs::remove_file(path)
    }
}

#[test]
fn whatever_write_or_sync_fails_all_ends_settled_in_order() {
    for fail_at in 1_i64..120 {
        let bench = Bench::new();
        let mut dice = Dice(7);
        let items = some_items(40, &mut dice);
        bench.enqueue(&items);
        let mut receiver = Receiver::default();
        let mut wire = Wire::new(|it| receiver.answer(&mut dice, it)).varied(fail_at.unsigned_abs());
        // The first life, on the dying disk.
        let disk = Arc::new(DyingDisk { left: AtomicI64::new(fail_at) });
        let logs = bench.logs.clone().on_disk(disk);
        let consumer = Consumer::new(&logs, JournalName::internal("milestone-delivery-queue"), "").unwrap();
        let mut sent_after_death = 0;
        for _ in 0..30 {
            let before = wire.posts.len();
            match run(&consumer, Settings { concurrency: wire.couriers, ..settings() }, &mut wire) {
                Ok(summary) => wire.now = wire.now.max(summary.next_attempt_utc.unwrap_or(wire.now)),
                Err(_) => sent_after_death += usize::from(wire.posts.len() > before),
            }
        }
        assert!(sent_after_death < 30, "it is not sent again and again");
        // The second, on a good one.
        if fail_at % 3 == 0 {
            bench.forget_state();
        }
        assert_eq!(bench.drain(&mut wire).pending, 0, "{fail_at}");
        drop(wire);
        check(&bench, &items, &receiver);
    }
}

#[test]
fn a_rebuilt_state_is_the_state() {
    for seed in 0..10 {
        let bench = Bench::new();
        let mut dice = Dice(seed);
        let items = some_items(80, &mut dice);
        bench.enqueue(&items);
        let mut receiver = Receiver::default();
        let mut wire = Wire::new(|it| receiver.answer(&mut dice, it)).varied(seed);
        for _ in 0..1000 {
            let summary = bench.run(&mut wire);
            let state = bench.state();
            bench.forget_state();
            let engine = bench.engine(&mut wire);
            let rebuilt = engine.state();
            assert_eq!(rebuilt.breaker, state.breaker, "{seed}");
            assert_eq!(rebuilt.last_ack, state.last_ack);
            let firsts = |it: &State| -> Vec<_> {
                it.retries
                    .iter()
                    .map(|(name, lane)| (name.clone(), lane.offset, lane.retry.clone()))
                    .collect()
            };
            assert_eq!(firsts(rebuilt), firsts(&state));
            drop(engine);
            assert_eq!(bench.run(&mut wire).pending, summary.pending);
            match summary.next_attempt_utc {
                Some(due) if summary.pending > 0 => wire.now = wire.now.max(due),
                _ => break,
            }
        }
        drop(wire);
        check(&bench, &items, &receiver);
    }
}
