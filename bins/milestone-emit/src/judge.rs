//! From a line or flags to an offer: parsed, validated, and its evidence looked at.
//!
//! # Invariants
//! - The same bad input gives the same faults, in the same order.
//! - Evidence is looked at for a batch at a time, so that a repository is asked once and not for each event.

use std::path::Path;

use milepost::{
    Result,
    cli::Output,
    clock,
    emit::Offer,
    event::{Defaults, MilestoneEvent, Source},
    evidence::{Verifier, Warnings},
    input, json,
    schema::FieldError,
    text,
};
use serde_json::Value;

use crate::args::{Args, VerifyEvidence};

/// Judges input, one piece after the other.
pub struct Judge {
    verify: VerifyEvidence,
    verifier: Verifier,
    warnings: Warnings,
}

impl Judge {
    pub fn new(args: &Args) -> Result<Judge> {
        let root: Option<&Path> = args.evidence_root.as_deref();
        Ok(Judge {
            verify: args.verify_evidence,
            verifier: Verifier::new(root)?,
            warnings: Warnings::default(),
        })
    }

    /// The milestone that the flags describe.
    pub fn flags(document: Value) -> Offer {
        let defaults = Defaults { timestamp: Some(clock::now()), source: Source::Operator, derive_id: true };
        self::document("the command line".to_owned(), document, &defaults)
    }

    /// A line of input.
    pub fn line(input: &str, line: usize, text: &[u8]) -> Offer {
        if let Some((event, left_out)) = MilestoneEvent::from_normal(text) {
            return Offer::Event { place: format!("{input}:{line}"), event, left_out };
        }
        match json::parse(text) {
            Ok(document) => self::document(format!("{input}:{line}"), document, &Defaults::JSON),
            Err(refusal) => {
                let place = format!("{input}:{line}:{}", refusal.column);
                let mut what = refusal.what;
                if text.trim_ascii() == b"{" || text.trim_ascii() == b"[" {
                    what.push_str("; one document a line is read, jq -c writes them so");
                }
                Offer::Refused { place, id: None, errors: vec![FieldError::new("", what)] }
            }
        }
    }

    /// A line that was too long to be read.
    pub fn too_long(input: &str, line: usize) -> Offer {
        let what = format!("the line is longer than {} KiB and was passed over", input::LINE_BYTES_MAX >> 10);
        Offer::Refused { place: format!("{input}:{line}"), id: None, errors: vec![FieldError::new("", what)] }
    }

    /// Tells what of the evidence could not be verified, equal warnings once.
    pub fn warn(&self, out: &mut Output) {
        for line in self.warnings.lines() {
            out.warn(line);
        }
    }

    /// Looks at the evidence of what is offered, before it is committed.
    pub fn verify(&mut self, offers: &mut [Offer]) {
        let events = offers.iter_mut().filter_map(|it| match it {
            Offer::Event { event, .. } => Some(event),
            Offer::Refused { .. } => None,
        });
        if self.verify == VerifyEvidence::Off {
            events.for_each(|it| self.verifier.make_relative(it));
            return;
        }
        let mut problems = self.verifier.check(events).into_iter();
        for offer in offers {
            let Offer::Event { event, place, left_out } = offer else { continue };
            let mut problems = problems.next().unwrap_or_default();
            if self.verify == VerifyEvidence::Warn {
                for problem in problems.drain(..) {
                    self.warnings.add(&format!("evidence is not verified: {}", problem.message));
                }
            }
            // A hash that was filled in makes the record longer, perhaps too long.
            if left_out.refs.contains(&true) {
                problems.extend(event.to_line().err());
            }
            if !problems.is_empty() {
                *offer = Offer::Refused {
                    place: std::mem::take(place),
                    id: Some(std::mem::take(&mut event.milestone_id)),
                    errors: problems,
                };
            }
        }
    }
}

fn document(place: String, document: Value, defaults: &Defaults) -> Offer {
    let id = document.get("milestoneId").and_then(Value::as_str).map(|it| text::trim(it).to_owned());
    match MilestoneEvent::from_value(document, defaults) {
        Ok((event, left_out)) => Offer::Event { place, event, left_out },
        Err(errors) => {
            // One that is no id is shown by its fault, which is bounded.
            let is_id = |it: &String| (1..=200).contains(&it.chars().count());
            Offer::Refused { place, id: id.filter(is_id), errors }
        }
    }
}
