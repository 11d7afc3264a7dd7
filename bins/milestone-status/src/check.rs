//! The conservation check for people: a table of what every event came to, and what is wrong.
//!
//! # Invariants
//! - What came from outside (ids) cannot play tricks on a terminal.
//!
//! Not here: the check itself (`milepost::conservation`).

use std::fmt::Write as _;

use milepost::{
    conservation::{Balance, Finding, QueueBalance, Report, Status},
    text::{for_people, quoted},
};

use crate::show::{BAD, GOOD, MAY_PASS, Screen, table};

/// The whole report.
pub fn text(report: &Report, screen: Screen) -> String {
    let word = match report.status {
        Status::Holds => screen.text("holds", Some(GOOD)),
        Status::Broken => screen.text("broken", Some(BAD)),
    };
    let records: u64 = report.journals.iter().map(|it| it.records).sum();
    let count = report.journals.len();
    let mut out = format!(
        "{word}: {} ({records} {} in {count} {})\n",
        for_people(&report.logs),
        if records == 1 { "record" } else { "records" },
        if count == 1 { "journal" } else { "journals" },
    );
    let rows = report.queues.iter().flat_map(rows);
    let heading = [
        "QUEUE > ENDPOINT",
        "EMITTED",
        "=",
        "ACKNOWLEDGED",
        "PENDING",
        "DEAD",
        "DISCARDED",
        "PASSED OVER",
        "LOST",
    ];
    table(&mut out, heading, rows.collect(), screen, |column, cell| match (column, cell) {
        (_, "0") => None,
        (5, _) => Some(MAY_PASS),
        (8, _) => Some(BAD),
        _ => None,
    });
    for (at, finding) in report.findings.iter().enumerate() {
        let place = screen.text(&for_people(&place(finding)), Some(BAD));
        let gap = if at == 0 { "\n" } else { "" };
        let _ = writeln!(out, "{gap}{place}: {}\n    {}", for_people(&finding.message), finding.cure);
    }
    if report.omitted > 0 {
        let _ = writeln!(out, "and {} more like these", report.omitted);
    }
    out
}

fn rows(queue: &QueueBalance) -> impl Iterator<Item = [String; 9]> {
    queue.endpoints.iter().map(|it| {
        let Balance {
            endpoint,
            emitted,
            acknowledged,
            pending,
            dead_lettered,
            discarded,
            passed_over,
            lost,
            ..
        } = it;
        let endpoint = if endpoint.is_empty() { "endpoint" } else { endpoint };
        let name = for_people(&format!("{} > {endpoint}", queue.queue)).into_owned();
        let [emitted, acknowledged, pending, dead, discarded, passed_over, lost] =
            [emitted, acknowledged, pending, dead_lettered, discarded, passed_over, lost].map(u64::to_string);
        [name, emitted, "=".to_owned(), acknowledged, pending, dead, discarded, passed_over, lost]
    })
}

/// Where a finding is, and which event it is about.
fn place(finding: &Finding) -> String {
    let mut place = finding.file.clone();
    if let Some(line) = finding.line {
        let _ = write!(place, ":{line}");
    }
    if let Some(offset) = finding.offset {
        let _ = write!(place, " (offset {offset})");
    }
    if let Some(id) = finding.id.as_deref().filter(|it| !it.is_empty()) {
        let _ = write!(place, ": {}", quoted(id));
    }
    if let Some(endpoint) = finding.endpoint.as_deref().filter(|it| !it.is_empty()) {
        let _ = write!(place, " for {endpoint}");
    }
    place
}
