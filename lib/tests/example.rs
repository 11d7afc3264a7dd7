//! The example for other Rust programs does what it says.
#![expect(clippy::unwrap_used, reason = "a test that cannot set itself up should stop")]

use std::{path::Path, process::Command};

fn example(logs: &Path, arguments: &[&str]) -> String {
    let test = std::env::current_exe().unwrap();
    let program = test.ancestors().nth(2).unwrap().join("examples/emit_and_read");
    assert!(program.exists(), "build the examples first: cargo build -p milepost --examples");
    let output = Command::new(program).arg(logs).args(arguments).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn another_program_emits_and_reads() {
    let logs = tempfile::tempdir().unwrap();
    let first = example(logs.path(), &["a.1"]);
    let lines: Vec<&str> = first.lines().collect();
    let end = lines[2];
    assert_eq!(lines[..2], ["Appended(0)", "a.1 The example ran."]);

    assert_eq!(example(logs.path(), &["a.1", end]), format!("Duplicate(0)\n{end}\n"));

    let later = example(logs.path(), &["a.2", end]);
    assert!(later.starts_with(&format!("Appended({end})\na.2 The example ran.\n")), "{later}");
}
