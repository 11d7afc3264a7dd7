//! Losses, duplicates and changes, planted one at a time into copies of a rich folder. Each must be found, by name.

use std::{
    path::Path,
    sync::atomic::{AtomicUsize, Ordering::SeqCst},
    thread,
};

use milepost_testing::Scratch;

use crate::{
    by_design, by_hand,
    folder::{copy, emit, rich},
    report,
};

pub const MILESTONES: &str = "milestones";
pub const QUEUE: &str = "milestone-delivery-queue";
pub const LETTERS: &str = "milestone-delivery-deadletter";
pub const CONTROL: &str = "milestone-delivery-control";
pub const FEED: &str = "receive/feed";
pub const REJECTED: &str = "receive/rejected";

/// A damage, and what must be found of it: one of the kinds, in a file whose name begins so.
pub struct Plant {
    name: String,
    damage: Box<dyn Fn(&Path) + Send + Sync>,
    kinds: Vec<&'static str>,
    file: String,
}

/// A plant; without kinds, any kind will do.
pub fn plant(
    name: &str,
    kinds: &[&'static str],
    file: &str,
    damage: impl Fn(&Path) + Send + Sync + 'static,
) -> Plant {
    Plant { name: name.into(), damage: Box::new(damage), kinds: kinds.to_vec(), file: file.into() }
}

/// What was not found of a plant, if it was not.
fn miss(whole: &Scratch, plant: &Plant) -> Option<String> {
    let Plant { name, damage, kinds, file } = plant;
    let damaged = Scratch::new();
    copy(&whole.log(""), &damaged.log(""));
    damage(&damaged.log(""));
    let run = damaged.run("milestone-status", &["--check", "--json"]);
    if run.code != 2 {
        return Some(format!("{name}: exit {}\n  {}{}", run.code, run.stdout, run.stderr));
    }
    let report = run.results().remove(0);
    let findings = report["findings"].as_array().unwrap();
    let is_named = findings.iter().any(|it| {
        let is_there = it["file"].as_str().unwrap().starts_with(file);
        is_there && (kinds.is_empty() || kinds.contains(&it["kind"].as_str().unwrap()))
    });
    if is_named {
        return None;
    }
    let found = findings.iter().map(|it| format!("{} {}: {}", it["kind"], it["file"], it["message"]));
    let found: Vec<_> = found.collect();
    Some(format!("{name}: wanted {kinds:?} in {file}, found\n  {}", found.join("\n  ")))
}

#[test]
fn every_plant_is_found_by_name() {
    let whole = rich();
    let plants: Vec<Plant> = by_hand::plants().into_iter().chain(by_design::plants()).collect();
    let next = AtomicUsize::new(0);
    let work = || {
        let mut missed = Vec::new();
        while let Some(plant) = plants.get(next.fetch_add(1, SeqCst)) {
            missed.extend(miss(&whole, plant));
        }
        missed
    };
    let missed: Vec<String> = thread::scope(|scope| {
        let workers: Vec<_> = (0..4).map(|_| scope.spawn(work)).collect();
        workers.into_iter().flat_map(|it| it.join().unwrap()).collect()
    });
    assert!(
        missed.is_empty(),
        "{} of {} plants were missed:\n{}",
        missed.len(),
        plants.len(),
        missed.join("\n")
    );
    assert!(plants.len() > 150, "{}", plants.len());
    // The copies are what is damaged.
    report(&whole, 0);
    emit(&whole, ["z".to_owned()]).exits(0);
    report(&whole, 0);
}
