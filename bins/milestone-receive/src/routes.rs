//! Which paths there are, and what answers the others.

use std::sync::Arc;

use axum::{
    Router,
    http::StatusCode,
    middleware,
    response::Response,
    routing::{get, post},
};
use milepost::ingest::{EVENTS_PATH, MILESTONES_PATH, batch};

use crate::{answer, app::App, ingest, openapi, page, reads, site, stream, syndication};

/// The receiver's paths.
pub fn router(app: Arc<App>) -> Router {
    Router::new()
        .route(MILESTONES_PATH, post(ingest::milestones))
        .route(EVENTS_PATH, post(ingest::events))
        .route(batch::MILESTONES_PATH, post(ingest::milestones_batch))
        .route(batch::EVENTS_PATH, post(ingest::events_batch))
        .route("/api/milestones/latest", get(reads::latest))
        .route("/api/milestones/dead-letter", get(reads::dead_letters))
        .route("/api/milestones/stream", get(stream::stream))
        .route("/api/milestones/{id}", get(reads::one))
        .route("/feed.json", get(syndication::json_feed))
        .route("/feed.atom", get(syndication::atom))
        .route("/milestones-feed.json", get(syndication::pulled))
        .route("/openapi.json", get(openapi::openapi))
        .route("/healthz", get(reads::health))
        .route("/metrics", get(reads::metrics))
        .route("/", get(page::page))
        .route("/app.css", get(page::style))
        .route("/app.js", get(page::script))
        .route("/icon.svg", get(page::icon))
        .fallback(no_such_path)
        .method_not_allowed_fallback(other_method)
        .layer(middleware::from_fn_with_state(Arc::clone(&app), site::guard))
        .with_state(app)
}

async fn no_such_path() -> Response {
    answer::refused(StatusCode::NOT_FOUND, "there is nothing at this path")
}

/// axum adds `Allow` with the methods that there are.
async fn other_method() -> Response {
    answer::refused(StatusCode::METHOD_NOT_ALLOWED, "this path knows other methods: see the Allow header")
}
