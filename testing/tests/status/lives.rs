//! The life of one event, as `--explain` tells it.

use milepost_testing::Scratch;
use serde_json::{Value, json};

use crate::{
    folder::{deliver, emit, enqueue, rich, scratch},
    must_fit,
};

fn life(folder: &Scratch, key: &str) -> Value {
    let life = folder.run("milestone-status", &["--json", "--explain", key]).exits(0).results().remove(0);
    must_fit("explain.v1", &life);
    life
}

fn fates(life: &Value) -> Vec<(String, String, Value)> {
    let deliveries = life["deliveries"].as_array().unwrap();
    let text = |it: &Value| it.as_str().unwrap().to_owned();
    deliveries
        .iter()
        .map(|it| (text(&it["endpoint"]), text(&it["fate"]), it["next"]["waitsFor"].clone()))
        .collect()
}

fn steps(life: &Value) -> Vec<String> {
    let steps = life["steps"].as_array().unwrap();
    steps
        .iter()
        .map(|it| format!("{}/{}", it["action"].as_str().unwrap(), it["outcome"].as_str().unwrap()))
        .collect()
}

#[test]
fn whatever_has_become_of_an_event_is_told() {
    let folder = rich();
    let told = |id: &str, here: &str, waits: Value, backup: &str, backup_waits: Value| {
        let expected =
            [(String::new(), here.to_owned(), waits), ("backup".to_owned(), backup.to_owned(), backup_waits)];
        assert_eq!(fates(&life(&folder, id)), expected, "{id}");
    };
    let none = || Value::Null;
    told("m0", "acknowledged", none(), "acknowledged", none());
    told("milestone:m0", "acknowledged", none(), "acknowledged", none());
    told("m7", "pending", json!(["deliverer"]), "acknowledged", none());
    told("m4", "dead-lettered", none(), "acknowledged", none());
    told("m15", "discarded", none(), "acknowledged", none());
    told("m21", "dead-lettered", none(), "acknowledged", none());
    told("p3", "pending", json!(["turn"]), "pending", json!(["turn"]));
    told("q2", "pending", json!(["queue"]), "pending", json!(["queue"]));

    let reminder = life(&folder, "rem:chat:42:t3:2026-03-01T09:00Z");
    assert_eq!(fates(&reminder), [(String::new(), "acknowledged".to_owned(), Value::Null)]);
    let by_trace = life(&folder, reminder["traceId"].as_str().unwrap());
    assert_eq!(by_trace, reminder);
    assert_eq!(reminder["scope"], "chat:42");
    // The envelope in the queue has the time of the reminder; when it was queued only the audit knows.
    let audit = folder.records("audit");
    let queued = audit
        .iter()
        .find(|it| (&it["outcome"], &it["detail"]["source"]) == (&json!("queued"), &json!("reminders")));
    assert_eq!(reminder["steps"][1]["atUtc"], queued.unwrap()["timestamp"]);

    let put_back = life(&folder, "m4");
    let expected = [
        // From another sender, whose event it is not.
        "receive/appended",
        "emit/appended",
        "enqueue/queued",
        "receive/conflict",
        "deliver/dead-lettered",
        // At the backup, whose feed is in another folder.
        "deliver/acknowledged",
        "redrive/queued",
        "receive/conflict",
        "deliver/dead-lettered",
    ];
    assert_eq!(steps(&put_back), expected);
    let files: Vec<_> =
        put_back["records"].as_array().unwrap().iter().map(|it| it["file"].as_str().unwrap()).collect();
    let of = |name: &str| files.iter().filter(|it| it.starts_with(name)).count();
    assert_eq!(
        (of("milestones"), of("milestone-delivery-queue"), of("milestone-delivery-deadletter")),
        (1, 2, 2)
    );

    // Without indexes the journals are read, and the answer is the same.
    std::fs::remove_dir_all(folder.log(".index")).unwrap();
    assert_eq!(life(&folder, "m4"), put_back);
    assert_eq!(fates(&life(&folder, "p3"))[0].2, json!(["turn"]));

    let unknown = folder.run("milestone-status", &["--json", "--explain", "never"]).exits(2);
    assert_eq!(unknown.results(), [json!({ "status": "unknown", "key": "never" })]);
    assert_eq!(
        unknown.stderr,
        "milestone-status: logs: no journal knows \"never\"; give a milestone id, an idempotency key or a trace id\n"
    );
}

#[test]
fn every_input_to_the_next_attempt_is_told() {
    let folder = scratch();
    emit(&folder, ["a".to_owned(), "b".to_owned()]).exits(0);
    enqueue(&folder, &[]);
    let nobody = "http://127.0.0.1:1";
    deliver(&folder, nobody, &["--backoff-base", "1h"]).exits(0);
    let next = |key: &str| life(&folder, key)["deliveries"][0]["next"].clone();

    let first = next("a");
    assert_eq!(first["waitsFor"], json!(["backoff"]));
    assert_eq!(
        (&first["attempts"], &first["tries"], &first["attemptsMax"]),
        (&json!(0), &json!(1), &json!(10))
    );
    assert_eq!(first["lastReason"], "connection");
    let delay = &first["delay"];
    assert_eq!(
        (&delay["by"], &delay["scheduledMs"], &delay["jitterOf"]),
        (&json!("flags"), &json!(3_600_000), &json!("milestone:a:1"))
    );
    let sum = delay["scheduledMs"].as_u64().unwrap() + delay["jitterMs"].as_u64().unwrap();
    assert_eq!(delay["delayMs"], sum);
    let second = next("b");
    assert_eq!(second["waitsFor"], json!(["scope"]));
    assert_eq!(second["blockedBy"]["idempotencyKey"], "milestone:a");
    assert_eq!(second["blockedBy"]["dueUtc"], first["dueUtc"]);

    // Its try goes on failing until the breaker opens.
    for _ in 0..4 {
        folder.run("milestone-deliver", &["-q", "--retry-now"]).exits(0);
        deliver(&folder, nobody, &["--backoff-base", "1h"]).exits(0);
    }
    let open = next("a");
    assert_eq!(
        (&open["waitsFor"], &open["breaker"]["state"]),
        (&json!(["breaker", "backoff"]), &json!("open"))
    );
    folder.run("milestone-deliver", &["-q", "--hold", "moving house"]).exits(0);
    assert_eq!(next("a")["waitsFor"], json!(["release", "backoff"]));
    assert_eq!(next("b")["waitsFor"], json!(["release", "scope"]));
    let text = folder.run("milestone-status", &["--explain", "b"]).exits(0).stdout;
    for part in [
        "milestone:b: trace ",
        "  waits for    milestone-deliver --release: an operator holds it (moving house)\n",
        "               \"milestone:a\" of its scope, at 0 in the queue, due in ",
        "  attempts     none yet; at most 10\n",
        "  breaker      held since 0 s ago: moving house\n",
    ] {
        assert!(text.contains(part), "{part:?} is not in:\n{text}");
    }
    folder.run("milestone-status", &["--explain", "a", "--check"]).exits(64);
}
