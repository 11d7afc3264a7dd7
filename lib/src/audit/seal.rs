//! Seals: from time to time a service that holds a key puts a keyed hash over the chain's head into the chain.
//!
//! The chain alone shows what was changed inside it; whoever may write the file can still write a whole other
//! chain. A seal cannot be made without the key, so up to the last good one the chain is what it was then.
//!
//! ```text
//! seal   HMAC-SHA256(key, "milepost audit seal 1\n{seq}\n{prev}"), of the sealing record's own seq and prev
//! key    first 16 hex digits of HMAC-SHA256(key, "milepost audit key 1"): names the key, tells nothing of it
//! ```
//!
//! # Invariants
//! - A seal is of the record before it, and with it of all before that.
//! - A change of the key is a record: the new key's first seal names the key before it, and, where that is still
//!   at hand, carries its seal too.
//! - The key is in no record and no message.
//!
//! Not here: checking the seals of a chain (`verify`).

use std::{
    sync::mpsc::{self, RecvTimeoutError},
    thread,
    time::Duration,
};

use hmac::{Hmac, KeyInit, Mac};
use serde_json::{Value, json};
use sha2::Sha256;

use super::{Action, Draft, Failure, Outcome, line::RawLine, open, write};
use crate::{
    Error, Kind, Result,
    identity::hex,
    journal::{JournalName, line_before},
    logs::Logs,
    secret::{Secret, SecretSource},
    state_file::{self, Loaded},
};

/// The key that seals.
pub const AUDIT_KEY: SecretSource<'static> =
    SecretSource { flag: Some("--key-file"), credential: "milestone-audit-key", variable: None };
/// The key before it, while keys change.
pub const AUDIT_KEY_PREVIOUS: SecretSource<'static> = SecretSource {
    flag: Some("--previous-key-file"),
    credential: "milestone-audit-key-previous",
    variable: None,
};

/// How often a service seals, if anything was added.
const EVERY: Duration = Duration::from_secs(600);
/// Which key sealed last; disposable.
const STATE: &str = ".index/audit.seal.json";

/// A key that seals.
#[derive(Clone)]
pub struct Sealer {
    mac: Hmac<Sha256>,
    name: String,
}

impl std::fmt::Debug for Sealer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Sealer({})", self.name)
    }
}

impl Sealer {
    /// The sealer that a key makes.
    ///
    /// # Errors
    /// None that a [`Secret`] can cause.
    pub fn new(key: &Secret) -> Result<Sealer> {
        let mac = Hmac::<Sha256>::new_from_slice(key.text_key())
            .map_err(|it| Error::new(Kind::Configuration, key.origin(), "is no key").because(it))?;
        let name = hex(&mac.clone().chain_update("milepost audit key 1").finalize().into_bytes()[..8]);
        Ok(Sealer { mac, name })
    }

    /// What the key is called in records.
    pub fn name(&self) -> &str {
        &self.name
    }

    fn over(&self, seq: u64, prev: &str) -> Hmac<Sha256> {
        self.mac.clone().chain_update(format!("milepost audit seal 1\n{seq}\n{prev}"))
    }

    /// The seal in the record `seq`, of all before it.
    pub fn seal(&self, seq: u64, prev: &str) -> String {
        hex(&self.over(seq, prev).finalize().into_bytes())
    }

    /// Whether `seal` is that.
    pub fn is_sealed(&self, seq: u64, prev: &str, seal: &str) -> bool {
        let decoded = data_encoding::HEXLOWER.decode(seal.as_bytes());
        decoded.is_ok_and(|it| self.over(seq, prev).verify_slice(&it).is_ok())
    }
}

/// Seals the chain as it is now; false when nothing was added since the last seal of this key.
pub fn seal(logs: &Logs, sealer: &Sealer, previous: Option<&Sealer>) -> Result<bool> {
    let last = match state_file::load::<Value>(logs, STATE)? {
        Loaded::Found(state) => state["key"].as_str().map(str::to_owned),
        Loaded::Missing | Loaded::Damaged(_) => None,
    };
    let (mut active, mut chain) = open(logs).map_err(|it| it.error)?;
    if chain.seq == 0 {
        return Ok(false);
    }
    let line = line_before(logs, &JournalName::audit(), active.mark().end())?.unwrap_or_default();
    let is_sealed = RawLine::read(&line).is_some_and(|it| {
        it.action == b"seal" && memchr::memmem::find(it.detail, sealer.name.as_bytes()).is_some()
    });
    if is_sealed {
        return Ok(false);
    }
    let (seq, prev) = (chain.seq + 1, chain.prev());
    let mut detail = json!({ "key": sealer.name, "seal": sealer.seal(seq, prev) });
    if let Some(last) = last.filter(|it| *it != sealer.name) {
        if let Some(previous) = previous.filter(|it| it.name == last) {
            detail["previousSeal"] = Value::from(previous.seal(seq, prev));
        }
        detail["previousKey"] = Value::from(last);
    }
    let draft = Draft::new(Action::Seal, Outcome::Done, detail);
    write(&mut active, &mut chain, &[draft]).map_err(|Failure { error, .. }| error)?;
    // Still under the audit's lock: several services may seal.
    state_file::save(logs, STATE, &json!({ "key": sealer.name }))?;
    Ok(true)
}

/// Seals while it lives: at once, from time to time, and at its end.
#[derive(Debug)]
pub struct Sealing {
    stop: Option<mpsc::Sender<()>>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Sealing {
    /// Begins to seal if this process was given the key `milestone-audit-key`. `tell` is told of failures.
    ///
    /// # Errors
    /// When a key is there that cannot be used.
    pub fn start(logs: &Logs, tell: impl Fn(&Error) + Send + 'static) -> Result<Option<Sealing>> {
        let Some(key) = AUDIT_KEY.load_optional(None, false)? else { return Ok(None) };
        let sealer = Sealer::new(&key)?;
        let previous = AUDIT_KEY_PREVIOUS.load_optional(None, false)?;
        let previous = previous.as_ref().map(Sealer::new).transpose()?;
        let (stop, stopped) = mpsc::channel::<()>();
        let logs = logs.clone();
        let work = move || {
            loop {
                if let Err(error) = seal(&logs, &sealer, previous.as_ref()) {
                    tell(&error.within("cannot seal the audit"));
                }
                if stopped.recv_timeout(EVERY) != Err(RecvTimeoutError::Timeout) {
                    // What was added since stays sealed behind the service's back.
                    if let Err(error) = seal(&logs, &sealer, previous.as_ref()) {
                        tell(&error.within("cannot seal the audit"));
                    }
                    return;
                }
            }
        };
        let thread = thread::Builder::new()
            .name("seal".into())
            .spawn(work)
            .map_err(|it| Error::new(Kind::Temporary, "", "cannot start a thread").because(it))?;
        Ok(Some(Sealing { stop: Some(stop), thread: Some(thread) }))
    }
}

impl Drop for Sealing {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // A panic in it was told of by its hook.
            let _ = thread.join();
        }
    }
}
