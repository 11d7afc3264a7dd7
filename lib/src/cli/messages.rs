//! Words for people, on standard error.
//!
//! # Invariants
//! - A message is one line, written with one call, so that lines of several processes do not mix.
//! - Control, bidi and invisible characters are escaped, whoever they come from.
//! - Standard error that cannot be written is ignored: it changes neither the work nor the exit code.
//! - Colour only on a terminal that can show it, and never when `NO_COLOR` is set (no-color.org).
//! - Under the systemd journal each line begins with its priority, `<3>` and so on (sd-daemon(3)).
//!
//! Not here: results, which are for programs (`output`).

use std::{
    env,
    ffi::OsStr,
    fmt,
    io::{self, IsTerminal},
};

use rustix::{fs::fstat, stdio};

use super::{progress::Progress, streams::write_all};
use crate::text;

/// Writes messages under a tool's name. Small and shareable: give a copy to every thread.
#[derive(Clone, Copy, Debug)]
pub struct Messages {
    tool: &'static str,
    style: Style,
    quiet: bool,
}

/// How a message is marked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Style {
    Plain,
    Colour,
    Journal,
}

/// How much a message matters: its syslog priority, colour (SGR code) and label.
struct Level {
    priority: u8,
    colour: u8,
    label: &'static str,
}

const ERROR: Level = Level { priority: 3, colour: 31, label: "" };
const WARNING: Level = Level { priority: 4, colour: 33, label: "warning: " };
const NOTE: Level = Level { priority: 6, colour: 36, label: "" };

impl Messages {
    /// Messages of the tool of this name, in the style that standard error calls for.
    pub fn new(tool: &'static str) -> Messages {
        let style = Style::choose(
            env::var_os("JOURNAL_STREAM").is_some_and(|it| is_stderr(&it)),
            io::stderr().is_terminal(),
            env::var_os("NO_COLOR").as_deref(),
            env::var_os("TERM").as_deref(),
        );
        Messages { tool, style, quiet: false }
    }

    /// Whether warnings and notes are dropped (`--quiet`).
    pub(super) fn quiet(&mut self, quiet: bool) {
        self.quiet = quiet;
    }

    /// Says what went wrong. Never dropped.
    pub fn error(&self, message: impl fmt::Display) {
        self.write(&ERROR, &message);
    }

    /// Says what may be wrong although the work goes on. Dropped by `--quiet`.
    pub fn warn(&self, message: impl fmt::Display) {
        if !self.quiet {
            self.write(&WARNING, &message);
        }
    }

    /// Says what a person may like to know. Dropped by `--quiet`.
    pub fn note(&self, message: impl fmt::Display) {
        if !self.quiet {
            self.write(&NOTE, &message);
        }
    }

    /// Begins work that may take long, of `total` bytes if that is known, and shows how far it has come.
    pub fn progress(&self, total: Option<u64>) -> Progress {
        Progress::start(total, self.quiet)
    }

    fn write(&self, level: &Level, message: &dyn fmt::Display) {
        let line = self.line(level, &message.to_string());
        // Nobody is left to be told that standard error does not work.
        let _ = write_all(stdio::stderr(), line.as_bytes());
    }

    fn line(&self, level: &Level, message: &str) -> String {
        let Level { priority, colour, label } = level;
        let tool = self.tool;
        let message = text::for_people(message);
        match self.style {
            Style::Plain => format!("{tool}: {label}{message}\n"),
            Style::Colour => format!("\u{1b}[{colour}m{tool}:\u{1b}[0m {label}{message}\n"),
            Style::Journal => format!("<{priority}>{tool}: {label}{message}\n"),
        }
    }
}

impl Style {
    fn choose(journal: bool, terminal: bool, no_color: Option<&OsStr>, term: Option<&OsStr>) -> Style {
        let wanted = no_color.is_none_or(OsStr::is_empty);
        let able = is_able(term);
        if journal {
            Style::Journal
        } else if terminal && wanted && able {
            Style::Colour
        } else {
            Style::Plain
        }
    }
}

/// Whether a terminal of this type (`$TERM`) knows colours, and how to wipe a line.
pub(super) fn is_able(term: Option<&OsStr>) -> bool {
    term.is_some_and(|it| !it.is_empty() && it != "dumb")
}

/// Whether text for people on standard output may be coloured: on a terminal that can, and where nobody minds.
pub fn colours_on_stdout() -> bool {
    let (no_color, term) = (env::var_os("NO_COLOR"), env::var_os("TERM"));
    Style::choose(false, io::stdout().is_terminal(), no_color.as_deref(), term.as_deref()) == Style::Colour
}

/// Whether `stream`, "device:inode" as systemd sets it, is our standard error: the variable is inherited
/// by programs whose standard error was redirected since.
fn is_stderr(stream: &OsStr) -> bool {
    fstat(stdio::stderr()).is_ok_and(|it| *stream == *format!("{}:{}", it.st_dev, it.st_ino))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn style(journal: bool, terminal: bool, no_color: Option<&str>, term: Option<&str>) -> Style {
        Style::choose(journal, terminal, no_color.map(OsStr::new), term.map(OsStr::new))
    }

    #[test]
    fn colour_needs_a_terminal_that_can_and_a_person_who_wants() {
        assert_eq!(style(false, true, None, Some("xterm")), Style::Colour);
        assert_eq!(style(false, true, Some(""), Some("xterm")), Style::Colour);
        assert_eq!(style(false, true, Some("0"), Some("xterm")), Style::Plain);
        assert_eq!(style(false, true, None, Some("dumb")), Style::Plain);
        assert_eq!(style(false, true, None, None), Style::Plain);
        assert_eq!(style(false, false, None, Some("xterm")), Style::Plain);
        assert_eq!(style(true, true, None, Some("xterm")), Style::Journal);
    }

    #[test]
    fn a_message_is_one_line_without_tricks() {
        let messages = |style| Messages { tool: "milestone-emit", style, quiet: false };
        assert_eq!(
            messages(Style::Plain).line(&ERROR, "a\nb\u{1b}[2J\u{202e}"),
            "milestone-emit: a\\u{a}b\\u{1b}[2J\\u{202e}\n"
        );
        assert_eq!(messages(Style::Plain).line(&WARNING, "late"), "milestone-emit: warning: late\n");
        assert_eq!(messages(Style::Colour).line(&ERROR, "x"), "\u{1b}[31mmilestone-emit:\u{1b}[0m x\n");
        assert_eq!(messages(Style::Journal).line(&NOTE, "x"), "<6>milestone-emit: x\n");
    }
}
