//! The signatures of the existing application: vectors made with its own functions.
//!
//! Each either gives the same canonical bytes and signature, or is refused on purpose, because the
//! application signs something that is not, or not only, what the sender wrote.

use milepost::{
    canonical, json,
    secret::{Origin, Secret},
    signing::Signer,
};
use serde_json::Value;

const VECTORS: &str = include_str!("data/signature-vectors.json");

/// Why Milepost refuses a vector that the application signs.
const REFUSED: [(&str, &str); 5] = [
    ("lone-surrogates", "a lone surrogate: half of a \\uD8xx\\uDCxx pair"),
    ("numbers", "number beyond what a double holds"),
    ("duplicate-keys (last wins; order of first)", "duplicate key \"idempotencyKey\""),
    (
        "__proto__ constructor toJSON keys (own __proto__ is DROPPED from canonical)",
        "the key \"__proto__\", which JavaScript receivers would drop",
    ),
    ("string body", "a lone surrogate: half of a \\uD8xx\\uDCxx pair"),
];

#[test]
fn every_vector_gives_its_stated_result() {
    let vectors: Vec<Value> = serde_json::from_str(VECTORS).unwrap();
    let mut refused = Vec::new();
    for vector in &vectors {
        let field = |name: &str| vector[name].as_str().unwrap();
        let name = field("name");
        let parsed = json::parse(field("bodyJson").as_bytes());
        match field("milepost") {
            "sign" => {
                let bytes = canonical::to_vec(&parsed.unwrap());
                assert_eq!(String::from_utf8_lossy(&bytes), field("canonical"), "{name}");
                let origin = Origin::Variable("VECTOR".to_owned());
                let secret = Secret::from_bytes(field("secret").as_bytes().to_vec(), origin).unwrap();
                assert_eq!(Signer::new(&secret, None).hex(&bytes), field("signatureHex"), "{name}");
            }
            "refuse" => refused.push((name, parsed.unwrap_err().what)),
            other => panic!("{name}: {other:?} is neither sign nor refuse"),
        }
    }
    let expected: Vec<_> = REFUSED.iter().map(|(name, what)| (*name, (*what).to_owned())).collect();
    assert_eq!(refused, expected);
    assert_eq!(vectors.len(), 17);
}
