//! When the store takes the next group: at once, or when those whom it has just answered are here again.
//!
//! A commit costs two syncs, however many share them. Senders that wait for their answers fall into two groups which
//! take turns: one is stored while the other is answered and comes again, so each sync serves half of them. Whoever
//! waits after a commit until all are here has one group, and half as many syncs for the same work. It is what
//! `PostgreSQL`'s `commit_delay` does; what that is told by settings is seen here.
//!
//! One commit less spares the time that it sleeps on the disk. So it is waited for no longer than that, and only while
//! it is seen to pay: senders that have not come by then are too slow or too many, or have gone, and after a wait in
//! vain one group is taken at once, then 2, then 4, up to [`SKIPS_MAX`].
//!
//! # Invariants
//! - Whoever is alone is never waited for, nor is anybody for longer than [`PATIENCE_MAX`].
//! - All that is waited for has its answer or will have it: this decides when a commit begins, never what it does.
//!
//! Not here: what waits, and storing it (`store`).

use std::{
    sync::{
        OnceLock,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    thread::{self, Thread},
    time::{Duration, Instant},
};

use rustix::time::{ClockId, clock_gettime};

/// On a disk that sleeps so long senders on this machine have come long before.
const PATIENCE_MAX: Duration = Duration::from_millis(10);
/// Groups that are taken at once before a wait is tried again: then all waits in vain together cost a hundredth.
const SKIPS_MAX: u32 = 64;

/// For whom to wait, and how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wait {
    /// Until so many are here.
    pub until: usize,
    /// But not longer.
    pub at_most: Duration,
}

/// What was seen of those who come again.
#[derive(Debug)]
pub struct Gathering {
    /// Groups that are taken at once.
    skips: u32,
    /// How many, after the next wait in vain.
    skips_next: u32,
    /// Whether the last wait was not in vain.
    has_paid: bool,
}

impl Default for Gathering {
    fn default() -> Gathering {
        Gathering { skips: 0, skips_next: 1, has_paid: false }
    }
}

impl Gathering {
    /// For whom to wait after a commit that answered so many and slept so long, while so many wait already.
    pub fn after(&mut self, answered: usize, waiting: usize, slept: Duration) -> Option<Wait> {
        let until = answered + waiting;
        if answered == 0 || until < 2 {
            return None;
        }
        if self.skips > 0 {
            self.skips -= 1;
            return None;
        }
        Some(Wait { until, at_most: slept.min(PATIENCE_MAX) })
    }

    /// A wait has ended; whether all have come.
    pub fn ended(&mut self, have_come: bool) {
        if have_come {
            // Once proves nothing: with twice as many as a commit can wait for, half of them come in time again and again.
            if self.has_paid {
                self.skips_next = 1;
            }
        } else {
            self.skips = self.skips_next;
            self.skips_next = (self.skips_next * 2).min(SKIPS_MAX);
        }
        self.has_paid = have_come;
    }
}

/// Wakes the store's thread when so many are here as it waits for, and not for each of them.
#[derive(Debug)]
pub struct Bell {
    /// How many; more than there can be while it does not wait.
    until: AtomicUsize,
    thread: OnceLock<Thread>,
}

impl Default for Bell {
    fn default() -> Bell {
        Bell { until: AtomicUsize::new(usize::MAX), thread: OnceLock::new() }
    }
}

impl Bell {
    /// Waits in the store's thread; whether all have come. `count` says how many are here.
    pub fn wait(&self, wait: Wait, count: impl Fn() -> usize) -> bool {
        self.thread.get_or_init(thread::current);
        let began = Instant::now();
        self.until.store(wait.until, SeqCst);
        // After what it waits for is known: whoever comes from here on sees it and rings, whoever came before is counted.
        let have_come = loop {
            if count() >= wait.until {
                break true;
            }
            match wait.at_most.checked_sub(began.elapsed()) {
                None | Some(Duration::ZERO) => break false,
                Some(left) => thread::park_timeout(left),
            }
        };
        self.until.store(usize::MAX, SeqCst);
        have_come
    }

    /// Says, after somebody has come, how many are here.
    pub fn ring(&self, count: usize) {
        if count >= self.until.load(SeqCst)
            && let Some(thread) = self.thread.get()
        {
            thread.unpark();
        }
    }
}

/// Measures how long this thread sleeps.
#[derive(Debug)]
pub struct Sleep {
    began: Instant,
    worked: Duration,
}

impl Sleep {
    /// From now on.
    pub fn measure() -> Sleep {
        Sleep { began: Instant::now(), worked: worked() }
    }

    /// Up to now: whatever it did not work.
    pub fn length(&self) -> Duration {
        self.began.elapsed().saturating_sub(worked().saturating_sub(self.worked))
    }
}

/// For how long this thread has had a processor.
fn worked() -> Duration {
    Duration::try_from(clock_gettime(ClockId::ThreadCPUTime)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SLEPT: Duration = Duration::from_micros(500);

    #[test]
    fn whoever_is_alone_is_not_waited_for() {
        let mut gathering = Gathering::default();
        assert_eq!(gathering.after(1, 0, SLEPT), None);
        // Nor is anybody after a look-up, which answers no sender.
        assert_eq!(gathering.after(0, 5, SLEPT), None);
    }

    #[test]
    fn two_that_take_turns_are_gathered_for_as_long_as_a_commit_sleeps() {
        let mut gathering = Gathering::default();
        for _ in 0..100 {
            assert_eq!(gathering.after(1, 1, SLEPT), Some(Wait { until: 2, at_most: SLEPT }));
            gathering.ended(true);
            assert_eq!(gathering.after(2, 0, SLEPT), Some(Wait { until: 2, at_most: SLEPT }));
            gathering.ended(true);
        }
        let hanging = gathering.after(1, 1, Duration::from_secs(7)).unwrap();
        assert_eq!(hanging.at_most, PATIENCE_MAX);
    }

    /// How many of so many groups are waited for, when every `pays`th wait is not in vain.
    fn waits(groups: usize, pays: usize) -> usize {
        let mut gathering = Gathering::default();
        let mut waits = 0;
        for _ in 0..groups {
            if gathering.after(16, 16, SLEPT).is_some() {
                waits += 1;
                gathering.ended(waits % pays == 0);
            }
        }
        waits
    }

    #[test]
    fn waits_in_vain_become_rare() {
        assert!(waits(6500, usize::MAX) < 110);
        // Also when those who came in time once are too many the next time.
        assert!(waits(6500, 2) < 220);
    }

    #[test]
    fn when_all_come_again_it_is_soon_noticed() {
        let mut gathering = Gathering::default();
        for _ in 0..1000 {
            if gathering.after(16, 16, SLEPT).is_some() {
                gathering.ended(false);
            }
        }
        assert!((0..=SKIPS_MAX).any(|_| gathering.after(16, 16, SLEPT).is_some()));
        gathering.ended(true);
        for _ in 0..100 {
            assert!(gathering.after(32, 0, SLEPT).is_some());
            gathering.ended(true);
        }
    }

    #[test]
    fn the_bell_wakes_when_all_are_here_and_time_when_they_are_not() {
        let (bell, here) = (Bell::default(), AtomicUsize::new(0));
        let come = |count| {
            for _ in 0..count {
                bell.ring(here.fetch_add(1, SeqCst) + 1);
            }
        };
        let wait = |until, at_most| bell.wait(Wait { until, at_most }, || here.load(SeqCst));
        thread::scope(|scope| {
            let waiting = scope.spawn(|| wait(3, Duration::from_secs(600)));
            come(3);
            assert!(waiting.join().unwrap());
        });
        assert!(!wait(4, Duration::from_millis(1)));
        come(1);
        assert!(wait(4, Duration::ZERO));
    }

    #[test]
    fn only_what_is_not_worked_is_slept() {
        let sleep = Sleep::measure();
        thread::park_timeout(Duration::from_millis(2));
        assert!(sleep.length() <= sleep.began.elapsed());
    }
}
