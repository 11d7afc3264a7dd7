//! From a line or flags to an offer: parsed, validated, and its evidence looked at.
//!
//! # Invariants
//! - The same bad input gives the same faults, in the same order.
//! - Evidence is looked at for a batch at a time, so that a repository is asked once and not for each event.

use std::path::Path;

use milepost::{
    Result, clock,
    emit::{Offer, Records},
    event::{Defaults, ID_CHARS_MAX, MilestoneEvent, Source},
    evidence::Verifier,
    intake::{self, Judge},
    schema::FieldError,
    text,
};
use serde_json::Value;

use crate::args::{Args, VerifyEvidence};

/// Judges input, one piece after the other.
pub struct EventJudge {
    verify: VerifyEvidence,
    verifier: Verifier,
}

/// Offers, verified, and what is made of them.
pub struct Judged {
    pub offers: Vec<Offer>,
    pub records: Records,
    /// What could not be verified although nobody required it.
    pub doubts: Vec<String>,
}

impl EventJudge {
    pub fn new(args: &Args) -> Result<EventJudge> {
        let root: Option<&Path> = args.evidence_root.as_deref();
        Ok(EventJudge { verify: args.verify_evidence, verifier: Verifier::new(root)? })
    }

    /// The milestone that the flags describe.
    pub fn flags(document: Value) -> Offer {
        let defaults = Defaults { timestamp: Some(clock::now()), source: Source::Operator, derive_id: true };
        self::document(intake::COMMAND_LINE.to_owned(), document, &defaults)
    }

    /// Looks at the evidence of what is offered, before it is committed; returns what is in doubt.
    fn verify(&mut self, offers: &mut [Offer]) -> Vec<String> {
        let mut doubts = Vec::new();
        let events = offers.iter_mut().filter_map(|it| match it {
            Offer::Event { event, .. } => Some(event),
            Offer::Refused { .. } => None,
        });
        if self.verify == VerifyEvidence::Off {
            events.for_each(|it| self.verifier.make_relative(it));
            return doubts;
        }
        let mut problems = self.verifier.check(events).into_iter();
        for offer in offers {
            let Offer::Event { event, place, left_out } = offer else { continue };
            let mut problems = problems.next().unwrap_or_default();
            if self.verify == VerifyEvidence::Warn {
                doubts
                    .extend(problems.drain(..).map(|it| format!("evidence is not verified: {}", it.message)));
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
        doubts
    }
}

impl Judge for EventJudge {
    type Offer = Offer;
    type Batch = Judged;

    fn line(&mut self, input: &str, line: usize, text: &[u8]) -> Offer {
        if let Some((event, left_out)) = MilestoneEvent::from_normal(text) {
            return Offer::Event { place: format!("{input}:{line}"), event, left_out };
        }
        match intake::parse(input, line, text) {
            Ok(document) => self::document(format!("{input}:{line}"), document, &Defaults::JSON),
            Err((place, fault)) => self.refused(place, fault),
        }
    }

    fn refused(&mut self, place: String, fault: FieldError) -> Offer {
        Offer::Refused { place, id: None, errors: vec![fault] }
    }

    /// Evidence is looked at here.
    fn batch(&mut self, mut offers: Vec<Offer>) -> Result<Judged> {
        let doubts = self.verify(&mut offers);
        Ok(Judged { records: Records::of(&offers)?, offers, doubts })
    }
}

fn document(place: String, document: Value, defaults: &Defaults) -> Offer {
    let id = document.get("milestoneId").and_then(Value::as_str).map(|it| text::trim(it).to_owned());
    match MilestoneEvent::from_value(document, defaults) {
        Ok((event, left_out)) => Offer::Event { place, event, left_out },
        Err(errors) => {
            // One that is no id is shown by its fault, which is bounded.
            let is_id = |it: &String| (1..=ID_CHARS_MAX).contains(&it.chars().count());
            Offer::Refused { place, id: id.filter(is_id), errors }
        }
    }
}
