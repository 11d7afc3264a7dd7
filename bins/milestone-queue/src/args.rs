//! The command line of milestone-queue.

use std::path::PathBuf;

use argh::{ArgsInfo, FromArgs};
use milepost::{Error, Kind, Result, journal::Resync, units::Size};

/// Put what is new in a journal into a delivery queue, each event once.
///
/// Where it goes on stands in the queue itself. A line that is no valid record is kept in quarantine, told of once
/// and passed over.
#[derive(FromArgs, ArgsInfo)]
#[argh(
    example = "{command_name}\n{command_name} --watch\n{command_name} --source reminders.jsonl --queue reminder-delivery-queue.jsonl\n{command_name} --redrive milestone:nightly.2026-03-01\njq 'select(.reason | test(\"timeout\"))' logs/milestone-delivery-deadletter.jsonl | {command_name} --redrive -",
    note = "$MILESTONE_LOGS: the logs folder, where --logs is not given",
    note = "$MILESTONE_ROTATE_BYTES: the size at which journals are rotated, where --rotate-bytes is not given",
    error_code(2, "a dead letter that was asked for is not there")
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

    /// the endpoint whose dead letters are meant
    #[argh(option, arg_name = "NAME")]
    pub endpoint: Option<String>,

    /// size at which journals are rotated (default: 64MiB)
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
        let redrives = self.redrive_all || !self.redrive.is_empty();
        if redrives && (self.watch || self.from_now || self.resync.is_some()) {
            return refuse(
                "--redrive puts dead letters back and leaves: give it without --watch, --from-now and --resync",
            );
        }
        if self.redrive_all && !self.redrive.is_empty() {
            return refuse("--redrive-all and --redrive say different things: give either");
        }
        if self.redrive.len() > 1 && self.redrive.iter().any(|it| it == "-") {
            return refuse("--redrive - reads dead letters from stdin and goes with no other --redrive");
        }
        if self.endpoint.is_some() && !redrives {
            return refuse(
                "--endpoint says whose dead letters are meant: give it with --redrive or --redrive-all",
            );
        }
        Ok(())
    }
}
