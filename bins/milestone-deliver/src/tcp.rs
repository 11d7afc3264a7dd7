//! A TCP connection that sends a request in one piece and asks the system no more than it must.
//!
//! ureq's own transport makes twelve system calls for a small request over an open connection, this one three;
//! sending an event costs little else (`scripts/bench/deliver`).
//!
//! # Invariants
//! - What is to be sent is on its way before an answer is waited for.
//! - No call takes longer than the time limit that it was given and a step more.
//! - A connection on which something came that nobody asked for is not used again.

use std::{
    fmt,
    io::{self, ErrorKind, Read, Write},
    net::TcpStream,
    time::{Duration, Instant},
};

use rustix::net::{RecvFlags, recv};
use ureq::{
    Error, Timeout,
    unversioned::transport::{
        Buffers, ConnectionDetails, Connector, LazyBuffers, NextTimeout, Transport,
        time::Duration::{Exact, NotHappening},
    },
};

/// What is held back at most, to be sent together.
const TOGETHER_MAX: usize = 64 << 10;

/// Opens connections.
#[derive(Clone, Copy, Debug)]
pub struct Tcp {
    /// Time limits of the socket are multiples of this: setting one costs a system call, and most requests are
    /// quick.
    pub step: Duration,
}

/// See the head of this file.
pub struct TcpConnection {
    stream: TcpStream,
    buffers: LazyBuffers,
    /// What was not sent yet.
    waiting: Vec<u8>,
    step: Duration,
    read_limit: Option<Duration>,
    write_limit: Option<Duration>,
}

impl<In: Transport> Connector<In> for Tcp {
    type Out = TcpConnection;

    fn connect(&self, details: &ConnectionDetails, _: Option<In>) -> Result<Option<TcpConnection>, Error> {
        let until = match details.timeout.after {
            Exact(left) => Some(Instant::now() + left),
            NotHappening => None,
        };
        let mut failed = Error::HostNotFound;
        let count = details.addrs.len();
        for (at, address) in details.addrs.iter().enumerate() {
            let left = until.map(|it| it.saturating_duration_since(Instant::now()));
            if left.is_some_and(|it| it.is_zero()) {
                return Err(Error::Timeout(details.timeout.reason));
            }
            // Half of what is left for each, so that one that is silent leaves time for the others.
            let share = left.map(|it| if at + 1 < count { it / 2 } else { it });
            let connected = match share {
                Some(share) => TcpStream::connect_timeout(address, share),
                None => TcpStream::connect(address),
            };
            match connected {
                Ok(stream) => {
                    stream.set_nodelay(true)?;
                    let config = details.config;
                    return Ok(Some(TcpConnection {
                        stream,
                        buffers: LazyBuffers::new(config.input_buffer_size(), config.output_buffer_size()),
                        waiting: Vec::new(),
                        step: self.step,
                        read_limit: None,
                        write_limit: None,
                    }));
                }
                Err(cause) if is_timeout(&cause) => failed = Error::Timeout(Timeout::Connect),
                Err(cause) => failed = Error::Io(cause),
            }
        }
        Err(failed)
    }
}

impl TcpConnection {
    fn flush(&mut self, timeout: NextTimeout) -> Result<(), Error> {
        if self.waiting.is_empty() {
            return Ok(());
        }
        let limit = rounded(timeout, self.step)?;
        if limit != self.write_limit {
            self.stream.set_write_timeout(limit)?;
            self.write_limit = limit;
        }
        let sent = self.stream.write_all(&self.waiting);
        self.waiting.clear();
        sent.map_err(|it| if is_timeout(&it) { Error::Timeout(timeout.reason) } else { Error::Io(it) })
    }
}

impl Transport for TcpConnection {
    fn buffers(&mut self) -> &mut dyn Buffers {
        &mut self.buffers
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), Error> {
        let output = self.buffers.output();
        self.waiting.extend_from_slice(output.get(..amount).unwrap_or(output));
        if self.waiting.len() >= TOGETHER_MAX { self.flush(timeout) } else { Ok(()) }
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, Error> {
        self.flush(timeout)?;
        let limit = rounded(timeout, self.step)?;
        if limit != self.read_limit {
            self.stream.set_read_timeout(limit)?;
            self.read_limit = limit;
        }
        let until = limit.map(|it| Instant::now() + it);
        loop {
            match self.stream.read(self.buffers.input_append_buf()) {
                Ok(read) => {
                    self.buffers.input_appended(read);
                    return Ok(read > 0);
                }
                // A signal must not make the time begin anew.
                Err(cause) if cause.kind() == ErrorKind::Interrupted => {
                    if until.is_some_and(|it| it <= Instant::now()) {
                        return Err(Error::Timeout(timeout.reason));
                    }
                }
                Err(cause) if is_timeout(&cause) => return Err(Error::Timeout(timeout.reason)),
                Err(cause) => return Err(Error::Io(cause)),
            }
        }
    }

    fn is_open(&mut self) -> bool {
        let nothing_came = recv(&self.stream, &mut [0_u8; 1], RecvFlags::PEEK | RecvFlags::DONTWAIT);
        self.buffers.input().is_empty() && nothing_came.is_err_and(|it| it == rustix::io::Errno::AGAIN)
    }
}

impl fmt::Debug for TcpConnection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TcpConnection").field("stream", &self.stream).finish_non_exhaustive()
    }
}

fn is_timeout(cause: &io::Error) -> bool {
    matches!(cause.kind(), ErrorKind::TimedOut | ErrorKind::WouldBlock)
}

/// The time that is left, rounded up to a multiple of the step; none for ever.
fn rounded(timeout: NextTimeout, step: Duration) -> Result<Option<Duration>, Error> {
    let Exact(left) = timeout.after else { return Ok(None) };
    if left.is_zero() {
        return Err(Error::Timeout(timeout.reason));
    }
    let steps = u32::try_from(left.as_nanos().div_ceil(step.as_nanos().max(1))).unwrap_or(u32::MAX);
    Ok(Some(step.saturating_mul(steps).max(left)))
}
