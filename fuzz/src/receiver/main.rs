//! Requests for the receiver, as its router gets them: what is unsigned leaves no trace, what is accepted is in the
//! journal, and whatever is asked is answered well.
//!
//! A program of its own, since the receiver is one: its modules are mounted below and driven in this process,
//! without a socket. `scripts/fuzz` runs it like the other targets.
//!
//! An input is a request as text: `POST /path?query`, headers, an empty line, the body. In the values of headers
//! `{O}` and `{W}` stand for good signatures of either scheme over the body, `{T}` and `{U}` for the time.
#![cfg_attr(not(test), no_main)]

#[path = "../../../bins/milestone-receive/src"]
mod house {
    #![allow(dead_code, unused_imports, missing_docs, reason = "it is judged where it stands")]
    pub mod answer;
    pub mod app;
    pub mod args;
    pub mod body;
    pub mod cache;
    pub mod dead_letters;
    pub mod feed;
    pub mod html;
    pub mod http;
    pub mod ingest;
    pub mod item;
    pub mod latest;
    pub mod ledger;
    pub mod listen;
    pub mod metrics;
    pub mod openapi;
    pub mod page;
    pub mod peers;
    pub mod query;
    pub mod reads;
    pub mod reason;
    pub mod record;
    pub mod routes;
    pub mod site;
    pub mod stall;
    pub mod store;
    pub mod stream;
    pub mod syndication;
}
use house::*;

use std::{
    path::{Path, PathBuf},
    sync::{Arc, RwLock},
    thread::JoinHandle,
};

use axum::{
    Router,
    body::Body,
    http::{HeaderMap, Request, StatusCode, header},
};
use data_encoding::{BASE64, HEXLOWER};
use hmac::{Hmac, KeyInit, Mac};
use milepost::{
    canonical,
    cli::Messages,
    clock,
    event::{Defaults, MilestoneEvent},
    ingest as contract, json,
    secret::{Origin, Secret},
    signing::{TOLERANCE, Verifier},
};
use milepost_fuzz::{common, scratch, seeds};
use serde_json::Value;
use sha2::Sha256;
use tokio::{
    runtime::Runtime,
    sync::{Semaphore, watch},
};
use tower_service::Service;

const SECRET: &str = "the secret of the fuzzers";

const TARGETS: &[common::Target] = &[
    common::Target { name: "post", run: post, seeds: post_seeds, runs: 1_500, bytes_max: 4096 },
    common::Target { name: "get", run: get, seeds: get_seeds, runs: 20_000, bytes_max: 512 },
];

libfuzzer_sys::fuzz_target!(init: common::choose(TARGETS), |input: &[u8]| common::run(input));

/// A receiver over a folder of its own.
struct Receiver {
    router: Router,
    stopper: watch::Sender<bool>,
    thread: JoinHandle<()>,
    folder: PathBuf,
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime can be made")
}

impl Receiver {
    fn open(name: &str) -> Receiver {
        let folder = scratch::folder(name);
        let logs = scratch::fill(&folder, &[]);
        let messages = Messages::new("fuzz");
        let secret = Secret::from_bytes(SECRET.as_bytes().to_vec(), Origin::Variable("S".to_owned()));
        let verifier = Verifier::new(&secret.expect("a good secret"), None, false, TOLERANCE);
        let metrics = Arc::new(metrics::Metrics::new(clock::now()));
        let show = item::ShowEvidence::Full;
        let feed = Arc::new(feed::Feed::new(store::feed_journal(&logs), show, messages));
        let dead_letters = Arc::default();
        let (store, running) =
            store::Store::open(&logs, &feed, &dead_letters, &metrics, messages).expect("a new folder");
        let store::Running { thread, usher, .. } = running;
        // In a thread of its own: requests come with one runtime or another. It ends with the store's.
        std::thread::spawn(move || runtime().block_on(usher.run()));
        let (stopper, stop) = watch::channel(false);
        let app = app::App {
            verifier: RwLock::new(Arc::new(verifier)),
            store,
            feed,
            cache: cache::Cache::default(),
            pull_feed: None,
            dead_letters,
            metrics,
            messages,
            site: app::Site { has_admin_door: false, public_hosts: Vec::new(), cors: None },
            large_bodies: Arc::new(Semaphore::new(body::LARGE_BYTES_MAX)),
            streams: Arc::new(Semaphore::new(stream::STREAMS_MAX)),
            stream_peers: Arc::new(peers::Peers::new(stream::PEER_STREAMS_MAX)),
            stop,
        };
        Receiver { router: routes::router(Arc::new(app)), stopper, thread, folder }
    }

    /// The answer to a request, its body whole unless it is a stream.
    fn ask(&mut self, runtime: &Runtime, mut request: Request<Body>, asked: &Asked) -> Answer {
        request.extensions_mut().insert(peers::Peer::here());
        request.extensions_mut().insert(site::Door::Loopback);
        let answer = runtime.block_on(async {
            let Ok(response) = self.router.call(request).await;
            let (parts, body) = response.into_parts();
            let is_stream =
                parts.headers.get(header::CONTENT_TYPE).is_some_and(|it| it == "text/event-stream");
            let body = match is_stream {
                true => Vec::new(),
                false => axum::body::to_bytes(body, 16 << 20).await.expect("an answer is whole").to_vec(),
            };
            (parts.status, parts.headers, body)
        });
        check_any(&answer, asked);
        answer
    }

    /// Ends its thread, so that the next one finds the folder as it was left.
    fn end(self) -> PathBuf {
        let Receiver { router, stopper, thread, folder } = self;
        stopper.send_replace(true);
        drop(router);
        thread.join().expect("the store ends well");
        folder
    }
}

type Answer = (StatusCode, HeaderMap, Vec<u8>);

/// What holds of every answer.
fn check_any((status, headers, body): &Answer, asked: &Asked) {
    assert!(!status.is_server_error(), "{status}: {}", String::from_utf8_lossy(body));
    for name in [header::CONTENT_SECURITY_POLICY, header::X_CONTENT_TYPE_OPTIONS, header::REFERRER_POLICY] {
        assert!(headers.contains_key(&name), "{name} is on every answer");
    }
    let kind = headers.get(header::CONTENT_TYPE).map_or("", |it| it.to_str().unwrap_or_default());
    if kind.starts_with("application/json") && asked.method != "HEAD" {
        let document: Value = serde_json::from_slice(body).expect("what says that it is JSON is");
        if let Some(ok) = document.get("ok") {
            assert_eq!(*ok, status.is_success(), "{document}");
        }
    }
    // libFuzzer reads what is compared and writes it into its inputs: only what was not asked may not be said.
    assert!(!holds_secret(body) || asked.holds_secret(), "no secret is ever said");
}

fn holds_secret(bytes: &[u8]) -> bool {
    bytes.windows(SECRET.len()).any(|it| it == SECRET.as_bytes())
}

/// A request as text, and whether its headers hold a good signature at all.
struct Asked {
    method: String,
    target: String,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
    is_signed: bool,
}

fn read(input: &[u8]) -> Option<Asked> {
    let end = input.windows(2).position(|it| it == b"\n\n").unwrap_or(input.len());
    let head = std::str::from_utf8(&input[..end]).ok()?;
    let body = input.get(end + 2..).unwrap_or_default().to_vec();
    let mut lines = head.split('\n');
    let (method, target) = lines.next()?.split_once(' ')?;
    let mut headers: Vec<(String, String)> = Vec::new();
    for line in lines {
        let (name, value) = line.split_once(':')?;
        headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
    if !headers.iter().any(|(name, _)| name == "host") {
        headers.push(("host".to_owned(), "localhost".to_owned()));
    }
    let is_signed = headers.iter().any(|(_, value)| value.contains("{O}") || value.contains("{W}"));
    Some(Asked { method: method.to_owned(), target: target.to_owned(), headers, body, is_signed })
}

impl Asked {
    fn holds_secret(&self) -> bool {
        let target = percent_encoding::percent_decode_str(&self.target).collect::<Vec<u8>>();
        let headers = self.headers.iter().map(|(_, value)| value.as_bytes());
        [&target[..], &self.body].into_iter().chain(headers).any(holds_secret)
    }

    fn request(&self) -> Option<Request<Body>> {
        let now = clock::now();
        let plain =
            |it: &str| it.replace("{T}", &now.to_string()).replace("{U}", &now.unix_seconds().to_string());
        let header = |wanted: &str| {
            let found = self.headers.iter().find(|(name, _)| name == wanted);
            found.map(|(_, value)| plain(value)).unwrap_or_default()
        };
        let signed =
            [header("webhook-id").as_bytes(), b".", header("webhook-timestamp").as_bytes(), b".", &self.body]
                .concat();
        let canonical = json::parse(&self.body).map(|it| canonical::to_vec(&it)).unwrap_or_default();
        let mut request = Request::builder().method(self.method.as_str()).uri(self.target.as_str());
        for (name, value) in &self.headers {
            let value = plain(value)
                .replace("{O}", &HEXLOWER.encode(&hmac(&canonical)))
                .replace("{W}", &BASE64.encode(&hmac(&signed)));
            request = request.header(name, value);
        }
        request.body(Body::from(self.body.clone())).ok()
    }
}

fn hmac(bytes: &[u8]) -> [u8; 32] {
    let mut mac = Hmac::<Sha256>::new_from_slice(SECRET.as_bytes()).expect("any length is a key");
    mac.update(bytes);
    mac.finalize().into_bytes().into()
}

// What is sent in

const LEGACY: &str = "content-type: application/json\nx-openclaw-signature: {O}\nx-openclaw-timestamp: {T}\n";
const WEBHOOK: &str =
    "content-type: application/json\nwebhook-id: msg_1\nwebhook-timestamp: {U}\nwebhook-signature: v1,{W}\n";

fn post_seeds() -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    let mut add = |path: &str, headers: &str, body: &[u8]| {
        all.push([format!("POST {path}\n{headers}\n").as_bytes(), body].concat());
    };
    for body in seeds::examples("ingest-request.v1") {
        add(contract::MILESTONES_PATH, LEGACY, &body);
        let Ok(value) = serde_json::from_slice(&body) else { continue };
        let body = canonical::to_vec(&value);
        add(contract::MILESTONES_PATH, WEBHOOK, &body);
        add(contract::batch::MILESTONES_PATH, WEBHOOK, &contract::batch::body([&body[..], &body[..]]));
    }
    for body in seeds::examples("ingest-event-request.v1") {
        add(contract::EVENTS_PATH, LEGACY, &body);
        add(contract::batch::EVENTS_PATH, LEGACY, &contract::batch::body([&body[..]]));
    }
    add(contract::MILESTONES_PATH, "content-type: text/plain\n", b"{}");
    add(contract::MILESTONES_PATH, "content-type: application/json\n", b"{}");
    all
}

fn post(input: &[u8]) {
    let Some(asked) = read(input) else { return };
    let Some(request) = asked.request() else { return };
    let runtime = runtime();
    let mut receiver = Receiver::open("post");
    let (status, _, body) = receiver.ask(&runtime, request, &asked);
    let answer: Value = serde_json::from_slice(&body).unwrap_or_default();
    // The same again is the first one's duplicate, whatever came of it.
    if answer["status"] == "accepted" {
        let again = asked.request().expect("it was one before");
        let (status, _, body) = receiver.ask(&runtime, again, &asked);
        let again: Value = serde_json::from_slice(&body).expect("an answer to a post is JSON");
        assert_eq!((status.as_u16(), &again["status"]), (200, &Value::from("duplicate")));
        assert_eq!(again["receipt"], answer["receipt"], "the first one's receipt");
    }
    let stored = stored(&receiver.end());
    if !asked.is_signed {
        assert!(!status.is_success() || asked.method != "POST", "{status} for what nobody signed");
        assert!(stored.iter().all(Vec::is_empty), "and nothing of it is kept");
    }
    let [feed, events, rejected] = &stored;
    match (status.as_u16(), answer["status"].as_str()) {
        (200, Some("accepted")) => {
            assert_eq!((feed.len() + events.len(), rejected.len()), (1, 0), "it is there once");
            let record = feed.first().or(events.first()).expect("one of them");
            assert_eq!(answer["receipt"]["head"], record["hash"]);
            let sent: Value = serde_json::from_slice(&asked.body).expect("what is accepted is JSON");
            assert_eq!(record["idempotencyKey"], sent["idempotencyKey"]);
            if let Some(event) = feed.first().map(|it| &it["event"]) {
                let (expected, _) =
                    MilestoneEvent::from_value(sent["event"].clone(), &Defaults::JSON).expect("valid");
                assert_eq!(*event, serde_json::to_value(expected).expect("an event has a form"));
                the_long_way_says_the_same(&asked, &runtime, event);
            }
        }
        (200, Some("pong")) => assert!(stored.iter().all(Vec::is_empty), "a ping leaves nothing"),
        (200, None) if answer["results"].is_array() => {
            let results = answer["results"].as_array().expect("it is one");
            let accepted = results.iter().filter(|it| it["status"] == "accepted").count();
            assert_eq!(feed.len() + events.len(), accepted, "each that is accepted is there once");
        }
        _ => {
            assert!(feed.is_empty() && events.is_empty(), "what is refused is nowhere but among the refused")
        }
    }
}

/// Ordinary requests are read in one pass. With a space before it, the same body goes the long way.
fn the_long_way_says_the_same(asked: &Asked, runtime: &Runtime, event: &Value) {
    let longer = Asked {
        body: [b" ", &asked.body[..]].concat(),
        headers: asked.headers.clone(),
        method: asked.method.clone(),
        target: asked.target.clone(),
        ..*asked
    };
    let mut receiver = Receiver::open("post-again");
    let (_, _, body) = receiver.ask(runtime, longer.request().expect("it was one before"), &longer);
    let answer: Value = serde_json::from_slice(&body).unwrap_or_default();
    let [feed, ..] = stored(&receiver.end());
    assert_eq!(answer["status"], "accepted", "{answer}");
    assert_eq!(feed.first().map(|it| &it["event"]), Some(event), "both ways read the same event");
}

/// The records of feed, events and refusals.
fn stored(folder: &Path) -> [Vec<Value>; 3] {
    ["feed", "events", "rejected"].map(|name| {
        let text = std::fs::read_to_string(folder.join(format!("receive/{name}.jsonl"))).unwrap_or_default();
        text.lines().map(|it| serde_json::from_str(it).expect("every line is JSON")).collect()
    })
}

// What is asked for

fn get_seeds() -> Vec<Vec<u8>> {
    seeds::texts(&[
        "GET /api/milestones/latest?limit=2&scope=s1&riskStatus=on-track\n",
        "GET /api/milestones/latest?limit=200&q=claim+%3Cimg&since=2026-03-01T00:00:00Z\n",
        "GET /api/milestones/latest?limit=1&cursor=1772355900000.2\n",
        "GET /api/milestones/latest?limit=0\n",
        "GET /api/milestones/latest?scope=%ff\n",
        "GET /api/milestones/m1\n",
        "GET /api/milestones/stream?after=1\nlast-event-id: 2\n",
        "GET /api/milestones/dead-letter\n",
        "GET /?scope=%3Cb%3Es&riskStatus=blocked&q=%22%3E%3Cscript%3Ealert(1)%3C/script%3E\n",
        "GET /?milestone=m2\naccept: text/html\n",
        "GET /feed.json?scope=s0&limit=3\nhost: a.example\n",
        "GET /feed.atom\nhost: [::1]:80\nif-none-match: \"x\"\n",
        "GET /openapi.json\n",
        "HEAD /healthz\n",
        "GET /metrics\nx-forwarded-for: 192.0.2.1\n",
        "OPTIONS /api/milestones/latest\norigin: http://a.example\n",
        "DELETE /\n",
        "GET /app.js\nif-modified-since: Fri, 20 Nov 2026 10:00:30 GMT\n",
    ])
}

/// A receiver with some milestones, which nobody changes any more.
fn furnished() -> Receiver {
    let runtime = runtime();
    let mut receiver = Receiver::open("get");
    for number in 0..6 {
        let risk = ["on-track", "at-risk", "blocked"][number % 3];
        let event = serde_json::json!({
            "milestoneId": format!("m{number}"), "timestampUtc": format!("2026-03-01T09:0{number}:00.000Z"),
            "scope": format!("s{}", number % 2), "claim": format!("claim {number} <img src=x onerror=y> \" ' & \u{202e}"),
            "evidence": [{"type": "log", "path": "javascript:alert(1)", "summary": "<b>s", "ref": "r"}],
            "riskStatus": risk, "nextAction": "n", "source": "agent",
        });
        let body = contract::milestone_body(&format!("milestone:m{number}"), clock::now(), &event);
        let head = format!("POST {}\n{LEGACY}\n", contract::MILESTONES_PATH);
        let asked = read(&[head.as_bytes(), &body].concat()).expect("a request");
        let (status, ..) = receiver.ask(&runtime, asked.request().expect("a request"), &asked);
        assert_eq!(status, StatusCode::OK);
    }
    receiver
}

thread_local! {
    static FURNISHED: std::cell::RefCell<(Receiver, Runtime)> = std::cell::RefCell::new((furnished(), runtime()));
}

fn get(input: &[u8]) {
    let Some(asked) = read(input).filter(|it| it.method != "POST") else { return };
    let Some(request) = asked.request() else { return };
    let query = request.uri().query().map(str::to_owned);
    let path = request.uri().path().to_owned();
    let (status, headers, body) =
        FURNISHED.with_borrow_mut(|(receiver, runtime)| receiver.ask(runtime, request, &asked));
    let kind = headers.get(header::CONTENT_TYPE).map_or("", |it| it.to_str().unwrap_or_default());
    if kind.starts_with("text/html") || kind.contains("xml") {
        let text = std::str::from_utf8(&body).expect("pages are UTF-8");
        for planted in ["<img src=x", "<b>s", "\u{202e}", "href=\"javascript:"] {
            assert!(!text.contains(planted), "{planted} stands in {path} as it came");
        }
        for part in query.as_deref().unwrap_or_default().split(['&', '=']) {
            let spaced = part.replace('+', " ");
            let value = percent_encoding::percent_decode_str(&spaced).decode_utf8_lossy().into_owned();
            let is_markup =
                value.split('<').skip(1).any(|it| it.starts_with(|it: char| it.is_ascii_alphabetic()));
            // Shorter ones may stand in any page.
            assert!(
                !is_markup || value.len() < 12 || !text.contains(&value),
                "{value} stands in {path} as it came"
            );
        }
    }
    if path == "/api/milestones/latest" && asked.method == "GET" {
        check_latest(status, query.as_deref(), &body);
    }
}

fn check_latest(status: StatusCode, query: Option<&str>, body: &[u8]) {
    let answer: Value = serde_json::from_slice(body).unwrap_or_default();
    let parsed = query::Query::parse(query, 20);
    if status == StatusCode::MISDIRECTED_REQUEST || status == StatusCode::NOT_MODIFIED {
        return;
    }
    let Ok(wanted) = parsed else { return assert_eq!(status, StatusCode::BAD_REQUEST) };
    assert_eq!(status, StatusCode::OK, "{answer}");
    let items = answer["items"].as_array().expect("a list");
    assert!(items.len() <= wanted.limit && (1..=200).contains(&wanted.limit));
    let order: Vec<_> = items.iter().map(|it| (it["timestampUtc"].as_str(), it["seq"].as_u64())).collect();
    assert!(order.is_sorted_by(|left, right| left >= right), "newest first");
    for it in items {
        assert!(
            wanted.filter.scope.as_deref().is_none_or(|scope| it["scope"] == scope),
            "of this scope only"
        );
        assert!(wanted.filter.risk.is_none_or(|risk| it["riskStatus"] == serde_json::json!(risk)));
    }
}
