//! What `-h` and `--help` say to people: a tool's definition, laid out for the terminal at hand.
//!
//! # Invariants
//! - No line is wider than the terminal (80 columns where there is none), but for words that are longer and for
//!   examples, which are there to be copied.
//! - Every option is listed in both; `--help` adds environment, exit codes, examples and notes.
//! - A variable is shown with its present value; of one that may hold a secret only that it is set.
//!
//! Not here: what is said (`definition`).

use std::{borrow::Cow, ffi::OsString, fmt::Write as _};

use super::definition::{Definition, Opt};
use crate::text;

/// The columns of a page where there is no terminal, and the most that are used: longer lines are hard to read.
const WIDTH: usize = 80;
const WIDTH_MAX: usize = 100;
/// With fewer than this, wrapping helps nobody.
const WIDTH_MIN: usize = 40;

/// The widest left column; a longer entry has its text on the next line.
const LEFT_WIDTH: usize = 28;

/// Where the help is shown.
#[derive(Clone, Copy, Debug)]
pub(super) struct Page {
    width: usize,
    bold: bool,
    ascii: bool,
}

/// How much of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Length {
    /// `-h`: what it does, its options.
    Short,
    /// `--help`: everything.
    Long,
}

/// A space at which no line is broken.
const STAY: char = '\u{a0}';

/// A name at the left and what it is for at the right.
type Entry = (String, String);

impl Page {
    /// A page on a terminal so many columns wide, or on none; `bold` where that can be shown, and nothing beyond
    /// ASCII on a terminal that does not show `utf8`.
    pub fn new(columns: Option<usize>, bold: bool, utf8: bool) -> Page {
        let width = columns.map_or(WIDTH, |it| it.clamp(WIDTH_MIN, WIDTH_MAX));
        Page { width, bold, ascii: columns.is_some() && !utf8 }
    }

    /// The help; `value_of` gives the present value of an environment variable.
    pub fn help(
        self,
        definition: &Definition,
        length: Length,
        value_of: impl Fn(&str) -> Option<OsString>,
    ) -> String {
        let mut out = String::new();
        let tool = &definition.tool;
        self.wrapped(&mut out, &definition.usage, Start { before: "Usage: ", name: tool, gap: 1 }, 4);
        self.paragraph(&mut out, &definition.summary);
        if length == Length::Long && !definition.description.is_empty() {
            self.paragraph(&mut out, &definition.description);
        }
        let arguments = definition.arguments.iter().map(|it| (it.name.clone(), it.description.clone()));
        self.tables(&mut out, &[("Arguments", arguments.collect())]);
        let (common, own): (Vec<&Opt>, Vec<&Opt>) = definition.options.iter().partition(|it| it.common);
        let rows = |options: Vec<&Opt>| options.into_iter().map(|it| option(it, length)).collect();
        self.tables(&mut out, &[("Options", rows(own)), ("Common options", rows(common))]);
        if length == Length::Short {
            let more = format!("{tool} --help tells of environment variables, exit codes and examples.");
            self.paragraph(&mut out, &more);
            return out;
        }
        let variables = definition.environment.iter();
        let variables = variables.map(|it| {
            let now = present(&it.name, value_of(&it.name));
            (it.name.clone(), format!("{} {now}", it.description))
        });
        self.tables(&mut out, &[("Environment", variables.collect())]);
        let codes = definition.exit_codes.iter().map(|it| (it.code.to_string(), it.description.clone()));
        self.tables(&mut out, &[("Exit codes", codes.collect())]);
        if !definition.examples.is_empty() {
            let _ = write!(out, "\n{}\n", self.heading("Examples:"));
            for line in definition.examples.iter().flat_map(|it| it.lines()) {
                let _ = writeln!(out, "  {line}");
            }
        }
        for note in &definition.notes {
            self.paragraph(&mut out, note);
        }
        let _ = write!(out, "\nMore: man {tool}, man 7 milepost\n");
        out
    }

    fn heading(self, text: &str) -> String {
        if self.bold { format!("\u{1b}[1m{text}\u{1b}[0m") } else { text.to_owned() }
    }

    fn paragraph(self, out: &mut String, text: &str) {
        out.push('\n');
        self.wrapped(out, text, Start::default(), 0);
    }

    /// Headings, each with two columns under it, which are the same for all; nothing where there are no rows.
    fn tables(self, out: &mut String, tables: &[(&str, Vec<Entry>)]) {
        let widths = tables.iter().flat_map(|(_, rows)| rows).map(|(left, _)| left.chars().count());
        let left_width = widths.filter(|it| *it <= LEFT_WIDTH).max().unwrap_or(0);
        let indent = left_width + 4;
        for (heading, rows) in tables.iter().filter(|(_, rows)| !rows.is_empty()) {
            let _ = write!(out, "\n{}\n", self.heading(&format!("{heading}:")));
            for (left, right) in rows {
                let start = Start { before: "  ", name: left, gap: 2 };
                if let Some(more) = left_width.checked_sub(left.chars().count()) {
                    self.wrapped(out, right, Start { gap: 2 + more, ..start }, indent);
                } else {
                    let _ = writeln!(out, "  {}", self.heading(left));
                    self.wrapped(out, right, Start { gap: indent, ..Start::default() }, indent);
                }
            }
        }
    }

    /// Words of `text` in lines that fit: the first one after `start`, the others after `indent` columns. A line
    /// is never broken at a [`STAY`].
    fn wrapped(self, out: &mut String, text: &str, start: Start<'_>, indent: usize) {
        let Start { before, name, mut gap } = start;
        out.push_str(before);
        if !name.is_empty() {
            out.push_str(&self.heading(name));
        }
        let mut column = before.chars().count() + name.chars().count();
        // What a sign is written as takes its room in the line.
        let text = if self.ascii { Cow::Owned(text.replace('…', "...")) } else { Cow::Borrowed(text) };
        for (at, word) in text.split(' ').filter(|it| !it.is_empty()).enumerate() {
            let width = word.chars().count();
            if at > 0 && column + gap + width > self.width {
                out.push('\n');
                (column, gap) = (0, indent);
            }
            let _ = write!(out, "{:gap$}{}", "", word.replace(STAY, " "));
            column += gap + width;
            gap = 1;
        }
        out.push('\n');
    }
}

/// What a paragraph begins with: a name that is set off, and so many columns behind it.
#[derive(Clone, Copy, Debug, Default)]
struct Start<'s> {
    before: &'s str,
    name: &'s str,
    gap: usize,
}

/// An option as it is written, and what it is for; in short without what only few need to know.
fn option(option: &Opt, length: Length) -> Entry {
    let short = option.short.map_or_else(|| "    ".to_owned(), |short| format!("-{short}, "));
    let value = option.value.as_ref().map_or_else(String::new, |it| format!(" {it}"));
    let description = match (length, option.description.split_once("; ")) {
        // A default stands last, and may have parts of its own.
        (Length::Short, Some((first, _))) if !option.description.contains("(default") => first,
        _ => &option.description,
    };
    (format!("{short}{}{value}", option.long), description.to_owned())
}

/// What a variable says now.
fn present(name: &str, value: Option<OsString>) -> String {
    match value.filter(|it| !it.is_empty()) {
        None => format!("[not{STAY}set]"),
        Some(_) if name.contains("SECRET") => "[set]".to_owned(),
        Some(value) => {
            let value = text::without_userinfo(&value.to_string_lossy());
            format!("[now:{STAY}{}]", text::for_people(&value).replace(' ', &STAY.to_string()))
        }
    }
}

#[cfg(test)]
mod tests {
    use argh::{ArgsInfo, FromArgs};

    use super::*;

    /// Keep `this` in {braces}. The rest is for those who want to know it.
    #[derive(FromArgs, ArgsInfo)]
    #[argh(
        error_code(66, "no such feed"),
        error_code(2, "conflict"),
        example = "{command_name} --id {{}}",
        note = "$APP_SECRET: opens it",
        note = "$APP_URL: where it is"
    )]
    #[expect(dead_code, reason = "only its description is used")]
    struct Args {
        /// logs folder
        #[argh(option, arg_name = "DIR")]
        logs: Option<String>,
        /// which one; one is enough
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

    fn help(page: Page, length: Length) -> String {
        let definition = Definition::of("tool", &Args::get_args_info());
        page.help(&definition, length, |name| match name {
            "APP_SECRET" => Some("hunter2".into()),
            "APP_URL" => Some("https://me:hunter2@app.example/\u{1b}".into()),
            _ => None,
        })
    }

    #[test]
    fn the_long_help_says_everything() {
        let expected = "\
Usage: tool --id ID [OPTION]... FEED

Keep this in {braces}.

The rest is for those who want to know it.

Arguments:
  FEED  what to read

Options:
  -i, --id ID     which one; one is enough
      --a-name-that-leaves-no-room A-NAME-THAT-LEAVES-NO-ROOM
                  where to

Common options:
      --logs DIR  logs folder
  -h, --help      show this help; -h shows the short one
  -V, --version   show version and commit

Environment:
  MILESTONE_LOGS  logs folder, where --logs is not given [not set]
  APP_SECRET      opens it [set]
  APP_URL         where it is [now: https://***@app.example/\\u{1b}]
  NO_COLOR        when it is set, nothing is coloured [not set]

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

More: man tool, man 7 milepost
";
        assert_eq!(help(Page::new(None, false, true), Length::Long), expected);
    }

    #[test]
    fn the_short_help_is_what_one_forgets() {
        let expected = "\
Usage: tool --id ID [OPTION]... FEED

Keep this in {braces}.

Arguments:
  FEED  what to read

Options:
  -i, --id ID     which one
      --a-name-that-leaves-no-room A-NAME-THAT-LEAVES-NO-ROOM
                  where to

Common options:
      --logs DIR  logs folder
  -h, --help      show this help
  -V, --version   show version and commit

tool --help tells of environment variables, exit codes and examples.
";
        assert_eq!(help(Page::new(None, false, true), Length::Short), expected);
    }

    #[test]
    fn lines_are_as_wide_as_the_terminal_and_never_too_wide_to_read() {
        for (columns, most) in [(64, 64), (80, 80), (200, WIDTH_MAX)] {
            let help = help(Page::new(Some(columns), false, true), Length::Long);
            assert!(help.lines().all(|it| it.chars().count() <= most), "{help}");
        }
    }

    #[test]
    fn lines_fit_also_where_a_sign_is_written_as_several() {
        let mut out = String::new();
        let text = "what proves it: type=…,path=…,summary=…[,ref=…] with a type";
        Page::new(Some(WIDTH_MIN), false, false).wrapped(&mut out, text, Start::default(), 0);
        assert!(out.is_ascii() && out.lines().all(|it| it.len() <= WIDTH_MIN), "{out}");
        assert!(out.contains("summary=...[,ref=...]"), "{out}");
    }

    #[test]
    fn bold_changes_no_column() {
        let bold = help(Page::new(None, true, true), Length::Long);
        assert!(bold.contains("\u{1b}[1m--") || bold.contains("\u{1b}[1m-i, --id ID\u{1b}[0m"), "{bold}");
        let plain = bold.replace("\u{1b}[1m", "").replace("\u{1b}[0m", "");
        assert_eq!(plain, help(Page::new(None, false, true), Length::Long));
    }
}
