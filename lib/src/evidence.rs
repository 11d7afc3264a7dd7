//! Does the evidence of an event exist? What `--verify-evidence` asks.
//!
//! A doc, log, runbook or metric is there when it is a regular file, a commit when its repository has it;
//! issues and pull requests are taken as they are. A file without a `ref` is given one: its hash.
//!
//! # Invariants
//! - Nothing but regular files is opened, and of those no more is read than they held at first: a FIFO, a
//!   device or a file that grows for ever cannot make it hang. Links are followed.
//! - Memory does not grow with the number of events: files, repositories and warnings are bounded.
//! - It only reads, and it runs no program but git, which runs no other (`git`).
//!
//! Not here: what follows from a problem, a warning or a refusal (`milestone-emit`).

mod git;

use std::{
    collections::HashMap,
    fs::{File, Metadata, OpenOptions},
    io::{self, Read},
    os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt},
    path::{Component, Path, PathBuf},
};

use rustix::fs::OFlags;
use sha2::{Digest, Sha256};

use crate::{
    Error, Kind, Result,
    event::{Evidence, EvidenceType, MilestoneEvent},
    identity::hex,
    schema::FieldError,
    text,
};

/// Larger files are only looked for: hashing them would hold up the one who reports.
pub const HASHED_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// How many files' hashes are remembered.
const FILES_MAX: usize = 1024;
/// How many different warnings are kept.
const WARNINGS_MAX: usize = 100;

/// Checks evidence, many events after each other.
#[derive(Debug, Default)]
pub struct Verifier {
    root: Option<Root>,
    files: HashMap<PathBuf, (Stamp, String)>,
    git: git::Git,
}

/// The folder under which paths are recorded relative.
#[derive(Debug)]
struct Root {
    /// As it was given, made absolute.
    given: PathBuf,
    /// Without links.
    real: PathBuf,
}

/// What changes when a file's content does: device, inode, size, time of change.
type Stamp = (u64, u64, u64, i64, i64);

impl Verifier {
    /// A verifier for paths relative to `root`, or to the working folder.
    ///
    /// # Errors
    /// When `root` is no folder that can be entered.
    pub fn new(root: Option<&Path>) -> Result<Verifier> {
        let root = root.map(Root::new).transpose()?;
        Ok(Verifier { root, ..Verifier::default() })
    }

    /// Makes paths under the evidence root relative to it. Files and repositories only.
    pub fn make_relative(&self, event: &mut MilestoneEvent) {
        let Some(root) = &self.root else { return };
        for evidence in event.evidence.iter_mut().filter(|it| !is_elsewhere(it.kind)) {
            if let Some(path) = root.relative(Path::new(&evidence.path)) {
                evidence.path = path;
            }
        }
    }

    /// Checks the evidence of `events`, after [`Verifier::make_relative`], and gives each file without a
    /// `ref` its hash. Returns for each event what could not be verified; a message names the evidence
    /// itself, so that equal ones can be counted. Many events at a time are faster than one by one.
    pub fn check<'e>(
        &mut self,
        events: impl IntoIterator<Item = &'e mut MilestoneEvent>,
    ) -> Vec<Vec<FieldError>> {
        let mut events: Vec<_> = events.into_iter().collect();
        let mut problems = vec![Vec::new(); events.len()];
        let mut places = Vec::new();
        let mut questions = Vec::new();
        for (of, event) in events.iter_mut().enumerate() {
            self.make_relative(event);
            for (at, evidence) in event.evidence.iter_mut().enumerate() {
                let verified = match evidence.kind {
                    EvidenceType::Issue | EvidenceType::Pr => Ok(()),
                    EvidenceType::Doc | EvidenceType::Log | EvidenceType::Runbook | EvidenceType::Metric => {
                        self.check_file(evidence)
                    }
                    EvidenceType::Commit => match &evidence.reference {
                        // The commit itself, written where a file's path stands: of the repository we are in.
                        None if git::is_hash(&evidence.path) => {
                            places.push((of, at));
                            questions.push(git::Question {
                                path: self.resolved("."),
                                name: evidence.path.clone(),
                            });
                            Ok(())
                        }
                        None => Err(("ref", "has no ref that names the commit".to_owned())),
                        Some(name) => {
                            places.push((of, at));
                            questions.push(git::Question {
                                path: self.resolved(&evidence.path),
                                name: name.clone(),
                            });
                            Ok(())
                        }
                    },
                };
                note(verified, at, evidence, &mut problems[of]);
            }
        }
        for ((of, at), verified) in places.into_iter().zip(self.git.check(&questions)) {
            note(verified, at, &events[of].evidence[at], &mut problems[of]);
        }
        let in_order = |mut found: Vec<(usize, FieldError)>| {
            found.sort_by_key(|(at, _)| *at);
            found.into_iter().map(|(_, problem)| problem).collect()
        };
        problems.into_iter().map(in_order).collect()
    }

    fn check_file(&mut self, evidence: &mut Evidence) -> Verified {
        let path = self.resolved(&evidence.path);
        let hash = self.hash(&path).map_err(|it| ("path", it))?;
        let Some(hash) = hash else { return Ok(()) };
        match &evidence.reference {
            None => evidence.reference = Some(hash),
            Some(given) if !given.starts_with("sha256:") || given.eq_ignore_ascii_case(&hash) => {}
            Some(given) => {
                return Err((
                    "ref",
                    format!("is another file than ref says: it is {hash}, not {}", text::quoted(given)),
                ));
            }
        }
        Ok(())
    }

    fn resolved(&self, path: &str) -> PathBuf {
        match &self.root {
            Some(root) => root.real.join(path),
            None => PathBuf::from(path),
        }
    }

    /// `sha256:<hex>` of a regular file, nothing of one that is too large, or why it is no evidence.
    fn hash(&mut self, path: &Path) -> Result<Option<String>, String> {
        // Opening a device can do things (a watchdog starts), so it is looked at first.
        let before = std::fs::metadata(path).map_err(|it| unreadable(&it))?;
        check_regular(&before)?;
        if before.len() > HASHED_BYTES_MAX {
            return Ok(None);
        }
        if let Some((stamp, hash)) = self.files.get(path)
            && *stamp == stamp_of(&before)
        {
            return Ok(Some(hash.clone()));
        }
        let nonblocking = i32::try_from((OFlags::NONBLOCK | OFlags::NOCTTY).bits()).unwrap_or(0);
        let file = OpenOptions::new().read(true).custom_flags(nonblocking).open(path);
        let file = file.map_err(|it| unreadable(&it))?;
        // What was opened may be another file than what was looked at.
        let opened = file.metadata().map_err(|it| unreadable(&it))?;
        check_regular(&opened)?;
        if opened.len() > HASHED_BYTES_MAX {
            return Ok(None);
        }
        let hash = hash_of(&file, opened.len()).map_err(|it| unreadable(&it))?;
        if self.files.len() >= FILES_MAX {
            self.files.clear();
        }
        self.files.insert(path.to_owned(), (stamp_of(&opened), hash.clone()));
        Ok(Some(hash))
    }
}

/// Nothing, or the field that is wrong and what is wrong with it. Without a field it is no evidence's own
/// fault, and the words stand alone.
type Verified = Result<(), (&'static str, String)>;

/// Keeps what is wrong with the evidence at `at`, in words for people.
fn note(verified: Verified, at: usize, evidence: &Evidence, problems: &mut Vec<(usize, FieldError)>) {
    let Err((field, what)) = verified else { return };
    let problem = if field.is_empty() {
        FieldError::new(format!("/evidence/{at}"), what)
    } else {
        let shown = format!("{} {}: {what}", evidence.kind.as_str(), text::quoted(&evidence.path));
        FieldError::new(format!("/evidence/{at}/{field}"), shown)
    };
    problems.push((at, problem));
}

impl Root {
    fn new(given: &Path) -> Result<Root> {
        let open = |it| Error::io("cannot use as evidence root", given, it);
        let real = given.canonicalize().map_err(open)?;
        if !real.is_dir() {
            return Err(Error::new(Kind::NoInput, given.display(), "is no folder")
                .cure("name one with --evidence-root"));
        }
        Ok(Root { given: std::path::absolute(given).map_err(open)?, real })
    }

    /// `path` relative to this folder, if it is an absolute path under it.
    fn relative(&self, path: &Path) -> Option<String> {
        if !path.is_absolute() {
            return None;
        }
        let under = path.strip_prefix(&self.given).or_else(|_| path.strip_prefix(&self.real)).ok()?;
        if under.components().any(|it| it == Component::ParentDir) {
            return None;
        }
        let under = under.to_str()?;
        Some(if under.is_empty() { "." } else { under }.to_owned())
    }
}

/// Whether the path of such evidence is no path of this machine.
fn is_elsewhere(kind: EvidenceType) -> bool {
    matches!(kind, EvidenceType::Issue | EvidenceType::Pr)
}

fn check_regular(found: &Metadata) -> Result<(), String> {
    let kind = found.file_type();
    let name = match kind {
        _ if kind.is_file() => return Ok(()),
        _ if kind.is_dir() => "a folder",
        _ if kind.is_fifo() => "a FIFO",
        _ if kind.is_socket() => "a socket",
        _ => "a device",
    };
    Err(format!("is {name}, no regular file"))
}

fn unreadable(cause: &io::Error) -> String {
    match cause.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => "there is no such file".to_owned(),
        _ => format!("cannot be read: {cause}"),
    }
}

fn stamp_of(file: &Metadata) -> Stamp {
    (file.dev(), file.ino(), file.len(), file.ctime(), file.ctime_nsec())
}

/// The hash of the first `bytes` of `file`.
fn hash_of(file: &File, bytes: u64) -> io::Result<String> {
    let mut rest = file.take(bytes);
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 64 * 1024];
    loop {
        match rest.read(&mut buffer) {
            Ok(0) => return Ok(format!("sha256:{}", hex(&hash.finalize()))),
            Ok(read) => hash.update(&buffer[..read]),
            Err(cause) if cause.kind() == io::ErrorKind::Interrupted => {}
            Err(cause) => return Err(cause),
        }
    }
}

/// Warnings, each told once with how often it was given.
#[derive(Debug, Default)]
pub struct Warnings {
    /// In the order in which they came first.
    counted: Vec<(String, u64)>,
    places: HashMap<String, usize>,
    more: u64,
}

impl Warnings {
    /// Counts one more of `message`.
    pub fn add(&mut self, message: &str) {
        if let Some(at) = self.places.get(message) {
            self.counted[*at].1 += 1;
        } else if self.counted.len() < WARNINGS_MAX {
            self.places.insert(message.to_owned(), self.counted.len());
            self.counted.push((message.to_owned(), 1));
        } else {
            self.more += 1;
        }
    }

    /// What to tell: `message`, or `message (×3)`, and at the end how many others there were.
    pub fn lines(&self) -> impl Iterator<Item = String> {
        let told = self.counted.iter().map(|(message, times)| match times {
            1 => message.clone(),
            times => format!("{message} (×{times})"),
        });
        told.chain((self.more > 0).then(|| format!("and {} other warnings", self.more)))
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.counted.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use serde_json::json;

    use super::*;
    use crate::event::Defaults;

    const HELLO: &str = "sha256:2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824";

    fn write(path: &Path, content: &str) {
        File::create(path).unwrap().write_all(content.as_bytes()).unwrap();
    }

    fn event(evidence: &[(&str, &str, &str)]) -> MilestoneEvent {
        let evidence: Vec<_> = evidence
            .iter()
            .map(|(kind, path, reference)| json!({"type": kind, "path": path, "summary": "s", "ref": reference}))
            .collect();
        let event = json!({
            "milestoneId": "a", "timestampUtc": "2026-03-01T09:05:00.000Z", "scope": "s", "claim": "c",
            "evidence": evidence, "riskStatus": "on-track", "nextAction": "n"
        });
        MilestoneEvent::from_value(event, &Defaults::JSON).unwrap().0
    }

    fn check(verifier: &mut Verifier, event: &mut MilestoneEvent) -> Vec<FieldError> {
        verifier.check(std::slice::from_mut(event)).remove(0)
    }

    /// What is wrong with one evidence under `root`.
    fn problem(root: &Path, kind: &str, path: &str, reference: &str) -> Option<String> {
        let mut event = event(&[(kind, path, reference)]);
        let problems = check(&mut Verifier::new(Some(root)).unwrap(), &mut event);
        problems.first().map(ToString::to_string)
    }

    #[test]
    fn a_file_is_given_its_hash_and_a_hash_is_compared() {
        let folder = tempfile::tempdir().unwrap();
        write(&folder.path().join("a.log"), "hello");
        let mut verifier = Verifier::new(Some(folder.path())).unwrap();
        let upper = HELLO.replace("2cf", "2CF");
        let mut event = event(&[("log", "a.log", ""), ("doc", "a.log", &upper), ("runbook", "a.log", "v2")]);
        assert_eq!(check(&mut verifier, &mut event), []);
        assert_eq!(event.evidence[0].reference.as_deref(), Some(HELLO));
        assert_eq!(event.evidence[1].reference, Some(upper));
        assert_eq!(event.evidence[2].reference.as_deref(), Some("v2"));

        write(&folder.path().join("a.log"), "changed");
        let problems = check(&mut verifier, &mut event);
        assert_eq!(problems.len(), 2);
        assert_eq!(problems[0].path, "/evidence/0/ref");
        assert!(
            problems[0]
                .message
                .starts_with("log \"a.log\": is another file than ref says: it is sha256:d67e")
        );
        assert_eq!(verifier.files.len(), 1);
    }

    #[test]
    fn what_is_no_regular_file_is_no_evidence() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        std::fs::create_dir(root.join("folder")).unwrap();
        rustix::fs::mkfifoat(rustix::fs::CWD, root.join("fifo"), rustix::fs::Mode::RWXU).unwrap();
        std::os::unix::fs::symlink("fifo", root.join("link-to-fifo")).unwrap();
        std::os::unix::fs::symlink("nowhere", root.join("dangling")).unwrap();
        let problem = |path| problem(root, "metric", path, "").unwrap();
        assert_eq!(problem("folder"), "/evidence/0/path: metric \"folder\": is a folder, no regular file");
        assert_eq!(problem("fifo"), "/evidence/0/path: metric \"fifo\": is a FIFO, no regular file");
        assert_eq!(
            problem("link-to-fifo"),
            "/evidence/0/path: metric \"link-to-fifo\": is a FIFO, no regular file"
        );
        assert_eq!(
            problem("/dev/zero"),
            "/evidence/0/path: metric \"/dev/zero\": is a device, no regular file"
        );
        for gone in ["gone", "dangling", "gone/a", "/dev/null/a"] {
            assert_eq!(problem(gone), format!("/evidence/0/path: metric \"{gone}\": there is no such file"));
        }
        assert!(problem("a\u{0}b").contains("cannot be read"));
    }

    #[test]
    fn a_link_to_a_file_is_followed_and_a_large_file_only_looked_for() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        write(&root.join("a.log"), "hello");
        std::os::unix::fs::symlink("a.log", root.join("link")).unwrap();
        File::create(root.join("large")).unwrap().set_len(HASHED_BYTES_MAX + 1).unwrap();
        let mut event = event(&[("log", "link", ""), ("log", "large", ""), ("log", "large", HELLO)]);
        assert_eq!(check(&mut Verifier::new(Some(root)).unwrap(), &mut event), []);
        assert_eq!(event.evidence[0].reference.as_deref(), Some(HELLO));
        assert_eq!(event.evidence[1].reference, None);
    }

    #[test]
    fn paths_under_the_root_are_recorded_relative() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().canonicalize().unwrap();
        let given = folder.path().join("given");
        std::fs::create_dir(root.join("real")).unwrap();
        std::os::unix::fs::symlink("real", &given).unwrap();
        let under = |folder: &Path, rest: &str| format!("{}/{rest}", folder.display());
        let cases = [
            (under(&given, "a.log"), "a.log".to_owned()),
            (under(&root.join("real"), "b/a.log"), "b/a.log".to_owned()),
            (under(&given, "../a.log"), under(&given, "../a.log")),
            ("b/a.log".to_owned(), "b/a.log".to_owned()),
            ("/elsewhere/a.log".to_owned(), "/elsewhere/a.log".to_owned()),
        ];
        for (path, recorded) in cases {
            let mut event = event(&[("log", &path, ""), ("pr", &path, "")]);
            Verifier::new(Some(&given)).unwrap().make_relative(&mut event);
            assert_eq!(event.evidence[0].path, recorded);
            assert_eq!(event.evidence[1].path, path, "what is no file is left as it is");
        }
        let mut repository = event(&[("commit", given.to_str().unwrap(), "00")]);
        Verifier::new(Some(&given)).unwrap().make_relative(&mut repository);
        assert_eq!(repository.evidence[0].path, ".");
    }

    #[test]
    fn a_root_that_is_none_is_an_error() {
        let error = Verifier::new(Some(Path::new("/nowhere/at-all"))).unwrap_err();
        assert_eq!(error.kind(), Kind::NoInput);
        assert!(Verifier::new(Some(Path::new("/dev/null"))).is_err());
    }

    #[test]
    fn problems_of_one_event_come_in_the_order_of_its_evidence() {
        let folder = tempfile::tempdir().unwrap();
        let mut events = [
            event(&[("pr", "x", "")]),
            event(&[("commit", "/proc/self", "main"), ("log", "gone", ""), ("commit", "/proc/self", "")]),
        ];
        let problems = Verifier::new(Some(folder.path())).unwrap().check(&mut events);
        let told = |at: usize| problems[at].iter().map(ToString::to_string).collect::<Vec<_>>();
        assert!(told(0).is_empty());
        assert_eq!(
            told(1),
            [
                "/evidence/0/path: commit \"/proc/self\": is in no git repository",
                "/evidence/1/path: log \"gone\": there is no such file",
                "/evidence/2/ref: commit \"/proc/self\": has no ref that names the commit"
            ]
        );
    }

    #[test]
    fn issues_and_pull_requests_are_taken_as_they_are() {
        assert_eq!(problem(Path::new("/"), "issue", "https://example.org/7", ""), None);
        assert_eq!(problem(Path::new("/"), "pr", "gone", "7"), None);
    }

    #[test]
    fn equal_warnings_are_counted_and_many_bounded() {
        let mut warnings = Warnings::default();
        assert!(warnings.is_empty());
        for message in ["b", "a", "b", "b"] {
            warnings.add(message);
        }
        assert_eq!(warnings.lines().collect::<Vec<_>>(), ["b (×3)", "a"]);
        (0..1000).for_each(|it| warnings.add(&it.to_string()));
        assert_eq!(warnings.lines().count(), WARNINGS_MAX + 1);
        assert_eq!(warnings.lines().last().unwrap(), "and 902 other warnings");
    }
}
