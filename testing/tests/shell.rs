//! Milepost with nothing but a shell and cron: `scripts/with-milestone`, `examples/supervise`, `examples/crontab`.
#![expect(clippy::unwrap_used, reason = "a test that cannot set itself up has failed")]

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    process::{Child, ChildStdout, Command, Stdio},
};

use milepost_testing::{Receiver, Run, Scratch, path_to_tools, root, wait_until};
use serde_json::Value;
use sha2::{Digest, Sha256};

/// Sends a signal to a process that this test started.
fn signal(name: &str, pid: u32) {
    let status = Command::new("/bin/kill").args([&format!("-{name}"), &pid.to_string()]).status();
    assert!(status.unwrap().success());
}

/// What a wrapped command ended with.
fn wrapped(scratch: &Scratch, args: &[&str]) -> Run {
    Run::of(scratch.script("with-milestone").args(args).spawn().unwrap())
}

fn only_milestone(scratch: &Scratch) -> Value {
    let records = scratch.records("milestones");
    assert_eq!(records.len(), 1, "{records:?}");
    records[0].clone()
}

/// A wrapped command that has said `up`.
fn started(scratch: &Scratch, args: &[&str]) -> (Child, BufReader<ChildStdout>) {
    // A test that runs in the background of a script has been told to ignore what comes from the keyboard.
    let with = ["--default-signal=HUP,INT,QUIT,TERM", "with-milestone"];
    let mut child = scratch.script("env").args(with).args(args).stdin(Stdio::piped()).spawn().unwrap();
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    stdout.read_line(&mut line).unwrap();
    assert_eq!(line, "up\n");
    (child, stdout)
}

#[test]
fn a_wrapped_command_has_its_streams_and_its_status_and_its_log_is_evidence() {
    let scratch = Scratch::new();
    let mut child = scratch
        .script("with-milestone")
        .args(["--scope", "runtime", "--title", "two words", "--"])
        .args(["sh", "-c", "echo out; echo err >&2; cat; exit 3"])
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(b"in\n").unwrap();
    let run = Run::of(child).exits(3);
    assert_eq!((run.stdout.as_str(), run.stderr.as_str()), ("out\nin\n", "err\n"));
    let milestone = only_milestone(&scratch);
    assert_eq!(
        (milestone["scope"].as_str(), milestone["riskStatus"].as_str()),
        (Some("runtime"), Some("at-risk"))
    );
    let claim = milestone["claim"].as_str().unwrap();
    assert!(
        claim.starts_with("two words failed after ") && claim.ends_with(" with exit status 3."),
        "{claim}"
    );
    let evidence = &milestone["evidence"][0];
    let path = evidence["path"].as_str().unwrap();
    assert!(path.starts_with("runs/two-words."), "{path}: nothing of this machine");
    let log = fs::read(scratch.log(path)).unwrap();
    let mut lines: Vec<_> = log.split(|it| *it == b'\n').collect();
    lines.sort_unstable();
    assert_eq!(lines, [&b""[..], b"err", b"in", b"out"]);
    let hash = data_encoding::HEXLOWER.encode(&Sha256::digest(&log));
    assert_eq!(evidence["ref"], format!("sha256:{hash}"));
    assert_eq!(fs::read_dir(scratch.log("runs")).unwrap().count(), 1, "nothing else is left");
}

#[test]
fn a_success_claims_what_it_was_told_to_claim() {
    let scratch = Scratch::new();
    let claims =
        ["--id=n.1", "--claim", "All is saved.", "--risk", "completed", "--next=Sleep.", "--source", "agent"];
    let run = wrapped(&scratch, &[&claims[..], &["--", "true"]].concat()).exits(0);
    assert_eq!((run.stdout.as_str(), run.stderr.as_str()), ("", ""));
    let milestone = only_milestone(&scratch);
    let fields = ["milestoneId", "claim", "riskStatus", "nextAction", "source"]
        .map(|it| milestone[it].as_str().unwrap());
    assert_eq!(fields, ["n.1", "All is saved.", "completed", "Sleep.", "agent"]);
}

#[test]
fn a_signal_reaches_the_command_which_may_say_what_it_means() {
    let scratch = Scratch::new();
    let script = "trap 'echo bye; exit 7' TERM; echo up; while read -r it; do :; done";
    let (mut child, mut stdout) = started(&scratch, &["--", "sh", "-c", script]);
    signal("TERM", child.id());
    let mut rest = String::new();
    stdout.read_to_string(&mut rest).unwrap();
    assert_eq!(rest, "bye\n");
    assert_eq!(child.wait().unwrap().code(), Some(7));
    assert!(only_milestone(&scratch)["claim"].as_str().unwrap().ends_with(" with exit status 7."));
}

#[test]
fn a_command_that_a_signal_ends_is_reported_so() {
    for (name, status) in [("INT", 130), ("TERM", 143), ("HUP", 129)] {
        let scratch = Scratch::new();
        let (mut child, _stdout) =
            started(&scratch, &["--title", "job", "--", "sh", "-c", "echo up; exec cat"]);
        // Waiting would close it, and so end the command by itself.
        let held = child.stdin.take();
        signal(name, child.id());
        assert_eq!(child.wait().unwrap().code(), Some(status));
        drop(held);
        let claim = only_milestone(&scratch)["claim"].as_str().unwrap().to_owned();
        assert!(claim.ends_with(&format!("exit status {status} (signal {name}).")), "{claim}");
    }
}

#[test]
fn of_a_command_that_is_killed_nothing_is_said_that_it_did_not_say() {
    for (name, status) in [("KILL", 137), ("SEGV", 139)] {
        let scratch = Scratch::new();
        let script = format!("echo last >&2; ulimit -c 0; kill -{name} $$");
        let run = wrapped(&scratch, &["--", "sh", "-c", &script]).exits(status);
        assert_eq!((run.stdout.as_str(), run.stderr.as_str()), ("", "last\n"));
    }
}

#[test]
fn the_command_runs_when_nothing_can_be_reported_and_what_to_run_later_is_said() {
    let scratch = Scratch::new();
    let run =
        wrapped(&scratch, &["--logs", "later", "--title", "it's", "--", "sh", "-c", "echo done"]).exits(0);
    assert_eq!(run.stdout, "done\n");
    let (_, later) = run.stderr.split_once("exit status 66 of milestone-emit); later: ").unwrap();
    scratch.run("milestone-status", &["--init", "--logs", "later"]).exits(0);
    Run::of(scratch.script("bash").args(["-c", later]).spawn().unwrap()).exits(0);
    let line = fs::read_to_string(scratch.dir().join("later/milestones.jsonl")).unwrap();
    assert!(line.contains("it's ended well after "), "{line}");
    wrapped(&scratch, &["--require", "--logs", "nowhere", "--", "true"]).exits(66);
    wrapped(&scratch, &["--require", "--logs", "nowhere", "--", "false"]).exits(1);
}

#[test]
fn what_cannot_be_started_and_what_is_misused_is_said() {
    let scratch = Scratch::new();
    let said = wrapped(&scratch, &["--", "/no/such/program"]).exits(127).stderr;
    assert_eq!(said, "with-milestone: /no/such/program: there is no such command\n");
    assert!(only_milestone(&scratch)["claim"].as_str().unwrap().starts_with("program failed "));
    for misuse in [&[][..], &["--scope"], &["--nonsense", "x", "--", "true"], &["-x", "true"], &["--"]] {
        wrapped(&scratch, misuse).exits(64);
    }
    // Behind the two dashes nothing is an option, of bash neither.
    wrapped(&scratch, &["--", "-c", "true"]).exits(127);
    let help = wrapped(&scratch, &["--help"]).exits(0).stdout;
    assert!(help.contains("usage: with-milestone [OPTION]... -- COMMAND"), "{help}");
}

#[test]
fn a_process_that_is_left_behind_holds_nothing_up() {
    let scratch = Scratch::new();
    // It ends with its standard input, which this test holds.
    let script = "cat <&3 & echo up";
    let mut child = scratch
        .script("bash")
        .args(["-c", "exec 3<&0; exec with-milestone --title job -- bash -c \"$0\"", script])
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    let held = child.stdin.take().unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0));
    drop(held);
    let mut stderr = String::new();
    child.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
    assert!(stderr.contains("a process that job left behind holds its output"), "{stderr}");
    let path = only_milestone(&scratch)["evidence"][0]["path"].as_str().unwrap().to_owned();
    assert_eq!(fs::read_to_string(scratch.log(&path)).unwrap(), "up\n");
}

/// The processes that a process has started.
fn children(pid: u32) -> Vec<u32> {
    let file = format!("/proc/{pid}/task/{pid}/children");
    let text = fs::read_to_string(file).unwrap_or_default();
    text.split_whitespace().map(|it| it.parse().unwrap()).collect()
}

#[test]
fn a_shell_keeps_a_watcher_running_through_kills_and_ends_with_it() {
    let scratch = Scratch::new();
    let emit = |id: &str| {
        let line = milepost_testing::milestone(id).to_string();
        scratch.feed("milestone-emit", &["-"], line.as_bytes()).exits(0);
    };
    let is_queued = |count: usize| scratch.records("milestone-delivery-queue").len() == count;
    let mut supervisor = scratch
        .script(root().join("examples/supervise"))
        .args(["milestone-queue", "--watch", "--quiet"])
        .spawn()
        .unwrap();
    emit("a");
    wait_until(|| is_queued(1));
    let first = children(supervisor.id())[0];
    signal("KILL", first);
    emit("b");
    wait_until(|| is_queued(2));
    let second = children(supervisor.id());
    assert_ne!(second, [first]);
    signal("TERM", supervisor.id());
    assert_eq!(supervisor.wait().unwrap().code(), Some(0));
    assert!(!fs::exists(format!("/proc/{}", second[0])).unwrap(), "it ended with its supervisor");
    let run = Run::of(
        scratch.script(root().join("examples/supervise")).args(["milestone-queue", "--no"]).spawn().unwrap(),
    );
    assert!(run.exits(64).stderr.ends_with("ended with exit status 64; it is not started again\n"));
}

/// The lines of the crontab: its variables, and its commands as cron hands them to the shell.
fn crontab() -> (Vec<(String, String)>, Vec<String>) {
    let (mut variables, mut commands) = (Vec::new(), Vec::new());
    let text = fs::read_to_string(root().join("examples/crontab")).unwrap();
    for line in text.lines().filter(|it| !it.is_empty() && !it.starts_with('#')) {
        let is_time = |it: &str| it.bytes().all(|it| it.is_ascii_digit() || b"*/,-".contains(&it));
        let fields: Vec<_> = line.split_whitespace().take(5).collect();
        if fields.len() == 5 && fields.iter().all(|it| is_time(it)) {
            let (_, command) = line.split_once("  ").unwrap();
            assert!(!command.replace("\\%", "").contains('%'), "cron would cut it: {command}");
            commands.push(command.trim().replace("\\%", "%"));
        } else {
            let (name, value) = line.split_once('=').unwrap();
            variables.push((name.to_owned(), value.to_owned()));
        }
    }
    (variables, commands)
}

#[test]
fn every_line_of_the_crontab_does_its_work_in_what_cron_gives_it() {
    let scratch = Scratch::new();
    let receiver = Receiver::start();
    for job in ["nightly-backup", "nightly-report"] {
        scratch.write(job, "#!/bin/sh\necho the job ran\n");
        Run::of(Command::new("chmod").args(["+x", job]).current_dir(scratch.dir()).spawn().unwrap()).exits(0);
    }
    // As scripts/install calls them.
    let dir = scratch.dir().to_str().unwrap();
    for script in ["backup", "trim"] {
        std::os::unix::fs::symlink(root().join("scripts").join(script), format!("{dir}/milepost-{script}"))
            .unwrap();
    }
    let here = |text: &str, round: u32| {
        text.replace("/var/lib/milepost/logs", &format!("{dir}/logs"))
            .replace("/etc/milepost/secret", receiver.secret.to_str().unwrap())
            .replace("/usr/local/bin/nightly", &format!("{dir}/nightly"))
            .replace("/var/backups/milepost/", &format!("{dir}/backup.{round}."))
            .replace("https://feed.example", &receiver.url)
            .replace("/usr/local/bin:/usr/bin:/bin", &format!("{dir}:{}", path_to_tools()))
    };
    let (variables, commands) = crontab();
    assert!(commands.len() >= 7, "{commands:?}");
    // In the first round the jobs report, in the second one it is delivered.
    for round in 0..2 {
        for command in &commands {
            let mut cron = Command::new("/bin/sh");
            cron.args(["-c", &here(command, round)]).env_clear().current_dir(dir);
            cron.env("HOME", dir).env("LOGNAME", "milepost").stdin(Stdio::null());
            cron.envs(variables.iter().map(|(name, value)| (name, here(value, round))));
            let run = Run::of(cron.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap());
            let said = format!("{command}: {run:?}");
            assert_eq!((run.code, run.stderr.as_str()), (0, ""), "{said}");
            assert!(run.stdout.is_empty() || run.stdout == "the job ran\n", "{said}");
        }
    }
    let feed = receiver.feed();
    let of = |title: &str| feed.iter().filter(|it| it.starts_with(title)).count();
    assert_eq!((of("nightly-backup."), of("nightly-report.")), (1, 1), "{feed:?}");
}
