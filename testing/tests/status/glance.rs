//! The pipeline at a glance: what is a warning, what is critical, and the settings.

use std::{
    fs,
    io::{BufRead, BufReader},
    process::Command,
};

use milepost_testing::{Run, Scratch, milestone};
use serde_json::{Value, json};

use crate::{
    folder::{emit, enqueue, rich, scratch},
    must_fit,
};

fn status(folder: &Scratch, args: &[&str], code: i32) -> Value {
    let answer =
        folder.run("milestone-status", &[&["--json"], args].concat()).exits(code).results().remove(0);
    must_fit("status.v1", &answer);
    answer
}

fn problems(answer: &Value, level: &str) -> Vec<String> {
    let problems = answer["problems"].as_array().unwrap().iter();
    let text = |it: &Value| it["message"].as_str().unwrap().to_owned();
    problems.filter(|it| it["level"] == level).map(text).collect()
}

#[test]
fn dead_letters_count_until_they_are_put_back_or_closed() {
    let folder = rich();
    for index in [true, false] {
        if !index {
            fs::remove_dir_all(folder.log(".index")).unwrap();
        }
        // m4 was given up again after it was put back, m7 was put back, m15 was closed, m21 is as it was.
        let lag = ["--max-lag", "1000d"];
        let answer = status(&folder, &lag, 1);
        let endpoints = &answer["queues"][0]["endpoints"];
        assert_eq!((&endpoints[0]["deadLetters"], &endpoints[1]["deadLetters"]), (&json!(2), &json!(0)));
        let warnings = problems(&answer, "warning");
        assert!(
            warnings[0].contains(": 2 dead letters since ") && warnings[0].contains("for milestone:m4"),
            "{warnings:?}"
        );
        status(&folder, &[&lag[..], &["--max-dead", "2"]].concat(), 0);
        status(&folder, &[&lag[..], &["--max-dead", "1"]].concat(), 2);
    }
}

#[test]
fn what_waits_for_longer_than_it_may_is_critical() {
    let folder = scratch();
    emit(&folder, ["a".to_owned()]).exits(0);
    enqueue(&folder, &[]);
    status(&folder, &[], 0);
    status(&folder, &["--max-lag", "1h"], 0);
    let late = status(&folder, &["--max-lag", "0s"], 2);
    assert!(
        problems(&late, "critical")[0].starts_with("milestone-delivery-queue.jsonl: a record waits since ")
    );
}

#[test]
fn damage_below_the_mark_is_critical_until_it_is_restored_and_a_torn_tail_is_not() {
    let folder = scratch();
    emit(&folder, (0..3).map(|it| format!("m{it}"))).exits(0);
    let path = folder.log("milestones.jsonl");
    let whole = fs::read(&path).unwrap();
    let second = whole.iter().position(|it| *it == b'\n').unwrap() + 1;
    let mut damaged = whole.clone();
    damaged[second + 10..second + 60].fill(0);
    fs::write(&path, &damaged).unwrap();
    folder.run("milestone-queue", &["-q"]).exits(0);
    let answer = status(&folder, &[], 2);
    let critical = problems(&answer, "critical");
    let place = format!("milestones.jsonl: the bytes at offset {second} are damaged");
    assert!(critical.len() == 1 && critical[0].starts_with(&place), "{critical:?}");
    fs::write(&path, &whole).unwrap();
    status(&folder, &[], 1);

    let torn = scratch();
    emit(&torn, ["a".to_owned()]).exits(0);
    let mut whole = fs::read(torn.log("milestones.jsonl")).unwrap();
    whole.extend_from_slice(b"{\"milestoneId\":\"half");
    fs::write(torn.log("milestones.jsonl"), &whole).unwrap();
    torn.run("milestone-queue", &["-q"]).exits(0);
    let answer = status(&torn, &[], 1);
    assert!(problems(&answer, "warning")[0].starts_with("quarantine/: bytes that were no record (1)"));
}

#[test]
fn the_last_errors_are_listed_newest_first() {
    let folder = scratch();
    emit(&folder, (0..20).map(|it| format!("m{it}"))).exits(0);
    let mut other = milestone("m3");
    other["claim"] = json!("Another.");
    folder.feed("milestone-emit", &["-q"], b"{}\n").exits(65);
    folder.feed("milestone-emit", &["-q"], other.to_string().as_bytes()).exits(2);
    emit(&folder, (20..40).map(|it| format!("m{it}"))).exits(0);
    let answer = status(&folder, &["--errors=5"], 0);
    let errors = answer["errors"].as_array().unwrap();
    let seen: Vec<_> =
        errors.iter().map(|it| (it["outcome"].as_str().unwrap(), it["idempotencyKey"].as_str())).collect();
    assert_eq!(seen, [("conflict", Some("milestone:m3")), ("rejected", None)]);
    assert!(errors[1]["reason"].as_str().unwrap().contains("is missing"), "{answer}");
    assert_eq!(status(&folder, &["--errors", "1"], 0)["errors"].as_array().unwrap().len(), 1);
}

#[test]
fn watching_goes_on_until_it_is_told_to_end() {
    let folder = scratch();
    emit(&folder, ["a".to_owned()]).exits(0);
    let mut child = folder.command("milestone-status").args(["--watch", "--json"]).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    for _ in 0..2 {
        let answer: Value = serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap();
        must_fit("status.v1", &answer);
    }
    Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap();
    Run::of(child).exits(0);
    folder.run("milestone-status", &["--watch", "--init"]).exits(64);
}

#[test]
fn settings_are_shown_with_their_origin_and_without_secrets() {
    let folder = scratch();
    let config = |change: &dyn Fn(&mut Command), code: i32| -> (Value, String) {
        let run = |args: &[&str]| {
            let mut command = folder.command("milestone-status");
            change(&mut command);
            Run::of(command.args(args).spawn().unwrap()).exits(code)
        };
        let answer = run(&["--config", "--json"]).results().remove(0);
        must_fit("config.v1", &answer);
        (answer, run(&["--config"]).stdout)
    };
    let (nothing, text) = config(&|_| {}, 0);
    assert_eq!((&nothing["status"], &nothing["values"][0]["from"]), (&json!("ok"), &json!("default")));
    assert!(text.starts_with("ok\n\nSETTING "), "{text}");

    let set = |command: &mut Command| {
        command.env("MILESTONE_INGEST_URL", "https://user:wordless@a.example/x");
        command.env("CLAWDBOT_MILESTONE_WEBHOOK_SECRET", "correct horse");
    };
    let (found, text) = config(&set, 78);
    assert_eq!(text.matches("\nwrong: ").count(), 1, "{text}");
    assert!(text.contains("$MILESTONE_INGEST_URL has credentials in the URL"), "{text}");
    let value = |name: &str| {
        found["values"].as_array().unwrap().iter().find(|it| it["name"] == name).unwrap().clone()
    };
    assert_eq!(value("milestones are sent to")["value"], "https://***@a.example/x");
    assert_eq!(value("secret")["value"], "hidden");
    assert_eq!(value("secret")["from"], "$CLAWDBOT_MILESTONE_WEBHOOK_SECRET");
    for shown in [found.to_string(), text] {
        assert!(!shown.contains("horse") && !shown.contains("wordless"), "{shown}");
    }

    let wrong = |command: &mut Command| {
        command.env("MILESTONE_INGEST_URL", "http://a.example");
        command.env("MILESTONE_REMINDER_URL", "a.example");
        command.env("MILESTONE_ROTATE_BYTES", "many");
        command.env("CLAWDBOT_MILESTONE_WEBHOOK_SECRET", " ");
        command.env("MILESTONE_LOGS", "nowhere");
        command.env("MILESTONE_INJEST_URL", "https://a.example");
    };
    let of_port = |command: &mut Command| {
        command
            .env("MILESTONE_INGEST_URL", "https://[::1]:8443/x")
            .env("MILESTONE_REMINDER_URL", "https://a:99999");
    };
    let (_, text) = config(&of_port, 78);
    assert_eq!(text.matches("\nwrong: ").count(), 1, "{text}");
    assert!(text.contains("$MILESTONE_REMINDER_URL is no http or https address"), "{text}");

    let (answer, text) = config(&wrong, 78);
    assert_eq!(answer["status"], "wrong");
    assert_eq!(text.matches("\nwrong: ").count(), 6, "{text}");
    assert!(
        text.contains("$MILESTONE_INJEST_URL is read by nobody; is $MILESTONE_INGEST_URL meant?"),
        "{text}"
    );
}
