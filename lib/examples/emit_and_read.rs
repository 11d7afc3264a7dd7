//! Milepost from another Rust program: report a milestone, and read the journal from where one stood before.
//!
//! usage: `emit_and_read LOGS-FOLDER ID [OFFSET]`. It prints what became of the milestone, then each milestone
//! from OFFSET (0) on, and at last the offset to go on from. `tests/example.rs` runs it.

use std::{
    env,
    error::Error,
    io::{Write, stdout},
    path::Path,
};

use milepost::{
    clock,
    emit::{Emitter, Offer, SOURCE},
    event::{Defaults, MilestoneEvent, Source},
    journal::{Item, JournalName, Reader},
    logs::Logs,
};
use serde_json::json;

fn main() -> Result<(), Box<dyn Error>> {
    let words: Vec<String> = env::args_os().skip(1).filter_map(|it| it.into_string().ok()).collect();
    let (folder, id, offset) = match &words[..] {
        [folder, id] => (folder, id, 0),
        [folder, id, offset] => (folder, id, offset.parse()?),
        _ => return Err("usage: emit_and_read LOGS-FOLDER ID [OFFSET]".into()),
    };
    let logs = Logs::open(Some(Path::new(folder)), "emit_and_read")?;
    let mut out = stdout().lock();

    // Report. The id makes it safe to do this again: then it is a duplicate.
    let document = json!({
        "milestoneId": id,
        "scope": "example",
        "claim": "The example ran.",
        "evidence": [{ "type": "issue", "path": "tracker/17", "summary": "asked for it" }],
        "riskStatus": "on-track",
        "nextAction": "Read it.",
    });
    let defaults = Defaults { timestamp: Some(clock::now()), source: Source::Agent, derive_id: false };
    let (event, left_out) = MilestoneEvent::from_value(document, &defaults)
        .map_err(|faults| faults.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))?;
    let mut emitter = Emitter::new(&logs);
    // When this returns, it is on disk and audited.
    let became = emitter.commit(&[Offer::Event { place: "the example".to_owned(), event, left_out }])?;
    emitter.finish()?;
    for it in became {
        writeln!(out, "{it:?}")?;
    }

    // Read. Only what is durable is shown; no lock is taken, and a rotation goes unnoticed.
    let mut reader = Reader::open_at(&logs, &JournalName::internal(SOURCE), offset)?;
    while let Some(item) = reader.next_item()? {
        match item {
            Item::Line { offset, text, .. } => match MilestoneEvent::from_line(text) {
                Ok(event) => writeln!(out, "{} {}", event.milestone_id, event.claim)?,
                Err(_) => writeln!(out, "damaged at {offset}")?,
            },
            Item::Overlong { offset, .. } => writeln!(out, "damaged at {offset}")?,
        }
    }
    writeln!(out, "{}", reader.offset())?;
    Ok(())
}
