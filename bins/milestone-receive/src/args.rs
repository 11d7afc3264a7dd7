//! The command line.

use std::path::PathBuf;

use argh::{ArgsInfo, FromArgs};
use milepost::units::{DurationArg, Size};

use crate::{item::ShowEvidence, listen::Place};

/// Take signed milestones over HTTP, keep them, and show the feed.
#[derive(FromArgs, ArgsInfo)]
#[argh(
    example = "{command_name} --secret-file /etc/milepost/secret",
    example = "{command_name} --listen 127.0.0.1:0 --public-host feed.example --strict",
    note = "$CREDENTIALS_DIRECTORY: systemd's credentials; the secrets are looked for there, where no file is given",
    note = "$CLAWDBOT_MILESTONE_WEBHOOK_SECRET: the secret, where there is neither file nor credential",
    note = "$CLAWDBOT_MILESTONE_WEBHOOK_SECRET_PREVIOUS: the secret before it, likewise",
    note = "The secret: --secret-file, else the credential milestone-webhook-secret (and -previous), else the environment.\nSIGHUP reads files again.",
    note = "It serves plain http; on a public address put a reverse proxy with TLS in front and name it with --public-host.",
    error_code(69, "the address is taken"),
    error_code(75, "another receiver works in this folder"),
    error_code(78, "there is no secret, or not a good one; or $MILESTONE_ROTATE_BYTES is no size")
)]
pub struct Args {
    /// logs folder (default: `$MILESTONE_LOGS`, else ./logs)
    #[argh(option, arg_name = "DIR")]
    pub logs: Option<PathBuf>,

    /// where to listen: address and port (port 0 takes a free one and says which), the path of a Unix socket, or
    /// systemd; may be given several times (default: systemd's sockets where there are some, else 127.0.0.1:8787)
    #[argh(option, arg_name = "WHERE")]
    pub listen: Vec<Place>,

    /// the operator's own address or Unix socket: with it metrics and dead letters are served nowhere else
    #[argh(option, arg_name = "WHERE")]
    pub admin_listen: Option<Place>,

    /// name under which a reverse proxy offers this receiver; may be given several times
    #[argh(option, arg_name = "NAME", from_str_fn(host_name))]
    pub public_host: Vec<String>,

    /// accept only requests with Standard Webhooks signatures, which cover the time of the attempt
    #[argh(switch)]
    pub strict: bool,

    /// how far the time of an attempt may be from ours (default: 5m)
    #[argh(option, arg_name = "DUR", default = "DurationArg::from_secs(300)")]
    pub tolerance: DurationArg,

    /// file with the secret (default: the credential milestone-webhook-secret)
    #[argh(option, arg_name = "FILE")]
    pub secret_file: Option<PathBuf>,

    /// file with the secret before this one, while secrets rotate (default: the credential
    /// milestone-webhook-secret-previous)
    #[argh(option, arg_name = "FILE")]
    pub previous_secret_file: Option<PathBuf>,

    /// accept a secret file that other users can read
    #[argh(switch)]
    pub allow_readable_secret: bool,

    /// how much of evidence readers see (default: full where only this machine can read, basename on other addresses
    /// and with --public-host)
    #[argh(option, arg_name = "full|basename|none")]
    pub show_evidence: Option<ShowEvidence>,

    /// also serve the newest as signed ingest bodies at /milestones-feed.json, for apps that pull
    #[argh(switch)]
    pub pull_feed: bool,

    /// file with the secret that signs those; never that of the ingest, since they could be posted
    #[argh(option, arg_name = "FILE")]
    pub feed_secret_file: Option<PathBuf>,

    /// origin whose pages may read the feed, such as `https://app.example`, or `*`
    #[argh(option, arg_name = "ORIGIN", from_str_fn(origin))]
    pub cors: Option<String>,

    /// size at which a journal begins a new file (default: `$MILESTONE_ROTATE_BYTES`, else 64MiB)
    #[argh(option, arg_name = "SIZE")]
    pub rotate_bytes: Option<Size>,

    /// say nothing about success; errors stay
    #[argh(switch, short = 'q')]
    pub quiet: bool,
}

fn host_name(text: &str) -> Result<String, String> {
    let is_name = |it: u8| it.is_ascii_alphanumeric() || matches!(it, b'-' | b'.' | b'_');
    if text.is_empty() || !text.bytes().all(is_name) {
        return Err("is no host name: write it without scheme and port, such as feed.example".into());
    }
    Ok(text.trim_end_matches('.').to_ascii_lowercase())
}

fn origin(text: &str) -> Result<String, String> {
    let host = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
    let is_plain = |it: &str| {
        !it.is_empty() && it.bytes().all(|it| it.is_ascii_alphanumeric() || b"-._:[]".contains(&it))
    };
    if text == "*" || host.is_some_and(is_plain) {
        return Ok(text.to_owned());
    }
    Err("is no origin: write * or scheme and host without a path, such as https://app.example".into())
}
