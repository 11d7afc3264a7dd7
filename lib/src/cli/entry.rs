//! Where the tools begin that run once for each event: at C's `main`, without the start of Rust's runtime.
//!
//! That start reads `/proc/self/maps` and sets up a stack for the handler that says "stack overflow": 0.04 ms, a
//! twentieth of all that an emit takes. What a tool needs of it is done here.
//!
//! # Invariants
//! - Descriptors 0 to 2 are open before anything else is opened, so that no message ends up in a journal.
//! - A write to a pipe that nobody reads is an error (`EPIPE`) and no death, as after Rust's own start.
//! - A panic ends with 70 ([`run_tool`](super::run_tool)); a stack overflow is a plain SIGSEGV.

use std::{ffi::c_int, os::fd::IntoRawFd as _, process};

use argh::{ArgsInfo, TopLevelCommand};
use rustix::{
    fs::{Mode, OFlags, fcntl_getfl, open},
    io::Errno,
    stdio,
};

use super::{Output, Verdict, exit_code, signals};
use crate::Result;

/// Makes C's `main` of a tool's name and its `run`, where the C library is glibc: only that one hands the arguments to
/// Rust without its start. The file needs `#![cfg_attr(all(target_os = "linux", target_env = "gnu", not(test)), no_main)]`.
#[macro_export]
macro_rules! tool_main {
    ($tool:expr, $run:path) => {
        #[cfg(all(target_os = "linux", target_env = "gnu", not(test)))]
        #[expect(unsafe_code, reason = "the C library calls `main`, and nothing else here has that name")]
        #[unsafe(no_mangle)]
        extern "C" fn main() -> ::std::ffi::c_int {
            $crate::cli::run_from_c($tool, $run)
        }

        #[cfg(not(all(target_os = "linux", target_env = "gnu", not(test))))]
        fn main() -> ::std::process::ExitCode {
            $crate::cli::run_tool($tool, $run)
        }
    };
}

/// As [`run_tool`](super::run_tool), for [`tool_main`](crate::tool_main).
pub fn run_from_c<A>(tool: &'static str, run: impl FnOnce(A, &mut Output) -> Result<Verdict>) -> c_int
where
    A: TopLevelCommand + ArgsInfo,
{
    for stream in [stdio::stdin(), stdio::stdout(), stdio::stderr()] {
        if fcntl_getfl(stream) == Err(Errno::BADF) {
            // The lowest free one is opened: this. As Rust's start does, where there is none it goes no further.
            let Ok(null) = open("/dev/null", OFlags::RDWR, Mode::empty()) else { process::abort() };
            let _stays_open = null.into_raw_fd();
        }
    }
    let pipes = signals::survive_broken_pipes();
    let code = exit_code(tool, |args, out| {
        pipes?;
        run(args, out)
    });
    c_int::from(code)
}
