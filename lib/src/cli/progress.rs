//! A progress bar for work that takes long, on a terminal only.
//!
//! # Invariants
//! - Nothing is shown in the first second, and nothing where standard error is no terminal.
//! - The bar is gone, line and all, when the work is over.

use std::{
    fmt::Write as _,
    io::{self, IsTerminal},
    time::{Duration, Instant},
};

use rustix::stdio;

use super::streams::write_all;

const QUIET_AT_FIRST: Duration = Duration::from_secs(1);
const REDRAW: Duration = Duration::from_millis(100);
const WIDTH: u64 = 30;

/// Shows how far some work has come.
#[derive(Debug)]
pub struct Progress {
    total: Option<u64>,
    started: Instant,
    /// None where nothing is ever shown.
    next: Option<Instant>,
    shown: bool,
}

impl Progress {
    /// Begins the work; `total` is its size in bytes, if it is known.
    pub fn start(total: Option<u64>) -> Progress {
        let started = Instant::now();
        let next = io::stderr().is_terminal().then(|| started + QUIET_AT_FIRST);
        Progress { total, started, next, shown: false }
    }

    /// So many bytes are done.
    pub fn show(&mut self, done: u64) {
        let now = Instant::now();
        if self.next.is_none_or(|next| now < next) {
            return;
        }
        self.next = Some(now + REDRAW);
        self.shown = true;
        let _ = write_all(stdio::stderr(), self.line(done, now - self.started).as_bytes());
    }

    /// The work is over.
    pub fn end(&mut self) {
        if std::mem::take(&mut self.shown) {
            let _ = write_all(stdio::stderr(), b"\r\x1b[K");
        }
        self.next = None;
    }

    fn line(&self, done: u64, elapsed: Duration) -> String {
        const MIB: u64 = 1 << 20;
        let mut line = String::from("\r\u{1b}[K");
        if let Some(total) = self.total.filter(|it| *it > 0) {
            let share = done.min(total);
            let full = share * WIDTH / total;
            for at in 0..WIDTH {
                line.push(if at < full { '━' } else { '─' });
            }
            let _ = write!(line, " {:3} %", share * 100 / total);
        }
        let seconds = elapsed.as_secs().max(1);
        let _ = write!(line, " {} MiB, {} MiB/s", done / MIB, done / MIB / seconds);
        line
    }
}
