//! `GET /api/milestones/stream`: every new milestone as a server-sent event.
//!
//! The journal is the buffer. A client has a place in the feed and one piece on its way; a slow one falls
//! behind in the journal, not in our memory, and one that takes nothing at all is closed.
//!
//! # Invariants
//! - `id:` is the seq. Whoever comes back with `Last-Event-ID` gets what it missed, once, in order.
//! - A comment every [`HEARTBEAT`] shows both sides that the connection lives.
//! - At most [`STREAMS_MAX`] at a time, so that streams never take all connections from the ingest.

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
    extract::{RawQuery, State},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::Response,
};
use hyper::body::Frame;
use tokio::{
    sync::{OwnedSemaphorePermit, mpsc},
    time::timeout,
};

use crate::{answer, app::App, feed::Cursor, item::Item, query};

/// Streams at a time.
pub const STREAMS_MAX: usize = 256;
/// How often a silent stream says that it lives.
const HEARTBEAT: Duration = Duration::from_secs(15);
/// A client that has taken nothing for so long is gone.
const STALL_MAX: Duration = Duration::from_secs(30);
/// After how many milliseconds a browser connects again.
const RETRY_MS: u32 = 2000;

/// Opens a stream from `Last-Event-ID`, else from `?after=`, else from now.
pub async fn stream(State(app): State<Arc<App>>, headers: HeaderMap, RawQuery(query): RawQuery) -> Response {
    let (last, _) = app.feed.head();
    let from = match start(&headers, query.as_deref()) {
        // An id beyond the end is of a feed that was replaced: what comes next is new to its client.
        Ok(from) => from.map_or(last, |it| it.min(last)),
        Err(reason) => return answer::refused(StatusCode::BAD_REQUEST, &reason),
    };
    let Ok(permit) = Arc::clone(&app.streams).try_acquire_owned() else {
        return answer::unavailable("too many streams are open");
    };
    // Room for one piece: the next is made when this one was taken.
    let (give, take) = mpsc::channel(1);
    tokio::spawn(feed_one(app, Cursor::after(from), give, permit));
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
    mut cursor: Cursor,
    give: mpsc::Sender<Bytes>,
    _permit: OwnedSemaphorePermit,
) {
    let _counted = app.metrics.streams.hold();
    let mut published = app.feed.subscribe();
    let mut stop = app.stop.clone();
    let mut piece = format!("retry: {RETRY_MS}\n\n");
    loop {
        if !piece.is_empty() {
            let sent = timeout(STALL_MAX, give.send(Bytes::from(std::mem::take(&mut piece))));
            if !matches!(sent.await, Ok(Ok(()))) {
                return;
            }
        }
        if *stop.borrow() {
            return;
        }
        // Marked as seen before reading: what comes in between wakes us again.
        published.borrow_and_update();
        match app.feed.following(&mut cursor).await {
            Ok(items) if !items.is_empty() => items.iter().for_each(|it| write_event(&mut piece, it)),
            Ok(_) => {
                tokio::select! {
                    changed = published.changed() => if changed.is_err() { return },
                    _ = stop.changed() => return,
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

/// JSON has no raw line ends, so an item is one `data:` line.
fn write_event(piece: &mut String, item: &Item) {
    let Item { seq, json, .. } = item;
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
