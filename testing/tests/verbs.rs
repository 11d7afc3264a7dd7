//! What an operator asks for, while all tools are at work: dead letters back or closed, settled events once more.
#![expect(clippy::unwrap_used, reason = "a test that cannot set itself up has failed")]

use std::process::{Child, Command};

use milepost_testing::{
    Run, Scratch,
    hostile::{Hostile, Mode},
    milestone, wait_until,
};

/// A sender whose queue and deliverer are watching.
struct Fleet {
    scratch: Scratch,
    server: Hostile,
    watching: Vec<Child>,
}

impl Fleet {
    fn start() -> Fleet {
        let (scratch, server) = (Scratch::new(), Hostile::start(Mode::Good));
        scratch.secret("secret", "correct horse");
        let url = server.url();
        let deliver = ["--watch", "--url", &url, "--secret-file", "secret", "--backoff-base", "1h"];
        let mut watching = vec![scratch.command("milestone-queue").arg("--watch").spawn().unwrap()];
        watching.push(scratch.command("milestone-deliver").args(deliver).spawn().unwrap());
        Fleet { scratch, server, watching }
    }

    fn emit(&self, ids: &[&str]) {
        let lines: Vec<_> = ids.iter().map(|it| milestone(it).to_string()).collect();
        self.scratch.feed("milestone-emit", &["-q"], lines.join("\n").as_bytes()).exits(0);
    }

    fn verb(&self, args: &[&str]) -> Run {
        self.scratch.run("milestone-queue", args)
    }

    /// How often the deliverer's audit says this of the event.
    fn count(&self, outcome: &str, id: &str) -> usize {
        let key = format!("milestone:{id}");
        let audit = self.scratch.records("audit");
        let is_it = |it: &&serde_json::Value| {
            it["action"] == "deliver" && it["outcome"] == outcome && it["idempotency_key"] == key.as_str()
        };
        audit.iter().filter(is_it).count()
    }

    fn has(&self, id: &str) -> bool {
        self.server.stored().contains(&format!("milestone:{id}"))
    }

    fn end(self) {
        for child in self.watching {
            assert!(Command::new("kill").arg(child.id().to_string()).status().unwrap().success());
            Run::of(child).exits(0);
        }
    }
}

#[test]
fn each_verb_does_its_work_beside_running_tools() {
    let fleet = Fleet::start();
    fleet.server.turn(Mode::Rejection(400));
    fleet.emit(&["typo", "early"]);
    wait_until(|| fleet.count("dead-lettered", "typo") + fleet.count("dead-lettered", "early") == 2);
    fleet.server.turn(Mode::Good);
    fleet.emit(&["a", "b", "c"]);
    wait_until(|| ["a", "b", "c"].iter().all(|it| fleet.count("acknowledged", it) == 1));

    // One again, and a span of time again: the receiver has them, and the bytes are the same.
    assert_eq!(fleet.verb(&["--resend", "b"]).exits(0).all("queued"), [1]);
    wait_until(|| fleet.count("acknowledged", "b") == 2);
    assert_eq!(fleet.verb(&["--resend-all", "--since", "2026-01-01T00:00:00Z"]).exits(0).all("queued"), [3]);
    wait_until(|| ["a", "b", "c"].iter().all(|it| fleet.count("acknowledged", it) >= 2));
    wait_until(|| fleet.count("acknowledged", "b") == 3);
    assert_eq!(fleet.server.bodies().len(), 5, "no key had two bodies");

    // Of two dead letters one is closed and the other put back.
    assert_eq!(fleet.verb(&["--discard", "typo", "--reason", "a typo"]).exits(0).all("discarded"), [1]);
    assert_eq!(fleet.verb(&["--redrive-all"]).exits(0).all("queued"), [1]);
    wait_until(|| fleet.has("early"));
    fleet.verb(&["--redrive", "typo"]).exits(2);
    assert!(!fleet.has("typo"));
    assert_eq!(fleet.verb(&["--resend", "typo"]).exits(0).all("queued"), [1], "whoever insists");
    wait_until(|| fleet.has("typo"));

    // Another endpoint has the five events, and what was put in once more for the first one is not its own.
    let backup = Hostile::start(Mode::Good);
    let url = backup.url();
    let deliver = ["--endpoint", "backup", "--url", &url, "--secret-file", "secret"];
    assert_eq!(fleet.scratch.run("milestone-deliver", &deliver).exits(0).all("delivered"), [5]);
    let before = fleet.server.count();
    assert_eq!(fleet.verb(&["--resend", "a", "--endpoint", "backup"]).exits(0).all("queued"), [1]);
    assert_eq!(fleet.scratch.run("milestone-deliver", &deliver).exits(0).all("duplicate"), [1]);
    fleet.emit(&["last"]);
    wait_until(|| fleet.has("last"));
    assert_eq!(fleet.server.count(), before + 1);
    fleet.end();
}
