//! Requests as they go over the wire, signed as Milepost's sender signs them.

use milepost::{
    clock, identity,
    ingest::{self, batch},
    secret::Secret,
    signing::Signer,
};
use serde_json::json;

/// One whole request.
pub type Wire = Vec<u8>;

/// Who signs all of them.
pub fn signer(secret: &Secret) -> Signer {
    Signer::new(secret, None)
}

/// Requests with one milestone each.
pub fn singles(signer: &Signer, prefix: &str, count: usize) -> Vec<Wire> {
    let posts = (0..count).map(|at| {
        let (key, body) = item(prefix, at);
        post(signer, ingest::MILESTONES_PATH, &identity::webhook_id(&identity::trace_id(&key)), &body)
    });
    posts.collect()
}

/// Requests with up to `items_each` milestones.
pub fn batches(signer: &Signer, prefix: &str, count: usize, items_each: usize) -> Vec<Wire> {
    let all: Vec<usize> = (0..count).collect();
    let posts = all.chunks(items_each).map(|part| {
        let (keys, bodies): (Vec<String>, Vec<Vec<u8>>) = part.iter().map(|at| item(prefix, *at)).unzip();
        post(signer, batch::MILESTONES_PATH, &batch::webhook_id(&keys), &batch::body(bodies))
    });
    posts.collect()
}

/// A read.
pub fn read(path: &str) -> Wire {
    format!("GET {path} HTTP/1.1\r\nhost: localhost\r\n\r\n").into_bytes()
}

/// Opens a stream at its end.
pub fn stream() -> Wire {
    read("/api/milestones/stream")
}

/// A milestone of ordinary length: its key and its body.
fn item(prefix: &str, at: usize) -> (String, Vec<u8>) {
    let risk = ["on-track", "on-track", "at-risk", "completed"][at % 4];
    let event = json!({
        "milestoneId": format!("{prefix}.{at}"),
        "timestampUtc": clock::now(),
        "scope": format!("scope-{}", at % 50),
        "claim": format!("Step {at} of the nightly batch is done and its results were compared."),
        "evidence": [{ "type": "log", "path": format!("logs/nightly/{at}.log"), "summary": "All checks passed." }],
        "riskStatus": risk,
        "nextAction": "Watch the next run.",
        "source": "agent",
    });
    let key = identity::milestone_key(event["milestoneId"].as_str().unwrap_or_default());
    let body = ingest::milestone_body(&key, clock::now(), &event);
    (key, body)
}

fn post(signer: &Signer, path: &str, id: &str, body: &[u8]) -> Wire {
    let headers = signer.headers(clock::now(), id, body);
    let mut request = format!(
        "POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: {}\r\n",
        body.len()
    );
    for (name, value) in headers.pairs() {
        request.extend([name, ": ", value, "\r\n"]);
    }
    request.push_str("\r\n");
    [request.as_bytes(), body].concat()
}
