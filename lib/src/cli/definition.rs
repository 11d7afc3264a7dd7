//! A tool's command line as data: what help, man pages and completions are made of.
//!
//! argh's own table (`ArgsInfo`) holds what the parser goes by; here it gets what argh has no place for:
//! `--help` and `--version`, environment variables, and the words that all tools share.
//!
//! # Invariants
//! - Every flag that the parser knows and does not hide is there, and nothing else.
//! - Nothing of the machine or of the surroundings is in it: the same program always says the same.
//!
//! How a tool writes its definition: `arg_name = "DIR"` names a value, `arg_name = "on|off"` lists all that it
//! can be; "may be given several times" stands in the description of what may; `note = "$NAME: what it is for"`
//! is an environment variable, any other note a paragraph; `error_code(2, "…")` adds to, or words anew, the
//! common exit codes; in examples `{command_name}` stands for the tool. Backticks are for rustdoc and not shown.
//!
//! Not here: how it is laid out for people (`help`), and man pages and completions (the package `manual`).

use argh::{CommandInfoWithArgs, FlagInfo, FlagInfoKind, Optionality};
use serde::Serialize;

/// The exit codes that every tool may end with; see `Kind::exit_code`.
const COMMON_EXIT_CODES: [(i32, &str); 7] = [
    (0, "done"),
    (64, "the command line is wrong"),
    (66, "a file or folder is not there"),
    (70, "a bug in this program"),
    (74, "reading or writing failed"),
    (75, "try again later: a lock is held, the disk is full"),
    (77, "the system forbids it"),
];

/// Those that a tool which appends has besides.
const APPENDING_EXIT_CODES: [(i32, &str); 2] =
    [(65, "a journal was truncated, replaced or rewritten"), (78, "$MILESTONE_ROTATE_BYTES is no size")];

/// Flags that several tools have and that mean the same in each: they come last, under a heading of their own.
const COMMON_FLAGS: [&str; 5] = ["--logs", "--rotate-bytes", "--quiet", "--help", "--version"];

/// A variable that stands for a flag where that is not given, and what it says.
const VARIABLES_OF_FLAGS: [(&str, &str, &str); 2] = [
    ("--logs", "MILESTONE_LOGS", "logs folder, where --logs is not given"),
    (
        "--rotate-bytes",
        "MILESTONE_ROTATE_BYTES",
        "size at which a journal begins a new file, where --rotate-bytes is not given",
    ),
];

/// The commit that this was built from, or "unknown"; see build.rs.
const COMMIT: &str = env!("MILEPOST_COMMIT");

/// All that a tool says of itself. `--help=json` prints it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Definition {
    /// The name of the program.
    pub tool: String,
    /// `0.1.0`, without the commit.
    pub version: &'static str,
    /// What stands behind the tool's name on its usage line.
    pub usage: String,
    /// What it does, in one sentence.
    pub summary: String,
    /// The rest of what is to be said before the options; may be empty.
    pub description: String,
    /// Words that are no options.
    pub arguments: Vec<Row>,
    /// The tool's own options first, then those that many tools have.
    pub options: Vec<Opt>,
    /// Environment variables, without `$`.
    pub environment: Vec<Row>,
    /// Ascending.
    pub exit_codes: Vec<ExitCode>,
    /// Commands to copy; one may take several lines.
    pub examples: Vec<String>,
    /// Paragraphs.
    pub notes: Vec<String>,
}

/// A name and what it is for.
#[derive(Debug, Serialize)]
pub(super) struct Row {
    pub name: String,
    pub description: String,
}

/// One option.
#[derive(Debug, Serialize)]
pub(super) struct Opt {
    /// `--logs`.
    pub long: String,
    /// `q` of `-q`.
    pub short: Option<char>,
    /// `DIR`, or all that it can be: `scope|strict|none`. None for a switch.
    pub value: Option<String>,
    pub description: String,
    pub repeatable: bool,
    /// Whether it means the same in every tool that has it.
    pub common: bool,
}

/// One way to end.
#[derive(Debug, Serialize)]
pub(super) struct ExitCode {
    pub code: i32,
    pub description: String,
}

/// `milestone-emit 0.1.0 (abc1234)`, and a line feed.
pub(super) fn version(tool: &str) -> String {
    format!("{tool} {} ({COMMIT})\n", env!("CARGO_PKG_VERSION"))
}

impl Definition {
    /// What `tool` says of itself.
    pub fn of(tool: &str, info: &CommandInfoWithArgs) -> Definition {
        let (summary, description) = in_two(plain(info.description));
        let arguments = info.positionals.iter().filter(|it| !it.hidden);
        let (variables, notes): (Vec<&str>, Vec<&str>) =
            info.notes.iter().partition(|it| it.starts_with('$'));
        let examples = info.examples.iter().flat_map(|it| commands(&unescaped(it)));
        Definition {
            tool: tool.to_owned(),
            version: env!("CARGO_PKG_VERSION"),
            usage: usage(info),
            summary,
            description,
            arguments: arguments.map(|it| Row::new(it.name, it.description)).collect(),
            options: options(info),
            environment: environment(info, &variables),
            exit_codes: exit_codes(info),
            examples: examples.map(|it| it.replace("{command_name}", tool)).collect(),
            notes: notes.iter().map(|it| plain(it)).collect(),
        }
    }
}

impl Row {
    fn new(name: &str, description: &str) -> Row {
        Row { name: name.to_owned(), description: plain(description) }
    }
}

fn usage(info: &CommandInfoWithArgs) -> String {
    let mut words: Vec<String> = Vec::new();
    for flag in info.flags.iter().filter(|it| it.optionality == Optionality::Required && !it.hidden) {
        words.push(flag.long.to_owned());
        words.extend(value_of(flag));
    }
    words.push("[OPTION]...".to_owned());
    for positional in info.positionals.iter().filter(|it| !it.hidden) {
        let name = positional.name;
        words.push(match positional.optionality {
            Optionality::Required => name.to_owned(),
            Optionality::Optional => format!("[{name}]"),
            Optionality::Repeating | Optionality::Greedy => format!("[{name}]..."),
        });
    }
    words.join(" ")
}

fn options(info: &CommandInfoWithArgs) -> Vec<Opt> {
    let switch = |long: &str, short, description: &str| Opt {
        long: long.to_owned(),
        short,
        value: None,
        description: description.to_owned(),
        repeatable: false,
        common: true,
    };
    let shown = info.flags.iter().filter(|it| it.long != "--help" && !it.hidden);
    let mut options: Vec<Opt> = shown
        .map(|it| Opt {
            long: it.long.to_owned(),
            short: it.short,
            value: value_of(it),
            description: plain(it.description),
            repeatable: it.optionality == Optionality::Repeating,
            common: COMMON_FLAGS.contains(&it.long),
        })
        .collect();
    options.push(switch("--help", Some('h'), "show this help; -h shows the short one"));
    options.push(switch("--version", Some('V'), "show version and commit"));
    options.sort_by_key(|it| COMMON_FLAGS.iter().position(|common| *common == it.long));
    options
}

/// What the value of an option is called; none for a switch.
fn value_of(flag: &FlagInfo<'_>) -> Option<String> {
    match flag.kind {
        FlagInfoKind::Switch => None,
        // argh fills in the flag's own name where the tool gave none.
        FlagInfoKind::Option { arg_name } if flag.long.ends_with(arg_name) => Some(arg_name.to_uppercase()),
        FlagInfoKind::Option { arg_name } => Some(arg_name.to_owned()),
    }
}

/// What stands for flags, then the tool's own variables, then what every tool looks at.
fn environment(info: &CommandInfoWithArgs, own: &[&str]) -> Vec<Row> {
    let of_flags =
        VARIABLES_OF_FLAGS.iter().filter(|(long, ..)| info.flags.iter().any(|it| it.long == *long));
    let own = own.iter().map(|it| it[1..].split_once(": ").unwrap_or((&it[1..], "")));
    of_flags
        .map(|(_, name, text)| (*name, *text))
        .chain(own)
        .chain([("NO_COLOR", "when it is set, nothing is coloured")])
        .map(|(name, text)| Row::new(name, text))
        .collect()
}

/// The common exit codes and the tool's own, which win, in order.
fn exit_codes(info: &CommandInfoWithArgs) -> Vec<ExitCode> {
    let own = info.error_codes.iter().map(|it| (it.code, it.description));
    let appends = info.flags.iter().any(|it| it.long == "--rotate-bytes");
    let appending = APPENDING_EXIT_CODES.iter().filter(|_| appends);
    let common = COMMON_EXIT_CODES.iter().chain(appending).copied();
    let all = own.chain(common.filter(|it| info.error_codes.iter().all(|own| own.code != it.0)));
    let mut codes: Vec<ExitCode> =
        all.map(|(code, text)| ExitCode { code, description: plain(text) }).collect();
    codes.sort_by_key(|it| it.code);
    codes
}

/// The first sentence, and the rest.
fn in_two(text: String) -> (String, String) {
    match text.split_once(". ") {
        Some((first, rest)) => (format!("{first}."), rest.to_owned()),
        None => (text, String::new()),
    }
}

/// The commands of an example: a line each, but that one goes on after a backslash.
fn commands(example: &str) -> Vec<String> {
    let mut commands: Vec<String> = Vec::new();
    let mut goes_on = false;
    for line in example.lines() {
        match commands.last_mut() {
            Some(last) if goes_on => {
                last.push('\n');
                last.push_str(line);
            }
            _ => commands.push(line.to_owned()),
        }
        goes_on = line.ends_with('\\');
    }
    commands
}

/// A description as one paragraph.
fn plain(text: &str) -> String {
    unescaped(text).replace('`', "").split_whitespace().collect::<Vec<&str>>().join(" ")
}

/// argh makes format strings: it doubles braces of doc comments, and wants them doubled in examples.
fn unescaped(text: &str) -> String {
    text.replace("{{", "{").replace("}}", "}")
}

#[cfg(test)]
mod tests {
    use argh::{ArgsInfo, FromArgs};

    use super::*;

    /// Do a thing. Do it again.
    ///
    /// And again.
    #[derive(FromArgs, ArgsInfo)]
    #[argh(
        error_code(64, "wrong"),
        error_code(2, "conflict"),
        example = "{command_name} --id {{}} \\\n    more\n{command_name}",
        note = "$PLACE: where: here",
        note = "A paragraph."
    )]
    #[expect(dead_code, reason = "only its description is used")]
    struct Args {
        /// be quiet
        #[argh(switch, short = 'q')]
        quiet: bool,
        /// logs folder
        #[argh(option, arg_name = "DIR")]
        logs: Option<String>,
        /// which ones
        #[argh(option)]
        id: Vec<String>,
    }

    fn definition() -> Definition {
        Definition::of("tool", &Args::get_args_info())
    }

    #[test]
    fn common_options_come_last_and_in_one_order() {
        let definition = definition();
        let longs: Vec<&str> = definition.options.iter().map(|it| it.long.as_str()).collect();
        assert_eq!(longs, ["--id", "--logs", "--quiet", "--help", "--version"]);
        assert!(definition.options[0].repeatable && !definition.options[0].common);
        assert_eq!(definition.options[0].value.as_deref(), Some("ID"));
    }

    #[test]
    fn a_variable_comes_with_the_flag_that_it_stands_for() {
        let names: Vec<(String, String)> =
            definition().environment.into_iter().map(|it| (it.name, it.description)).collect();
        assert_eq!(names[0].0, "MILESTONE_LOGS");
        assert_eq!(names[1], ("PLACE".to_owned(), "where: here".to_owned()));
        assert!(!names.iter().any(|it| it.0 == "MILESTONE_ROTATE_BYTES"));
    }

    #[test]
    fn texts_are_taken_apart() {
        let definition = definition();
        assert_eq!(definition.summary, "Do a thing.");
        assert_eq!(definition.description, "Do it again. And again.");
        assert_eq!(definition.examples, ["tool --id {} \\\n    more", "tool"]);
        assert_eq!(definition.notes, ["A paragraph."]);
        let codes: Vec<i32> = definition.exit_codes.iter().map(|it| it.code).collect();
        assert_eq!(codes, [0, 2, 64, 66, 70, 74, 75, 77]);
        assert_eq!(definition.exit_codes[2].description, "wrong");
    }

    /// Append.
    #[derive(FromArgs, ArgsInfo)]
    #[argh(error_code(65, "bad input"))]
    #[expect(dead_code, reason = "only its description is used")]
    struct Appending {
        /// size
        #[argh(option)]
        rotate_bytes: Option<String>,
    }

    #[test]
    fn who_appends_can_find_a_journal_replaced_and_the_setting_wrong() {
        let codes = exit_codes(&Appending::get_args_info());
        let own: Vec<(i32, &str)> = codes
            .iter()
            .map(|it| (it.code, it.description.as_str()))
            .filter(|it| matches!(it.0, 65 | 78))
            .collect();
        assert_eq!(own, [(65, "bad input"), (78, "$MILESTONE_ROTATE_BYTES is no size")]);
    }
}
