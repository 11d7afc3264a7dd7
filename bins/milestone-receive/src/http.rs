//! Connections: accepting them, the limits of each, and ending in good order.
//!
//! # Invariants
//! - A peer that sends headers slowly, reads slowly, or opens many connections costs a bounded share:
//!   [`HEADER_WAIT`], [`HEADER_BYTES_MAX`], [`CONNECTIONS_MAX`], and from other machines
//!   [`PEER_CONNECTIONS_MAX`] each.
//! - Asked to end, it takes no new connection, finishes what is in flight, and is done within [`END_WAIT`].
//! - A bug in a handler ends that connection and nothing else; the panic's message goes to the operator.
//!
//! Not here: which paths there are (`routes`), reading bodies (`body`).

use std::{
    collections::HashMap,
    io,
    net::{IpAddr, Ipv6Addr, SocketAddr},
    pin::pin,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use milepost::cli::Messages;
use rustix::process::{Resource, getrlimit, setrlimit};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{Semaphore, watch},
    time::{sleep, timeout},
};

use crate::{metrics::Metrics, stall::Stalling};

/// Connections at a time; more wait in the kernel.
const CONNECTIONS_MAX: usize = 1024;
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

/// Serves connections until `stop` is true.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    metrics: Arc<Metrics>,
    messages: Messages,
    mut stop: watch::Receiver<bool>,
) {
    let most = connections_max();
    let places = Arc::new(Semaphore::new(most));
    let peers = Arc::new(Peers::default());
    while !*stop.borrow() {
        // First a place, then a connection: whoever finds none waits in the kernel, unaccepted.
        let place = tokio::select! {
            place = Arc::clone(&places).acquire_owned() => place,
            _ = stop.changed() => break,
        };
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = stop.changed() => break,
        };
        let (stream, peer) = match accepted {
            Ok(it) => it,
            Err(cause) => {
                if !is_peers_own(&cause) {
                    messages.error(format!("cannot accept a connection: {cause}; trying again"));
                    sleep(Duration::from_millis(200)).await;
                }
                continue;
            }
        };
        let Some(guest) = peers.admit(peer.ip()) else { continue };
        let (router, metrics, stop) = (router.clone(), Arc::clone(&metrics), stop.clone());
        tokio::spawn(async move {
            let _held = (place, guest, metrics.connections.hold());
            connection(stream, router, stop).await;
        });
    }
    drop(listener);
    // All places are free when all connections have ended.
    let all = u32::try_from(most).unwrap_or(u32::MAX);
    if timeout(END_WAIT, places.acquire_many(all)).await.is_err() {
        messages.warn("some connections did not end in time and are cut off");
    }
}

async fn connection(stream: TcpStream, router: Router, mut stop: watch::Receiver<bool>) {
    // An answer is one small write: waiting to join it with the next only delays it.
    let _ = stream.set_nodelay(true);
    let io = TokioIo::new(Stalling::new(stream));
    let mut served = pin!(
        http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEADER_WAIT)
            .max_header_size(HEADER_BYTES_MAX)
            .max_buf_size(BUFFER_BYTES)
            .serve_connection(io, TowerToHyperService::new(router))
    );
    let mut is_ending = *stop.borrow();
    if is_ending {
        served.as_mut().graceful_shutdown();
    }
    loop {
        tokio::select! {
            // How a connection ended is its peer's business.
            _ = served.as_mut() => return,
            changed = stop.changed(), if !is_ending => {
                is_ending = true;
                if changed.is_ok() {
                    served.as_mut().graceful_shutdown();
                }
            }
        }
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

/// Connections by peer.
#[derive(Debug, Default)]
struct Peers(Mutex<HashMap<IpAddr, u32>>);

/// A connection that was admitted; counted until it is dropped.
struct Guest {
    peers: Arc<Peers>,
    peer: Option<IpAddr>,
}

impl Peers {
    /// Counts a connection, unless its peer has too many.
    fn admit(self: &Arc<Peers>, peer: IpAddr) -> Option<Guest> {
        let peer = block_of(peer);
        if peer.is_loopback() {
            return Some(Guest { peers: Arc::clone(self), peer: None });
        }
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry(peer).or_default();
        if *count >= PEER_CONNECTIONS_MAX {
            return None;
        }
        *count += 1;
        Some(Guest { peers: Arc::clone(self), peer: Some(peer) })
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        let Some(peer) = self.peer else { return };
        let mut counts = self.peers.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(&peer) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&peer);
            }
        }
    }
}

/// What counts as one peer: an IPv4 address, or the /64 that one IPv6 customer has.
fn block_of(peer: IpAddr) -> IpAddr {
    match peer.to_canonical() {
        IpAddr::V6(it) if !it.is_loopback() => IpAddr::V6(Ipv6Addr::from_bits(it.to_bits() >> 64 << 64)),
        it => it,
    }
}

/// Whether only this machine can reach an address.
pub fn is_loopback(address: SocketAddr) -> bool {
    address.ip().to_canonical().is_loopback()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_has_its_share_and_this_machine_has_none() {
        let peers = Arc::new(Peers::default());
        let address = |text: &str| text.parse::<IpAddr>().unwrap();
        let guests: Vec<_> = (0..PEER_CONNECTIONS_MAX)
            .map(|it| peers.admit(address(&format!("2001:db8::{it:x}"))).expect("admitted"))
            .collect();
        assert!(peers.admit(address("2001:db8::ffff:1")).is_none());
        assert!(peers.admit(address("2001:db8:0:1::1")).is_some());
        drop(guests);
        assert!(peers.0.lock().unwrap().is_empty());
        let own: Vec<_> =
            (0..2 * PEER_CONNECTIONS_MAX).map(|_| peers.admit(address("::ffff:127.0.0.1"))).collect();
        assert!(own.iter().all(Option::is_some));
    }
}
