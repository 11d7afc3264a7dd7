//! milestone-deliver as a process against a scripted HTTP server: the queue in, requests and journals out.
#![expect(clippy::unwrap_used, reason = "a test that cannot set itself up has failed")]

use std::{
    collections::BTreeMap,
    fs::{self, Permissions},
    io::{BufRead, BufReader, Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
    os::unix::fs::PermissionsExt,
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex, mpsc},
    thread,
    time::Duration,
};

use milepost::{
    Timestamp, clock,
    envelope::{EventEnvelope, MILESTONE_EMITTED, REMINDER_DUE},
    journal::{Batch, JournalName},
    logs::Logs,
    queue,
    secret::SecretSource,
    signing::{SignatureHeaders, Verifier, Which},
};
use milepost_testing::{Run, Scratch, milestone};
use serde_json::{Value, json};

const TOOL: &str = "milestone-deliver";
const QUEUE: &str = "milestone-delivery-queue";
const SECRET: &str = "whsec_c2VjcmV0IG9mIHRoZSB0ZXN0cw==";

/// A request as it came.
#[derive(Clone, Debug)]
struct Request {
    path: String,
    headers: BTreeMap<String, String>,
    body: Vec<u8>,
}

impl Request {
    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    fn id(&self) -> String {
        self.json()["event"]["milestoneId"].as_str().unwrap_or_default().to_owned()
    }
}

/// What the server does with a request, and whether the connection lives on.
enum Answer {
    /// These bytes; then the connection is kept.
    Bytes(Vec<u8>),
    /// These bytes; then FIN.
    Close(Vec<u8>),
    /// These bytes, one every so often, for ever.
    Drip(Duration),
    /// Nothing at all.
    Hang,
}

type Script = dyn FnMut(usize, &Request) -> Answer + Send;

/// A server on a free port that answers by a script and remembers every request.
struct Server {
    port: u16,
    requests: Arc<Mutex<Vec<Request>>>,
}

impl Server {
    fn start(script: impl FnMut(usize, &Request) -> Answer + Send + 'static) -> Server {
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

    fn url(&self) -> String {
        format!("http://127.0.0.1:{}/internal/milestones/ingest", self.port)
    }

    fn requests(&self) -> Vec<Request> {
        self.requests.lock().unwrap().clone()
    }

    fn ids(&self) -> Vec<String> {
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
            Answer::Drip(pause) => {
                drop(stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 600\r\n\r\n"));
                while stream.write_all(b" ").is_ok() {
                    thread::sleep(pause);
                }
                return;
            }
            Answer::Hang => {
                let mut rest = [0];
                drop(stream.read(&mut rest));
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

fn http(status: u16, extra: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    format!("HTTP/1.1 {status} X\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n{extra}\r\n{body}")
        .into_bytes()
}

fn status(status: u16, body: &str) -> Answer {
    Answer::Bytes(http(status, "", body))
}

fn accepted(request: &Request) -> Answer {
    let body = match request.json()["envelope"]["event_id"].as_str() {
        Some(id) => json!({"ok":true,"status":"accepted","eventId":id}),
        None => {
            json!({"ok":true,"status":"accepted","milestoneId":request.id(),"receipt":{"seq":1,"head":"ab"}})
        }
    };
    status(200, &body.to_string())
}

const REJECTED: &str = r#"{"ok":false,"status":"rejected","reason":"no such scope"}"#;

/// A logs folder with these milestones in the queue, and a secret.
fn scratch(ids: &[&str]) -> Scratch {
    let scratch = Scratch::new();
    let path = scratch.write("secret", format!("{SECRET}\n"));
    fs::set_permissions(path, Permissions::from_mode(0o640)).unwrap();
    enqueue(&scratch, ids);
    scratch
}

fn enqueue(scratch: &Scratch, ids: &[&str]) {
    let records: Vec<_> = ids
        .iter()
        .map(|id| {
            let mut event = milestone(id);
            // Each waits for itself only.
            event["scope"] = json!(id);
            envelope(MILESTONE_EMITTED, &format!("milestone:{id}"), &event)
        })
        .collect();
    append(scratch, QUEUE, &records);
}

fn envelope(event_type: &str, key: &str, payload: &Value) -> EventEnvelope {
    let sent = Timestamp::parse_utc("2026-03-01T09:05:00Z").unwrap();
    EventEnvelope::new(event_type, "agent", "feed", key.to_owned(), payload, sent).unwrap()
}

fn append(scratch: &Scratch, queue_name: &str, records: &[EventEnvelope]) {
    let logs = Logs::open(Some(&scratch.log("")), "test").unwrap();
    let mut writer = queue::open(&logs, JournalName::internal(queue_name)).write().unwrap();
    let mut batch = Batch::default();
    for record in records {
        let mut line = Vec::new();
        record.write_line(&mut line).unwrap();
        batch.push(&line);
    }
    writer.append(&batch).unwrap();
}

fn command(scratch: &Scratch, url: &str, more: &[&str]) -> Command {
    let mut command = scratch.command(TOOL);
    command.args(["--url", url, "--secret-file", "secret"]).args(more);
    command
}

fn deliver(scratch: &Scratch, server: &Server, more: &[&str]) -> Run {
    Run::of(command(scratch, &server.url(), more).spawn().unwrap())
}

/// The fields of the result line.
fn counts(run: &Run) -> (u64, u64, u64, u64) {
    let result = run.results().pop().unwrap();
    let field = |name: &str| result[name].as_u64().unwrap();
    (field("delivered"), field("retrying"), field("deadLettered"), field("pending"))
}

fn state(scratch: &Scratch) -> Value {
    serde_json::from_slice(&fs::read(scratch.log("milestone-delivery-state.json")).unwrap()).unwrap()
}

fn wait_until(mut is_so: impl FnMut() -> bool) {
    for _ in 0..3000 {
        if is_so() {
            return;
        }
        thread::park_timeout(Duration::from_millis(10));
    }
    panic!("it never happens");
}

fn terminate(child: &Child) {
    assert!(Command::new("kill").arg(child.id().to_string()).status().unwrap().success());
}

#[test]
fn milestones_are_posted_signed_and_audited() {
    let scratch = scratch(&["m1", "m2"]);
    let server = Server::start(|_, it| accepted(it));
    let run = deliver(&scratch, &server, &[]).exits(0);
    assert_eq!(
        run.stdout,
        "{\"status\":\"ok\",\"delivered\":2,\"duplicate\":0,\"retrying\":0,\"deadLettered\":0,\"pending\":0,\"nextAttemptUtc\":null}\n"
    );
    assert_eq!(run.stderr, "");
    let requests = server.requests();
    assert_eq!(server.ids(), ["m1", "m2"]);
    let first = &requests[0];
    assert_eq!(first.path, "/internal/milestones/ingest");
    assert_eq!(first.headers["content-type"], "application/json");
    assert!(!first.headers.contains_key("accept-encoding"));
    assert_eq!(first.json()["sentAtUtc"], "2026-03-01T09:05:00.000Z");
    assert_eq!(first.json().as_object().unwrap().len(), 3);
    let secret = SecretSource::WEBHOOK.load(Some(&scratch.dir().join("secret")), false).unwrap();
    let verifier = Verifier::new(&secret, None, true, Duration::from_secs(300));
    let header = |name: &str| first.headers.get(name).map(String::as_str);
    let headers = SignatureHeaders {
        openclaw_signature: header("x-openclaw-signature"),
        openclaw_timestamp: header("x-openclaw-timestamp"),
        webhook_id: header("webhook-id"),
        webhook_timestamp: header("webhook-timestamp"),
        webhook_signature: header("webhook-signature"),
    };
    let checked = verifier.check_headers(&headers, clock::now()).unwrap();
    assert_eq!(verifier.verify(&checked, &first.body, &first.json()).unwrap(), Which::Current);
    let audit = scratch.records("audit");
    let [one, two] = &audit[..] else { panic!("one record an event: {audit:?}") };
    assert_eq!((&one["action"], &one["outcome"]), (&json!("deliver"), &json!("acknowledged")));
    assert_eq!(one["detail"]["receipt"], json!({"seq":1,"head":"ab"}));
    assert_eq!(two["idempotency_key"], "milestone:m2");
    assert_eq!(state(&scratch)["lastAck"]["idempotencyKey"], "milestone:m2");
    assert_eq!(counts(&deliver(&scratch, &server, &[]).exits(0)), (0, 0, 0, 0));
    assert_eq!(scratch.records("audit").len(), 2);
}

#[test]
fn the_state_has_the_fields_that_the_design_names() {
    let scratch = scratch(&["m1", "m2", "m3"]);
    let server = Server::start(|_, it| if it.id() == "m2" { status(500, "") } else { accepted(it) });
    deliver(&scratch, &server, &[]).exits(0);
    let state = state(&scratch);
    let fields: Vec<_> = state.as_object().unwrap().keys().map(String::as_str).collect();
    let expected = [
        "auditOffset",
        "breaker",
        "controlOffset",
        "cursor",
        "deadLetterOffset",
        "endpoint",
        "lastAck",
        "retries",
        "url",
        "version",
    ];
    assert_eq!(fields, expected);
    let retry = &state["retries"][0];
    assert_eq!((&retry["scope"], &retry["attempts"], &retry["tries"]), (&json!("m2"), &json!(1), &json!(1)));
}

type Make = Box<dyn Fn() -> Answer + Send>;
/// What is answered, the reason in the audit, whether an attempt is used, whether the breaker opens.
type Row = (String, Make, &'static str, bool, bool);

fn code(code: u16, body: &'static str) -> Make {
    Box::new(move || status(code, body))
}

fn rows_of_forms() -> Vec<Row> {
    let half =
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 400\r\n\r\n{\"ok\":true,";
    let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n";
    let close = |it: String| -> Make { Box::new(move || Answer::Close(it.clone().into_bytes())) };
    vec![
        ("rejected".into(), code(400, REJECTED), "rejected", true, false),
        ("proxy's 400".into(), code(400, "<html>"), "foreign-answer", false, true),
        ("login page".into(), code(200, "<html>please log in</html>"), "foreign-answer", false, true),
        ("ok false".into(), code(200, "{\"ok\":false}"), "foreign-answer", false, true),
        ("broken json".into(), code(200, "{\"ok\":tru"), "foreign-answer", false, true),
        (
            "no body".into(),
            Box::new(|| Answer::Bytes(b"HTTP/1.1 204 X\r\n\r\n".to_vec())),
            "foreign-answer",
            false,
            true,
        ),
        (
            "HTTP/1.0".into(),
            close("HTTP/1.0 200 OK\r\n\r\n{\"ok\":true}".into()),
            "foreign-answer",
            false,
            true,
        ),
        ("closed in the body".into(), close(half.into()), "broken-answer", true, false),
        ("closed in the headers".into(), close(head.into()), "broken-answer", true, false),
        ("garbage".into(), close("\u{1}\u{2}\u{3} no http\r\n\r\n".into()), "broken-answer", true, false),
        ("no status line".into(), close("{\"ok\":true}".into()), "broken-answer", true, false),
        (
            "bad chunk".into(),
            close(format!("{head}transfer-encoding: chunked\r\n\r\nZZZ\r\nx\r\n0\r\n\r\n")),
            "broken-answer",
            true,
            false,
        ),
        (
            "huge body".into(),
            close(format!("{head}content-length: 300000\r\n\r\n{}", "x".repeat(300_000))),
            "broken-answer",
            true,
            false,
        ),
        (
            "huge headers".into(),
            close(format!("{head}x: {}\r\n\r\n", "y".repeat(300_000))),
            "broken-answer",
            true,
            false,
        ),
        (
            "endless interim answers".into(),
            close("HTTP/1.1 100 Continue\r\n\r\n".repeat(20_000)),
            "broken-answer",
            true,
            false,
        ),
        (
            "another protocol".into(),
            close("HTTP/1.1 101 X\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n".into()),
            "broken-answer",
            true,
            false,
        ),
        ("closed without an answer".into(), close(String::new()), "connection", false, false),
        ("dripping".into(), Box::new(|| Answer::Drip(Duration::from_millis(20))), "timeout", false, false),
        ("silence".into(), Box::new(|| Answer::Hang), "timeout", false, false),
        ("gone".into(), code(410, ""), "gone", false, true),
        (
            "disabled".into(),
            Box::new(|| Answer::Bytes(http(503, "webhook-delivery: disable\r\n", ""))),
            "disabled",
            false,
            true,
        ),
        (
            "huge 404".into(),
            close(format!("HTTP/1.1 404 X\r\ncontent-length: 300000\r\n\r\n{}", "x".repeat(300_000))),
            "not-found",
            false,
            true,
        ),
    ]
}

fn rows_of_statuses() -> Vec<Row> {
    let mut rows: Vec<Row> = Vec::new();
    for it in [409, 413, 415, 422] {
        rows.push((it.to_string(), code(it, REJECTED), "rejected", true, false));
    }
    for it in [500, 501, 505, 507, 599] {
        rows.push((it.to_string(), code(it, ""), "server-error", true, false));
    }
    for it in [408, 425, 502, 503, 504, 520, 530] {
        rows.push((it.to_string(), code(it, ""), "unavailable", false, false));
    }
    rows.push(("429".into(), code(429, ""), "rate-limited", false, false));
    for (it, reason) in [
        (301, "redirect"),
        (302, "redirect"),
        (307, "redirect"),
        (308, "redirect"),
        (304, "redirect"),
        (401, "unauthorized"),
        (403, "forbidden"),
        (404, "not-found"),
        (405, "method-not-allowed"),
        (402, "client-error"),
        (418, "client-error"),
        (451, "client-error"),
    ] {
        rows.push((it.to_string(), code(it, REJECTED), reason, false, true));
    }
    rows
}

#[test]
fn every_row_of_the_table_does_what_it_says() {
    for (name, make, reason, is_counted, opens) in rows_of_forms().into_iter().chain(rows_of_statuses()) {
        let scratch = scratch(&["m1"]);
        let server = Server::start(move |_, _| make());
        let run = deliver(&scratch, &server, &["--timeout", "400ms"]).exits(0);
        let audit = scratch.records("audit");
        let record = audit.iter().find(|it| it["action"] == "deliver").unwrap();
        let rejected = reason == "rejected";
        assert_eq!(record["detail"]["reason"], reason, "{name}: {record}");
        assert_eq!(record["detail"]["attempt"] == 1, is_counted, "{name}: {record}");
        assert_eq!(scratch.records("milestone-delivery-deadletter").len(), usize::from(rejected), "{name}");
        let held_or_open = state(&scratch)["breaker"]["state"] != "closed";
        assert_eq!(held_or_open, opens, "{name}: {}", run.stderr);
        assert_eq!(counts(&run).3, u64::from(!rejected), "{name}");
        assert!(server.requests().len() <= 2, "{name}: {}", server.requests().len());
    }
}

#[test]
fn a_redirect_is_not_followed() {
    let scratch = scratch(&["m1"]);
    let elsewhere = Server::start(|_, it| accepted(it));
    let location = format!("location: {}\r\n", elsewhere.url());
    let server = Server::start(move |_, _| Answer::Bytes(http(307, &location, "")));
    deliver(&scratch, &server, &[]).exits(0);
    assert_eq!((server.requests().len(), elsewhere.requests().len()), (1, 0));
}

#[test]
fn no_connection_is_the_endpoints_fault() {
    let scratch = scratch(&["m1"]);
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    for (url, reason) in [
        (format!("http://127.0.0.1:{port}/"), "connection"),
        ("https://milepost.invalid/".to_owned(), "name"),
    ] {
        scratch.run(TOOL, &["--resync", "start"]).exits(0);
        Run::of(command(&scratch, &url, &["--timeout", "5s"]).spawn().unwrap()).exits(0);
        let audit = scratch.records("audit");
        assert_eq!(audit.last().unwrap()["detail"]["reason"], reason);
        assert_eq!(audit.last().unwrap()["detail"]["attempt"], 0);
    }
}

#[test]
fn plain_text_is_no_tls() {
    let scratch = scratch(&["m1"]);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("https://127.0.0.1:{}/", listener.local_addr().unwrap().port());
    thread::spawn(move || {
        for stream in listener.incoming() {
            drop(stream.unwrap().write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n"));
        }
    });
    Run::of(command(&scratch, &url, &[]).spawn().unwrap()).exits(0);
    let audit = scratch.records("audit");
    assert_eq!(audit.last().unwrap()["detail"]["fault"], "endpoint");
    assert_eq!(audit.last().unwrap()["detail"]["attempt"], 0);
}

#[test]
fn every_attempt_of_a_key_has_the_same_body_and_drain_ends_when_nothing_is_pending() {
    let scratch = scratch(&["m1", "m2", "m3"]);
    let server = Server::start(|number, it| match number % 3 {
        0 => status(503, ""),
        1 => Answer::Close(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n{".to_vec()),
        _ => accepted(it),
    });
    let more = ["--drain", "--backoff-base", "5ms", "--backoff-cap", "20ms", "--drain-timeout", "60s"];
    let run = deliver(&scratch, &server, &more).exits(0);
    assert_eq!(counts(&run), (3, 0, 0, 0));
    let mut bodies: BTreeMap<String, Vec<u8>> = BTreeMap::new();
    for request in server.requests() {
        assert_eq!(*bodies.entry(request.id()).or_insert_with(|| request.body.clone()), request.body);
    }
    assert_eq!(bodies.len(), 3);
}

#[test]
fn a_connection_that_was_closed_meanwhile_is_opened_again_at_once() {
    let ids: Vec<String> = (0..50).map(|it| format!("m{it}")).collect();
    let scratch = scratch(&ids.iter().map(String::as_str).collect::<Vec<_>>());
    // It says keep-alive and closes.
    let server = Server::start(|_, it| match accepted(it) {
        Answer::Bytes(bytes) => Answer::Close(bytes),
        other => other,
    });
    assert_eq!(counts(&deliver(&scratch, &server, &[]).exits(0)), (50, 0, 0, 0));
}

#[test]
fn attempts_run_out_and_make_a_dead_letter() {
    let scratch = scratch(&["m1"]);
    let server = Server::start(|_, _| status(500, "boom"));
    let more = ["--drain", "--max-attempts", "3", "--backoff-base", "1ms", "--backoff-cap", "2ms"];
    let run = deliver(&scratch, &server, &more).exits(0);
    assert_eq!((counts(&run), server.requests().len()), ((0, 0, 1, 0), 3));
    let [dead] = &scratch.records("milestone-delivery-deadletter")[..] else { panic!("one dead letter") };
    assert_eq!(dead["reason"], "given up after 3 attempts: HTTP 500: boom");
    assert_eq!(dead["attempts"].as_array().unwrap().len(), 3);
    assert_eq!(dead["queue_offset"], 0);
    assert_eq!(dead["endpoint"], "");
}

#[test]
fn drain_exits_75_when_held_misconfigured_or_out_of_time() {
    let scratch = scratch(&["m1"]);
    let server = Server::start(|_, _| status(401, ""));
    let run = deliver(&scratch, &server, &["--drain"]).exits(75);
    assert!(run.stderr.contains("wrong secret"), "{}", run.stderr);
    scratch.run(TOOL, &["--hold", "deploying"]).exits(0);
    let run = deliver(&scratch, &server, &["--drain"]).exits(75);
    assert!(run.stderr.contains("deploying"), "{}", run.stderr);
    scratch.run(TOOL, &["--release"]).exits(0);
    let server = Server::start(|_, _| status(503, ""));
    let run = deliver(&scratch, &server, &["--drain", "--drain-timeout", "300ms"]).exits(75);
    assert!(run.stderr.contains("--drain-timeout"), "{}", run.stderr);
}

#[test]
fn hold_release_and_retry_now_work_from_outside() {
    let scratch = scratch(&["m1"]);
    let server = Server::start(|number, it| if number == 0 { status(500, "") } else { accepted(it) });
    assert_eq!(scratch.run(TOOL, &["--hold", "x"]).exits(0).all("command"), ["hold: x"]);
    assert_eq!(counts(&deliver(&scratch, &server, &[]).exits(0)), (0, 0, 0, 1));
    assert_eq!(server.requests().len(), 0);
    scratch.run(TOOL, &["--release"]).exits(0);
    assert_eq!(counts(&deliver(&scratch, &server, &[]).exits(0)), (0, 1, 0, 1));
    assert_eq!(counts(&deliver(&scratch, &server, &[]).exits(0)), (0, 1, 0, 1));
    scratch.run(TOOL, &["--retry-now"]).exits(0);
    assert_eq!(counts(&deliver(&scratch, &server, &[]).exits(0)), (1, 0, 0, 0));
}

#[test]
fn what_is_not_configured_is_78_and_shows_no_secret() {
    let scratch = scratch(&[]);
    let without = |args: &[&str]| scratch.run(TOOL, args).exits(78).stderr;
    assert!(without(&["--secret-file", "secret"]).contains("--url or $MILESTONE_INGEST_URL"));
    let reminders = ["--queue", "reminder-delivery-queue.jsonl", "--secret-file", "secret"];
    assert!(without(&reminders).contains("$MILESTONE_REMINDER_URL"));
    assert!(without(&["--url", "http://127.0.0.1:9/"]).contains("CLAWDBOT_MILESTONE_WEBHOOK_SECRET"));
    for url in ["", "nonsense", "ftp://127.0.0.1/", "http://app.example/", "http://me:hunter2@127.0.0.1/"] {
        let stderr = without(&["--url", url, "--secret-file", "secret"]);
        assert!(!stderr.contains("hunter2"), "{stderr}");
    }
    let path = scratch.write("open", "topsecret\n");
    fs::set_permissions(path, Permissions::from_mode(0o644)).unwrap();
    let stderr = without(&["--url", "http://127.0.0.1:9/", "--secret-file", "open"]);
    assert!(stderr.contains("--allow-readable-secret") && !stderr.contains("topsecret"), "{stderr}");
    scratch
        .run(TOOL, &["--url", "http://127.0.0.1:9/", "--secret-file", "open", "--allow-readable-secret"])
        .exits(0);
    fs::set_permissions(scratch.write("empty", "\n"), Permissions::from_mode(0o600)).unwrap();
    without(&["--url", "http://127.0.0.1:9/", "--secret-file", "empty"]);
    for args in
        [&["--watch", "--drain"][..], &["--drain-timeout", "5s"], &["--max-attempts", "0"], &["--ack", "x"]]
    {
        scratch.run(TOOL, args).exits(64);
    }
}

#[test]
fn an_environment_proxy_is_not_used() {
    let scratch = scratch(&["m1"]);
    let server = Server::start(|_, it| accepted(it));
    let mut command = command(&scratch, &server.url(), &[]);
    for name in ["http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY", "https_proxy"] {
        command.env(name, "http://127.0.0.1:1/");
    }
    assert_eq!(counts(&Run::of(command.spawn().unwrap()).exits(0)).0, 1);
}

#[test]
fn the_url_comes_from_the_environment_and_other_events_go_to_their_own_path() {
    let scratch = scratch(&[]);
    let payload = json!({"scope":"chat:42","task_id":"t1","title":"x"});
    let record = envelope(REMINDER_DUE, "rem:chat:42:t1:2026-03-01T09:00Z", &payload);
    append(&scratch, "reminder-delivery-queue", &[record]);
    let server = Server::start(|_, it| accepted(it));
    let mut command = scratch.command(TOOL);
    command
        .args(["--queue", "reminder-delivery-queue.jsonl", "--secret-file", "secret"])
        .env("MILESTONE_REMINDER_URL", format!("http://127.0.0.1:{}", server.port));
    assert_eq!(counts(&Run::of(command.spawn().unwrap()).exits(0)).0, 1);
    let [request] = &server.requests()[..] else { panic!("one request") };
    assert_eq!(request.path, "/internal/events/ingest");
    assert_eq!(request.json()["envelope"]["payload"], payload);
    assert!(scratch.log("reminder-delivery-state.json").exists());
}

#[test]
fn ping_says_pong_or_why_not_and_stores_nothing() {
    let scratch = scratch(&[]);
    let pong = Server::start(|_, _| status(200, r#"{"ok":true,"status":"pong"}"#));
    assert_eq!(deliver(&scratch, &pong, &["--ping"]).exits(0).all("status"), ["pong"]);
    let [request] = &pong.requests()[..] else { panic!("one request") };
    assert!(request.json()["idempotencyKey"].as_str().unwrap().starts_with("ping:"));
    assert_eq!(request.json()["event"], Value::Null);
    let wrong = Server::start(|_, _| status(401, REJECTED));
    let run = deliver(&scratch, &wrong, &["--ping"]).exits(78);
    assert_eq!(
        (run.all("reason"), run.all("answer")),
        (vec![json!("unauthorized")], vec![json!("no such scope")])
    );
    let down = Server::start(|_, _| status(503, ""));
    deliver(&scratch, &down, &["--ping"]).exits(69);
    assert_eq!(scratch.records("audit").len(), 0);
}

#[test]
fn the_previous_secret_is_tried_once_after_a_401() {
    let scratch = scratch(&["m1"]);
    fs::set_permissions(scratch.write("old", "the old one"), Permissions::from_mode(0o600)).unwrap();
    let server = Server::start(|number, it| if number == 0 { status(401, "") } else { accepted(it) });
    let run = deliver(&scratch, &server, &["--previous-secret-file", "old"]).exits(0);
    assert_eq!(counts(&run).0, 1);
    let requests = server.requests();
    assert_eq!(requests.len(), 2);
    assert_ne!(requests[0].headers["x-openclaw-signature"], requests[1].headers["x-openclaw-signature"]);
    assert_eq!(requests[0].headers["webhook-signature"].split(' ').count(), 2);
    assert_eq!(requests[0].body, requests[1].body);
}

#[test]
fn any_success_counts_when_it_is_asked_for() {
    let scratch = scratch(&["m1", "m2"]);
    let server =
        Server::start(|number, _| if number == 0 { status(202, "thanks") } else { status(422, "no") });
    assert_eq!(counts(&deliver(&scratch, &server, &["--ack", "2xx"]).exits(0)), (1, 0, 1, 0));
}

#[test]
fn a_second_instance_leaves_and_drain_waits_for_it() {
    let scratch = scratch(&["m1"]);
    let (go, wait) = mpsc::channel::<()>();
    let server = Server::start(move |_, it| {
        wait.recv().unwrap();
        accepted(it)
    });
    let first = command(&scratch, &server.url(), &[]).spawn().unwrap();
    wait_until(|| !server.requests().is_empty());
    let second = deliver(&scratch, &server, &[]).exits(0);
    assert_eq!(second.stdout, "");
    assert!(second.stderr.contains("another milestone-deliver is at work"), "{}", second.stderr);
    let late = deliver(&scratch, &server, &["--drain", "--drain-timeout", "100ms"]).exits(75);
    assert!(late.stderr.contains("--drain-timeout"), "{}", late.stderr);
    let patient = command(&scratch, &server.url(), &["--drain"]).spawn().unwrap();
    go.send(()).unwrap();
    Run::of(first).exits(0);
    Run::of(patient).exits(0);
    assert_eq!(server.ids(), ["m1"]);
    // Another endpoint is another consumer.
    go.send(()).unwrap();
    assert_eq!(counts(&deliver(&scratch, &server, &["--endpoint", "backup"]).exits(0)).0, 1);
    assert!(scratch.log("milestone-delivery-state.backup.json").exists());
}

#[test]
fn watch_delivers_what_comes_and_ends_by_sigterm_after_what_is_in_flight() {
    let scratch = scratch(&["m1"]);
    let (go, wait) = mpsc::channel::<()>();
    let server = Server::start(move |number, it| {
        if number >= 2 {
            wait.recv().unwrap();
        }
        accepted(it)
    });
    let watching = command(&scratch, &server.url(), &["--watch", "--concurrency=1"]).spawn().unwrap();
    wait_until(|| server.requests().len() == 1);
    enqueue(&scratch, &["m2"]);
    wait_until(|| server.requests().len() == 2);
    enqueue(&scratch, &["m3", "m4"]);
    wait_until(|| server.requests().len() == 3);
    terminate(&watching);
    go.send(()).unwrap();
    let run = Run::of(watching).exits(0);
    assert_eq!(server.ids(), ["m1", "m2", "m3"]);
    assert_eq!(run.results().pop().unwrap()["delivered"], 3);
    assert_eq!(state(&scratch)["lastAck"]["idempotencyKey"], "milestone:m3");
    go.send(()).unwrap();
    assert_eq!(counts(&deliver(&scratch, &server, &[]).exits(0)).0, 1);
    assert_eq!(server.ids(), ["m1", "m2", "m3", "m4"]);
}

#[test]
fn killed_at_any_time_nothing_is_lost_and_nothing_settled_twice() {
    let ids: Vec<String> = (0..300).map(|it| format!("m{it}")).collect();
    let scratch = scratch(&ids.iter().map(String::as_str).collect::<Vec<_>>());
    let mut seen = std::collections::BTreeSet::new();
    let server = Server::start(move |number, it| {
        if number % 17 == 3 {
            return status(503, "");
        }
        let word = if seen.insert(it.id()) { "accepted" } else { "duplicate" };
        status(200, &json!({"ok":true,"status":word,"milestoneId":it.id()}).to_string())
    });
    for round in 1..12 {
        let mut child =
            command(&scratch, &server.url(), &["--drain", "--backoff-base", "5ms"]).spawn().unwrap();
        let enough = server.requests().len() + round * 5;
        wait_until(|| server.requests().len() >= enough || child.try_wait().unwrap().is_some());
        child.kill().unwrap();
        child.wait().unwrap();
    }
    let run = deliver(&scratch, &server, &["--drain", "--backoff-base", "5ms"]).exits(0);
    assert_eq!(counts(&run).3, 0);
    let mut acknowledged: Vec<_> = scratch
        .records("audit")
        .iter()
        .filter(|it| it["outcome"] == "acknowledged")
        .map(|it| it["idempotency_key"].as_str().unwrap().to_owned())
        .collect();
    acknowledged.sort();
    let mut expected: Vec<_> = ids.iter().map(|it| format!("milestone:{it}")).collect();
    expected.sort();
    assert_eq!(acknowledged, expected, "each is acknowledged once in the audit");
}

#[test]
fn without_an_audit_nothing_is_sent() {
    let scratch = scratch(&["m1"]);
    fs::create_dir(scratch.log("audit.jsonl"))
        .or_else(|_| {
            fs::remove_file(scratch.log("audit.jsonl"))?;
            fs::create_dir(scratch.log("audit.jsonl"))
        })
        .unwrap();
    let server = Server::start(|_, it| accepted(it));
    let run = deliver(&scratch, &server, &[]);
    assert_ne!(run.code, 0);
    assert_eq!(server.requests().len(), 0, "{}", run.stderr);
}

#[test]
fn without_room_for_the_audit_nothing_is_sent() {
    let scratch = scratch(&["m1"]);
    let server = Server::start(|_, it| accepted(it));
    let tool = milepost_testing::tool_path(TOOL);
    let script = format!("ulimit -f 4; exec {} --url {} --secret-file secret", tool.display(), server.url());
    let mut shell = Command::new("sh");
    shell.current_dir(scratch.dir()).args(["-c", &script]).stdout(Stdio::piped()).stderr(Stdio::piped());
    let run = Run::of(shell.spawn().unwrap()).exits(74);
    assert!(run.stderr.contains("ulimit -f"), "{}", run.stderr);
    assert_eq!(server.requests().len(), 0);
}
