//! The documentation holds: its commands print what it says, its links lead somewhere, every message is in it.
#![expect(clippy::unwrap_used, reason = "a test that cannot set itself up has failed")]

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use milepost_testing::{Scratch, tool_path};

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");

#[track_caller]
fn succeeds(command: &mut Command) {
    let output = command.current_dir(ROOT).output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&said));
}

fn examples(pages: &[&str]) -> Command {
    let mut command = Command::new(format!("{ROOT}/scripts/examples"));
    command.arg("--tools").arg(tool_path("milestone-emit").parent().unwrap()).args(pages);
    command
}

#[test]
fn the_readme_prints_what_it_says() {
    succeeds(&mut examples(&["README.md"]));
}

#[test]
fn the_cookbook_and_the_contract_print_what_they_say() {
    succeeds(&mut examples(&["docs/GUIDE.md", "docs/CONTRACT.md"]));
}

#[test]
fn mistakes_are_answered_in_the_same_words_every_time() {
    succeeds(&mut examples(&["testing/tests/data/mistakes.md"]));
}

#[test]
fn every_message_has_its_entry_and_every_entry_its_message() {
    succeeds(Command::new("python3").arg("testing/messages.py"));
}

/// The Markdown pages of a tree, without what is built or fetched.
fn pages(root: &Path) -> Vec<PathBuf> {
    let mut pages = Vec::new();
    let mut folders = vec![root.canonicalize().unwrap()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap();
            if path.is_dir() && name != "target" && name != ".git" {
                folders.push(path);
            } else if path.extension().is_some_and(|it| it == "md") {
                pages.push(path);
            }
        }
    }
    pages.sort();
    pages
}

/// A page without its code: nothing in there is a link or a heading.
fn without_code(text: &str) -> String {
    let mut out = String::new();
    let mut is_code = false;
    for line in text.lines() {
        if line.trim_start().starts_with("```") {
            is_code = !is_code;
        } else if !is_code {
            for (at, part) in line.split('`').enumerate() {
                // What stands between backticks keeps its letters, for headings, and loses its brackets.
                let inside = at % 2 == 1;
                out.extend(part.chars().filter(|it| !(inside && matches!(it, '[' | ']' | '(' | ')'))));
            }
            out.push('\n');
        }
    }
    out
}

/// The anchors of a page's headings, as GitHub makes them.
fn anchors(text: &str) -> BTreeSet<String> {
    let headings = text.lines().filter(|it| it.starts_with('#'));
    let slug = |it: &str| {
        let words = it.trim_start_matches('#').trim().to_lowercase();
        words.chars().filter(|it| it.is_alphanumeric() || matches!(it, ' ' | '-' | '_')).collect::<String>()
    };
    headings.map(|it| slug(it).replace(' ', "-")).collect()
}

/// The links in the pages of a tree that lead nowhere: page and link.
fn dead_links(root: &Path) -> Vec<(PathBuf, String)> {
    let mut dead = Vec::new();
    for page in pages(root) {
        let text = without_code(&fs::read_to_string(&page).unwrap());
        for link in text.split("](").skip(1).map(|it| it.split(')').next().unwrap()) {
            if link.contains("://") || link.starts_with("mailto:") {
                continue;
            }
            let (file, anchor) = link.split_once('#').unwrap_or((link, ""));
            let target = if file.is_empty() { page.clone() } else { page.parent().unwrap().join(file) };
            let has_anchor =
                |target: &Path| anchors(&without_code(&fs::read_to_string(target).unwrap())).contains(anchor);
            if !target.exists() || !anchor.is_empty() && !has_anchor(&target) {
                dead.push((page.clone(), link.to_owned()));
            }
        }
    }
    dead
}

#[test]
fn no_link_is_dead() {
    assert_eq!(dead_links(Path::new(ROOT)), []);
}

#[test]
fn what_is_installed_leads_to_what_is_installed() {
    let scratch = Scratch::new();
    // Spaces are nothing special.
    let (tools, to) = (scratch.dir().join("the tools"), scratch.dir().join("the root"));
    std::os::unix::fs::symlink(tool_path("milestone-emit").parent().unwrap(), &tools).unwrap();
    let install = |more: &[&str]| {
        let mut command = Command::new(format!("{ROOT}/scripts/install"));
        succeeds(command.arg("--tools").arg(&tools).arg("--destdir").arg(&to).args(more));
    };
    install(&[]);
    let share = to.join("usr/local/share");
    assert!(to.join("usr/local/bin/milestone-emit").is_file());
    assert!(share.join("man/man1/milestone-emit.1").is_file());
    // These are elsewhere, or for who has the sources.
    let elsewhere = ["man", "completions", "Cargo.toml", "../scripts/bench/floors"];
    let mut dead = dead_links(&share.join("doc/milepost"));
    dead.retain(|(_, link)| !elsewhere.contains(&link.as_str()));
    assert_eq!(dead, []);

    install(&["--uninstall"]);
    assert_eq!(pages(&to), Vec::<PathBuf>::new());
    assert!(!to.join("usr/local/bin/milestone-emit").exists());
    assert!(to.join("etc/milepost/ops.env").is_file(), "settings stay");
}
