//! What the receiver does to a connection or with a request, each in one line where it is done.

use std::{
    io,
    sync::atomic::{AtomicU64, Ordering},
    thread,
    time::Duration,
};

use serde_json::json;

use super::{Conn, Request, Shared, gzip};

/// What is done to every request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mode {
    /// The contract's answer.
    Good,
    /// Something before any request was read.
    Early(Early),
    /// RST when the head was read and the body was not.
    ResetInBody,
    /// The event is stored, and the connection ends in this way, this far into the answer.
    Lost(Part, Way),
    /// The same without storing anything.
    Broken(Part, Way),
    /// These bytes instead of an answer; then FIN.
    Raw(Vec<u8>),
    /// A status, more headers (each with its line end) and a body.
    Answer(u16, &'static str, &'static str),
    /// As `Answer`, with a rejection by the contract as the body.
    Rejection(u16),
    /// The contract's answer with more headers (each with its line end).
    GoodWith(&'static str),
    /// The contract's answer after these bytes.
    GoodAfter(&'static str),
    /// The contract's answer, slowly.
    GoodIn(Duration),
    /// The contract's answer by HTTP/1.0, to the end of the connection.
    GoodByHttp10,
    /// The contract's answer with its body compressed, though nobody asked for that.
    GoodGzipped,
    /// The contract's answer; then FIN or RST, though keep-alive was said.
    GoodThen(Way),
    /// The contract's answer, and a rejection behind it that nobody asked for.
    GoodWithSurplus,
    /// The contract's answer, but for another item.
    OtherItem,
    /// Everything is a duplicate.
    Duplicate,
    /// These bytes of headers over and over.
    EndlessHeaders(&'static str),
    /// A piece of the headers every so often, for ever.
    DrippingHeaders,
    /// A byte of the body every so often, for ever.
    DrippingBody,
    /// Interim answers for ever, with a pause in between.
    EndlessInterim(Duration),
    /// This status and a body of a gigabyte.
    Huge(u16, Framing),
    /// By turns, as a dice falls: all that may pass, and the contract's answer.
    Mixed,
}

/// What is done before any request is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Early {
    /// Nothing is read or said.
    Silence,
    /// FIN.
    Close,
    /// RST.
    Reset,
    /// RST in the request's head.
    ResetInHead,
    /// 503, before the request was read.
    Unavailable,
    /// Plain HTTP on a port for TLS.
    PlainText,
    /// Garbage on a port for TLS.
    Garbage,
    /// A TLS alert: no common language.
    Alert,
    /// FIN in the TLS handshake.
    CloseInHandshake,
}

/// How far an answer got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// Not one byte of it.
    Nothing,
    /// Into the status line.
    Status,
    /// Into the headers.
    Headers,
    /// Into the body.
    Body,
    /// Into a chunk of the body.
    Chunk,
}

/// How a connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// FIN.
    Close,
    /// RST.
    Reset,
    /// Silence.
    Hang,
}

/// How a body is framed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// By `content-length`.
    Length,
    /// In chunks.
    Chunks,
    /// By the end of the connection.
    Close,
}

const GIGABYTE: u64 = 1 << 30;
const PAUSE: Duration = Duration::from_millis(20);
const OK: &str = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n";
const REJECTED: &str = r#"{"ok":false,"status":"rejected","reason":"no such scope"}"#;

impl Early {
    pub(super) fn play(self, _: &Shared, mut conn: Conn) -> io::Result<()> {
        match self {
            Early::Silence => conn.wait_for_end(),
            Early::Close => conn.fin(),
            Early::Reset => conn.reset(),
            Early::ResetInHead => {
                conn.reader().read_exact(&mut [0; 20])?;
                conn.reset()
            }
            Early::Unavailable => {
                conn.send("HTTP/1.1 503 X\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")?;
                conn.fin()
            }
            Early::PlainText => {
                conn.send_raw(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n")?;
                conn.fin()
            }
            Early::Garbage => {
                conn.send_raw(&garbage(4096))?;
                conn.fin()
            }
            Early::Alert => {
                conn.send_raw(&[21, 3, 3, 0, 2, 2, 40])?;
                conn.fin()
            }
            Early::CloseInHandshake => {
                conn.reader().read_exact(&mut [0; 50])?;
                conn.fin()
            }
        }
    }
}

impl Way {
    fn end(self, conn: Conn) -> io::Result<()> {
        match self {
            Way::Close => conn.fin(),
            Way::Reset => conn.reset(),
            Way::Hang => conn.wait_for_end(),
        }
    }
}

impl Mode {
    /// Whether it comes in the place of TLS, where the server speaks it.
    pub(super) fn is_instead_of_tls(&self) -> bool {
        matches!(self, Mode::Early(_))
    }

    /// Answers a request, or not. Gives the connection back when it is kept.
    pub(super) fn play(
        &self,
        shared: &Shared,
        request: &Request,
        mut conn: Conn,
    ) -> io::Result<Option<Conn>> {
        match self {
            Mode::Good | Mode::Early(_) => conn.send(good(shared, request, ""))?,
            Mode::Lost(part, way) => {
                shared.take(request);
                begin(*part, &mut conn)?;
                return way.end(conn).map(|()| None);
            }
            Mode::Broken(part, way) => {
                begin(*part, &mut conn)?;
                return way.end(conn).map(|()| None);
            }
            Mode::ResetInBody => return conn.reset().map(|()| None),
            Mode::Raw(bytes) => {
                conn.send(bytes)?;
                return conn.fin().map(|()| None);
            }
            Mode::Answer(status, headers, body) => conn.send(answer(*status, headers, body))?,
            Mode::Rejection(status) => conn.send(answer(*status, "", REJECTED))?,
            Mode::GoodWith(headers) => conn.send(good(shared, request, headers))?,
            Mode::GoodAfter(first) => {
                conn.send(first)?;
                conn.send(good(shared, request, ""))?;
            }
            Mode::GoodIn(time) => {
                thread::sleep(*time);
                conn.send(good(shared, request, ""))?;
            }
            Mode::GoodByHttp10 => {
                let head = "HTTP/1.0 200 OK\r\ncontent-type: application/json\r\n\r\n";
                conn.send(format!("{head}{}", shared.take(request)))?;
                return conn.fin().map(|()| None);
            }
            Mode::GoodGzipped => {
                let body = gzip::stored(shared.take(request).to_string().as_bytes());
                conn.send(format!("{OK}content-encoding: gzip\r\ncontent-length: {}\r\n\r\n", body.len()))?;
                conn.send(body)?;
            }
            Mode::GoodThen(way) => {
                conn.send(good(shared, request, ""))?;
                if *way == Way::Reset {
                    // The answer first: a reset may overtake it.
                    thread::sleep(PAUSE);
                }
                return way.end(conn).map(|()| None);
            }
            Mode::GoodWithSurplus => {
                let good = good(shared, request, "");
                conn.send(good + &answer(400, "", REJECTED))?;
            }
            Mode::OtherItem => {
                let body = json!({ "ok": true, "status": "accepted", "milestoneId": "another" });
                conn.send(answer(200, "", &body.to_string()))?;
            }
            Mode::Duplicate => {
                let mut body = shared.take(request);
                body["status"] = json!("duplicate");
                conn.send(answer(200, "", &body.to_string()))?;
            }
            Mode::EndlessHeaders(piece) => {
                conn.send("HTTP/1.1 200 OK\r\n")?;
                conn.flood(piece.as_bytes(), GIGABYTE)?;
            }
            Mode::DrippingHeaders => {
                conn.send("HTTP/1.1 200 OK\r\n")?;
                conn.drip(b"x-a: b\r\n", PAUSE)?;
            }
            Mode::DrippingBody => {
                conn.send(format!("{OK}content-length: 100000\r\n\r\n"))?;
                conn.drip(b" ", PAUSE)?;
            }
            Mode::EndlessInterim(pause) => loop {
                conn.send("HTTP/1.1 100 Continue\r\n\r\n")?;
                if !pause.is_zero() {
                    thread::sleep(*pause);
                }
            },
            Mode::Huge(status, framing) => huge(*status, *framing, &mut conn)?,
            Mode::Mixed => return mixed().play(shared, request, conn),
        }
        Ok(Some(conn))
    }
}

/// Repeatable, but another one for every request of the process.
fn mixed() -> Mode {
    static DICE: AtomicU64 = AtomicU64::new(1);
    let roll =
        DICE.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::SeqCst).wrapping_mul(0xbf58_476d_1ce4_e5b9) >> 40;
    match roll % 16 {
        0 => Mode::Answer(503, "", ""),
        1 => Mode::Lost(Part::Nothing, Way::Reset),
        2 => Mode::Lost(Part::Body, Way::Close),
        3 => Mode::Lost(Part::Headers, Way::Reset),
        4 => Mode::Broken(Part::Nothing, Way::Close),
        5 => Mode::Answer(500, "", "oops"),
        6 => Mode::GoodThen(Way::Close),
        _ => Mode::Good,
    }
}

/// An answer of so many bytes that is broken off there.
fn begin(part: Part, conn: &mut Conn) -> io::Result<()> {
    match part {
        Part::Nothing => Ok(()),
        Part::Status => conn.send("HTTP/1.1 20"),
        Part::Headers => conn.send(OK),
        Part::Body => conn.send(format!("{OK}content-length: 400\r\n\r\n{{\"ok\":true,")),
        Part::Chunk => conn.send(format!("{OK}transfer-encoding: chunked\r\n\r\n40\r\n{{\"ok\":true,")),
    }
}

fn good(shared: &Shared, request: &Request, headers: &str) -> String {
    answer(200, headers, &shared.take(request).to_string())
}

fn answer(status: u16, headers: &str, body: &str) -> String {
    let length = if status == 204 || status == 304 {
        String::new()
    } else {
        format!("content-length: {}\r\n", body.len())
    };
    format!("HTTP/1.1 {status} X\r\ncontent-type: application/json\r\n{length}{headers}\r\n{body}")
}

fn huge(status: u16, framing: Framing, conn: &mut Conn) -> io::Result<()> {
    let head = format!("HTTP/1.1 {status} X\r\ncontent-type: application/json\r\n");
    match framing {
        Framing::Length => conn.send(format!("{head}content-length: {GIGABYTE}\r\n\r\n"))?,
        Framing::Close => conn.send(format!("{head}connection: close\r\n\r\n"))?,
        Framing::Chunks => {
            conn.send(format!("{head}transfer-encoding: chunked\r\n\r\n"))?;
            let chunk = format!("1000\r\n{}\r\n", "x".repeat(0x1000));
            return conn.flood(chunk.as_bytes(), GIGABYTE);
        }
    }
    conn.flood(b"x", GIGABYTE)
}

/// Bytes that are no protocol at all, the same every time.
fn garbage(count: usize) -> Vec<u8> {
    let mut state = 7_u64;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        state.to_be_bytes()[0]
    };
    (0..count).map(|_| next()).collect()
}

/// An answer of so many bytes of gzip that become about 150 times as many zeros.
pub fn gzip_bomb(bytes: usize) -> Mode {
    let body = gzip::bomb(bytes);
    let head = format!("{OK}content-encoding: gzip\r\ncontent-length: {}\r\n\r\n", body.len());
    Mode::Raw([head.into_bytes(), body].concat())
}
