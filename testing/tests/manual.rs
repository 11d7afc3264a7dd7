//! Manual pages and completions: up to date with the parsers, well-formed, and at work in real shells.
//!
//! `scripts/manual` makes them. Programs that are not everywhere (mandoc, zsh, fish) are asked for by
//! `MILEPOST_NEEDS_SHELLS`, which scripts/test sets; without it their part is passed over.
#![expect(clippy::unwrap_used, reason = "a test that cannot set itself up has failed")]

use std::{
    collections::BTreeMap,
    env, fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use milepost_testing::{Scratch, tool_path};
use serde_json::Value;

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");

const TOOLS: [&str; 8] = [
    "milestone-emit",
    "milestone-queue",
    "milestone-deliver",
    "milestone-receive",
    "task-emit",
    "reminder-scan",
    "audit-tail",
    "milestone-status",
];

fn script(name: &str) -> Command {
    let mut command = Command::new(format!("{ROOT}/scripts/{name}"));
    command.arg("--tools").arg(tool_path(TOOLS[0]).parent().unwrap()).current_dir(ROOT);
    command
}

#[track_caller]
fn succeeds(output: Output) -> String {
    let text = |bytes| String::from_utf8(bytes).unwrap();
    let (stdout, stderr) = (text(output.stdout), text(output.stderr));
    assert!(output.status.success(), "{stdout}\n{stderr}");
    stdout
}

/// Whether a program is there; where all must be, it is an error that it is not.
fn has(program: &str) -> bool {
    let is_there = env::var("PATH").unwrap().split(':').any(|it| Path::new(it).join(program).exists());
    assert!(is_there || env::var_os("MILEPOST_NEEDS_SHELLS").is_none(), "{program} is not installed");
    is_there
}

fn files(folder: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(format!("{ROOT}/{folder}")).unwrap();
    let mut files: Vec<PathBuf> = entries.map(|it| it.unwrap().path()).collect();
    files.sort();
    files
}

#[test]
fn pages_and_completions_say_what_the_parsers_say() {
    succeeds(script("manual").arg("--check").output().unwrap());
    assert_eq!(files("man").len(), TOOLS.len() + 9);
}

#[test]
fn pages_are_well_formed() {
    if has("mandoc") {
        let lint = Command::new("mandoc").args(["-T", "lint", "-W", "warning"]).args(files("man")).output();
        assert_eq!(succeeds(lint.unwrap()), "");
    }
}

#[test]
fn completions_are_well_formed() {
    for shell in ["bash", "zsh", "fish"] {
        for file in files(&format!("completions/{shell}")).iter().filter(|_| has(shell)) {
            succeeds(Command::new(shell).arg("-n").arg(file).output().unwrap());
        }
    }
}

/// What stands on the terminal after the line and Tab, as soon as all words are there.
fn pressed_tab(shell: &str, line: &str, words: &[&str], scratch: &Scratch) -> String {
    let mut command = Command::new("python3");
    command.arg(format!("{ROOT}/testing/complete.py")).arg(shell);
    command
        .arg(format!("{ROOT}/completions"))
        .arg(line)
        .args(words)
        .current_dir(scratch.dir())
        .env_remove("MILESTONE_LOGS");
    succeeds(command.output().unwrap())
}

#[test]
fn tab_completes_in_real_shells() {
    let scratch = Scratch::new();
    scratch.write("logs/milestone-delivery-queue.jsonl", "");
    scratch.write("logs/milestones.jsonl", "");
    // A part of the one before, and nothing to name.
    scratch.write("logs/milestones.00000000000000000000.jsonl", "");
    scratch.write("notes.json", "");
    for (line, words) in [
        ("milestone-deliver --ord", &["milestone-deliver --order"][..]),
        ("milestone-deliver --order s", &["scope", "strict"]),
        ("milestone-deliver --order=s", &["scope", "strict"]),
        ("milestone-deliver --queue mile", &["--queue milestone-delivery-queue.jsonl"]),
        ("milestone-queue --source milestones", &["--source milestones.jsonl"]),
        ("milestone-queue --re", &["--redrive-all", "--resend", "--resync"]),
        ("audit-tail --outcome re", &["recovered", "retried", "reminded"]),
        ("milestone-emit --risk at", &["--risk at-risk"]),
        ("milestone-emit no", &["milestone-emit notes.json"]),
    ] {
        for shell in ["bash", "zsh"].into_iter().filter(|it| has(it)) {
            let shown = pressed_tab(shell, line, words, &scratch);
            for word in words {
                assert!(shown.contains(word), "{shell}: {line}: {word} is missing in:\n{shown}");
            }
        }
    }
}

#[test]
fn fish_completes() {
    if !has("fish") {
        return;
    }
    let scratch = Scratch::new();
    scratch.write("logs/milestones.jsonl", "");
    scratch.write("logs/milestones.00000000000000000000.jsonl", "");
    for (line, expected) in [
        ("milestone-deliver --order s", &["scope", "strict"][..]),
        ("milestone-deliver --order=s", &["--order=scope", "--order=strict"]),
        ("milestone-queue --source mile", &["milestones.jsonl"]),
        ("task-emit --status d", &["done"]),
    ] {
        let tool = line.split(' ').next().unwrap();
        let ask = format!("source {ROOT}/completions/fish/{tool}.fish; complete -C '{line}'");
        let mut fish = Command::new("fish");
        fish.args(["--no-config", "-c", &ask]).current_dir(scratch.dir()).env_remove("MILESTONE_LOGS");
        let shown = succeeds(fish.output().unwrap());
        assert!(!shown.contains(".0000"), "a part of a journal is none: {shown}");
        let words: Vec<&str> = shown.lines().map(|it| it.split('\t').next().unwrap()).collect();
        for word in expected {
            assert!(words.contains(word), "{line}: {shown}");
        }
    }
}

#[test]
fn the_same_option_has_the_same_words_in_every_tool() {
    let scratch = Scratch::new();
    let mut words: BTreeMap<String, (String, Value)> = BTreeMap::new();
    for tool in TOOLS {
        let definition: Value =
            serde_json::from_str(&scratch.run(tool, &["--help=json"]).exits(0).stdout).unwrap();
        for option in definition["options"].as_array().unwrap() {
            let name = option["long"].as_str().unwrap();
            let common =
                option["common"] == true || name.contains("secret-file") || name == "--allow-readable-secret";
            if !common || name == "--feed-secret-file" {
                continue;
            }
            let (first, same) = words.entry(name.to_owned()).or_insert((tool.to_owned(), option.clone()));
            assert_eq!(option, same, "{name} of {tool} and of {first}");
        }
        // What is measured in the same way is written with the same letters.
        for option in definition["options"].as_array().unwrap() {
            let value = option["value"].as_str().unwrap_or("-");
            assert!(!["DURATION", "COUNT", "NUMBER", "SECONDS"].contains(&value), "{tool} {option}");
        }
    }
    assert!(words.len() >= 8, "{words:?}");
}
