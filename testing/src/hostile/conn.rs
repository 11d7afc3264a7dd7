//! One connection that may be treated badly: broken off, flooded, dripped into, reset.

use std::{
    io::{self, BufReader, Read, Write},
    net::{Shutdown, TcpStream},
    thread,
    time::Duration,
};

/// Plain or encrypted.
pub(super) trait Stream: Read + Write + Send {}

impl<T: Read + Write + Send> Stream for T {}

/// A connection to a client.
pub(super) struct Conn {
    stream: BufReader<Box<dyn Stream>>,
    tcp: TcpStream,
}

impl Conn {
    pub fn new(stream: Box<dyn Stream>, tcp: TcpStream) -> Conn {
        Conn { stream: BufReader::new(stream), tcp }
    }

    pub fn reader(&mut self) -> &mut dyn Read {
        &mut self.stream
    }

    /// All of it, at once.
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        self.stream.get_mut().write_all(bytes.as_ref())?;
        self.stream.get_mut().flush()
    }

    /// Below TLS, where there is any.
    pub fn send_raw(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.tcp.write_all(bytes)
    }

    /// FIN, orderly: what the client still sends is taken, so that nothing is reset.
    pub fn fin(mut self) -> io::Result<()> {
        self.stream.get_mut().flush()?;
        self.tcp.shutdown(Shutdown::Write)?;
        self.wait_for_end()
    }

    /// RST.
    pub fn reset(self) -> io::Result<()> {
        rustix::net::sockopt::set_socket_linger(&self.tcp, Some(Duration::ZERO))?;
        Ok(())
    }

    /// Says nothing until the client has had enough.
    pub fn wait_for_end(mut self) -> io::Result<()> {
        let mut sink = [0; 4096];
        while self.tcp.read(&mut sink)? > 0 {}
        Ok(())
    }

    /// The same bytes over and over, up to so many, or until the client has had enough.
    pub fn flood(&mut self, piece: &[u8], bytes: u64) -> io::Result<()> {
        let block = piece.repeat((64 << 10) / piece.len() + 1);
        let mut left = bytes;
        while left > 0 {
            let take = usize::try_from(left).unwrap_or(usize::MAX).min(block.len());
            self.send(&block[..take])?;
            left -= take as u64;
        }
        Ok(())
    }

    /// A piece every so often, for ever.
    pub fn drip(&mut self, piece: &[u8], pause: Duration) -> io::Result<()> {
        loop {
            self.send(piece)?;
            thread::sleep(pause);
        }
    }
}
