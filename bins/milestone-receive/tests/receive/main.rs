//! The receiver as a process: requests in; answers, journals and exit codes out.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on says so by panicking")]

mod authenticity;
mod batch;
mod browser;
mod client;
mod contract;
mod doors;
mod identity;
mod limits;
mod openapi;
mod process;
mod reads;
mod stream;
mod syndication;
