//! Milepost: verified milestones from the shell that reports them to the feed that shows them.
//!
//! The modules stand in the order of the flow; each begins with its idea and its invariants.
//! `docs/ARCHITECTURE.md` draws how they work together.

pub mod clock;
pub mod error;

pub mod canonical;
pub mod identity;
pub mod json;
mod lines;
pub mod moment;
pub mod text;
pub mod units;

pub mod envelope;
pub mod event;
pub mod evidence;
pub mod schema;

pub mod audit;
pub mod chain;
pub mod durable;
pub mod index;
pub mod journal;
pub mod lock;
pub mod logs;
pub mod state_file;
pub mod watch;

pub mod discard;
pub mod emit;
pub mod enqueue;
pub mod queue;
pub mod redrive;
pub mod reminder;
mod requeue;
pub mod resend;
pub mod task;
pub mod trim;

pub mod delivery;
pub mod ingest;
pub mod secret;
pub mod signing;

pub mod conservation;
pub mod dead;
pub mod explain;
pub mod inventory;

mod beside;
pub mod cli;
pub mod input;
pub mod intake;
mod stages;

pub use clock::Timestamp;
pub use error::{Error, Kind, Result};
