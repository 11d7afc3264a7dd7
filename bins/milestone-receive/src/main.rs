//! Listens, verifies, deduplicates, stores durably, then says 2xx; and shows the feed.
//!
//! ```text
//! http (connections) ─► routes ─► site (who is answered) ─┬► ingest ─► store ─► feed.jsonl ─┐
//!                                                        └► reads, stream, page ◄─── feed ◄┘
//! ```
//!
//! # Invariants
//! - `accepted` means that it is on disk. Nothing unsigned is stored or shown.
//! - One instance a folder; without a secret it does not listen.

mod answer;
mod app;
mod args;
mod body;
mod cache;
mod dead_letters;
mod feed;
mod html;
mod http;
mod ingest;
mod item;
mod latest;
mod ledger;
mod listen;
mod metrics;
mod openapi;
mod page;
mod peers;
mod query;
mod reads;
mod reason;
mod record;
mod routes;
mod site;
mod stall;
mod store;
mod stream;
mod syndication;

use std::{
    fs, future,
    path::PathBuf,
    process::ExitCode,
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use milepost::{
    Error, Kind, Result,
    audit::seal::Sealing,
    cli::{self, Output, Verdict},
    clock,
    lock::Lock,
    logs::Logs,
    secret::SecretSource,
    signing::Verifier,
};
use serde::Serialize;
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::{Semaphore, oneshot, watch},
};

use crate::{
    app::{App, Site},
    args::Args,
    cache::Cache,
    dead_letters::DeadLetters,
    feed::Feed,
    item::ShowEvidence,
    listen::Listener,
    metrics::Metrics,
    peers::Peers,
    site::Door,
    store::{Running, Store},
    syndication::PullFeed,
};

/// Most of what a request needs is made in one thread and dropped in another, which the C library's allocator
/// does badly.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Threads for what takes long: reading the journal, and examining long batches. `READS_MAX` in feed is half of it.
const THREADS_MAX: usize = 4;

/// The result line: scripts wait for it, and learn the port.
#[derive(Serialize)]
struct Listening {
    status: &'static str,
    /// The first of them.
    address: String,
    /// All, where there are several.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    addresses: Vec<String>,
}

fn main() -> ExitCode {
    cli::run_tool("milestone-receive", run)
}

fn run(args: Args, out: &mut Output) -> Result<Verdict> {
    out.quiet(args.quiet);
    let logs = Logs::open(args.logs.as_deref(), "milestone-receive")?
        .rotate_as(args.rotate_bytes)?
        .wait_at_most(store::LOCK_WAIT);
    let secrets = Secrets::of(&args);
    let verifier = RwLock::new(Arc::new(secrets.verifier()?));
    let asked = cli::shutdown_flag()?;
    let _instance = Lock::try_acquire(&logs, "receive@receive")?.ok_or_else(|| {
        Error::new(Kind::Temporary, logs.dir().display(), "another milestone-receive works in this folder")
            .cure("one instance a folder; give it a folder of its own with --logs")
    })?;

    let listeners = listen::open(&args.listen, args.admin_listen.as_ref())?;
    let only_here = listeners.iter().all(|it| it.door.is_for_this_machine()) && args.public_host.is_empty();
    let by_default = if only_here { ShowEvidence::Full } else { ShowEvidence::Basename };
    let show = args.show_evidence.unwrap_or(by_default);
    let has_admin_door = listeners.iter().any(|it| matches!(it.door, Door::Admin { .. }));
    let pull_feed = pull_feed(&args, show)?;
    let site = Site { has_admin_door, public_hosts: args.public_host, cors: args.cors };

    let metrics = Arc::new(Metrics::new(clock::now()));
    let feed = Arc::new(Feed::new(store::feed_journal(&logs), show, out.messages()));
    let dead_letters = Arc::new(DeadLetters::default());
    let (store, Running { thread, ended, usher }) =
        Store::open(&logs, &feed, &dead_letters, &metrics, out.messages())?;

    let messages = out.messages();
    // Dropped last: the audit is sealed behind all that this service did.
    let _sealing = Sealing::start(&logs, move |it| messages.warn(it))?;

    let (stopper, stop) = watch::channel(false);
    let app = App {
        verifier,
        store,
        feed,
        cache: Cache::default(),
        pull_feed,
        dead_letters,
        metrics,
        messages: out.messages(),
        site,
        large_bodies: Arc::new(Semaphore::new(body::LARGE_BYTES_MAX)),
        streams: Arc::new(Semaphore::new(stream::STREAMS_MAX)),
        stream_peers: Arc::new(Peers::new(stream::PEER_STREAMS_MAX)),
        stop,
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(THREADS_MAX)
        .build()
        .map_err(|it| Error::new(Kind::Temporary, "", "cannot start").because(it))?;
    runtime.spawn(usher.run());
    let files: Vec<PathBuf> = listeners.iter().filter_map(Listener::file).collect();
    let addresses: Vec<String> = listeners.iter().map(|it| it.name.clone()).collect();
    let outcome = runtime.block_on(serve(app, secrets, listeners, stopper, ended, &asked, || {
        out.note(format!("listening at {}, logs in {}", addresses.join(", "), logs.dir().display()));
        let address = addresses.first().cloned().unwrap_or_default();
        let addresses = if addresses.len() > 1 { addresses } else { Vec::new() };
        out.result(&Listening { status: "listening", address, addresses });
        out.flush();
    }));
    for file in files {
        // Whoever connects finds nobody at once, instead of a socket without an owner.
        let _ = fs::remove_file(file);
    }
    // Connections that were cut off may still hold the store; they end with the runtime.
    drop(runtime);
    let died = thread.join().is_err();
    outcome?;
    if died {
        return Err(Error::new(Kind::Io, "", "the store's thread broke off"));
    }
    Ok(Verdict::Done)
}

/// Serves until somebody asks to end, or the store does.
async fn serve(
    app: App,
    secrets: Secrets,
    listeners: Vec<Listener>,
    stopper: watch::Sender<bool>,
    ended: oneshot::Receiver<()>,
    asked: &AtomicBool,
    ready: impl FnOnce(),
) -> Result<()> {
    let handler = |it| Error::new(Kind::Io, "", "cannot handle signals").because(it);
    let mut terminate = signal(SignalKind::terminate()).map_err(handler)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(handler)?;
    let hangup = signal(SignalKind::hangup()).map_err(handler)?;
    let app = Arc::new(app);
    let (metrics, messages, stop) = (Arc::clone(&app.metrics), app.messages, app.stop.clone());
    tokio::spawn(reload(Arc::clone(&app), secrets, hangup));
    let served = tokio::spawn(http::serve(listeners, routes::router(app), metrics, messages, stop));
    ready();
    let outcome = tokio::select! {
        // Asked while the journals were read, before these handlers were there.
        () = future::ready(()), if asked.load(Relaxed) => Ok(()),
        _ = terminate.recv() => Ok(()),
        _ = interrupt.recv() => Ok(()),
        _ = ended => Err(Error::new(Kind::Io, "", "the store's thread broke off, so nothing can be accepted")),
    };
    stopper.send_replace(true);
    let ended = match served.await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(cause)) => Err(Error::new(Kind::Io, "", "cannot use the socket").because(cause)),
        Err(bug) => Err(Error::new(Kind::Io, "", "serving broke off").because(bug)),
    };
    outcome.and(ended)
}

/// Reads the secrets' files again at each SIGHUP. What cannot be used changes nothing: the secrets before stay.
async fn reload(app: Arc<App>, secrets: Secrets, mut hangup: Signal) {
    while hangup.recv().await.is_some() {
        match secrets.verifier() {
            Ok(it) => {
                *app.verifier.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(it);
                app.messages.note("the secrets were read again");
            }
            Err(error) => {
                app.messages.error(error.within("the secrets stay as they were, reading them again failed"));
            }
        }
    }
}

/// Who signs what apps pull.
fn pull_feed(args: &Args, show: ShowEvidence) -> Result<Option<PullFeed>> {
    const SECRET: SecretSource<'static> = SecretSource {
        flag: Some("--feed-secret-file"),
        credential: "milestone-feed-secret",
        variable: None,
    };
    if !args.pull_feed {
        return Ok(None);
    }
    if show == ShowEvidence::None {
        let what = "and --show-evidence none exclude each other: an event without paths is none";
        return Err(Error::new(Kind::Usage, "--pull-feed", what));
    }
    let secret = SECRET.load(args.feed_secret_file.as_deref(), args.allow_readable_secret)?;
    let ingest = SecretSource::WEBHOOK.load(args.secret_file.as_deref(), args.allow_readable_secret)?;
    if secret.text_key() == ingest.text_key() {
        let what = "is that of the ingest; whoever reads the feed could post";
        return Err(Error::new(Kind::Configuration, "--feed-secret-file", what)
            .cure("make another one with: openssl rand -hex 32"));
    }
    Ok(Some(PullFeed::new(&secret)))
}

/// Where the secrets are, and how signatures are judged with them.
struct Secrets {
    current: Option<PathBuf>,
    previous: Option<PathBuf>,
    allow_readable: bool,
    strict: bool,
    tolerance: Duration,
}

impl Secrets {
    fn of(args: &Args) -> Secrets {
        Secrets {
            current: args.secret_file.clone(),
            previous: args.previous_secret_file.clone(),
            allow_readable: args.allow_readable_secret,
            strict: args.strict,
            tolerance: args.tolerance.get(),
        }
    }

    /// Reads the secrets as they are now.
    fn verifier(&self) -> Result<Verifier> {
        let current = SecretSource::WEBHOOK.load(self.current.as_deref(), self.allow_readable)?;
        let previous =
            SecretSource::WEBHOOK_PREVIOUS.load_optional(self.previous.as_deref(), self.allow_readable)?;
        Ok(Verifier::new(&current, previous.as_ref(), self.strict, self.tolerance))
    }
}
