//! Trimming with everything at work: the tools as processes. The library's tests go through each rule and each kill.
#![expect(clippy::unwrap_used, reason = "a test that cannot set itself up has failed")]

use std::{
    collections::BTreeSet,
    fs,
    sync::atomic::{AtomicU32, Ordering::SeqCst},
    thread,
};

use milepost_testing::{Receiver, Run, Running, Scratch, milestone};
use serde_json::json;

/// Three milestones or so.
const ROTATE: &str = "1KiB";
const WRITERS: u32 = 2;
const ROUNDS: u32 = 12;

fn emit(scratch: &Scratch, ids: &[String]) -> Run {
    let lines: String = ids.iter().map(|it| milestone(it).to_string() + "\n").collect();
    scratch.feed("milestone-emit", &["--rotate-bytes", ROTATE], lines.as_bytes()).exits(0)
}

fn queue(scratch: &Scratch, args: &[&str]) -> Run {
    scratch.run("milestone-queue", &[&["--rotate-bytes", ROTATE], args].concat()).exits(0)
}

fn deliver(scratch: &Scratch, receiver: &Receiver) {
    let to = ["--drain", "-q", "--secret-file", receiver.secret.to_str().unwrap(), "--url", &receiver.url];
    scratch.run("milestone-deliver", &[&["--rotate-bytes", ROTATE], &to[..]].concat()).exits(0);
}

/// How many closed files went, of the source and of the queue.
fn trim(scratch: &Scratch) -> [u64; 2] {
    let run = Run::of(scratch.script("trim").spawn().unwrap()).exits(0);
    let segments: Vec<_> = run.all("segments").iter().map(|it| it.as_u64().unwrap()).collect();
    segments.try_into().unwrap()
}

fn holds(scratch: &Scratch) {
    scratch.run("milestone-status", &["--check"]).exits(0);
    scratch.run("audit-tail", &["--verify"]).exits(0);
}

#[test]
fn beside_writers_and_consumers_nothing_is_lost_and_nothing_forgotten() {
    let scratch = Scratch::new();
    let receiver = Receiver::start();
    let secret = receiver.secret.to_str().unwrap();
    let watch = |tool: &str, more: &[&str]| {
        let mut command = scratch.command(tool);
        Running(command.args(["--watch", "-q", "--rotate-bytes", ROTATE]).args(more).spawn().unwrap())
    };
    let watchers = [
        watch("milestone-queue", &[]),
        watch("milestone-deliver", &["--secret-file", secret, "--url", &receiver.url]),
    ];
    let ids =
        |writer: u32, round: u32| -> Vec<_> { (0..3).map(|it| format!("w{writer}.{round}.{it}")).collect() };
    let at_work = AtomicU32::new(WRITERS);
    let mut removed = [0, 0];
    thread::scope(|scope| {
        for writer in 0..WRITERS {
            let (scratch, at_work) = (&scratch, &at_work);
            scope.spawn(move || {
                for round in 0..ROUNDS {
                    emit(scratch, &ids(writer, round));
                }
                at_work.fetch_sub(1, SeqCst);
            });
        }
        while at_work.load(SeqCst) > 0 {
            let [source, queue] = trim(&scratch);
            removed = [removed[0] + source, removed[1] + queue];
            scratch.run("milestone-status", &["--check"]).exits(0);
        }
    });
    drop(watchers);
    queue(&scratch, &[]);
    deliver(&scratch, &receiver);
    let [source, rest] = trim(&scratch);
    assert!(removed[0] + source > 5 && removed[1] + rest > 5, "{removed:?}, then {source} and {rest}");
    holds(&scratch);

    let all: Vec<String> =
        (0..WRITERS).flat_map(|it| (0..ROUNDS).flat_map(move |round| ids(it, round))).collect();
    let feed = receiver.feed();
    assert_eq!(feed.len(), all.len());
    assert_eq!(feed.iter().collect::<BTreeSet<_>>(), all.iter().collect::<BTreeSet<_>>());
    for is_rebuilt in [false, true] {
        if is_rebuilt {
            fs::remove_dir_all(scratch.log(".index")).unwrap();
        }
        let again = emit(&scratch, &all).all("status");
        assert!(again.iter().all(|it| it == "duplicate"), "{again:?}");
    }
    // The queue forgets nothing either: what is read again is known there.
    fs::remove_dir_all(scratch.log(".index")).unwrap();
    let run = queue(&scratch, &["--resync", "start"]);
    assert_eq!(run.all("queued"), [0]);
    holds(&scratch);
}

#[test]
fn a_dead_letter_that_was_put_back_before_the_trim_is_not_put_back_again() {
    let scratch = Scratch::new();
    let receiver = Receiver::start();
    let other = Scratch::new();
    let mut event = milestone("x");
    event["claim"] = json!("Another one's.");
    other.feed("milestone-emit", &["-q"], event.to_string().as_bytes()).exits(0);
    queue(&other, &[]);
    deliver(&other, &receiver);

    emit(&scratch, &["x".to_owned()]);
    queue(&scratch, &[]);
    deliver(&scratch, &receiver);
    let redrive = || queue(&scratch, &["--redrive-all"]).all("queued")[0].clone();
    assert_eq!(redrive(), 1);
    deliver(&scratch, &receiver);
    for round in 0..4 {
        emit(&scratch, &(0..4).map(|it| format!("m{round}.{it}")).collect::<Vec<_>>());
        queue(&scratch, &[]);
        deliver(&scratch, &receiver);
    }
    assert!(trim(&scratch)[1] > 0);
    // The first letter was put back; the second one, which came of that, was not yet.
    assert_eq!(redrive(), 1);
    assert_eq!(redrive(), 0);
    fs::remove_dir_all(scratch.log(".index")).unwrap();
    assert_eq!(redrive(), 0);
    holds(&scratch);
}
