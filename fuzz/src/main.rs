//! Foreign bytes for every parser, guided by coverage (libFuzzer); `scripts/fuzz` builds and runs it.
//!
//! One program with all targets. `MILEPOST_FUZZ` names the one that runs; `list` prints them all, a line each.
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
mod oracle;
mod position;
mod scratch;
mod secret;
mod seeds;
mod signature;
mod words;

use std::{
    env, fs,
    io::{Write as _, stdout},
    path::Path,
    process::exit,
    sync::OnceLock,
};

/// One parser, or some that belong together.
struct Target {
    name: &'static str,
    /// Tries one input; panics when a property does not hold.
    run: fn(&[u8]),
    /// Inputs to begin with.
    seeds: fn() -> Vec<Vec<u8>>,
    /// How many inputs are tried where time is short: some seconds of one processor.
    runs: u32,
    /// The longest input in bytes.
    bytes_max: u32,
}

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

static CHOSEN: OnceLock<&Target> = OnceLock::new();

libfuzzer_sys::fuzz_target!(init: choose(), |input: &[u8]| {
    if let Some(target) = CHOSEN.get() {
        (target.run)(input);
    }
});

/// Finds out which target this process is for.
fn choose() {
    let name = env::var("MILEPOST_FUZZ").unwrap_or_default();
    if name == "list" {
        for Target { name, runs, bytes_max, .. } in TARGETS {
            writeln!(stdout(), "{name} {runs} {bytes_max}").expect("standard output is open");
        }
        exit(0);
    }
    let target = TARGETS.iter().find(|it| it.name == name);
    let target = target.unwrap_or_else(|| panic!("MILEPOST_FUZZ names no target: {name:?}"));
    if let Ok(folder) = env::var("MILEPOST_FUZZ_SEEDS") {
        for (number, seed) in (target.seeds)().iter().enumerate() {
            fs::write(Path::new(&folder).join(format!("seed{number}")), seed).expect("seeds can be written");
        }
        exit(0);
    }
    CHOSEN.get_or_init(|| target);
}
