//! What the tests of the tools share: a logs folder of their own, and the tools as processes.
//!
//! A tool is run by name from the folder in which cargo put the test itself; `cargo test --workspace` builds all
//! of them. Nothing here is part of the product.
#![expect(clippy::unwrap_used, reason = "a test that cannot set itself up has failed")]
#![expect(clippy::return_self_not_must_use, reason = "asserting is enough of a use")]
#![expect(clippy::missing_panics_doc, reason = "a test that cannot set itself up has failed")]

pub mod disk;
pub mod documents;
pub mod hostile;
mod receiver;
pub mod signature;

pub use receiver::Receiver;

use std::{
    fs,
    io::Write,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::Duration,
};

use serde_json::{Value, json};
use tempfile::TempDir;

/// A scratch folder with a logs folder in it; gone when dropped.
#[derive(Debug)]
pub struct Scratch {
    dir: TempDir,
}

/// How a tool ended.
#[derive(Clone, Debug)]
pub struct Run {
    /// What it wrote to standard output.
    pub stdout: String,
    /// What it wrote to standard error.
    pub stderr: String,
    /// Its exit code; -1 when a signal ended it.
    pub code: i32,
}

impl Default for Scratch {
    fn default() -> Scratch {
        Scratch::new()
    }
}

impl Scratch {
    /// A new scratch folder.
    pub fn new() -> Scratch {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("logs")).unwrap();
        Scratch { dir }
    }

    /// The scratch folder, in which the tools run.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// A file of the logs folder.
    pub fn log(&self, file: &str) -> PathBuf {
        self.dir.path().join("logs").join(file)
    }

    /// A tool as a command, with its own empty surroundings, in the scratch folder.
    pub fn command(&self, tool: &str) -> Command {
        self.surrounded(Command::new(tool_path(tool)))
    }

    fn surrounded(&self, mut command: Command) -> Command {
        command.current_dir(self.dir());
        for (name, _) in std::env::vars_os() {
            if name.to_str().is_some_and(|it| it.starts_with("MILESTONE_") || it.starts_with("CLAWDBOT_")) {
                command.env_remove(name);
            }
        }
        command
            .env_remove("JOURNAL_STREAM")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    /// Runs a tool to its end.
    pub fn run(&self, tool: &str, args: &[&str]) -> Run {
        Run::of(self.command(tool).args(args).spawn().unwrap())
    }

    /// Runs a tool to its end, with something on its standard input.
    pub fn feed(&self, tool: &str, args: &[&str], stdin: &[u8]) -> Run {
        let mut child = self.command(tool).args(args).stdin(Stdio::piped()).spawn().unwrap();
        let mut pipe = child.stdin.take().unwrap();
        let stdin = stdin.to_vec();
        // In a thread, since a tool may answer before it has read everything; one that does not want to read
        // all of it is its own affair.
        let writer = thread::spawn(move || drop(pipe.write_all(&stdin)));
        let run = Run::of(child);
        writer.join().unwrap();
        run
    }

    /// A program that is not a tool of ours, such as a script, in the surroundings of [`Scratch::command`] with the
    /// tools in its `PATH` and this folder's journals as `$MILESTONE_LOGS`.
    pub fn script(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = self.surrounded(Command::new(program));
        command.env("PATH", path_to_tools()).env("MILESTONE_LOGS", self.dir().join("logs"));
        command
    }

    /// The whole records of a journal, all segments in order; none when there is no such journal.
    pub fn records(&self, journal: &str) -> Vec<Value> {
        let active = self.log(&format!("{journal}.jsonl"));
        let own = active.file_stem().unwrap().to_str().unwrap();
        let Ok(entries) = fs::read_dir(active.parent().unwrap()) else { return Vec::new() };
        let mut files: Vec<PathBuf> = entries
            .map(|it| it.unwrap().path())
            .filter(|it| {
                let file = it.file_name().unwrap().to_str().unwrap();
                file.strip_prefix(own)
                    .is_some_and(|it| it == ".jsonl" || it.len() == 27 && it.starts_with(".0"))
            })
            .collect();
        // The active segment, `NAME.jsonl`, is the last.
        files.sort_by_key(|it| (*it == active, it.clone()));
        let text: String = files.iter().map(|it| fs::read_to_string(it).unwrap()).collect();
        // Of a journal that is being written, the line that is not whole yet does not count.
        text[..text.rfind('\n').map_or(0, |it| it + 1)]
            .lines()
            .map(|it| serde_json::from_str(it).unwrap())
            .collect()
    }

    /// Writes a file into the scratch folder.
    #[expect(clippy::disallowed_methods, reason = "a test makes its input itself")]
    pub fn write(&self, file: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
        let path = self.dir().join(file);
        fs::write(&path, bytes).unwrap();
        path
    }

    /// Writes a secret, with a line end as editors do, into a file of the scratch folder that nobody else reads.
    pub fn secret(&self, file: &str, text: &str) -> PathBuf {
        let path = self.write(file, format!("{text}\n"));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        path
    }
}

/// A process that ends with the test, however that ends: killed when dropped.
#[derive(Debug)]
pub struct Running(pub Child);

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Run {
    /// Waits for a tool to end.
    pub fn of(child: Child) -> Run {
        let output = child.wait_with_output().unwrap();
        Run {
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
            code: output.status.code().unwrap_or(-1),
        }
    }

    /// The result lines.
    pub fn results(&self) -> Vec<Value> {
        self.stdout.lines().map(|it| serde_json::from_str(it).unwrap()).collect()
    }

    /// One field of every result line.
    pub fn all(&self, field: &str) -> Vec<Value> {
        self.results().iter().map(|it| it[field].clone()).collect()
    }

    /// Asserts the exit code, and shows everything when it is another.
    #[track_caller]
    pub fn exits(self, code: i32) -> Run {
        assert_eq!(self.code, code, "stdout:\n{}\nstderr:\n{}", self.stdout, self.stderr);
        self
    }
}

/// Waits until something is so.
///
/// # Panics
/// When it is not within a minute.
#[track_caller]
pub fn wait_until(mut is_so: impl FnMut() -> bool) {
    for _ in 0..6000 {
        if is_so() {
            return;
        }
        thread::park_timeout(Duration::from_millis(10));
    }
    panic!("it never happens");
}

/// Where cargo put a tool.
pub fn tool_path(tool: &str) -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let path = test.parent().unwrap().parent().unwrap().join(tool);
    assert!(path.exists(), "{} is not built; run cargo test --workspace", path.display());
    path
}

/// The root of the repository.
pub fn root() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}

/// A `PATH` in which the tools, the scripts and the system's programs are.
pub fn path_to_tools() -> String {
    let tools = tool_path("milestone-emit");
    format!("{}:{}:/usr/bin:/bin", tools.parent().unwrap().display(), root().join("scripts").display())
}

/// The Python that has this package of `PyPI`, in an environment that scripts/test makes in the build folder.
///
/// # Panics
/// When there is none, with how to get it.
pub fn python(package: &str) -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let environments = test.ancestors().filter_map(|it| fs::read_dir(it.join("python")).ok()).flatten();
    let found = environments
        .map(|it| it.unwrap())
        .filter(|it| it.file_name().to_string_lossy().starts_with(&format!("{package}-")))
        .map(|it| it.path().join("bin/python"))
        .find(|it| it.exists());
    found.unwrap_or_else(|| {
        panic!("no Python environment has {package}; scripts/test makes it (need_pypi of scripts/lib.sh)")
    })
}

/// A valid milestone with this id.
pub fn milestone(id: &str) -> Value {
    json!({
        "milestoneId": id,
        "timestampUtc": "2026-03-01T09:05:00.000Z",
        "scope": "runtime",
        "claim": "The nightly batch ran.",
        "evidence": [{ "type": "issue", "path": "tracker/17", "summary": "closed" }],
        "riskStatus": "on-track",
        "nextAction": "Watch the next run.",
        "source": "agent",
    })
}
