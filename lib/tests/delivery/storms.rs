//! Hostile answers, kills and failing disks in random order: in the end everything is settled, once and in order.

use std::{
    collections::{BTreeMap, BTreeSet},
    panic::{self, AssertUnwindSafe},
    time::Duration,
};

use milepost::{
    delivery::{Consumer, Settings, State, verdict::Attempted},
    journal::JournalName,
};
use milepost_testing::disk::DyingDisk;
use serde_json::json;

use crate::bench::{Bench, Dice, Posted, Wire, accepted, rejected, run, settings, start, status, timeout};

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

#[test]
fn whatever_write_or_sync_fails_all_ends_settled_in_order() {
    for fail_at in 1..120 {
        let bench = Bench::new();
        let mut dice = Dice(7);
        let items = some_items(40, &mut dice);
        bench.enqueue(&items);
        let mut receiver = Receiver::default();
        let mut wire = Wire::new(|it| receiver.answer(&mut dice, it)).varied(fail_at);
        // The first life, on the dying disk.
        let disk = DyingDisk::after(fail_at);
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

/// Groups so large that another thread writes them while the engine goes on.
#[test]
fn whatever_fails_while_large_groups_are_written_all_ends_settled_in_order() {
    let items: Vec<_> = (0..5000).map(|it| (format!("m{it}"), format!("s{}", it % 700))).collect();
    let mut operations = None;
    for seed in 0..7 {
        let bench = Bench::new();
        bench.enqueue(&items);
        let mut receiver = Receiver::default();
        let mut wire = Wire::new(|it| receiver.take(it));
        (wire.couriers, wire.batch, wire.takes) = (4, Some(128), Duration::ZERO);
        // The first life tells how many operations there are; in the others one of the last of them fails.
        let left = operations.map(|all: u64| all - 1 - seed);
        let disk = left.map_or_else(DyingDisk::healthy, DyingDisk::after);
        let logs = bench.logs.clone().on_disk(disk.clone());
        let consumer = Consumer::new(&logs, JournalName::internal("milestone-delivery-queue"), "").unwrap();
        let ran = run(&consumer, Settings { concurrency: wire.couriers, ..settings() }, &mut wire);
        if operations.is_none() {
            assert_eq!(ran.unwrap().delivered, 5000);
            let all = disk.operations();
            assert!(all < 120, "{all} operations: the groups were small");
            operations = Some(all);
        } else {
            assert!(ran.is_err(), "{left:?}");
            if seed % 2 == 0 {
                bench.forget_state();
            }
            assert_eq!(bench.drain(&mut wire).pending, 0, "{left:?}");
        }
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
