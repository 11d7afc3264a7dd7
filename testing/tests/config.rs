//! docs/CONFIG.md and .env.example say what the programs say: every flag, every variable, and none besides.
#![expect(clippy::unwrap_used, reason = "a test that cannot set itself up has failed")]
#![expect(clippy::disallowed_methods, reason = "the page is brought up to date by its test")]

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    fs,
    path::Path,
};

use milepost_testing::{Run, Scratch, root};

const BEGIN: &str = "cargo test -p milepost-testing --test config` -->\n";
const END: &str = "<!-- end of flags -->";
/// Those that stand beside the tools.
const SCRIPTS: [&str; 4] = ["backup", "restore", "trim", "with-milestone"];

fn tools() -> Vec<String> {
    let bins = fs::read_dir(root().join("bins")).unwrap();
    let mut tools: Vec<_> = bins.map(|it| it.unwrap().file_name().into_string().unwrap()).collect();
    tools.sort();
    tools
}

fn page() -> String {
    fs::read_to_string(root().join("docs/CONFIG.md")).unwrap()
}

/// The options in a help text: each with its value, and what it says.
fn options(help: &str) -> Vec<(String, String)> {
    let mut found: Vec<(String, String)> = Vec::new();
    for line in help.lines() {
        // `#` is gone from a script's help, and its options are indented by two.
        let text = line.trim_start();
        let indent = line.len() - text.len();
        // What is said of one may go on with the name of another.
        let is_option = text.starts_with("--")
            || text.starts_with('-') && text[1..].starts_with(|it: char| it.is_alphabetic());
        if is_option && indent < 12 {
            let (flag, what) = match text.split_once("  ") {
                Some((flag, what)) => (flag, what.trim_start()),
                None => (text, ""),
            };
            found.push((flag.to_owned(), what.to_owned()));
        } else if text.is_empty() || indent < 12 {
            if !found.is_empty() {
                break;
            }
        } else if let Some((_, what)) = found.last_mut() {
            what.push_str(if what.is_empty() { "" } else { " " });
            what.push_str(text);
        }
    }
    found
}

fn of_help(help: &str) -> Vec<(String, String)> {
    let from = help.find("Options:\n").map_or(0, |it| it + "Options:\n".len());
    options(&help[from..])
}

/// The table of flags: one row for a flag that says the same in several tools.
fn table() -> String {
    let scratch = Scratch::new();
    let mut helps: Vec<(String, String)> =
        tools().into_iter().map(|it| (it.clone(), scratch.run(&it, &["--help"]).exits(0).stdout)).collect();
    for script in SCRIPTS {
        let run = Run::of(scratch.script(script).arg("--help").spawn().unwrap()).exits(0);
        let (_, options) =
            run.stdout.split_once("\n\nusage:").or_else(|| run.stdout.split_once("usage:")).unwrap();
        let (_, options) = options.split_once('\n').unwrap();
        helps.push((script.to_owned(), format!("Options:\n{options}")));
    }
    let mut rows: BTreeMap<(String, String), Vec<String>> = BTreeMap::new();
    for (tool, help) in helps {
        let options = of_help(&help);
        assert!(!options.is_empty(), "{tool} has no options?\n{help}");
        for row in options {
            rows.entry(row).or_default().push(tool.clone());
        }
    }
    let all = tools().len();
    let mut text = "| flag | of | what it says |\n| --- | --- | --- |\n".to_owned();
    for ((flag, what), of) in rows {
        let of = if of.len() == all + SCRIPTS.len() { "all".to_owned() } else { of.join(", ") };
        let _ = writeln!(text, "| `{}` | {of} | {} |", flag.replace('|', "\\|"), what.replace('|', "\\|"));
    }
    text
}

#[test]
fn the_page_has_every_flag_in_the_words_of_the_programs() {
    let page = page();
    let (head, rest) = page.split_once(BEGIN).unwrap();
    let (flags, tail) = rest.split_once(END).unwrap();
    let table = table();
    if std::env::var_os("MILEPOST_UPDATE").is_some() {
        fs::write(root().join("docs/CONFIG.md"), format!("{head}{BEGIN}{table}{END}{tail}")).unwrap();
        return;
    }
    let missing: Vec<_> = table.lines().filter(|it| !flags.lines().any(|line| line == *it)).collect();
    let gone: Vec<_> = flags.lines().filter(|it| !table.lines().any(|line| line == *it)).collect();
    assert_eq!((missing, gone), (Vec::new(), Vec::new()), "bring it up to date with MILEPOST_UPDATE=1");
}

/// The variables in the first column of the page's table.
fn of_page() -> BTreeSet<String> {
    let page = page();
    let rows = page.split_once("## Environment").unwrap().1.split_once("\n## ").unwrap().0;
    rows.lines().filter_map(|it| Some(it.strip_prefix("| `")?.split_once('`')?.0.to_owned())).collect()
}

/// Words in capitals in string literals of ours, and what is asked of the environment by name.
fn of_sources(dir: &Path, found: &mut BTreeSet<String>) {
    for entry in fs::read_dir(dir).unwrap().map(Result::unwrap) {
        let path = entry.path();
        if path.is_dir() {
            of_sources(&path, found);
        } else if path.extension().is_some_and(|it| it == "rs") {
            let text = fs::read_to_string(&path).unwrap();
            let parts: Vec<&str> = text.split('"').collect();
            for pair in parts.windows(2) {
                let [before, literal] = [pair[0], pair[1]];
                let is_name = !literal.is_empty()
                    && !literal.ends_with('_')
                    && literal.bytes().all(|it| it.is_ascii_uppercase() || it == b'_' || it.is_ascii_digit());
                let is_ours = literal.starts_with("MILESTONE_") || literal.starts_with("CLAWDBOT_");
                let is_asked = before.ends_with("env::var(") || before.ends_with("env::var_os(");
                if is_name && (is_ours || is_asked) {
                    found.insert(literal.to_owned());
                }
            }
        }
    }
}

#[test]
fn the_page_has_every_variable_that_is_read() {
    let mut read = BTreeSet::new();
    of_sources(&root().join("lib/src"), &mut read);
    for tool in tools() {
        of_sources(&root().join("bins").join(tool).join("src"), &mut read);
    }
    // By a constant.
    read.insert("CREDENTIALS_DIRECTORY".to_owned());
    // One after the other.
    read.extend(["LC_ALL", "LC_CTYPE", "LANG"].map(str::to_owned));
    assert_eq!(of_page(), read);
}

#[test]
fn the_example_has_what_a_person_may_set_and_is_found_well() {
    let text = fs::read_to_string(root().join(".env.example")).unwrap();
    let lines = text.lines().filter_map(|it| it.trim_start_matches('#').split_once('='));
    let names: BTreeSet<_> =
        lines.filter(|(name, _)| !name.contains(' ')).map(|(name, _)| name.to_owned()).collect();
    let not_for_people = [
        "CREDENTIALS_DIRECTORY",
        "JOURNAL_STREAM",
        "LISTEN_FDNAMES",
        "TERM",
        "LC_ALL",
        "LC_CTYPE",
        "LANG",
        "TZ",
        "RUST_BACKTRACE",
    ];
    let mut expected = of_page();
    expected.retain(|it| !not_for_people.contains(&it.as_str()));
    assert_eq!(names, expected);

    // As a shell reads it.
    let scratch = Scratch::new();
    let example = root().join(".env.example");
    let command = format!("set -a; . {}; MILESTONE_LOGS=logs; milestone-status --config", example.display());
    let run =
        Run::of(scratch.script("sh").args(["-c", &command]).env_remove("MILESTONE_LOGS").spawn().unwrap());
    let shown = run.exits(0).stdout;
    assert!(shown.contains("https://feed.example/") && shown.contains("$MILESTONE_ROTATE_BYTES"), "{shown}");
}
