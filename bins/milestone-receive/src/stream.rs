//! `GET /api/milestones/stream`: every new milestone as a server-sent event.
//!
//! The journal is the buffer. A client has a place in the feed and one piece on its way; a slow one falls
//! behind in the journal, not in our memory, and one that takes nothing at all is closed.
//!
//! # Invariants
//! - `id:` is the seq. Whoever comes back with `Last-Event-ID` gets what it missed, once, in order.
//! - A comment every [`HEARTBEAT`] shows both sides that the connection lives.
//! - At most [`STREAMS_MAX`] at a time, so that streams never take all connections from the ingest, and
//!   [`PEER_STREAMS_MAX`] of one peer.
//! - A client that leaves more than [`UNSENT_MAX`] untaken is closed. One that comes back after more than
//!   [`RESUME_MAX`] milestones is told to begin anew (`event: reset`).

use std::{
    convert::Infallible,
    fmt::Write as _,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use axum::{
    body::{Body, Bytes, HttpBody},
    extract::{Extension, RawQuery, State},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::Response,
};
use hyper::body::Frame;
use tokio::{
    sync::{OwnedSemaphorePermit, mpsc},
    time::{Instant, timeout},
};

use crate::{
    answer,
    app::App,
    feed::{Cursor, Feed},
    item::Item,
    peers::{Guest, Peer},
    query,
};

/// Streams at a time.
pub const STREAMS_MAX: usize = 4096;
/// Streams of one peer; this machine's own are not limited.
pub const PEER_STREAMS_MAX: u32 = 20;
/// Bytes that may wait for a client, and how long it may leave as many.
const UNSENT_MAX: u64 = 64 << 10;
const UNSENT_WAIT: Duration = Duration::from_secs(1);
/// Milestones that a stream makes up for.
const RESUME_MAX: u64 = 10_000;
/// How often a silent stream says that it lives.
const HEARTBEAT: Duration = Duration::from_secs(15);
/// A client that has taken nothing for so long is gone.
const STALL_MAX: Duration = Duration::from_secs(30);
/// After how many milliseconds a browser connects again.
const RETRY_MS: u32 = 2000;

/// Opens a stream from `Last-Event-ID`, else from `?after=`, else from now.
pub async fn stream(
    State(app): State<Arc<App>>,
    Extension(peer): Extension<Peer>,
    headers: HeaderMap,
    RawQuery(query): RawQuery,
) -> Response {
    let (last, _) = app.feed.head();
    let from = match start(&headers, query.as_deref()) {
        // An id beyond the end is of a feed that was replaced: what comes next is new to its client.
        Ok(from) => from.map_or(last, |it| it.min(last)),
        Err(reason) => return answer::refused(StatusCode::BAD_REQUEST, &reason),
    };
    let (Ok(permit), Some(guest)) =
        (Arc::clone(&app.streams).try_acquire_owned(), app.stream_peers.admit(peer))
    else {
        return answer::unavailable("too many streams are open");
    };
    // Room for one piece: the next is made when this one was taken.
    let (give, take) = mpsc::channel(1);
    tokio::spawn(feed_one(app, from, last, give, (permit, guest)));
    let mut response = answer::with_type(StatusCode::OK, "text/event-stream", Body::new(Pieces(take)));
    // Proxies that buffer would hold events back.
    response.headers_mut().insert("x-accel-buffering", HeaderValue::from_static("no"));
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    response
}

fn start(headers: &HeaderMap, query: Option<&str>) -> Result<Option<u64>, String> {
    match headers.get("last-event-id") {
        // A browser that has no id yet may send an empty one.
        Some(id) if !id.is_empty() => {
            let seq = id.to_str().ok().and_then(|it| it.trim().parse().ok());
            seq.map(Some).ok_or_else(|| "Last-Event-ID is no seq of this feed".to_owned())
        }
        _ => query::after(query),
    }
}

/// Writes the stream of one client until it goes, stalls, or the receiver ends.
async fn feed_one(
    app: Arc<App>,
    from: u64,
    last: u64,
    give: mpsc::Sender<Bytes>,
    _held: (OwnedSemaphorePermit, Guest),
) {
    let _counted = app.metrics.streams.hold();
    let mut published = app.feed.subscribe();
    let mut stop = app.stop.clone();
    let mut cursor = Cursor::after(from);
    let mut piece = format!("retry: {RETRY_MS}\n\n");
    if last - from > RESUME_MAX {
        cursor = Cursor::after(last);
        let _ = write!(piece, "event: reset\nid: {last}\ndata: {{\"seq\":{last}}}\n\n");
    }
    // While a client makes up for what it missed, it takes as long as it needs.
    let mut is_live = false;
    loop {
        if !piece.is_empty() {
            let Some(room) = room_for(&app.feed, &give, is_live.then_some(cursor.after)).await else {
                return;
            };
            room.send(Bytes::from(std::mem::take(&mut piece)));
        }
        if *stop.borrow() {
            return;
        }
        // Marked as seen before reading: what comes in between wakes us again.
        published.borrow_and_update();
        match app.feed.following(&mut cursor).await {
            Ok(items) if !items.is_empty() => items.iter().for_each(|it| write_event(&mut piece, it)),
            Ok(_) => {
                is_live = true;
                tokio::select! {
                    changed = published.changed() => if changed.is_err() { return },
                    _ = stop.changed() => piece.push_str(": ending; connect again\n\n"),
                    () = give.closed() => return,
                    () = tokio::time::sleep(HEARTBEAT) => piece.push_str(": still here\n\n"),
                }
            }
            Err(error) => {
                // The client comes back with its id.
                app.messages.error(&error);
                return;
            }
        }
    }
}

/// Room for one more piece; none when the client takes nothing for too long, or, `live` up to a seq, while too much
/// comes.
async fn room_for<'a>(
    feed: &Feed,
    give: &'a mpsc::Sender<Bytes>,
    live: Option<u64>,
) -> Option<mpsc::Permit<'a, Bytes>> {
    let deadline = Instant::now() + STALL_MAX;
    let mut late_since = None;
    loop {
        if let Ok(room) = timeout(UNSENT_WAIT, give.reserve()).await {
            return room.ok();
        }
        let is_late = live.is_some_and(|seq| feed.bytes_after(seq) > UNSENT_MAX);
        let now = Instant::now();
        let since = *late_since.get_or_insert(now);
        if now > deadline || is_late && now - since >= UNSENT_WAIT {
            return None;
        }
        if !is_late {
            late_since = None;
        }
    }
}

/// JSON has no raw line ends, so an item is one `data:` line.
fn write_event(piece: &mut String, item: &Item) {
    let (seq, json) = (item.seq, item.json());
    // Writing into memory cannot fail.
    let _ = write!(piece, "event: milestone\nid: {seq}\ndata: {json}\n\n");
}

/// A body that is made piece by piece.
struct Pieces(mpsc::Receiver<Bytes>);

impl HttpBody for Pieces {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.0.poll_recv(context).map(|it| it.map(|it| Ok(Frame::data(it))))
    }
}
