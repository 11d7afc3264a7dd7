//! One page for Prometheus about everything in a logs folder; `docs/METRICS.md` says what each name means.
//!
//! # Invariants
//! - Names, types and labels are a promise: `docs/METRICS.md` lists them, and a test compares.
//! - What a page costs does not grow with history (`look`, `chains`).
//! - Labels are names of files, endpoints, tools and words of the audit: no event and no stranger adds a series.
//!
//! Not here: what milestone-receive counts itself (its own `/metrics`).

use std::fmt::Write as _;

use milepost::{Error, Result, Timestamp, clock, durable, journal::Journal, lock::Lock, logs::Logs};
use serde::Serialize;

use crate::{
    chains::Chains,
    look::{self, Answer, EndpointStatus, Level, Limits, QueueStatus},
};

/// Where the page is put, for a textfile collector.
const FILE: &str = "metrics/milepost.prom";
/// Held while a page is made, since each goes on from the one before.
const LOCK: &str = "status@metrics";

/// The result of `--metrics`.
#[derive(Debug, Serialize)]
pub struct Written {
    pub status: &'static str,
    pub file: String,
}

/// Makes the page and replaces the file by it; [`None`] when another process is just doing so.
pub fn write(logs: &Logs) -> Result<Option<Written>> {
    let Some(_lock) = Lock::try_acquire(logs, LOCK)? else { return Ok(None) };
    let page = page(logs)?;
    let path = logs.place(FILE)?;
    durable::replace(logs.disk(), &path, page.as_bytes())
        .map_err(|it| Error::io("cannot write the metrics", &path, it))?;
    Ok(Some(Written { status: "ok", file: path.display().to_string() }))
}

/// The page, for standard output.
pub fn print(logs: &Logs) -> Result<String> {
    let _lock = Lock::acquire(logs, LOCK)?;
    page(logs)
}

fn page(logs: &Logs) -> Result<String> {
    let now = clock::now();
    let mut chains = Chains::load(logs)?;
    let journals: Vec<Journal> = look::journals(logs)?;
    let looked = chains.look(&journals, now)?;
    chains.save(logs)?;
    let answer = Answer::of(logs, Limits::default());
    let disk = rustix::fs::statvfs(logs.dir())
        .map_err(|it| Error::io("cannot look at the file system", logs.dir(), it.into()))?;

    let mut page = Page::default();
    page.gauge("status", "How all of it is: 0 healthy, 1 warning, 2 critical, 3 unknown.");
    page.one(u64::from(answer.status.exit_code()));
    page.gauge("problems", "What milestone-status tells of, by its gravity.");
    for level in [Level::Warning, Level::Critical, Level::Unknown] {
        let count = answer.problems.iter().filter(|it| it.level == level).count() as u64;
        page.sample(&[("level", level.as_str())], count);
    }
    page.gauge("look_timestamp_seconds", "When this page was made.");
    page.time(&[], now);
    page.gauge("disk_size_bytes", "Size of the file system that the logs folder is on.");
    page.one(disk.f_blocks * disk.f_frsize);
    page.gauge("disk_available_bytes", "What is left on it for who is not root.");
    page.one(disk.f_bavail * disk.f_frsize);
    page.gauge("quarantine_files", "Files with bytes that were no record.");
    page.one(answer.quarantined);

    page.counter("journal_bytes_total", "Bytes of a journal since it began, across rotations.");
    for it in &answer.journals {
        page.sample(&[("journal", &it.journal)], it.bytes);
    }
    page.gauge("journal_last_record_timestamp_seconds", "When the last record of a journal was written.");
    for it in &answer.journals {
        page.time(&[("journal", &it.journal)], it.last_record_utc);
    }
    page.counter("chain_records_total", "Records of a hash chain.");
    for it in &looked {
        page.sample(&[("journal", &it.journal)], it.records);
    }
    page.gauge("chain_intact", "Whether no break of a hash chain is known.");
    for it in &looked {
        page.sample(&[("journal", &it.journal)], u64::from(it.is_intact));
    }
    page.gauge("chain_verified_timestamp_seconds", "When the last round through all of a hash chain ended.");
    for it in &looked {
        page.time(&[("journal", &it.journal)], it.verified_utc);
    }
    page.counter("audit_records_total", "What the audit tells of.");
    for ([tool, action, outcome], count) in chains.counts() {
        page.sample(&[("tool", tool), ("action", action), ("outcome", outcome)], count);
    }
    queues(&mut page, &answer.queues);
    endpoints(&mut page, &answer.queues);
    Ok(page.text)
}

fn queues(page: &mut Page, queues: &[QueueStatus]) {
    let with_source = || queues.iter().filter(|it| it.source.is_some());
    page.gauge("queue_behind_bytes", "Bytes of its source that are not in a queue yet.");
    for it in with_source() {
        page.sample(&[("queue", &it.queue)], it.waiting.behind_bytes);
    }
    page.gauge("queue_oldest_waiting_timestamp_seconds", "When the oldest record of them was written.");
    for it in with_source() {
        page.time(&[("queue", &it.queue)], it.waiting.oldest_waiting_utc);
    }
}

fn endpoints(page: &mut Page, queues: &[QueueStatus]) {
    let all: Vec<([(&str, &str); 2], &EndpointStatus)> = queues
        .iter()
        .flat_map(|queue| queue.endpoints.iter().map(move |it| (queue, it)))
        .map(|(queue, it)| ([("queue", queue.queue.as_str()), ("endpoint", it.endpoint.as_str())], it))
        .collect();
    let mut gauge = |name: &str, help: &str, value: &dyn Fn(&EndpointStatus) -> Option<u64>| {
        page.gauge(name, help);
        for (labels, it) in &all {
            if let Some(value) = value(it) {
                page.sample(labels, value);
            }
        }
    };
    gauge("endpoint_pending", "Whether anything in the queue is not settled.", &|it| {
        Some(it.more.is_pending.into())
    });
    gauge("endpoint_behind_bytes", "Bytes of the queue behind the cursor.", &|it| {
        Some(it.waiting.behind_bytes)
    });
    gauge("endpoint_retries", "Records that failed and will be tried again.", &|it| Some(it.retries as u64));
    gauge("endpoint_dead_letters", "Dead letters that are neither put back nor discarded.", &|it| {
        Some(it.dead_letters)
    });
    gauge("endpoint_breaker_open", "Whether the circuit breaker is open.", &|it| {
        Some(it.breaker.is_open().into())
    });
    gauge(
        "endpoint_held",
        "Whether delivery is held, by the operator or since the endpoint is gone.",
        &|it| Some(it.breaker.is_held().into()),
    );
    gauge("endpoint_previous_secret", "Whether the last answer came only for the previous secret.", &|it| {
        Some(it.more.takes_previous_secret.into())
    });
    page.counter("endpoint_acknowledged_total", "Acknowledgements.");
    for (labels, it) in &all {
        page.sample(labels, it.more.acks);
    }
    page.gauge("endpoint_oldest_waiting_timestamp_seconds", "When the oldest record that waits was queued.");
    for (labels, it) in &all {
        page.time(labels, it.waiting.oldest_waiting_utc);
    }
    page.gauge("endpoint_last_acknowledged_timestamp_seconds", "When the last acknowledgement came.");
    for (labels, it) in &all {
        page.time(labels, it.last_ack_utc);
    }
    page.gauge(
        "endpoint_clock_ahead_seconds",
        "By how much the endpoint's clock was ahead at its last answer.",
    );
    for (labels, it) in &all {
        if let Some(clock) = it.more.clock {
            page.millis(labels, clock.ahead_ms);
        }
    }
}

/// A page that is being written: family by family, each with its samples.
#[derive(Debug, Default)]
struct Page {
    text: String,
    family: String,
}

impl Page {
    fn gauge(&mut self, name: &str, help: &str) {
        self.family(name, "gauge", help);
    }

    fn counter(&mut self, name: &str, help: &str) {
        self.family(name, "counter", help);
    }

    fn family(&mut self, name: &str, kind: &str, help: &str) {
        self.family = format!("milepost_{name}");
        let _ = write!(self.text, "# HELP {0} {help}\n# TYPE {0} {kind}\n", self.family);
    }

    /// The only sample of a family.
    fn one(&mut self, value: u64) {
        self.sample(&[], value);
    }

    fn sample(&mut self, labels: &[(&str, &str)], value: u64) {
        self.line(labels, &value.to_string());
    }

    /// A time, in seconds since 1970; nothing when there is none.
    fn time(&mut self, labels: &[(&str, &str)], at: impl Into<Option<Timestamp>>) {
        if let Some(at) = at.into() {
            self.millis(labels, at.millis());
        }
    }

    /// A number of milliseconds, in seconds.
    fn millis(&mut self, labels: &[(&str, &str)], millis: i64) {
        let sign = if millis < 0 { "-" } else { "" };
        let millis = millis.unsigned_abs();
        self.line(labels, &format!("{sign}{}.{:03}", millis / 1000, millis % 1000));
    }

    fn line(&mut self, labels: &[(&str, &str)], value: &str) {
        self.text.push_str(&self.family);
        for (at, (name, label)) in labels.iter().enumerate() {
            let _ = write!(self.text, "{}{name}=\"", if at == 0 { '{' } else { ',' });
            for it in label.chars() {
                match it {
                    '\\' | '"' => self.text.extend(['\\', it]),
                    '\n' => self.text.push_str("\\n"),
                    it => self.text.push(it),
                }
            }
            self.text.push('"');
        }
        let end = if labels.is_empty() { " " } else { "} " };
        self.text.extend([end, value, "\n"]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_cannot_leave_its_quotes_and_a_time_has_milliseconds() {
        let mut page = Page::default();
        page.gauge("x", "X.");
        page.sample(&[("a", "b\"} 1\n\\"), ("c", "")], 7);
        page.time(&[], Timestamp::from_millis(1_005));
        page.time(&[], None);
        page.millis(&[], -1_500);
        let lines: Vec<_> = page.text.lines().skip(2).collect();
        assert_eq!(lines, [r#"milepost_x{a="b\"} 1\n\\",c=""} 7"#, "milepost_x 1.005", "milepost_x -1.500"]);
    }
}
