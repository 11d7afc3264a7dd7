//! The one error type: what went wrong, where, why, and what to do about it.
//!
//! # Invariants
//! - Every error has a [`Kind`], every kind one exit code and one answer to "may a retry help?".
//! - The message is lower case, shows the value, and never holds a secret.
//! - `Display` is the whole line that a person reads: `place: what: cause; cure`.
//!
//! Not here: printing it (`cli`).

use std::{error, fmt, io, path::Path};

/// The kinds of failure, after sysexits(3). The table in [`Kind::exit_code`] is the only one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// The answer is no: a conflict, a broken chain. Permanent.
    No,
    /// The command line is wrong. Permanent.
    Usage,
    /// The input is no valid data. Permanent.
    BadData,
    /// An input file or folder is not there. Permanent.
    NoInput,
    /// A service that is needed does not answer. Temporary.
    Unavailable,
    /// An output file cannot be created. Permanent.
    CannotCreate,
    /// Reading, writing or syncing failed. Temporary: the disk may be well again at the next run.
    Io,
    /// Try again: a lock is held, the disk is full. Temporary.
    Temporary,
    /// The system forbids it. Permanent.
    Permission,
    /// The configuration is wrong or incomplete. Permanent.
    Configuration,
}

impl Kind {
    /// The process exit code of this kind of failure (sysexits; 2 is "no", as in grep and diff).
    pub fn exit_code(self) -> u8 {
        match self {
            Kind::No => 2,
            Kind::Usage => 64,
            Kind::BadData => 65,
            Kind::NoInput => 66,
            Kind::Unavailable => 69,
            Kind::CannotCreate => 73,
            Kind::Io => 74,
            Kind::Temporary => 75,
            Kind::Permission => 77,
            Kind::Configuration => 78,
        }
    }

    /// Whether the same command may succeed later without anybody changing anything.
    pub fn is_temporary(self) -> bool {
        matches!(self, Kind::Unavailable | Kind::Io | Kind::Temporary)
    }

    /// The kind of a failed system call, from its errno.
    pub fn of_io(cause: &io::Error) -> Kind {
        use io::ErrorKind as E;
        match cause.kind() {
            E::NotFound | E::NotADirectory => Kind::NoInput,
            E::PermissionDenied | E::ReadOnlyFilesystem => Kind::Permission,
            E::StorageFull | E::QuotaExceeded | E::WouldBlock | E::TimedOut | E::OutOfMemory => {
                Kind::Temporary
            }
            E::AlreadyExists | E::IsADirectory => Kind::CannotCreate,
            // Out of file descriptors (EMFILE, ENFILE) passes when other work ends.
            _ if matches!(cause.raw_os_error(), Some(23 | 24)) => Kind::Temporary,
            _ => Kind::Io,
        }
    }
}

/// "Permission denied"; the other such errno, EPERM, has other causes and cures.
const EACCES: i32 = 13;

/// A failure with its place, its cause and its cure.
#[derive(Debug)]
pub struct Error {
    kind: Kind,
    place: String,
    what: String,
    cause: Option<Box<dyn error::Error + Send + Sync>>,
    cure: Option<String>,
}

/// The result of whatever may fail in this library.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// A failure of `kind` at `place` (a path, `file:line`, a field; empty when there is none).
    pub fn new(kind: Kind, place: impl fmt::Display, what: impl Into<String>) -> Error {
        Error { kind, place: place.to_string(), what: what.into(), cause: None, cure: None }
    }

    /// A failed system call on `path`; the kind follows from errno. `what` reads like "cannot open".
    pub fn io(what: impl Into<String>, path: &Path, cause: io::Error) -> Error {
        let cure = match cause.kind() {
            io::ErrorKind::StorageFull => Some("free some space and run it again".to_owned()),
            io::ErrorKind::QuotaExceeded => Some("raise the disk quota or free some space".to_owned()),
            io::ErrorKind::FileTooLarge => Some("raise the file size limit (ulimit -f)".to_owned()),
            io::ErrorKind::PermissionDenied if cause.raw_os_error() == Some(EACCES) => {
                Some("run it as a member of the folder's group, or change the mode".to_owned())
            }
            io::ErrorKind::ReadOnlyFilesystem => Some("remount it writable".to_owned()),
            _ => None,
        };
        Error {
            kind: Kind::of_io(&cause),
            place: path.display().to_string(),
            what: what.into(),
            cause: Some(Box::new(cause)),
            cure,
        }
    }

    /// The same error with a sentence on what to do.
    #[must_use]
    pub fn cure(mut self, cure: impl Into<String>) -> Error {
        self.cure = Some(cure.into());
        self
    }

    /// The same error with one more sentence on what to do, behind the one that it may have.
    #[must_use]
    pub fn cure_also(mut self, cure: &str) -> Error {
        self.cure = Some(self.cure.map_or_else(|| cure.to_owned(), |first| format!("{first}; {cure}")));
        self
    }

    /// The same error with its cause.
    #[must_use]
    pub fn because(mut self, cause: impl Into<Box<dyn error::Error + Send + Sync>>) -> Error {
        self.cause = Some(cause.into());
        self
    }

    /// The same error as another kind.
    #[must_use]
    pub fn kind_is(mut self, kind: Kind) -> Error {
        self.kind = kind;
        self
    }

    /// The same error with `prefix` before its place, for a caller that knows the file.
    #[must_use]
    pub fn within(mut self, prefix: impl fmt::Display) -> Error {
        self.place =
            if self.place.is_empty() { prefix.to_string() } else { format!("{prefix}: {}", self.place) };
        self
    }

    /// What kind of failure it is.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Where it went wrong: a path, `file:line` or field; may be empty.
    pub fn place(&self) -> &str {
        &self.place
    }

    /// What went wrong, without place, cause and cure.
    pub fn what(&self) -> &str {
        &self.what
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.place.is_empty() {
            write!(f, "{}: ", self.place)?;
        }
        f.write_str(&self.what)?;
        if let Some(cause) = &self.cause {
            write!(f, ": {cause}")?;
        }
        if let Some(cure) = &self.cure {
            write!(f, "; {cure}")?;
        }
        Ok(())
    }
}

impl error::Error for Error {
    fn source(&self) -> Option<&(dyn error::Error + 'static)> {
        self.cause.as_deref().map(|it| it as &(dyn error::Error + 'static))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn message_names_place_what_cause_and_cure() {
        let cause = io::Error::from_raw_os_error(28);
        let error = Error::io("cannot append", Path::new("logs/a.jsonl"), cause);
        assert_eq!(
            error.to_string(),
            "logs/a.jsonl: cannot append: No space left on device (os error 28); free some space and run it again"
        );
        assert_eq!(error.kind(), Kind::Temporary);
        assert_eq!(error.kind().exit_code(), 75);
    }

    #[test]
    fn errno_decides_the_kind() {
        let kind = |errno| Kind::of_io(&io::Error::from_raw_os_error(errno));
        assert_eq!(kind(2), Kind::NoInput);
        assert_eq!(kind(13), Kind::Permission);
        assert_eq!(kind(30), Kind::Permission);
        assert_eq!(kind(5), Kind::Io);
        assert_eq!(kind(24), Kind::Temporary);
        assert_eq!(kind(27), Kind::Io);
    }
}
