//! Tells the library which commit it is built from, for `--version`.
//!
//! # Invariants
//! - `MILEPOST_COMMIT` in the environment wins, so that a packager can set it.
//! - Only our own repository counts: a source archive unpacked inside another one is "unknown".
//! - It is run again only when the commit may have changed, and says the same for the same commit.
//!
//! Whether the tree had uncommitted changes is not said: nothing would run this again when they go.

use std::{env, path::Path, process::Command};

/// As many digits as git shows in a large repository; git's own choice depends on the clone.
const DIGITS: usize = 12;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed=MILEPOST_COMMIT");
    let given = env::var("MILEPOST_COMMIT").ok().filter(|it| !it.trim().is_empty());
    let commit = given.or_else(commit_of_repository).unwrap_or_else(|| "unknown".to_owned());
    println!("cargo::rustc-env=MILEPOST_COMMIT={}", commit.trim());
}

fn commit_of_repository() -> Option<String> {
    // The log of HEAD grows with every move of it, also with a commit on a branch that HEAD only names.
    let arguments = "rev-parse --show-prefix HEAD --git-path HEAD --git-path logs/HEAD";
    let answer = Command::new("git")
        // A package is often built by another user than the one who owns the sources.
        .args(["-c", "safe.directory=*"])
        .args(arguments.split(' '))
        .env_remove("GIT_DIR")
        .env_remove("GIT_WORK_TREE")
        .output()
        .ok()
        .filter(|it| it.status.success())?;
    let answer = String::from_utf8(answer.stdout).ok()?;
    let (prefix, rest) = answer.split_once('\n')?;
    if prefix != "lib/" {
        return None;
    }
    let mut lines = rest.lines();
    let commit = lines.next()?.get(..DIGITS)?.to_owned();
    for path in lines.filter(|it| Path::new(it).exists()) {
        // A path that does not exist would run this again at every build.
        println!("cargo::rerun-if-changed={path}");
    }
    Some(commit)
}
