//! The rules of the tree that no compiler keeps: every file says what it is, every tool is told of everywhere.
//!
//! Not here: how long functions may be, which calls are for one module alone (clippy); whether links and commands
//! of the documentation hold (`documentation`); what man pages and completions say (`manual`).
#![expect(clippy::unwrap_used, reason = "a test that cannot set itself up has failed")]

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");

/// The files under a folder of the tree, without what is built.
fn files(folder: &str) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut folders = vec![Path::new(ROOT).join(folder)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if !path.is_dir() {
                files.push(path);
            } else if !matches!(path.file_name().unwrap().to_str(), Some("target" | "__pycache__")) {
                folders.push(path);
            }
        }
    }
    files.sort();
    files
}

fn read(path: impl AsRef<Path>) -> String {
    fs::read_to_string(Path::new(ROOT).join(path)).unwrap()
}

fn tools() -> Vec<String> {
    let entries = fs::read_dir(Path::new(ROOT).join("bins")).unwrap();
    let mut tools: Vec<String> = entries.map(|it| it.unwrap().file_name().into_string().unwrap()).collect();
    tools.sort();
    tools
}

#[test]
fn every_source_begins_with_what_it_is() {
    for folder in ["bins", "lib", "testing", "fuzz"] {
        for file in files(folder).iter().filter(|it| it.extension().is_some_and(|it| it == "rs")) {
            let text = read(file);
            let head = text.trim_start_matches("#!/usr/bin/env");
            assert!(head.starts_with("//! "), "{} does not begin with its idea (//! …)", file.display());
        }
    }
}

#[test]
fn every_tool_is_told_of_everywhere() {
    let readme = read("README.md");
    let (messages, logs) = (read("docs/ARCHITECTURE.md"), read("logs/README.md"));
    for tool in tools() {
        assert!(readme.contains(&format!("\n| `{tool}` |")), "README.md has no row for {tool}");
        assert!(messages.contains(&tool) && logs.contains(&tool), "{tool} is missing in the documentation");
        let sources = files(&format!("bins/{tool}"));
        assert!(sources.iter().any(|it| it.ends_with("src/main.rs")), "{tool} has no main.rs");
        assert!(sources.iter().any(|it| it.to_str().unwrap().contains("/tests/")), "{tool} has no tests");
        for made in [
            format!("man/{tool}.1"),
            format!("completions/bash/{tool}"),
            format!("completions/zsh/_{tool}"),
            format!("completions/fish/{tool}.fish"),
        ] {
            assert!(Path::new(ROOT).join(&made).exists(), "{made} is missing; run scripts/manual");
        }
    }
}

#[test]
fn every_schema_says_what_it_accepts_and_refuses() {
    for file in files("schemas").iter().filter(|it| it.parent().unwrap().ends_with("schemas")) {
        let name = file.file_stem().unwrap().to_str().unwrap();
        for kind in ["valid", "invalid"] {
            let examples = format!("schemas/examples/{kind}/{name}");
            assert!(Path::new(ROOT).join(&examples).is_dir(), "{examples} is missing");
        }
    }
}

#[test]
fn every_page_is_reached_from_the_readme() {
    let mut reached = vec![PathBuf::from("README.md")];
    let mut at = 0;
    while let Some(page) = reached.get(at).cloned() {
        at += 1;
        for link in read(&page).split("](").skip(1).map(|it| it.split([')', '#']).next().unwrap()) {
            let Ok(target) = Path::new(ROOT).join(page.parent().unwrap()).join(link).canonicalize() else {
                continue;
            };
            let root = Path::new(ROOT).canonicalize().unwrap();
            let Ok(own) = target.strip_prefix(root) else { continue };
            if own.extension().is_some_and(|it| it == "md") && !reached.iter().any(|it| it == own) {
                reached.push(own.to_path_buf());
            }
        }
    }
    for file in files("docs").iter().filter(|it| it.extension().is_some_and(|it| it == "md")) {
        let own = file.strip_prefix(ROOT).unwrap();
        // Decisions are linked as a folder.
        let is_reached = reached.iter().any(|it| it == own) || own.starts_with("docs/decisions");
        assert!(is_reached, "nothing leads from README.md to {}", own.display());
    }
}

#[test]
fn every_script_says_what_it_does() {
    for file in files("scripts") {
        let is_program = fs::metadata(&file).unwrap().permissions().mode() & 0o111 != 0;
        let Ok(text) = fs::read_to_string(&file) else { continue };
        if is_program {
            assert!(text.starts_with("#!"), "{} has no #! line", file.display());
            let second = text.lines().nth(1).unwrap_or_default();
            let says = second.starts_with("# ") || second.starts_with("\"\"\"");
            assert!(says, "{} does not begin with what it does", file.display());
        }
    }
}

#[test]
fn nothing_is_left_to_be_done_and_no_machine_is_named() {
    // Put together here, so that this file does not name them itself.
    let words = ["TO DO", "FIX ME", "/ro ot/"].map(|it| it.replace(' ', ""));
    for folder in ["bins", "lib", "testing", "scripts", "docs", "schemas", "man", "completions"] {
        for file in files(folder) {
            // The test bed of the units and what is run in it: a machine that is made for them, where these places are.
            if file.to_string_lossy().contains("/systemd") {
                continue;
            }
            let Ok(text) = fs::read_to_string(&file) else { continue };
            for word in &words {
                assert!(!text.contains(word.as_str()), "{} holds {word}", file.display());
            }
        }
    }
}
