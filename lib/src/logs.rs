//! The logs folder: where every journal, lock, index and state file is.
//!
//! # Invariants
//! - A tool never creates the folder itself: a cron job in the wrong folder must not acknowledge into a
//!   journal that nobody reads. Only [`Logs::init`] does, for `milestone-status --init`.
//! - A file given by a user is a plain name in this folder.
//!
//! Not here: what is in the files (`journal`, `state_file`, `index`).

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use crate::{
    Error, Kind, Result,
    durable::{self, Disk, RealDisk},
    text,
    units::Size,
};

/// Bytes after which a journal is rotated when nothing else is said.
pub const ROTATE_BYTES: u64 = 64 << 20;
/// How long a journal's lock is waited for: longer than any batch and its sync take.
pub const LOCK_WAIT: Duration = Duration::from_secs(30);

/// An opened logs folder, with what every use of it needs to know.
#[derive(Clone, Debug)]
pub struct Logs {
    dir: PathBuf,
    disk: Arc<dyn Disk>,
    tool: &'static str,
    rotate_bytes: u64,
    lock_wait: Duration,
}

impl Logs {
    /// Opens the folder from `--logs`, else `$MILESTONE_LOGS`, else `./logs`. `tool` signs the audit records.
    ///
    /// # Errors
    /// [`Kind::NoInput`] when there is no such folder.
    pub fn open(flag: Option<&Path>, tool: &'static str) -> Result<Logs> {
        let dir = Logs::choose(flag);
        match fs::metadata(&dir) {
            Ok(it) if it.is_dir() => {}
            Ok(_) => return Err(Error::new(Kind::NoInput, dir.display(), "is no folder").cure(HOW_TO_NAME)),
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => {
                return Err(Error::new(Kind::NoInput, dir.display(), "there is no such logs folder")
                    .cure(format!("{HOW_TO_NAME}, or create it with milestone-status --init")));
            }
            Err(cause) => return Err(Error::io("cannot open the logs folder", &dir, cause)),
        }
        Ok(Logs { dir, disk: Arc::new(RealDisk), tool, rotate_bytes: ROTATE_BYTES, lock_wait: LOCK_WAIT })
    }

    /// The folder that [`Logs::open`] would open.
    pub fn choose(flag: Option<&Path>) -> PathBuf {
        match (flag, std::env::var_os("MILESTONE_LOGS").filter(|it| !it.is_empty())) {
            (Some(dir), _) => dir.to_path_buf(),
            (None, Some(dir)) => dir.into(),
            (None, None) => PathBuf::from("logs"),
        }
    }

    /// Creates the folder (mode 2770) if it is absent; its parent must be there.
    pub fn init(flag: Option<&Path>, tool: &'static str) -> Result<Logs> {
        let dir = Logs::choose(flag);
        durable::ensure_dir(&RealDisk, &dir).map_err(|cause| match cause.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => {
                let what = "cannot create the logs folder: the folder that it would be in is not there";
                Error::new(Kind::CannotCreate, dir.display(), what)
                    .cure("create that one first, or name another")
            }
            _ => Error::io("cannot create the logs folder", &dir, cause),
        })?;
        Logs::open(Some(&dir), tool)
    }

    /// The same folder with another size at which journals are rotated, in bytes.
    #[must_use]
    pub fn rotate_at(mut self, bytes: u64) -> Logs {
        self.rotate_bytes = bytes.max(1);
        self
    }

    /// The same folder rotated as `--rotate-bytes` says, else `$MILESTONE_ROTATE_BYTES`, else at [`ROTATE_BYTES`].
    ///
    /// For tools that append: one that only reads must go on telling what is wrong while this setting is.
    ///
    /// # Errors
    /// [`Kind::Configuration`] when the variable is asked and is no size.
    pub fn rotate_as(self, flag: Option<Size>) -> Result<Logs> {
        const VARIABLE: &str = "MILESTONE_ROTATE_BYTES";
        let bytes = match (flag, std::env::var_os(VARIABLE).filter(|it| !it.is_empty())) {
            (Some(size), _) => size.bytes(),
            (None, Some(text)) => match text.to_string_lossy().parse::<Size>() {
                Ok(size) => size.bytes(),
                Err(why) => {
                    let place = format!("${VARIABLE} {}", text::quoted(&text.to_string_lossy()));
                    return Err(Error::new(Kind::Configuration, place, why));
                }
            },
            (None, None) => ROTATE_BYTES,
        };
        Ok(self.rotate_at(bytes))
    }

    /// The same folder with another bound on waiting for a lock.
    #[must_use]
    pub fn wait_at_most(mut self, wait: Duration) -> Logs {
        self.lock_wait = wait;
        self
    }

    /// The same folder on another disk, for tests that make it fail.
    #[must_use]
    pub fn on_disk(mut self, disk: Arc<dyn Disk>) -> Logs {
        self.disk = disk;
        self
    }

    /// The folder.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The disk it is on.
    pub fn disk(&self) -> &dyn Disk {
        &*self.disk
    }

    /// The tool that works here, as audit records name it.
    pub fn tool(&self) -> &'static str {
        self.tool
    }

    /// Bytes after which a journal is rotated.
    pub fn rotate_bytes(&self) -> u64 {
        self.rotate_bytes
    }

    /// How long a journal's lock is waited for.
    pub fn lock_wait(&self) -> Duration {
        self.lock_wait
    }

    /// The path of a file in the folder; its sub-folder is created when it is absent.
    pub fn place(&self, relative: &str) -> Result<PathBuf> {
        let path = self.dir.join(relative);
        if let Some(dir) = path.parent().filter(|it| *it != self.dir) {
            self.ensure_dir(dir)?;
        }
        Ok(path)
    }

    fn ensure_dir(&self, dir: &Path) -> Result<()> {
        if dir.is_dir() {
            return Ok(());
        }
        if let Some(parent) = dir.parent().filter(|it| *it != self.dir) {
            self.ensure_dir(parent)?;
        }
        durable::ensure_dir(self.disk(), dir).map_err(|it| Error::io("cannot create the folder", dir, it))
    }
}

const HOW_TO_NAME: &str = "name the folder with --logs or $MILESTONE_LOGS";
/// What is in a folder. Opening one may be interrupted, and the standard library tries again only with files.
pub fn entries(dir: &Path) -> io::Result<fs::ReadDir> {
    loop {
        match fs::read_dir(dir) {
            Err(cause) if cause.kind() == io::ErrorKind::Interrupted => {}
            other => return other,
        }
    }
}
