//! The command-line piece as a caller meets it: a process with arguments, streams, signals and an exit code.
//!
//! The process is `examples/cli_probe.rs`, in the tests of `entry` its twin `entry_probe.rs`. `cargo test` builds it beside the tests, but not when asked for one
//! target only: run `cargo test -p milepost NAME`. Streams that cannot be handed over (closed ones) are made
//! by the shell.
#![expect(clippy::unwrap_used, reason = "a test that cannot set itself up should stop")]

use std::{
    ffi::OsStr,
    fs::{self, File},
    io::{self, BufRead, BufReader, Read},
    os::unix::{ffi::OsStrExt, fs::MetadataExt, process::ExitStatusExt},
    path::PathBuf,
    process::{Child, Command, Output, Stdio},
};

use rustix::{
    fs::{OFlags, fcntl_setfl},
    process::{Pid, Signal, kill_process},
};

fn probe_path() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let is_twin = test.file_name().unwrap().as_bytes().starts_with(b"entry-");
    let name = if is_twin { "examples/entry_probe" } else { "examples/cli_probe" };
    let path = test.ancestors().nth(2).unwrap().join(name);
    assert!(path.exists(), "build the probe first: cargo build -p milepost --examples");
    path
}

/// The command `program` without the settings of whoever runs the tests.
fn command(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    for name in ["NO_COLOR", "JOURNAL_STREAM", "RUST_BACKTRACE"] {
        command.env_remove(name);
    }
    command
}

fn probe(arguments: &[&str]) -> Command {
    let mut command = command(probe_path());
    command.args(arguments);
    command
}

/// The probe run by the shell, as `"$@"`, for redirections.
fn shell(script: &str, arguments: &[&str]) -> Command {
    let mut command = command("sh");
    command.args(["-c", script, "sh"]).arg(probe_path()).args(arguments);
    command
}

/// Exit code, standard output, standard error.
fn run(command: &mut Command) -> (i32, String, String) {
    let Output { status, stdout, stderr } = command.stdin(Stdio::null()).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (status.code().unwrap(), text(stdout), text(stderr))
}

fn owned(code: i32, stdout: &str, stderr: &str) -> (i32, String, String) {
    (code, stdout.to_owned(), stderr.to_owned())
}

#[test]
fn all_ways_to_write_an_option_mean_the_same() {
    let expected = concat!(
        r#"{"logs":"/l","scope":"-","evidence":["--a","b=c"],"lines":5,"follow":true,"#,
        r#""timeout":"10m","rotate_bytes":"1MiB","files":["x","-","--scope","help"]}"#,
        "\n"
    );
    let long = "--logs /l --scope - --evidence=--a --evidence b=c --lines 5 --follow --timeout 600s \
                --rotate-bytes 1024KiB x - -- --scope help";
    let short = "x -fn5 - --logs=/l --scope=- --evidence=--a --evidence=b=c --timeout=10m \
                 --rotate-bytes=1048576 -- --scope help";
    for line in [long, short] {
        let words: Vec<&str> = line.split_whitespace().collect();
        assert_eq!(run(&mut probe(&words)), owned(0, expected, ""), "{line}");
    }
}

#[test]
fn a_wrong_command_line_is_one_line_and_exit_64() {
    for (words, message) in [
        (&["--scpoe", "x"][..], "unknown option --scpoe; did you mean --scope? See cli-probe --help"),
        (&["--quiet=yes"], "--quiet takes no value; see cli-probe --help"),
        (&["--scope"], "--scope needs a value; see cli-probe --help"),
        (&["--scope", "a", "--scope=b"], "--scope is given twice; see cli-probe --help"),
        (
            &["--timeout", "5"],
            "--timeout \"5\": has no unit: write 5ms, 5s, 5m, 5h or 5d; see cli-probe --help",
        ),
        (&["--scope\u{1b}[31m\n"], "unknown option \"--scope\\u{1b}[31m\\u{a}\"; see cli-probe --help"),
    ] {
        assert_eq!(run(&mut probe(words)), owned(64, "", &format!("cli-probe: {message}\n")), "{words:?}");
    }
}

#[test]
fn an_argument_that_is_no_text_is_shown_escaped() {
    let mut probe = probe(&["-q"]);
    probe.arg(OsStr::from_bytes(b"caf\xe9\x1b"));
    let message = "cli-probe: argument 2 is not valid UTF-8: \"caf\\xe9\\x1b\"; see cli-probe --help\n";
    assert_eq!(run(&mut probe), owned(64, "", message));
}

#[test]
fn help_and_version_go_to_standard_output() {
    let (code, help, errors) = run(probe(&["x", "--help"]).env("MILESTONE_LOGS", "/srv/\u{1b}logs"));
    assert_eq!((code, errors.as_str()), (0, ""));
    assert!(help.starts_with("Usage: cli-probe [OPTION]... [FILE]...\n\nShow how a tool"), "{help}");
    for line in [
        "  -n, --lines N                 how many lines",
        "      --logs DIR                logs folder (default: $MILESTONE_LOGS, else",
        "Common options:",
        "  -h, --help                    show this help; -h shows the short one",
        "  -V, --version                 show version and commit",
        "                          [now: /srv/\\u{1b}logs]",
        "  2   the answer is no",
        "  64  the command line is wrong",
        "  cli-probe --scope ops -n5 notes.txt",
    ] {
        assert!(help.lines().any(|it| it == line), "{line:?} is missing in\n{help}");
    }
    assert!(help.lines().all(|it| it.chars().count() <= 80), "{help}");

    let (code, short, errors) = run(&mut probe(&["x", "-h"]));
    assert_eq!((code, errors.as_str()), (0, ""));
    assert!(short.len() < help.len() && !short.contains("MILESTONE_LOGS  "), "{short}");

    let (code, definition, errors) = run(&mut probe(&["--help=json"]));
    assert_eq!((code, errors.as_str()), (0, ""));
    assert!(definition.starts_with(r#"{"tool":"cli-probe","version":""#), "{definition}");
    assert_eq!(definition.lines().count(), 1);

    let (code, version, errors) = run(&mut probe(&["--version"]));
    assert_eq!((code, errors.as_str()), (0, ""));
    let commit = version.strip_prefix(concat!("cli-probe ", env!("CARGO_PKG_VERSION"), " (")).unwrap();
    let commit = commit.strip_suffix(")\n").unwrap();
    assert!(!commit.is_empty() && !commit.contains(char::is_whitespace), "{version}");
}

#[test]
fn closed_standard_output_is_exit_74_before_any_work() {
    let closed = "cli-probe: stdout: is closed, so results cannot be written and nothing was done; \
                  to drop results, send them to /dev/null\n";
    for script in [r#""$@" >&-"#, r#""$@" <&- >&-"#, r#""$@" 1</dev/null"#] {
        assert_eq!(run(&mut shell(script, &["--act", "messages"])), owned(74, "", closed), "{script}");
    }
    assert_eq!(run(&mut shell(r#""$@" <&- >&- 2>&-"#, &["--version"])), owned(74, "", ""));
}

#[test]
fn the_null_device_is_an_output_like_any_other() {
    for script in [r#""$@" >/dev/null"#, r#""$@" 1<>/dev/null"#] {
        assert_eq!(run(&mut shell(script, &["--scope=x"])), owned(0, "", ""), "{script}");
    }
}

#[test]
fn closed_standard_input_is_told_from_an_empty_one() {
    assert_eq!(run(&mut shell(r#""$@" </dev/null"#, &["--act=stdin"])), owned(0, "", ""));
    assert_eq!(run(&mut shell(r#""$@" 0<>/dev/null"#, &["--act=stdin"])), owned(0, "", ""));
    for script in [r#""$@" <&-"#, r#""$@" 0>/dev/null"#] {
        let message = "cli-probe: stdin: is closed\n";
        assert_eq!(run(&mut shell(script, &["--act=stdin"])), owned(66, "", message), "{script}");
    }
}

#[test]
fn results_that_do_not_fit_are_exit_74() {
    let message = "cli-probe: stdout: cannot write results: No space left on device (os error 28); \
                   what was done stays done, run it again to see it\n";
    for words in [&["--scope=x"][..], &["--help"], &["--version"]] {
        assert_eq!(run(&mut shell(r#""$@" >/dev/full"#, words)), owned(74, "", message), "{words:?}");
    }
    // 74 comes before the 65 that the work itself ended with.
    let (code, _, errors) = run(&mut shell(r#""$@" >/dev/full"#, &["--act=messages"]));
    assert_eq!(code, 74);
    assert!(errors.ends_with(message), "{errors}");
}

#[test]
fn a_file_size_limit_is_an_error_and_no_death() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("file").into_os_string().into_string().unwrap();
    let (code, _, errors) = run(&mut shell(r#"ulimit -f 1; "$@""#, &["--act=grow", &path]));
    assert_eq!(code, 74);
    assert!(errors.contains("cannot append: File too large"), "{errors}");

    // The results themselves may be what does not fit.
    let mut results = shell(r#"ulimit -f 1; "$@" >"$RESULTS""#, &["--act=flood"]);
    let (code, _, errors) = run(results.env("RESULTS", &path));
    assert_eq!(code, 74);
    assert!(errors.contains("stdout: cannot write results: File too large"), "{errors}");
}

#[test]
fn a_closed_pipe_ends_quietly_and_the_work_goes_on() {
    let mut child = probe(&["--act=flood"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut first = String::new();
    BufReader::with_capacity(16, child.stdout.take().unwrap()).read_line(&mut first).unwrap();
    assert_eq!(first, "0\n");
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(String::from_utf8(output.stderr).unwrap(), "cli-probe: finished, closed: true\n");
}

#[test]
fn a_pipe_that_somebody_made_non_blocking_loses_nothing() {
    let (mut reader, writer) = io::pipe().unwrap();
    fcntl_setfl(&writer, OFlags::NONBLOCK).unwrap();
    let mut child = probe(&["--act=flood"]).stdout(writer).stderr(Stdio::null()).spawn().unwrap();
    let mut all = String::new();
    reader.read_to_string(&mut all).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0));
    assert!(all.lines().eq((0..100_000).map(|it| it.to_string())));
}

#[test]
fn quiet_keeps_errors_and_refusals() {
    let errors =
        "cli-probe: note\ncli-probe: warning: warning \\u{202e}\\u{a}\ncli-probe: error \\u{1b}[31m\n";
    assert_eq!(run(&mut probe(&["--act=messages"])), owned(65, "\"result\"\n\"refusal\"\n", errors));
    let errors = "cli-probe: error \\u{1b}[31m\n";
    assert_eq!(run(&mut probe(&["--act=messages", "-q"])), owned(65, "\"refusal\"\n", errors));
}

#[test]
fn a_message_never_overtakes_a_result() {
    let (_, together, _) = run(&mut shell(r#""$@" 2>&1"#, &["--act=messages"]));
    let order: Vec<&str> = together.lines().map(|it| it.split(' ').nth(1).unwrap_or(it)).collect();
    assert_eq!(order, ["\"result\"", "note", "warning:", "\"refusal\"", "error"]);
}

#[test]
fn the_journal_gets_priorities_and_only_the_journal() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("stderr");
    let messages = |stream: &dyn Fn(&fs::Metadata) -> String| {
        let file = File::create(&path).unwrap();
        let mut probe = probe(&["--act=messages"]);
        probe.env("JOURNAL_STREAM", stream(&file.metadata().unwrap()));
        probe.stdout(Stdio::null()).stderr(file).status().unwrap();
        fs::read_to_string(&path).unwrap()
    };
    let ours = messages(&|it| format!("{}:{}", it.dev(), it.ino()));
    let priorities: Vec<&str> = ours.lines().map(|it| it.split(' ').next().unwrap()).collect();
    assert_eq!(priorities, ["<6>cli-probe:", "<4>cli-probe:", "<3>cli-probe:"]);
    let of_another = messages(&|it| format!("{}:{}", it.dev(), it.ino() + 1));
    assert!(of_another.lines().all(|it| it.starts_with("cli-probe: ")), "{of_another}");
}

#[test]
fn a_bug_is_one_line_and_exit_70() {
    let (code, results, errors) = run(&mut probe(&["--act=panic"]));
    assert_eq!((code, results.as_str()), (70, "\"acknowledged\"\n"));
    assert!(errors.starts_with("cli-probe: a bug in this program at "), "{errors}");
    assert!(errors.ends_with(": it\\u{a}broke; please report it\n"), "{errors}");
    assert_eq!(errors.lines().count(), 1, "{errors}");
}

/// The probe when it has said that it is ready, and what it says from then on.
fn waiting(arguments: &[&str]) -> (Child, impl Iterator<Item = String>) {
    let mut child = probe(arguments).stdout(Stdio::piped()).spawn().unwrap();
    let mut said = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
    assert_eq!(said.next().as_deref(), Some("\"ready\""));
    (child, said)
}

fn signal(child: &Child, signal: Signal) {
    kill_process(Pid::from_child(child), signal).unwrap();
}

#[test]
fn the_first_signal_asks() {
    for asking in [Signal::TERM, Signal::INT] {
        let (mut child, said) = waiting(&["--act=wait"]);
        signal(&child, asking);
        assert_eq!(child.wait().unwrap().code(), Some(0));
        assert_eq!(said.collect::<Vec<_>>(), ["\"asked\""]);
    }
}

#[test]
fn the_second_signal_ends_at_once() {
    let (mut child, mut said) = waiting(&["--act=wait", "--follow"]);
    signal(&child, Signal::TERM);
    assert_eq!(said.next().as_deref(), Some("\"asked\""));
    signal(&child, Signal::INT);
    assert_eq!(child.wait().unwrap().signal(), Some(2));
}
