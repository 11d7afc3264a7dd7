//! Signals: the one that must not kill us, and the two that ask us to end.
//!
//! # Invariants
//! - A write beyond the file size limit gives an error (`EFBIG`) and does not kill the tool in mid-append.
//! - The first SIGTERM or SIGINT asks; the second ends the process at once, as if it had no handler.
//!
//! SIGPIPE needs nothing where Rust's runtime ignores it: a closed pipe is an error of the write.

use std::sync::{Arc, atomic::AtomicBool};

use signal_hook::{
    consts::{SIGHUP, SIGINT, SIGPIPE, SIGTERM, SIGXFSZ},
    flag,
};

use crate::{Error, Kind, Result};

/// A flag that is set when somebody asks the process to end (SIGTERM, SIGINT).
///
/// For tools that stay (`--watch`, `--follow`): finish what is in flight, commit, exit 0. A wait is not cut
/// short by the signal, so look at the flag at least every few hundred milliseconds.
///
/// # Errors
/// When the system refuses the handler.
pub fn shutdown_flag() -> Result<Arc<AtomicBool>> {
    let asked = Arc::new(AtomicBool::new(false));
    for signal in [SIGTERM, SIGINT] {
        // Registered first, so that it sees the flag as it was before this signal.
        flag::register_conditional_default(signal, Arc::clone(&asked))
            .and_then(|_| flag::register(signal, Arc::clone(&asked)))
            .map_err(|cause| Error::new(Kind::Io, "", "cannot handle signals").because(cause))?;
    }
    Ok(asked)
}

/// A flag that is set when somebody asks a service to read its files again (SIGHUP). Whoever does so clears it.
///
/// # Errors
/// When the system refuses the handler.
pub fn reload_flag() -> Result<Arc<AtomicBool>> {
    let asked = Arc::new(AtomicBool::new(false));
    flag::register(SIGHUP, Arc::clone(&asked))
        .map_err(|cause| Error::new(Kind::Io, "", "cannot handle SIGHUP").because(cause))?;
    Ok(asked)
}

/// Makes a write beyond `ulimit -f` an error instead of a death.
pub(super) fn survive_file_size_limit() -> Result<()> {
    survive(SIGXFSZ)
}

/// Makes a write to a pipe that nobody reads an error instead of a death.
pub(super) fn survive_broken_pipes() -> Result<()> {
    survive(SIGPIPE)
}

fn survive(signal: i32) -> Result<()> {
    // Any handler does; SIG_IGN would be inherited by the programs that we start.
    flag::register(signal, Arc::new(AtomicBool::new(false)))
        .map(|_| ())
        .map_err(|cause| Error::new(Kind::Io, "", "cannot handle signals").because(cause))
}
