//! milestone-emit as a process: input in; results, messages, exit code and journals out.
#![expect(clippy::unwrap_used, reason = "a test that cannot set itself up has failed")]

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    os::unix::fs::PermissionsExt,
    process::{Command, Stdio},
};

use milepost_testing::{Run, Scratch, milestone, wait_until};
use serde_json::{Value, json};

const TOOL: &str = "milestone-emit";
const FLAGS: [&str; 12] = [
    "--id",
    "a",
    "--scope",
    "runtime",
    "--claim",
    "It ran.",
    "--evidence",
    "type=issue,path=t/1,summary=closed, at last",
    "--risk",
    "on-track",
    "--next",
    "Wait.",
];

fn lines(events: &[Value]) -> Vec<u8> {
    events.iter().flat_map(|it| format!("{it}\n").into_bytes()).collect()
}

fn outcomes(scratch: &Scratch) -> Vec<String> {
    scratch.records("audit").iter().map(|it| it["outcome"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn flags_make_one_event_in_the_prescribed_order() {
    let scratch = Scratch::new();
    let run = scratch.run(TOOL, &[&FLAGS[..], &["--timestamp", "2026-03-01T09:05Z"]].concat()).exits(0);
    // printf %s milestone:a | sha256sum | cut -c1-32
    let trace = &sha256("milestone:a")[..32];
    assert_eq!(
        run.stdout,
        format!("{{\"status\":\"appended\",\"milestoneId\":\"a\",\"offset\":0,\"traceId\":\"{trace}\"}}\n")
    );
    assert_eq!(run.stderr, "");
    assert_eq!(
        fs::read_to_string(scratch.log("milestones.jsonl")).unwrap(),
        "{\"milestoneId\":\"a\",\"timestampUtc\":\"2026-03-01T09:05:00.000Z\",\"scope\":\"runtime\",\"claim\":\"It ran.\",\
         \"evidence\":[{\"type\":\"issue\",\"path\":\"t/1\",\"summary\":\"closed, at last\"}],\"riskStatus\":\"on-track\",\
         \"nextAction\":\"Wait.\",\"source\":\"operator\"}\n"
    );
}

#[test]
fn the_same_command_again_is_a_duplicate_and_another_content_a_conflict() {
    let scratch = Scratch::new();
    scratch.run(TOOL, &FLAGS).exits(0);
    let again = scratch.run(TOOL, &FLAGS).exits(0);
    assert_eq!(again.all("status"), ["duplicate"]);
    assert_eq!(again.all("offset"), [0]);
    let mut other = FLAGS;
    other[5] = "It ran twice.";
    let conflict = scratch.run(TOOL, &other).exits(2);
    assert_eq!(conflict.all("status"), ["conflict"]);
    assert!(conflict.stderr.contains("other content"), "{}", conflict.stderr);
    assert_eq!(conflict.results()[0]["input"], "the command line");
    assert_eq!(scratch.records("milestones").len(), 1);
    assert_eq!(outcomes(&scratch), ["appended", "duplicate", "conflict"]);
    assert_eq!(scratch.run(TOOL, &[&FLAGS[..], &["--quiet"]].concat()).exits(0).stdout, "");
}

#[test]
fn without_an_id_one_is_made() {
    let scratch = Scratch::new();
    let run = scratch.run(TOOL, &[&FLAGS[2..], &["--timestamp", "2026-03-01T09:05:00Z"]].concat()).exits(0);
    let id = run.results()[0]["milestoneId"].as_str().unwrap().to_owned();
    assert!(id.contains("runtime") && id.contains("2026-03-01"), "{id}");
    let again = scratch.run(TOOL, &[&FLAGS[2..], &["--timestamp", "2026-03-01T09:05:00Z"]].concat()).exits(0);
    assert_eq!(again.all("status"), ["duplicate"]);
}

#[test]
fn one_bad_line_is_named_and_stops_nothing_else() {
    let scratch = Scratch::new();
    let mut typo = milestone("c");
    let claim = typo.as_object_mut().unwrap().remove("claim").unwrap();
    typo["calim"] = claim;
    let mut input = lines(&[milestone("a")]);
    input.extend(b"{\"milestoneId\": nope}\n\n");
    input.extend(lines(&[typo, milestone("a"), milestone("d")]));
    let run = scratch.feed(TOOL, &[], &input).exits(65);
    assert_eq!(run.all("status"), ["appended", "rejected", "rejected", "duplicate", "appended"]);
    assert_eq!(run.results()[2]["input"], "stdin:4");
    let paths: Vec<_> =
        run.results()[2]["errors"].as_array().unwrap().iter().map(|it| it["path"].clone()).collect();
    assert!(paths.contains(&json!("/calim")) && paths.contains(&json!("/claim")), "{paths:?}");
    assert!(
        run.stderr.contains("stdin:2:") && run.stderr.contains("did you mean \"claim\"?"),
        "{}",
        run.stderr
    );
    assert_eq!(scratch.records("milestones").len(), 2);
    assert_eq!(outcomes(&scratch), ["appended", "rejected", "rejected", "duplicate", "appended"]);
    let audited = &scratch.records("audit")[2];
    assert_eq!(audited["idempotency_key"], "milestone:c", "what it names itself is found by that");
    let quiet = scratch.feed(TOOL, &["-q", "-"], &input).exits(65);
    assert_eq!(quiet.all("status"), ["rejected", "rejected"], "refused lines stay");
}

#[test]
fn a_conflict_names_its_line_and_refused_lines_their_id() {
    let scratch = Scratch::new();
    let mut other = milestone("a");
    other["claim"] = json!("Something else.");
    let mut bad = milestone("b");
    bad["scope"] = json!(7);
    scratch.write("in", lines(&[milestone("a"), other, bad]));
    let run = scratch.run(TOOL, &["in"]).exits(65);
    assert_eq!(run.all("status"), ["appended", "conflict", "rejected"]);
    assert_eq!(run.all("milestoneId"), ["a", "a", "b"]);
    assert_eq!(run.results()[1]["input"], "in:2");
    assert!(run.stderr.contains("in:2: /milestoneId: \"a\" is at offset 0"), "{}", run.stderr);
}

#[test]
fn every_kind_of_bad_input_is_refused_with_its_place_and_loses_nothing() {
    let with = |field: &str, value: Value| {
        let mut event = milestone("x");
        event[field] = value;
        event.to_string().into_bytes()
    };
    let without = |field: &str| {
        let mut event = milestone("x");
        event.as_object_mut().unwrap().remove(field);
        event.to_string().into_bytes()
    };
    let valid = milestone("x").to_string();
    let cases: Vec<(&str, Vec<u8>, &str)> = vec![
        ("not JSON", b"nightly batch ran".to_vec(), "in:2:"),
        ("pretty-printed", b"{".to_vec(), "jq -c"),
        ("two documents", [valid.as_bytes(), valid.as_bytes()].concat(), "in:2:"),
        ("no object", b"[1]".to_vec(), "object"),
        ("byte order mark", [b"\xef\xbb\xbf", valid.as_bytes()].concat(), "byte order mark"),
        (
            "invalid UTF-8",
            valid.replace("batch", "b\u{1}tch").bytes().map(|it| if it == 1 { 0xff } else { it }).collect(),
            "UTF-8",
        ),
        ("NUL byte", valid.replace("batch", "b\0tch").into_bytes(), "in:2:"),
        ("duplicate key", valid.replacen('{', "{\"scope\":\"a\",", 1).into_bytes(), "scope"),
        ("10 MB", with("claim", json!("x".repeat(10_000_000))), "longer than"),
        ("300 KB", with("claim", json!("x".repeat(300_000))), "KiB"),
        ("nesting", [b"[".repeat(10_000), b"]".repeat(10_000)].concat(), "nest"),
        ("wrong type", with("claim", json!(7)), "/claim"),
        ("null", with("scope", Value::Null), "/scope"),
        ("empty text", with("nextAction", json!(" \u{a0}\u{feff} ")), "/nextAction"),
        ("no evidence", without("evidence"), "/evidence"),
        ("empty evidence", with("evidence", json!([])), "/evidence"),
        (
            "evidence type",
            with("evidence", json!([{"type":"hearsay","path":"p","summary":"s"}])),
            "/evidence/0/type",
        ),
        ("missing id", without("milestoneId"), "/milestoneId"),
        ("missing time", without("timestampUtc"), "/timestampUtc"),
        ("long id", with("milestoneId", json!("x".repeat(201))), "/milestoneId"),
        ("control in id", with("milestoneId", json!("a\u{7}b")), "/milestoneId"),
        ("local time", with("timestampUtc", json!("2026-03-01T09:05:00+01:00")), "/timestampUtc"),
        ("second 60", with("timestampUtc", json!("2026-03-01T23:59:60Z")), "/timestampUtc"),
        ("risk", with("riskStatus", json!("fine")), "/riskStatus"),
        ("unknown", with("milestone_id", json!("y")), "did you mean \"milestoneId\"?"),
    ];
    for (name, bad, expected) in cases {
        let scratch = Scratch::new();
        let input = [
            milestone("a").to_string().as_bytes(),
            b"\n",
            &bad,
            b"\n",
            milestone("b").to_string().as_bytes(),
        ]
        .concat();
        scratch.write("in", input);
        let run = scratch.run(TOOL, &["in"]).exits(65);
        assert_eq!(run.all("status"), ["appended", "rejected", "appended"], "{name}");
        assert!(run.stderr.contains("in:2") && run.stderr.contains(expected), "{name}: {}", run.stderr);
        assert!(run.stderr.len() < 2000, "{name}: {}", run.stderr);
        assert_eq!(run.stderr, scratch.run(TOOL, &["in"]).stderr, "the same input gives the same message");
        assert_eq!(scratch.records("milestones").len(), 2, "{name}");
    }
}

#[test]
fn text_is_normalised_so_that_every_party_agrees() {
    let scratch = Scratch::new();
    let mut event = milestone(" a\u{a0}");
    event["timestampUtc"] = json!("2026-03-01T09:05Z");
    event["evidence"][0]["ref"] = json!("  ");
    event.as_object_mut().unwrap().remove("source");
    scratch.feed(TOOL, &[], &lines(&[event])).exits(0);
    let stored = &scratch.records("milestones")[0];
    assert_eq!(stored["milestoneId"], "a");
    assert_eq!(stored["timestampUtc"], "2026-03-01T09:05:00.000Z");
    assert_eq!(stored["source"], "orchestrator");
    assert!(stored["evidence"][0].get("ref").is_none());
}

#[test]
fn all_or_nothing_appends_nothing_when_anything_is_refused() {
    let scratch = Scratch::new();
    let mut bad = milestone("b");
    bad["claim"] = json!("");
    let run =
        scratch.feed(TOOL, &["--all-or-nothing"], &lines(&[milestone("a"), bad, milestone("c")])).exits(65);
    assert_eq!(run.all("status"), ["valid", "rejected", "valid"]);
    assert!(run.stderr.contains("nothing was appended") && run.stderr.contains("2 valid"), "{}", run.stderr);
    assert!(scratch.records("milestones").is_empty());
    let run = scratch.feed(TOOL, &["--all-or-nothing"], &lines(&[milestone("a"), milestone("a"), json!({})]));
    assert_eq!(
        run.exits(65).all("status"),
        ["valid", "valid", "rejected"],
        "of nothing there is no duplicate"
    );
    scratch.feed(TOOL, &["--all-or-nothing"], &lines(&[milestone("a"), milestone("c")])).exits(0);
    assert_eq!(scratch.records("milestones").len(), 2);
    let mut other = milestone("a");
    other["claim"] = json!("Something else.");
    let run = scratch.feed(TOOL, &["--all-or-nothing"], &lines(&[milestone("d"), other])).exits(2);
    assert_eq!(run.all("status"), ["valid", "conflict"]);
    assert_eq!(scratch.records("milestones").len(), 2);
}

#[test]
fn a_dry_run_needs_and_writes_no_logs() {
    let scratch = Scratch::new();
    let run = scratch
        .feed(TOOL, &["--dry-run", "--logs", "nowhere"], &lines(&[milestone("a"), json!({})]))
        .exits(65);
    assert_eq!(run.all("status"), ["valid", "rejected"]);
    assert_eq!(fs::read_dir(scratch.log("")).unwrap().count(), 0);
}

#[test]
fn evidence_is_looked_for_hashed_and_if_asked_required() {
    let scratch = Scratch::new();
    scratch.write("proof.log", "it ran\n");
    let emit = |id: &str, path: &str, how: &str| {
        let evidence = format!("type=log,path={path},summary=exit 0");
        scratch.run(
            TOOL,
            &[
                "--id",
                id,
                "--scope",
                "s",
                "--claim",
                "c",
                "--risk",
                "on-track",
                "--next",
                "n",
                "--evidence",
                &evidence,
                "--verify-evidence",
                how,
            ],
        )
    };
    emit("a", "proof.log", "require").exits(0);
    let stored = &scratch.records("milestones")[0]["evidence"][0];
    assert_eq!(stored["ref"], format!("sha256:{}", sha256("it ran\n")));
    scratch.write("proof.log", "it ran again\n");
    assert_eq!(
        emit("a", "proof.log", "require").exits(0).all("status"),
        ["duplicate"],
        "a ref that was left out is not compared"
    );
    let missing = emit("b", "no.log", "require").exits(65);
    assert_eq!(missing.results()[0]["errors"][0]["path"], "/evidence/0/path");
    let warned = emit("b", "no.log", "warn").exits(0);
    assert!(warned.stderr.contains("no.log"), "{}", warned.stderr);
    assert_eq!(emit("c", "no.log", "off").exits(0).stderr, "");
}

#[test]
fn a_commit_is_named_by_ref_in_a_repository_or_by_its_hash_alone() {
    let scratch = Scratch::new();
    let repository = scratch.dir().join("repository");
    fs::create_dir(&repository).unwrap();
    let git = |arguments: &[&str]| {
        let mut command = Command::new("git");
        command.args(["-c", "user.name=n", "-c", "user.email=e", "-C"]).arg(&repository).args(arguments);
        let output = command.output().unwrap();
        assert!(output.status.success(), "{arguments:?}");
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    };
    git(&["init", "--quiet"]);
    git(&["commit", "--quiet", "--allow-empty", "-m", "first"]);
    let commit = git(&["rev-parse", "HEAD"]);
    let root = format!("--evidence-root={}", repository.display());
    let emit = |evidence: Value| {
        let mut event = milestone("a");
        event["evidence"] = json!([evidence]);
        scratch.feed(TOOL, &["--dry-run", "--verify-evidence=require", &root], &lines(&[event]))
    };
    emit(json!({ "type": "commit", "path": ".", "summary": "s", "ref": commit })).exits(0);
    emit(json!({ "type": "commit", "path": commit, "summary": "s" })).exits(0);
    emit(json!({ "type": "commit", "path": &commit[..9], "summary": "s" })).exits(0);
    let other = "5dc283a7417b3d4214797afed657303aee1487cb";
    let gone = emit(json!({ "type": "commit", "path": other, "summary": "s" })).exits(65);
    assert!(gone.stderr.contains("has no commit"), "{}", gone.stderr);
    emit(json!({ "type": "commit", "path": ".", "summary": "s" })).exits(65);
}

/// By sha256sum, so that the value does not come from the code under test.
fn sha256(text: &str) -> String {
    let command = Command::new("sha256sum").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
    let mut child = command.unwrap();
    child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    Run::of(child).stdout.split(' ').next().unwrap().to_owned()
}

#[test]
fn files_and_folders_that_are_not_there_are_66() {
    let scratch = Scratch::new();
    let run = scratch.run(TOOL, &["nothing.jsonl"]).exits(66);
    assert!(run.stderr.contains("nothing.jsonl"), "{}", run.stderr);
    scratch.write("good", lines(&[milestone("a")]));
    scratch.run(TOOL, &["nothing.jsonl", "good"]).exits(66);
    assert_eq!(scratch.records("milestones").len(), 1, "the other file is read all the same");
    scratch.run(TOOL, &["logs"]).exits(66);
    let run = scratch.run(TOOL, &[&FLAGS[..], &["--logs", "elsewhere"]].concat()).exits(66);
    for word in ["elsewhere", "--logs", "$MILESTONE_LOGS", "milestone-status --init"] {
        assert!(run.stderr.contains(word), "{}", run.stderr);
    }
    assert!(!scratch.dir().join("elsewhere").exists());
}

#[test]
fn usage_errors_are_64_and_name_the_nearest_flag() {
    let scratch = Scratch::new();
    let run = scratch.run(TOOL, &["--scpoe", "x"]).exits(64);
    assert!(run.stderr.contains("--scope"), "{}", run.stderr);
    scratch.run(TOOL, &["--verify-evidence=perhaps"]).exits(64);
    scratch.run(TOOL, &["--evidence", "nothing", "--id", "a"]).exits(64);
    scratch.run(TOOL, &["--id", "a", "in"]).exits(64);
    scratch.run(TOOL, &["--rotate-bytes", "big"]).exits(64);
}

#[test]
fn files_are_shared_with_the_group_whatever_the_umask() {
    let scratch = Scratch::new();
    let script = "umask 077; exec \"$0\" \"$@\"";
    let tool = milepost_testing::tool_path(TOOL);
    let mut shell = Command::new("sh");
    shell.arg("-c").arg(script).arg(tool).args(FLAGS).current_dir(scratch.dir());
    assert!(shell.stdout(Stdio::null()).status().unwrap().success());
    for file in ["milestones.jsonl", "audit.jsonl", ".lock/milestones.lock", ".index/milestones.index"] {
        let mode = fs::metadata(scratch.log(file)).unwrap().permissions().mode() & 0o7777;
        assert_eq!(mode, 0o660, "{file}");
    }
    let mode = fs::metadata(scratch.log(".lock")).unwrap().permissions().mode() & 0o7777;
    assert_eq!(mode, 0o2770);
}

#[test]
fn a_result_that_cannot_be_written_is_74_and_the_event_stays() {
    let scratch = Scratch::new();
    let full = fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let mut command = scratch.command(TOOL);
    let run = Run::of(command.args(FLAGS).stdout(Stdio::from(full)).spawn().unwrap()).exits(74);
    assert!(run.stderr.contains("stdout"), "{}", run.stderr);
    assert_eq!(scratch.run(TOOL, &FLAGS).exits(0).all("status"), ["duplicate"]);
}

#[test]
fn a_file_size_limit_is_an_error_and_nothing_is_half_written() {
    let scratch = Scratch::new();
    let events: Vec<Value> = (0..2000).map(|it| milestone(&format!("m{it}"))).collect();
    scratch.write("in", lines(&events));
    // 256 blocks of 512 or 1024 bytes: less than the journal would take.
    let mut shell = Command::new("sh");
    shell.args(["-c", "ulimit -f 256; exec \"$0\" -q in"]).arg(milepost_testing::tool_path(TOOL));
    let run = Run::of(
        shell.current_dir(scratch.dir()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap(),
    );
    assert_eq!(run.code, 74, "{}", run.stderr);
    assert!(run.stderr.contains("ulimit -f"), "{}", run.stderr);
    scratch.run(TOOL, &["-q", "in"]).exits(0);
    assert_eq!(scratch.records("milestones").len(), 2000);
}

#[test]
fn a_journal_rotates_and_duplicates_are_known_all_the_same() {
    let scratch = Scratch::new();
    let events: Vec<Value> = (0..200).map(|it| milestone(&format!("m{it}"))).collect();
    for event in &events {
        scratch.feed(TOOL, &["--rotate-bytes=4KiB"], &lines(std::slice::from_ref(event))).exits(0);
    }
    assert_eq!(scratch.records("milestones").len(), 200);
    assert!(fs::metadata(scratch.log("milestones.jsonl")).unwrap().len() <= 4096);
    let run = scratch.feed(TOOL, &[], &lines(&events)).exits(0);
    assert!(run.all("status").iter().all(|it| it == "duplicate"));
}

#[test]
fn what_comes_slowly_is_appended_as_it_comes() {
    let scratch = Scratch::new();
    let mut child = scratch.command(TOOL).arg("-").stdin(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    for id in ["a", "b"] {
        stdin.write_all(&lines(&[milestone(id)])).unwrap();
        let mut line = String::new();
        stdout.read_line(&mut line).unwrap();
        assert_eq!(serde_json::from_str::<Value>(&line).unwrap()["milestoneId"], id);
    }
    drop(stdin);
    assert!(child.wait().unwrap().success());
}

#[test]
fn a_cut_audit_stops_it_and_it_says_how_to_go_on() {
    let scratch = Scratch::new();
    scratch.feed(TOOL, &[], &lines(&[milestone("a"), milestone("b")])).exits(0);
    let audit = scratch.log("audit.jsonl");
    let length = fs::metadata(&audit).unwrap().len();
    fs::File::options().write(true).open(&audit).unwrap().set_len(length - 10).unwrap();
    let run = scratch.feed(TOOL, &[], &lines(&[milestone("c")])).exits(65);
    assert!(run.stderr.contains("move .lock/audit.lock away"), "{}", run.stderr);
    fs::remove_file(scratch.log(".lock/audit.lock")).unwrap();
    scratch.feed(TOOL, &[], &lines(&[milestone("c")])).exits(0);
    assert_eq!(scratch.records("milestones").len(), 3);
    assert_eq!(outcomes(&scratch), ["appended", "quarantined", "appended"]);
}

#[test]
fn many_at_once_append_each_id_once() {
    let scratch = Scratch::new();
    let children: Vec<_> = (0..24)
        .map(|number| {
            let evidence = "type=issue,path=p,summary=s";
            let id = format!("m{}", number % 8);
            scratch
                .command(TOOL)
                .args([
                    "--id",
                    &id,
                    "--scope",
                    "s",
                    "--claim",
                    "c",
                    "--evidence",
                    evidence,
                    "--risk",
                    "blocked",
                    "--next",
                    "n",
                ])
                .spawn()
                .unwrap()
        })
        .collect();
    let runs: Vec<Run> = children.into_iter().map(|it| Run::of(it).exits(0)).collect();
    assert_eq!(runs.iter().filter(|it| it.all("status") == ["appended"]).count(), 8);
    assert_eq!(scratch.records("milestones").len(), 8);
    assert_eq!(scratch.records("audit").len(), 24);
}

/// More than two batches, of which the later ones are made beside the earlier ones.
#[test]
fn many_go_in_in_their_order_also_after_a_kill_in_the_middle() {
    let scratch = Scratch::new();
    let mut all: Vec<_> = (0..10_000).map(|it| milestone(&format!("m{it}"))).collect();
    all[9_000]["claim"] = json!(7);
    scratch.write("in", lines(&all));
    let mut killed = scratch.command(TOOL).args(["-q", "in"]).spawn().unwrap();
    wait_until(|| fs::metadata(scratch.log("milestones.jsonl")).is_ok_and(|it| it.len() > 0));
    killed.kill().unwrap();
    killed.wait().unwrap();

    let run = scratch.run(TOOL, &["in"]).exits(65);
    let (statuses, ids) = (run.all("status"), run.all("milestoneId"));
    assert_eq!(ids, (0..10_000).map(|it| format!("m{it}")).collect::<Vec<_>>());
    let known = statuses.iter().take_while(|it| *it == "duplicate").count();
    assert_eq!(statuses[9_000], "rejected");
    assert!(statuses[known..].iter().enumerate().all(|(at, it)| *it == "appended" || known + at == 9_000));
    let stored: Vec<_> = scratch.records("milestones").iter().map(|it| it["milestoneId"].clone()).collect();
    assert_eq!(stored, ids.into_iter().filter(|it| it != "m9000").collect::<Vec<_>>());
}
