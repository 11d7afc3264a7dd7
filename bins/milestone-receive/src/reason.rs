//! Why a request was refused: fixed lists, for counters and for the dead letters.
//!
//! # Invariants
//! - Nothing of a stranger's request is in a reason, so counters cannot be made to grow.

/// Reasons of authentic requests, which are kept and shown among the dead letters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kept {
    /// The body is not of the contract's form.
    InvalidRequest,
    /// The milestone is none.
    InvalidEvent,
    /// The envelope is none.
    InvalidEnvelope,
    /// The identity belongs to another event.
    Conflict,
}

impl Kept {
    /// A short name that never changes.
    pub fn code(self) -> &'static str {
        match self {
            Kept::InvalidRequest => "invalid-request",
            Kept::InvalidEvent => "invalid-event",
            Kept::InvalidEnvelope => "invalid-envelope",
            Kept::Conflict => "conflict",
        }
    }

    /// The reason that a line names; `None` for a word that no version of this program wrote.
    pub fn from_code(code: &str) -> Option<Kept> {
        [Kept::InvalidRequest, Kept::InvalidEvent, Kept::InvalidEnvelope, Kept::Conflict]
            .into_iter()
            .find(|it| it.code() == code)
    }
}

/// Larger than 512 KiB.
pub const TOO_LARGE: &str = "too-large";
/// Not `application/json`, or encoded.
pub const CONTENT_TYPE: &str = "content-type";
/// A signature header that came twice, or is no text.
pub const MALFORMED_HEADER: &str = "malformed-header";
/// No JSON that every party reads alike.
pub const MALFORMED_JSON: &str = "malformed-json";
/// The body did not come in time, or was broken off.
pub const SLOW_BODY: &str = "slow-body";
/// Too much is in work already.
pub const OVERLOADED: &str = "overloaded";
/// The store cannot take anything at the moment.
pub const STORE: &str = "store";
