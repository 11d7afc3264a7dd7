//! Puts load on a receiver and says what it bore: single ingests, batches, reads, streams.
//!
//! ```text
//! ingest-load --address 127.0.0.1:8787 --secret-file FILE                   single ingests
//! ingest-load --address 127.0.0.1:8787 --secret-file FILE --batch 256       the same in batches
//! ingest-load --address 127.0.0.1:8787 --read /api/milestones/latest        reads
//! ingest-load --address 127.0.0.1:8787 --secret-file FILE --streams 1000    until every stream has an event
//! ```
//!
//! # Invariants
//! - Everything is signed before the clock starts, and one thread does the load: the receiver's share of the
//!   machine is not spent here.
//! - Each answer is read whole and looked at. One that is not the wanted one ends the run: what is counted
//!   was taken.
//!
//! Not here: starting receivers, comparing figures (the bench).

mod requests;
mod wire;

use std::{fs, net::SocketAddr, path::PathBuf, process::ExitCode, time::Duration};

use argh::{ArgsInfo, FromArgs};
use milepost::{
    Error, Kind, Result,
    cli::{self, Output, Verdict},
    secret::{Origin, Secret},
};
use serde::Serialize;

use crate::wire::Load;

/// Put load on a receiver and say what it bore.
#[derive(FromArgs, ArgsInfo)]
struct Args {
    /// where the receiver listens
    #[argh(option, arg_name = "ADDR:PORT")]
    address: SocketAddr,

    /// file with the secret
    #[argh(option, arg_name = "FILE")]
    secret_file: Option<PathBuf>,

    /// connections at a time (default: 32)
    #[argh(option, arg_name = "N", default = "32")]
    connections: usize,

    /// how many milestones, reads or rounds (default: 100000, with --streams 50)
    #[argh(option, arg_name = "N")]
    requests: Option<usize>,

    /// milestones in one request (default: 1, the single route)
    #[argh(option, arg_name = "N", default = "1")]
    batch: usize,

    /// how the milestones' ids begin; another one for each run, else they are duplicates
    #[argh(option, arg_name = "TEXT", default = "String::from(\"load\")")]
    prefix: String,

    /// read this path instead
    #[argh(option, arg_name = "PATH")]
    read: Option<String>,

    /// open so many streams, and see how long each milestone takes to reach all of them
    #[argh(option, arg_name = "N")]
    streams: Option<usize>,

    /// say nothing about success
    #[argh(switch, short = 'q')]
    quiet: bool,
}

/// What a run found. Times are in microseconds.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Report {
    status: &'static str,
    requests: usize,
    items: usize,
    seconds: f64,
    per_second: u64,
    p50: u64,
    p99: u64,
    max: u64,
}

fn main() -> ExitCode {
    cli::run_tool("ingest-load", run)
}

fn run(args: Args, out: &mut Output) -> Result<Verdict> {
    out.quiet(args.quiet);
    let load = Load { address: args.address, connections: args.connections.max(1) };
    let items_each = args.batch.max(1);
    let (items, times) = if let Some(path) = &args.read {
        let requests = args.requests.unwrap_or(100_000);
        (requests, load.repeat(&requests::read(path), requests)?)
    } else {
        let signer = requests::signer(&secret(args.secret_file.as_deref())?);
        if let Some(streams) = args.streams {
            let rounds = args.requests.unwrap_or(50);
            let posts = requests::singles(&signer, &args.prefix, rounds);
            (rounds * streams, load.stream(streams, &posts)?)
        } else {
            let items = args.requests.unwrap_or(100_000);
            let posts = match items_each {
                1 => requests::singles(&signer, &args.prefix, items),
                _ => requests::batches(&signer, &args.prefix, items, items_each),
            };
            (items, load.each(&posts)?)
        }
    };
    out.result(&report(items, times));
    Ok(Verdict::Done)
}

fn secret(file: Option<&std::path::Path>) -> Result<Secret> {
    let file = file.ok_or_else(|| Error::new(Kind::Usage, "", "--secret-file is missing"))?;
    let bytes = fs::read(file).map_err(|it| Error::io("cannot read", file, it))?;
    let text = bytes.strip_suffix(b"\n").unwrap_or(&bytes).to_vec();
    Secret::from_bytes(text, Origin::File(file.to_owned()))
}

fn report(items: usize, times: wire::Times) -> Report {
    let wire::Times { took, mut each } = times;
    each.sort_unstable();
    let micros = |it: Duration| u64::try_from(it.as_micros()).unwrap_or(u64::MAX);
    let at = |share: usize| each.get(each.len().saturating_sub(1) * share / 100).copied().map_or(0, micros);
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a rate for people"
    )]
    let per_second = (items as f64 / took.as_secs_f64()) as u64;
    Report {
        status: "done",
        requests: each.len(),
        items,
        seconds: took.as_secs_f64(),
        per_second,
        p50: at(50),
        p99: at(99),
        max: at(100),
    }
}
