//! milestone-queue as a process: the flow, and what an operator asks for beside it.
#![expect(clippy::unwrap_used, reason = "a test that cannot set itself up has failed")]

mod bench;
mod flow;
mod verbs;
