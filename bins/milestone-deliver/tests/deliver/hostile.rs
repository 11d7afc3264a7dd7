//! Against a receiver that misbehaves in every way that we could think of.

mod addresses;
mod answers;
mod bench;
mod connections;
mod kills;
mod patience;
mod signatures;
mod tls;
