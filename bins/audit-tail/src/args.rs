//! The command line of audit-tail.

use std::path::PathBuf;

use argh::{ArgsInfo, FromArgs};
use milepost::{
    Error, Kind, Result, Timestamp,
    audit::{Action, Outcome, verify::Head},
    units::DurationArg,
};

/// Show what every tool did, follow it, or verify that nothing of it was changed.
///
/// Records are printed as they are, one JSON object a line, for jq; --pretty shows them to people. --verify walks the
/// whole hash chain, compares it with every journal, and prints the head. Keep the head elsewhere: given to --expect
/// later, it shows whether a tail was cut off.
#[derive(FromArgs, ArgsInfo)]
#[argh(
    example = "{command_name} --pretty -n 20\n{command_name} -f --tool milestone-deliver --outcome retried\n{command_name} --trace 8a381341d5a51c44c9ec972875e57930 --pretty\n{command_name} --since 2h | jq -r .idempotency_key\n{command_name} --verify --expect \"$(cat head)\"\n{command_name} --head > head",
    note = "$TZ: the zone of --local, and of dates where --local is given",
    note = "$CREDENTIALS_DIRECTORY: systemd's credentials; milestone-audit-key is looked for there, where no file is given",
    error_code(2, "--verify found something wrong; --head: there is no record"),
    error_code(78, "a key is no good one; --local: the time zone is not known")
)]
pub struct Args {
    /// logs folder (default: `$MILESTONE_LOGS`, else ./logs)
    #[argh(option, arg_name = "DIR")]
    pub logs: Option<PathBuf>,

    /// stay, and show what comes
    #[argh(switch, short = 'f')]
    pub follow: bool,

    /// begin with the last N records that match (default: all; 10 with --follow)
    #[argh(option, short = 'n', arg_name = "N")]
    pub lines: Option<usize>,

    /// only of this tool
    #[argh(option, arg_name = "TOOL")]
    pub tool: Option<String>,

    /// only of this action, such as deliver
    #[argh(option, arg_name = "ACTION", from_str_fn(action))]
    pub action: Option<String>,

    /// only with this outcome, such as retried
    #[argh(option, arg_name = "OUTCOME", from_str_fn(outcome))]
    pub outcome: Option<String>,

    /// only of this trace
    #[argh(option, arg_name = "ID")]
    pub trace: Option<String>,

    /// only of the event with this idempotency key
    #[argh(option, arg_name = "KEY")]
    pub id: Option<String>,

    /// only of this scope
    #[argh(option, arg_name = "SCOPE")]
    pub scope: Option<String>,

    /// only from this time on: RFC 3339, a date, or how long ago, such as 2h
    #[argh(option, arg_name = "TIME")]
    pub since: Option<Moment>,

    /// only before this time: RFC 3339, a date (that day included), or how long ago
    #[argh(option, arg_name = "TIME")]
    pub until: Option<Moment>,

    /// show them to people: aligned, in colour on a terminal
    #[argh(switch)]
    pub pretty: bool,

    /// with --pretty: in local time
    #[argh(switch)]
    pub local: bool,

    /// verify the chain, and the journals by it
    #[argh(switch)]
    pub verify: bool,

    /// print number and hash of the last record, as --expect takes them
    #[argh(switch)]
    pub head: bool,

    /// with --verify: this record must be in the chain; may be given several times
    #[argh(option, arg_name = "SEQ:HASH")]
    pub expect: Vec<Head>,

    /// with --verify or --head: answer with one JSON object
    #[argh(switch)]
    pub json: bool,

    /// with --verify: file with the key that sealed (default: the credential milestone-audit-key)
    #[argh(option, arg_name = "FILE")]
    pub key_file: Option<PathBuf>,

    /// with --verify: file with the key before it (default: the credential milestone-audit-key-previous)
    #[argh(option, arg_name = "FILE")]
    pub previous_key_file: Option<PathBuf>,

    /// accept a secret file that other users can read
    #[argh(switch)]
    pub allow_readable_secret: bool,

    /// say nothing about success; errors stay
    #[argh(switch, short = 'q')]
    pub quiet: bool,
}

/// A time as people give it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// An instant.
    At(Timestamp),
    /// A day in UTC, by its start.
    Day(Timestamp),
    /// So long ago.
    Ago(DurationArg),
}

impl std::str::FromStr for Moment {
    type Err = String;

    fn from_str(text: &str) -> Result<Moment, String> {
        if let Ok(ago) = text.parse() {
            return Ok(Moment::Ago(ago));
        }
        if let Ok(start) = Timestamp::parse_utc(&format!("{text}T00:00Z")) {
            return Ok(Moment::Day(start));
        }
        Timestamp::parse_rfc3339(text).map(Moment::At).map_err(|why| {
            if text.contains('T') {
                why
            } else {
                "is neither a time such as 2026-03-01T09:00:00Z, nor a date such as 2026-03-01, nor a duration such as 2h"
                    .to_owned()
            }
        })
    }
}

impl Moment {
    /// The first instant that counts for `--since`.
    pub fn since(self, now: Timestamp) -> Timestamp {
        match self {
            Moment::At(at) | Moment::Day(at) => at,
            Moment::Ago(ago) => now.minus(ago.get()),
        }
    }

    /// The first instant that no longer counts for `--until`.
    pub fn until(self, now: Timestamp) -> Timestamp {
        const DAY: std::time::Duration = std::time::Duration::from_secs(86_400);
        match self {
            Moment::At(at) => at,
            Moment::Day(start) => start.plus(DAY),
            Moment::Ago(ago) => now.minus(ago.get()),
        }
    }
}

fn action(word: &str) -> Result<String, String> {
    match Action::from_word(word) {
        Some(it) => Ok(it.as_str().to_owned()),
        None => Err(not_one_of(word, "action", Action::WORDS)),
    }
}

fn outcome(word: &str) -> Result<String, String> {
    match Outcome::from_word(word) {
        Some(it) => Ok(it.as_str().to_owned()),
        None => Err(not_one_of(word, "outcome", Outcome::WORDS)),
    }
}

fn not_one_of(word: &str, what: &str, known: &[&str]) -> String {
    let meant = milepost::text::nearest(word, known.iter().copied());
    let hint = meant.map(|it| format!(" (did you mean {it}?)")).unwrap_or_default();
    format!("is no {what}{hint}; there are {}", known.join(", "))
}

impl Args {
    /// Refuses options that say different things.
    pub fn check(&self) -> Result<()> {
        let refuse = |what: &str| Err(Error::new(Kind::Usage, "", what));
        let verifies = self.verify || !self.expect.is_empty();
        let filters = [&self.tool, &self.action, &self.outcome, &self.trace, &self.id, &self.scope];
        let shows = self.follow
            || self.pretty
            || self.lines.is_some()
            || self.since.is_some()
            || self.until.is_some()
            || filters.iter().any(|it| it.is_some());
        if (verifies || self.head) && shows {
            return refuse(
                "--verify and --head are about the whole chain: give them without what selects or shows records",
            );
        }
        if self.head && verifies {
            return refuse("--verify says the head too: give either");
        }
        if self.json && !(verifies || self.head) {
            return refuse("--json is for --verify and --head; records are JSON anyway");
        }
        if self.local && !self.pretty {
            return refuse("--local is for --pretty; records are shown as they are");
        }
        if !verifies && (self.key_file.is_some() || self.previous_key_file.is_some()) {
            return refuse("--key-file and --previous-key-file are for --verify");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_is_a_time_a_day_or_a_while_ago() {
        let now = Timestamp::parse_utc("2026-03-02T12:00:00Z").unwrap();
        let since = |text: &str| text.parse::<Moment>().map(|it| it.since(now).to_string());
        let until = |text: &str| text.parse::<Moment>().map(|it| it.until(now).to_string());
        assert_eq!(since("2h").unwrap(), "2026-03-02T10:00:00.000Z");
        assert_eq!(since("2026-03-01").unwrap(), "2026-03-01T00:00:00.000Z");
        assert_eq!(until("2026-03-01").unwrap(), "2026-03-02T00:00:00.000Z");
        assert_eq!(since("2026-03-01T09:00:00+01:00").unwrap(), "2026-03-01T08:00:00.000Z");
        for bad in ["yesterday", "2026-02-30", "2", "2026-03-01T25:00Z", ""] {
            assert!(since(bad).is_err(), "{bad}");
        }
    }
}
