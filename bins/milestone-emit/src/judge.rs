//! From a line or flags to an offer: parsed, validated, its evidence looked at.

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
    pub fn flags(&mut self, document: Value) -> Offer {
        let defaults = Defaults { timestamp: Some(clock::now()), source: Source::Operator, derive_id: true };
        self.document("the command line".to_owned(), document, &defaults)
    }

    /// A line of input.
    pub fn line(&mut self, input: &str, line: usize, text: &[u8]) -> Offer {
        match json::parse(text) {
            Ok(document) => self.document(format!("{input}:{line}"), document, &Defaults::JSON),
            Err(refusal) => {
                let place = format!("{input}:{line}:{}", refusal.column);
                let mut what = refusal.what;
                if text.trim_ascii() == b"{" || text.trim_ascii() == b"[" {
                    what.push_str("; one document a line is read, jq -c writes them so");
                }
                Offer::Refused(place, vec![FieldError::new("", what)])
            }
        }
    }

    /// A line that was too long to be read.
    #[expect(clippy::unused_self, reason = "judging is the judge's, whatever it needs for it")]
    pub fn too_long(&self, input: &str, line: usize) -> Offer {
        let what = format!("the line is longer than {} KiB and was passed over", input::LINE_BYTES_MAX >> 10);
        Offer::Refused(format!("{input}:{line}"), vec![FieldError::new("", what)])
    }

    /// Tells what of the evidence could not be verified, equal warnings once.
    pub fn warn(&self, out: &mut Output) {
        for line in self.warnings.lines() {
            out.warn(line);
        }
    }

    fn document(&mut self, place: String, document: Value, defaults: &Defaults) -> Offer {
        let (mut event, left_out) = match MilestoneEvent::from_value(document, defaults) {
            Ok(it) => it,
            Err(errors) => return Offer::Refused(place, errors),
        };
        if self.verify == VerifyEvidence::Off {
            self.verifier.make_relative(&mut event);
            return Offer::Event(event, left_out);
        }
        let problems = self.verifier.check(&mut event);
        if self.verify == VerifyEvidence::Require && !problems.is_empty() {
            return Offer::Refused(place, problems);
        }
        for problem in problems {
            self.warnings.add(&format!("evidence is not verified: {}", problem.message));
        }
        Offer::Event(event, left_out)
    }
}
