//! Reading the body of a request: never more than allowed, never for longer than allowed.
//!
//! # Invariants
//! - At most `bytes_max` are held; whoever announces more is told at once.
//! - Bodies beyond [`SMALL_BYTES`] share [`LARGE_BYTES_MAX`] of memory, so that many large ones together
//!   cannot take it all; an ordinary event is small and waits for nobody.
//! - An answer before the end of a body reaches its sender: the rest is read and dropped, for a while.

use std::{
    future::poll_fn,
    pin::Pin,
    sync::Arc,
    time::{Duration, Instant},
};

use axum::{
    body::{Body, Bytes, HttpBody},
    http::{HeaderMap, header},
};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{timeout, timeout_at},
};

/// Bodies up to here are read at once; with all connections at it, that is 64 MiB.
const SMALL_BYTES: usize = 64 << 10;
/// Memory for all larger bodies together.
pub const LARGE_BYTES_MAX: usize = 16 << 20;
/// A body must have come by then.
pub const BODY_WAIT: Duration = Duration::from_secs(30);
/// How much of a refused body is still read so that its sender sees the answer, and for how long.
const DRAIN_BYTES_MAX: usize = 16 << 20;
const DRAIN_WAIT: Duration = Duration::from_secs(5);

/// A body that was read.
#[derive(Debug)]
pub struct Read {
    /// The bytes.
    pub bytes: Vec<u8>,
    /// The share of memory that it takes; kept until it is answered.
    pub share: Option<OwnedSemaphorePermit>,
}

/// Why a body was not read.
#[derive(Debug)]
pub enum Failure {
    /// It is longer than allowed. What is left of it should be drained.
    TooLarge(Option<Body>),
    /// It did not come in time.
    Slow,
    /// The sender went away in the middle.
    BrokenOff,
    /// Other large bodies take all the memory.
    Crowded,
}

/// Reads a body of at most `bytes_max`. `large` is the memory for large ones, in bytes.
pub async fn read(
    headers: &HeaderMap,
    body: Body,
    bytes_max: usize,
    large: &Arc<Semaphore>,
    patience: Duration,
) -> Result<Read, Failure> {
    let announced = body.size_hint().lower();
    if announced > bytes_max as u64 {
        // Who asks before sending has been answered, and sends nothing.
        let asks_first = headers.contains_key(header::EXPECT);
        return Err(Failure::TooLarge((!asks_first).then_some(body)));
    }
    let mut body = body;
    let mut bytes = Vec::with_capacity(usize::try_from(announced).unwrap_or(0).min(SMALL_BYTES));
    let mut share = None;
    let deadline = Instant::now() + BODY_WAIT;
    loop {
        let piece = match timeout_at(deadline.into(), piece(&mut body)).await {
            Err(_late) => return Err(Failure::Slow),
            Ok(None) => return Ok(Read { bytes, share }),
            Ok(Some(Err(_gone))) => return Err(Failure::BrokenOff),
            Ok(Some(Ok(piece))) => piece,
        };
        if bytes.len() + piece.len() > bytes_max {
            return Err(Failure::TooLarge(Some(body)));
        }
        if bytes.len() + piece.len() > SMALL_BYTES && share.is_none() {
            // Whoever announces no length may send as much as is allowed.
            let wanted =
                if announced > 0 { usize::try_from(announced).unwrap_or(bytes_max) } else { bytes_max };
            let wanted = u32::try_from(wanted).unwrap_or(u32::MAX);
            match timeout(patience, Arc::clone(large).acquire_many_owned(wanted)).await {
                Ok(Ok(it)) => share = Some(it),
                _ => return Err(Failure::Crowded),
            }
        }
        bytes.extend_from_slice(&piece);
    }
}

/// Reads and drops what is left of a refused body, beside the answer.
pub fn drain(mut body: Body) {
    tokio::spawn(async move {
        let all = async {
            let mut left = DRAIN_BYTES_MAX;
            while let Some(Ok(piece)) = piece(&mut body).await
                && piece.len() <= left
            {
                left -= piece.len();
            }
        };
        // Whoever is not done by then sees a closed connection.
        let _ = timeout(DRAIN_WAIT, all).await;
    });
}

/// The next piece of data; trailers are passed over.
async fn piece(body: &mut Body) -> Option<Result<Bytes, axum::Error>> {
    loop {
        let frame = poll_fn(|context| Pin::new(&mut *body).poll_frame(context)).await?;
        match frame.map(hyper::body::Frame::into_data) {
            Ok(Ok(data)) => return Some(Ok(data)),
            Ok(Err(_trailers)) => {}
            Err(cause) => return Some(Err(cause)),
        }
    }
}
