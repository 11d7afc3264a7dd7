//! The public schemas: well formed, documented, and right about every example.
//!
//! `schemas/examples/{valid,invalid}/<schema>/*.json`: a valid one passes, an invalid one has exactly the
//! one fault that its name tells. The validators that are compiled in must say the same.

#![expect(clippy::unwrap_used, reason = "helpers of tests may panic as tests do")]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use jsonschema::{Registry, Validator};
use milepost::schema::Schema;
use serde_json::Value;

const BASE: &str = "https://milepost.dev/schemas/";

/// The schemas that are compiled in.
const BUILT_IN: [(&str, Schema); 4] = [
    ("milestone-event.v1", Schema::MilestoneEvent),
    ("event-envelope.v1", Schema::EventEnvelope),
    ("ingest-request.v1", Schema::IngestRequest),
    ("task.v1", Schema::Task),
];

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../schemas")
}

/// The JSON files right in a folder, by name without `.json`.
fn documents(folder: &Path) -> BTreeMap<String, Value> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|it| it == "json") {
            let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
            let text = fs::read_to_string(&path).unwrap();
            let document =
                serde_json::from_str(&text).unwrap_or_else(|it| panic!("{}: {it}", path.display()));
            found.insert(name, document);
        }
    }
    found
}

fn schemas() -> BTreeMap<String, Value> {
    documents(&folder())
}

fn examples(kind: &str, schema: &str) -> BTreeMap<String, Value> {
    documents(&folder().join("examples").join(kind).join(schema))
}

/// Validators made now, from the files.
fn validators() -> BTreeMap<String, Validator> {
    let mut registry = Registry::new();
    for (name, schema) in schemas() {
        registry = registry.add(format!("{BASE}{name}.json"), schema).unwrap();
    }
    let registry = registry.prepare().unwrap();
    let options =
        || jsonschema::draft202012::options().should_validate_formats(true).with_registry(&registry);
    schemas().into_iter().map(|(name, schema)| (name, options().build(&schema).unwrap())).collect()
}

#[test]
fn every_schema_is_valid_by_the_meta_schema_and_says_what_it_is() {
    let schemas = schemas();
    assert!(schemas.len() >= 11, "{:?}", schemas.keys());
    for (name, schema) in schemas {
        if let Err(error) = jsonschema::draft202012::meta::validate(&schema) {
            panic!("{name}: {error}");
        }
        assert_eq!(schema["$schema"], "https://json-schema.org/draft/2020-12/schema", "{name}");
        assert_eq!(schema["$id"], format!("{BASE}{name}.json"), "{name}");
        for field in ["title", "description"] {
            assert!(schema[field].as_str().is_some_and(|it| !it.is_empty()), "{name} has no {field}");
        }
    }
}

/// Calls `look` with every schema within `schema` and its place.
fn walk(schema: &Value, place: &str, look: &mut impl FnMut(&str, &Value)) {
    look(place, schema);
    for (keyword, value) in schema.as_object().into_iter().flatten() {
        let place = format!("{place}/{keyword}");
        match (keyword.as_str(), value) {
            ("properties" | "$defs", Value::Object(named)) => {
                named.iter().for_each(|(name, it)| walk(it, &format!("{place}/{name}"), look));
            }
            ("allOf" | "oneOf", Value::Array(all)) => all.iter().for_each(|it| walk(it, &place, look)),
            ("items" | "if" | "then" | "else" | "propertyNames" | "additionalProperties", it) => {
                walk(it, &place, look);
            }
            _ => {}
        }
    }
}

/// A misspelt keyword is no error to any validator: it is just ignored. So the known ones are listed; one
/// that holds schemas must be known to `walk` too.
#[test]
fn no_keyword_is_misspelt() {
    let known = "$schema $id $ref $defs title description examples type enum const properties required \
        additionalProperties propertyNames items minItems maxItems minLength maxLength pattern format \
        minimum maximum if then else allOf oneOf";
    let known: BTreeSet<&str> = known.split_whitespace().collect();
    for (name, schema) in schemas() {
        walk(&schema, &name, &mut |place, it| {
            let keywords = it.as_object().into_iter().flatten().map(|(keyword, _)| keyword.as_str());
            let unknown: Vec<&str> = keywords.filter(|it| !known.contains(it)).collect();
            assert!(unknown.is_empty(), "{place}: {unknown:?}");
        });
    }
}

/// A misspelt name in `required` would refuse everything, one of a format would be ignored.
#[test]
fn required_fields_and_formats_are_known() {
    for (name, schema) in schemas() {
        walk(&schema, &name, &mut |place, it| {
            if let (Some(required), Some(properties)) = (it["required"].as_array(), it.get("properties")) {
                for field in required.iter().map(|it| it.as_str().unwrap()) {
                    // A branch names a field whose schema stands at the object.
                    let known = properties.get(field).or_else(|| schema["properties"].get(field));
                    assert!(known.is_some(), "{place}: {field}");
                }
            }
            assert!(it.get("format").is_none_or(|it| it == "date-time"), "{place}");
        });
    }
}

/// The first regular expression costs a process 0.2 ms; a literal prefix is looked at without one.
#[test]
fn built_in_schemas_have_no_pattern_but_literal_prefixes() {
    let schemas = schemas();
    for (name, _) in BUILT_IN {
        walk(&schemas[name], name, &mut |place, it| {
            let Some(pattern) = it["pattern"].as_str() else { return };
            let prefix = pattern.strip_prefix('^').map(|it| it.replace("\\.", "")).unwrap_or_default();
            let literal =
                !prefix.is_empty() && prefix.chars().all(|it| it.is_ascii_alphanumeric() || it == '_');
            // Only a ping gets there.
            assert!(
                literal || place == "ingest-request.v1/then/properties/idempotencyKey",
                "{place}: {pattern}"
            );
        });
    }
}

#[test]
fn every_schema_has_examples_and_every_example_a_schema() {
    let names: BTreeSet<String> = schemas().into_keys().collect();
    for kind in ["valid", "invalid"] {
        let mut shown = BTreeSet::new();
        for entry in fs::read_dir(folder().join("examples").join(kind)).unwrap() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            assert!(!examples(kind, &name).is_empty(), "no {kind} example of {name}");
            shown.insert(name);
        }
        assert_eq!(shown, names, "{kind}");
    }
}

#[test]
fn valid_examples_pass_and_invalid_ones_have_one_fault() {
    for (name, validator) in validators() {
        for (example, document) in examples("valid", &name) {
            let errors: Vec<String> = validator.iter_errors(&document).map(|it| it.to_string()).collect();
            assert!(errors.is_empty(), "valid/{name}/{example}: {errors:?}");
        }
        for (example, document) in examples("invalid", &name) {
            let errors: Vec<String> = validator.iter_errors(&document).map(|it| it.to_string()).collect();
            assert_eq!(errors.len(), 1, "invalid/{name}/{example}: {errors:?}");
        }
    }
}

#[test]
fn built_in_validators_judge_as_the_files_do() {
    for (name, schema) in BUILT_IN {
        for (example, document) in examples("valid", name) {
            assert_eq!(schema.validate(&document), Ok(()), "valid/{name}/{example}");
        }
        for (example, document) in examples("invalid", name) {
            let errors = schema.validate(&document).unwrap_err();
            assert_eq!(errors.len(), 1, "invalid/{name}/{example}: {errors:?}");
            assert!(!errors[0].message.contains("breaks the rule"), "invalid/{name}/{example}: {errors:?}");
        }
    }
}

#[test]
fn known_fields_are_those_of_the_files() {
    let schemas = schemas();
    let names = |it: &Value| -> BTreeSet<String> { it.as_object().unwrap().keys().cloned().collect() };
    let check = |schema: Schema, path: &str, places: &[&Value]| {
        let known: BTreeSet<String> = schema.fields(path).iter().map(|it| (*it).to_owned()).collect();
        assert_eq!(known, places.iter().flat_map(|it| names(it)).collect(), "{schema:?} {path:?}");
    };
    let event = &schemas["milestone-event.v1"];
    check(Schema::MilestoneEvent, "", &[&event["properties"]]);
    check(Schema::MilestoneEvent, "/evidence/12", &[&event["$defs"]["evidence"]["properties"]]);
    let envelope = &schemas["event-envelope.v1"];
    check(
        Schema::EventEnvelope,
        "",
        &[&envelope["properties"], &envelope["$defs"]["envelope"]["properties"]],
    );
    check(Schema::EventEnvelope, "/resume", &[&envelope["$defs"]["resume"]["properties"]]);
    check(Schema::IngestRequest, "", &[&schemas["ingest-request.v1"]["properties"]]);
    check(Schema::IngestRequest, "/event", &[&event["properties"]]);
    check(Schema::IngestRequest, "/event/evidence/0", &[&event["$defs"]["evidence"]["properties"]]);
    check(Schema::Task, "", &[&schemas["task.v1"]["properties"]]);
}

/// The words for a fault are part of what people rely on.
#[test]
fn messages_name_the_fault_and_the_cure() {
    let expected = [
        ("empty-milestoneId", "/milestoneId: is empty"),
        ("empty-scope", "/scope: is empty"),
        ("evidence-empty-ref", "/evidence/0/ref: is empty"),
        ("evidence-is-an-object", "/evidence: must be an array, not an object"),
        (
            "evidence-type-screenshot",
            "/evidence/0/type: must be one of \"doc\", \"commit\", \"issue\", \"pr\", \"runbook\", \"metric\", \
             \"log\", not \"screenshot\"",
        ),
        ("evidence-unknown-field-url", "/evidence/0/url: unknown field \"url\""),
        ("evidence-without-summary", "/evidence/0/summary: is missing"),
        ("milestoneId-of-201-characters", "/milestoneId: has 201 characters; at most 200 are allowed"),
        ("missing-claim", "/claim: is missing"),
        ("missing-source", "/source: is missing"),
        ("no-evidence", "/evidence: must not be empty"),
        ("not-an-object", "must be an object, not an array"),
        ("null-claim", "/claim: must be a string, not null"),
        (
            "riskStatus-in-another-spelling",
            "/riskStatus: must be one of \"on-track\", \"at-risk\", \"blocked\", \"completed\", not \"On Track\"; \
             did you mean \"on-track\"?",
        ),
        ("source-human", "/source: must be one of \"orchestrator\", \"agent\", \"operator\", not \"human\""),
        (
            "timestampUtc-of-no-date",
            "/timestampUtc: must be an RFC 3339 time, not \"2026-02-29T09:05:00.000Z\"",
        ),
        ("timestampUtc-without-milliseconds", "/timestampUtc: has 20 characters; at least 24 are needed"),
        (
            "unknown-field-milestone_id",
            "/milestone_id: unknown field \"milestone_id\"; did you mean \"milestoneId\"?",
        ),
    ];
    let found: Vec<(String, String)> = examples("invalid", "milestone-event.v1")
        .into_iter()
        .map(|(name, it)| (name, Schema::MilestoneEvent.validate(&it).unwrap_err()[0].to_string()))
        .collect();
    assert_eq!(found, expected.map(|(name, it)| (name.to_owned(), it.to_owned())));
}

#[test]
fn the_example_of_a_delivery_state_is_what_the_deliverer_reads_and_writes() {
    let path =
        concat!(env!("CARGO_MANIFEST_DIR"), "/../schemas/examples/valid/delivery-state.v1/waiting.json");
    let text = std::fs::read_to_string(path).unwrap();
    let state: milepost::delivery::State = serde_json::from_str(&text).unwrap();
    let again = serde_json::to_value(&state).unwrap();
    assert_eq!(again, serde_json::from_str::<serde_json::Value>(&text).unwrap());
}

#[test]
fn the_schema_of_a_check_report_knows_every_kind_of_finding() {
    let known = serde_json::to_value(milepost::conservation::FindingKind::ALL).unwrap();
    let schema = &schemas()["check-report.v1"];
    assert_eq!(schema["$defs"]["finding"]["properties"]["kind"]["enum"], known);
}
