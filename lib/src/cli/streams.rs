//! Standard input and output as the caller gave them, seen before Rust's runtime repairs them.
//!
//! When file descriptor 0, 1 or 2 is closed at start, the runtime (or `entry`) opens `/dev/null` there. Results then
//! vanish and the tool still exits 0: an acknowledgement nobody got. `/dev/null` itself proves nothing,
//! since many callers pass it on purpose, so the look must come before `main`.
//!
//! # Invariants
//! - The look happens once, before `main`, and takes two `fcntl` calls.
//! - A descriptor opened for the wrong direction counts as closed.

use std::{
    env, io,
    sync::atomic::{AtomicBool, Ordering::Relaxed},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fd::BorrowedFd,
    fs::{OFlags, fcntl_getfl},
    io::Errno,
    stdio,
    termios::tcgetwinsize,
};

static STDIN_IS_CLOSED: AtomicBool = AtomicBool::new(false);
static STDOUT_IS_CLOSED: AtomicBool = AtomicBool::new(false);

/// Whether standard input was closed when the process started: there is no input, not an empty one.
pub fn stdin_is_closed() -> bool {
    STDIN_IS_CLOSED.load(Relaxed)
}

/// Whether standard output was closed when the process started: no result can reach anybody.
pub fn stdout_is_closed() -> bool {
    STDOUT_IS_CLOSED.load(Relaxed)
}

extern "C" fn look() {
    let unusable =
        |stream, wrong_way| fcntl_getfl(stream).map_or(true, |it| it & OFlags::RWMODE == wrong_way);
    STDIN_IS_CLOSED.store(unusable(stdio::stdin(), OFlags::WRONLY), Relaxed);
    STDOUT_IS_CLOSED.store(unusable(stdio::stdout(), OFlags::RDONLY), Relaxed);
}

#[used]
#[expect(
    unsafe_code,
    reason = "the loader calls what stands in this section before the runtime starts; \
              `look` only makes system calls and stores two atomics, so it needs no runtime"
)]
#[unsafe(link_section = ".init_array")]
static LOOK_BEFORE_MAIN: extern "C" fn() = look;

/// The columns of the terminal that standard output is; none where it is no terminal.
pub fn columns_on_stdout() -> Option<usize> {
    columns_of(stdio::stdout())
}

/// The columns of the terminal that a stream is; none where it is no terminal.
pub(super) fn columns_of(stream: BorrowedFd<'_>) -> Option<usize> {
    let size = tcgetwinsize(stream).ok()?;
    // A terminal that nobody told its size says 0.
    Some(usize::from(size.ws_col)).filter(|it| *it > 0)
}

/// Whether terminals here show more than ASCII, as the locale says: `LC_ALL`, else `LC_CTYPE`, else `LANG`.
pub(super) fn terminals_show_utf8() -> bool {
    let set = ["LC_ALL", "LC_CTYPE", "LANG"].into_iter().filter_map(env::var_os).find(|it| !it.is_empty());
    set.is_some_and(|it| is_utf8(&it.to_string_lossy()))
}

/// `de_DE.UTF-8`, `C.utf8`.
fn is_utf8(locale: &str) -> bool {
    let charset = locale.split('@').next().and_then(|it| it.split_once('.')).map_or("", |(_, it)| it);
    charset.eq_ignore_ascii_case("utf-8") || charset.eq_ignore_ascii_case("utf8")
}

/// Whether `stream` is a pipe that nobody reads from any more. Only a write fails there, and whoever waits for
/// something to write would wait for nobody.
pub(super) fn is_left(stream: BorrowedFd<'_>) -> bool {
    let mut polled = [PollFd::new(&stream, PollFlags::empty())];
    matches!(poll(&mut polled, Some(&Timespec::default())), Ok(1))
        && polled[0].revents().contains(PollFlags::ERR)
}

/// Writes all of `bytes` to `stream`, past interruptions and short writes.
///
/// Standard streams are shared with other processes, one of which may have made them non-blocking;
/// waiting is then for us to do.
///
/// # Errors
/// The failed write, for example `EPIPE`, `ENOSPC`, `EFBIG`; part of `bytes` may have been written.
pub(super) fn write_all(stream: BorrowedFd<'_>, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match rustix::io::write(stream, bytes) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => bytes = &bytes[written..],
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => match poll(&mut [PollFd::new(&stream, PollFlags::OUT)], None) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(cause) => return Err(cause.into()),
            },
            Err(cause) => return Err(cause.into()),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_locale_says_whether_it_is_utf8() {
        for locale in ["C.UTF-8", "de_DE.utf8", "ca_ES.UTF-8@valencia"] {
            assert!(is_utf8(locale), "{locale}");
        }
        for locale in ["C", "POSIX", "de_DE", "de_DE.ISO-8859-15@euro", "UTF-8"] {
            assert!(!is_utf8(locale), "{locale}");
        }
    }
}
