//! The recipes for other languages append and read rightly: across rotations, and nothing beyond the mark.
#![expect(clippy::unwrap_used, reason = "a test that cannot set itself up has failed")]

use std::{
    env,
    fs::OpenOptions,
    io::Write,
    path::Path,
    process::{Command, Stdio},
};

use milepost_testing::{Run, Scratch, milestone, tool_path};

const RECIPES: [(&str, &str); 3] = [("bash", "sh"), ("python3", "py"), ("node", "mjs")];

fn recipe(program: &str, ending: &str, scratch: &Scratch, arguments: &[&str], stdin: &str) -> Run {
    let tools = tool_path("milestone-emit").parent().unwrap().display().to_string();
    let mut child = Command::new(program)
        .arg(format!("{}/../examples/recipes.{ending}", env!("CARGO_MANIFEST_DIR")))
        .args(arguments)
        .current_dir(scratch.dir())
        .env("PATH", format!("{tools}:{}", env::var("PATH").unwrap()))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(stdin.as_bytes()).unwrap();
    Run::of(child)
}

fn is_there(program: &str) -> bool {
    env::var("PATH").unwrap().split(':').any(|it| Path::new(it).join(program).exists())
}

#[test]
fn other_languages_append_and_read() {
    for (program, ending) in RECIPES.into_iter().filter(|(program, _)| is_there(program)) {
        let scratch = Scratch::new();
        let recipe = |arguments: &[&str], stdin: &str| recipe(program, ending, &scratch, arguments, stdin);
        let ids = |run: &Run| -> Vec<String> {
            let lines = run.stdout.lines().filter(|it| it.starts_with('{'));
            let records = lines.map(|it| serde_json::from_str::<serde_json::Value>(it).unwrap());
            records.map(|it| it["milestoneId"].as_str().unwrap().to_owned()).collect()
        };
        // Each in a file of its own.
        for id in ["a", "b", "c"] {
            let line = milestone(id).to_string();
            scratch.feed("milestone-emit", &["--rotate-bytes=100B"], line.as_bytes()).exits(0);
        }
        let all = recipe(&["read", "logs", "milestones"], "").exits(0);
        assert_eq!(ids(&all), ["a", "b", "c"], "{program}");
        let end = all.stdout.lines().last().unwrap().to_owned();

        let appended = recipe(&["append", "logs"], &milestone("d").to_string()).exits(0);
        assert_eq!(appended.stdout, "appended\n", "{program}");
        let again = recipe(&["append", "logs"], &milestone("d").to_string()).exits(0);
        assert_eq!(again.stdout, "duplicate\n", "{program}");
        let wrong = recipe(&["append", "logs"], r#"{"milestoneId":"e"}"#);
        assert!(wrong.code != 0 && wrong.stderr.contains("/claim"), "{program}: {wrong:?}");

        // What a writer that died left beyond the mark was never acknowledged.
        let mut journal = OpenOptions::new().append(true).open(scratch.log("milestones.jsonl")).unwrap();
        journal.write_all(b"{\"milestoneId\":\"torn\"").unwrap();
        let news = recipe(&["read", "logs", "milestones", &end], "").exits(0);
        assert_eq!(ids(&news), ["d"], "{program}");
        let after = news.stdout.lines().last().unwrap();
        let nothing = recipe(&["read", "logs", "milestones", after], "").exits(0);
        assert_eq!(nothing.stdout, format!("{after}\n"), "{program}");
    }
}
