//! The delivery engine against a scripted wire and a scripted clock: order, retries, breaker, crashes.
//!
//! `bench` is the rig, `rules` asks for each rule by itself, `storms` throws everything at it at once.
#![expect(clippy::unwrap_used, reason = "test helpers, not only tests, fail loudly")]

mod bench;
mod rules;
mod storms;
