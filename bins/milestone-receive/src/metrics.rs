//! What the receiver counts, and the page for Prometheus.
//!
//! # Invariants
//! - Labels come from fixed lists: nobody's request can add a series.
//!
//! Not here: who may read it (`reads`).

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicI64, AtomicU64, Ordering::Relaxed},
    },
};

use milepost::{
    Timestamp,
    signing::{Reason, Which},
};

/// Counters since the start.
#[derive(Debug)]
pub struct Metrics {
    started: Timestamp,
    requests: Mutex<BTreeMap<Counted, u64>>,
    by_current: AtomicU64,
    by_previous: AtomicU64,
    legacy: AtomicU64,
    batch_requests: AtomicU64,
    batches: AtomicU64,
    batched: AtomicU64,
    /// Open connections.
    pub connections: Gauge,
    /// Open streams.
    pub streams: Gauge,
}

/// How an ingest request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Counted {
    route: &'static str,
    outcome: &'static str,
    reason: &'static str,
}

impl Counted {
    fn unauthenticated(reason: &'static str) -> Counted {
        Counted { route: "milestones", outcome: "unauthenticated", reason }
    }
}

impl Metrics {
    /// Counters at zero.
    pub fn new(started: Timestamp) -> Metrics {
        Metrics {
            started,
            // A rate can be told of what began at zero.
            requests: Mutex::new(
                Reason::ALL.iter().map(|it| (Counted::unauthenticated(it.code()), 0)).collect(),
            ),
            by_current: AtomicU64::new(0),
            by_previous: AtomicU64::new(0),
            legacy: AtomicU64::new(0),
            batch_requests: AtomicU64::new(0),
            batches: AtomicU64::new(0),
            batched: AtomicU64::new(0),
            connections: Gauge::default(),
            streams: Gauge::default(),
        }
    }

    /// Counts an ingest request; `reason` is empty when it was taken.
    pub fn request(&self, route: &'static str, outcome: &'static str, reason: &'static str) {
        self.items(route, outcome, reason, 1);
    }

    /// Counts so many items of a batch that came to the same.
    pub fn items(&self, route: &'static str, outcome: &'static str, reason: &'static str, count: usize) {
        let mut requests = self.requests.lock().unwrap_or_else(PoisonError::into_inner);
        *requests.entry(Counted { route, outcome, reason }).or_default() += count as u64;
    }

    /// Counts an authentic request. While any needs the previous secret, it may not be taken away; while any
    /// comes without Standard Webhooks, the receiver may not become strict.
    pub fn authentic(&self, by: Which, is_legacy: bool) {
        let counter = if by == Which::Current { &self.by_current } else { &self.by_previous };
        counter.fetch_add(1, Relaxed);
        if is_legacy {
            self.legacy.fetch_add(1, Relaxed);
        }
    }

    /// Counts a request that brought a batch.
    pub fn batch_request(&self) {
        self.batch_requests.fetch_add(1, Relaxed);
    }

    /// Counts so many items that the store took together.
    pub fn batch(&self, requests: usize) {
        self.batches.fetch_add(1, Relaxed);
        self.batched.fetch_add(requests as u64, Relaxed);
    }

    /// The page, in Prometheus's text format.
    pub fn page(&self, feed_seq: u64, feed_bytes: u64, dead_letters: u64, store_is_well: bool) -> String {
        let mut page = String::with_capacity(2048);
        let mut family = |name: &str, kind: &str, help: &str, samples: &[(String, String)]| {
            let _ = writeln!(page, "# HELP milepost_receive_{name} {help}");
            let _ = writeln!(page, "# TYPE milepost_receive_{name} {kind}");
            for (labels, value) in samples {
                let _ = writeln!(page, "milepost_receive_{name}{labels} {value}");
            }
        };
        let one = |value: u64| [(String::new(), value.to_string())];
        let requests = self.requests.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let requests: Vec<_> = requests
            .iter()
            .map(|(it, count)| {
                let Counted { route, outcome, reason } = it;
                let labels = format!("{{route=\"{route}\",outcome=\"{outcome}\",reason=\"{reason}\"}}");
                (labels, count.to_string())
            })
            .collect();
        let started = self.started.unix_seconds().to_string();
        family("start_time_seconds", "gauge", "When this process started.", &[(String::new(), started)]);
        family(
            "ingest_requests_total",
            "counter",
            "Ingest requests and items of batches by outcome, and by reason where they were not taken.",
            &requests,
        );
        let by_secret = [("current", &self.by_current), ("previous", &self.by_previous)]
            .map(|(name, count)| (format!("{{secret=\"{name}\"}}"), count.load(Relaxed).to_string()));
        family(
            "ingest_by_secret_total",
            "counter",
            "Authentic requests by the secret they were signed with; a rotation is over when none needs the previous one.",
            &by_secret,
        );
        family(
            "ingest_legacy_total",
            "counter",
            "Authentic requests without Standard Webhooks; while there are any, --strict would refuse them.",
            &one(self.legacy.load(Relaxed)),
        );
        family(
            "ingest_batches_total",
            "counter",
            "Requests that brought a batch; its items are counted one by one.",
            &one(self.batch_requests.load(Relaxed)),
        );
        family(
            "store_batches_total",
            "counter",
            "Batches appended, each with one sync.",
            &one(self.batches.load(Relaxed)),
        );
        family(
            "store_batched_requests_total",
            "counter",
            "Items in those batches.",
            &one(self.batched.load(Relaxed)),
        );
        family("store_ok", "gauge", "Whether the last batch could be stored.", &one(store_is_well.into()));
        family("feed_milestones", "gauge", "Milestones in the feed.", &one(feed_seq));
        family("feed_bytes", "gauge", "Bytes of the feed's journal.", &one(feed_bytes));
        family("dead_letters", "gauge", "Refused requests that were authentic.", &one(dead_letters));
        family("connections", "gauge", "Open connections.", &one(self.connections.get()));
        family("streams", "gauge", "Open streams.", &one(self.streams.get()));
        page
    }
}

/// A number that goes up and down with those who hold a [`Held`].
#[derive(Debug, Default)]
pub struct Gauge(AtomicI64);

/// Counts one for as long as it lives.
#[derive(Debug)]
pub struct Held<'a>(&'a Gauge);

impl Gauge {
    /// Counts one more until what is returned is dropped.
    pub fn hold(&self) -> Held<'_> {
        self.0.fetch_add(1, Relaxed);
        Held(self)
    }

    fn get(&self) -> u64 {
        u64::try_from(self.0.load(Relaxed)).unwrap_or(0)
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Relaxed);
    }
}
