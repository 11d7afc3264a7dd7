//! One attempt on the wire: sign, post, read the answer. Only user of ureq, with `resolve`, `target` and `tcp`.
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
        Arc, PoisonError, RwLock,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use milepost::{
    Result, clock,
    delivery::{
        Outgoing,
        couriers::Wire,
        verdict::{Attempted, HttpAnswer, Unanswered},
    },
    ingest::batch,
    secret::SecretSource,
    signing::{self, SignedHeaders, Signer},
};
use ureq::{
    Agent,
    config::Config,
    http::{HeaderMap, HeaderName, HeaderValue, Response, header::CONTENT_TYPE},
    tls::{RootCerts, TlsConfig},
    unversioned::transport::{
        Buffers, ConnectionDetails, Connector, NextTimeout, RustlsConnector, Transport,
    },
};

use crate::{
    args::Args,
    resolve::{Forbidden, Lookup, Rules},
    target::Target,
    tcp::Tcp,
};

/// The most bytes of an answer's body; the contract's answers have some hundred.
const BODY_BYTES_MAX: u64 = 64 << 10;
/// The most bytes of an answer's headers.
const HEADER_BYTES_MAX: usize = 16 << 10;
/// The most bytes that an attempt reads altogether, interim answers included.
const ANSWER_BYTES_MAX: u64 = 256 << 10;
/// So much more for each item of a batch.
const ITEM_BYTES_MAX: u64 = 2 << 10;
/// So many different time limits a socket is given.
const TIMEOUT_STEPS: u32 = 64;
/// The most time that connecting may take of the whole.
const CONNECT_MAX: Duration = Duration::from_secs(10);

const JSON: HeaderValue = HeaderValue::from_static("application/json");
/// The names of the headers of `SignedHeaders::pairs`, which need not be read again for each attempt.
static SIGNED: [HeaderName; 5] = [
    HeaderName::from_static(signing::OPENCLAW_SIGNATURE),
    HeaderName::from_static(signing::OPENCLAW_TIMESTAMP),
    HeaderName::from_static(signing::WEBHOOK_ID),
    HeaderName::from_static(signing::WEBHOOK_TIMESTAMP),
    HeaderName::from_static(signing::WEBHOOK_SIGNATURE),
];

/// What every connection to the endpoint needs.
#[derive(Clone)]
pub struct Connections {
    config: Config,
    target: Arc<Target>,
    signer: Arc<RwLock<Arc<Signer>>>,
    lookup: Lookup,
    /// Time limits of the socket are multiples of this.
    step: Duration,
}

/// One connection to the endpoint, kept open between attempts.
pub struct Post {
    agent: Agent,
    common: Connections,
    traffic: Arc<Traffic>,
}

/// What a connection saw in the current attempt.
#[derive(Debug, Default)]
struct Traffic {
    has_connected: AtomicBool,
    received: AtomicU64,
    /// How much may be received.
    most: AtomicU64,
}

impl Connections {
    /// Makes ready to post; connects to nothing yet.
    pub fn new(args: &Args, target: Target, signer: Signer) -> Connections {
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
        Connections {
            config,
            target: Arc::new(target),
            signer: Arc::new(RwLock::new(Arc::new(signer))),
            lookup: Lookup::new(rules),
            step: (timeout / TIMEOUT_STEPS).max(Duration::from_millis(1)),
        }
    }

    /// Signs with other secrets from now on.
    pub fn sign_with(&self, signer: Signer) {
        *self.signer.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(signer);
    }

    fn signer(&self) -> Arc<Signer> {
        Arc::clone(&self.signer.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// One more connection.
    pub fn connect(&self) -> Post {
        let traffic = Arc::new(Traffic::default());
        let connector =
            ().chain(Tcp { step: self.step })
                .chain(RustlsConnector::default())
                .chain(Counting { traffic: Arc::clone(&traffic) });
        let agent = Agent::with_parts(self.config.clone(), connector, self.lookup.clone());
        Post { agent, common: self.clone(), traffic }
    }
}

impl Wire for Post {
    /// Makes one attempt. After a 401 it is made once more with the previous secret, if there is one.
    fn post(&mut self, outgoing: &Outgoing) -> Attempted {
        let signer = self.common.signer();
        let (id, body) = (outgoing.webhook_id(), outgoing.body());
        let headers = signer.headers(clock::now(), &id, &body);
        let attempted = self.post_signed(outgoing, &body, &headers);
        let is_unauthorized = matches!(&attempted, Attempted::Answered(it) if it.status == 401);
        if is_unauthorized && let Some(headers) = signer.headers_by_previous(clock::now(), &id, &body) {
            let mut attempted = self.post_signed(outgoing, &body, &headers);
            if let Attempted::Answered(it) = &mut attempted {
                it.by_previous = it.status != 401;
            }
            return attempted;
        }
        attempted
    }
}

impl Post {
    fn post_signed(&self, outgoing: &Outgoing, body: &[u8], headers: &SignedHeaders) -> Attempted {
        let attempted = self.post_once(outgoing, body, headers);
        let is_stale = !self.traffic.has_connected.load(Relaxed) && self.traffic.received.load(Relaxed) == 0;
        match attempted {
            // The other side closed a connection that was kept open, at the moment it was used again.
            Attempted::Unanswered { how: Unanswered::Connection, .. } if is_stale => {
                self.post_once(outgoing, body, headers)
            }
            other => other,
        }
    }

    fn post_once(&self, outgoing: &Outgoing, body: &[u8], headers: &SignedHeaders) -> Attempted {
        self.traffic.has_connected.store(false, Relaxed);
        self.traffic.received.store(0, Relaxed);
        let more = if outgoing.is_batch { outgoing.items.len() as u64 * ITEM_BYTES_MAX } else { 0 };
        self.traffic.most.store(ANSWER_BYTES_MAX + more, Relaxed);
        let target = &self.common.target;
        let batch_uri = target.batch_uri(outgoing.route);
        let uri = batch_uri.filter(|_| outgoing.is_batch).unwrap_or(target.uri(outgoing.route));
        let mut request = self.agent.post(uri).header(CONTENT_TYPE, JSON);
        for (name, (_, value)) in SIGNED.iter().zip(headers.pairs()) {
            request = request.header(name, value);
        }
        match request.send(body) {
            Ok(response) => self.read(response, BODY_BYTES_MAX + more, batch_uri.is_some()),
            Err(error) => self.failed(None, error),
        }
    }

    fn read(&self, mut response: Response<ureq::Body>, limit: u64, has_batches: bool) -> Attempted {
        let mut answer = head(&response);
        answer.batch = answer.batch.filter(|_| has_batches);
        match response.body_mut().with_config().limit(limit).read_to_vec() {
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
            self.common.lookup.forget();
            return unanswered(Unanswered::Timeout, "no whole answer in time".to_owned());
        }
        if self.traffic.received.load(Relaxed) > 0 {
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
        self.common.lookup.forget();
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
        batch: text(headers, batch::HEADER),
        disable: delivery.is_some_and(|it| it.trim().eq_ignore_ascii_case("disable")),
        by_previous: false,
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
        self.traffic.has_connected.store(true, Relaxed);
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
        let most = self.traffic.most.load(Relaxed);
        if self.traffic.received.fetch_add(more, Relaxed) + more > most {
            return Err(ureq::Error::BodyExceedsLimit(most));
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
