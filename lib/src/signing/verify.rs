//! Whether a request is authentic.
//!
//! A receiver judges in two steps, since the contract puts parsing between them:
//! [`Verifier::check_headers`] needs no body, [`Verifier::verify`] needs it raw and parsed.
//!
//! # Invariants
//! - At least one scheme is present, and every scheme that is present must verify. A scheme of which any
//!   header came is present, so that a header lost on the way never weakens the check; but
//!   `x-openclaw-timestamp` alone is only a time.
//! - No refusal shows a signature, nor any other words of a stranger.
//! - What a webhook id, its timestamp and the body sign together can be split in one way only: an id with a
//!   full stop is refused.
//! - A refusal has a [`Reason`] from a fixed list, for counters, and a sentence for people.
//!
//! Not here: headers that came twice (the receiver refuses them).

use std::{fmt, time::Duration};

use data_encoding::{BASE64, HEXLOWER};
use hmac::digest::{CtOutput, Output};
use serde_json::Value;

use super::{
    HmacSha256, Keys, OPENCLAW_SIGNATURE, OPENCLAW_TIMESTAMP, Signature, WEBHOOK_ID, WEBHOOK_SIGNATURE,
    WEBHOOK_TIMESTAMP,
};
use crate::{Timestamp, canonical, secret::Secret};

/// How far the time of an attempt may be from ours unless the operator says otherwise.
pub const TOLERANCE: Duration = Duration::from_secs(300);

/// The signature headers of a request as they came. A header that came empty is `Some("")`.
#[derive(Clone, Copy, Debug, Default)]
pub struct SignatureHeaders<'a> {
    /// `x-openclaw-signature`
    pub openclaw_signature: Option<&'a str>,
    /// `x-openclaw-timestamp`
    pub openclaw_timestamp: Option<&'a str>,
    /// `webhook-id`
    pub webhook_id: Option<&'a str>,
    /// `webhook-timestamp`
    pub webhook_timestamp: Option<&'a str>,
    /// `webhook-signature`
    pub webhook_signature: Option<&'a str>,
}

/// Headers that are complete, well-formed and of our time; whether they sign the body is still open.
#[derive(Debug)]
pub struct CheckedHeaders<'a> {
    openclaw: Option<Signature>,
    webhook: Option<WebhookHeaders<'a>>,
}

impl CheckedHeaders<'_> {
    /// Whether only the older scheme came, which a strict receiver refuses.
    pub fn is_legacy(&self) -> bool {
        self.webhook.is_none()
    }
}

#[derive(Clone, Copy, Debug)]
struct WebhookHeaders<'a> {
    id: &'a str,
    timestamp: &'a str,
    signature: &'a str,
}

/// Judges the signatures of requests.
pub struct Verifier {
    current: Keys,
    previous: Option<Keys>,
    /// Standard Webhooks must be present, since only it covers the time of the attempt.
    strict: bool,
    tolerance: Duration,
}

impl Verifier {
    /// A verifier that accepts both secrets.
    pub fn new(current: &Secret, previous: Option<&Secret>, strict: bool, tolerance: Duration) -> Verifier {
        Verifier { current: Keys::new(current), previous: previous.map(Keys::new), strict, tolerance }
    }

    /// Whether the headers are there, well-formed and of our time.
    ///
    /// # Errors
    /// Every [`Reason`] but [`Reason::WrongSignature`].
    pub fn check_headers<'a>(
        &self,
        headers: &SignatureHeaders<'a>,
        now: Timestamp,
    ) -> Result<CheckedHeaders<'a>, Rejection> {
        let checked = CheckedHeaders { openclaw: openclaw_of(headers)?, webhook: webhook_of(headers)? };
        if checked.webhook.is_none() {
            if checked.openclaw.is_none() {
                let text = format!("no signature: neither {OPENCLAW_SIGNATURE} nor {WEBHOOK_SIGNATURE} came");
                return Err(Reason::MissingSignature.because(text));
            }
            if self.strict {
                let text =
                    format!("no {WEBHOOK_SIGNATURE}: this receiver is strict and wants Standard Webhooks");
                return Err(Reason::WebhookRequired.because(text));
            }
        }
        if let Some(text) = headers.openclaw_timestamp {
            let sent = Timestamp::parse_rfc3339(text).ok();
            self.check_window(OPENCLAW_TIMESTAMP, sent, now, "RFC 3339")?;
        }
        if let Some(it) = checked.webhook {
            let is_number = it.timestamp.bytes().all(|it| it.is_ascii_digit());
            let seconds = it.timestamp.parse::<i64>().ok().filter(|_| is_number);
            let sent = seconds.map(|it| Timestamp::from_millis(it.saturating_mul(1000)));
            self.check_window(WEBHOOK_TIMESTAMP, sent, now, "Unix seconds")?;
        }
        Ok(checked)
    }

    fn check_window(
        &self,
        header: &str,
        sent: Option<Timestamp>,
        now: Timestamp,
        form: &str,
    ) -> Result<(), Rejection> {
        let Some(sent) = sent else {
            return Err(Reason::MalformedTimestamp.because(format!("{header} is no time in {form}")));
        };
        let (reason, side) = if sent < now {
            (Reason::StaleTimestamp, "behind")
        } else {
            (Reason::FutureTimestamp, "ahead of")
        };
        if now.since(sent).max(sent.since(now)) <= self.tolerance {
            return Ok(());
        }
        let allowed = self.tolerance.as_secs_f64();
        Err(reason.because(format!(
            "{header} says {sent}, more than {allowed} s {side} this receiver's clock, which says {now}"
        )))
    }

    /// Whether every signature is one over this body: `body` as it came, `parsed` from it. Says which secret
    /// it took: [`Which::Previous`] as soon as one of the schemes needed it.
    ///
    /// # Errors
    /// [`Reason::WrongSignature`].
    pub fn verify(
        &self,
        headers: &CheckedHeaders<'_>,
        body: &[u8],
        parsed: &Value,
    ) -> Result<Which, Rejection> {
        // A sender of Standard Webhooks alone needs no canonical form.
        let canonical = if headers.openclaw.is_some() { canonical::to_vec(parsed) } else { Vec::new() };
        self.verify_both(headers, body, &canonical)
    }

    /// As [`Verifier::verify`], for a body that is known to be its own canonical form.
    ///
    /// # Errors
    /// [`Reason::WrongSignature`].
    pub fn verify_canonical(&self, headers: &CheckedHeaders<'_>, body: &[u8]) -> Result<Which, Rejection> {
        self.verify_both(headers, body, body)
    }

    fn verify_both(
        &self,
        headers: &CheckedHeaders<'_>,
        body: &[u8],
        canonical: &[u8],
    ) -> Result<Which, Rejection> {
        let mut used = Which::Current;
        if let Some(signature) = &headers.openclaw {
            let matched = self.first_match(|keys| keys.sign_canonical(canonical) == *signature);
            used = used.or(matched.ok_or_else(|| wrong(OPENCLAW_SIGNATURE))?);
        }
        if let Some(it) = headers.webhook {
            let matched = self.first_match(|keys| {
                let expected = keys.sign_webhook(it.id, it.timestamp, body);
                v1_signatures(it.signature).any(|it| expected == it)
            });
            used = used.or(matched.ok_or_else(|| wrong(WEBHOOK_SIGNATURE))?);
        }
        Ok(used)
    }

    fn first_match(&self, matches: impl Fn(&Keys) -> bool) -> Option<Which> {
        if matches(&self.current) {
            return Some(Which::Current);
        }
        self.previous.as_ref().is_some_and(matches).then_some(Which::Previous)
    }
}

/// Which of the two secrets that are valid while they rotate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    /// The secret of today.
    Current,
    /// The one before it.
    Previous,
}

impl Which {
    fn or(self, other: Which) -> Which {
        if self == Which::Previous { self } else { other }
    }
}

/// Why a request is not authentic. The list is fixed: counters and dead letters show [`Reason::code`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    /// No signature of either scheme.
    MissingSignature,
    /// Strict, and no Standard Webhooks signature.
    WebhookRequired,
    /// A scheme's signature without its other headers, or those without it.
    IncompleteHeaders,
    /// A signature or id that cannot be one.
    MalformedSignature,
    /// A timestamp that is no time.
    MalformedTimestamp,
    /// A time too far in the past.
    StaleTimestamp,
    /// A time too far in the future.
    FutureTimestamp,
    /// A signature that is not one of this body with an accepted secret.
    WrongSignature,
}

impl Reason {
    /// Every reason, for counters that start at zero.
    pub const ALL: [Reason; 8] = [
        Reason::MissingSignature,
        Reason::WebhookRequired,
        Reason::IncompleteHeaders,
        Reason::MalformedSignature,
        Reason::MalformedTimestamp,
        Reason::StaleTimestamp,
        Reason::FutureTimestamp,
        Reason::WrongSignature,
    ];

    /// A short name that never changes.
    pub fn code(self) -> &'static str {
        match self {
            Reason::MissingSignature => "missing-signature",
            Reason::WebhookRequired => "webhook-signature-required",
            Reason::IncompleteHeaders => "incomplete-headers",
            Reason::MalformedSignature => "malformed-signature",
            Reason::MalformedTimestamp => "malformed-timestamp",
            Reason::StaleTimestamp => "stale-timestamp",
            Reason::FutureTimestamp => "future-timestamp",
            Reason::WrongSignature => "wrong-signature",
        }
    }

    fn because(self, text: impl Into<String>) -> Rejection {
        Rejection { reason: self, text: text.into() }
    }
}

/// A request is not authentic (401).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejection {
    /// The reason to count.
    pub reason: Reason,
    /// The sentence to answer; it shows no signature.
    pub text: String,
}

impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for Rejection {}

fn wrong(header: &str) -> Rejection {
    Reason::WrongSignature.because(format!("{header} is not this body's signature with an accepted secret"))
}

/// The legacy scheme's headers: both, or none of them.
fn openclaw_of(headers: &SignatureHeaders<'_>) -> Result<Option<Signature>, Rejection> {
    // A timestamp alone is only a time: a sender of Standard Webhooks may name it twice.
    let Some(signature) = headers.openclaw_signature else { return Ok(None) };
    if headers.openclaw_timestamp.is_none() {
        let text = format!("{OPENCLAW_SIGNATURE} came without {OPENCLAW_TIMESTAMP}");
        return Err(Reason::IncompleteHeaders.because(text));
    }
    match decoded(HEXLOWER.decode(signature.as_bytes())) {
        Some(it) => Ok(Some(it)),
        None => Err(Reason::MalformedSignature
            .because(format!("{OPENCLAW_SIGNATURE} is not 64 lower-case hexadecimal digits"))),
    }
}

/// The headers of Standard Webhooks: all three, or none.
fn webhook_of<'a>(headers: &SignatureHeaders<'a>) -> Result<Option<WebhookHeaders<'a>>, Rejection> {
    let all = [
        (WEBHOOK_ID, headers.webhook_id),
        (WEBHOOK_TIMESTAMP, headers.webhook_timestamp),
        (WEBHOOK_SIGNATURE, headers.webhook_signature),
    ];
    let [(_, Some(id)), (_, Some(timestamp)), (_, Some(signature))] = all else {
        let missing = all.iter().find(|(_, value)| value.is_none());
        let present = all.iter().find(|(_, value)| value.is_some());
        let Some(((missing, _), (present, _))) = missing.zip(present) else { return Ok(None) };
        return Err(Reason::IncompleteHeaders.because(format!("{present} came without {missing}")));
    };
    if id.is_empty() || id.contains('.') {
        let text = format!("{WEBHOOK_ID} is empty or holds a full stop, which separates what is signed");
        return Err(Reason::MalformedSignature.because(text));
    }
    if v1_signatures(signature).next().is_none() {
        let text = format!("{WEBHOOK_SIGNATURE} holds no v1 signature (v1, and 44 characters of base64)");
        return Err(Reason::MalformedSignature.because(text));
    }
    Ok(Some(WebhookHeaders { id, timestamp, signature }))
}

/// The well-formed v1 signatures of the header. Other versions are for other receivers.
fn v1_signatures(header: &str) -> impl Iterator<Item = Signature> {
    let entries = header.split(' ').filter_map(|it| it.strip_prefix("v1,"));
    entries.filter_map(|it| decoded(BASE64.decode(it.as_bytes())))
}

fn decoded(bytes: Result<Vec<u8>, data_encoding::DecodeError>) -> Option<Signature> {
    Output::<HmacSha256>::try_from(bytes.ok()?.as_slice()).ok().map(CtOutput::new)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secret::Origin;
    use crate::signing::{SignedHeaders, Signer};

    const ID: &str = "msg_p5jXN8AQM9LWM0D4loKWxJek";
    const WHSEC: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    const BODY: &[u8] = br#"{"test":2432232314}"#;

    fn secret(text: &str) -> Secret {
        Secret::from_bytes(text.as_bytes().to_vec(), Origin::Variable("S".to_owned())).unwrap()
    }

    fn signer(current: &str, previous: Option<&str>) -> Signer {
        Signer::new(&secret(current), previous.map(secret).as_ref())
    }

    fn verifier(current: &str, previous: Option<&str>) -> Verifier {
        Verifier::new(&secret(current), previous.map(secret).as_ref(), false, TOLERANCE)
    }

    fn now() -> Timestamp {
        Timestamp::from_millis(1_614_265_330_250)
    }

    fn came(headers: &SignedHeaders) -> SignatureHeaders<'_> {
        SignatureHeaders {
            openclaw_signature: Some(&headers.openclaw_signature),
            openclaw_timestamp: Some(&headers.openclaw_timestamp),
            webhook_id: Some(&headers.webhook_id),
            webhook_timestamp: Some(&headers.webhook_timestamp),
            webhook_signature: Some(&headers.webhook_signature),
        }
    }

    /// Both steps on `body`, at [`now`].
    fn judge(verifier: &Verifier, headers: &SignatureHeaders<'_>, body: &[u8]) -> Result<Which, Reason> {
        let checked = verifier.check_headers(headers, now()).map_err(|it| it.reason)?;
        let parsed = serde_json::from_slice(body).unwrap();
        verifier.verify(&checked, body, &parsed).map_err(|it| it.reason)
    }

    #[test]
    fn the_vector_of_standard_webhooks_verifies_over_the_bytes_as_they_came() {
        let headers = SignatureHeaders {
            webhook_id: Some(ID),
            webhook_timestamp: Some("1614265330"),
            webhook_signature: Some("v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="),
            ..SignatureHeaders::default()
        };
        let verifier = verifier(WHSEC, None);
        assert_eq!(judge(&verifier, &headers, br#"{"test": 2432232314}"#), Ok(Which::Current));
        assert_eq!(judge(&verifier, &headers, br#"{"test":2432232314}"#), Err(Reason::WrongSignature));
    }

    #[test]
    fn the_openclaw_scheme_verifies_whatever_the_spelling_of_the_body() {
        let made = signer("s", None).headers(now(), ID, br#"{"a":1,"b":2}"#);
        let headers = SignatureHeaders {
            openclaw_signature: Some(&made.openclaw_signature),
            openclaw_timestamp: Some("2021-02-25T17:02:10+02:00"),
            ..SignatureHeaders::default()
        };
        assert_eq!(judge(&verifier("s", None), &headers, b" {\"b\" : 2.0, \"a\":1}\n"), Ok(Which::Current));
        assert_eq!(judge(&verifier("s", None), &headers, br#"{"a":1,"b":3}"#), Err(Reason::WrongSignature));
        assert_eq!(judge(&verifier("t", None), &headers, br#"{"a":1,"b":2}"#), Err(Reason::WrongSignature));
    }

    #[test]
    fn every_scheme_that_is_present_must_verify() {
        let (right, wrong) =
            (signer("s", None).headers(now(), ID, BODY), signer("t", None).headers(now(), ID, BODY));
        let verifier = verifier("s", None);
        assert_eq!(judge(&verifier, &came(&right), BODY), Ok(Which::Current));
        let openclaw_wrong =
            SignatureHeaders { openclaw_signature: Some(&wrong.openclaw_signature), ..came(&right) };
        assert_eq!(judge(&verifier, &openclaw_wrong, BODY), Err(Reason::WrongSignature));
        let webhook_wrong =
            SignatureHeaders { webhook_signature: Some(&wrong.webhook_signature), ..came(&right) };
        assert_eq!(judge(&verifier, &webhook_wrong, BODY), Err(Reason::WrongSignature));
        let other_id = SignatureHeaders { webhook_id: Some("msg_other"), ..came(&right) };
        assert_eq!(judge(&verifier, &other_id, BODY), Err(Reason::WrongSignature));
        let other_time = SignatureHeaders { webhook_timestamp: Some("1614265331"), ..came(&right) };
        assert_eq!(judge(&verifier, &other_time, BODY), Err(Reason::WrongSignature));
    }

    #[test]
    fn both_secrets_are_accepted_while_they_rotate_and_the_old_one_is_told() {
        let receiver = verifier("new", Some("old"));
        let judge_from = |sender: &Signer| judge(&receiver, &came(&sender.headers(now(), ID, BODY)), BODY);
        assert_eq!(judge_from(&signer("new", None)), Ok(Which::Current));
        assert_eq!(judge_from(&signer("old", None)), Ok(Which::Previous));
        assert_eq!(judge_from(&signer("new", Some("old"))), Ok(Which::Current));
        // One scheme that needs the old secret is enough: it may not be taken away yet.
        assert_eq!(judge_from(&signer("old", Some("new"))), Ok(Which::Previous));
        assert_eq!(judge_from(&signer("older", None)), Err(Reason::WrongSignature));
        // A receiver that does not know the new secret yet: only the second try gets through.
        let (late, sender) = (verifier("old", None), signer("new", Some("old")));
        assert_eq!(judge(&late, &came(&sender.headers(now(), ID, BODY)), BODY), Err(Reason::WrongSignature));
        let again = sender.headers_by_previous(now(), ID, BODY).unwrap();
        assert_eq!(judge(&late, &came(&again), BODY), Ok(Which::Current));
    }

    #[test]
    fn any_v1_entry_may_match_and_other_entries_are_passed_over() {
        let made = signer("s", None).headers(now(), ID, BODY);
        let right = &made.webhook_signature;
        let verifier = verifier("s", None);
        let judged = |list: &str| {
            judge(&verifier, &SignatureHeaders { webhook_signature: Some(list), ..came(&made) }, BODY)
        };
        let other = "v1,Vif40peJBP7Iyl0XGmu61n4MwdrcHov5CFREBpE0svs=";
        assert_eq!(judged(&format!("v1a,QUJD {other} v1,QUJD  {right} v2,x")), Ok(Which::Current));
        assert_eq!(judged(other), Err(Reason::WrongSignature));
        let unpadded = right.trim_end_matches('=');
        let other_version = right.replace("v1,", "v2,");
        for list in ["", " ", "v1", "v1,", "v1,QUJD", "v1,!", unpadded, &other_version, &right[3..]] {
            assert_eq!(judged(list), Err(Reason::MalformedSignature), "{list:?}");
        }
    }

    #[test]
    fn a_scheme_without_all_its_headers_is_refused() {
        let made = signer("s", None).headers(now(), ID, BODY);
        let verifier = verifier("s", None);
        let all = came(&made);
        for incomplete in [
            SignatureHeaders { openclaw_timestamp: None, ..all },
            SignatureHeaders { webhook_id: None, ..all },
            SignatureHeaders { webhook_timestamp: None, ..all },
            SignatureHeaders { webhook_signature: None, ..all },
            SignatureHeaders { webhook_id: None, webhook_timestamp: None, ..all },
            SignatureHeaders { webhook_id: Some(ID), ..SignatureHeaders::default() },
        ] {
            assert_eq!(judge(&verifier, &incomplete, BODY), Err(Reason::IncompleteHeaders), "{incomplete:?}");
        }
        let text =
            verifier.check_headers(&SignatureHeaders { webhook_id: None, ..all }, now()).unwrap_err().text;
        assert_eq!(text, "webhook-timestamp came without webhook-id");
        let unsigned = SignatureHeaders {
            openclaw_signature: None,
            webhook_id: None,
            webhook_timestamp: None,
            webhook_signature: None,
            ..all
        };
        assert_eq!(judge(&verifier, &unsigned, BODY), Err(Reason::MissingSignature));
        assert_eq!(judge(&verifier, &SignatureHeaders::default(), BODY), Err(Reason::MissingSignature));
        // The time alone is no scheme, but a time it must be.
        assert_eq!(
            judge(&verifier, &SignatureHeaders { openclaw_signature: None, ..all }, BODY),
            Ok(Which::Current)
        );
    }

    #[test]
    fn headers_that_cannot_be_signatures_are_refused() {
        let made = signer("s", None).headers(now(), ID, BODY);
        let verifier = verifier("s", None);
        let upper = made.openclaw_signature.to_uppercase();
        let long = format!("{}00", made.openclaw_signature);
        for signature in ["", "00", "sha256=00", &upper, &long, &made.openclaw_signature[1..]] {
            let headers = SignatureHeaders { openclaw_signature: Some(signature), ..came(&made) };
            assert_eq!(judge(&verifier, &headers, BODY), Err(Reason::MalformedSignature), "{signature:?}");
        }
        for id in ["", "msg_1.1614265330"] {
            let headers = SignatureHeaders { webhook_id: Some(id), ..came(&made) };
            assert_eq!(judge(&verifier, &headers, BODY), Err(Reason::MalformedSignature), "{id:?}");
        }
        for time in ["", "-1", "+1614265330", "1614265330.0", "1e9", " 1614265330", "99999999999999999999"] {
            let headers = SignatureHeaders { webhook_timestamp: Some(time), ..came(&made) };
            assert_eq!(judge(&verifier, &headers, BODY), Err(Reason::MalformedTimestamp), "{time:?}");
        }
        for time in ["", "1614265330", "2021-02-25 15:02:10Z", "2021-02-30T15:02:10Z"] {
            let headers = SignatureHeaders { openclaw_timestamp: Some(time), ..came(&made) };
            assert_eq!(judge(&verifier, &headers, BODY), Err(Reason::MalformedTimestamp), "{time:?}");
        }
        let headers = SignatureHeaders { webhook_timestamp: Some("9223372036854775807"), ..came(&made) };
        assert_eq!(judge(&verifier, &headers, BODY), Err(Reason::FutureTimestamp));
    }

    #[test]
    fn both_times_must_be_within_the_window_and_the_reason_names_both() {
        let verifier = verifier("s", None);
        let made = signer("s", None).headers(now(), ID, BODY);
        let check = |now: Timestamp| verifier.check_headers(&came(&made), now).map(|_| ());
        // The webhook's seconds are 250 ms behind.
        let ahead = now().plus(TOLERANCE).minus(Duration::from_millis(250));
        assert_eq!(check(ahead), Ok(()));
        let webhook_late = check(ahead.plus(Duration::from_millis(1))).unwrap_err();
        assert_eq!(webhook_late.reason, Reason::StaleTimestamp);
        assert!(
            webhook_late.text.starts_with("webhook-timestamp says 2021-02-25T15:02:10.000Z, "),
            "{webhook_late}"
        );
        let late = check(now().plus(Duration::from_secs(3600))).unwrap_err();
        assert_eq!(
            (late.reason, late.text.as_str()),
            (
                Reason::StaleTimestamp,
                "x-openclaw-timestamp says 2021-02-25T15:02:10.250Z, more than 300 s behind this receiver's clock, \
                 which says 2021-02-25T16:02:10.250Z"
            )
        );
        assert_eq!(check(now().minus(TOLERANCE)), Ok(()));
        let early = check(now().minus(TOLERANCE).minus(Duration::from_millis(1))).unwrap_err();
        assert_eq!(early.reason, Reason::FutureTimestamp);
    }

    #[test]
    fn a_strict_receiver_wants_standard_webhooks() {
        let strict = Verifier::new(&secret("s"), None, true, TOLERANCE);
        let made = signer("s", None).headers(now(), ID, BODY);
        let openclaw = SignatureHeaders {
            webhook_id: None,
            webhook_timestamp: None,
            webhook_signature: None,
            ..came(&made)
        };
        assert_eq!(judge(&verifier("s", None), &openclaw, BODY), Ok(Which::Current));
        assert_eq!(judge(&strict, &openclaw, BODY), Err(Reason::WebhookRequired));
        assert_eq!(judge(&strict, &came(&made), BODY), Ok(Which::Current));
        let webhook = SignatureHeaders { openclaw_signature: None, openclaw_timestamp: None, ..came(&made) };
        assert_eq!(judge(&strict, &webhook, BODY), Ok(Which::Current));
    }

    #[test]
    fn every_reason_has_a_code_of_its_own() {
        let codes: std::collections::BTreeSet<_> = Reason::ALL.iter().map(|it| it.code()).collect();
        assert_eq!(codes.len(), Reason::ALL.len());
    }
}
