//! Secrets as they stand in files and in the environment.

use std::fs;

use data_encoding::BASE64;
use milepost::secret::{Origin, Secret, SecretSource};

use milepost_fuzz::{scratch, seeds};

pub fn seeds() -> Vec<Vec<u8>> {
    seeds::texts(&[
        "",
        "a secret\n",
        "a secret\r\n",
        "a secret\n\n",
        " \u{feff}\n",
        "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
        "whsec_",
        "whsec_QUJDRA",
        "whsec_QUJDRA==\n",
        "whsec_QUJDRB==",
        &"x".repeat(4096),
        &"x".repeat(4097),
    ])
}

pub fn run(input: &[u8]) {
    let text = std::str::from_utf8(input).ok();
    let is_blank = |text: &str| text.chars().all(|it| it.is_whitespace() || it == '\u{feff}');
    let made = Secret::from_bytes(input.to_vec(), Origin::Variable("S".to_owned()));
    let encoded = text.and_then(|it| it.strip_prefix("whsec_"));
    let key = encoded.map(|it| BASE64.decode(it.as_bytes()).ok().filter(|it| !it.is_empty()));
    let is_good = input.len() <= 4096 && text.is_some_and(|it| !is_blank(it)) && key != Some(None);
    assert_eq!(made.is_ok(), is_good);
    match &made {
        Ok(secret) => {
            assert_eq!(secret.text_key(), input, "the text is the key, as it is");
            assert_eq!(secret.webhook_key(), key.flatten().as_deref().unwrap_or(input));
            is_silent(&format!("{secret:?}"), input);
        }
        Err(error) => is_silent(&error.to_string(), input),
    }

    let file = scratch::folder("secret").join("secret");
    fs::write(&file, input).expect("the scratch folder can be written to");
    let read = SecretSource::WEBHOOK.load(Some(&file), true);
    let line = input.strip_suffix(b"\n").map_or(input, |it| it.strip_suffix(b"\r").unwrap_or(it));
    // A file is read to its bound, its line end included.
    let expected = (input.len() <= 4096).then(|| Secret::from_bytes(line.to_vec(), Origin::File(file)).ok());
    let expected = expected.flatten();
    assert_eq!(read.as_ref().ok().map(Secret::text_key), expected.as_ref().map(Secret::text_key));
    if let Err(error) = read {
        is_silent(&error.to_string(), input);
    }
}

/// No secret is ever said, nor half of one.
fn is_silent(said: &str, secret: &[u8]) {
    let Ok(secret) = std::str::from_utf8(secret) else { return };
    let secret = secret.trim();
    // Shorter ones may stand in any sentence by chance.
    let half: String = secret.chars().take(secret.chars().count() / 2).collect();
    if half.len() >= 12 && !half.starts_with("whsec_") {
        assert!(!said.contains(&half), "{said}");
    }
}
