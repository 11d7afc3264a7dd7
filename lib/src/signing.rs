//! Signatures of requests: making them. [`Verifier`] judges those of others.
//!
//! Two schemes stand side by side. `x-openclaw-signature` is what the existing application checks: lower-case
//! hex HMAC-SHA256 over the canonical form of the parsed body. Standard Webhooks 1.0 signs
//! `id.timestamp.body`, the body as it came; only it covers the time of the attempt.
//!
//! # Invariants
//! - Signer and verifier sign by the same code: what one makes, the other finds again.
//! - Signatures are compared in constant time.
//!
//! Not here: where secrets come from (`secret`), which bytes are canonical (`canonical`).

mod verify;

use data_encoding::{BASE64, HEXLOWER};
use hmac::{
    Hmac, KeyInit, Mac,
    digest::{CtOutput, Key},
};
use sha2::{Digest, Sha256};
use zeroize::Zeroize;

pub use self::verify::{CheckedHeaders, Reason, Rejection, SignatureHeaders, TOLERANCE, Verifier, Which};
use crate::{Timestamp, secret::Secret};

/// The header with the signature over the canonical body.
pub const OPENCLAW_SIGNATURE: &str = "x-openclaw-signature";
/// The header with the time of the attempt, RFC 3339.
pub const OPENCLAW_TIMESTAMP: &str = "x-openclaw-timestamp";
/// The header with the message's id: the same in every attempt.
pub const WEBHOOK_ID: &str = "webhook-id";
/// The header with the time of the attempt in Unix seconds.
pub const WEBHOOK_TIMESTAMP: &str = "webhook-timestamp";
/// The header with one or more `v1,<base64>`, a space between.
pub const WEBHOOK_SIGNATURE: &str = "webhook-signature";

/// Signs requests.
pub struct Signer {
    current: Keys,
    previous: Option<Keys>,
}

/// The signature headers of one attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedHeaders {
    /// `x-openclaw-signature`
    pub openclaw_signature: String,
    /// `x-openclaw-timestamp`
    pub openclaw_timestamp: String,
    /// `webhook-id`
    pub webhook_id: String,
    /// `webhook-timestamp`
    pub webhook_timestamp: String,
    /// `webhook-signature`
    pub webhook_signature: String,
}

impl SignedHeaders {
    /// Names and values, in the order of the contract's table.
    pub fn pairs(&self) -> [(&'static str, &str); 5] {
        [
            (OPENCLAW_SIGNATURE, &self.openclaw_signature),
            (OPENCLAW_TIMESTAMP, &self.openclaw_timestamp),
            (WEBHOOK_ID, &self.webhook_id),
            (WEBHOOK_TIMESTAMP, &self.webhook_timestamp),
            (WEBHOOK_SIGNATURE, &self.webhook_signature),
        ]
    }
}

impl Signer {
    /// A signer with the current secret and, while secrets rotate, the one before.
    pub fn new(current: &Secret, previous: Option<&Secret>) -> Signer {
        Signer { current: Keys::new(current), previous: previous.map(Keys::new) }
    }

    /// The headers of the attempt `now` to send `body`, which must be canonical; `id` is the message's id,
    /// without a full stop. `x-openclaw-signature` is by the current secret, Standard Webhooks by both.
    pub fn headers(&self, now: Timestamp, id: &str, body: &[u8]) -> SignedHeaders {
        self.headers_with(&self.current, now, id, body)
    }

    /// The same with `x-openclaw-signature` by the previous secret, for one more try after a 401; none when
    /// there is no previous secret.
    pub fn headers_by_previous(&self, now: Timestamp, id: &str, body: &[u8]) -> Option<SignedHeaders> {
        self.previous.as_ref().map(|previous| self.headers_with(previous, now, id, body))
    }

    fn headers_with(&self, openclaw: &Keys, now: Timestamp, id: &str, body: &[u8]) -> SignedHeaders {
        let webhook_timestamp = now.unix_seconds().to_string();
        let mut webhook_signature = String::new();
        for keys in [Some(&self.current), self.previous.as_ref()].into_iter().flatten() {
            webhook_signature.push_str(if webhook_signature.is_empty() { "v1," } else { " v1," });
            let signature = keys.sign_webhook(id, &webhook_timestamp, body);
            BASE64.encode_append(signature.as_bytes(), &mut webhook_signature);
        }
        SignedHeaders {
            openclaw_signature: HEXLOWER.encode(openclaw.sign_canonical(body).as_bytes()),
            openclaw_timestamp: now.to_string(),
            webhook_id: id.to_owned(),
            webhook_timestamp,
            webhook_signature,
        }
    }

    /// Lower-case hex HMAC-SHA256 over `bytes` with the current secret's text: `x-openclaw-signature`, the
    /// entries of the pull feed, the seals of the audit.
    pub fn hex(&self, bytes: &[u8]) -> String {
        HEXLOWER.encode(self.current.sign_canonical(bytes).as_bytes())
    }
}

type HmacSha256 = Hmac<Sha256>;

/// A signature; equality takes constant time.
type Signature = CtOutput<HmacSha256>;

/// One secret as keyed states, which are cloned for every message: keying costs as much as signing.
struct Keys {
    openclaw: HmacSha256,
    webhook: HmacSha256,
}

impl Keys {
    fn new(secret: &Secret) -> Keys {
        Keys { openclaw: keyed(secret.text_key()), webhook: keyed(secret.webhook_key()) }
    }

    fn sign_canonical(&self, canonical: &[u8]) -> Signature {
        self.openclaw.clone().chain_update(canonical).finalize()
    }

    fn sign_webhook(&self, id: &str, timestamp: &str, body: &[u8]) -> Signature {
        let signed = self.webhook.clone().chain_update(id).chain_update(".");
        signed.chain_update(timestamp).chain_update(".").chain_update(body).finalize()
    }
}

/// RFC 2104's key block, by hand: the crate's own way returns a `Result` that cannot fail.
fn keyed(key: &[u8]) -> HmacSha256 {
    let mut block = Key::<HmacSha256>::default();
    match block.get_mut(..key.len()) {
        Some(front) => front.copy_from_slice(key),
        None => block[..32].copy_from_slice(&Sha256::digest(key)),
    }
    let state = HmacSha256::new(&block);
    block.zeroize();
    state
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secret::Origin;

    const ID: &str = "msg_p5jXN8AQM9LWM0D4loKWxJek";
    const WHSEC: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    const PREVIOUS: &str = "previous secret";
    const BODY: &[u8] = br#"{"test":2432232314}"#;

    fn secret(text: &str) -> Secret {
        Secret::from_bytes(text.as_bytes().to_vec(), Origin::Variable("S".to_owned())).unwrap()
    }

    fn signer(current: &str, previous: Option<&str>) -> Signer {
        Signer::new(&secret(current), previous.map(secret).as_ref())
    }

    fn now() -> Timestamp {
        Timestamp::from_millis(1_614_265_330_250)
    }

    #[test]
    fn headers_are_those_that_other_implementations_make() {
        // Expected values: Python's hmac; x-openclaw-signature is keyed with the text, whsec_ included.
        let by_current = signer(WHSEC, Some(PREVIOUS)).headers(now(), ID, BODY);
        assert_eq!(
            by_current.pairs(),
            [
                (OPENCLAW_SIGNATURE, "78dd34208881d421fa3a5c6234cab4568e4b390c903fc1a2668d1e71c68fb9c9"),
                (OPENCLAW_TIMESTAMP, "2021-02-25T15:02:10.250Z"),
                (WEBHOOK_ID, ID),
                (WEBHOOK_TIMESTAMP, "1614265330"),
                (
                    WEBHOOK_SIGNATURE,
                    "v1,Vif40peJBP7Iyl0XGmu61n4MwdrcHov5CFREBpE0svs= v1,Pl5KO6kXh5LgUlH1KZWCw1aHP7lki4ad/bf25xsWOuQ="
                ),
            ]
        );
        let by_previous = signer(WHSEC, Some(PREVIOUS)).headers_by_previous(now(), ID, BODY).unwrap();
        let signature = "a7cf3c6117c1f910d9285d97f46a778be340b9196dca8f8eb5782562ec239f2d";
        assert_eq!(by_previous, SignedHeaders { openclaw_signature: signature.to_owned(), ..by_current });
        assert_eq!(signer(WHSEC, None).headers_by_previous(now(), ID, BODY), None);
    }

    #[test]
    fn a_key_longer_than_a_block_is_hashed() {
        let hex = "b58b2b694fdba0dd76da3ebe99174f728d327560f36ece224e90867972479922";
        assert_eq!(signer(&"k".repeat(100), None).hex(b"abc"), hex);
        for length in [63, 64, 65] {
            let key = "k".repeat(length);
            let expected =
                HmacSha256::new_from_slice(key.as_bytes()).unwrap().chain_update(b"abc").finalize();
            assert_eq!(signer(&key, None).hex(b"abc"), HEXLOWER.encode(expected.as_bytes()));
        }
    }
}
