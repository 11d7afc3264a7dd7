//! A progress bar for work that takes long, on a terminal only.
//!
//! # Invariants
//! - Nothing is shown in the first second, and nothing where standard error is no terminal that can
//!   wipe a line, nor with `--quiet`.
//! - It never takes more than one line: where there is no room for a bar, figures say it.
//! - The bar is gone, line and all, when the work is over.

use std::{
    env,
    fmt::Write as _,
    io::{self, IsTerminal},
    time::{Duration, Instant},
};

use rustix::stdio;

use super::{
    messages::is_able,
    streams::{columns_of, terminals_show_utf8, write_all},
};

const QUIET_AT_FIRST: Duration = Duration::from_secs(1);
const REDRAW: Duration = Duration::from_millis(100);
const WIDTH: u64 = 30;
/// The bar and the most that stands behind it.
const COLUMNS: usize = 70;

/// Shows how far some work has come.
#[derive(Debug)]
pub struct Progress {
    total: Option<u64>,
    started: Instant,
    /// None where nothing is ever shown.
    next: Option<Instant>,
    shown: bool,
    /// What the bar is drawn with, full and empty; none where it has no room.
    bar: Option<(char, char)>,
}

impl Progress {
    /// Begins the work; `total` is its size in bytes, if it is known. With `quiet` nothing is ever shown.
    pub(super) fn start(total: Option<u64>, quiet: bool) -> Progress {
        let started = Instant::now();
        // A line that is drawn again and again needs a terminal that can wipe one.
        let is_shown = !quiet && io::stderr().is_terminal() && is_able(env::var_os("TERM").as_deref());
        let next = is_shown.then(|| started + QUIET_AT_FIRST);
        let has_room = columns_of(stdio::stderr()).is_none_or(|it| it >= COLUMNS);
        let bar = has_room.then(|| if terminals_show_utf8() { ('━', '─') } else { ('#', '-') });
        Progress { total, started, next, shown: false, bar }
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
            let reached = share * WIDTH / total;
            if let Some((full, empty)) = self.bar {
                line.extend((0..WIDTH).map(|at| if at < reached { full } else { empty }));
                line.push(' ');
            }
            let _ = write!(line, "{:3} %", share * 100 / total);
        }
        let seconds = elapsed.as_secs().max(1);
        let _ = write!(line, " {} MiB, {} MiB/s", done / MIB, done / MIB / seconds);
        line
    }
}
