//! milestone-status over whole folders: the conservation check against what it must find and beside what it must not
//! disturb, and the lives of single events.
#![expect(clippy::unwrap_used, reason = "a test that cannot set itself up has failed")]
#![expect(clippy::disallowed_methods, reason = "a test damages files itself")]

mod by_design;
mod by_hand;
mod folder;
mod glance;
mod live;
mod lives;
mod metrics;
mod plants;

use milepost_testing::{Run, Scratch};
use serde_json::{Value, json};

/// Runs the check over a folder.
fn check(scratch: &Scratch, args: &[&str]) -> Run {
    scratch.run("milestone-status", &[&["--check"], args].concat())
}

fn report(scratch: &Scratch, code: i32) -> Value {
    let report = check(scratch, &["--json"]).exits(code).results().remove(0);
    must_fit("check-report.v1", &report);
    report
}

/// Validates by one of the public schemas.
fn must_fit(schema: &str, document: &Value) {
    let path = format!("{}/../schemas/{schema}.json", env!("CARGO_MANIFEST_DIR"));
    let schema: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let validator = jsonschema::validator_for(&schema).unwrap();
    let faults: Vec<_> = validator.iter_errors(document).map(|it| it.to_string()).collect();
    assert!(faults.is_empty(), "{faults:?}");
}

#[test]
fn every_event_of_a_rich_folder_has_come_to_something() {
    let folder = folder::rich();
    let report = report(&folder, 0);
    assert_eq!(
        (&report["status"], &report["findings"], &report["omitted"]),
        (&json!("holds"), &json!([]), &json!(0))
    );
    let balance = |emitted: u64, queued: u64, acknowledged: u64, pending: u64, dead: u64, discarded: u64| {
        json!({
            "emitted": emitted, "queued": queued, "acknowledged": acknowledged, "pending": pending,
            "deadLettered": dead, "discarded": discarded, "passedOver": 0, "lost": 0,
        })
    };
    let of = |queue: usize, endpoint: usize| {
        let mut it = report["queues"][queue]["endpoints"][endpoint].clone();
        let name = it.as_object_mut().unwrap().remove("endpoint").unwrap();
        (name, it)
    };
    assert_eq!(report["queues"][0]["queue"], "milestone-delivery-queue.jsonl");
    // m7, eight that are queued and eight that are not.
    assert_eq!(of(0, 0), (json!(""), balance(46, 38, 26, 17, 2, 1)));
    assert_eq!(of(0, 1), (json!("backup"), balance(46, 38, 30, 16, 0, 0)));
    assert_eq!(of(1, 0), (json!(""), balance(14, 14, 12, 2, 0, 0)));
    assert_eq!(check(&folder, &["--quiet"]).exits(0).stdout, "");
    let text = check(&folder, &[]).exits(0).stdout;
    assert!(text.starts_with("holds: logs ("), "{text}");
}

#[test]
fn a_folder_in_which_nothing_was_done_holds() {
    let scratch = Scratch::new();
    let report = report(&scratch, 0);
    assert_eq!(
        report,
        json!({
            "status": "holds", "logs": "logs", "queues": [], "journals": [], "findings": [], "omitted": 0,
        })
    );
    assert_eq!(std::fs::read_dir(scratch.log("")).unwrap().count(), 0, "it writes nothing");
    check(&scratch, &["--logs", "elsewhere"]).exits(66);
    check(&scratch, &["--init"]).exits(64);
}
