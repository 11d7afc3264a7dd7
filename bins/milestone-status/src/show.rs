//! The answer for people: aligned text.
//!
//! # Invariants
//! - What came from outside (addresses, reasons) cannot play tricks on a terminal.
//! - Ages are relative to a time that is passed in, so the same answer gives the same text.

use std::fmt::Write as _;

use milepost::{
    Timestamp,
    delivery::breaker::{Breaker, Gate},
    text::for_people,
};

use crate::look::{Answer, EndpointStatus, QueueStatus, Waiting};

/// The whole answer.
pub fn text(answer: &Answer, now: Timestamp) -> String {
    let mut out = format!("{}: {}\n", answer.status.as_str(), for_people(&answer.logs));
    let journals = answer.journals.iter().map(|it| {
        let last = it.last_record_utc.map_or_else(nothing, |at| ago(at, now));
        [it.journal.clone(), size(it.bytes), last]
    });
    table(&mut out, ["JOURNAL", "BYTES", "LAST RECORD"], journals.collect());
    let steps = answer.queues.iter().flat_map(|it| steps(it, now));
    table(&mut out, ["STEP", "BEHIND", "OLDEST WAITING", "LAST ACK", "RETRIES", "BREAKER"], steps.collect());
    for (at, problem) in answer.problems.iter().enumerate() {
        let gap = if at == 0 { "\n" } else { "" };
        let _ = writeln!(out, "{gap}{}: {}", problem.level.as_str(), for_people(&problem.message));
    }
    out
}

/// The steps into a queue and out of it.
fn steps(queue: &QueueStatus, now: Timestamp) -> Vec<[String; 6]> {
    let step = |name: String, waiting: &Waiting, more: [String; 3]| {
        let oldest = waiting.oldest_waiting_utc.map_or_else(nothing, |at| ago(at, now));
        let [ack, retries, breaker] = more;
        [name, size(waiting.behind_bytes), oldest, ack, retries, breaker]
    };
    let out_of = |it: &EndpointStatus| {
        let endpoint = if it.endpoint.is_empty() { "endpoint" } else { &it.endpoint };
        let ack = it.last_ack_utc.map_or_else(nothing, |at| ago(at, now));
        let more = [ack, it.retries.to_string(), gate(&it.breaker)];
        step(for_people(&format!("{} > {endpoint}", queue.queue)).into_owned(), &it.waiting, more)
    };
    let into = queue
        .source
        .iter()
        .map(|source| step(format!("{source} > queue"), &queue.waiting, [nothing(), nothing(), nothing()]));
    into.chain(queue.endpoints.iter().map(out_of)).collect()
}

/// Columns as wide as their widest cell; nothing without rows.
pub fn table<const N: usize>(out: &mut String, heading: [&str; N], rows: Vec<[String; N]>) {
    if rows.is_empty() {
        return;
    }
    let rows: Vec<[String; N]> = std::iter::once(heading.map(str::to_owned)).chain(rows).collect();
    let width = |column: usize| rows.iter().map(|it| it[column].chars().count()).max().unwrap_or_default();
    out.push('\n');
    for row in &rows {
        let mut line = String::new();
        for (column, cell) in row.iter().enumerate() {
            let _ = write!(line, "{cell:width$}  ", width = width(column));
        }
        let _ = writeln!(out, "{}", line.trim_end());
    }
}

fn gate(breaker: &Breaker) -> String {
    let word = match breaker.state {
        Gate::Closed => "closed",
        Gate::Open => "open",
        Gate::Held => "held",
    };
    word.to_owned()
}

pub fn nothing() -> String {
    "-".to_owned()
}

/// `512 B`, `1.4 KiB`: cut, not rounded.
fn size(bytes: u64) -> String {
    let units = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
    match units.iter().find(|(_, unit)| bytes >= *unit) {
        Some((name, unit)) => format!("{}.{} {name}", bytes / unit, bytes % unit * 10 / unit),
        None => format!("{bytes} B"),
    }
}

/// How long ago `at` was, in its largest unit.
pub fn ago(at: Timestamp, now: Timestamp) -> String {
    let (length, is_past) = if at <= now { (now.since(at), true) } else { (at.since(now), false) };
    let length = match length.as_secs() {
        seconds @ 0..60 => format!("{seconds} s"),
        seconds @ 60..3_600 => format!("{} min", seconds / 60),
        seconds @ 3_600..172_800 => format!("{} h", seconds / 3_600),
        seconds => format!("{} d", seconds / 86_400),
    };
    if is_past { format!("{length} ago") } else { format!("in {length}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_ages_are_cut_to_what_a_glance_takes_in() {
        assert_eq!(
            [0, 1023, 1024, 1535, 3 << 30].map(size),
            ["0 B", "1023 B", "1.0 KiB", "1.4 KiB", "3.0 GiB"]
        );
        let now = Timestamp::from_millis(1_000_000_000_000);
        let ages = [0, 59_999, 60_000, 7_200_000, 200_000_000, -90_000];
        let ages = ages.map(|it| ago(Timestamp::from_millis(now.millis() - it), now));
        assert_eq!(ages, ["0 s ago", "59 s ago", "1 min ago", "2 h ago", "2 d ago", "in 1 min"]);
    }

    #[test]
    fn columns_stand_under_their_headings() {
        let mut out = String::new();
        table(&mut out, ["A", "LONG"], vec![["long".into(), "é".into()], ["b".into(), "-".into()]]);
        assert_eq!(out, "\nA     LONG\nlong  é\nb     -\n");
    }
}
