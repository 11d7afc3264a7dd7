//! A receiver that misbehaves on purpose, and keeps an honest record of what it was sent and what it took.
//!
//! Sockets of the standard library, a thread a connection: what goes over the wire is written here byte by byte,
//! since no HTTP library sends what must not be sent. Whatever it does in one [`Mode`] it does to every request,
//! until [`Hostile::turn`] gives it another one.
//!
//! # Invariants
//! - A request is remembered before anything is answered to it, with its bytes as they came.
//! - Each event is stored once, whatever is answered; `accepted` and `duplicate` are told by what is stored.
//!
//! Parts: `mode` (what it can do), `conn` (one connection), `request`, `tls`, `gzip`.

mod conn;
mod gzip;
mod mode;
mod request;
mod tls;

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::{Ipv4Addr, SocketAddrV4, TcpListener, TcpStream},
    os::fd::OwnedFd,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use rustix::net::{AddressFamily, SocketType};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use serde_json::{Value, json};

use conn::Conn;
pub use mode::{Early, Framing, Mode, Part, Way, gzip_bomb};
pub use request::Request;
pub use tls::{Authority, Certificate};

/// A hostile receiver on a port of its own.
pub struct Hostile {
    port: u16,
    shared: Arc<Shared>,
    /// The bound socket, while nobody listens on it or nobody accepts.
    idle: Option<OwnedFd>,
}

struct Shared {
    mode: Mutex<Mode>,
    record: Mutex<Record>,
    connections: AtomicUsize,
    tls: Option<Arc<ServerConfig>>,
}

/// What came and what was taken.
#[derive(Default)]
struct Record {
    requests: Vec<Request>,
    /// Keys in the order in which they were stored.
    stored: Vec<String>,
    keys: BTreeSet<String>,
}

impl Hostile {
    /// A server in this mode.
    pub fn start(mode: Mode) -> Hostile {
        Hostile::bind(mode, None).listening()
    }

    /// A server that speaks TLS, with a certificate of this kind.
    pub fn start_tls(mode: Mode, authority: &Authority, certificate: Certificate) -> Hostile {
        Hostile::bind(mode, Some(authority.server(certificate))).listening()
    }

    /// A port on which nobody listens, so that connections are refused; until [`Hostile::open`].
    pub fn refusing() -> Hostile {
        Hostile::bind(Mode::Good, None)
    }

    /// A port on which connections are made and nobody takes them; until [`Hostile::open`].
    pub fn never_accepting() -> Hostile {
        let server = Hostile::bind(Mode::Good, None);
        rustix::net::listen(server.idle.as_ref().unwrap(), 64).unwrap();
        server
    }

    /// Listens and accepts from now on.
    #[must_use]
    pub fn open(self) -> Hostile {
        self.listening()
    }

    fn bind(mode: Mode, tls: Option<Arc<ServerConfig>>) -> Hostile {
        let socket = rustix::net::socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
        rustix::net::bind(&socket, &SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0)).unwrap();
        let listener = TcpListener::from(socket);
        let port = listener.local_addr().unwrap().port();
        let (record, connections) = (Mutex::default(), AtomicUsize::new(0));
        let shared = Arc::new(Shared { mode: Mutex::new(mode), record, connections, tls });
        Hostile { port, shared, idle: Some(listener.into()) }
    }

    fn listening(mut self) -> Hostile {
        let Some(socket) = self.idle.take() else { return self };
        rustix::net::listen(&socket, 1024).unwrap();
        let (listener, shared) = (TcpListener::from(socket), Arc::clone(&self.shared));
        thread::spawn(move || {
            for tcp in listener.incoming().map_while(Result::ok) {
                let shared = Arc::clone(&shared);
                shared.connections.fetch_add(1, Ordering::SeqCst);
                // How a bad connection ends is nobody's business but the client's.
                thread::spawn(move || drop(serve(&shared, tcp)));
            }
        });
        self
    }

    /// From now on it does this; what is under way goes on as it began.
    pub fn turn(&self, mode: Mode) {
        *self.shared.mode.lock().unwrap() = mode;
    }

    /// Its port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Where milestones are posted.
    pub fn url(&self) -> String {
        let scheme = if self.shared.tls.is_some() { "https" } else { "http" };
        format!("{scheme}://127.0.0.1:{}/internal/milestones/ingest", self.port)
    }

    /// Connections so far.
    pub fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::SeqCst)
    }

    /// The requests of which at least the head was read, in order.
    pub fn requests(&self) -> Vec<Request> {
        self.shared.record.lock().unwrap().requests.clone()
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.shared.record.lock().unwrap().requests.len()
    }

    /// The keys that are stored, each once, in the order in which they came.
    pub fn stored(&self) -> Vec<String> {
        self.shared.record.lock().unwrap().stored.clone()
    }

    /// The bodies that came whole, by key; panics when one key came with two bodies.
    pub fn bodies(&self) -> BTreeMap<String, Vec<u8>> {
        let mut bodies: BTreeMap<String, Vec<u8>> = BTreeMap::new();
        for request in self.requests().into_iter().filter(|it| !it.body.is_empty()) {
            let key = request.key().unwrap();
            let first = bodies.entry(key.clone()).or_insert_with(|| request.body.clone());
            assert_eq!(*first, request.body, "{key} came with another body");
        }
        bodies
    }
}

impl Shared {
    fn mode(&self) -> Mode {
        self.mode.lock().unwrap().clone()
    }

    /// Remembers a request.
    fn note(&self, request: &Request) {
        self.record.lock().unwrap().requests.push(request.clone());
    }

    /// Stores the event of a request, and gives the contract's answer.
    fn take(&self, request: &Request) -> Value {
        let body = request.json();
        let key = request.key().unwrap_or_default();
        if key.starts_with("ping:") {
            return json!({ "ok": true, "status": "pong" });
        }
        let mut record = self.record.lock().unwrap();
        let is_new = record.keys.insert(key.clone());
        if is_new {
            record.stored.push(key);
        }
        let seq = record.stored.len();
        let status = if is_new { "accepted" } else { "duplicate" };
        let receipt = json!({ "seq": seq, "head": "a".repeat(64) });
        let mut answer = json!({ "ok": true, "status": status, "receipt": receipt });
        let envelope = &body["envelope"]["event_id"];
        let (name, id) = if envelope.is_string() {
            ("eventId", envelope)
        } else {
            ("milestoneId", &body["event"]["milestoneId"])
        };
        answer[name] = id.clone();
        answer
    }
}

fn serve(shared: &Shared, tcp: TcpStream) -> io::Result<()> {
    tcp.set_nodelay(true)?;
    let raw = tcp.try_clone()?;
    // Some faults come below TLS, or instead of it.
    let mut conn = match &shared.tls {
        Some(config) if !shared.mode().is_instead_of_tls() => {
            let connection = ServerConnection::new(Arc::clone(config)).map_err(io::Error::other)?;
            Conn::new(Box::new(StreamOwned::new(connection, tcp)), raw)
        }
        _ => Conn::new(Box::new(tcp), raw),
    };
    loop {
        if let Mode::Early(early) = shared.mode() {
            return early.play(shared, conn);
        }
        let Some(mut request) = Request::read_head(conn.reader())? else { return Ok(()) };
        // The mode of the time at which the request came.
        let mode = shared.mode();
        if mode == Mode::ResetInBody {
            shared.note(&request);
            return conn.reset();
        }
        request.read_body(conn.reader())?;
        shared.note(&request);
        match mode.play(shared, &request, conn)? {
            Some(kept) => conn = kept,
            None => return Ok(()),
        }
    }
}
