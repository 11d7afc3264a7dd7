//! A scratch folder with milestones in it, and what came of them.

use std::{fs::OpenOptions, io::Write};

use milepost_testing::{Scratch, milestone};
use serde_json::Value;

pub const TOOL: &str = "milestone-queue";
pub const QUEUE: &str = "milestone-delivery-queue";

/// Emits by the library, since a test of this crate has only its own program.
pub fn emit(scratch: &Scratch, ids: impl IntoIterator<Item = String>) {
    use milepost::{
        emit::{Emitter, Offer},
        event::{Defaults, MilestoneEvent},
        logs::Logs,
    };
    let logs = Logs::open(Some(&scratch.log("")), "test").unwrap();
    let offers: Vec<Offer> = ids
        .into_iter()
        .map(|id| {
            let (event, left_out) = MilestoneEvent::from_value(milestone(&id), &Defaults::JSON).unwrap();
            Offer::Event { place: id, event, left_out }
        })
        .collect();
    Emitter::new(&logs).commit(&offers).unwrap();
}

pub fn ids(numbers: std::ops::Range<u32>) -> impl Iterator<Item = String> {
    numbers.map(|it| format!("m{it}"))
}

pub fn append(scratch: &Scratch, file: &str, bytes: &[u8]) {
    OpenOptions::new().append(true).open(scratch.log(file)).unwrap().write_all(bytes).unwrap();
}

pub fn keys(scratch: &Scratch) -> Vec<String> {
    scratch.records(QUEUE).iter().map(|it| it["idempotency_key"].as_str().unwrap().to_owned()).collect()
}

pub fn outcomes(scratch: &Scratch, action: &str) -> Vec<Value> {
    scratch
        .records("audit")
        .iter()
        .filter(|it| it["action"] == action)
        .map(|it| it["outcome"].clone())
        .collect()
}

pub fn emit_rotating(scratch: &Scratch, number: u32) {
    use milepost::{
        emit::{Emitter, Offer},
        event::{Defaults, MilestoneEvent},
        logs::Logs,
    };
    let logs = Logs::open(Some(&scratch.log("")), "test").unwrap().rotate_at(3000);
    let (event, left_out) =
        MilestoneEvent::from_value(milestone(&format!("m{number}")), &Defaults::JSON).unwrap();
    Emitter::new(&logs).commit(&[Offer::Event { place: String::new(), event, left_out }]).unwrap();
}
