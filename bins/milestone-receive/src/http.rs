//! Connections: accepting them, the limits of each, and ending in good order.
//!
//! # Invariants
//! - A peer that sends headers slowly, reads slowly, or opens many connections costs a bounded share:
//!   [`HEADER_WAIT`], [`HEADER_BYTES_MAX`], [`CONNECTIONS_MAX`], and from other machines
//!   [`PEER_CONNECTIONS_MAX`] each. One that sends nothing costs a descriptor and no buffer.
//! - Asked to end, it takes no new connection, finishes what is in flight, and is done within [`END_WAIT`]. In flight
//!   is a request whose headers came whole; a connection without one is closed at once.
//! - A bug in a handler ends that connection and nothing else; the panic's message goes to the operator.
//!
//! Not here: which paths there are (`routes`), reading bodies (`body`), sockets (`listen`), peers (`peers`).

use std::{
    io,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use axum::Router;
use hyper::{
    Request,
    body::Incoming,
    server::conn::http1,
    service::{Service, service_fn},
};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use milepost::cli::Messages;
use rustix::process::{Resource, getrlimit, setrlimit};
use tokio::{
    io::{AsyncRead, AsyncWrite, Interest},
    net::{TcpListener, TcpStream, UnixListener, UnixStream},
    sync::{Semaphore, watch},
    task::JoinSet,
    time::{sleep, timeout},
};

use crate::{
    listen::{Listener, Socket},
    metrics::Metrics,
    peers::{Peer, Peers},
    site::Door,
    stall::Stalling,
};

/// Connections at a time; more wait in the kernel. Ten thousand idle ones leave room for others.
const CONNECTIONS_MAX: usize = 16 << 10;
/// Connections of one peer; this machine's own are not limited, since a reverse proxy is one peer.
const PEER_CONNECTIONS_MAX: u32 = 64;
/// Time for the headers of a request, and for the silence before it.
const HEADER_WAIT: Duration = Duration::from_secs(10);
/// Bytes of the headers of a request.
const HEADER_BYTES_MAX: usize = 16 << 10;
/// Bytes that are read or written ahead on one connection.
const BUFFER_BYTES: usize = 64 << 10;
/// Time to end in: what is in flight takes up to 8 s.
const END_WAIT: Duration = Duration::from_secs(10);
/// File descriptors that are not connections: journals, locks, indexes, and those who read them.
const OTHER_FILES: u64 = 64;

/// What all connections share.
#[derive(Clone)]
struct House {
    router: Router,
    metrics: Arc<Metrics>,
    messages: Messages,
    places: Arc<Semaphore>,
    peers: Arc<Peers>,
    stop: watch::Receiver<bool>,
}

/// Serves connections of all listeners until `stop` is true.
pub async fn serve(
    listeners: Vec<Listener>,
    router: Router,
    metrics: Arc<Metrics>,
    messages: Messages,
    stop: watch::Receiver<bool>,
) -> io::Result<()> {
    let most = connections_max();
    let places = Arc::new(Semaphore::new(most));
    let house = House {
        router,
        metrics,
        messages,
        places: Arc::clone(&places),
        peers: Arc::new(Peers::new(PEER_CONNECTIONS_MAX)),
        stop,
    };
    let mut doors = JoinSet::new();
    for Listener { socket, door, .. } in listeners {
        let house = house.clone();
        match socket {
            Socket::Tcp(it) => doors.spawn(house.welcome(TcpListener::from_std(it)?, door)),
            Socket::Unix(it) => doors.spawn(house.welcome(UnixListener::from_std(it)?, door)),
        };
    }
    doors.join_all().await;
    // All places are free when all connections have ended.
    let all = u32::try_from(most).unwrap_or(u32::MAX);
    if timeout(END_WAIT, places.acquire_many(all)).await.is_err() {
        messages.warn("some connections did not end in time and are cut off");
    }
    Ok(())
}

/// A listening socket of either kind.
trait Welcoming: Send + 'static {
    type Stream: Connected;
    fn accept(&self) -> impl Future<Output = io::Result<(Self::Stream, Peer)>> + Send;
}

/// A connection of either kind.
trait Connected: AsyncRead + AsyncWrite + Unpin + Send + 'static {
    /// Resolves when there is something to read.
    fn has_sent(&self) -> impl Future<Output = io::Result<()>> + Send;
}

impl House {
    async fn welcome<L: Welcoming + Sync>(mut self, listener: L, door: Door)
    where
        L::Stream: Sync,
    {
        while !*self.stop.borrow() {
            // First a place, then a connection: whoever finds none waits in the kernel, unaccepted.
            let place = tokio::select! {
                place = Arc::clone(&self.places).acquire_owned() => place,
                _ = self.stop.changed() => break,
            };
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                _ = self.stop.changed() => break,
            };
            let (stream, peer) = match accepted {
                Ok(it) => it,
                Err(cause) => {
                    if !is_peers_own(&cause) {
                        self.messages.error(format!("cannot accept a connection: {cause}; trying again"));
                        sleep(Duration::from_millis(200)).await;
                    }
                    continue;
                }
            };
            let Some(guest) = self.peers.admit(peer) else { continue };
            let (router, metrics, stop) = (self.router.clone(), Arc::clone(&self.metrics), self.stop.clone());
            tokio::spawn(async move {
                let _held = (place, guest, metrics.connections.hold());
                connection(stream, peer, door, router, stop).await;
            });
        }
    }
}

async fn connection<S: Connected + Sync>(
    stream: S,
    peer: Peer,
    door: Door,
    routes: Router,
    mut stop: watch::Receiver<bool>,
) {
    // Whoever connects and says nothing gets no buffers.
    let sent = tokio::select! {
        sent = timeout(HEADER_WAIT, stream.has_sent()) => matches!(sent, Ok(Ok(()))),
        _ = stop.changed() => false,
    };
    if !sent {
        return;
    }
    let io = TokioIo::new(Stalling::new(stream));
    let answers = TowerToHyperService::new(routes);
    let has_asked = AtomicBool::new(false);
    let service = service_fn(|mut request: Request<Incoming>| {
        has_asked.store(true, Relaxed);
        request.extensions_mut().insert(peer);
        request.extensions_mut().insert(door);
        answers.call(request)
    });
    let mut served = pin!(
        http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEADER_WAIT)
            .max_header_size(HEADER_BYTES_MAX)
            .max_buf_size(BUFFER_BYTES)
            .serve_connection(io, service)
    );
    tokio::select! {
        // First what has come: a whole request among it is in flight.
        biased;
        // How a connection ended is its peer's business.
        _ = served.as_mut() => return,
        _ = stop.wait_for(|it| *it) => {}
    }
    // hyper itself ends a connection that is between two requests, but waits for the headers of the first one.
    if has_asked.load(Relaxed) {
        served.as_mut().graceful_shutdown();
        let _ = served.await;
    }
}

impl Welcoming for TcpListener {
    type Stream = TcpStream;

    async fn accept(&self) -> io::Result<(TcpStream, Peer)> {
        let (stream, address) = TcpListener::accept(self).await?;
        // An answer is one small write: waiting to join it with the next only delays it.
        let _ = stream.set_nodelay(true);
        Ok((stream, Peer::of(address.ip())))
    }
}

impl Welcoming for UnixListener {
    type Stream = UnixStream;

    async fn accept(&self) -> io::Result<(UnixStream, Peer)> {
        UnixListener::accept(self).await.map(|(stream, _)| (stream, Peer::here()))
    }
}

impl Connected for TcpStream {
    async fn has_sent(&self) -> io::Result<()> {
        self.ready(Interest::READABLE).await.map(drop)
    }
}

impl Connected for UnixStream {
    async fn has_sent(&self) -> io::Result<()> {
        self.ready(Interest::READABLE).await.map(drop)
    }
}

/// Whether accepting failed for a reason of the one connection, not of ours.
fn is_peers_own(cause: &io::Error) -> bool {
    use io::ErrorKind as E;
    matches!(cause.kind(), E::ConnectionAborted | E::ConnectionReset | E::ConnectionRefused | E::Interrupted)
}

/// As many connections as wanted, and as file descriptors allow. The soft limit is raised: the usual 1024
/// is there for programs that use select(2).
fn connections_max() -> usize {
    let wanted = CONNECTIONS_MAX as u64 + OTHER_FILES;
    let mut limit = getrlimit(Resource::Nofile);
    let soft = limit.current.unwrap_or(u64::MAX);
    if soft >= wanted {
        return CONNECTIONS_MAX;
    }
    limit.current = Some(wanted.min(limit.maximum.unwrap_or(u64::MAX)));
    let files = if setrlimit(Resource::Nofile, limit).is_ok() { limit.current.unwrap_or(soft) } else { soft };
    usize::try_from(files.saturating_sub(OTHER_FILES)).unwrap_or(CONNECTIONS_MAX).clamp(1, CONNECTIONS_MAX)
}
