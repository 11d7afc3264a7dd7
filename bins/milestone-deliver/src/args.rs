//! The command line of milestone-deliver.

use std::{path::PathBuf, str::FromStr};

use argh::{ArgsInfo, FromArgs};
use milepost::{
    Error, Kind, Result,
    delivery::{Order, backoff::Schedule, verdict::AckMode},
    journal::Resync,
    units::{DurationArg, Size},
};

/// Send what waits in a queue to an endpoint, signed, until each event is acknowledged or given up.
///
/// Without --watch or --drain it sends what is due and ends. What is refused or fails too often becomes a dead
/// letter beside the queue. While the endpoint is down it is only probed, and nothing is given up.
#[derive(FromArgs, ArgsInfo)]
#[argh(
    example = "{command_name} --url https://app.example --secret-file /etc/milepost/secret",
    example = "{command_name} --watch\n{command_name} --drain --drain-timeout 10m",
    example = "{command_name} --ping\n{command_name} --hold 'deploying the app'\n{command_name} --release",
    note = "$MILESTONE_INGEST_URL: where events are posted, where --url is not given",
    note = "$MILESTONE_REMINDER_URL: the same for reminder-delivery-queue.jsonl",
    note = "$CREDENTIALS_DIRECTORY: systemd's credentials; the secrets are looked for there, where no file is given",
    note = "$CLAWDBOT_MILESTONE_WEBHOOK_SECRET: the secret, where there is neither file nor credential",
    note = "$CLAWDBOT_MILESTONE_WEBHOOK_SECRET_PREVIOUS: the secret before it, likewise",
    note = "With a URL that has no path, or one that ends like the contract's, milestones go to /internal/milestones/ingest\nand other events to /internal/events/ingest; with any other path everything goes to exactly that URL.",
    note = "The secret: --secret-file, else the credential milestone-webhook-secret (and -previous), else the environment.\nSIGHUP reads files again.",
    error_code(69, "--ping: no pong came"),
    error_code(75, "--drain: held, wrongly configured or out of time"),
    error_code(78, "no URL or no secret, or not a good one; or $MILESTONE_ROTATE_BYTES is no size")
)]
pub struct Args {
    /// logs folder (default: `$MILESTONE_LOGS`, else ./logs)
    #[argh(option, arg_name = "DIR")]
    pub logs: Option<PathBuf>,

    /// queue to deliver (default: milestone-delivery-queue.jsonl)
    #[argh(option, arg_name = "FILE", default = "String::from(milepost::queue::MILESTONE_QUEUE)")]
    pub queue: String,

    /// name of the endpoint, where a queue has several; each has its own state and dead letters
    #[argh(option, arg_name = "NAME", default = "String::new()")]
    pub endpoint: String,

    /// where events are posted (default: `$MILESTONE_INGEST_URL`, for reminders `$MILESTONE_REMINDER_URL`)
    #[argh(option, arg_name = "URL")]
    pub url: Option<String>,

    /// stay, and deliver what comes
    #[argh(switch)]
    pub watch: bool,

    /// stay until nothing is pending
    #[argh(switch)]
    pub drain: bool,

    /// with --drain: end after this time with exit code 75
    #[argh(option, arg_name = "DUR")]
    pub drain_timeout: Option<DurationArg>,

    /// attempts after which an event is given up (default: 10)
    #[argh(option, arg_name = "N", default = "10", from_str_fn(at_least_one))]
    pub max_attempts: u32,

    /// time after its first attempt at which an event is given up by the next one that fails (default: 7d)
    #[argh(option, arg_name = "DUR", default = "DurationArg::from_secs(604_800)")]
    pub max_age: DurationArg,

    /// delay after the first failed attempt; each further one is four times as long (default: 5s)
    #[argh(option, arg_name = "DUR", default = "DurationArg::from_secs(5)")]
    pub backoff_base: DurationArg,

    /// longest delay between attempts (default: 6h)
    #[argh(option, arg_name = "DUR", default = "DurationArg::from_secs(21_600)")]
    pub backoff_cap: DurationArg,

    /// time for one attempt, from looking up the name to the end of the answer (default: 30s)
    #[argh(option, arg_name = "DUR", default = "DurationArg::from_secs(30)")]
    pub timeout: DurationArg,

    /// requests on the wire at once, each on a connection of its own (default: 4)
    #[argh(option, arg_name = "N", default = "4", from_str_fn(some_requests))]
    pub concurrency: usize,

    /// which events wait for an earlier one that failed: those of its scope, all (strict) or none (default: scope)
    #[argh(option, arg_name = "scope|strict|none", default = "OrderArg(Order::Scope)")]
    pub order: OrderArg,

    /// what counts as an acknowledgement: the ingest contract's answer, or any 2xx (default: contract)
    #[argh(option, arg_name = "contract|2xx", default = "AckArg(AckMode::Contract)")]
    pub ack: AckArg,

    /// file with the secret (default: the credential milestone-webhook-secret)
    #[argh(option, arg_name = "FILE")]
    pub secret_file: Option<PathBuf>,

    /// file with the secret before this one, while secrets rotate (default: the credential
    /// milestone-webhook-secret-previous)
    #[argh(option, arg_name = "FILE")]
    pub previous_secret_file: Option<PathBuf>,

    /// accept a secret file that other users can read
    #[argh(switch)]
    pub allow_readable_secret: bool,

    /// allow plain http to other machines
    #[argh(switch)]
    pub allow_http: bool,

    /// send to public addresses only, whatever the name resolves to
    #[argh(switch)]
    pub public_only: bool,

    /// ask the endpoint whether URL and secret are right; nothing is stored there
    #[argh(switch)]
    pub ping: bool,

    /// send nothing until --release, also with a running instance
    #[argh(option, arg_name = "REASON")]
    pub hold: Option<String>,

    /// end --hold, and forget that the endpoint failed
    #[argh(switch)]
    pub release: bool,

    /// make every retry due at once
    #[argh(switch)]
    pub retry_now: bool,

    /// go on at the start, the end or an offset of the queue, whatever the state says
    #[argh(option, arg_name = "WHERE")]
    pub resync: Option<Resync>,

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
        let asked = [
            ("--watch", self.watch),
            ("--drain", self.drain),
            ("--ping", self.ping),
            ("--hold", self.hold.is_some()),
            ("--release", self.release),
            ("--retry-now", self.retry_now),
            ("--resync", self.resync.is_some()),
        ];
        let asked: Vec<_> = asked.iter().filter(|(_, is_set)| *is_set).map(|(name, _)| *name).collect();
        if let [first, second, ..] = asked[..] {
            return Err(Error::new(Kind::Usage, "", format!("{first} and {second} do not go together")));
        }
        if self.drain_timeout.is_some() && !self.drain {
            return Err(Error::new(Kind::Usage, "", "--drain-timeout is for --drain"));
        }
        if self.hold.as_deref().is_some_and(|it| milepost::text::trim(it).is_empty()) {
            return Err(Error::new(Kind::Usage, "", "--hold wants a reason"));
        }
        Ok(())
    }

    /// The schedule of attempts.
    pub fn schedule(&self) -> Schedule {
        Schedule {
            base: self.backoff_base.get(),
            cap: self.backoff_cap.get(),
            attempts_max: self.max_attempts,
            age_max: self.max_age.get(),
        }
    }
}

/// What `--order` asks for.
#[derive(Clone, Copy, Debug)]
pub struct OrderArg(pub Order);

impl FromStr for OrderArg {
    type Err = String;

    fn from_str(word: &str) -> Result<OrderArg, String> {
        match word {
            "scope" => Ok(OrderArg(Order::Scope)),
            "strict" => Ok(OrderArg(Order::Strict)),
            "none" => Ok(OrderArg(Order::None)),
            _ => Err("is not scope, strict or none".to_owned()),
        }
    }
}

/// What `--ack` asks for.
#[derive(Clone, Copy, Debug)]
pub struct AckArg(pub AckMode);

impl FromStr for AckArg {
    type Err = String;

    fn from_str(word: &str) -> Result<AckArg, String> {
        match word {
            "contract" => Ok(AckArg(AckMode::Contract)),
            "2xx" => Ok(AckArg(AckMode::AnySuccess)),
            _ => Err("is not contract or 2xx".to_owned()),
        }
    }
}

/// The most requests at once: each has a thread and a connection.
const CONCURRENCY_MAX: usize = 256;

fn some_requests(text: &str) -> Result<usize, String> {
    let number = text.parse().ok().filter(|it| (1..=CONCURRENCY_MAX).contains(it));
    number.ok_or_else(|| format!("is no number of requests, 1 to {CONCURRENCY_MAX}"))
}

fn at_least_one(text: &str) -> Result<u32, String> {
    text.parse().ok().filter(|it| *it > 0).ok_or_else(|| "is no number of attempts, 1 or more".to_owned())
}
