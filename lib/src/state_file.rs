//! State files: small JSON documents that are replaced whole (J9).
//!
//! # Invariants
//! - A reader sees the old document or the new one, never a mixture, also after a power cut.
//! - A state file is disposable: one that is missing or damaged is rebuilt from the journals.
//!
//! Not here: how any state is rebuilt (the module that owns it).

use std::{fs, io};

use serde::{Serialize, de::DeserializeOwned};

use crate::{Error, Kind, Result, durable, logs::Logs};

/// What reading a state file gave.
#[derive(Debug)]
pub enum Loaded<T> {
    /// The state.
    Found(T),
    /// There is none.
    Missing,
    /// There is one that cannot be used, and why.
    Damaged(String),
}

/// Reads the state file `name`, relative to the logs folder.
pub fn load<T: DeserializeOwned>(logs: &Logs, name: &str) -> Result<Loaded<T>> {
    let path = logs.dir().join(name);
    match fs::read(&path) {
        Ok(bytes) => Ok(match serde_json::from_slice(&bytes) {
            Ok(state) => Loaded::Found(state),
            Err(cause) => Loaded::Damaged(format!("{}: {cause}", path.display())),
        }),
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => Ok(Loaded::Missing),
        Err(cause) => Err(Error::io("cannot read the state", &path, cause)),
    }
}

/// Replaces the state file `name` atomically; it is on disk when this returns.
pub fn save<T: Serialize>(logs: &Logs, name: &str, state: &T) -> Result<()> {
    let path = logs.place(name)?;
    let mut bytes = serde_json::to_vec(state)
        .map_err(|it| Error::new(Kind::Io, path.display(), "cannot write the state").because(it))?;
    bytes.push(b'\n');
    durable::replace(logs.disk(), &path, &bytes)
        .map_err(|it| Error::io("cannot replace the state", &path, it))
}

/// Removes the state file `name` if it is there.
pub fn remove(logs: &Logs, name: &str) -> Result<()> {
    let path = logs.dir().join(name);
    match logs.disk().remove(&path) {
        Err(cause) if cause.kind() != io::ErrorKind::NotFound => {
            Err(Error::io("cannot remove the state", &path, cause))
        }
        _ => Ok(()),
    }
}
