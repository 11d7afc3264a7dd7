//! First inputs: what the repository has as examples anyway.

use std::{fs, path::PathBuf};

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The examples of a schema, good and bad ones.
pub fn examples(schema: &str) -> Vec<Vec<u8>> {
    let mut found = Vec::new();
    for kind in ["valid", "invalid"] {
        let folder = root().join("schemas/examples").join(kind).join(schema);
        let mut files: Vec<_> = fs::read_dir(folder).unwrap().map(|it| it.unwrap().path()).collect();
        files.sort();
        found.extend(files.iter().map(|it| fs::read(it).unwrap()));
    }
    assert!(!found.is_empty(), "{schema} has examples");
    found
}

/// The examples of a schema as the lines of a journal.
pub fn lines(schema: &str) -> Vec<Vec<u8>> {
    let line = |text: Vec<u8>| {
        // Written again, but not by a map that sorts: most parsers of lines take fields in any order.
        let value: serde_json::Value = serde_json::from_slice(&text).ok()?;
        Some(value.to_string().into_bytes())
    };
    examples(schema).into_iter().filter_map(line).collect()
}

/// The bodies of the signature vectors, those that are refused too.
pub fn vectors() -> Vec<Vec<u8>> {
    let text = fs::read(root().join("lib/tests/data/signature-vectors.json")).unwrap();
    let vectors: Vec<serde_json::Value> = serde_json::from_slice(&text).unwrap();
    vectors.iter().filter_map(|it| Some(it["bodyJson"].as_str()?.as_bytes().to_vec())).collect()
}

/// Texts as inputs.
pub fn texts(texts: &[&str]) -> Vec<Vec<u8>> {
    texts.iter().map(|it| it.as_bytes().to_vec()).collect()
}
