//! A request as it came, byte for byte.

use std::io::{self, Read};

use serde_json::Value;

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

    /// The idempotency key.
    pub fn key(&self) -> Option<String> {
        self.json()["idempotencyKey"].as_str().map(str::to_owned)
    }
}
