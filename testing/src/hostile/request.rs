//! A request as it came, byte for byte.

use std::{
    collections::BTreeMap,
    io::{self, Read},
};

use serde_json::{Value, value::RawValue};

/// The longest head that is read.
const HEAD_BYTES_MAX: usize = 64 << 10;

/// A request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Request {
    /// The path with its query.
    pub path: String,
    /// Names in lower case, and values.
    pub headers: Vec<(String, String)>,
    /// The body; empty where the server did not wait for it.
    pub body: Vec<u8>,
}

impl Request {
    /// Reads the head; `None` when the client is gone.
    pub(super) fn read_head(reader: &mut dyn Read) -> io::Result<Option<Request>> {
        let mut head = Vec::new();
        let mut byte = [0];
        while !head.ends_with(b"\r\n\r\n") {
            if reader.read(&mut byte)? == 0 || head.len() > HEAD_BYTES_MAX {
                return Ok(None);
            }
            head.push(byte[0]);
        }
        let head = String::from_utf8(head).map_err(io::Error::other)?;
        let mut lines = head.trim_end().split("\r\n");
        let path = lines.next().and_then(|it| it.split(' ').nth(1)).unwrap_or_default().to_owned();
        let header = |line: &str| {
            let (name, value) = line.split_once(':')?;
            Some((name.to_ascii_lowercase(), value.trim().to_owned()))
        };
        Ok(Some(Request { path, headers: lines.filter_map(header).collect(), body: Vec::new() }))
    }

    /// Reads the body that the head announces.
    pub(super) fn read_body(&mut self, reader: &mut dyn Read) -> io::Result<()> {
        let length = self.header("content-length").and_then(|it| it.parse().ok()).unwrap_or(0);
        self.body = vec![0; length];
        reader.read_exact(&mut self.body)
    }

    /// A header's value.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(it, _)| it == name).map(|(_, value)| value.as_str())
    }

    /// The body as JSON; null when it is none.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }

    /// The idempotency key; none of a batch.
    pub fn key(&self) -> Option<String> {
        key_of(&self.body)
    }

    /// Whether it came by the door for batches.
    pub fn is_batch(&self) -> bool {
        self.path.ends_with("/ingest-batch")
    }

    /// The items in it, byte for byte, with their keys; of a request that is no batch, its body.
    pub fn items(&self) -> Vec<(String, Vec<u8>)> {
        let bodies: Vec<Vec<u8>> = if self.is_batch() {
            let batch: BTreeMap<String, Vec<Box<RawValue>>> =
                serde_json::from_slice(&self.body).unwrap_or_default();
            batch.into_values().flatten().map(|it| it.get().as_bytes().to_vec()).collect()
        } else {
            vec![self.body.clone()]
        };
        let keyed = bodies.into_iter().map(|it| (key_of(&it), it));
        keyed.filter_map(|(key, it)| Some((key?, it))).collect()
    }
}

fn key_of(body: &[u8]) -> Option<String> {
    let body: Value = serde_json::from_slice(body).ok()?;
    body["idempotencyKey"].as_str().map(str::to_owned)
}
