//! One attempt on the wire: sign, post, read the answer. Only user of ureq, with `resolve` and `target`.
//!
//! # Invariants
//! - Redirects are never followed, no proxy of the environment is used, nothing is decompressed.
//! - An attempt ends within the timeout, and reads no more than a bounded number of bytes, whatever comes.
//! - "No answer" means that not one byte of an answer came; from the first byte on it is a broken answer.
//!
//! Not here: what an answer means (`milepost::delivery::verdict`).

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
    },
    time::Duration,
};

use milepost::{
    Result, clock,
    delivery::{
        Outgoing,
        verdict::{Attempted, HttpAnswer, Unanswered},
    },
    secret::SecretSource,
    signing::{SignedHeaders, Signer},
};
use ureq::{
    Agent,
    http::{HeaderMap, Response},
    tls::{RootCerts, TlsConfig},
    unversioned::transport::{
        Buffers, ConnectionDetails, Connector, NextTimeout, RustlsConnector, TcpConnector, Transport,
    },
};

use crate::{
    args::Args,
    resolve::{Forbidden, Lookup, Rules},
    target::Target,
};

/// The most bytes of an answer's body; the contract's answers have some hundred.
const BODY_BYTES_MAX: u64 = 64 << 10;
/// The most bytes of an answer's headers.
const HEADER_BYTES_MAX: usize = 16 << 10;
/// The most bytes that an attempt reads altogether, interim answers included.
const ANSWER_BYTES_MAX: u64 = 256 << 10;
/// The most time that connecting may take of the whole.
const CONNECT_MAX: Duration = Duration::from_secs(10);

/// The way to one endpoint.
pub struct Post {
    agent: Agent,
    target: Target,
    signer: Signer,
    lookup: Lookup,
    traffic: Arc<Traffic>,
}

/// What a connection saw in the current attempt.
#[derive(Debug, Default)]
struct Traffic {
    has_connected: AtomicBool,
    received: AtomicU64,
}

impl Post {
    /// Makes ready to post; connects to nothing yet.
    pub fn new(args: &Args, target: Target, signer: Signer) -> Post {
        let timeout = args.timeout.get();
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .proxy(None)
            .timeout_global(Some(timeout))
            .timeout_connect(Some(timeout.min(CONNECT_MAX)))
            .max_response_header_size(HEADER_BYTES_MAX)
            .max_idle_connections(1)
            .user_agent(concat!("milestone-deliver/", env!("CARGO_PKG_VERSION")))
            .accept("application/json")
            .tls_config(TlsConfig::builder().root_certs(RootCerts::PlatformVerifier).build())
            .build();
        let rules =
            Rules { loopback_only: target.is_plain() && !args.allow_http, public_only: args.public_only };
        let lookup = Lookup::new(rules);
        let traffic = Arc::new(Traffic::default());
        let connector =
            ().chain(TcpConnector::default())
                .chain(RustlsConnector::default())
                .chain(Counting { traffic: Arc::clone(&traffic) });
        let agent = Agent::with_parts(config, connector, lookup.clone());
        Post { agent, target, signer, lookup, traffic }
    }

    /// Signs with other secrets from now on.
    pub fn sign_with(&mut self, signer: Signer) {
        self.signer = signer;
    }

    /// Makes one attempt. After a 401 it is made once more with the previous secret, if there is one.
    pub fn post(&mut self, outgoing: &Outgoing<'_>) -> Attempted {
        let headers = self.signer.headers(clock::now(), outgoing.webhook_id, outgoing.body);
        let attempted = self.post_signed(outgoing, &headers);
        let is_unauthorized = matches!(&attempted, Attempted::Answered(it) if it.status == 401);
        match self.signer.headers_by_previous(clock::now(), outgoing.webhook_id, outgoing.body) {
            Some(headers) if is_unauthorized => self.post_signed(outgoing, &headers),
            _ => attempted,
        }
    }

    fn post_signed(&self, outgoing: &Outgoing<'_>, headers: &SignedHeaders) -> Attempted {
        let attempted = self.post_once(outgoing, headers);
        let is_stale = !self.traffic.has_connected.load(SeqCst) && self.traffic.received.load(SeqCst) == 0;
        match attempted {
            // The other side closed a connection that was kept open, at the moment it was used again.
            Attempted::Unanswered { how: Unanswered::Connection, .. } if is_stale => {
                self.post_once(outgoing, headers)
            }
            other => other,
        }
    }

    fn post_once(&self, outgoing: &Outgoing<'_>, headers: &SignedHeaders) -> Attempted {
        self.traffic.has_connected.store(false, SeqCst);
        self.traffic.received.store(0, SeqCst);
        let mut request =
            self.agent.post(self.target.url(outgoing.route)).header("content-type", "application/json");
        for (name, value) in headers.pairs() {
            request = request.header(name, value);
        }
        match request.send(outgoing.body) {
            Ok(response) => self.read(response),
            Err(error) => self.failed(None, error),
        }
    }

    fn read(&self, mut response: Response<ureq::Body>) -> Attempted {
        let mut answer = head(&response);
        // One byte more, so that what fills the bound is told from what goes beyond it.
        match response.body_mut().with_config().limit(BODY_BYTES_MAX).read_to_vec() {
            Ok(body) => {
                answer.body = body;
                Attempted::Answered(answer)
            }
            Err(error) => self.failed(Some(answer), error),
        }
    }

    /// What an attempt came to that has no whole answer.
    fn failed(&self, head: Option<HttpAnswer>, error: ureq::Error) -> Attempted {
        let unanswered = |how, what: String| Attempted::Unanswered { how, what };
        if let ureq::Error::Other(cause) = &error
            && cause.is::<Forbidden>()
        {
            return Attempted::Forbidden { what: cause.to_string() };
        }
        if is_timeout(&error) {
            self.lookup.forget();
            return unanswered(Unanswered::Timeout, "no whole answer in time".to_owned());
        }
        if self.traffic.received.load(SeqCst) > 0 {
            let is_oversized = head.is_some() && matches!(error, ureq::Error::BodyExceedsLimit(_));
            let what = match error {
                ureq::Error::BodyExceedsLimit(_) | ureq::Error::LargeResponseHeader(..) => {
                    "the answer is too large".to_owned()
                }
                ureq::Error::Io(_) | ureq::Error::BodyStalled => "the answer was broken off".to_owned(),
                other => format!("the answer is no valid HTTP: {other}"),
            };
            return Attempted::Broken { head, is_oversized, what };
        }
        self.lookup.forget();
        match error {
            ureq::Error::HostNotFound => {
                unanswered(Unanswered::Name, "the host's name has no address".into())
            }
            ureq::Error::Tls(_) | ureq::Error::Rustls(_) | ureq::Error::TlsRequired | ureq::Error::Pem(_) => {
                unanswered(Unanswered::Tls, error.to_string())
            }
            // A handshake's fault comes wrapped.
            ureq::Error::Io(cause) if cause.kind() == io::ErrorKind::InvalidData => {
                unanswered(Unanswered::Tls, cause.to_string())
            }
            ureq::Error::Io(cause) => unanswered(Unanswered::Connection, cause.to_string()),
            other => unanswered(Unanswered::Connection, other.to_string()),
        }
    }
}

/// Reads the secrets from where the command line and the environment say.
pub fn signer(args: &Args) -> Result<Signer> {
    let allow = args.allow_readable_secret;
    let current = SecretSource::WEBHOOK.load(args.secret_file.as_deref(), allow)?;
    let previous =
        SecretSource::WEBHOOK_PREVIOUS.load_optional(args.previous_secret_file.as_deref(), allow)?;
    Ok(Signer::new(&current, previous.as_ref()))
}

fn head<B>(response: &Response<B>) -> HttpAnswer {
    let text = |headers: &HeaderMap, name: &str| -> Option<String> {
        headers.get(name)?.to_str().ok().map(str::to_owned)
    };
    let headers = response.headers();
    let delivery = text(headers, "webhook-delivery");
    HttpAnswer {
        status: response.status().as_u16(),
        retry_after: text(headers, "retry-after"),
        date: text(headers, "date"),
        disable: delivery.is_some_and(|it| it.trim().eq_ignore_ascii_case("disable")),
        body: Vec::new(),
    }
}

fn is_timeout(error: &ureq::Error) -> bool {
    match error {
        ureq::Error::Timeout(_) => true,
        ureq::Error::Io(cause) => matches!(cause.kind(), io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock),
        _ => false,
    }
}

/// Wraps each connection so that what it receives is counted.
#[derive(Debug)]
struct Counting {
    traffic: Arc<Traffic>,
}

impl<In: Transport> Connector<In> for Counting {
    type Out = Counted<In>;

    fn connect(&self, _: &ConnectionDetails, chained: Option<In>) -> Result<Option<Self::Out>, ureq::Error> {
        let Some(inner) = chained else { return Ok(None) };
        self.traffic.has_connected.store(true, SeqCst);
        Ok(Some(Counted { inner, traffic: Arc::clone(&self.traffic) }))
    }
}

#[derive(Debug)]
struct Counted<In> {
    inner: In,
    traffic: Arc<Traffic>,
}

impl<In: Transport> Transport for Counted<In> {
    fn buffers(&mut self) -> &mut dyn Buffers {
        self.inner.buffers()
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), ureq::Error> {
        self.inner.transmit_output(amount, timeout)
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, ureq::Error> {
        let before = self.inner.buffers().input().len();
        let progress = self.inner.await_input(timeout)?;
        let more = self.inner.buffers().input().len().saturating_sub(before) as u64;
        if self.traffic.received.fetch_add(more, SeqCst) + more > ANSWER_BYTES_MAX {
            return Err(ureq::Error::BodyExceedsLimit(ANSWER_BYTES_MAX));
        }
        Ok(progress)
    }

    fn is_open(&mut self) -> bool {
        self.inner.is_open()
    }

    fn is_tls(&self) -> bool {
        self.inner.is_tls()
    }
}
