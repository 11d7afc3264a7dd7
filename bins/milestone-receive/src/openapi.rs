//! `GET /openapi.json`: this receiver as `OpenAPI` 3.1 describes it.
//!
//! The paths are written by hand (`assets/openapi.json`); what a body looks like is not said twice: the public
//! schemas are put in as components.
//!
//! # Invariants
//! - Every reference in the document points into it: whoever reads it needs no other file and no network.

use std::sync::OnceLock;

use axum::{body::Bytes, http::StatusCode, response::Response};
use serde_json::{Map, Value};

use crate::answer;

const PATHS: &str = include_str!("../assets/openapi.json");

/// The schemas that the paths name.
const SCHEMAS: [(&str, &str); 7] = [
    ("milestone-event.v1", include_str!("../../../schemas/milestone-event.v1.json")),
    ("event-envelope.v1", include_str!("../../../schemas/event-envelope.v1.json")),
    ("ingest-request.v1", include_str!("../../../schemas/ingest-request.v1.json")),
    ("ingest-event-request.v1", include_str!("../../../schemas/ingest-event-request.v1.json")),
    ("ingest-response.v1", include_str!("../../../schemas/ingest-response.v1.json")),
    ("ingest-batch-request.v1", include_str!("../../../schemas/ingest-batch-request.v1.json")),
    ("ingest-batch-response.v1", include_str!("../../../schemas/ingest-batch-response.v1.json")),
];

/// `GET /openapi.json`
pub async fn openapi() -> Response {
    static DOCUMENT: OnceLock<Bytes> = OnceLock::new();
    let document = DOCUMENT.get_or_init(|| Bytes::from(document().unwrap_or_default().to_string()));
    answer::with_type(StatusCode::OK, "application/json", document.clone())
}

/// The whole document. Our own files are JSON, as a test sees to.
fn document() -> serde_json::Result<Value> {
    let mut document: Value = serde_json::from_str(PATHS)?;
    document["info"]["version"] = env!("CARGO_PKG_VERSION").into();
    for (name, text) in SCHEMAS {
        let mut schema: Value = serde_json::from_str(text)?;
        if let Value::Object(fields) = &mut schema {
            fields.remove("$id");
            fields.remove("$schema");
        }
        point_inside(&mut schema, name);
        document["components"]["schemas"][name] = schema;
    }
    Ok(document)
}

/// Turns references of a schema of ours into references of this document.
fn point_inside(schema: &mut Value, own: &str) {
    match schema {
        Value::Array(items) => items.iter_mut().for_each(|it| point_inside(it, own)),
        Value::Object(fields) => {
            if let Some(Value::String(reference)) = fields.get_mut("$ref") {
                let (file, rest) = reference.split_once('#').unwrap_or((reference, ""));
                let name = file.strip_suffix(".json").filter(|it| !it.is_empty()).unwrap_or(own);
                *reference = format!("#/components/schemas/{name}{rest}");
            }
            let fields: &mut Map<String, Value> = fields;
            fields.values_mut().for_each(|it| point_inside(it, own));
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn references(value: &Value, found: &mut Vec<String>) {
        match value {
            Value::Array(items) => items.iter().for_each(|it| references(it, found)),
            Value::Object(fields) => {
                found.extend(fields.get("$ref").and_then(Value::as_str).map(str::to_owned));
                fields.values().for_each(|it| references(it, found));
            }
            _ => {}
        }
    }

    #[test]
    fn every_reference_points_to_something_in_the_document() {
        let document = document().unwrap();
        let mut found = Vec::new();
        references(&document, &mut found);
        assert!(found.len() > 20, "{found:?}");
        for reference in found {
            let pointer = reference.strip_prefix('#').unwrap_or_else(|| panic!("{reference}"));
            assert!(document.pointer(pointer).is_some(), "{reference}");
        }
    }
}
