//! The metrics: as documented, as promtool wants them, and in step with what happens.

use std::{
    collections::{BTreeMap, BTreeSet},
    env, fs,
    io::{Read as _, Write as _},
    net::TcpStream,
    path::Path,
    process::{Command, Stdio},
};

use milepost_testing::{Run, Scratch};

use crate::folder::{Receiver, enqueue, events, rich, scratch};

/// Type and labels, by name.
type Families = BTreeMap<String, (String, BTreeSet<String>)>;

/// In one segment, however much it is.
fn emit(folder: &Scratch, ids: impl IntoIterator<Item = String>) -> Run {
    folder.feed("milestone-emit", &["-q"], &events(ids))
}

fn get(address: &str, path: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer.split_once("\r\n\r\n").unwrap().1.to_owned()
}

fn metrics(folder: &Scratch) -> String {
    folder.run("milestone-status", &["--metrics", "--stdout"]).exits(0).stdout
}

/// The value of a sample.
fn value(page: &str, sample: &str) -> Option<f64> {
    page.lines().find_map(|it| it.strip_prefix(sample)?.strip_prefix(' ')?.parse().ok())
}

/// What a page says of its families.
fn families(page: &str) -> Families {
    let mut found = Families::new();
    for line in page.lines() {
        if let Some(line) = line.strip_prefix("# TYPE ") {
            let (name, kind) = line.split_once(' ').unwrap();
            let before = found.insert(name.to_owned(), (kind.to_owned(), BTreeSet::new()));
            assert!(before.is_none(), "{name} stands there twice");
        } else if !line.starts_with('#') {
            let (sample, _) = line.rsplit_once(' ').unwrap();
            let (name, labels) = sample.split_once('{').unwrap_or((sample, ""));
            let labels = labels.trim_end_matches('}').split("\",").filter_map(|it| it.split_once("=\""));
            found.get_mut(name).unwrap().1.extend(labels.map(|(it, _)| it.to_owned()));
        }
    }
    found
}

/// What the tables of `docs/METRICS.md` say.
fn documented(is_receivers: bool) -> Families {
    let page = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/METRICS.md")).unwrap();
    let rows = page.lines().filter_map(|it| it.strip_prefix("| `milepost_"));
    let family = |row: &str| {
        let cells: Vec<&str> = row.split('|').map(|it| it.trim_matches(['`', ' '])).collect();
        let labels = cells[3].split(',').map(|it| it.trim_matches(['`', ' ']).to_owned());
        let labels = labels.filter(|it| !it.is_empty()).collect();
        (format!("milepost_{}", cells[0]), (cells[1].to_owned(), labels))
    };
    let all = rows.map(family);
    all.filter(|(name, _)| name.starts_with("milepost_receive_") == is_receivers).collect()
}

/// promtool, where `scripts/test` has said where it is.
fn check_by_promtool(page: &str) {
    let Some(promtool) = env::var_os("MILEPOST_PROMTOOL") else {
        #[expect(clippy::print_stderr, reason = "a test that did not test says so")]
        {
            eprintln!("MILEPOST_PROMTOOL names no promtool: not tested");
        }
        return;
    };
    let mut child = Command::new(promtool)
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(page.as_bytes()).unwrap();
    let done = child.wait_with_output().unwrap();
    assert!(done.status.success() && done.stderr.is_empty(), "{}", String::from_utf8_lossy(&done.stderr));
}

#[test]
fn the_page_is_what_the_document_says_and_what_promtool_wants() {
    let folder = rich();
    let page = metrics(&folder);
    assert_eq!(families(&page), documented(false));
    check_by_promtool(&page);
    let written = folder.run("milestone-status", &["--metrics"]).exits(0);
    assert_eq!(written.stdout, "{\"status\":\"ok\",\"file\":\"logs/metrics/milepost.prom\"}\n");
    assert_eq!(
        families(&fs::read_to_string(folder.log("metrics/milepost.prom")).unwrap()),
        documented(false)
    );
    assert!(!folder.log("metrics/milepost.prom.tmp").exists());
    // What it keeps for itself disturbs nobody.
    folder.run("milestone-status", &["--check", "-q"]).exits(0);
    folder.run("milestone-status", &["--stdout"]).exits(64);
    folder.run("milestone-status", &["--metrics", "--check"]).exits(64);
}

#[test]
fn the_receivers_page_is_what_the_document_says_and_what_promtool_wants() {
    let folder = scratch();
    let receiver = Receiver::start(&folder);
    let page = get(&receiver.address, "/metrics");
    let (found, documented) = (families(&page), documented(true));
    assert_eq!(found, documented);
    check_by_promtool(&page);
}

#[test]
fn counts_follow_what_the_tools_do_and_a_page_in_between_changes_nothing() {
    let folder = scratch();
    let appended = r#"milepost_audit_records_total{tool="milestone-emit",action="emit",outcome="appended"}"#;
    let duplicate =
        r#"milepost_audit_records_total{tool="milestone-emit",action="emit",outcome="duplicate"}"#;
    assert_eq!(value(&metrics(&folder), appended), None);
    emit(&folder, ["a".to_owned(), "b".to_owned()]).exits(0);
    assert_eq!(value(&metrics(&folder), appended), Some(2.0));
    emit(&folder, ["b".to_owned(), "c".to_owned()]).exits(0);
    let page = metrics(&folder);
    assert_eq!((value(&page, appended), value(&page, duplicate)), (Some(3.0), Some(1.0)));
    assert_eq!(value(&page, r#"milepost_chain_records_total{journal="audit.jsonl"}"#), Some(4.0));
    assert!(
        value(&page, r#"milepost_queue_behind_bytes{queue="milestone-delivery-queue.jsonl"}"#) > Some(0.0)
    );
    enqueue(&folder, &[]);
    let page = metrics(&folder);
    let pending = r#"milepost_endpoint_pending{queue="milestone-delivery-queue.jsonl",endpoint=""}"#;
    assert_eq!(value(&page, pending), Some(1.0));
    fs::remove_dir_all(folder.log(".index")).unwrap();
    assert_eq!(
        value(&metrics(&folder), appended),
        Some(3.0),
        "without what is remembered all is counted again"
    );
}

#[test]
fn a_break_in_a_chain_is_told_of_wherever_it_is_and_until_it_is_mended() {
    let folder = scratch();
    let intact = r#"milepost_chain_intact{journal="audit.jsonl"}"#;
    emit(&folder, (0..20).map(|it| format!("m{it}"))).exits(0);
    assert_eq!(value(&metrics(&folder), intact), Some(1.0));
    let path = folder.log("audit.jsonl");
    let good = fs::read_to_string(&path).unwrap();
    // What had been followed before is changed.
    let bad = good.replacen("milestone:m3\"", "milestone:m4\"", 1);
    assert_ne!(good, bad);
    fs::write(&path, &bad).unwrap();
    for _ in 0..3 {
        assert_eq!(value(&metrics(&folder), intact), Some(0.0));
    }
    let glance = folder.run("milestone-status", &["--json"]).exits(2).results();
    let problem = glance[0]["problems"][0]["message"].as_str().unwrap();
    assert!(problem.starts_with("audit.jsonl: its hash chain is broken"), "{problem}");
    assert_eq!(value(&metrics(&folder), "milepost_status"), Some(2.0));
    emit(&folder, ["n".to_owned()]).exits(0);
    assert_eq!(value(&metrics(&folder), intact), Some(0.0));
    let mended = fs::read_to_string(&path).unwrap().replacen(&bad, &good, 1);
    fs::write(&path, &mended).unwrap();
    assert_eq!(value(&metrics(&folder), intact), Some(1.0), "a whole round found none");
    folder.run("milestone-status", &[]).exits(0);

    // Another chain in its place, also a good one: what was seen is not there.
    let other = scratch();
    emit(&other, (0..21).map(|it| format!("m{it}"))).exits(0);
    fs::copy(other.log("audit.jsonl"), &path).unwrap();
    fs::copy(other.log(".lock/audit.lock"), folder.log(".lock/audit.lock")).unwrap();
    assert_eq!(value(&metrics(&folder), intact), Some(0.0));
    assert_eq!(value(&metrics(&folder), intact), Some(1.0));
}

#[test]
fn every_alert_is_documented_tested_and_has_its_section_of_the_runbook() {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs");
    let read = |file: &str| fs::read_to_string(docs.join(file)).unwrap();
    let named = |text: &str, before: &str| -> BTreeSet<String> {
        let names = text.lines().filter_map(|it| it.trim().strip_prefix(before));
        names.map(|it| it.chars().take_while(char::is_ascii_alphanumeric).collect()).collect()
    };
    let (rules, page) = (read("alerts/milepost.yml"), read("METRICS.md"));
    let alerts = named(&rules, "- alert: ");
    let documented = named(&page, "| `");
    assert_eq!(alerts, documented.into_iter().filter(|it| it.starts_with("Milepost")).collect());
    assert_eq!(alerts, named(&read("alerts/milepost.test.yml"), "alertname: "));
    let runbook = fs::read_to_string(docs.join("RUNBOOK.md")).unwrap_or_default();
    for alert in alerts {
        // MilepostDiskLow is at #milepost-disk-low.
        let words = alert.chars().map(|it| if it.is_uppercase() { format!(" {it}") } else { it.into() });
        let words = words.collect::<String>().trim().to_lowercase();
        let anchor = format!("docs/RUNBOOK.md#{}\n", words.replace(' ', "-"));
        assert_eq!(rules.matches(&anchor).count(), 1, "{anchor}");
        let is_there = runbook.lines().any(|it| {
            it.starts_with('#')
                && it.trim_start_matches(['#', ' ']).to_lowercase().replace(['-', ' '], "")
                    == words.replace(' ', "")
        });
        assert!(runbook.is_empty() || is_there, "the runbook has no section for {alert}");
    }
    // Each name that a rule looks at is documented.
    for name in rules.split(|it: char| !it.is_ascii_alphanumeric() && it != '_') {
        assert!(!name.starts_with("milepost_") || page.contains(&format!("`{name}`")), "{name}");
    }
}
