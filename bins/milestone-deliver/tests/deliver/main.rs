//! milestone-deliver as a process: the queue in, requests and journals out.
#![expect(clippy::unwrap_used, reason = "a test that cannot set itself up has failed")]

mod configuration;
mod delivery;
mod hostile;
mod life;
mod operator;
mod queue;
mod scripted;
