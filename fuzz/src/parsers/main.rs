//! Foreign bytes for every parser, guided by coverage (libFuzzer); `scripts/fuzz` builds and runs it.
//!
//! One program with all targets but those of the receiver (`receive`). `MILEPOST_FUZZ` names the one that runs; `list` prints them all, a line each.
//! With `MILEPOST_FUZZ_SEEDS=DIR` its first inputs are written there, and nothing is run.
//!
//! # Invariants
//! - A target states properties, and panics when one is broken: "it does not crash" is the least of them.
//!   Where two of our own functions could be wrong in the same way, the property is stated without them
//!   (`oracle`).
//! - A target reads nothing but its input, and leaves nothing behind but in the scratch folder.
//!
//! Not here: what a program does with many processes, faults of the disk and power cuts (`scripts/torture`).
#![cfg_attr(not(test), no_main)]

mod answer;
mod delivery;
mod envelope;
mod event;
mod index;
mod journal;
mod json;
mod position;
mod secret;
mod signature;
mod words;

use milepost_fuzz::common::{self, Target};

const TARGETS: &[Target] = &[
    Target { name: "json", run: json::run, seeds: json::seeds, runs: 70_000, bytes_max: 2048 },
    Target { name: "event", run: event::run, seeds: event::seeds, runs: 35_000, bytes_max: 4096 },
    Target { name: "envelope", run: envelope::run, seeds: envelope::seeds, runs: 20_000, bytes_max: 4096 },
    Target { name: "delivery", run: delivery::run, seeds: delivery::seeds, runs: 30_000, bytes_max: 4096 },
    Target { name: "answer", run: answer::run, seeds: answer::seeds, runs: 70_000, bytes_max: 1024 },
    Target { name: "signature", run: signature::run, seeds: signature::seeds, runs: 60_000, bytes_max: 1024 },
    Target { name: "secret", run: secret::run, seeds: secret::seeds, runs: 60_000, bytes_max: 5000 },
    Target { name: "units", run: words::units, seeds: words::unit_seeds, runs: 300_000, bytes_max: 64 },
    Target { name: "time", run: words::time, seeds: words::time_seeds, runs: 300_000, bytes_max: 64 },
    Target {
        name: "evidence",
        run: words::evidence,
        seeds: words::evidence_seeds,
        runs: 90_000,
        bytes_max: 512,
    },
    Target {
        name: "redrive",
        run: words::redrive,
        seeds: words::redrive_seeds,
        runs: 90_000,
        bytes_max: 2048,
    },
    Target { name: "position", run: position::run, seeds: position::seeds, runs: 40_000, bytes_max: 512 },
    Target {
        name: "settle",
        run: journal::settle,
        seeds: journal::settle_seeds,
        runs: 8_000,
        bytes_max: 4096,
    },
    Target { name: "audit", run: journal::audit, seeds: journal::audit_seeds, runs: 8_000, bytes_max: 4096 },
    Target { name: "mark", run: journal::mark, seeds: journal::mark_seeds, runs: 8_000, bytes_max: 400 },
    Target { name: "index", run: index::run, seeds: index::seeds, runs: 4_000, bytes_max: 512 },
];

libfuzzer_sys::fuzz_target!(init: common::choose(TARGETS), |input: &[u8]| common::run(input));
