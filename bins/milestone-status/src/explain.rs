//! One event's life for people: what happened, and what its next attempt hangs on.
//!
//! # Invariants
//! - What came from outside (keys, answers) cannot play tricks on a terminal.
//! - Times to come are relative to a time that is passed in, so the same life gives the same text.
//!
//! Not here: finding all this out (`milepost::explain`).

use std::{fmt::Write as _, time::Duration};

use milepost::{
    Timestamp,
    delivery::breaker::{Breaker, Cause, Gate},
    explain::{Delay, DelayBy, Delivery, Fate, Life, Next, Wait},
    text::{for_people, quoted},
};

use crate::show::{BAD, GOOD, MAY_PASS, Screen, ago, nothing, table};

/// The whole life.
pub fn text(life: &Life, now: Timestamp, screen: Screen) -> String {
    let scope = life.scope.as_deref().map_or(String::new(), |it| format!(", scope {}", for_people(it)));
    let mut out = format!("{}: trace {}{scope}\n", for_people(&life.idempotency_key), life.trace_id);
    let steps = life.steps.iter().map(|it| {
        let place = match (&it.file, it.offset) {
            (Some(file), Some(offset)) => format!("{file} at {offset}"),
            _ => nothing(),
        };
        let to = it.endpoint.as_deref().filter(|it| !it.is_empty());
        let what = to.map_or(it.what.clone(), |to| format!("{to}: {}", it.what));
        let at = it.at_utc.map_or_else(nothing, |it| it.to_string());
        [
            at,
            for_people(it.tool.as_deref().unwrap_or("-")).into_owned(),
            place,
            for_people(&what).into_owned(),
        ]
    });
    table(&mut out, ["WHEN", "TOOL", "RECORD", "WHAT"], steps.collect(), screen, |_, _| None);
    for delivery in &life.deliveries {
        tell(&mut out, delivery, now, screen);
    }
    out
}

fn tell(out: &mut String, delivery: &Delivery, now: Timestamp, screen: Screen) {
    let endpoint = if delivery.endpoint.is_empty() { "endpoint" } else { &delivery.endpoint };
    let url = delivery.url.as_deref().map_or(String::new(), |it| format!(" ({it})"));
    let (fate, colour) = match delivery.fate {
        Fate::Acknowledged => ("acknowledged", GOOD),
        Fate::Pending => ("pending", MAY_PASS),
        Fate::DeadLettered => ("given up; milestone-queue --redrive puts it back", BAD),
        Fate::Discarded => ("given up, and closed by an operator", MAY_PASS),
        Fate::PassedOver => ("passed over: the deliverer was set to a place behind it", MAY_PASS),
    };
    let when = delivery.settled_utc.map_or(String::new(), |it| format!(", {}", ago(it, now)));
    let to = format!("{} > {endpoint}{url}", delivery.queue);
    let _ = writeln!(out, "\n{}: {}{when}", for_people(&to), screen.text(fate, Some(colour)));
    let Some(next) = &delivery.next else { return };
    for (name, value) in inputs(next, now) {
        let _ = writeln!(out, "  {name:13}{}", for_people(&value));
    }
}

/// Every input to the next attempt, with its name.
fn inputs(next: &Next, now: Timestamp) -> Vec<(&'static str, String)> {
    let mut inputs: Vec<(&'static str, String)> = Vec::new();
    for (at, wait) in next.waits_for.iter().enumerate() {
        inputs.push((if at == 0 { "waits for" } else { "" }, wait_in_words(*wait, next, now)));
    }
    if next.waits_for == [Wait::Queue] {
        return inputs;
    }
    let at = |it: Timestamp| format!("{it} ({})", ago(it, now));
    if let Some(due) = next.due_utc {
        inputs.push(("due", at(due)));
    }
    if next.tries == 0 && next.last_try_utc.is_none() {
        inputs.push(("attempts", format!("none yet; at most {}", next.attempts_max)));
    } else {
        let tries = if next.tries == 1 { "1 try".to_owned() } else { format!("{} tries", next.tries) };
        let mut used = format!("{} of {} used, {tries}", next.attempts, next.attempts_max);
        if let Some(first) = next.first_try_utc {
            let _ = write!(used, ", the first {}", ago(first, now));
        }
        if next.own_fault {
            used.push_str("; others pass meanwhile, so each failure counts");
        }
        inputs.push(("attempts", used));
    }
    if let Some(too_old) = next.too_old_utc {
        inputs.push(("given up", format!("by an attempt that fails after {}", at(too_old))));
    }
    if let Some(reason) = &next.last_reason {
        let status = next.last_status.map_or(String::new(), |it| format!("HTTP {it}, "));
        let answer = next.last_answer.as_deref().map_or(String::new(), |it| format!(": {}", quoted(it)));
        let when = next.last_try_utc.map_or(String::new(), |it| format!(", {}", ago(it, now)));
        inputs.push(("last answer", format!("{status}{reason}{answer}{when}")));
    }
    if let Some(delay) = &next.delay {
        inputs.push(("delay", delay_in_words(delay)));
    }
    inputs.push(("breaker", breaker_in_words(&next.breaker, now)));
    if next.lanes > 0 {
        let waiting = count(next.lanes as u64, "scope");
        inputs.push(("waiting", format!("{waiting} with a retry; at 10000 nothing new is sent")));
    }
    inputs
}

fn wait_in_words(wait: Wait, next: &Next, now: Timestamp) -> String {
    let breaker = &next.breaker;
    match wait {
        Wait::Queue => "milestone-queue: it is emitted and not in the queue yet".to_owned(),
        Wait::Release => {
            let who = match breaker.cause {
                Some(Cause::Gone) => "the endpoint wants no more",
                _ => "an operator holds it",
            };
            format!("milestone-deliver --release: {who} ({})", breaker.reason)
        }
        Wait::Breaker => {
            let probe = breaker.due_utc.map_or(String::new(), |it| format!("; next probe {}", ago(it, now)));
            format!("the breaker ({}){probe}", breaker.reason)
        }
        Wait::Scope => match &next.blocked_by {
            Some(it) => {
                let key = it.idempotency_key.as_deref().map_or_else(|| "the one before it".into(), quoted);
                let due = it.due_utc.map_or(String::new(), |it| format!(", due {}", ago(it, now)));
                format!("{key} of its scope, at {} in the queue{due}", it.queue_offset)
            }
            None => "another one of its scope".to_owned(),
        },
        Wait::Backoff => "its own next attempt".to_owned(),
        Wait::Pause => "room: 10000 scopes wait, and nothing new is sent until one is settled".to_owned(),
        Wait::Turn => {
            let records = next.behind_records;
            format!(
                "its turn: {records} {} in the queue before it",
                if records == 1 { "record is" } else { "records are" }
            )
        }
        Wait::Deliverer => "nothing: milestone-deliver sends it when it runs".to_owned(),
    }
}

fn delay_in_words(delay: &Delay) -> String {
    let [total, scheduled, jitter] = [delay.delay_ms, delay.scheduled_ms, delay.jitter_ms].map(long);
    let of = quoted(&delay.jitter_of);
    match delay.by {
        DelayBy::Default => format!("{total} = {scheduled} by the schedule + {jitter} jitter, from {of}"),
        DelayBy::Flags => {
            format!("{total} = {scheduled} by the schedule that flags have set + {jitter} jitter, from {of}")
        }
        DelayBy::Server => {
            format!(
                "{total}, as the endpoint asked; the schedule says {scheduled} + {jitter} jitter, from {of}"
            )
        }
    }
}

fn breaker_in_words(breaker: &Breaker, now: Timestamp) -> String {
    let since = breaker.since_utc.map_or(String::new(), |it| format!(" since {}", ago(it, now)));
    match breaker.state {
        Gate::Closed if breaker.endpoint_faults > 0 => {
            let faults = count(u64::from(breaker.endpoint_faults), "fault");
            format!("closed; {faults} of the endpoint in a row, at 5 it opens")
        }
        Gate::Closed => "closed".to_owned(),
        Gate::Open => {
            let probes = count(u64::from(breaker.probes), "probe");
            format!("open{since}, {probes} failed: {}", breaker.reason)
        }
        Gate::Held => format!("held{since}: {}", breaker.reason),
    }
}

fn count(number: u64, what: &str) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}

/// A length in its two largest units.
fn long(millis: u64) -> String {
    let length = Duration::from_millis(millis);
    match length.as_secs() {
        0..60 => format!("{}.{:03} s", length.as_secs(), length.subsec_millis()),
        seconds @ 60..3_600 => format!("{} min {} s", seconds / 60, seconds % 60),
        seconds => format!("{} h {} min", seconds / 3_600, seconds % 3_600 / 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_told_in_two_units() {
        assert_eq!(
            [0, 5_432, 80_000, 7_260_000].map(long),
            ["0.000 s", "5.432 s", "1 min 20 s", "2 h 1 min"]
        );
    }
}
