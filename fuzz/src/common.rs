//! What the programs of the fuzzers share: which target a process is for.

use std::{
    env, fs,
    io::{Write as _, stdout},
    path::Path,
    process::exit,
    sync::OnceLock,
};

/// One parser, or some that belong together.
pub struct Target {
    /// Its name on the command line.
    pub name: &'static str,
    /// Tries one input; panics when a property does not hold.
    pub run: fn(&[u8]),
    /// Inputs to begin with.
    pub seeds: fn() -> Vec<Vec<u8>>,
    /// How many inputs are tried where time is short: some seconds of one processor.
    pub runs: u32,
    /// The longest input in bytes.
    pub bytes_max: u32,
}

static CHOSEN: OnceLock<&Target> = OnceLock::new();

/// Finds out which target this process is for, or does what else it was started for.
pub fn choose(targets: &'static [Target]) {
    let name = env::var("MILEPOST_FUZZ").unwrap_or_default();
    if name == "list" {
        for Target { name, runs, bytes_max, .. } in targets {
            writeln!(stdout(), "{name} {runs} {bytes_max}").expect("standard output is open");
        }
        exit(0);
    }
    let target = targets.iter().find(|it| it.name == name);
    let target = target.unwrap_or_else(|| panic!("MILEPOST_FUZZ names no target: {name:?}"));
    if let Ok(folder) = env::var("MILEPOST_FUZZ_SEEDS") {
        for (number, seed) in (target.seeds)().iter().enumerate() {
            fs::write(Path::new(&folder).join(format!("seed{number}")), seed).expect("seeds can be written");
        }
        exit(0);
    }
    CHOSEN.get_or_init(|| target);
}

/// Tries one input on the chosen target.
pub fn run(input: &[u8]) {
    if let Some(target) = CHOSEN.get() {
        (target.run)(input);
    }
}
