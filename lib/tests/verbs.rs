//! The operator's verbs on a queue: redrive, resend, discard; each once, whatever fails in between.
#![expect(clippy::unwrap_used, reason = "test helpers, not only tests, fail loudly")]

use std::{sync::Barrier, thread};

use milepost::{
    Result, Timestamp, audit,
    audit::Outcome,
    delivery::{Consumer, Detail, Event},
    discard::{self, Discarded, Discards},
    envelope::{DeadLetter, EventEnvelope, MILESTONE_EMITTED},
    journal::{Batch, Item, JournalName, Position, Reader},
    logs::Logs,
    queue,
    redrive::{self, Redriven, Selection},
    resend::{self, Resent, Wanted},
};
use milepost_testing::disk::DyingDisk;
use serde_json::{Value, json};

const QUEUE: &str = "milestone-delivery-queue";

/// A folder with a queue, and a deliverer that is played by the test.
struct Bench {
    _dir: tempfile::TempDir,
    logs: Logs,
}

impl Bench {
    /// A queue with the milestones `m0`, `m1`, …
    fn new(count: usize) -> Bench {
        Bench::with_claims(count, "é \u{1f600}")
    }

    fn with_claims(count: usize, claim: &str) -> Bench {
        let dir = tempfile::tempdir().unwrap();
        let logs = Logs::open(Some(dir.path()), "milestone-deliver").unwrap();
        let bench = Bench { _dir: dir, logs };
        let mut batch = Batch::default();
        for number in 0..count {
            let payload = json!({ "milestoneId": format!("m{number}"), "scope": "s", "claim": claim });
            let key = format!("milestone:m{number}");
            let mut record =
                EventEnvelope::new(MILESTONE_EMITTED, "t", "feed", key, &payload, at(0)).unwrap();
            record.resume = Some(Position { offset: 100 + number as u64, fingerprint: "ab".into() });
            let mut line = Vec::new();
            record.write_line(&mut line).unwrap();
            batch.push(&line);
        }
        queue::open(&bench.logs, JournalName::internal(QUEUE)).write().unwrap().append(&batch).unwrap();
        bench
    }

    fn consumer(&self, endpoint: &str) -> Consumer {
        Consumer::new(&self.logs, JournalName::internal(QUEUE), endpoint).unwrap()
    }

    /// The queue: offset, end, record.
    fn records(&self) -> Vec<(u64, u64, Value)> {
        let mut reader = Reader::open_at(&self.logs, &JournalName::internal(QUEUE), 0).unwrap();
        let mut records = Vec::new();
        while let Some(Item::Line { offset, end, text }) = reader.next_item().unwrap() {
            records.push((offset, end, serde_json::from_slice(text).unwrap()));
        }
        records
    }

    fn keys_from(&self, first: usize) -> Vec<String> {
        let records = self.records();
        records[first..].iter().map(|it| it.2["idempotency_key"].as_str().unwrap().to_owned()).collect()
    }

    fn audit(&self, action: &str) -> Vec<Value> {
        let mut reader = Reader::open_at(&self.logs, &JournalName::audit(), 0).unwrap();
        let mut records = Vec::new();
        while let Some(Item::Line { text, .. }) = reader.next_item().unwrap() {
            records.push(serde_json::from_slice::<Value>(text).unwrap());
        }
        records.retain(|it| it["action"] == action);
        records
    }

    /// The endpoint settles the record with this number of the queue, `second` seconds after the start.
    fn settle(&self, endpoint: &str, number: usize, second: u64, outcome: Outcome) {
        let (queue_offset, cursor, record) = self.records()[number].clone();
        let detail = Detail {
            queue: QUEUE.into(),
            endpoint: endpoint.into(),
            queue_offset,
            cursor,
            at: at(second),
            reason: "test".into(),
            ..Detail::default()
        };
        let key = record["idempotency_key"].as_str().map(str::to_owned);
        let event = Event::Item { outcome, key, scope: Some("s".into()), detail: Box::new(detail) };
        if outcome == Outcome::DeadLettered {
            let envelope = EventEnvelope::from_line(record.to_string().as_bytes()).unwrap();
            let mut line = Vec::new();
            DeadLetter::new(envelope, endpoint, "no".into(), vec![], at(second), queue_offset)
                .write_line(&mut line)
                .unwrap();
            let mut batch = Batch::default();
            batch.push(&line);
            batch.audit(event.draft());
            self.consumer(endpoint).dead_letters().write().unwrap().append(&batch).unwrap();
        } else {
            audit::append(&self.logs, &[event.draft()]).unwrap();
        }
    }

    fn acknowledge(&self, numbers: std::ops::Range<usize>) {
        for number in numbers {
            self.settle("", number, number as u64, Outcome::Acknowledged);
        }
    }

    fn resend(&self, endpoint: &str, keys: &[&str]) -> Resent {
        let keys = keys.iter().map(|it| (*it).to_owned()).collect();
        self.resend_as(endpoint, &Wanted::Keys(keys))
    }

    fn resend_between(&self, since: u64, until: Option<u64>) -> Resent {
        self.resend_as("", &Wanted::Acknowledged { since: at(since), until: until.map(at) })
    }

    fn resend_as(&self, endpoint: &str, wanted: &Wanted) -> Resent {
        resend::resend(&self.consumer(endpoint), &source(), wanted).unwrap()
    }

    fn redrive(&self, selection: &Selection) -> Redriven {
        redrive::redrive(&self.consumer("").queue(), &source(), "", selection).unwrap()
    }

    fn discard(&self, keys: &[&str]) -> Discards {
        let keys: Vec<_> = keys.iter().map(|it| (*it).to_owned()).collect();
        discard::discard(&self.consumer("").queue(), "", &keys, "a typo").unwrap()
    }
}

fn source() -> JournalName {
    JournalName::internal("milestones")
}

fn keys(keys: &[&str]) -> Selection {
    Selection::of_keys(&keys.iter().map(|it| (*it).to_owned()).collect::<Vec<_>>())
}

fn at(second: u64) -> Timestamp {
    Timestamp::parse_utc("2026-11-20T10:00:00Z").unwrap().plus(std::time::Duration::from_secs(second))
}

#[test]
fn a_resent_record_is_the_first_one_but_for_whom_it_is_for() {
    let bench = Bench::new(3);
    bench.acknowledge(0..3);
    let resent = bench.resend("", &["milestone:m1"]);
    assert_eq!(resent, Resent { queued: 1, ..Resent::default() });
    let records = bench.records();
    let mut expected = records[1].2.clone();
    expected["endpoint"] = json!("");
    expected["resume"] = records[2].2["resume"].clone();
    assert_eq!(records[3].2, expected);
    let [audited] = &bench.audit("resend")[..] else { panic!("audited once") };
    assert_eq!(
        (&audited["outcome"], &audited["idempotency_key"]),
        (&json!("queued"), &json!("milestone:m1"))
    );
    assert_eq!(audited["scope"], "s");
    let mut detail = audited["detail"].clone();
    assert!(detail.as_object_mut().unwrap().remove("fingerprint").is_some(), "of the record");
    assert_eq!(detail, json!({"journal": QUEUE, "offset": records[3].0, "endpoint": "", "of": records[1].0}));
}

#[test]
fn what_is_pending_is_not_put_in_again_however_often_it_is_asked_for() {
    let bench = Bench::new(3);
    assert_eq!(bench.resend("", &["m0"]).pending_keys, ["milestone:m0"], "never sent");
    bench.settle("", 0, 0, Outcome::Acknowledged);
    assert_eq!(bench.resend("", &["m0", "milestone:m0", "m0"]).queued, 1);
    for _ in 0..3 {
        let resent = bench.resend("", &["m0", "m1"]);
        assert_eq!((resent.queued, resent.pending), (0, 2));
    }
    bench.settle("", 1, 1, Outcome::Acknowledged);
    bench.settle("", 2, 2, Outcome::Acknowledged);
    assert_eq!(bench.resend("", &["m0"]).pending, 1, "the resent one is still on its way");
    bench.settle("", 3, 3, Outcome::Acknowledged);
    assert_eq!(bench.resend("", &["m0"]).queued, 1, "settled again, so it may be asked for again");
    assert_eq!(bench.audit("resend").len(), 2);
}

#[test]
fn a_retry_holds_back_its_scope_and_no_other() {
    let bench = Bench::new(2);
    bench.settle("", 0, 0, Outcome::Retried);
    assert_eq!(bench.resend("", &["m0"]).pending, 1);
    bench.settle("", 0, 5, Outcome::Acknowledged);
    assert_eq!(bench.resend("", &["m0"]).queued, 1);
}

#[test]
fn keys_that_no_event_has_are_named_and_the_others_are_sent() {
    let bench = Bench::new(2);
    bench.acknowledge(0..2);
    let resent = bench.resend("", &["nobody", "m1", "milestone:nobody", "m0"]);
    assert_eq!((resent.queued, resent.missing), (2, vec!["nobody".into(), "milestone:nobody".into()]));
    assert_eq!(bench.keys_from(2), ["milestone:m0", "milestone:m1"], "in the order of the queue");
    let empty = Bench::new(0);
    assert_eq!(empty.resend("", &["m0"]).missing, ["m0"]);
}

#[test]
fn all_that_was_acknowledged_in_a_span_is_sent_again_once() {
    let bench = Bench::new(10);
    bench.acknowledge(0..8);
    bench.settle("", 8, 8, Outcome::DeadLettered);
    assert_eq!(bench.resend_between(3, Some(6)).queued, 3, "from the first moment on, before the last one");
    assert_eq!(bench.keys_from(10), ["milestone:m3", "milestone:m4", "milestone:m5"]);
    let again = bench.resend_between(3, None);
    assert_eq!((again.queued, again.pending), (2, 3), "of m3 to m7 three are on their way; m8 is dead");
    assert_eq!(bench.resend_between(100, None), Resent::default());
    // The one that was acknowledged in the span as first and as resent is sent once.
    for number in 9..15 {
        bench.settle("", number, 6, Outcome::Acknowledged);
    }
    assert_eq!(bench.resend_between(3, Some(7)).queued, 6, "m3 to m7, and m9");
}

#[test]
fn each_endpoint_has_its_own() {
    let bench = Bench::new(2);
    bench.acknowledge(0..1);
    assert_eq!(bench.resend("backup", &["m0"]).pending, 1, "it never got it");
    bench.settle("backup", 0, 0, Outcome::Acknowledged);
    assert_eq!(bench.resend("backup", &["m0"]).queued, 1);
    assert_eq!(bench.records()[2].2["endpoint"], "backup");
    assert_eq!(bench.resend("", &["m0"]).queued, 1, "the record for the other one holds nobody back");
    assert!(Consumer::new(&bench.logs, JournalName::internal(QUEUE), "../up").is_err());
}

#[test]
fn a_dead_letter_that_is_sent_again_is_put_back_by_it() {
    let bench = Bench::new(2);
    bench.settle("", 0, 0, Outcome::DeadLettered);
    assert_eq!(bench.resend("", &["m0"]).queued, 1);
    let again = &bench.records()[2].2;
    assert_eq!((&again["redrive_of"], &again["endpoint"]), (&json!(0), &json!("")));
    let redriven = bench.redrive(&Selection::All);
    assert_eq!((redriven.queued, redriven.known), (0, 1));
    assert_eq!(bench.discard(&["m0"]).put_back, ["milestone:m0"]);
}

#[test]
fn a_discarded_dead_letter_is_closed_once_and_for_every_redrive() {
    let bench = Bench::new(3);
    for number in 0..3 {
        bench.settle("", number, number as u64, Outcome::DeadLettered);
    }
    assert_eq!(
        bench.discard(&["m1", "nobody"]),
        Discards { discarded: 1, missing: vec!["nobody".into()], ..Discards::default() }
    );
    assert_eq!(bench.discard(&["milestone:m1"]), Discards { known: 1, ..Discards::default() });
    let [audited] = &bench.audit("discard")[..] else { panic!("audited once") };
    assert_eq!((&audited["outcome"], &audited["idempotency_key"]), (&json!("done"), &json!("milestone:m1")));
    let dead: Vec<_> = {
        let name = bench.consumer("").dead_letters().name().clone();
        let mut reader = Reader::open_at(&bench.logs, &name, 0).unwrap();
        let mut offsets = Vec::new();
        while let Some(Item::Line { offset, .. }) = reader.next_item().unwrap() {
            offsets.push(offset);
        }
        offsets
    };
    assert_eq!(
        audited["detail"],
        json!({"queue": QUEUE, "endpoint": "", "deadLetter": dead[1], "reason": "a typo"})
    );
    let discarded = Discarded::read(&bench.logs, &JournalName::internal(QUEUE), "").unwrap();
    assert!(discarded.holds(dead[1], "milestone:m1") && discarded.len() == 1 && !discarded.is_empty());
    assert!(!discarded.holds(dead[0], "milestone:m0") && !discarded.holds(dead[1], "milestone:m0"));

    let named = bench.redrive(&keys(&["m1", "m0"]));
    assert_eq!((named.queued, named.closed, named.missing.len()), (1, vec!["milestone:m1".to_owned()], 0));
    let offset = bench.records()[1].0;
    let letters = Selection::Letters([("milestone:m1".to_owned(), offset)].into());
    assert_eq!(bench.redrive(&letters).closed, ["milestone:m1"]);
    let all = bench.redrive(&Selection::All);
    assert_eq!((all.queued, all.known, all.discarded), (1, 1, 1));
    assert_eq!(bench.keys_from(3), ["milestone:m0", "milestone:m2"]);
    // Who wants it all the same says so; the dead letter stays closed.
    assert_eq!(bench.resend("", &["m1"]).queued, 1);
    assert_eq!(bench.records()[5].2.get("redrive_of"), None);
    assert_eq!(bench.discard(&["m2"]).put_back, ["milestone:m2"], "what was put back is not dead");
}

#[test]
fn an_event_that_dies_again_has_another_dead_letter() {
    let bench = Bench::new(1);
    bench.settle("", 0, 0, Outcome::DeadLettered);
    bench.redrive(&Selection::All);
    bench.settle("", 1, 1, Outcome::DeadLettered);
    assert_eq!(bench.discard(&["m0"]), Discards { discarded: 1, ..Discards::default() });
    let closed = vec!["milestone:m0".to_owned()];
    let expected = Redriven { known: 1, discarded: 1, closed, ..Redriven::default() };
    assert_eq!(bench.redrive(&keys(&["m0"])), expected);
}

#[test]
fn many_at_once_put_each_in_once() {
    let bench = Bench::new(6);
    bench.acknowledge(0..3);
    for number in 3..6 {
        bench.settle("", number, number as u64, Outcome::DeadLettered);
    }
    let barrier = Barrier::new(6);
    let (mut queued, mut discarded, mut redriven) = (0, 0, 0);
    thread::scope(|scope| {
        let threads: Vec<_> = (0..6)
            .map(|turn| {
                let (bench, barrier) = (&bench, &barrier);
                scope.spawn(move || {
                    barrier.wait();
                    match turn % 3 {
                        0 => (bench.resend_between(0, None).queued, 0, 0),
                        1 => (0, bench.discard(&["m4"]).discarded, 0),
                        _ => (0, 0, bench.redrive(&Selection::All).queued),
                    }
                })
            })
            .collect();
        for thread in threads {
            let (resent, closed, back) = thread.join().unwrap();
            queued += resent;
            discarded += closed;
            redriven += back;
        }
    });
    assert_eq!(queued, 3);
    assert_eq!(discarded + redriven, 3, "each dead letter is closed or put back, not both");
    assert_eq!(bench.records().len() as u64, 6 + queued + redriven);
    assert_eq!(bench.audit("discard").len() as u64, discarded);
}

#[test]
fn a_span_of_more_than_a_batch_is_sent_again_through_rotations() {
    // More than the 4 MiB of a batch.
    let mut bench = Bench::with_claims(450, &"x".repeat(12_000));
    let logs = bench.logs.clone().rotate_at(100_000);
    let events: Vec<_> = bench
        .records()
        .into_iter()
        .map(|(queue_offset, cursor, record)| {
            let detail = Detail { queue: QUEUE.into(), queue_offset, cursor, at: at(1), ..Detail::default() };
            let key = record["idempotency_key"].as_str().map(str::to_owned);
            Event::Item { outcome: Outcome::Acknowledged, key, scope: None, detail: detail.into() }
        })
        .collect();
    let drafts: Vec<_> = events.iter().map(Event::draft).collect();
    audit::append(&logs, &drafts).unwrap();
    bench.logs = logs;
    assert_eq!(bench.resend_between(1, None).queued, 450);
    let expected: Vec<_> = (0..450).map(|it| format!("milestone:m{it}")).collect();
    assert_eq!(bench.keys_from(450), expected);
    let again = bench.resend_between(1, None);
    assert_eq!((again.queued, again.pending), (0, 450));
}

#[test]
fn offsets_of_a_queue_that_was_replaced_are_not_taken_for_this_ones() {
    let bench = Bench::new(2);
    bench.acknowledge(0..2);
    bench.settle("", 1, 1, Outcome::DeadLettered);
    bench.discard(&["m1"]);
    let other = Bench::new(0);
    let mut batch = Batch::default();
    for id in ["x0", "x1"] {
        let payload = json!({ "milestoneId": id, "scope": "s", "claim": "é \u{1f600}" });
        let key = format!("milestone:{id}");
        let mut record = EventEnvelope::new(MILESTONE_EMITTED, "t", "feed", key, &payload, at(0)).unwrap();
        record.resume = Some(Position { offset: 100, fingerprint: "ab".into() });
        let mut line = Vec::new();
        record.write_line(&mut line).unwrap();
        batch.push(&line);
    }
    other.consumer("").queue().write().unwrap().append(&batch).unwrap();
    // The audit of the first one, as if its queue had been moved away.
    for file in ["audit.jsonl", ".lock/audit.lock"] {
        std::fs::copy(bench.logs.dir().join(file), other.logs.dir().join(file)).unwrap();
    }
    assert_eq!(other.resend_between(0, None).queued, 0);
    other.settle("", 0, 1, Outcome::DeadLettered);
    assert_eq!(
        other.redrive(&Selection::All).queued,
        1,
        "another dead letter at the same offset is not closed"
    );
}

#[test]
fn whatever_write_or_sync_fails_asking_again_ends_with_each_once() {
    for fail_at in 0..60 {
        let bench = Bench::new(6);
        bench.acknowledge(0..3);
        for number in 3..6 {
            bench.settle("", number, number as u64, Outcome::DeadLettered);
        }
        let disk = DyingDisk::after(fail_at);
        let logs = bench.logs.clone().on_disk(disk);
        let consumer = Consumer::new(&logs, JournalName::internal(QUEUE), "").unwrap();
        let ask = |consumer: &Consumer| -> Result<()> {
            let wanted = Wanted::Acknowledged { since: at(0), until: None };
            discard::discard(&consumer.queue(), "", &["m5".to_owned()], "r")?;
            resend::resend(consumer, &source(), &wanted)?;
            redrive::redrive(&consumer.queue(), &source(), "", &Selection::All)?;
            resend::resend(consumer, &source(), &Wanted::Keys(vec!["m5".into()])).map(drop)
        };
        let died = ask(&consumer).is_err();
        ask(&bench.consumer("")).unwrap();
        let mut keys = bench.keys_from(6);
        keys.sort();
        let expected =
            ["milestone:m0", "milestone:m1", "milestone:m2", "milestone:m3", "milestone:m4", "milestone:m5"];
        assert_eq!(keys, expected, "{fail_at}");
        assert_eq!(bench.audit("discard").len(), 1, "{fail_at}");
        let last = bench.records().last().unwrap().2["resume"].clone();
        assert_eq!(last, bench.records()[5].2["resume"], "the source goes on where it was");
        assert!(died || fail_at > 20, "the disk dies within what is done: {fail_at}");
    }
}

#[test]
fn a_position_is_left_as_it_was() {
    let bench = Bench::new(2);
    bench.acknowledge(0..2);
    let before = queue::resume(&bench.consumer("").queue(), &source()).unwrap();
    bench.resend("", &["m0"]);
    assert_eq!(queue::resume(&bench.consumer("").queue(), &source()).unwrap(), before);
    assert_eq!(before, Position { offset: 101, fingerprint: "ab".into() });
}
