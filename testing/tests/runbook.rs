//! Every command of docs/RUNBOOK.md, run against real tools that are in the trouble that its section is about.
#![expect(clippy::unwrap_used, reason = "a test that cannot set itself up has failed")]
#![expect(clippy::disallowed_methods, reason = "a test damages files itself")]

use std::{
    collections::BTreeMap, fs, io::Write, net::TcpListener, os::unix::fs::PermissionsExt, path::PathBuf,
    process::Command, sync::OnceLock,
};

use milepost_testing::{
    Run, Scratch,
    documents::{self, Block},
    milestone, root,
};
use serde_json::json;

/// Stands in for systemd: what the services would do, done by hand.
const SYSTEMCTL: &str = r#"#!/bin/bash
set -eu
verb=$1
shift
receive() {
  if [ -e receiver.pid ]; then
    kill "$(cat receiver.pid)"
    while [ -e "/proc/$(cat receiver.pid)" ]; do sleep 0.02; done
  fi
  rm -f listening
  CREDENTIALS_DIRECTORY=etc/ops setsid milestone-receive --logs there --listen "127.0.0.1:$PORT" >listening 2>>receiver.log </dev/null &
  echo $! >receiver.pid
  until grep -q listening listening 2>/dev/null; do sleep 0.02; done
}
deliver() {
  milestone-deliver --quiet
}
cd "$WORLD"
for unit in "$@"; do
  case $verb:$unit in
  restart:milestone-receive@ops.service) receive ;;
  restart:milestone-deliver@ops.service | start:milestone-deliver@ops.service) deliver ;;
  start:milepost@ops.target | restart:milepost@ops.target) milestone-queue --quiet && deliver ;;
  stop:milepost@ops.target | status:* | list-timers:* | *:--no-pager) ;;
  *) echo "systemctl $verb $unit is not known here" >&2; exit 64 ;;
  esac
done
"#;

/// A zone `ops` in a scratch folder, its receiver, and a backup.
struct World {
    scratch: Scratch,
    port: u16,
}

impl World {
    fn new() -> World {
        let scratch = Scratch::new();
        for folder in ["etc/ops", "bin", "backups", "there"] {
            fs::create_dir_all(scratch.dir().join(folder)).unwrap();
        }
        scratch.secret("etc/ops/milestone-webhook-secret", "correct horse");
        let systemctl = scratch.write("bin/systemctl", SYSTEMCTL);
        fs::set_permissions(systemctl, PermissionsExt::from_mode(0o755)).unwrap();
        // As scripts/install calls them.
        for script in ["backup", "restore", "trim"] {
            let installed = scratch.dir().join(format!("bin/milepost-{script}"));
            std::os::unix::fs::symlink(root().join("scripts").join(script), installed).unwrap();
        }
        // Free for as long as nobody takes it; it must be the same after a restart.
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let world = World { scratch, port };
        world.scratch.write("etc/ops.env", format!("MILESTONE_INGEST_URL=http://127.0.0.1:{port}/\n"));
        world.sh("systemctl restart milestone-receive@ops.service");
        world.report("first");
        world.sh("systemctl start milepost@ops.target");
        world
    }

    /// Where the page says a path of the system, this world's.
    fn here(&self, text: &str) -> String {
        let dir = self.scratch.dir().display();
        text.replace("/etc/milepost", &format!("{dir}/etc"))
            .replace("/var/lib/milepost/ops/logs", &format!("{dir}/logs"))
            .replace("/var/backups/milepost", &format!("{dir}/backups"))
    }

    /// Runs commands as somebody who has begun as the page says; a command that is used wrongly, or is none, fails.
    fn run(&self, text: &str) -> Run {
        let begin = &blocks()[0].text;
        let watch = "trap 'code=$?; case $code in 64 | 126 | 127) exit $code ;; esac' ERR; set -E";
        let path = format!("{}/bin:{}", self.scratch.dir().display(), milepost_testing::path_to_tools());
        let mut command = self.scratch.script("bash");
        command.args(["-c", &self.here(&format!("{begin}{watch}\n{text}"))]);
        command.env("PATH", path).env("PORT", self.port.to_string()).env("WORLD", self.scratch.dir());
        Run::of(command.spawn().unwrap())
    }

    #[track_caller]
    fn sh(&self, text: &str) -> String {
        self.run(text).exits(0).stdout
    }

    fn report(&self, id: &str) {
        let line = milestone(id).to_string();
        self.scratch.feed("milestone-emit", &["-q"], line.as_bytes()).exits(0);
    }

    fn feed(&self) -> Vec<String> {
        let text =
            fs::read_to_string(self.scratch.dir().join("there/receive/feed.jsonl")).unwrap_or_default();
        let id = |line: &str| {
            serde_json::from_str::<serde_json::Value>(line).unwrap()["event"]["milestoneId"]
                .as_str()
                .unwrap()
                .to_owned()
        };
        text.lines().map(id).collect()
    }

    /// Somebody else uses these ids for something else.
    fn take_ids(&self, ids: &[&str]) {
        let other = Scratch::new();
        for id in ids {
            let mut event = milestone(id);
            event["claim"] = json!("Another one's.");
            other.feed("milestone-emit", &["-q"], event.to_string().as_bytes()).exits(0);
        }
        other.run("milestone-queue", &["-q"]).exits(0);
        let secret = self.scratch.dir().join("etc/ops/milestone-webhook-secret");
        let url = format!("http://127.0.0.1:{}", self.port);
        let to = ["--drain", "-q", "--secret-file", secret.to_str().unwrap(), "--url", &url];
        other.run("milestone-deliver", &to).exits(0);
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if let Ok(pid) = fs::read_to_string(self.scratch.dir().join("receiver.pid")) {
            let _ = Command::new("/bin/kill").args(["-KILL", pid.trim()]).status();
        }
    }
}

fn blocks() -> &'static [Block] {
    static BLOCKS: OnceLock<Vec<Block>> = OnceLock::new();
    BLOCKS.get_or_init(|| {
        let page = fs::read_to_string(root().join("docs/RUNBOOK.md")).unwrap();
        documents::blocks(&page, "sh")
    })
}

/// Runs the blocks of a section; what each said.
#[track_caller]
fn section(world: &World, name: &str) -> Vec<Run> {
    let own: Vec<_> = blocks().iter().filter(|it| it.section == name).collect();
    assert!(!own.is_empty(), "the page has no section {name}");
    own.into_iter()
        .map(|block| {
            let run = world.run(&block.text);
            let is_understood = !matches!(run.code, 64 | 126 | 127);
            assert!(is_understood, "docs/RUNBOOK.md:{}\n{}\n{run:?}", block.line, block.text);
            run
        })
        .collect()
}

/// Everything that was reported is in the feed, once, and all of it agrees.
#[track_caller]
fn is_well(world: &World, ids: &[&str]) {
    assert_eq!(world.feed(), ids);
    world.sh("milestone-status --check --quiet");
    world.sh("audit-tail --verify --quiet");
}

/// Each section of the page with what brings its trouble about and what must be so afterwards.
#[expect(clippy::too_many_lines, reason = "an entry for each section of the runbook, in its order")]
fn rehearsals() -> BTreeMap<&'static str, fn(&World)> {
    let mut all: BTreeMap<&'static str, fn(&World)> = BTreeMap::new();
    all.insert("On call", |world| {
        let said = section(world, "On call").remove(0);
        assert_eq!(said.code, 0, "{said:?}");
        assert!(said.stdout.starts_with("healthy: "), "{said:?}");
    });
    all.insert("Milepost breaker open", |world| {
        world.report("second");
        let wrong =
            "milestone-queue -q; milestone-deliver -q --secret-file <(echo wrong) --allow-readable-secret";
        world.run(wrong);
        assert_eq!(world.run("milestone-status -q").code, 2, "the breaker is open");
        section(world, "Milepost breaker open");
        is_well(world, &["first", "second"]);
        world.sh("milestone-status -q");
    });
    all.insert("Milepost no acknowledgement", |world| {
        world.report("second");
        section(world, "Milepost no acknowledgement");
        is_well(world, &["first", "second"]);
    });
    all.insert("Milepost dead letters growing", |world| {
        world.take_ids(&["x", "y"]);
        for id in ["x", "y"] {
            world.report(id);
        }
        world.sh("systemctl start milepost@ops.target");
        assert_eq!(world.scratch.records("milestone-delivery-deadletter").len(), 2);
        let said = section(world, "Milepost dead letters growing");
        assert!(said[0].stdout.contains("milestone:x"), "{:?}", said[0]);
        // Put back once, refused again, and it is a dead letter anew; the last one is closed.
        let audited: Vec<_> =
            world.scratch.records("audit").iter().map(|it| it["action"].to_string()).collect();
        let of = |action: &str| audited.iter().filter(|it| **it == format!("\"{action}\"")).count();
        assert_eq!((of("redrive"), of("discard")), (1, 1));
        world.sh("milestone-status --check -q");
    });
    all.insert("Milepost clock difference", |world| {
        assert!(section(world, "Milepost clock difference")[0].stdout.contains("GMT"));
    });
    all.insert("Milepost previous secret in use", |world| {
        let said = section(world, "Milepost previous secret in use").remove(0).stdout;
        assert!(said.contains("secret before this one\tnot set"), "{said}");
    });
    all.insert("Milepost disk low", |world| {
        world.sh("with-milestone --id job -- true");
        world.sh("systemctl start milepost@ops.target");
        for it in section(world, "Milepost disk low") {
            it.exits(0);
        }
        is_well(world, &["first", "job"]);
    });
    all.insert("Milepost chain broken", |world| {
        world.sh("milepost-backup /var/backups/milepost/today; ln -s today /var/backups/milepost/latest");
        let path = world.scratch.log("audit.jsonl");
        let text = fs::read_to_string(&path).unwrap();
        fs::write(&path, text.replacen("appended", "rejected", 1)).unwrap();
        let said = section(world, "Milepost chain broken");
        assert!(said[0].stderr.contains("chain is broken"), "{:?}", said[0]);
        assert!(said[2].stdout.contains("1 duplicate"), "{:?}", said[2]);
        is_well(world, &["first"]);
    });
    all.insert("Milepost feed silent", |world| {
        let said = section(world, "Milepost feed silent").remove(0).exits(0);
        assert!(said.stdout.contains("The nightly batch ran."), "{said:?}");
    });
    all.insert("Milepost unauthenticated requests", |world| {
        world.report("second");
        world.run(
            "milestone-queue -q; milestone-deliver -q --secret-file <(echo wrong) --allow-readable-secret",
        );
        section(world, "Milepost unauthenticated requests").remove(0).exits(0);
    });
    all.insert("Milepost metrics stale", |world| {
        section(world, "Milepost metrics stale").remove(0).exits(0);
    });
    all.insert("Change the secret", |world| {
        let before = fs::read(world.scratch.dir().join("etc/ops/milestone-webhook-secret")).unwrap();
        world.report("second");
        world.sh("milestone-queue -q");
        for it in section(world, "Change the secret") {
            it.exits(0);
        }
        assert_ne!(fs::read(world.scratch.dir().join("etc/ops/milestone-webhook-secret")).unwrap(), before);
        is_well(world, &["first", "second"]);
    });
    all.insert("Hold and release", |world| {
        world.report("second");
        let said = section(world, "Hold and release");
        assert!(said[0].stdout.contains("the app is being deployed"), "{:?}", said[0]);
        world.sh("systemctl start milepost@ops.target");
        is_well(world, &["first", "second"]);
    });
    all.insert("The receiver came back with less", |world| {
        world.sh("pid=$(cat \"$WORLD\"/receiver.pid); kill $pid; tail --pid=$pid -f /dev/null");
        world.sh("rm -r \"$WORLD\"/there; mkdir \"$WORLD\"/there");
        world.sh("rm \"$WORLD\"/receiver.pid; systemctl restart milestone-receive@ops.service");
        assert!(world.feed().is_empty());
        let said = section(world, "The receiver came back with less");
        assert!(said[1].stdout.starts_with("1:"), "{:?}", said[1]);
        is_well(world, &["first"]);
    });
    all.insert("The endpoint has another address", |world| {
        world.sh("sed -i s/127.0.0.1/localhost/ /etc/milepost/ops.env");
        world.report("second");
        world.sh("milestone-queue -q");
        for it in section(world, "The endpoint has another address") {
            it.exits(0);
        }
        is_well(world, &["first", "second"]);
    });
    all.insert("A full disk", |world| {
        let line = milestone("second").to_string();
        let full = format!("ulimit -f 0; printf '%s\\n' '{line}' | milestone-emit -q - 2>/dev/null");
        assert_ne!(world.run(&full).code, 0, "it is refused");
        world.report("second");
        section(world, "A full disk");
        is_well(world, &["first", "second"]);
    });
    all.insert("A lost state file", |world| {
        world.report("second");
        for it in section(world, "A lost state file") {
            it.exits(0);
        }
        is_well(world, &["first", "second"]);
    });
    all.insert("A journal that was truncated or replaced", |world| {
        fs::write(world.scratch.log("milestones.jsonl"), "").unwrap();
        let run = section(world, "A journal that was truncated or replaced").remove(0);
        assert!(run.stderr.contains("copytruncate"), "{run:?}");
        world.report("second");
        world.sh("systemctl start milepost@ops.target");
        assert_eq!(world.feed(), ["first", "second"]);
        world.sh("milestone-status --check -q");
    });
    all.insert("A damaged line", |world| {
        let mut journal =
            fs::OpenOptions::new().append(true).open(world.scratch.log("milestones.jsonl")).unwrap();
        journal.write_all(b"{\"mile").unwrap();
        world.sh("milestone-queue -q");
        let said = section(world, "A damaged line").remove(0).exits(0).stdout;
        assert!(said.contains("{\"mile"), "{said}");
        is_well(world, &["first"]);
    });
    all.insert("Backup", |world| {
        world.sh(
            "milepost-backup /var/backups/milepost/yesterday; ln -s yesterday /var/backups/milepost/latest",
        );
        let said = section(world, "Backup").remove(0).exits(0);
        let head = world.sh("audit-tail --head");
        assert!(said.stdout.ends_with(&head), "{said:?}");
    });
    all.insert("Move to another machine", |world| {
        for (at, block) in blocks().iter().filter(|it| it.section == "Move to another machine").enumerate() {
            if at == 1 {
                // The new machine has no folder yet.
                fs::rename(world.scratch.log(""), world.scratch.dir().join("the old machine's")).unwrap();
            }
            world.sh(&block.text);
        }
        is_well(world, &["first"]);
    });
    all
}

#[test]
fn every_section_with_commands_is_rehearsed() {
    let mut sections: Vec<_> =
        blocks().iter().map(|it| it.section.as_str()).filter(|it| !it.is_empty()).collect();
    sections.dedup();
    sections.sort_unstable();
    assert_eq!(sections, rehearsals().into_keys().collect::<Vec<_>>());
}

#[test]
fn the_page_begins_with_a_shell_that_has_what_the_services_have() {
    let world = World::new();
    let said = world.sh("env");
    for variable in ["MILESTONE_INGEST_URL=", "MILESTONE_LOGS=", "CREDENTIALS_DIRECTORY="] {
        assert!(said.contains(variable), "{said}");
    }
    is_well(&world, &["first"]);
}

/// Several tests, so that they run side by side.
macro_rules! rehearse {
    ($($test:ident: $section:literal,)+) => {
        $(#[test]
        fn $test() {
            rehearsals()[$section](&World::new());
        })+

        #[test]
        fn every_rehearsal_is_run() {
            let run = [$($section),+];
            assert_eq!(run.len(), rehearsals().len());
        }
    };
}

rehearse! {
    on_call: "On call",
    breaker_open: "Milepost breaker open",
    no_acknowledgement: "Milepost no acknowledgement",
    dead_letters: "Milepost dead letters growing",
    clock_difference: "Milepost clock difference",
    previous_secret: "Milepost previous secret in use",
    disk_low: "Milepost disk low",
    chain_broken: "Milepost chain broken",
    feed_silent: "Milepost feed silent",
    unauthenticated_requests: "Milepost unauthenticated requests",
    metrics_stale: "Milepost metrics stale",
    another_secret: "Change the secret",
    hold_and_release: "Hold and release",
    receiver_with_less: "The receiver came back with less",
    another_address: "The endpoint has another address",
    full_disk: "A full disk",
    lost_state: "A lost state file",
    truncated_journal: "A journal that was truncated or replaced",
    damaged_line: "A damaged line",
    backups: "Backup",
    another_machine: "Move to another machine",
}

/// The file of alerts names sections of the page.
#[test]
fn every_alert_has_its_section() {
    let alerts = root().join("docs/alerts/milepost.yml");
    let Ok(text) = fs::read_to_string::<PathBuf>(alerts) else { return };
    let page = fs::read_to_string(root().join("docs/RUNBOOK.md")).unwrap();
    let anchors: Vec<_> = page
        .lines()
        .filter_map(|it| it.strip_prefix("## "))
        .map(|it| it.to_lowercase().replace(' ', "-"))
        .collect();
    for line in text.lines() {
        let Some((_, anchor)) = line.split_once("docs/RUNBOOK.md#") else { continue };
        assert!(anchors.iter().any(|it| it == anchor.trim()), "{anchor} is no section of the runbook");
    }
}
