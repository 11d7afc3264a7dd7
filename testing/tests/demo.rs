//! scripts/demo as a stranger meets it, but with the tools that are built already.
#![expect(clippy::unwrap_used, reason = "a test that cannot set itself up has failed")]

use std::{
    fs,
    io::{BufRead, BufReader},
    net::TcpStream,
    path::PathBuf,
    process::{Command, Stdio},
};

use milepost_testing::tool_path;
use serde_json::Value;
use tempfile::TempDir;

const DEMO: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../scripts/demo");

/// A folder of its own for what the demo makes, with a name that a careless script would take for two.
fn place() -> (TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let place = dir.path().join("two words");
    fs::create_dir(&place).unwrap();
    (dir, place)
}

fn demo(place: &PathBuf) -> Command {
    let mut command = Command::new(DEMO);
    command.arg("--tools").arg(tool_path("milestone-emit").parent().unwrap());
    command.current_dir(place).env("TMPDIR", place).stdin(Stdio::null());
    command
}

fn is_empty(place: &PathBuf) -> bool {
    fs::read_dir(place).unwrap().next().is_none()
}

#[test]
fn the_demo_shows_the_whole_flow_and_leaves_nothing_behind() {
    let (_dir, place) = place();
    let output = demo(&place).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{stdout}\n{stderr}");
    assert!(stdout.ends_with("\nDone: 5 milestones reported, 5 in the feed, each once.\n"), "{stdout}");
    assert!(!stdout.contains('\u{1b}'), "colour is for terminals");
    assert_eq!(stderr, "");
    assert!(is_empty(&place));
}

#[test]
fn a_demo_that_is_interrupted_ends_its_receiver_and_tidies_up() {
    let (_dir, place) = place();
    let mut child = demo(&place).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
    let listening = lines.find(|it| it.contains("\"listening\"")).unwrap();
    let listening: Value = serde_json::from_str(listening.trim()).unwrap();
    let kill = format!("kill {}", child.id());
    assert!(Command::new("sh").args(["-c", &kill]).status().unwrap().success());
    lines.for_each(drop);
    assert_eq!(child.wait().unwrap().code(), Some(143));
    let address = listening["address"].as_str().unwrap().strip_prefix("http://").unwrap();
    assert!(TcpStream::connect(address).is_err(), "the receiver has ended");
    assert!(is_empty(&place));
}
