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
mod dead_letters;
mod feed;
mod http;
mod ingest;
mod item;
mod latest;
mod ledger;
mod metrics;
mod page;
mod query;
mod reads;
mod reason;
mod record;
mod routes;
mod site;
mod stall;
mod store;
mod stream;

use std::{
    future,
    net::{SocketAddr, TcpListener},
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
    journal::JournalName,
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
    dead_letters::DeadLetters,
    feed::Feed,
    item::ShowEvidence,
    metrics::Metrics,
    store::{Running, Store},
};

/// The result line: scripts wait for it, and learn the port.
#[derive(Serialize)]
struct Listening {
    status: &'static str,
    address: String,
}

fn main() -> ExitCode {
    cli::run_tool("milestone-receive", run)
}

fn run(args: Args, out: &mut Output) -> Result<Verdict> {
    out.quiet(args.quiet);
    let logs = Logs::open(args.logs.as_deref(), "milestone-receive")?
        .rotate_as(args.rotate_bytes)
        .wait_at_most(store::LOCK_WAIT);
    let secrets = Secrets::of(&args);
    let verifier = RwLock::new(Arc::new(secrets.verifier()?));
    let asked = cli::shutdown_flag()?;
    let _instance = Lock::try_acquire(&logs, "receive@receive")?.ok_or_else(|| {
        Error::new(Kind::Temporary, logs.dir().display(), "another milestone-receive works in this folder")
            .cure("one instance a folder; give it a folder of its own with --logs")
    })?;

    let site =
        Site { is_loopback: http::is_loopback(args.listen), public_hosts: args.public_host, cors: args.cors };
    let only_here = site.is_loopback && site.public_hosts.is_empty();
    let by_default = if only_here { ShowEvidence::Full } else { ShowEvidence::Basename };
    let show = args.show_evidence.unwrap_or(by_default);

    let metrics = Arc::new(Metrics::new(clock::now()));
    let feed = Arc::new(Feed::new(&logs, JournalName::internal(store::FEED), show));
    let dead_letters = Arc::new(DeadLetters::default());
    let (store, Running { thread, ended }) =
        Store::open(&logs, &feed, &dead_letters, &metrics, out.messages())?;

    let messages = out.messages();
    // Dropped last: the audit is sealed behind all that this service did.
    let _sealing = Sealing::start(&logs, move |it| messages.warn(it))?;

    let listener = listen(args.listen)?;
    let bound = listener
        .local_addr()
        .map_err(|it| Error::new(Kind::Io, args.listen, "cannot look at the socket").because(it))?;
    let (stopper, stop) = watch::channel(false);
    let app = App {
        verifier,
        store,
        feed,
        dead_letters,
        metrics,
        messages: out.messages(),
        site,
        large_bodies: Arc::new(Semaphore::new(body::LARGE_BYTES_MAX)),
        streams: Arc::new(Semaphore::new(stream::STREAMS_MAX)),
        stop,
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(8)
        .build()
        .map_err(|it| Error::new(Kind::Temporary, "", "cannot start").because(it))?;
    let outcome = runtime.block_on(serve(app, secrets, listener, stopper, ended, &asked, || {
        out.note(format!("listening at http://{bound}, logs in {}", logs.dir().display()));
        out.result(&Listening { status: "listening", address: format!("http://{bound}") });
        out.flush();
    }));
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
    listener: TcpListener,
    stopper: watch::Sender<bool>,
    ended: oneshot::Receiver<()>,
    asked: &AtomicBool,
    ready: impl FnOnce(),
) -> Result<()> {
    let handler = |it| Error::new(Kind::Io, "", "cannot handle signals").because(it);
    let mut terminate = signal(SignalKind::terminate()).map_err(handler)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(handler)?;
    let hangup = signal(SignalKind::hangup()).map_err(handler)?;
    let listener = tokio::net::TcpListener::from_std(listener)
        .map_err(|it| Error::new(Kind::Io, "", "cannot use the socket").because(it))?;
    let app = Arc::new(app);
    let (metrics, messages, stop) = (Arc::clone(&app.metrics), app.messages, app.stop.clone());
    tokio::spawn(reload(Arc::clone(&app), secrets, hangup));
    let served = tokio::spawn(http::serve(listener, routes::router(app), metrics, messages, stop));
    ready();
    let outcome = tokio::select! {
        // Asked while the journals were read, before these handlers were there.
        () = future::ready(()), if asked.load(Relaxed) => Ok(()),
        _ = terminate.recv() => Ok(()),
        _ = interrupt.recv() => Ok(()),
        _ = ended => Err(Error::new(Kind::Io, "", "the store's thread broke off, so nothing can be accepted")),
    };
    stopper.send_replace(true);
    let ended = served.await.map_err(|it| Error::new(Kind::Io, "", "serving broke off").because(it));
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

fn listen(address: SocketAddr) -> Result<TcpListener> {
    let failed = |cause: std::io::Error| {
        use std::io::ErrorKind as E;
        let (kind, cure) = match cause.kind() {
            E::AddrInUse => (Kind::Unavailable, "another program listens there; choose another port"),
            E::PermissionDenied => {
                (Kind::Permission, "ports below 1024 need a privilege; choose a higher one")
            }
            E::AddrNotAvailable => (Kind::Configuration, "this machine has no such address"),
            _ => (Kind::Unavailable, "choose another --listen"),
        };
        Error::new(kind, address, "cannot listen").because(cause).cure(cure)
    };
    let listener = TcpListener::bind(address).map_err(failed)?;
    listener.set_nonblocking(true).map_err(failed)?;
    Ok(listener)
}
