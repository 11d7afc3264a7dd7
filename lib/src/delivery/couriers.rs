//! Threads that make requests: each sends one after the other over a connection of its own.
//!
//! Requests are handed over in *runs*. The requests of a run are made in order by one courier, which saves a
//! hand-over for each. As soon as one of them is not acknowledged, everything that was handed over and is not on
//! the wire comes back unsent: what follows from a failure is the engine's to say.
//!
//! # Invariants
//! - Every request comes back exactly once, also when its thread fails.
//! - After a failure no request is begun that was handed over before the failure was taken.
//!
//! Not here: what is sent and in which order (`engine`), HTTP (the tool).

use std::{
    collections::VecDeque,
    fmt,
    panic::{self, AssertUnwindSafe},
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    thread,
    time::{Duration, Instant},
};

use super::{
    verdict::{AckMode, Attempted, Unanswered},
    wire::{Fate, Judged, Outgoing, Returned},
};
use crate::{Error, Kind, Result, clock};

/// One connection to the endpoint.
pub trait Wire: Send {
    /// Makes one attempt.
    fn post(&mut self, outgoing: &Outgoing) -> Attempted;
}

/// The couriers; dropping them ends each after what it has on the wire.
pub struct Couriers {
    shared: Arc<Shared>,
    connect: Box<dyn Fn() -> Box<dyn Wire>>,
    ack: AckMode,
    stop: Arc<AtomicBool>,
    threads: usize,
    threads_max: usize,
}

struct Shared {
    desk: Mutex<Desk>,
    /// There is a run to take, or the end has come.
    has_work: Condvar,
    /// There is something to take back.
    has_returned: Condvar,
}

#[derive(Default)]
struct Desk {
    runs: VecDeque<VecDeque<Outgoing>>,
    /// What each courier has not begun of its run.
    begun: Vec<VecDeque<Outgoing>>,
    returned: Vec<Returned>,
    /// Couriers that wait for a run.
    idle: usize,
    is_over: bool,
}

impl Shared {
    fn desk(&self) -> MutexGuard<'_, Desk> {
        // A desk is whole after each statement, so one whose holder died is as good as any.
        self.desk.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Desk {
    /// Takes back what is not on the wire.
    fn recall(&mut self) {
        let runs = self.runs.drain(..).chain(self.begun.iter_mut().map(std::mem::take));
        self.returned.extend(runs.flatten().map(|it| Returned { ticket: it.ticket, fate: Fate::Unsent }));
    }
}

impl Couriers {
    /// Up to `threads_max` couriers, each with its own connection; none is started before it is needed. Once `stop`
    /// is set, none of them begins another request.
    pub fn new(
        threads_max: usize,
        ack: AckMode,
        stop: Arc<AtomicBool>,
        connect: Box<dyn Fn() -> Box<dyn Wire>>,
    ) -> Couriers {
        let shared =
            Shared { desk: Mutex::default(), has_work: Condvar::new(), has_returned: Condvar::new() };
        Couriers { shared: Arc::new(shared), connect, ack, stop, threads: 0, threads_max }
    }

    /// Hands a run over.
    ///
    /// # Errors
    /// [`Kind::Temporary`] when the first thread cannot be started.
    pub fn start(&mut self, run: Vec<Outgoing>) -> Result<()> {
        let mut desk = self.shared.desk();
        desk.runs.push_back(run.into());
        if desk.runs.len() > desk.idle && self.threads < self.threads_max {
            let number = desk.begun.len();
            desk.begun.push(VecDeque::new());
            let courier = Courier {
                shared: Arc::clone(&self.shared),
                wire: (self.connect)(),
                ack: self.ack,
                stop: Arc::clone(&self.stop),
                number,
            };
            match thread::Builder::new().name("courier".into()).spawn(move || courier.work()) {
                Ok(_) => self.threads += 1,
                Err(_) if self.threads > 0 => self.threads_max = self.threads,
                Err(cause) => {
                    return Err(Error::new(Kind::Temporary, "", "cannot start a thread").because(cause));
                }
            }
        }
        drop(desk);
        self.shared.has_work.notify_one();
        Ok(())
    }

    /// What has come back; waits for the first of it, `at_most` so long.
    pub fn returned(&self, at_most: Duration) -> Vec<Returned> {
        let until = Instant::now() + at_most;
        let mut desk = self.shared.desk();
        while desk.returned.is_empty() {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            let waited = self.shared.has_returned.wait_timeout(desk, left);
            desk = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        std::mem::take(&mut desk.returned)
    }

    /// Takes back what is not on the wire; it comes back unsent.
    pub fn recall(&self) {
        self.shared.desk().recall();
    }
}

impl Drop for Couriers {
    fn drop(&mut self) {
        let mut desk = self.shared.desk();
        desk.recall();
        desk.is_over = true;
        drop(desk);
        self.shared.has_work.notify_all();
    }
}

impl fmt::Debug for Couriers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Couriers").field("threads", &self.threads).finish_non_exhaustive()
    }
}

struct Courier {
    shared: Arc<Shared>,
    wire: Box<dyn Wire>,
    ack: AckMode,
    stop: Arc<AtomicBool>,
    number: usize,
}

impl Courier {
    fn work(mut self) {
        while let Some(outgoing) = self.next() {
            let attempt = AssertUnwindSafe(|| self.wire.post(&outgoing));
            let attempted = panic::catch_unwind(attempt).unwrap_or_else(|_| Attempted::Unanswered {
                how: Unanswered::Connection,
                what: "the attempt ended in an internal error".to_owned(),
            });
            self.give_back(outgoing.ticket, outgoing.judge(&attempted, self.ack, clock::now()));
        }
    }

    /// The next request of the run, or of the next run; `None` when all is over.
    fn next(&self) -> Option<Outgoing> {
        let mut desk = self.shared.desk();
        loop {
            if self.stop.load(SeqCst) {
                desk.recall();
                self.shared.has_returned.notify_one();
            }
            if let Some(it) = desk.begun.get_mut(self.number).and_then(VecDeque::pop_front) {
                return Some(it);
            }
            if desk.is_over {
                return None;
            }
            if let Some(run) = desk.runs.pop_front() {
                if let Some(begun) = desk.begun.get_mut(self.number) {
                    *begun = run;
                }
                continue;
            }
            desk.idle += 1;
            desk = self.shared.has_work.wait(desk).unwrap_or_else(PoisonError::into_inner);
            desk.idle -= 1;
        }
    }

    fn give_back(&self, ticket: u64, judged: Judged) {
        let is_well = judged.is_all_well();
        let mut desk = self.shared.desk();
        desk.returned.push(Returned { ticket, fate: Fate::Judged(Box::new(judged)) });
        if !is_well {
            desk.recall();
        }
        // The end of a run is early enough to be told: until then the courier has something to do.
        let is_awaited = !is_well || desk.begun.get(self.number).is_none_or(VecDeque::is_empty);
        drop(desk);
        if is_awaited {
            self.shared.has_returned.notify_one();
        }
    }
}
