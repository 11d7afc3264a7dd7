//! A receiver in a folder of its own, and the smallest HTTP client that does what the tests need.

use std::{
    fmt::Write as _,
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    time::Duration,
};

use milepost::{
    Timestamp, canonical,
    chain::Chain,
    clock, identity, ingest,
    secret::{Origin, Secret},
    signing::Signer,
};
use serde_json::{Value, json};
use tempfile::TempDir;

pub const SECRET: &str = "the secret of the tests";
pub const MILESTONES: &str = ingest::MILESTONES_PATH;
pub const EVENTS: &str = ingest::EVENTS_PATH;
/// Longer than anything that is waited for takes.
const PATIENCE: Duration = Duration::from_secs(30);

/// A logs folder, which outlives the receivers in it.
pub struct Folder {
    dir: TempDir,
}

/// A running receiver.
pub struct Receiver {
    child: Child,
    pub address: SocketAddr,
}

/// What came back.
#[derive(Debug)]
pub struct Response {
    pub status: u16,
    pub head: String,
    pub body: String,
}

/// A request that is not sent yet.
#[derive(Clone, Debug)]
pub struct Request {
    pub path: String,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Folder {
    pub fn new() -> Folder {
        Folder { dir: tempfile::tempdir().unwrap() }
    }

    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    pub fn command(&self, flags: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_milestone-receive"));
        command
            .env_clear()
            .env("CLAWDBOT_MILESTONE_WEBHOOK_SECRET", SECRET)
            .arg("--logs")
            .arg(self.path())
            .args(["--listen", "127.0.0.1:0"])
            .args(flags);
        command
    }

    pub fn start(&self) -> Receiver {
        self.start_with(&[])
    }

    pub fn start_with(&self, flags: &[&str]) -> Receiver {
        Receiver::begin(self.command(flags).stderr(Stdio::null()))
    }

    /// Runs it to its end, for starts that fail.
    pub fn run(&self, flags: &[&str]) -> Output {
        self.command(flags).output().unwrap()
    }

    pub fn file(&self, name: &str) -> PathBuf {
        self.path().join(name)
    }

    pub fn lines(&self, name: &str) -> Vec<Value> {
        let text = fs::read_to_string(self.file(name)).unwrap_or_default();
        assert!(text.is_empty() || text.ends_with('\n'), "{name} ends within a line");
        text.lines().map(|it| serde_json::from_str(it).unwrap()).collect()
    }

    /// Walks the hash chain of a journal; how many lines it has.
    pub fn verify_chain(&self, name: &str) -> u64 {
        let text = fs::read_to_string(self.file(name)).unwrap_or_default();
        let mut chain = Chain::default();
        for line in text.lines() {
            chain.step(line.as_bytes()).unwrap();
        }
        chain.seq
    }

    /// The outcomes that the audit tells of a key.
    pub fn audited(&self, key: &str) -> Vec<String> {
        let lines = self.lines("audit.jsonl");
        let of_key = lines.iter().filter(|it| it["idempotency_key"] == key && it["action"] == "receive");
        of_key.map(|it| it["outcome"].as_str().unwrap().to_owned()).collect()
    }
}

impl Receiver {
    /// Starts the program and waits until it listens.
    pub fn begin(command: &mut Command) -> Receiver {
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let listening: Value = serde_json::from_str(&line).unwrap();
        assert_eq!(listening["status"], "listening");
        let address = listening["address"].as_str().unwrap().strip_prefix("http://").unwrap();
        Receiver { child, address: address.parse().unwrap() }
    }

    /// What it says to its operator, if `begin` was given a pipe for that.
    pub fn messages(&mut self) -> impl Iterator<Item = String> + use<> {
        BufReader::new(self.child.stderr.take().unwrap()).lines().map(|it| it.unwrap())
    }

    pub fn signal(&self, signal: rustix::process::Signal) {
        rustix::process::kill_process(rustix::process::Pid::from_child(&self.child), signal).unwrap();
    }

    pub fn post(&self, request: &Request) -> Response {
        let mut stream = self.connect();
        send(&mut stream, "POST", request);
        read(stream)
    }

    /// Posts a milestone with these fields changed, properly signed.
    pub fn emit(&self, id: &str, changes: &Value) -> Response {
        self.post(&signed(&event(id, changes)))
    }

    pub fn get(&self, path: &str) -> Response {
        self.get_with(path, &[])
    }

    pub fn get_with(&self, path: &str, headers: &[(&str, &str)]) -> Response {
        let mut stream = self.connect();
        send(&mut stream, "GET", &Request { path: path.into(), headers: owned(headers), body: Vec::new() });
        read(stream)
    }

    pub fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Asks it to end, and waits; the exit code.
    pub fn end(mut self) -> i32 {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        self.child.wait().unwrap().code().unwrap()
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Response {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|it| panic!("{it}: {:?}", self.body))
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (its_name, value) = line.split_once(": ")?;
            its_name.eq_ignore_ascii_case(name).then_some(value)
        })
    }

    /// The status, and the contract's status where there is one.
    pub fn verdict(&self) -> (u16, String) {
        (self.status, self.json()["status"].as_str().unwrap_or_default().to_owned())
    }

    pub fn reason(&self) -> String {
        self.json()["reason"].as_str().unwrap().to_owned()
    }
}

pub fn owned(headers: &[(&str, &str)]) -> Vec<(String, String)> {
    headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

/// Writes a request; whether all of it was taken.
pub fn send(stream: &mut TcpStream, method: &str, request: &Request) -> bool {
    let mut head = format!("{method} {} HTTP/1.1\r\nconnection: close\r\n", request.path);
    let has = |name: &str| request.headers.iter().any(|it| it.0 == name);
    if !has("host") {
        head.push_str("host: 127.0.0.1\r\n");
    }
    if method == "POST" && !has("content-length") && !has("transfer-encoding") {
        write!(head, "content-length: {}\r\n", request.body.len()).unwrap();
    }
    for (name, value) in &request.headers {
        write!(head, "{name}: {value}\r\n").unwrap();
    }
    head.push_str("\r\n");
    let bytes = [head.as_bytes(), &request.body].concat();
    stream.write_all(&bytes).is_ok()
}

pub fn read(mut stream: TcpStream) -> Response {
    let mut bytes = Vec::new();
    let mut piece = [0; 16384];
    // A receiver that refuses a long body may reset the connection behind its answer.
    while let Ok(length @ 1..) = stream.read(&mut piece) {
        bytes.extend_from_slice(&piece[..length]);
    }
    let text = String::from_utf8(bytes).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no answer: {text:?}"));
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    Response { status, head: head.to_owned(), body: body.to_owned() }
}

pub fn secret(text: &str) -> Secret {
    Secret::from_bytes(text.as_bytes().to_vec(), Origin::Variable("S".to_owned())).unwrap()
}

/// A milestone, with these fields changed.
pub fn event(id: &str, changes: &Value) -> Value {
    let mut event = json!({
        "milestoneId": id,
        "timestampUtc": "2026-03-01T09:05:00.000Z",
        "scope": "runtime",
        "claim": format!("Claim of {id}."),
        "evidence": [{ "type": "log", "path": "/srv/app/run.log", "summary": "It ran." }],
        "riskStatus": "on-track",
        "nextAction": "Go on.",
        "source": "agent",
    });
    for (name, value) in changes.as_object().into_iter().flatten() {
        event[name] = value.clone();
    }
    event
}

/// The request for an event, as Milepost's sender makes it.
pub fn signed(event: &Value) -> Request {
    let key = identity::milestone_key(event["milestoneId"].as_str().unwrap_or("none"));
    signed_body(MILESTONES, &key, &ingest::milestone_body(&key, Timestamp::from_millis(0), event))
}

/// Any body, signed in both schemes.
pub fn signed_body(path: &str, key: &str, body: &[u8]) -> Request {
    signed_by(&Signer::new(&secret(SECRET), None), clock::now(), path, key, body)
}

pub fn signed_by(signer: &Signer, now: Timestamp, path: &str, key: &str, body: &[u8]) -> Request {
    let id = identity::webhook_id(&identity::trace_id(key));
    let mut made = signer.headers(now, &id, body);
    // One scheme signs the bytes as they are, the other their canonical form.
    if let Ok(parsed) = serde_json::from_slice(body) {
        let canonical = canonical::to_vec(&parsed);
        made.openclaw_signature = signer.headers(now, &id, &canonical).openclaw_signature;
    }
    let mut headers = owned(&made.pairs());
    headers.push(("content-type".into(), "application/json".into()));
    Request { path: path.into(), headers, body: body.to_vec() }
}

impl Request {
    pub fn without(mut self, names: &[&str]) -> Request {
        self.headers.retain(|it| !names.contains(&it.0.as_str()));
        self
    }

    pub fn with(mut self, name: &str, value: &str) -> Request {
        self.headers.push((name.into(), value.into()));
        self
    }

    pub fn replacing(self, name: &str, value: &str) -> Request {
        self.without(&[name]).with(name, value)
    }

    pub fn body(mut self, body: &[u8]) -> Request {
        self.body = body.to_vec();
        self
    }
}
