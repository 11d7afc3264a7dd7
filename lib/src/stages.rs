//! Two stages of bulk work side by side: one makes batches, the other takes them.
//!
//! # Invariants
//! - Batches are taken in the order in which they are made; while one is taken, at most one more is made.
//! - There is a thread only where there is much to do, after a batch that was full: to begin one costs as much as a
//!   tenth of a run with one event.
//! - A failure to take a batch is told at once. Nobody waits for the maker then, which may wait for input.
//!
//! Not here: what the batches are of (`enqueue`, the tools).

use std::{panic, sync::mpsc, thread};

use crate::{Error, Kind, Result};

/// Takes all that `make` makes, until it makes none or `take` wants no more and says false. `make` is handed a batch that
/// was taken, when there is one, so that its room can be used again.
///
/// # Errors
/// The first of either stage; what was made before it was taken.
pub fn run<B: Send + 'static>(
    mut make: impl FnMut(Option<B>) -> Result<Option<B>> + Send + 'static,
    is_full: fn(&B) -> bool,
    mut take: impl FnMut(&mut B) -> Result<bool>,
) -> Result<()> {
    let mut room = None;
    loop {
        let Some(mut batch) = make(room)? else { return Ok(()) };
        let is_full = is_full(&batch);
        if !take(&mut batch)? {
            return Ok(());
        }
        room = Some(batch);
        if is_full {
            break;
        }
    }
    let (to_taker, batches) = mpsc::sync_channel(0);
    // What a thread allocated it frees best itself: the allocator need not lock then.
    let (back, spent) = mpsc::channel::<B>();
    let maker = move || -> Result<()> {
        while let Some(batch) = make(room)? {
            if to_taker.send(batch).is_err() {
                break;
            }
            // The taker gives one back before it asks for the next: there are never more than two.
            room = spent.try_recv().ok();
        }
        Ok(())
    };
    let maker = thread::Builder::new().name("maker".to_owned()).spawn(maker).map_err(|it| {
        Error::new(Kind::Temporary, "", "cannot start a thread")
            .because(it)
            .cure("allow the tool another task (TasksMax=, ulimit -u)")
    })?;
    for mut batch in batches {
        if !take(&mut batch)? {
            return Ok(());
        }
        // None is left to take it back at the end.
        let _ = back.send(batch);
    }
    maker.join().unwrap_or_else(|panicked| panic::resume_unwind(panicked))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Makes the numbers below `count`, of which those from `full_from` on are full batches.
    fn numbers(count: u32) -> impl FnMut(Option<u32>) -> Result<Option<u32>> + Send + 'static {
        let mut numbers = 0..count;
        move |_| Ok(numbers.next())
    }

    #[test]
    fn everything_is_taken_once_and_in_order() {
        for is_full in [|_: &u32| false, |it: &u32| *it == 3, |_: &u32| true] {
            let mut taken = Vec::new();
            run(numbers(100), is_full, |it| {
                taken.push(*it);
                Ok(true)
            })
            .unwrap();
            assert_eq!(taken, (0..100).collect::<Vec<_>>());
        }
    }

    #[test]
    fn there_are_never_more_than_two_batches() {
        let (mut made, mut anew) = (0, 0);
        let next = move |room: Option<Vec<u32>>| {
            made += 1;
            anew += u32::from(room.is_none());
            assert!(anew <= 2, "batch {made}");
            Ok((made <= 1000).then(|| room.unwrap_or_default()))
        };
        run(next, |_| true, |_| Ok(true)).unwrap();
    }

    #[test]
    fn a_failure_of_either_stage_is_told_after_what_was_made_before_it() {
        for is_full in [|_: &u32| false, |_: &u32| true] {
            let mut three = 0..3;
            let make = move |_| match three.next() {
                Some(it) => Ok(Some(it)),
                None => Err(Error::new(Kind::NoInput, "the maker", "fails")),
            };
            let mut taken = 0;
            let error = run(make, is_full, |_| {
                taken += 1;
                Ok(true)
            });
            assert_eq!((taken, error.unwrap_err().kind()), (3, Kind::NoInput));

            let fails = |it: &mut u32| match it {
                5 => Err(Error::new(Kind::Io, "the taker", "fails")),
                _ => Ok(true),
            };
            assert_eq!(run(numbers(100), is_full, fails).unwrap_err().kind(), Kind::Io);
        }
    }

    #[test]
    fn a_taker_that_has_enough_or_fails_waits_for_no_maker() {
        for enough in [Ok(false), Err(Error::new(Kind::Io, "", "fails"))] {
            let (never, waits) = mpsc::channel::<u32>();
            let mut first = [0, 1].into_iter();
            let make = move |_| Ok(first.next().or_else(|| waits.recv().ok()));
            let mut enough = Some(enough);
            let ended = run(make, |_| true, |it| if *it == 0 { Ok(true) } else { enough.take().unwrap() });
            // The maker waits for a number that comes only now.
            drop(never);
            drop(ended);
        }
    }
}
