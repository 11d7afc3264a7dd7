//! The signatures of a request, checked from its raw bytes alone.
//!
//! This shares no code with the product: a mistake there does not repeat itself here. `verify_webhooks.py` checks
//! them once more, by the reference library of Standard Webhooks.

use data_encoding::{BASE64, HEXLOWER};
use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};

use crate::hostile::Request;

/// What is wrong with the signatures of a request that must be signed with these secrets, the current one first.
///
/// # Errors
/// One sentence.
pub fn check(request: &Request, secrets: &[&str]) -> Result<(), String> {
    let header = |name: &str| request.header(name).ok_or_else(|| format!("no header {name}"));
    let id = header("webhook-id")?;
    let seconds = header("webhook-timestamp")?;
    let key = request.key().ok_or("the body has no idempotencyKey")?;
    let trace = HEXLOWER.encode(&Sha256::digest(&key)[..16]);
    if id != format!("msg_{trace}") {
        return Err(format!("webhook-id {id} is not msg_ and the trace of {key}"));
    }
    let message = [id.as_bytes(), b".", seconds.as_bytes(), b".", &request.body].concat();
    let expected: Vec<String> = secrets
        .iter()
        .map(|secret| format!("v1,{}", BASE64.encode(&sign(&webhook_key(secret), &message))))
        .collect();
    let signature = header("webhook-signature")?;
    if signature != expected.join(" ") {
        return Err(format!("webhook-signature is {signature}, not one signature a secret"));
    }
    // The body is canonical already, so the other scheme signs the same bytes.
    let signature = header("x-openclaw-signature")?;
    let by_text = |secret: &&str| HEXLOWER.encode(&sign(secret.as_bytes(), &request.body)) == signature;
    if !secrets.iter().any(by_text) {
        return Err(format!("x-openclaw-signature {signature} is by none of the secrets"));
    }
    let sent = header("x-openclaw-timestamp")?;
    if sent.len() != 24 || !sent.ends_with('Z') {
        return Err(format!("x-openclaw-timestamp {sent} is not of the form .sssZ"));
    }
    Ok(())
}

/// The key of Standard Webhooks: the bytes encoded after `whsec_`, else the text.
fn webhook_key(secret: &str) -> Vec<u8> {
    let decoded = secret.strip_prefix("whsec_").map(|it| BASE64.decode(it.as_bytes()).unwrap());
    decoded.unwrap_or_else(|| secret.as_bytes().to_vec())
}

fn sign(key: &[u8], message: &[u8]) -> Vec<u8> {
    let mut hmac = Hmac::<Sha256>::new_from_slice(key).unwrap();
    hmac.update(message);
    hmac.finalize().into_bytes().to_vec()
}
