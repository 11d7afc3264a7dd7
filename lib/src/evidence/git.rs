//! Is this commit in that repository? One `git cat-file` a repository answers for all events.
//!
//! # Invariants
//! - A repository is data of others: git is told nothing of it on the command line but where it is, starts
//!   no program that its configuration names, fetches nothing and asks nobody.
//! - A question is one short line of harmless characters, so it can neither be taken for two nor block.
//! - Every answer is waited for at most [`ANSWER_TIMEOUT`]; a repository that failed is not asked again.
//! - No more than [`REPOSITORIES_MAX`] children; each is killed and reaped before it is forgotten.
//!
//! `safe.directory` stays git's own decision: it is left to find the repository by itself.

use std::{
    collections::VecDeque,
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
/// Longer than any name of a commit. A question stays well below what a pipe takes without blocking.
const REF_BYTES_MAX: usize = 250;

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

impl Git {
    /// Checks that the repository at `path`, or the one that `path` is in, has the commit `name`.
    pub(super) fn check(&mut self, path: &Path, name: &str) -> Verified {
        let harmless = |it: u8| it.is_ascii_alphanumeric() || matches!(it, b'.' | b'_' | b'/' | b'-');
        if name.is_empty() || name.len() > REF_BYTES_MAX || !name.bytes().all(harmless) {
            return Err(("ref", format!("{} is no name of a commit", text::quoted(name))));
        }
        let (folder, exists) =
            repository_of(path).ok_or_else(|| ("path", "is in no git repository".to_owned()))?;
        let repository = self.repository(folder);
        let answer = match &mut repository.child {
            Ok(child) => child.ask(name),
            Err(why) => Err(why.clone()),
        };
        match answer {
            Ok(answer) if answer == "commit" => Ok(()),
            // A repository further up was asked only in case the path was in it once.
            Ok(_) if !exists => {
                Err(("path", "there is no such repository, nor such a path in one".to_owned()))
            }
            Ok(answer) if answer.ends_with(" missing") => {
                Err(("ref", format!("has no commit {}", text::quoted(name))))
            }
            Ok(answer) if answer.ends_with(" ambiguous") => {
                Err(("ref", format!("has several objects {}", text::quoted(name))))
            }
            Ok(answer) => Err(("ref", format!("{} is a {answer}, no commit", text::quoted(name)))),
            Err(why) => {
                repository.child = Err(why.clone());
                Err(("path", why))
            }
        }
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

impl Asked {
    fn start(folder: &Path) -> Result<Asked, String> {
        let cannot = |it: io::Error| match it.kind() {
            io::ErrorKind::NotFound => {
                "not checked, since there is no git program; install git or use --verify-evidence off"
                    .to_owned()
            }
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

    /// Asks for the type of the object `name`.
    fn ask(&mut self, name: &str) -> Result<String, String> {
        match self.exchange(name) {
            Ok(answer) => Ok(answer),
            Err(cause) if cause.kind() == io::ErrorKind::TimedOut => {
                Err(format!("not checked, since git did not answer within {} s", ANSWER_TIMEOUT.as_secs()))
            }
            Err(cause) => Err(format!("not checked, since git failed: {}", self.complaint(&cause))),
        }
    }

    fn exchange(&mut self, name: &str) -> io::Result<String> {
        self.questions.write_all(format!("{name}\n").as_bytes())?;
        let mut answer = Vec::new();
        let mut buffer = [0; 512];
        while !answer.ends_with(b"\n") {
            self.wait()?;
            let read = match self.answers.read(&mut buffer) {
                Ok(read) => read,
                Err(cause) if cause.kind() == io::ErrorKind::Interrupted => continue,
                Err(cause) => return Err(cause),
            };
            if read == 0 || answer.len() > 2 * REF_BYTES_MAX {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            answer.extend_from_slice(&buffer[..read]);
        }
        Ok(String::from_utf8_lossy(&answer).trim_end().to_owned())
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

/// The folder of the repository that `path` is or lies in, without links, and whether `path` exists. A path
/// that a later commit removed lies in the repository of what is left of it.
fn repository_of(path: &Path) -> Option<(PathBuf, bool)> {
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
            .args(["-c", "user.name=a", "-c", "user.email=a@example.org", "-c", "init.defaultBranch=main"])
            .args(arguments)
            .output()
            .unwrap();
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    /// A repository with one commit, and the commit's id.
    fn repository() -> (tempfile::TempDir, String) {
        let folder = tempfile::tempdir().unwrap();
        run(folder.path(), &["init", "--quiet"]);
        run(folder.path(), &["commit", "--quiet", "--allow-empty", "-m", "first"]);
        let commit = run(folder.path(), &["rev-parse", "HEAD"]);
        (folder, commit)
    }

    fn said(found: Verified) -> String {
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
            assert_eq!(said(git.check(&root.join(path), &commit)), "verified", "{path:?}");
        }
        assert_eq!(said(git.check(root, &commit[..10])), "verified");
        assert_eq!(said(git.check(root, "main")), "verified");
        assert_eq!(git.repositories.len(), 1);
    }

    #[test]
    fn a_bare_repository_is_one() {
        let (folder, commit) = repository();
        let bare = folder.path().join("bare.git");
        run(folder.path(), &["clone", "--quiet", "--bare", ".", "bare.git"]);
        let mut git = Git::default();
        assert_eq!(said(git.check(&bare, &commit)), "verified");
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
            said(git.check(root, &"0".repeat(40))),
            format!("ref: has no commit \"{}\"", "0".repeat(40))
        );
        assert_eq!(said(git.check(root, &tree)), format!("ref: \"{tree}\" is a tree, no commit"));
        assert_eq!(said(git.check(root, "v1")), "ref: \"v1\" is a tag, no commit");
        assert_eq!(
            said(git.check(&root.join("gone"), &"0".repeat(40))),
            "path: there is no such repository, nor such a path in one"
        );
        assert_eq!(said(git.check(root, &commit)), "verified", "the child goes on after a no");
        for odd in ["", "a b", "HEAD\nHEAD", "HEAD^{tree}", ":/first", "@{u}", "é", &"a".repeat(300)] {
            let answer = said(git.check(root, odd));
            assert!(answer.contains("is no name of a commit"), "{odd:?}: {answer}");
        }
        assert_eq!(said(git.check(root, "--help")), "ref: has no commit \"--help\"");
    }

    #[test]
    fn outside_of_any_repository_git_is_not_started() {
        let mut git = Git::default();
        assert_eq!(said(git.check(Path::new("/proc/self"), "main")), "path: is in no git repository");
        assert!(git.repositories.is_empty());
    }

    #[test]
    fn what_git_complains_of_is_told_and_it_is_not_asked_again() {
        let (folder, commit) = repository();
        std::fs::File::create(folder.path().join(".git/config")).unwrap().write_all(b"[broken").unwrap();
        let mut git = Git::default();
        let answer = said(git.check(folder.path(), &commit));
        assert!(answer.starts_with("path: not checked, since git failed: fatal: bad config"), "{answer}");
        assert_eq!(said(git.check(folder.path(), &commit)), answer);
        assert!(git.repositories[0].child.is_err());
    }

    #[test]
    fn children_are_bounded() {
        let (folder, commit) = repository();
        let mut git = Git::default();
        for at in 0..=REPOSITORIES_MAX {
            let name = format!("copy{at}");
            run(folder.path(), &["clone", "--quiet", "--bare", ".", &name]);
            assert_eq!(said(git.check(&folder.path().join(name), &commit)), "verified");
        }
        assert_eq!(git.repositories.len(), REPOSITORIES_MAX);
        assert_eq!(said(git.check(&folder.path().join("copy0"), &commit)), "verified");
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
        assert_eq!(said(git.check(root, &commit)), "verified");
        assert_eq!(said(git.check(root, &gone)), format!("ref: has no commit \"{gone}\""));
        run(root, &["config", "remote.origin.url", &format!("ext::{trap}")]);
        assert_eq!(said(Git::default().check(root, &gone)), format!("ref: has no commit \"{gone}\""));
        assert!(!sprung.exists());

        // The trap does work: git as it is springs it.
        let asked = Command::new("git").arg("-C").arg(root).args(["cat-file", "-t", &gone]).output().unwrap();
        assert!(!asked.status.success() && sprung.exists());
    }
}
