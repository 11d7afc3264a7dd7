//! From a delivery queue to an endpoint: signed, in order, until each event is acknowledged or given up.
//!
//! # Invariants
//! - One instance an endpoint of a queue; a second one says so and leaves (`--drain` waits). What came while the
//!   lock was let go is looked for once more, so that no wake-up falls between.
//! - SIGTERM ends it after the attempt that is in flight; what came of that is on disk.
//!
//! Parts: `args` (the command line), `target` (the URL), `resolve` (addresses), `tcp` (connections), `post` (attempts). How is
//! delivered stands in the library (`milepost::delivery`).

mod args;
mod post;
mod resolve;
mod target;
mod tcp;

use std::{
    env,
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

use args::Args;
use milepost::{
    Error, Kind, Result, Timestamp,
    audit::seal::Sealing,
    cli::{self, Output, Verdict},
    clock,
    delivery::{
        self, Command, Consumer, Control, Engine, Item, Level, Outgoing, Pause, Returned, Route, Sent,
        Settings, Summary, World,
        couriers::{Couriers, Wire},
        verdict::{self, AckMode},
    },
    ingest,
    journal::JournalName,
    lock::Lock,
    logs::Logs,
    watch::Watch,
};
use post::Connections;
use serde_json::json;
use target::Target;

/// What the engine makes of an item a courier drops, which the C library's allocator does badly.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// How long is slept when no hint comes: a lost hint costs this much.
const SCAN_EVERY: Duration = Duration::from_secs(5);
/// How often `--drain` looks whether another instance is done.
const LOOK_EVERY: Duration = Duration::from_millis(500);

fn main() -> ExitCode {
    cli::run_tool("milestone-deliver", run)
}

fn run(args: Args, out: &mut Output) -> Result<Verdict> {
    out.quiet(args.quiet);
    args.check()?;
    let logs = Logs::open(args.logs.as_deref(), "milestone-deliver")?.rotate_as(args.rotate_bytes)?;
    let consumer = Consumer::new(&logs, JournalName::from_queue_file(&args.queue)?, &args.endpoint)?;
    if let Some(command) = command(&args) {
        let shown = command.to_string();
        Control { at: clock::now(), command }.append(&consumer)?;
        out.result(&json!({ "status": "ok", "command": shown }));
        return Ok(Verdict::Done);
    }
    if args.resync.is_some() {
        return resync(&args, &consumer, out);
    }
    let target = target(&args)?;
    let url = target.url(Route::Milestones).to_owned();
    let connections = Connections::new(&args, target, post::signer(&args)?);
    let wires = connections.clone();
    let stop = cli::shutdown_flag()?;
    let connect = Box::new(move || -> Box<dyn Wire> { Box::new(wires.connect()) });
    let couriers = Couriers::new(args.concurrency, args.ack.0, Arc::clone(&stop), connect);
    let mut outside = Outside { connections, couriers, out, args: &args, stop, reload: cli::reload_flag()? };
    if args.ping {
        return Ok(ping(&args, &url, &mut outside));
    }
    let messages = outside.out.messages();
    let _sealing = Sealing::start(&logs, move |it| messages.warn(it))?;
    let (order, concurrency) = (args.order.0, args.concurrency);
    let settings = Settings { url, schedule: args.schedule(), order, concurrency };
    deliver(&args, &consumer, &settings, &mut outside)
}

/// The verb of the command line that goes through the control journal.
fn command(args: &Args) -> Option<Command> {
    if let Some(reason) = &args.hold {
        return Some(Command::Hold { reason: reason.clone() });
    }
    if args.release {
        return Some(Command::Release);
    }
    args.retry_now.then_some(Command::RetryNow)
}

fn resync(args: &Args, consumer: &Consumer, out: &mut Output) -> Result<Verdict> {
    let Some(_lock) = Lock::try_acquire(consumer.logs(), &consumer.instance_lock())? else {
        return Err(Error::new(Kind::Temporary, &args.queue, "another milestone-deliver is at work on it")
            .cure("stop that one first"));
    };
    let Some(to) = args.resync else { return Ok(Verdict::Done) };
    let cursor = delivery::resync(consumer, to, clock::now())?;
    out.result(&json!({ "status": "ok", "cursor": cursor }));
    Ok(Verdict::Done)
}

fn target(args: &Args) -> Result<Target> {
    let is_reminders = args.queue.starts_with("reminder");
    let variable = if is_reminders { "MILESTONE_REMINDER_URL" } else { "MILESTONE_INGEST_URL" };
    if let Some(url) = &args.url {
        return Target::new(url, "--url", args.allow_http);
    }
    match env::var_os(variable).filter(|it| !it.is_empty()) {
        Some(url) => Target::new(&url.to_string_lossy(), &format!("${variable}"), args.allow_http),
        None => Err(Error::new(Kind::Configuration, "", "there is no URL to deliver to")
            .cure(format!("give it by --url or ${variable}"))),
    }
}

/// The clock, the wire, the messages and the signals.
struct Outside<'o> {
    connections: Connections,
    couriers: Couriers,
    out: &'o mut Output,
    args: &'o Args,
    stop: Arc<AtomicBool>,
    reload: Arc<AtomicBool>,
}

impl World for Outside<'_> {
    fn now(&mut self) -> Timestamp {
        clock::now()
    }

    fn start(&mut self, run: Vec<Outgoing>) -> Result<()> {
        if self.reload.swap(false, SeqCst) {
            match post::signer(self.args) {
                Ok(signer) => self.connections.sign_with(signer),
                Err(error) => self.out.error(format_args!("{error}; the secret is still the one before")),
            }
        }
        self.couriers.start(run)
    }

    fn returned(&mut self, at_most: Duration) -> Vec<Returned> {
        self.couriers.returned(at_most)
    }

    fn recall(&mut self) {
        self.couriers.recall();
    }

    fn is_stopping(&self) -> bool {
        self.stop.load(SeqCst)
    }

    fn say(&mut self, level: Level, text: &str) {
        match level {
            Level::Error => self.out.error(text),
            Level::Warning => self.out.warn(text),
            Level::Note => self.out.note(text),
        }
    }
}

/// Asks whether URL and secret are right.
fn ping(args: &Args, url: &str, outside: &mut Outside<'_>) -> Verdict {
    let now = clock::now();
    let key = format!("{}{}", ingest::PING_PREFIX, now.millis());
    let body = ingest::ping_body(&now.millis().to_string(), now);
    let item = Item {
        offset: 0,
        end: 0,
        scope: None,
        route: Route::Milestones,
        name: Sent { key: key.clone(), id: key.clone() },
        body: Ok(body),
    };
    let outgoing = Outgoing { ticket: 0, route: item.route, items: vec![Arc::new(item)], is_batch: false };
    let attempted = outside.connections.connect().post(&outgoing);
    let judged = verdict::judge(&attempted, &key, args.ack.0, clock::now());
    let is_pong = match &judged.verdict {
        verdict::Verdict::Pong => true,
        verdict::Verdict::Acknowledged { .. } => args.ack.0 == AckMode::AnySuccess,
        verdict::Verdict::Failed(_) => false,
    };
    let took = clock::now().since(now).as_millis();
    if is_pong {
        outside.out.result(&json!({ "status": "pong", "url": url, "millis": took }));
        return Verdict::Done;
    }
    outside.out.refusal(&json!({
        "status": "failed",
        "url": url,
        "reason": judged.reason,
        "httpStatus": judged.status,
        "answer": judged.answer,
        "millis": took,
    }));
    Verdict::Failed(match judged.verdict {
        verdict::Verdict::Failed(verdict::Fault::Configuration) => Kind::Configuration,
        _ => Kind::Unavailable,
    })
}

fn deliver(
    args: &Args,
    consumer: &Consumer,
    settings: &Settings,
    outside: &mut Outside<'_>,
) -> Result<Verdict> {
    let deadline = args.drain_timeout.map(|it| Instant::now() + it.get());
    let mut total: Option<Summary> = None;
    loop {
        let lock = match Lock::try_acquire(consumer.logs(), &consumer.instance_lock())? {
            Some(lock) => lock,
            // What this run had to do is done, and another goes on.
            None if total.is_some() => break,
            None if args.drain => match wait_for_other(consumer, deadline, outside)? {
                Waited::Lock(lock) => lock,
                Waited::Over(verdict) => return Ok(verdict),
            },
            None => {
                outside.out.note(format_args!(
                    "another milestone-deliver is at work on {}; nothing to do",
                    args.queue
                ));
                return Ok(Verdict::Done);
            }
        };
        let mut engine = Engine::open(consumer, settings.clone(), outside)?;
        let (pause, verdict) = work(args, consumer, &mut engine, deadline, outside)?;
        engine.finish()?;
        let next = match pause {
            Pause::Until(next) => next,
            Pause::Stopped => None,
        };
        let summary = engine.summary(next)?;
        total = Some(match total.take() {
            None => summary,
            Some(before) => Summary {
                delivered: before.delivered + summary.delivered,
                duplicate: before.duplicate + summary.duplicate,
                dead_lettered: before.dead_lettered + summary.dead_lettered,
                ..summary
            },
        });
        drop(lock);
        let is_over = pause == Pause::Stopped || verdict != Verdict::Done;
        if is_over || !engine.has_more(clock::now())? {
            if let Some(total) = &total {
                outside.out.result(total);
            }
            return Ok(verdict);
        }
    }
    if let Some(total) = &total {
        outside.out.result(total);
    }
    Ok(Verdict::Done)
}

/// Works until what was asked for is done, or SIGTERM.
fn work(
    args: &Args,
    consumer: &Consumer,
    engine: &mut Engine,
    deadline: Option<Instant>,
    outside: &mut Outside<'_>,
) -> Result<(Pause, Verdict)> {
    // Before the first look, so that what comes after it is a hint.
    let watch = if args.watch || args.drain { Some(Watch::start(consumer.logs())?) } else { None };
    let mut told = engine.events();
    loop {
        let pause = engine.run(outside)?;
        let (Pause::Until(next), Some(watch)) = (pause, &watch) else { return Ok((pause, Verdict::Done)) };
        if args.drain {
            let summary = engine.summary(next)?;
            if summary.pending == 0 {
                return Ok((pause, Verdict::Done));
            }
            if let Some(verdict) = drain_ends(engine.state(), summary.pending, deadline, outside.out) {
                return Ok((pause, verdict));
            }
        } else if engine.events() > told {
            told = engine.events();
            let summary = engine.summary(next)?;
            outside.out.result(&summary);
            outside.out.flush();
        }
        let now = clock::now();
        let until_due = next.map_or(SCAN_EVERY, |it| it.since(now));
        let until_end = deadline.map_or(SCAN_EVERY, |it| it.saturating_duration_since(Instant::now()));
        watch.wait(until_due.min(until_end).min(SCAN_EVERY), &outside.stop);
    }
}

/// Why `--drain` gives up, said to the operator; none while it may still come to an end.
fn drain_ends(
    state: &delivery::State,
    pending: u64,
    deadline: Option<Instant>,
    out: &mut Output,
) -> Option<Verdict> {
    if state.breaker.needs_operator() {
        out.error(format_args!("{pending} pending and none is sent: {}", state.breaker.reason));
        return Some(Verdict::Failed(Kind::Temporary));
    }
    if deadline.is_some_and(|it| Instant::now() >= it) {
        out.error(format_args!("{pending} still pending after --drain-timeout"));
        return Some(Verdict::Failed(Kind::Temporary));
    }
    None
}

enum Waited {
    Lock(Lock),
    Over(Verdict),
}

/// `--drain` beside another instance: until that one ends, or has nothing pending.
fn wait_for_other(
    consumer: &Consumer,
    deadline: Option<Instant>,
    outside: &mut Outside<'_>,
) -> Result<Waited> {
    let watch = Watch::start(consumer.logs())?;
    outside.out.note("another milestone-deliver is at work; waiting until nothing is pending");
    while !outside.stop.load(SeqCst) {
        if let Some(lock) = Lock::try_acquire(consumer.logs(), &consumer.instance_lock())? {
            return Ok(Waited::Lock(lock));
        }
        if let Some((state, left)) = delivery::outlook(consumer)? {
            let verdict = if left.pending == 0 {
                Some(Verdict::Done)
            } else {
                drain_ends(&state, left.pending, deadline, outside.out)
            };
            if let Some(verdict) = verdict {
                outside.out.result(&left);
                return Ok(Waited::Over(verdict));
            }
        } else if deadline.is_some_and(|it| Instant::now() >= it) {
            outside.out.error("still waiting for the other instance after --drain-timeout");
            return Ok(Waited::Over(Verdict::Failed(Kind::Temporary)));
        }
        watch.wait(LOOK_EVERY, &outside.stop);
    }
    Ok(Waited::Over(Verdict::Done))
}
