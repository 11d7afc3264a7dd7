//! What the programs of the fuzzers share.
//!
//! - `common`: which target a process is for.
//! - `oracle`: the contract said a second time, without the library that is judged.
//! - `scratch`: folders to work in, and the bytes of journals by the book.
//! - `seeds`: first inputs.

pub mod common;
pub mod oracle;
pub mod scratch;
pub mod seeds;
