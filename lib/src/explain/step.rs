//! An audit record as a step of an event's life, in words for people.
//!
//! Not here: the order of the steps (`trace`).

use super::{
    Step,
    trace::{Audited, file_of},
};
use crate::{journal::JournalName, logs::Logs, text::quoted};

/// An audit record in words.
pub(super) fn step(logs: &Logs, it: &Audited) -> Step {
    let place = match (it.text("journal"), it.number("offset")) {
        (Some(journal), Some(offset)) => Some((journal, offset)),
        _ => it.text("queue").zip(it.number("queueOffset")),
    };
    let file = place.map(|(name, offset)| file_of(logs, &JournalName::internal(name), offset));
    Step {
        at_utc: it.timestamp,
        tool: Some(it.tool.clone()),
        action: it.action.clone(),
        outcome: it.outcome.clone(),
        endpoint: it.text("endpoint").map(str::to_owned),
        what: words(it),
        file,
        offset: place.map(|(_, offset)| offset),
        audit_offset: Some(it.offset),
    }
}

fn words(it: &Audited) -> String {
    let said = || {
        let status = it.number("status").map_or(String::new(), |it| format!("HTTP {it} "));
        let answer = it.text("answer").filter(|it| !it.is_empty()).or(it.text("reason")).unwrap_or_default();
        format!("{status}{answer}")
    };
    let due = || it.text("due").map_or(String::new(), |it| format!("; next not before {it}"));
    match (it.action.as_str(), it.outcome.as_str()) {
        ("emit", "appended") => "emitted".to_owned(),
        ("emit", "duplicate") => "emitted again: a duplicate, nothing changed".to_owned(),
        ("emit", "conflict") => "emitted again with other content: refused".to_owned(),
        ("remind", "reminded") => "a reminder was due".to_owned(),
        ("enqueue", "duplicate") => "met again in the source, passed over".to_owned(),
        ("deliver", "acknowledged") => {
            let receipt = it.detail["receipt"]["seq"].as_u64();
            let receipt = receipt.map_or(String::new(), |it| format!(", receipt: seq {it}"));
            format!("acknowledged as {}{receipt}", it.text("reason").unwrap_or_default())
        }
        ("deliver", "retried") if it.detail["probe"] == true => format!("probe failed: {}{}", said(), due()),
        ("deliver", "retried") => {
            format!("try {} failed: {}{}", it.number("tries").unwrap_or_default(), said(), due())
        }
        ("deliver", "dead-lettered") => format!("given up: {}", said()),
        ("deliver", "quarantined") => format!("no valid record, passed over: {}", said()),
        ("redrive", "queued") => "put back into the queue".to_owned(),
        ("resend", "queued") => "sent again by an operator".to_owned(),
        ("discard", _) => {
            format!("closed by an operator: {}", quoted(it.text("reason").unwrap_or_default()))
        }
        ("receive", "appended") => {
            format!("received here as seq {}", it.number("seq").unwrap_or_default())
        }
        ("receive", "duplicate") => "received here again: known already".to_owned(),
        ("receive", "conflict") => "refused here: its id has another content".to_owned(),
        ("receive", "rejected") => {
            format!("refused here: {}", it.text("reason").unwrap_or_default())
        }
        ("settle", "recovered") => "left by a killed writer, found whole and kept".to_owned(),
        (action, outcome) => format!("{action}: {outcome}"),
    }
}
