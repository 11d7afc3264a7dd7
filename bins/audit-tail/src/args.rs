//! The command line of audit-tail.

use std::path::PathBuf;

use argh::{ArgsInfo, FromArgs};
use milepost::{
    Error, Kind, Result,
    audit::{Action, Outcome, verify::Head},
    moment::Moment,
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
    error_code(65, "a journal was truncated, replaced or rewritten"),
    error_code(78, "--verify: there is no such key, or not a good one; --local: there is no such zone")
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

    /// only of the event with this idempotency key or milestone id
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
