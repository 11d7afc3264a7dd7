//! What readers may ask as JSON: the newest milestones, the dead letters, health, metrics.
//!
//! # Invariants
//! - Dead letters and metrics are for the operator only: not on a public address, and not through a proxy
//!   that offers us under a public name.
//! - Nothing here waits for the store but looking one milestone up by its id.

use std::sync::Arc;

use axum::{
    body::Bytes,
    extract::{Extension, Path, RawQuery, State, rejection::PathRejection},
    http::{HeaderMap, StatusCode},
    response::Response,
};
use serde::Serialize;
use serde_json::json;

use crate::{
    answer,
    app::App,
    cache,
    dead_letters::DeadLetter,
    feed::Page,
    item::Item,
    query::{self, Query},
    site::{Door, is_operator},
};

/// Items of `latest` when nothing is said.
const LIMIT: usize = 20;
const JSON: &str = "application/json";

/// `GET /api/milestones/latest`
pub async fn latest(State(app): State<Arc<App>>, headers: HeaderMap, RawQuery(query): RawQuery) -> Response {
    // Before anything is read: what comes in between makes the answer newer than its tag, never older.
    let version = app.feed.head();
    if cache::is_known(&headers, &version) {
        return cache::not_modified(&version);
    }
    let key = query.as_deref().unwrap_or_default();
    if let Some(body) = app.cache.get(&version, key) {
        return cache::found(&version, JSON, body);
    }
    let Query { limit, filter, before } = match Query::parse(query.as_deref(), LIMIT) {
        Ok(it) => it,
        Err(reason) => return answer::refused(StatusCode::BAD_REQUEST, &reason),
    };
    let Page { items, next } = match app.feed.newest(filter, before, limit).await {
        Ok(it) => it,
        Err(error) => return cannot_read(&app, &error),
    };
    // The items are JSON already.
    let mut body = String::from("{\"ok\":true,\"items\":[");
    for (at, item) in items.iter().enumerate() {
        if at > 0 {
            body.push(',');
        }
        body.push_str(item.json());
    }
    body.push(']');
    if let Some(next) = next {
        body.extend([",\"next\":\"", &query::cursor(next), "\""]);
    }
    body.push('}');
    let body = Bytes::from(body);
    app.cache.put(&version, key, &body);
    cache::found(&version, JSON, body)
}

/// `GET /api/milestones/{id}`: the item of one milestone, by its id.
pub async fn one(State(app): State<Arc<App>>, id: Result<Path<String>, PathRejection>) -> Response {
    let Ok(Path(id)) = id else {
        return answer::refused(StatusCode::BAD_REQUEST, "the id is no percent-encoded UTF-8");
    };
    match find_one(&app, id).await {
        Ok(Some(item)) => {
            let mut body = String::from("{\"ok\":true,\"item\":");
            body.push_str(item.json());
            body.push('}');
            answer::with_type(StatusCode::OK, JSON, body)
        }
        Ok(None) => answer::refused(StatusCode::NOT_FOUND, "there is no milestone with this id"),
        Err(error) => cannot_read(&app, &error),
    }
}

/// The milestone with this id.
pub async fn find_one(app: &App, id: String) -> milepost::Result<Option<Item>> {
    match app.store.find(id).await? {
        Some(offset) => app.feed.at(offset).await,
        None => Ok(None),
    }
}

/// `GET /api/milestones/dead-letter`
pub async fn dead_letters(
    State(app): State<Arc<App>>,
    Extension(door): Extension<Door>,
    headers: HeaderMap,
) -> Response {
    if !is_operator(&app.site, door, &headers) {
        return not_public();
    }
    let (items, count) = app.dead_letters.last();
    answer::json(StatusCode::OK, &Letters { ok: true, items, count })
}

/// The answer of [`dead_letters`].
#[derive(Serialize)]
struct Letters {
    ok: bool,
    items: Vec<DeadLetter>,
    count: u64,
}

/// `GET /healthz`: 503 while nothing can be stored. Being asked, it has the store looked at: the next answer tells.
pub async fn health(
    State(app): State<Arc<App>>,
    Extension(door): Extension<Door>,
    headers: HeaderMap,
) -> Response {
    if app.store.is_well() {
        let (seq, _) = app.feed.head();
        let is_operator = is_operator(&app.site, door, &headers);
        answer::json(
            StatusCode::OK,
            &if is_operator { json!({ "ok": true, "seq": seq }) } else { json!({ "ok": true }) },
        )
    } else {
        app.store.probe();
        answer::unavailable("the last batch could not be stored")
    }
}

/// `GET /metrics`
pub async fn metrics(
    State(app): State<Arc<App>>,
    Extension(door): Extension<Door>,
    headers: HeaderMap,
) -> Response {
    if !is_operator(&app.site, door, &headers) {
        return not_public();
    }
    let (seq, _) = app.feed.head();
    let (_, dead_letters) = app.dead_letters.last();
    let page = app.metrics.page(seq, app.feed.bytes(), dead_letters, app.store.is_well());
    answer::with_type(StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8", page)
}

/// The feed cannot be read: said to the operator in full, to the reader in brief.
pub fn cannot_read(app: &App, error: &milepost::Error) -> Response {
    app.messages.error(error);
    answer::unavailable("the feed cannot be read at the moment")
}

fn not_public() -> Response {
    answer::refused(
        StatusCode::FORBIDDEN,
        "served only to the operator: at --admin-listen, or on a loopback address without a proxy",
    )
}
