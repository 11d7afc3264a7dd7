//! Killed again and again while the receiver accepts some, refuses some and loses some answers.

use std::{collections::BTreeMap, fs, thread};

use milepost_testing::{
    hostile::{Hostile, Mode},
    wait_until,
};

use super::bench::{Bench, CONCURRENCY, Watchdog, check_requests};
use crate::queue::{SECRET, terminate};

const COUNT: usize = 300;
const SCOPES: usize = 12;
const ROUNDS: usize = 40;
const MORE: [&str; 9] = [
    "--drain",
    "--timeout",
    "5s",
    "--backoff-base",
    "2ms",
    "--backoff-cap",
    "10ms",
    "--max-attempts",
    "100000",
];

/// Small, fast, repeatable.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap() % sides
    }
}

/// Each key is stored once, within its scope in the order of the queue.
fn check_stored(bench: &Bench, server: &Hostile) {
    let stored = server.stored();
    let place: BTreeMap<&String, usize> = (0..).zip(&stored).map(|(at, key)| (key, at)).collect();
    assert_eq!((place.len(), stored.len()), (COUNT, COUNT), "all are there");
    for scope in 0..SCOPES {
        let places: Vec<_> = bench.keys.iter().skip(scope).step_by(SCOPES).map(|it| place[it]).collect();
        assert!(places.is_sorted(), "scope {scope} is out of order: {places:?}");
    }
}

#[test]
fn nothing_is_lost_doubled_or_out_of_order() {
    for (seed, concurrency) in (1..).zip(CONCURRENCY) {
        let mut dice = Dice(seed);
        let server = Hostile::start(Mode::Mixed);
        let bench = Bench::with_scopes(COUNT, SCOPES).more(concurrency);
        for _ in 0..ROUNDS {
            let mut child = bench.command(&server.url(), &MORE).spawn().unwrap();
            let watchdog = Watchdog::of(&child);
            let enough = server.count() + dice.roll(14);
            wait_until(|| server.count() >= enough || child.try_wait().unwrap().is_some());
            // Somewhere in the next moments, not always at the same place.
            for _ in 0..dice.roll(200) {
                thread::yield_now();
            }
            if child.try_wait().unwrap().is_none() {
                match dice.roll(8) {
                    0 => terminate(&child),
                    _ => child.kill().unwrap(),
                }
            }
            child.wait().unwrap();
            drop(watchdog);
            if dice.roll(4) == 0 {
                drop(fs::remove_file(bench.scratch.log("milestone-delivery-state.json")));
            }
        }
        server.turn(Mode::Good);
        bench.run(&server.url(), &MORE).exits(0);
        check_stored(&bench, &server);
        check_requests(&server, &[SECRET]);
        assert_eq!(bench.settled("acknowledged").len(), COUNT, "each is acknowledged once in the audit");
        assert!(bench.scratch.records("milestone-delivery-deadletter").is_empty());
    }
}
