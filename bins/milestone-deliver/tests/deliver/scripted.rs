//! A queue, and a server that answers by a script and remembers every request.

use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
    process::Command,
    sync::{Arc, Mutex},
    thread,
};

use milepost_testing::{Run, Scratch};
use serde_json::{Value, json};

use crate::queue::{QUEUE, SECRET, TOOL, append, record};

/// A request as it came.
#[derive(Clone, Debug)]
pub struct Request {
    pub path: String,
    pub headers: BTreeMap<String, String>,
    pub body: Vec<u8>,
}

impl Request {
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    pub fn id(&self) -> String {
        self.json()["event"]["milestoneId"].as_str().unwrap_or_default().to_owned()
    }
}

/// What the server does with a request, and whether the connection lives on.
pub enum Answer {
    /// These bytes; then the connection is kept.
    Bytes(Vec<u8>),
    /// These bytes; then FIN.
    Close(Vec<u8>),
}

type Script = dyn FnMut(usize, &Request) -> Answer + Send;

/// A server on a free port that answers by a script and remembers every request.
pub struct Server {
    pub port: u16,
    requests: Arc<Mutex<Vec<Request>>>,
}

impl Server {
    pub fn start(script: impl FnMut(usize, &Request) -> Answer + Send + 'static) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let requests = Arc::new(Mutex::new(Vec::new()));
        let script: Arc<Mutex<Box<Script>>> = Arc::new(Mutex::new(Box::new(script)));
        let seen = Arc::clone(&requests);
        thread::spawn(move || {
            for stream in listener.incoming() {
                let (script, seen) = (Arc::clone(&script), Arc::clone(&seen));
                thread::spawn(move || serve(&stream.unwrap(), &script, &seen));
            }
        });
        Server { port, requests }
    }

    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}/internal/milestones/ingest", self.port)
    }

    pub fn requests(&self) -> Vec<Request> {
        self.requests.lock().unwrap().clone()
    }

    pub fn ids(&self) -> Vec<String> {
        self.requests().iter().map(Request::id).collect()
    }
}

fn serve(stream: &TcpStream, script: &Mutex<Box<Script>>, seen: &Mutex<Vec<Request>>) {
    let mut reader = BufReader::new(stream);
    while let Some(request) = read_request(&mut reader) {
        let number = {
            let mut seen = seen.lock().unwrap();
            seen.push(request.clone());
            seen.len() - 1
        };
        let answer = script.lock().unwrap()(number, &request);
        let mut stream = stream;
        match answer {
            Answer::Bytes(bytes) => stream.write_all(&bytes).unwrap(),
            Answer::Close(bytes) => {
                drop(stream.write_all(&bytes));
                drop(stream.shutdown(Shutdown::Both));
                return;
            }
        }
    }
}

fn read_request(reader: &mut BufReader<&TcpStream>) -> Option<Request> {
    let mut line = String::new();
    reader.read_line(&mut line).ok().filter(|it| *it > 0)?;
    let path = line.split(' ').nth(1)?.to_owned();
    let mut headers = BTreeMap::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let Some((name, value)) = line.trim_end().split_once(": ") else { break };
        headers.insert(name.to_ascii_lowercase(), value.to_owned());
    }
    let mut body = vec![0; headers.get("content-length")?.parse().ok()?];
    reader.read_exact(&mut body).ok()?;
    Some(Request { path, headers, body })
}

pub fn http(status: u16, extra: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    format!("HTTP/1.1 {status} X\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n{extra}\r\n{body}")
        .into_bytes()
}

pub fn status(status: u16, body: &str) -> Answer {
    Answer::Bytes(http(status, "", body))
}

pub fn accepted(request: &Request) -> Answer {
    let body = match request.json()["envelope"]["event_id"].as_str() {
        Some(id) => json!({"ok":true,"status":"accepted","eventId":id}),
        None => {
            json!({"ok":true,"status":"accepted","milestoneId":request.id(),"receipt":{"seq":1,"head":"ab"}})
        }
    };
    status(200, &body.to_string())
}

pub const REJECTED: &str = r#"{"ok":false,"status":"rejected","reason":"no such scope"}"#;

/// A logs folder with these milestones in the queue, and a secret.
pub fn scratch(ids: &[&str]) -> Scratch {
    let scratch = Scratch::new();
    scratch.secret("secret", SECRET);
    enqueue(&scratch, ids);
    scratch
}

/// Each waits for itself only.
pub fn enqueue(scratch: &Scratch, ids: &[&str]) {
    let records: Vec<_> = ids.iter().map(|id| record(id, id)).collect();
    append(scratch, QUEUE, &records);
}

pub fn command(scratch: &Scratch, url: &str, more: &[&str]) -> Command {
    let mut command = scratch.command(TOOL);
    command.args(["--url", url, "--secret-file", "secret"]).args(more);
    command
}

pub fn deliver(scratch: &Scratch, server: &Server, more: &[&str]) -> Run {
    Run::of(command(scratch, &server.url(), more).spawn().unwrap())
}

/// The fields of the result line.
pub fn counts(run: &Run) -> (u64, u64, u64, u64) {
    let result = run.results().pop().unwrap();
    let field = |name: &str| result[name].as_u64().unwrap();
    (field("delivered"), field("retrying"), field("deadLettered"), field("pending"))
}

pub fn state(scratch: &Scratch) -> Value {
    serde_json::from_slice(&fs::read(scratch.log("milestone-delivery-state.json")).unwrap()).unwrap()
}
