//! Whether bytes in quarantine are still where they were found.
//!
//! # Invariants
//! - What a killed writer left was cut off; only damage that was done below the mark stays where it is.

use std::{fs, os::unix::fs::FileExt};

use milepost::{
    Error, Result,
    journal::{Extent, JournalName, Segment, open_segment},
    logs::Logs,
};

/// The place that bytes in quarantine were copied from, if they are still there below the mark.
pub fn damage_of(logs: &Logs, file: &str) -> Result<Option<(String, u64)>> {
    let path = logs.dir().join("quarantine").join(file);
    // NAME.<20 digits>.<hash>, in which a `/` of the name is a `.`.
    let mut parts = file.rsplitn(3, '.').skip(1);
    let (Some(offset), Some(name)) = (parts.next().and_then(|it| it.parse::<u64>().ok()), parts.next())
    else {
        return Ok(None);
    };
    let name = JournalName::internal(match name.strip_prefix("receive.") {
        Some(rest) => format!("receive/{rest}"),
        None => name.to_owned(),
    });
    let kept = fs::read(&path).map_err(|it| Error::io("cannot read", &path, it))?;
    let extent = Extent::of(logs, &name)?;
    if kept.is_empty() || offset + kept.len() as u64 > extent.end() {
        return Ok(None);
    }
    let (place, base) = extent.file_of(&name, offset);
    let Ok(opened) = open_segment(logs, &name, Segment { base, length: 0 }) else { return Ok(None) };
    let mut there = vec![0; kept.len()];
    let is_there = opened.read_exact_at(&mut there, offset - base).is_ok() && there == kept;
    Ok(is_there.then_some((place, offset)))
}
