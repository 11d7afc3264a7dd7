//! Backup and restore, rehearsed: while everything is at work, through kills, and when less would come back.
#![expect(clippy::unwrap_used, reason = "a test that cannot set itself up has failed")]
#![expect(clippy::disallowed_methods, reason = "a test damages files itself")]

use std::{
    collections::BTreeSet,
    fs,
    os::unix::{fs::PermissionsExt, process::CommandExt},
    path::Path,
    process::{Command, Stdio},
    sync::atomic::{AtomicBool, AtomicU32, Ordering::SeqCst},
    thread,
};

use milepost_testing::{Receiver, Run, Scratch, milestone, wait_until};
use serde_json::Value;

/// Small, so that every journal rotates meanwhile.
const ROTATE: &str = "4KiB";

fn emit(scratch: &Scratch, ids: impl IntoIterator<Item = String>) -> Run {
    let lines: String = ids.into_iter().map(|it| milestone(&it).to_string() + "\n").collect();
    scratch.feed("milestone-emit", &["--rotate-bytes", ROTATE], lines.as_bytes())
}

fn script(scratch: &Scratch, name: &str, args: &[&str]) -> Run {
    Run::of(scratch.script(name).args(args).spawn().unwrap())
}

fn backup(scratch: &Scratch, target: &str) -> Value {
    script(scratch, "backup", &[target]).exits(0).results()[0].clone()
}

fn deliver(scratch: &Scratch, receiver: &Receiver) -> Run {
    let secret = receiver.secret.to_str().unwrap();
    scratch.run("milestone-deliver", &["--drain", "--secret-file", secret, "--url", &receiver.url])
}

/// Whether the folder in this place of the scratch folder holds, by both checks.
fn holds(scratch: &Scratch, logs: &str) {
    scratch.run("milestone-status", &["--check", "--logs", logs]).exits(0);
    scratch.run("audit-tail", &["--verify", "--logs", logs]).exits(0);
}

/// The ids of milestones in a logs folder.
fn ids(folder: &Path) -> BTreeSet<String> {
    let mut ids = BTreeSet::new();
    for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
        let name = entry.file_name().into_string().unwrap();
        if name.starts_with("milestones.") && entry.path().extension().is_some_and(|it| it == "jsonl") {
            for line in fs::read_to_string(entry.path()).unwrap().lines() {
                let line: Value = serde_json::from_str(line).unwrap();
                ids.insert(line["milestoneId"].as_str().unwrap().to_owned());
            }
        }
    }
    ids
}

#[test]
fn a_backup_of_a_folder_at_work_is_the_folder_of_one_instant() {
    let scratch = Scratch::new();
    let receiver = Receiver::start();
    let secret = receiver.secret.to_str().unwrap();
    let watch = |tool: &str, more: &[&str]| {
        scratch.command(tool).args(["--watch", "-q", "--rotate-bytes", ROTATE]).args(more).spawn().unwrap()
    };
    let mut queue = watch("milestone-queue", &[]);
    let mut deliver = watch("milestone-deliver", &["--secret-file", secret, "--url", &receiver.url]);
    let (is_over, emitted) = (AtomicBool::new(false), AtomicU32::new(0));
    thread::scope(|scope| {
        for writer in 0..2 {
            let (scratch, is_over, emitted) = (&scratch, &is_over, &emitted);
            scope.spawn(move || {
                for round in 0.. {
                    if is_over.load(SeqCst) {
                        break;
                    }
                    emit(scratch, (0..3).map(|it| format!("w{writer}.{round}.{it}"))).exits(0);
                    emitted.fetch_add(3, SeqCst);
                }
            });
        }
        let mut before = emitted.load(SeqCst);
        for number in 0..4 {
            wait_until(|| emitted.load(SeqCst) > before + 6);
            before = emitted.load(SeqCst);
            let target = format!("backup.{number}");
            backup(&scratch, &target);
            holds(&scratch, &target);
            let saved = ids(&scratch.dir().join(&target)).len();
            assert!(saved >= before as usize, "what was acknowledged before is in it: {saved} of {before}");
        }
        is_over.store(true, SeqCst);
    });
    for child in [&mut queue, &mut deliver] {
        child.kill().unwrap();
        child.wait().unwrap();
    }
    // It goes on where it was, and nothing is published twice.
    let restore = script(&scratch, "restore", &["--logs", "again", "backup.3"]).exits(0);
    assert_eq!(restore.results()[0]["lacks"], 0);
    let again = |tool: &str, args: &[&str]| scratch.run(tool, &[&["--logs", "again", "-q"], args].concat());
    again("milestone-queue", &[]).exits(0);
    again("milestone-deliver", &["--drain", "--secret-file", secret, "--url", &receiver.url]).exits(0);
    holds(&scratch, "again");
    let feed = receiver.feed();
    assert_eq!(feed.len(), feed.iter().collect::<BTreeSet<_>>().len());
    assert!(ids(&scratch.dir().join("again")).iter().all(|it| feed.contains(it)));
}

#[test]
fn a_backup_that_is_killed_leaves_nothing_that_looks_like_one() {
    let scratch = Scratch::new();
    emit(&scratch, (0..9).map(|it| format!("m{it}"))).exits(0);
    for program in ["flock", "sha256sum", "sync"] {
        let shims = scratch.dir().join(program);
        fs::create_dir_all(&shims).unwrap();
        let shim = scratch.write(&format!("{program}/{program}"), "#!/bin/sh\nkill -9 0\n");
        Command::new("chmod").arg("+x").arg(shim).status().unwrap();
        let path = format!("{}:{}", shims.display(), milepost_testing::path_to_tools());
        let mut killed = scratch.script("bash");
        let of = milepost_testing::root().join("scripts/backup");
        let run = Run::of(killed.arg(of).arg("saved").env("PATH", path).process_group(0).spawn().unwrap());
        assert_ne!(run.code, 0, "{program}: {run:?}");
        assert!(!fs::exists(scratch.dir().join("saved")).unwrap(), "{program}");
        emit(&scratch, [format!("after {program}")]).exits(0);
    }
    backup(&scratch, "saved");
    assert_eq!(ids(&scratch.dir().join("saved")).len(), 12);
    script(&scratch, "backup", &["saved"]).exits(73);
    script(&scratch, "backup", &["--logs", "nowhere", "x"]).exits(66);
}

#[test]
fn closed_files_of_an_earlier_backup_are_linked() {
    use std::os::unix::fs::MetadataExt;
    let scratch = Scratch::new();
    emit(&scratch, (0..20).map(|it| format!("m{it}"))).exits(0);
    emit(&scratch, (20..40).map(|it| format!("m{it}"))).exits(0);
    // The first time there is none yet.
    let run = script(&scratch, "backup", &["--previous", "latest", "first"]).exits(0);
    assert!(
        run.stderr.contains("latest: there is no such backup, so everything is copied"),
        "{}",
        run.stderr
    );
    emit(&scratch, (40..60).map(|it| format!("m{it}"))).exits(0);
    script(&scratch, "backup", &["--previous", "first", "second"]).exits(0);
    let file = "milestones.00000000000000000000.jsonl";
    let inode = |backup: &str| fs::metadata(scratch.dir().join(backup).join(file)).unwrap().ino();
    assert_eq!(inode("first"), inode("second"));
    assert_eq!(ids(&scratch.dir().join("second")).len(), 60);
    holds(&scratch, "first");
}

#[test]
fn a_new_folder_with_nothing_in_it_is_backed_up_too() {
    let scratch = Scratch::new();
    assert_eq!(backup(&scratch, "saved")["head"], "");
    script(&scratch, "restore", &["--logs", "again", "saved"]).exits(0);
    holds(&scratch, "again");
}

#[test]
fn a_backup_may_be_called_anything_but_lies_outside() {
    let scratch = Scratch::new();
    emit(&scratch, ["a".to_owned()]).exits(0);
    let name = "it's \"saved\" \\ here";
    let saved = backup(&scratch, name);
    assert_eq!(saved["backup"], scratch.dir().join(name).to_str().unwrap());
    let back = script(&scratch, "restore", &["--logs", "a \"new\" one", name]).exits(0);
    assert_eq!(back.results()[0]["logs"], scratch.dir().join("a \"new\" one").to_str().unwrap());
    // It would be copied by each later one.
    let inside = script(&scratch, "backup", &["logs/saved"]).exits(64);
    assert!(inside.stderr.contains("lies in the logs folder"), "{}", inside.stderr);
    assert!(!scratch.log("saved").exists());
}

#[test]
fn what_a_dead_writer_left_is_in_the_backup_and_settled_after_it_came_back() {
    let scratch = Scratch::new();
    emit(&scratch, ["a".to_owned()]).exits(0);
    let mut journal = fs::OpenOptions::new().append(true).open(scratch.log("milestones.jsonl")).unwrap();
    let whole = milestone("whole").to_string();
    std::io::Write::write_all(&mut journal, format!("{whole}\n{{\"mile").as_bytes()).unwrap();
    backup(&scratch, "saved");
    script(&scratch, "restore", &["--logs", "again", "saved"]).exits(0);
    let run = scratch.feed("milestone-emit", &["--logs", "again"], whole.as_bytes()).exits(0);
    assert_eq!(run.all("status"), ["duplicate"]);
    holds(&scratch, "again");
}

#[test]
fn less_than_was_acknowledged_does_not_come_back_without_being_told() {
    let scratch = Scratch::new();
    let receiver = Receiver::start();
    emit(&scratch, ["a".to_owned()]).exits(0);
    let saved = backup(&scratch, "saved");
    assert_eq!(script(&scratch, "restore", &["--dry-run", "saved"]).exits(0).results()[0]["lacks"], 0);
    emit(&scratch, ["b".to_owned()]).exits(0);
    scratch.run("milestone-queue", &[]).exits(0);
    deliver(&scratch, &receiver).exits(0);
    let head = scratch.run("audit-tail", &["--head"]).exits(0).stdout.trim().to_owned();

    let refused = script(&scratch, "restore", &["saved"]).exits(2);
    assert!(refused.stderr.contains("does not have milestones.jsonl from offset "), "{}", refused.stderr);
    assert!(refused.stderr.contains("--less"), "{}", refused.stderr);
    assert_eq!(ids(&scratch.log("")).len(), 2, "nothing was done");
    // Elsewhere it depends on what is known of it.
    script(&scratch, "restore", &["--logs", "new", "--expect", &head, "saved"]).exits(2);
    let expected = saved["head"].as_str().unwrap();
    script(&scratch, "restore", &["--logs", "new", "--expect", expected, "saved"]).exits(0);

    // A tool at work.
    let mut watch = scratch.command("milestone-queue").args(["--watch", "-q"]).spawn().unwrap();
    emit(&scratch, ["c".to_owned()]).exits(0);
    wait_until(|| scratch.records("milestone-delivery-queue").len() == 3);
    let refused = script(&scratch, "restore", &["--less", "saved"]).exits(75);
    assert!(refused.stderr.contains("a tool is at work"), "{}", refused.stderr);
    watch.kill().unwrap();
    watch.wait().unwrap();

    fs::set_permissions(scratch.log(""), fs::Permissions::from_mode(0o2775)).unwrap();
    let run = script(&scratch, "restore", &["--less", "saved"]).exits(0);
    let mode = fs::metadata(scratch.log("")).unwrap().permissions().mode();
    assert_eq!(mode & 0o7777, 0o2775, "who was given a look into it has it still");
    assert_eq!(ids(&scratch.log("")), ["a".to_owned()].into());
    assert!(run.stderr.contains("what was there is in "), "{}", run.stderr);
    let aside = run.stderr.rsplit(' ').next().unwrap().trim();
    assert_eq!(ids(Path::new(aside)).len(), 3);
    // What went out before is known to the receiver.
    scratch.run("milestone-queue", &[]).exits(0);
    let again = deliver(&scratch, &receiver).exits(0);
    assert_eq!(again.all("duplicate"), [1]);
    holds(&scratch, "logs");
}

#[test]
fn a_receiver_does_not_come_back_without_what_its_senders_have_receipts_of() {
    let scratch = Scratch::new();
    let receiver = Receiver::start();
    let receipt_of = |id: &str| {
        emit(&scratch, [id.to_owned()]).exits(0);
        scratch.run("milestone-queue", &[]).exits(0);
        deliver(&scratch, &receiver).exits(0);
        let audit = scratch.records("audit");
        let receipt = &audit.iter().rfind(|it| it["outcome"] == "acknowledged").unwrap()["detail"]["receipt"];
        format!("{}:{}", receipt["seq"], receipt["head"].as_str().unwrap())
    };
    let first = receipt_of("a");
    backup(&receiver.scratch, "saved");
    let second = receipt_of("b");
    let restore = |receipt: &str| {
        script(&receiver.scratch, "restore", &["--dry-run", "--logs", "new", "--receipt", receipt, "saved"])
    };
    restore(&first).exits(0);
    assert!(restore(&second).exits(2).stderr.contains(&format!("does not have the receipt {second}")));
}

#[test]
fn a_damaged_backup_does_not_come_back() {
    let scratch = Scratch::new();
    emit(&scratch, (0..3).map(|it| format!("m{it}"))).exits(0);
    backup(&scratch, "saved");
    let file = scratch.dir().join("saved/milestones.jsonl");
    let text = fs::read_to_string(&file).unwrap();
    fs::write(&file, text.replacen("nightly", "Nightly", 1)).unwrap();
    let run = script(&scratch, "restore", &["--less", "--logs", "new", "saved"]).exits(65);
    assert!(run.stderr.contains("is damaged"), "{}", run.stderr);
    // Also when its sums fit: then the audit tells.
    let sums = "sha256sum $(cut -c67- SHA256SUMS) >sums; mv sums SHA256SUMS";
    let mut shell = Command::new("sh");
    shell.args(["-c", sums]).current_dir(scratch.dir().join("saved")).stdout(Stdio::null());
    assert!(shell.status().unwrap().success());
    script(&scratch, "restore", &["--less", "--logs", "new", "saved"]).exits(65);
    assert!(!fs::exists(scratch.dir().join("new")).unwrap());
}

#[test]
fn a_restore_that_is_killed_is_begun_again() {
    let scratch = Scratch::new();
    emit(&scratch, (0..3).map(|it| format!("m{it}"))).exits(0);
    backup(&scratch, "saved");
    // Between the two renames is the one moment without a folder.
    let count = scratch.dir().join("count");
    let shim = format!(
        "#!/bin/sh\nif [ -e {0} ]; then kill -9 0; fi\n: >{0}\nexec /bin/mv \"$@\"\n",
        count.display()
    );
    let shim = scratch.write("mv", shim);
    Command::new("chmod").arg("+x").arg(&shim).status().unwrap();
    let path = format!("{}:{}", scratch.dir().display(), milepost_testing::path_to_tools());
    let mut killed = scratch.script(milepost_testing::root().join("scripts/restore"));
    let run = Run::of(killed.arg("saved").env("PATH", path).process_group(0).spawn().unwrap());
    assert_ne!(run.code, 0, "{run:?}");
    assert!(!fs::exists(scratch.log("")).unwrap());
    script(&scratch, "restore", &["saved"]).exits(0);
    assert_eq!(ids(&scratch.log("")).len(), 3);
    holds(&scratch, "logs");
}
