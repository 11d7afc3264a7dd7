//! What every request handler shares.

use std::sync::{Arc, PoisonError, RwLock};

use milepost::{cli::Messages, signing::Verifier};
use tokio::sync::{Semaphore, watch};

use crate::{
    cache::Cache, dead_letters::DeadLetters, feed::Feed, metrics::Metrics, peers::Peers, store::Store,
    syndication::PullFeed,
};

/// The receiver, as its request handlers see it.
pub struct App {
    /// Judges signatures; replaced whole when the secrets are read again.
    pub verifier: RwLock<Arc<Verifier>>,
    /// Where everything authentic goes.
    pub store: Store,
    /// What readers get.
    pub feed: Arc<Feed>,
    /// Answers that were made already.
    pub cache: Cache,
    /// Signs what apps pull, where the operator wants that.
    pub pull_feed: Option<PullFeed>,
    /// What was refused.
    pub dead_letters: Arc<DeadLetters>,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// Words for the operator.
    pub messages: Messages,
    /// Whom it answers, and what it shows.
    pub site: Site,
    /// Memory for large bodies, in bytes.
    pub large_bodies: Arc<Semaphore>,
    /// Streams that may still be opened.
    pub streams: Arc<Semaphore>,
    /// Streams by peer.
    pub stream_peers: Arc<Peers>,
    /// True once the process is asked to end.
    pub stop: watch::Receiver<bool>,
}

impl App {
    /// The present judge of signatures: one request asks one, whatever is read again meanwhile.
    pub fn verifier(&self) -> Arc<Verifier> {
        Arc::clone(&self.verifier.read().unwrap_or_else(PoisonError::into_inner))
    }
}

/// How the receiver stands in its network.
#[derive(Clone, Debug)]
pub struct Site {
    /// Whether the operator has a door of its own, and is served nowhere else.
    pub has_admin_door: bool,
    /// Names under which a reverse proxy offers it, lower case, without port.
    pub public_hosts: Vec<String>,
    /// The origin whose pages may read the feed, or `*`.
    pub cors: Option<String>,
}
