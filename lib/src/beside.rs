//! Two things at once, where it pays: one waits for the disk, the other computes.
//!
//! # Invariants
//! - Both are done when it returns, whatever became of either; a panic of either goes on.
//! - Where no thread can be had they are done one after the other.

use std::{panic::resume_unwind, thread};

/// Does `first` in a thread of its own and `second` meanwhile, if there is so much to do that a thread (about 20 µs)
/// counts for little; else one after the other.
pub fn both<A: Send, B>(
    is_much: bool,
    mut first: impl FnMut() -> A + Send,
    second: impl FnOnce() -> B,
) -> (A, B) {
    if !is_much {
        return (first(), second());
    }
    let (done, second) = thread::scope(|scope| {
        let beside = thread::Builder::new().name("beside".to_owned()).spawn_scoped(scope, &mut first);
        let second = second();
        let done = beside.ok().map(|it| it.join().unwrap_or_else(|panicked| resume_unwind(panicked)));
        (done, second)
    });
    (done.unwrap_or_else(first), second)
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[test]
    fn both_are_done_and_at_once_when_it_is_much() {
        assert_eq!(both(false, || 1, || 2), (1, 2));
        let (to_first, from_second) = mpsc::channel();
        let (to_second, from_first) = mpsc::channel();
        let first = move || {
            to_second.send(()).unwrap();
            from_second.recv().unwrap()
        };
        let second = move || {
            // Neither ends without the other.
            from_first.recv().unwrap();
            to_first.send(3).unwrap();
            4
        };
        assert_eq!(both(true, first, second), (3, 4));
    }

    #[test]
    fn a_panic_of_either_goes_on() {
        for is_much in [false, true] {
            let ended = std::panic::catch_unwind(|| both(is_much, || panic!("on purpose"), || ()));
            assert!(ended.is_err());
            let ended = std::panic::catch_unwind(|| both(is_much, || (), || panic!("on purpose")));
            assert!(ended.is_err());
        }
    }
}
