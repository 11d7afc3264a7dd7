//! All that a caller meets of the command-line piece (`cli`), of a tool that begins at C's `main`.

#[path = "cli.rs"]
mod cli;
