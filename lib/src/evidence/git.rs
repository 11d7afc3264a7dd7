//! Is this commit in that repository? One `git cat-file` a repository answers for all events.
//!
//! # Invariants
//! - A repository is data of others: git is told nothing of it on the command line but where it is, starts
//!   no program that its configuration names, fetches nothing and asks nobody.
//! - A question is one short line of harmless characters, so it cannot be taken for two; no more are asked
//!   at once than fit into a pipe.
//! - Every answer is waited for at most [`ANSWER_TIMEOUT`]; a repository that failed is not asked again.
//! - No more than [`REPOSITORIES_MAX`] children; each is killed and reaped before it is forgotten.
//!
//! `safe.directory` stays git's own decision: it is left to find the repository by itself.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    fs::File,
    io::{self, Read, Seek, Write},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    time::Duration,
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fs::{MemfdFlags, memfd_create},
    io::Errno,
};

use super::Verified;
use crate::text;

/// Far longer than git takes for one object, even on a cold disk.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// How many repositories are asked in turn without starting git anew.
const REPOSITORIES_MAX: usize = 8;
/// Longer than any name of a commit.
const REF_BYTES_MAX: usize = 250;
/// What every pipe takes without blocking: one page, for a user who has used up what there is for pipes.
const PIPE_BYTES_MIN: usize = 4096;

const NO_GIT: &str =
    "commits were not checked, since there is no git program; install git or use --verify-evidence off";

/// What would make git look at another repository than the one that it is sent to; the list is that of
/// `git rev-parse --local-env-vars`, without the user's own configuration.
const MISLEADING: [&str; 12] = [
    "GIT_ALTERNATE_OBJECT_DIRECTORIES",
    "GIT_COMMON_DIR",
    "GIT_CONFIG",
    "GIT_DIR",
    "GIT_GRAFT_FILE",
    "GIT_IMPLICIT_WORK_TREE",
    "GIT_INDEX_FILE",
    "GIT_OBJECT_DIRECTORY",
    "GIT_PREFIX",
    "GIT_REPLACE_REF_BASE",
    "GIT_SHALLOW_FILE",
    "GIT_WORK_TREE",
];

/// The repositories that are being asked, the last asked at the end.
#[derive(Debug, Default)]
pub(super) struct Git {
    repositories: VecDeque<Repository>,
}

#[derive(Debug)]
struct Repository {
    folder: PathBuf,
    /// The child that answers, or why there is none.
    child: Result<Asked, String>,
}

/// A running `git cat-file --batch-check`.
#[derive(Debug)]
struct Asked {
    child: Child,
    questions: ChildStdin,
    answers: ChildStdout,
    /// Where git complains. A pipe could fill up and block it.
    complaints: File,
}

/// Is the commit `name` in the repository at `path`, or in the one that `path` is in?
#[derive(Debug)]
pub(super) struct Question {
    pub(super) path: PathBuf,
    pub(super) name: String,
}

/// A repository's folder without links, and whether the path that led there exists.
type Found = Option<(PathBuf, bool)>;

impl Git {
    /// Answers all questions, in their order. One at a time would cost a change of process each.
    pub(super) fn check(&mut self, questions: &[Question]) -> Vec<Verified> {
        let mut found: HashMap<&Path, Found> = HashMap::new();
        let mut answers = vec![Ok(()); questions.len()];
        let mut asked: BTreeMap<PathBuf, Vec<(usize, bool)>> = BTreeMap::new();
        for (at, question) in questions.iter().enumerate() {
            if !is_name(&question.name) {
                answers[at] =
                    Err(("ref", format!("{} is no name of a commit", text::quoted(&question.name))));
                continue;
            }
            let path = question.path.as_path();
            match found.entry(path).or_insert_with(|| repository_of(path)) {
                Some((folder, exists)) => asked.entry(folder.clone()).or_default().push((at, *exists)),
                None => answers[at] = Err(("path", "is in no git repository".to_owned())),
            }
        }
        for (folder, places) in asked {
            let names: Vec<&str> = places.iter().map(|(at, _)| questions[*at].name.as_str()).collect();
            let said = self.repository(folder).ask(&names);
            for ((at, exists), said) in places.into_iter().zip(said) {
                answers[at] = verdict(&questions[at].name, exists, said);
            }
        }
        answers
    }

    /// The repository in `folder`, with git started.
    fn repository(&mut self, folder: PathBuf) -> &mut Repository {
        let known = self.repositories.iter().position(|it| it.folder == folder);
        let repository = known.and_then(|at| self.repositories.remove(at)).unwrap_or_else(|| {
            let child = Asked::start(&folder);
            Repository { folder, child }
        });
        if self.repositories.len() >= REPOSITORIES_MAX {
            self.repositories.pop_front();
        }
        self.repositories.push_back(repository);
        let last = self.repositories.len() - 1;
        &mut self.repositories[last]
    }
}

impl Repository {
    /// The types of the objects `names`, or why they are not known.
    fn ask(&mut self, names: &[&str]) -> Vec<Result<String, String>> {
        let mut answers = Vec::with_capacity(names.len());
        let mut rest = names;
        while let Ok(child) = &mut self.child
            && !rest.is_empty()
        {
            // Neither the questions nor the answers, which may repeat them, fill a pipe of one page: then
            // nobody waits for the other.
            let mut bytes = 0;
            let fits = rest.iter().take_while(|it| {
                bytes += it.len() + " ambiguous\n".len();
                bytes <= PIPE_BYTES_MIN
            });
            let (now, later) = rest.split_at(fits.count());
            match child.ask(now) {
                Ok(said) => answers.extend(said.into_iter().map(Ok)),
                Err(why) => {
                    self.child = Err(why);
                    break;
                }
            }
            rest = later;
        }
        if let Err(why) = &self.child {
            answers.resize(names.len(), Err(why.clone()));
        }
        answers
    }
}

impl Asked {
    fn start(folder: &Path) -> Result<Asked, String> {
        let cannot = |it: io::Error| match it.kind() {
            io::ErrorKind::NotFound => NO_GIT.to_owned(),
            _ => format!("not checked, since git cannot be run: {it}"),
        };
        let complaints = memfd_create(c"git-stderr", MemfdFlags::CLOEXEC).map_err(|it| cannot(it.into()))?;
        let complaints = File::from(complaints);
        let mut command = Command::new("git");
        command.arg("-C").arg(folder).arg("--no-pager").args(["-c", "core.fsmonitor=false"]);
        command.args(["cat-file", "--batch-check=%(objecttype)"]);
        for name in MISLEADING {
            command.env_remove(name);
        }
        command
            .env("LC_ALL", "C")
            .env("GIT_TERMINAL_PROMPT", "0")
            .env("GIT_OPTIONAL_LOCKS", "0")
            .env("GIT_NO_REPLACE_OBJECTS", "1")
            // A partial clone would fetch what it lacks, by a program that its configuration names; older
            // versions of git know only the second of the two.
            .env("GIT_NO_LAZY_FETCH", "1")
            .env("GIT_ALLOW_PROTOCOL", "none")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(complaints.try_clone().map_err(cannot)?);
        let mut child = command.spawn().map_err(cannot)?;
        match (child.stdin.take(), child.stdout.take()) {
            (Some(questions), Some(answers)) => Ok(Asked { child, questions, answers, complaints }),
            _ => Err("not checked, since git has no standard streams".to_owned()),
        }
    }

    /// Asks for the types of the objects `names`, few enough for one go.
    fn ask(&mut self, names: &[&str]) -> Result<Vec<String>, String> {
        match self.exchange(names) {
            Ok(answers) => Ok(answers),
            Err(cause) if cause.kind() == io::ErrorKind::TimedOut => {
                Err(format!("not checked, since git did not answer within {} s", ANSWER_TIMEOUT.as_secs()))
            }
            Err(cause) => Err(format!("not checked, since git failed: {}", self.complaint(&cause))),
        }
    }

    fn exchange(&mut self, names: &[&str]) -> io::Result<Vec<String>> {
        self.questions.write_all(names.iter().flat_map(|it| [it, "\n"]).collect::<String>().as_bytes())?;
        let mut answers = Vec::new();
        let mut buffer = [0; PIPE_BYTES_MIN];
        let mut lines = 0;
        while lines < names.len() {
            self.wait()?;
            let read = match self.answers.read(&mut buffer) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(read) => &buffer[..read],
                Err(cause) if cause.kind() == io::ErrorKind::Interrupted => continue,
                Err(cause) => return Err(cause),
            };
            answers.extend_from_slice(read);
            lines += read.split(|it| *it == b'\n').count() - 1;
        }
        if lines > names.len() {
            return Err(io::ErrorKind::InvalidData.into());
        }
        Ok(String::from_utf8_lossy(&answers).lines().map(str::to_owned).collect())
    }

    /// Waits until git answers, ends or takes too long.
    fn wait(&self) -> io::Result<()> {
        let most = Timespec::try_from(ANSWER_TIMEOUT).ok();
        let mut watched = [PollFd::new(&self.answers, PollFlags::IN)];
        loop {
            match poll(&mut watched, most.as_ref()) {
                Ok(0) => return Err(io::ErrorKind::TimedOut.into()),
                Ok(_) => return Ok(()),
                Err(Errno::INTR) => {}
                Err(cause) => return Err(cause.into()),
            }
        }
    }

    /// The first line of what git wrote to stderr.
    fn complaint(&mut self, cause: &io::Error) -> String {
        let mut said = Vec::new();
        // git writes through a copy of the same open file, so the position is at its end.
        let read =
            self.complaints.rewind().and_then(|()| (&self.complaints).take(4096).read_to_end(&mut said));
        let said = String::from_utf8_lossy(&said);
        match said.lines().next() {
            Some(line) if read.is_ok() => text::for_people(line).into_owned(),
            _ => cause.to_string(),
        }
    }
}

impl Drop for Asked {
    fn drop(&mut self) {
        // It has nothing to finish. Errors mean that it is gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Whether a text is the hash of a commit, whole or abbreviated, and not the path of a repository.
pub(super) fn is_hash(text: &str) -> bool {
    (7..=64).contains(&text.len()) && text.bytes().all(|it| it.is_ascii_hexdigit())
}

/// Whether git can take `name` only for the name of an object: an id or a reference, no expression.
fn is_name(name: &str) -> bool {
    let harmless = |it: u8| it.is_ascii_alphanumeric() || matches!(it, b'.' | b'_' | b'/' | b'-');
    (1..=REF_BYTES_MAX).contains(&name.len()) && name.bytes().all(harmless)
}

/// What git's answer about the object `name` means.
fn verdict(name: &str, path_exists: bool, said: Result<String, String>) -> Verified {
    // That there is no git is true of every commit and told once.
    let said = said.map_err(|why| (if why == NO_GIT { "" } else { "path" }, why))?;
    let name = text::quoted(name);
    match said.as_str() {
        "commit" => Ok(()),
        // A repository further up was asked only in case the path was in it once.
        _ if !path_exists => Err(("path", "there is no such repository, nor such a path in one".to_owned())),
        _ if said.ends_with(" missing") => Err(("ref", format!("has no commit {name}"))),
        _ if said.ends_with(" ambiguous") => Err(("ref", format!("has several objects {name}"))),
        kind => Err(("ref", format!("{name} is a {kind}, no commit"))),
    }
}

/// The repository that `path` is or lies in. A path that a later commit removed lies in the repository of
/// what is left of it.
fn repository_of(path: &Path) -> Found {
    let real = |it: &Path| if it.as_os_str().is_empty() { Path::new(".") } else { it }.canonicalize().ok();
    let (at, folder) = path.ancestors().enumerate().find_map(|(at, it)| Some((at, real(it)?)))?;
    folder.ancestors().find(|it| is_repository(it)).map(|it| (it.to_owned(), at == 0))
}

/// Whether there is a repository right in `folder`, with a work tree or bare.
fn is_repository(folder: &Path) -> bool {
    folder.join(".git").exists()
        || (folder.join("HEAD").is_file() && folder.join("objects").is_dir() && folder.join("refs").is_dir())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn run(folder: &Path, arguments: &[&str]) -> String {
        let mut command = Command::new("git");
        for name in MISLEADING {
            command.env_remove(name);
        }
        let output = command
            .arg("-C")
            .arg(folder)
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .args(["-c", "user.name=a", "-c", "user.email=a@example.org", "-c", "init.defaultBranch=main"])
            .args(arguments)
            .output()
            .unwrap();
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    /// A repository with one commit, and the commit's id.
    fn repository() -> (tempfile::TempDir, String) {
        repository_saying("first")
    }

    fn repository_saying(message: &str) -> (tempfile::TempDir, String) {
        let folder = tempfile::tempdir().unwrap();
        run(folder.path(), &["init", "--quiet"]);
        run(folder.path(), &["commit", "--quiet", "--allow-empty", "-m", message]);
        let commit = run(folder.path(), &["rev-parse", "HEAD"]);
        (folder, commit)
    }

    fn check(git: &mut Git, path: &Path, name: &str) -> String {
        let found = git.check(&[Question { path: path.to_owned(), name: name.to_owned() }]).remove(0);
        found.map_or_else(|(field, what)| format!("{field}: {what}"), |()| "verified".to_owned())
    }

    #[test]
    fn one_child_answers_for_a_repository_and_for_every_path_in_it() {
        let (folder, commit) = repository();
        let root = folder.path();
        std::fs::create_dir(root.join("src")).unwrap();
        std::fs::File::create(root.join("src/a.rs")).unwrap();
        let mut git = Git::default();
        for path in ["", "src", "src/a.rs", "src/gone/b.rs"] {
            assert_eq!(check(&mut git, &root.join(path), &commit), "verified", "{path:?}");
        }
        assert_eq!(check(&mut git, root, &commit[..10]), "verified");
        assert_eq!(check(&mut git, root, "main"), "verified");
        assert_eq!(git.repositories.len(), 1);
    }

    #[test]
    fn the_hash_of_a_commit_is_told_from_a_path() {
        for text in ["0123abc", "5dc283a7417b3d4214797afed657303aee1487cb", &"Ab".repeat(32)] {
            assert!(is_hash(text), "{text}");
        }
        for text in ["", ".", "0123ab", "repo/0123abc", "0123abg", &"a".repeat(65)] {
            assert!(!is_hash(text), "{text}");
        }
    }

    #[test]
    fn many_questions_are_answered_in_their_order() {
        let (folder, commit) = repository();
        let (other, other_commit) = repository_saying("other");
        let long = "x".repeat(REF_BYTES_MAX);
        let mut questions = Vec::new();
        for at in 0..1000 {
            let path = if at % 3 == 0 { other.path() } else { folder.path() };
            let name = [&commit, &other_commit, &long, "a b"][at % 4];
            questions.push(Question { path: path.to_owned(), name: name.to_owned() });
        }
        let mut git = Git::default();
        for (question, answer) in questions.iter().zip(git.check(&questions)) {
            let there = if question.path == other.path() { &other_commit } else { &commit };
            assert_eq!(answer.is_ok(), question.name == *there, "{question:?}: {answer:?}");
        }
    }

    #[test]
    fn a_bare_repository_is_one() {
        let (folder, commit) = repository();
        let bare = folder.path().join("bare.git");
        run(folder.path(), &["clone", "--quiet", "--bare", ".", "bare.git"]);
        let mut git = Git::default();
        assert_eq!(check(&mut git, &bare, &commit), "verified");
        assert_eq!(git.repositories[0].folder, bare.canonicalize().unwrap());
    }

    #[test]
    fn what_is_no_commit_there_is_told() {
        let (folder, commit) = repository();
        let root = folder.path();
        run(root, &["tag", "-a", "v1", "-m", "tag"]);
        let tree = run(root, &["rev-parse", "HEAD^{tree}"]);
        let mut git = Git::default();
        assert_eq!(
            check(&mut git, root, &"0".repeat(40)),
            format!("ref: has no commit \"{}\"", "0".repeat(40))
        );
        assert_eq!(check(&mut git, root, &tree), format!("ref: \"{tree}\" is a tree, no commit"));
        assert_eq!(check(&mut git, root, "v1"), "ref: \"v1\" is a tag, no commit");
        assert_eq!(
            check(&mut git, &root.join("gone"), &"0".repeat(40)),
            "path: there is no such repository, nor such a path in one"
        );
        assert_eq!(check(&mut git, root, &commit), "verified", "the child goes on after a no");
        for odd in ["", "a b", "HEAD\nHEAD", "HEAD^{tree}", ":/first", "@{u}", "é", &"a".repeat(300)] {
            let answer = check(&mut git, root, odd);
            assert!(answer.contains("is no name of a commit"), "{odd:?}: {answer}");
        }
        assert_eq!(check(&mut git, root, "--help"), "ref: has no commit \"--help\"");
    }

    #[test]
    fn outside_of_any_repository_git_is_not_started() {
        let mut git = Git::default();
        assert_eq!(check(&mut git, Path::new("/proc/self"), "main"), "path: is in no git repository");
        assert!(git.repositories.is_empty());
    }

    #[test]
    fn what_git_complains_of_is_told_and_it_is_not_asked_again() {
        let (folder, commit) = repository();
        std::fs::File::create(folder.path().join(".git/config")).unwrap().write_all(b"[broken").unwrap();
        let mut git = Git::default();
        let answer = check(&mut git, folder.path(), &commit);
        assert!(answer.starts_with("path: not checked, since git failed: fatal: bad config"), "{answer}");
        assert_eq!(check(&mut git, folder.path(), &commit), answer);
        assert!(git.repositories[0].child.is_err());
    }

    #[test]
    fn children_are_bounded() {
        let (folder, commit) = repository();
        let mut git = Git::default();
        for at in 0..=REPOSITORIES_MAX {
            let name = format!("copy{at}");
            run(folder.path(), &["clone", "--quiet", "--bare", ".", &name]);
            assert_eq!(check(&mut git, &folder.path().join(name), &commit), "verified");
        }
        assert_eq!(git.repositories.len(), REPOSITORIES_MAX);
        assert_eq!(check(&mut git, &folder.path().join("copy0"), &commit), "verified");
    }

    /// The repository of somebody else may name programs in its configuration.
    #[test]
    fn a_repository_cannot_make_git_run_a_program() {
        let (folder, commit) = repository();
        let root = folder.path();
        let trap = root.join("trap");
        let sprung = root.join("sprung");
        let script = format!("#!/bin/sh\ntouch {}\n", sprung.display());
        std::fs::File::create(&trap).unwrap().write_all(script.as_bytes()).unwrap();
        std::fs::set_permissions(&trap, std::fs::Permissions::from_mode(0o755)).unwrap();
        let trap = trap.to_str().unwrap();
        for (key, value) in [
            ("core.fsmonitor", trap),
            ("core.pager", trap),
            ("pager.cat-file", "true"),
            ("core.sshCommand", trap),
            ("core.askPass", trap),
            ("core.gitProxy", trap),
            ("alias.cat-file", &format!("!{trap}")),
            ("core.repositoryFormatVersion", "1"),
            ("extensions.partialClone", "origin"),
            ("remote.origin.url", root.to_str().unwrap()),
            ("remote.origin.promisor", "true"),
            ("remote.origin.uploadpack", trap),
            ("protocol.file.allow", "always"),
            ("protocol.ext.allow", "always"),
        ] {
            run(root, &["config", key, value]);
        }
        let gone = "1".repeat(40);
        let mut git = Git::default();
        assert_eq!(check(&mut git, root, &commit), "verified");
        assert_eq!(check(&mut git, root, &gone), format!("ref: has no commit \"{gone}\""));
        run(root, &["config", "remote.origin.url", &format!("ext::{trap}")]);
        assert_eq!(check(&mut Git::default(), root, &gone), format!("ref: has no commit \"{gone}\""));
        assert!(!sprung.exists());

        // The trap does work: git as it is springs it.
        let asked = Command::new("git").arg("-C").arg(root).args(["cat-file", "-t", &gone]).output().unwrap();
        assert!(!asked.status.success() && sprung.exists());
    }
}
