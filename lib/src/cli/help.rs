//! What `--help` and `--version` say, from the tool's own definition of its arguments.
//!
//! argh's own help names no values, knows no `--version`, and puts all options on one usage line. What it
//! derives (`ArgsInfo`) holds all that is needed; man pages and completions come from the same.
//!
//! # Invariants
//! - Help is plain text of at most 80 columns, but for words that are longer.
//! - Every flag that is not hidden is listed, `--help` and `--version` too.
//!
//! How a tool writes its definition: `arg_name = "DIR"` names a value; `note = "$NAME: what it is for"` is
//! listed as an environment variable, any other note is a paragraph; `error_code(2, "…")` adds to, or words
//! anew, the common exit codes; in examples `{command_name}` stands for the tool. Backticks are for rustdoc
//! and are not shown.

use std::fmt::Write as _;

use argh::{CommandInfoWithArgs, FlagInfo, FlagInfoKind, Optionality};

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

/// The commit that this was built from, or "unknown"; see build.rs.
const COMMIT: &str = env!("MILEPOST_COMMIT");

const WIDTH: usize = 80;

/// The widest left column; a longer entry has its text on the next line.
const LEFT_WIDTH: usize = 28;

/// `milestone-emit 0.1.0 (abc1234)`, and a line feed.
pub(super) fn version(tool: &str) -> String {
    format!("{tool} {} ({COMMIT})\n", env!("CARGO_PKG_VERSION"))
}

/// The whole help.
pub(super) fn help(tool: &str, info: &CommandInfoWithArgs) -> String {
    let mut out = String::new();
    wrapped(&mut out, &usage(info), &format!("Usage: {tool} "), "  ");
    out.push('\n');
    wrapped(&mut out, &plain(info.description), "", "");

    let positionals = info.positionals.iter().filter(|it| !it.hidden);
    table(&mut out, "Arguments", positionals.map(|it| (it.name.to_owned(), plain(it.description))));
    table(&mut out, "Options", options(info));

    let (variables, notes): (Vec<&str>, Vec<&str>) = info.notes.iter().partition(|it| it.starts_with('$'));
    let variables = variables.iter().map(|it| {
        let (name, text) = it.split_once(':').unwrap_or((it, ""));
        (name[1..].to_owned(), plain(text))
    });
    table(&mut out, "Environment", variables);
    table(&mut out, "Exit codes", exit_codes(info).into_iter().map(|(code, text)| (code.to_string(), text)));

    if !info.examples.is_empty() {
        out.push_str("\nExamples:\n");
        for line in info.examples.iter().flat_map(|it| it.lines()) {
            // Examples are commands to copy: never wrapped.
            let _ = writeln!(out, "  {}", unescaped(line).replace("{command_name}", tool));
        }
    }
    for note in notes {
        out.push('\n');
        wrapped(&mut out, &plain(note), "", "");
    }
    out
}

fn usage(info: &CommandInfoWithArgs) -> String {
    let mut usage = String::new();
    for flag in info.flags.iter().filter(|it| it.optionality == Optionality::Required && !it.hidden) {
        let _ = write!(usage, "{}{} ", flag.long, value_name(flag));
    }
    usage.push_str("[OPTION]...");
    for positional in info.positionals.iter().filter(|it| !it.hidden) {
        let name = positional.name;
        let _ = match positional.optionality {
            Optionality::Required => write!(usage, " {name}"),
            Optionality::Optional => write!(usage, " [{name}]"),
            Optionality::Repeating | Optionality::Greedy => write!(usage, " [{name}]..."),
        };
    }
    usage
}

/// Each flag as it is written, and what it is for.
fn options(info: &CommandInfoWithArgs) -> impl Iterator<Item = (String, String)> {
    let own = info.flags.iter().filter(|it| it.long != "--help" && !it.hidden).map(|it| {
        let short = it.short.map_or_else(|| "    ".to_owned(), |short| format!("-{short}, "));
        (format!("{short}{}{}", it.long, value_name(it)), plain(it.description))
    });
    let common = [("-h, --help", "show this help"), ("    --version", "show version and commit")];
    own.chain(common.map(|(flag, text)| (flag.to_owned(), text.to_owned())))
}

fn value_name(flag: &FlagInfo<'_>) -> String {
    match flag.kind {
        FlagInfoKind::Switch => String::new(),
        // argh fills in the flag's own name where the tool gave none.
        FlagInfoKind::Option { arg_name } if flag.long.ends_with(arg_name) => {
            format!(" {}", arg_name.to_uppercase())
        }
        FlagInfoKind::Option { arg_name } => format!(" {arg_name}"),
    }
}

/// The common exit codes and the tool's own, which win, in order.
fn exit_codes(info: &CommandInfoWithArgs) -> Vec<(i32, String)> {
    let mut codes: Vec<(i32, String)> =
        info.error_codes.iter().map(|it| (it.code, plain(it.description))).collect();
    for (code, text) in COMMON_EXIT_CODES {
        if codes.iter().all(|(own, _)| *own != code) {
            codes.push((code, text.to_owned()));
        }
    }
    codes.sort();
    codes
}

/// A heading and two columns; nothing when there are no rows.
fn table(out: &mut String, heading: &str, rows: impl Iterator<Item = (String, String)>) {
    let rows: Vec<(String, String)> = rows.collect();
    if rows.is_empty() {
        return;
    }
    let widths = rows.iter().map(|(left, _)| left.chars().count());
    let column = widths.filter(|it| *it <= LEFT_WIDTH).max().unwrap_or(LEFT_WIDTH) + 4;
    let _ = write!(out, "\n{heading}:\n");
    for (left, right) in rows {
        let indent = " ".repeat(column);
        if left.chars().count() + 4 > column {
            let _ = writeln!(out, "  {left}");
            wrapped(out, &right, &indent, &indent);
        } else {
            wrapped(out, &right, &format!("{:column$}", format!("  {left}")), &indent);
        }
    }
}

/// Words of `text` in lines of at most `WIDTH` columns, the first one after `first`, others after `indent`.
fn wrapped(out: &mut String, text: &str, first: &str, indent: &str) {
    let mut line = first.to_owned();
    let mut is_empty = true;
    for word in text.split_whitespace() {
        if !is_empty && line.chars().count() + 1 + word.chars().count() > WIDTH {
            let _ = writeln!(out, "{line}");
            indent.clone_into(&mut line);
            is_empty = true;
        }
        if !is_empty {
            line.push(' ');
        }
        line.push_str(word);
        is_empty = false;
    }
    let _ = writeln!(out, "{}", line.trim_end());
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

    /// Keep `this` in {braces}.
    #[derive(FromArgs, ArgsInfo)]
    #[argh(error_code(66, "no such feed"), error_code(2, "conflict"), example = "{command_name} --id {{}}")]
    #[expect(dead_code, reason = "only its description is used")]
    struct Args {
        /// which one
        #[argh(option, short = 'i')]
        id: String,
        /// for our own use
        #[argh(switch, hidden_help)]
        debug: bool,
        /// where to
        #[argh(option)]
        a_name_that_leaves_no_room: Option<String>,
        /// what to read
        #[argh(positional, arg_name = "FEED")]
        feed: String,
    }

    #[test]
    fn help_is_made_of_the_definition() {
        let help = help("tool", &Args::get_args_info());
        let expected = "\
Usage: tool --id ID [OPTION]... FEED

Keep this in {braces}.

Arguments:
  FEED  what to read

Options:
  -i, --id ID    which one
      --a-name-that-leaves-no-room A-NAME-THAT-LEAVES-NO-ROOM
                 where to
  -h, --help     show this help
      --version  show version and commit

Exit codes:
  0   done
  2   conflict
  64  the command line is wrong
  66  no such feed
  70  a bug in this program
  74  reading or writing failed
  75  try again later: a lock is held, the disk is full
  77  the system forbids it

Examples:
  tool --id {}
";
        assert_eq!(help, expected);
    }
}
