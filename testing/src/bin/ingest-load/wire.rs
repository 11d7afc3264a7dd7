//! Many connections in one thread: each sends its next request when the answer before it has come.

use std::{
    io::{self, Read, Write},
    net::{SocketAddr, TcpStream},
    os::fd::{AsFd, OwnedFd},
    time::{Duration, Instant},
};

use milepost::{Error, Kind, Result};
use rustix::{
    buffer::spare_capacity,
    event::epoll::{self, CreateFlags, EventData, EventFlags},
};

use crate::requests::{self, Wire};

/// What is read at a time.
const READ_BYTES: usize = 16 << 10;
/// Nothing that is waited for takes so long.
const PATIENCE: Duration = Duration::from_secs(30);

/// Whom to load, and by how many connections.
pub struct Load {
    /// The receiver.
    pub address: SocketAddr,
    /// How many.
    pub connections: usize,
}

/// How long it took: all, and each request.
pub struct Times {
    /// From the first request to the last answer.
    pub took: Duration,
    /// From a request to its answer.
    pub each: Vec<Duration>,
}

struct Connection {
    stream: TcpStream,
    unread: Vec<u8>,
    sent_at: Instant,
}

impl Load {
    /// Sends each request once.
    pub fn each(&self, requests: &[Wire]) -> Result<Times> {
        self.send(requests.len(), |at| &requests[at])
    }

    /// Sends one request many times.
    pub fn repeat(&self, request: &Wire, times: usize) -> Result<Times> {
        self.send(times, |_| request)
    }

    fn send<'a>(&self, count: usize, request: impl Fn(usize) -> &'a Wire) -> Result<Times> {
        let mut peers = Peers::connect(self.address, self.connections.min(count))?;
        let mut each = Vec::with_capacity(count);
        let began = Instant::now();
        let mut sent = 0;
        for at in 0..peers.all.len() {
            peers.all[at].send(request(sent))?;
            sent += 1;
        }
        while each.len() < count {
            for at in peers.wait()? {
                let peer = &mut peers.all[at];
                peer.take()?;
                while let Some(answer) = whole_answer(&peer.unread)? {
                    peer.unread.drain(..answer);
                    each.push(peer.sent_at.elapsed());
                    if sent < count {
                        peer.send(request(sent))?;
                        sent += 1;
                    }
                }
            }
        }
        Ok(Times { took: began.elapsed(), each })
    }

    /// Opens streams, then posts one request after the other, each when all streams have the one before.
    pub fn stream(&self, streams: usize, posts: &[Wire]) -> Result<Times> {
        let mut poster = Connection::open(self.address)?;
        let mut peers = Peers::connect(self.address, streams)?;
        let opening = requests::stream();
        peers.all.iter_mut().try_for_each(|it| it.send(&opening))?;
        // The head and the first line of a stream: from then on it is there.
        peers.until_all(|unread| unread.windows(8).any(|it| it == b"retry: 2"))?;
        let (began, mut each) = (Instant::now(), Vec::new());
        for post in posts {
            peers.all.iter_mut().for_each(|it| it.unread.clear());
            poster.send(post)?;
            let times = peers.until_all(|unread| unread.windows(5).any(|it| it == b"\nid: "))?;
            each.extend(times.into_iter().map(|it| it.duration_since(poster.sent_at)));
            while whole_answer(&poster.unread)?.is_none() {
                poster.take()?;
            }
            poster.unread.clear();
        }
        Ok(Times { took: began.elapsed(), each })
    }
}

/// Connections that are waited for together.
struct Peers {
    all: Vec<Connection>,
    poll: OwnedFd,
}

impl Peers {
    fn connect(address: SocketAddr, count: usize) -> Result<Peers> {
        let poll = epoll::create(CreateFlags::CLOEXEC).map_err(|it| failed("cannot wait", it.into()))?;
        let mut all = Vec::with_capacity(count);
        for at in 0..count {
            let connection = Connection::open(address)?;
            epoll::add(&poll, connection.stream.as_fd(), EventData::new_u64(at as u64), EventFlags::IN)
                .map_err(|it| failed("cannot wait", it.into()))?;
            all.push(connection);
        }
        Ok(Peers { all, poll })
    }

    /// Those that have something to read.
    fn wait(&self) -> Result<Vec<usize>> {
        let mut events = Vec::with_capacity(64);
        let patience = rustix::event::Timespec { tv_sec: 30, tv_nsec: 0 };
        epoll::wait(&self.poll, spare_capacity(&mut events), Some(&patience))
            .map_err(|it| failed("cannot wait", it.into()))?;
        if events.is_empty() {
            return Err(failed("no answer came", io::ErrorKind::TimedOut.into()));
        }
        Ok(events.iter().map(|it| usize::try_from(it.data.u64()).unwrap_or_default()).collect())
    }

    /// Reads until every connection has what is wanted; when each had it.
    fn until_all(&mut self, has: impl Fn(&[u8]) -> bool) -> Result<Vec<Instant>> {
        let mut when = vec![None; self.all.len()];
        let mut missing = self.all.len();
        while missing > 0 {
            for at in self.wait()? {
                self.all[at].take()?;
                if when[at].is_none() && has(&self.all[at].unread) {
                    when[at] = Some(Instant::now());
                    missing -= 1;
                }
            }
        }
        Ok(when.into_iter().flatten().collect())
    }
}

impl Connection {
    fn open(address: SocketAddr) -> Result<Connection> {
        let stream = TcpStream::connect(address).map_err(|it| failed("cannot connect", it))?;
        let ready = stream.set_nodelay(true).and_then(|()| stream.set_read_timeout(Some(PATIENCE)));
        ready.map_err(|it| failed("cannot connect", it))?;
        Ok(Connection { stream, unread: Vec::with_capacity(4096), sent_at: Instant::now() })
    }

    /// Sends a request. It may wait for the receiver to take it; answers are small and wait for nobody.
    fn send(&mut self, request: &[u8]) -> Result<()> {
        self.sent_at = Instant::now();
        self.stream.write_all(request).map_err(|it| failed("cannot send", it))
    }

    /// Reads once, waiting if need be.
    fn take(&mut self) -> Result<()> {
        let start = self.unread.len();
        self.unread.resize(start + READ_BYTES, 0);
        let read = self.stream.read(&mut self.unread[start..]).map_err(|it| failed("cannot read", it))?;
        self.unread.truncate(start + read);
        match read {
            0 => Err(failed("the connection was closed", io::ErrorKind::UnexpectedEof.into())),
            _ => Ok(()),
        }
    }
}

/// The length of the whole answer that `bytes` begin with, if all of it has come.
fn whole_answer(bytes: &[u8]) -> Result<Option<usize>> {
    let Some(head) = memchr::memmem::find(bytes, b"\r\n\r\n") else { return Ok(None) };
    let text = String::from_utf8_lossy(&bytes[..head]);
    let length = text.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().ok())?
    });
    let whole = head + 4 + length.unwrap_or(0);
    if bytes.len() < whole {
        return Ok(None);
    }
    let body = &bytes[head + 4..whole];
    let has = |word: &[u8]| memchr::memmem::find(body, word).is_some();
    if !text.starts_with("HTTP/1.1 200 ") || has(b"\"rejected\"") || has(b"\"duplicate\"") {
        let shown: String = String::from_utf8_lossy(&bytes[..whole]).chars().take(600).collect();
        return Err(Error::new(Kind::No, "", format!("an answer is not the wanted one: {shown:?}")));
    }
    Ok(Some(whole))
}

fn failed(what: &'static str, cause: io::Error) -> Error {
    Error::new(Kind::Unavailable, "", what).because(cause)
}
