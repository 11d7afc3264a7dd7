//! No secret gets anywhere: sender and receiver are driven down every path that knows one, then everything that they
//! wrote is searched.
#![expect(clippy::unwrap_used, reason = "a test that cannot set itself up has failed")]

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    os::unix::{fs::PermissionsExt, process::ExitStatusExt},
    path::Path,
    process::{Child, Command, Stdio},
};

use milepost_testing::{
    Run, Scratch,
    hostile::{Hostile, Mode, Part, Way},
    milestone, wait_until,
};
use serde_json::Value;

/// What no output may hold, in any of its forms.
const MARK: &str = "tausendschoen-47";
/// `whsec_` and the base64 of the mark.
const WEBHOOK: &str = "whsec_dGF1c2VuZHNjaG9lbi00Nw==";
const FORMS: [&str; 5] = [
    MARK,
    "dGF1c2VuZHNjaG9lbi00Nw",
    // In hexadecimal, in both spellings, and as a list of bytes.
    "74617573656e647363686f656e2d3437",
    "74617573656E647363686F656E2D3437",
    "116, 97, 117, 115, 101, 110, 100",
];

/// Everything that was said so far.
#[derive(Default)]
struct Said(Vec<(String, Vec<u8>)>);

impl Said {
    fn note(&mut self, what: &str, run: Run) {
        self.0.push((format!("stdout of {what}"), run.stdout.into_bytes()));
        self.0.push((format!("stderr of {what}"), run.stderr.into_bytes()));
    }

    /// All files below a folder.
    fn files(&mut self, folder: &Path) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                self.files(&path);
            } else {
                self.0.push((path.display().to_string(), fs::read(&path).unwrap()));
            }
        }
    }

    fn command_line(&mut self, what: &str, child: &Child) {
        let line = fs::read(format!("/proc/{}/cmdline", child.id())).unwrap();
        assert!(!line.is_empty(), "{what} has ended");
        self.0.push((format!("command line of {what}"), line));
    }

    fn check(&self) {
        let all: usize = self.0.iter().map(|(_, bytes)| bytes.len()).sum();
        assert!(all > 20_000, "the search looks at what was written: {all} bytes");
        for (what, bytes) in &self.0 {
            let text = String::from_utf8_lossy(bytes);
            for form in FORMS {
                assert!(!text.contains(form), "{what} holds {form}: {text}");
            }
        }
    }
}

fn signal(child: &Child, name: &str) {
    assert!(Command::new("kill").args([name, &child.id().to_string()]).status().unwrap().success());
}

/// A sender's folder with milestones in its queue and every kind of secret, good and bad, in files.
fn sender(count: usize) -> Scratch {
    let scratch = Scratch::new();
    let events: Vec<String> = (0..count)
        .map(|it| {
            let mut event = milestone(&format!("m{it}"));
            event["scope"] = format!("s{it}").into();
            event.to_string()
        })
        .collect();
    scratch.feed("milestone-emit", &["-q"], events.join("\n").as_bytes()).exits(0);
    scratch.run("milestone-queue", &["-q"]).exits(0);
    scratch.secret("secret", WEBHOOK);
    scratch.secret("text", MARK);
    scratch.secret("broken", &format!("whsec_{MARK}!"));
    scratch.secret("unpadded", WEBHOOK.trim_end_matches('='));
    scratch.secret("long", &MARK.repeat(1000));
    scratch.secret("lines", &format!("{MARK}\n{MARK}"));
    let path = scratch.write("binary", [MARK.as_bytes(), &[0xff]].concat());
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
    let path = scratch.write("readable", MARK);
    fs::set_permissions(path, fs::Permissions::from_mode(0o644)).unwrap();
    fs::create_dir(scratch.dir().join("credentials")).unwrap();
    scratch.secret("credentials/milestone-webhook-secret", MARK);
    scratch
}

#[test]
fn the_sender_tells_nobody() {
    let scratch = sender(12);
    let mut said = Said::default();
    let server = Hostile::start(Mode::Good);
    let url = server.url();
    let deliver = |args: &[&str]| {
        let first = ["--url", &url, "--timeout", "300ms", "--backoff-base", "1h"];
        let mut command = scratch.command("milestone-deliver");
        command.args(first).args(args).env("RUST_BACKTRACE", "full").env("RUST_LOG", "trace");
        command
    };
    let run = |args: &[&str]| Run::of(deliver(args).spawn().unwrap());
    // Secrets that are no good.
    for file in ["broken", "unpadded", "long", "binary", "readable", "credentials", "nowhere"] {
        said.note(file, run(&["--secret-file", file]).exits(78));
        let previous = run(&["--secret-file", "secret", "--previous-secret-file", file]);
        said.note(&format!("previous {file}"), previous.exits(78));
    }
    said.note("lines", run(&["--secret-file", "lines", "--ping"]));
    for value in [WEBHOOK, &format!("whsec_{MARK}"), &MARK.repeat(1000)] {
        let child = deliver(&["--ping"]).env("CLAWDBOT_MILESTONE_WEBHOOK_SECRET", value).spawn().unwrap();
        said.note("a variable", Run::of(child));
    }
    let child = deliver(&["--ping"]).env("CREDENTIALS_DIRECTORY", "credentials").spawn().unwrap();
    said.note("a credential", Run::of(child).exits(0));
    // All kinds of answers.
    let good = ["--secret-file", "secret", "--previous-secret-file", "text"];
    for mode in [
        Mode::Rejection(401),
        Mode::Rejection(400),
        Mode::Answer(500, "", "oops"),
        Mode::Answer(503, "", ""),
        Mode::Raw(b"garbage\r\n\r\n".to_vec()),
        Mode::Broken(Part::Body, Way::Reset),
        Mode::Broken(Part::Nothing, Way::Hang),
        Mode::Answer(410, "", ""),
    ] {
        server.turn(mode.clone());
        said.note("a ping", run(&[&good[..], &["--ping"]].concat()));
        said.note("a pass", run(&good).exits(0));
        said.note("a release", run(&["--release"]).exits(0));
        said.note("a retry", run(&["--retry-now"]).exits(0));
    }
    server.turn(Mode::Good);
    let emit = |id: &str| {
        scratch.feed("milestone-emit", &["-q"], milestone(id).to_string().as_bytes()).exits(0);
        scratch.run("milestone-queue", &["-q"]).exits(0);
    };
    // A running one, told to read its secrets again.
    emit("early");
    let watching = deliver(&[&good[..], &["--watch"]].concat()).spawn().unwrap();
    wait_until(|| server.stored().contains(&"milestone:early".to_owned()));
    said.command_line("a watching one", &watching);
    scratch.secret("secret", &format!("whsec_{MARK}!"));
    signal(&watching, "-HUP");
    // The signal is followed with the next request.
    emit("late");
    wait_until(|| server.stored().contains(&"milestone:late".to_owned()));
    signal(&watching, "-TERM");
    let watched = Run::of(watching).exits(0);
    assert!(watched.stderr.contains("the secret is still the one before"), "{}", watched.stderr);
    said.note("a watching one", watched);
    said.note("the status", scratch.run("milestone-status", &["--json"]));
    said.files(&scratch.log(""));
    said.check();
    let requests = server.requests();
    assert!(requests.len() > 20, "{}", requests.len());
    for request in requests {
        let sent = format!("{request:?} {}", String::from_utf8_lossy(&request.body));
        assert!(FORMS.iter().all(|it| !sent.contains(it)), "{sent}");
    }
}

#[test]
fn the_receiver_tells_nobody() {
    let scratch = sender(3);
    let mut said = Said::default();
    for file in ["broken", "unpadded", "long", "binary", "readable", "credentials", "nowhere"] {
        let args = ["--listen", "127.0.0.1:0", "--secret-file", file];
        said.note(file, scratch.run("milestone-receive", &args).exits(78));
    }
    let mut child = scratch
        .command("milestone-receive")
        .args(["--listen", "127.0.0.1:0", "--secret-file", "secret", "--previous-secret-file", "text"])
        .env("RUST_BACKTRACE", "full")
        .env("RUST_LOG", "trace")
        .spawn()
        .unwrap();
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    stdout.read_line(&mut line).unwrap();
    let listening: Value = serde_json::from_str(&line).unwrap();
    let address = listening["address"].as_str().unwrap().strip_prefix("http://").unwrap().to_owned();
    said.command_line("the receiver", &child);
    let ask = |request: &str| -> Vec<u8> {
        let mut stream = TcpStream::connect(&address).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        answer
    };
    let forged = "POST /internal/milestones/ingest HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n\
                  connection: close\r\ncontent-length: 2\r\nx-openclaw-timestamp: 2026-11-20T10:00:00.000Z\r\n\
                  x-openclaw-signature: 00\r\n\r\n{}";
    for request in [
        forged,
        "GET /api/milestones/latest HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n",
        "GET /metrics HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n",
        "GET /healthz HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n",
        "no http\r\n\r\n",
    ] {
        said.0.push((request.to_owned(), ask(request)));
    }
    let url = format!("http://{address}/");
    for secret in ["secret", "text"] {
        let args = ["--url", &url, "--secret-file", secret];
        said.note("a delivery", scratch.run("milestone-deliver", &args).exits(0));
    }
    scratch.secret("secret", &format!("whsec_{MARK}!"));
    signal(&child, "-HUP");
    said.0.push(("after a reload".into(), ask(forged)));
    signal(&child, "-TERM");
    let mut rest = Vec::new();
    stdout.read_to_end(&mut rest).unwrap();
    said.0.push(("stdout of the receiver".into(), rest));
    said.note("the receiver", Run::of(child).exits(0));
    assert_eq!(scratch.records("receive/feed").len(), 3);
    said.files(&scratch.log(""));
    said.check();
}

/// Whether a process that aborts leaves a core dump. Where the system lets nobody, this proves nothing; that the
/// process asked for none is a test of `secret`.
fn dumps(mut command: Command) -> bool {
    // A folder of its own, since that is where the kernel puts it.
    let dir = tempfile::tempdir().unwrap();
    command.current_dir(dir.path()).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    signal(&child, "-ABRT");
    let status = child.wait().unwrap();
    assert_eq!(status.signal(), Some(6));
    status.core_dumped() || fs::read_dir(dir.path()).unwrap().next().is_some()
}

/// A program that may dump as much as it likes.
fn unlimited(program: &Path) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", "ulimit -c unlimited 2>/dev/null; exec \"$@\"", "sh"]).arg(program);
    command
}

#[test]
fn a_process_that_holds_a_secret_leaves_no_core_dump() {
    let scratch = sender(1);
    let server = Hostile::start(Mode::Good);
    let mut deliver = unlimited(&milepost_testing::tool_path("milestone-deliver"));
    deliver.args(["--watch", "--url", &server.url(), "--logs"]).arg(scratch.log(""));
    deliver.arg("--secret-file").arg(scratch.dir().join("secret"));
    let mut receive = unlimited(&milepost_testing::tool_path("milestone-receive"));
    receive.args(["--listen", "127.0.0.1:0", "--logs"]).arg(scratch.log(""));
    receive.arg("--secret-file").arg(scratch.dir().join("secret"));
    assert!(!dumps(deliver), "milestone-deliver");
    assert!(!dumps(receive), "milestone-receive");
}
