//! The command line of milestone-queue.

use std::path::PathBuf;

use argh::{ArgsInfo, FromArgs};
use milepost::{
    Error, Kind, Result, clock,
    journal::Resync,
    moment::Moment,
    text,
    units::{DurationArg, Size},
};

/// Put what is new in a journal into a delivery queue, each event once.
///
/// Where it goes on stands in the queue itself. A line that is no valid record is kept in quarantine, told of once
/// and passed over. With --redrive, --resend, --discard or --trim it does that and leaves, also beside a running instance.
#[derive(FromArgs, ArgsInfo)]
#[argh(
    example = "{command_name}\n{command_name} --watch\n{command_name} --source reminders.jsonl --queue reminder-delivery-queue.jsonl\n{command_name} --redrive milestone:nightly.2026-03-01\njq 'select(.reason | test(\"timeout\"))' logs/milestone-delivery-deadletter.jsonl | {command_name} --redrive -",
    example = "{command_name} --resend nightly.2026-03-01\n{command_name} --resend-all --since 2026-03-01T10:00:00Z --until 2026-03-01T11:00:00Z --endpoint backup\n{command_name} --discard milestone:typo --reason 'reported by mistake'",
    note = "--redrive puts a dead letter back, once; --discard closes it for good, so that no --redrive takes it.\n--resend sends again what the endpoint had, with the same key and body; a receiver that still has it answers\nthat it is a duplicate. What is still pending for the endpoint is not put in again, however often asked.",
    note = "--trim takes closed files only, the oldest first, and never the newest closed one. An endpoint whose state file\nis missing has passed nothing. What was trimmed from a queue cannot be sent again by --resend.",
    error_code(2, "a key that was asked for is not there, or its dead letter is closed"),
    error_code(
        65,
        "the source is another one than was read before, or what --redrive - read is no dead letter"
    )
)]
pub struct Args {
    /// logs folder (default: `$MILESTONE_LOGS`, else ./logs)
    #[argh(option, arg_name = "DIR")]
    pub logs: Option<PathBuf>,

    /// journal to read (default: milestones.jsonl)
    #[argh(option, arg_name = "FILE", default = "String::from(\"milestones.jsonl\")")]
    pub source: String,

    /// queue to append to (default: milestone-delivery-queue.jsonl)
    #[argh(option, arg_name = "FILE", default = "String::from(milepost::queue::MILESTONE_QUEUE)")]
    pub queue: String,

    /// stay, and enqueue what comes
    #[argh(switch)]
    pub watch: bool,

    /// where the queue has no record yet, begin at the end of the journal
    #[argh(switch)]
    pub from_now: bool,

    /// go on at the start, the end or an offset of the journal, whatever the queue says
    #[argh(option, arg_name = "WHERE")]
    pub resync: Option<Resync>,

    /// put the dead letter with this key back, once; - reads dead letters from stdin; may be given several times
    #[argh(option, arg_name = "KEY")]
    pub redrive: Vec<String>,

    /// put all dead letters back, each once
    #[argh(switch)]
    pub redrive_all: bool,

    /// send the settled event with this key again, also a discarded one; may be given several times
    #[argh(option, arg_name = "KEY")]
    pub resend: Vec<String>,

    /// send again all that the endpoint acknowledged from --since on and before --until
    #[argh(switch)]
    pub resend_all: bool,

    /// with --resend-all: what was acknowledged from this time on, by this machine's clock: RFC 3339, a date, or how
    /// long ago, such as 2h
    #[argh(option, arg_name = "TIME")]
    pub since: Option<Moment>,

    /// with --resend-all: what was acknowledged before this time (default: up to now): RFC 3339, a date (that day
    /// included), or how long ago
    #[argh(option, arg_name = "TIME")]
    pub until: Option<Moment>,

    /// close the dead letter with this key, so that it is not delivered any more; may be given several times
    #[argh(option, arg_name = "KEY")]
    pub discard: Vec<String>,

    /// why, for --discard; it is kept in the audit
    #[argh(option, arg_name = "TEXT")]
    pub reason: Option<String>,

    /// remove closed files of the journal and of the queue that every consumer has passed; what tells duplicates stays
    #[argh(switch)]
    pub trim: bool,

    /// with --trim: only files that were last written to so long ago
    #[argh(option, arg_name = "DUR")]
    pub older: Option<DurationArg>,

    /// with --trim: only tell what would be removed
    #[argh(switch)]
    pub dry_run: bool,

    /// the endpoint that is meant; only it gets what is put back or sent again
    #[argh(option, arg_name = "NAME")]
    pub endpoint: Option<String>,

    /// size at which a journal begins a new file (default: `$MILESTONE_ROTATE_BYTES`, else 64MiB)
    #[argh(option, arg_name = "SIZE")]
    pub rotate_bytes: Option<Size>,

    /// say nothing about success; errors stay
    #[argh(switch, short = 'q')]
    pub quiet: bool,
}

impl Args {
    /// Refuses options that say different things.
    pub fn check(&self) -> Result<()> {
        let refuse = |what: &str| Err(Error::new(Kind::Usage, "", what));
        let verbs = [
            ("--redrive", !self.redrive.is_empty()),
            ("--redrive-all", self.redrive_all),
            ("--resend", !self.resend.is_empty()),
            ("--resend-all", self.resend_all),
            ("--discard", !self.discard.is_empty()),
            ("--trim", self.trim),
        ];
        let others =
            [("--watch", self.watch), ("--from-now", self.from_now), ("--resync", self.resync.is_some())];
        let given = |of: &[(&'static str, bool)]| -> Vec<&'static str> {
            of.iter().filter(|(_, is_set)| *is_set).map(|(name, _)| *name).collect()
        };
        let (verbs, others) = (given(&verbs), given(&others));
        if let [first, second, ..] = verbs[..] {
            return refuse(&format!("{first} and {second} say different things: give either"));
        }
        if let (Some(verb), Some(other)) = (verbs.first(), others.first()) {
            return refuse(&format!("{verb} does its work and leaves: give it without {other}"));
        }
        if self.redrive.len() > 1 && self.redrive.iter().any(|it| it == "-") {
            return refuse("--redrive - reads dead letters from stdin and goes with no other --redrive");
        }
        if !self.trim && (self.older.is_some() || self.dry_run) {
            return refuse("--older and --dry-run are for --trim");
        }
        if self.endpoint.is_some() && (verbs.is_empty() || self.trim) {
            return refuse("--endpoint says whom --redrive, --resend or --discard is for: give it with one");
        }
        self.check_details()
    }

    /// Refuses details of a verb without it, and a verb without what it needs.
    fn check_details(&self) -> Result<()> {
        let refuse = |what: &str| Err(Error::new(Kind::Usage, "", what));
        if !self.resend_all && (self.since.is_some() || self.until.is_some()) {
            return refuse("--since and --until are for --resend-all");
        }
        let now = clock::now();
        match (self.since, self.until) {
            (None, _) if self.resend_all => {
                return refuse("--resend-all wants --since, so that nobody sends all of history by mistake");
            }
            (Some(since), Some(until)) if until.until(now) <= since.since(now) => {
                return refuse("--until must be later than --since");
            }
            _ => {}
        }
        let has_reason = self.reason.as_deref().is_some_and(|it| !text::trim(it).is_empty());
        if !self.discard.is_empty() && !has_reason {
            return refuse("--discard wants --reason, which is kept in the audit");
        }
        if self.discard.is_empty() && self.reason.is_some() {
            return refuse("--reason is for --discard");
        }
        Ok(())
    }
}
