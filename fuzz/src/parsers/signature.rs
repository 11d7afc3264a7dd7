//! Signature headers: what is accepted has been signed, and what was signed well is accepted.
//!
//! An input is lines: flags, the five headers, then the body. A header `-` did not come. In a header `{O}`, `{P}`
//! stand for good signatures of the legacy scheme by the current and the previous secret, `{W}`, `{X}` for those of
//! Standard Webhooks, `{T}` and `{U}` for the time in both forms. With the flag `t` a bit of the body is changed
//! after it was signed, with `s` the verifier is strict, with `n` it knows no previous secret.

use std::time::Duration;

use data_encoding::{BASE64, HEXLOWER};
use hmac::{Hmac, KeyInit, Mac};
use milepost::{
    Timestamp, canonical, json,
    secret::{Origin, Secret},
    signing::{SignatureHeaders, Signer, TOLERANCE, Verifier, Which},
};
use sha2::Sha256;

use milepost_fuzz::seeds;

const CURRENT: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
const PREVIOUS: &str = "the secret before";
const NOW_MS: i64 = 1_795_168_800_250;

pub fn seeds() -> Vec<Vec<u8>> {
    let mut all = seeds::texts(&[
        "\n{O}\n{T}\nmsg_1\n{U}\nv1,{W}\n{\"a\":1}",
        "\n{P}\n{T}\nmsg_1\n{U}\nv1,{X}\n{\"a\":1}",
        "\n{O}\n{T}\n-\n-\n-\n{\"b\":1, \"a\":2}",
        "s\n{O}\n{T}\n-\n-\n-\n{}",
        "s\n-\n-\nmsg_1\n{U}\nv1a,x v1,{X} v1,{W}\n[1.0]",
        "n\n{P}\n{T}\n-\n-\n-\n{}",
        "t\n{O}\n{T}\nmsg_1\n{U}\nv1,{W}\n{\"a\":\"bc\"}",
        "\n{O}\n2026-11-20T10:04:59+00:00\n-\n-\n-\nnull",
        "\n-\n-\nmsg.1\n1795168800\nv1,{W}\n{}",
        "\n-\n-\n-\n-\n-\n{}",
        "\n{O}\n2026-11-20T09:00:00.25Z\nmsg_1\n-1\nv1,{W}\n{}",
        "\n-\n{T}\nm\n99999999999999999999\nv1,{W}\n{}",
    ]);
    for body in seeds::vectors().iter().take(4) {
        all.push([&b"\n{O}\n{T}\nmsg_1\n{U}\nv1,{W}\n"[..], body].concat());
    }
    all
}

fn secret(text: &str) -> Secret {
    Secret::from_bytes(text.as_bytes().to_vec(), Origin::Variable("S".to_owned())).expect("a good secret")
}

pub fn run(input: &[u8]) {
    let now = Timestamp::from_millis(NOW_MS);
    let mut parts = input.splitn(7, |it| *it == b'\n');
    let mut line = || String::from_utf8_lossy(parts.next().unwrap_or_default()).into_owned();
    let flags = line();
    let has = |flag| flags.contains(flag);
    let fields: Vec<String> = (0..5).map(|_| line()).collect();
    let mut body = parts.next().unwrap_or_default().to_vec();
    let Ok(parsed) = json::parse(&body) else { return };
    every_body_can_be_signed(&parsed, now);

    // Time and id first, since they are signed.
    let plain =
        |text: &str| text.replace("{T}", &now.to_string()).replace("{U}", &(NOW_MS / 1000).to_string());
    let (id, stamp) = (plain(&fields[2]), plain(&fields[3]));
    let canonical = canonical::to_vec(&parsed);
    let signed = [id.as_bytes(), b".", stamp.as_bytes(), b".", &body].concat();
    let webhook_key = BASE64.decode(CURRENT.trim_start_matches("whsec_").as_bytes()).expect("base64");
    let openclaw = |key: &str| HEXLOWER.encode(&hmac(key.as_bytes(), &canonical));
    let filled = |text: &str| {
        plain(text)
            .replace("{O}", &openclaw(CURRENT))
            .replace("{P}", &openclaw(PREVIOUS))
            .replace("{W}", &BASE64.encode(&hmac(&webhook_key, &signed)))
            .replace("{X}", &BASE64.encode(&hmac(PREVIOUS.as_bytes(), &signed)))
    };
    let values: Vec<Option<String>> =
        [&fields[0], &fields[1], &id, &stamp, &fields[4]].map(|it| (*it != "-").then(|| filled(it))).into();
    let header = |at: usize| values[at].as_deref();
    let headers = SignatureHeaders {
        openclaw_signature: header(0),
        openclaw_timestamp: header(1),
        webhook_id: header(2),
        webhook_timestamp: header(3),
        webhook_signature: header(4),
    };
    if has('t') && !body.is_empty() {
        let at = body.len() / 2;
        body[at] ^= 1;
    }
    let Ok(parsed) = json::parse(&body) else { return };

    let previous = (!has('n')).then(|| secret(PREVIOUS));
    let verifier = Verifier::new(&secret(CURRENT), previous.as_ref(), has('s'), TOLERANCE);
    let judged = verifier
        .check_headers(&headers, now)
        .and_then(|checked| verifier.verify(&checked, &body, &parsed))
        .map_err(|it| it.to_string());

    // The contract a second time.
    let keys: Vec<(Vec<u8>, Vec<u8>)> = [
        Some((CURRENT.as_bytes().to_vec(), webhook_key)),
        (!has('n')).then(|| (PREVIOUS.as_bytes().to_vec(), PREVIOUS.as_bytes().to_vec())),
    ]
    .into_iter()
    .flatten()
    .collect();
    let has_webhook = (2..5).any(|it| values[it].is_some());
    let is_openclaw_good = || {
        let canonical = canonical::to_vec(&parsed);
        header(1).is_some()
            && keys.iter().any(|(key, _)| header(0) == Some(HEXLOWER.encode(&hmac(key, &canonical)).as_str()))
    };
    let is_webhook_good = || {
        let (Some(id), Some(stamp), Some(signatures)) = (header(2), header(3), header(4)) else {
            return false;
        };
        let signed = [id.as_bytes(), b".", stamp.as_bytes(), b".", &body].concat();
        let is_time = !stamp.is_empty() && stamp.bytes().all(|it| it.is_ascii_digit());
        let age = stamp.parse::<i64>().ok().map(|it| (i128::from(it) * 1000 - i128::from(NOW_MS)).abs());
        !id.is_empty()
            && !id.contains('.')
            && is_time
            && age.is_some_and(|it| it <= 300_000)
            && signatures.split(' ').any(|it| {
                keys.iter().any(|(_, key)| it == format!("v1,{}", BASE64.encode(&hmac(key, &signed))))
            })
    };
    let is_time_good = header(1).is_none_or(|it| {
        let sent = Timestamp::parse_rfc3339(it).ok();
        sent.is_some_and(|it| it.since(now).max(now.since(it)) <= Duration::from_secs(300))
    });
    let is_authentic = is_time_good
        && (header(0).is_some() || has_webhook)
        && (header(0).is_none() || is_openclaw_good())
        && (!has_webhook || is_webhook_good())
        && (!has('s') || has_webhook);
    assert_eq!(judged.is_ok(), is_authentic, "{judged:?}");
    match judged {
        Ok(which) => assert!(which == Which::Current || !has('n')),
        Err(text) => {
            // No refusal repeats what a stranger said, or shows a signature.
            for value in [header(0), header(2), header(4)].into_iter().flatten().filter(|it| it.len() >= 40) {
                assert!(!text.contains(value), "{text}");
            }
            assert!(!text.contains(|it: char| it.is_control()), "{text:?}");
        }
    }
}

/// Whoever signs as we do is accepted, by either secret and whatever the body is.
fn every_body_can_be_signed(parsed: &serde_json::Value, now: Timestamp) {
    let body = canonical::to_vec(parsed);
    // The canonical form may hold what strict JSON refuses (1e20 is written in full): such a body is not sent.
    let Ok(parsed) = json::parse(&body) else { return };
    let (current, previous) = (secret(CURRENT), secret(PREVIOUS));
    let signer = Signer::new(&current, Some(&previous));
    for headers in
        [Some(signer.headers(now, "msg_1", &body)), signer.headers_by_previous(now, "msg_1", &body)]
    {
        let headers = headers.expect("there are two secrets");
        let came = SignatureHeaders {
            openclaw_signature: Some(&headers.openclaw_signature),
            openclaw_timestamp: Some(&headers.openclaw_timestamp),
            webhook_id: Some(&headers.webhook_id),
            webhook_timestamp: Some(&headers.webhook_timestamp),
            webhook_signature: Some(&headers.webhook_signature),
        };
        let verifier = Verifier::new(&current, Some(&previous), true, TOLERANCE);
        let checked = verifier.check_headers(&came, now).expect("its own headers are good");
        let verified = verifier.verify(&checked, &body, &parsed);
        assert!(verified.is_ok(), "its own signature holds");
        assert_eq!(
            verifier.verify_canonical(&checked, &body),
            verified,
            "the short way for canonical bodies"
        );
        let stranger = Verifier::new(&secret("another secret"), None, false, TOLERANCE);
        assert!(stranger.verify(&checked, &body, &parsed).is_err(), "nobody else's does");
    }
}

fn hmac(key: &[u8], bytes: &[u8]) -> [u8; 32] {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("any length is a key");
    mac.update(bytes);
    mac.finalize().into_bytes().into()
}
