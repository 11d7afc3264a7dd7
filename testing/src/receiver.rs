//! A real milestone-receive as a process, with a logs folder of its own; killed when dropped.

use std::{
    io::{BufRead, BufReader},
    path::PathBuf,
    process::{Child, Stdio},
};

use serde_json::Value;

use crate::Scratch;

/// See the head of this file.
#[derive(Debug)]
pub struct Receiver {
    /// Its own scratch folder.
    pub scratch: Scratch,
    /// The secret that it shares with its senders.
    pub secret: PathBuf,
    /// Where it listens.
    pub url: String,
    child: Child,
}

impl Default for Receiver {
    fn default() -> Receiver {
        Receiver::start()
    }
}

impl Receiver {
    /// Starts one at a free port.
    pub fn start() -> Receiver {
        let scratch = Scratch::new();
        let secret = scratch.secret("secret", "correct horse");
        let mut child = scratch
            .command("milestone-receive")
            .args(["--listen", "127.0.0.1:0", "--secret-file", "secret"])
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let listening: Value = serde_json::from_str(&line).unwrap();
        let url = listening["address"].as_str().unwrap().to_owned();
        Receiver { scratch, secret, url, child }
    }

    /// The ids of the milestones that it has accepted, in their order.
    pub fn feed(&self) -> Vec<String> {
        let lines = self.scratch.records("receive/feed");
        lines.iter().map(|it| it["event"]["milestoneId"].as_str().unwrap().to_owned()).collect()
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
