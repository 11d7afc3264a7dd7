//! What the receiver says of itself, held against what it does.

use std::{env, process::Command};

use serde_json::Value;

use crate::client::{Folder, SECRET};

#[test]
fn the_description_names_every_route() {
    let folder = Folder::new();
    let receiver = folder.start();
    let document = receiver.get("/openapi.json").json();
    assert_eq!(document["openapi"], "3.1.0");
    for path in ["/api/milestones/latest", "/feed.json", "/feed.atom", "/"] {
        for name in ["limit", "scope", "riskStatus", "since", "q", "cursor"] {
            let parameter = Value::from(format!("#/components/parameters/{name}"));
            let described = document["paths"][path]["get"]["parameters"].as_array().unwrap();
            assert!(described.iter().any(|it| it["$ref"] == parameter), "{path}: {name}");
        }
    }
    let paths: Vec<&String> = document["paths"].as_object().unwrap().keys().collect();
    assert_eq!(paths.len(), 15, "{paths:?}");
    for path in paths {
        // A GET of a path that only takes POST is told so, and nothing is unknown.
        let status =
            if path.ends_with("stream") { 200 } else { receiver.get(&path.replace("{id}", "x")).status };
        let is_post = path.starts_with("/internal/");
        let is_expected = if is_post { status == 405 } else { matches!(status, 200 | 404) };
        assert!(is_expected, "{path}: {status}");
    }
}

/// Schemathesis makes requests from the description, good and bad ones, and judges every answer by it. `scripts/test`
/// installs it and says where; without that this test says so and passes.
#[test]
fn answers_are_as_the_description_says_whatever_is_asked() {
    let Some(program) = env::var_os("MILEPOST_SCHEMATHESIS") else {
        #[expect(clippy::print_stderr, reason = "a test that did not test says so")]
        {
            eprintln!("MILEPOST_SCHEMATHESIS names no schemathesis: not tested");
        }
        return;
    };
    let folder = Folder::new();
    let receiver = folder.start();
    for id in ["a", "b"] {
        assert_eq!(receiver.emit(id, &Value::Null).status, 200);
    }
    let url = format!("http://{}/openapi.json", receiver.address);
    let checks = "not_a_server_error,status_code_conformance,content_type_conformance,\
                  response_headers_conformance,response_schema_conformance,unsupported_method,allow_header_conformance";
    let run = |signed: bool| {
        let mut command = Command::new(&program);
        command.current_dir(folder.path()).args(["run", &url, "--checks", checks]);
        command.args(["--phases", "examples,coverage,fuzzing", "--max-examples", "25", "--no-color"]);
        command.args(["--generation-deterministic", "--suppress-health-check", "all", "--warnings", "off"]);
        if signed {
            command.args(["--include-path-regex", "^/internal/"]);
            let hooks = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/receive");
            command.env("PYTHONPATH", hooks).env("PYTHONDONTWRITEBYTECODE", "1");
            command.env("SCHEMATHESIS_HOOKS", "signed").env("SECRET", SECRET);
        } else {
            // It never ends.
            command.args(["--exclude-path", "/api/milestones/stream"]);
        }
        let output = command.output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{said}\n{}", String::from_utf8_lossy(&output.stderr));
        said
    };
    let said = run(false);
    assert!(said.contains("13 selected"), "{said}");
    assert_eq!(folder.lines("receive/rejected.jsonl").len(), 0, "nothing that is not signed is kept");
    let said = run(true);
    assert!(said.contains("4 selected"), "{said}");
    // What is signed gets further: some of it is accepted, some kept as refused.
    assert!(folder.lines("receive/feed.jsonl").len() > 2, "{said}");
    assert!(!folder.lines("receive/rejected.jsonl").is_empty(), "{said}");
}
