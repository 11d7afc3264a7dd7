//! Secrets: where they come from and which bytes of them are keys.
//!
//! A secret comes from a file named by a flag, else from systemd's credentials folder, else from an
//! environment variable; the first one that is there decides. It never comes from the command line, which
//! everybody on the machine can read. An empty credential counts as none: it is what a unit has for a file that
//! is not there.
//!
//! # Invariants
//! - A [`Secret`] is valid: not blank, at most [`BYTES_MAX`] long, and what follows `whsec_` was decoded.
//! - Its text appears in no message and no `Debug` output, and is overwritten in memory when dropped.
//! - A secret that is there but cannot be used is an error, never a reason to try the next source.
//! - A process that holds a secret leaves no core dump, and other processes of its user cannot look into it.
//!
//! Not here: what is signed with it (`signing`).

use std::{
    env,
    ffi::OsString,
    fmt,
    fs::File,
    io::{self, Read},
    os::unix::{ffi::OsStringExt, fs::MetadataExt},
    path::{Path, PathBuf},
};

use data_encoding::BASE64;
use rustix::process::DumpableBehavior;
use zeroize::Zeroizing;

use crate::{Error, Kind, Result};

/// The longest secret, in bytes, its line end included. Longer is some other file by mistake.
pub const BYTES_MAX: usize = 4096;

/// The flag that permits a secret file that others can read.
pub const ALLOW_READABLE_FLAG: &str = "--allow-readable-secret";

/// A shared secret.
pub struct Secret {
    /// UTF-8, as it was found.
    text: Zeroizing<Vec<u8>>,
    /// The key of Standard Webhooks where it differs from the text: the bytes after `whsec_`.
    decoded: Option<Zeroizing<Vec<u8>>>,
    origin: Origin,
}

/// Where a secret was found. `Display` names it for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The file that a flag named. It may change while a service runs.
    File(PathBuf),
    /// A file in systemd's credentials folder. It changes only when the unit is restarted.
    Credential(PathBuf),
    /// An environment variable of this name.
    Variable(String),
}

/// The three places where one secret may stand.
#[derive(Clone, Copy, Debug)]
pub struct SecretSource<'a> {
    /// The flag whose value is a file, with its dashes; none where no flag exists.
    pub flag: Option<&'a str>,
    /// The file's name in `$CREDENTIALS_DIRECTORY`.
    pub credential: &'a str,
    /// The environment variable; none where the environment is not asked.
    pub variable: Option<&'a str>,
}

impl SecretSource<'static> {
    /// The secret that sender and receiver of milestones share.
    pub const WEBHOOK: SecretSource<'static> = SecretSource {
        flag: Some("--secret-file"),
        credential: "milestone-webhook-secret",
        variable: Some("CLAWDBOT_MILESTONE_WEBHOOK_SECRET"),
    };

    /// The secret before the present one, while secrets rotate.
    pub const WEBHOOK_PREVIOUS: SecretSource<'static> = SecretSource {
        flag: Some("--previous-secret-file"),
        credential: "milestone-webhook-secret-previous",
        variable: Some("CLAWDBOT_MILESTONE_WEBHOOK_SECRET_PREVIOUS"),
    };
}

impl SecretSource<'_> {
    /// The secret, which must be there. `file` is the flag's value; `allow_readable` permits a file that
    /// others can read. Call it again to read a changed file.
    ///
    /// # Errors
    /// [`Kind::Configuration`] when there is none, or one that is empty, too long, no UTF-8, readable by
    /// others, or ill-formed; the kind of the system call when a file that is there cannot be read.
    pub fn load(&self, file: Option<&Path>, allow_readable: bool) -> Result<Secret> {
        self.load_optional(file, allow_readable)?.ok_or_else(|| self.none())
    }

    /// The secret, if there is one.
    ///
    /// # Errors
    /// As [`SecretSource::load`], but that there may be none.
    pub fn load_optional(&self, file: Option<&Path>, allow_readable: bool) -> Result<Option<Secret>> {
        // Before it is read, so that there is no moment at which a crash would tell.
        keep_out_of_dumps()?;
        self.find(file, allow_readable, |name| env::var_os(name))
    }

    /// As [`SecretSource::load_optional`], in the environment that `variable` looks up.
    fn find(
        &self,
        file: Option<&Path>,
        allow_readable: bool,
        variable: impl Fn(&str) -> Option<OsString>,
    ) -> Result<Option<Secret>> {
        if let Some(path) = file {
            let opened = File::open(path).map_err(|it| self.cannot_open(path, it))?;
            if !allow_readable {
                refuse_readable_by_others(&opened, path)?;
            }
            return Secret::from_bytes(read(opened, path)?, Origin::File(path.to_owned())).map(Some);
        }
        // systemd sets the folder only for units that have credentials; an empty value names none.
        if let Some(folder) = variable("CREDENTIALS_DIRECTORY").filter(|it| !it.is_empty()) {
            let path = Path::new(&folder).join(self.credential);
            match File::open(&path) {
                Ok(opened) => {
                    let bytes = read(opened, &path)?;
                    // A unit that loads a credential from a file that may be absent gives it a line end instead
                    // (SetCredential=NAME:\n); nothing at all systemd does not take for a value.
                    if !bytes.is_empty() {
                        return Secret::from_bytes(bytes, Origin::Credential(path)).map(Some);
                    }
                }
                Err(cause) if cause.kind() == io::ErrorKind::NotFound => {}
                Err(cause) => return Err(unreadable(&path, cause)),
            }
        }
        let Some((name, value)) = self.variable.and_then(|name| Some((name, variable(name)?))) else {
            return Ok(None);
        };
        Secret::from_bytes(value.into_vec(), Origin::Variable(name.to_owned())).map(Some)
    }

    /// As [`unreadable`], unless somebody took the flag for that of the secret itself: that is not said again.
    fn cannot_open(&self, path: &Path, cause: io::Error) -> Error {
        if !path.as_os_str().as_encoded_bytes().starts_with(b"whsec_") {
            return unreadable(path, cause);
        }
        let what = "was given a secret, not a file that holds one";
        Error::new(Kind::Configuration, self.flag.unwrap_or(self.credential), what)
            .cure("whoever listed the processes has seen it: make a new one, and name its file")
    }

    fn none(&self) -> Error {
        let flag = self.flag.map(|it| format!("{it} FILE"));
        let credential = format!("the systemd credential {}", self.credential);
        let variable = self.variable.map(|it| format!("${it}"));
        let places: Vec<String> = flag.into_iter().chain([credential]).chain(variable).collect();
        Error::new(Kind::Configuration, self.credential, "no secret found")
            .cure(format!("give it by {}", places.join(", or ")))
    }
}

impl Secret {
    /// The secret that `bytes` hold exactly: no line end is removed.
    ///
    /// # Errors
    /// [`Kind::Configuration`] when it is blank, too long, no UTF-8, or `whsec_` without good base64.
    pub fn from_bytes(bytes: Vec<u8>, origin: Origin) -> Result<Secret> {
        let text = Zeroizing::new(bytes);
        let bad = |what: &str, cure: &str| Err(Error::new(Kind::Configuration, &origin, what).cure(cure));
        if text.len() > BYTES_MAX {
            return bad("the secret is longer than 4 KiB", "give only the secret");
        }
        let Ok(words) = std::str::from_utf8(&text) else {
            return bad("the secret is no UTF-8 text", "make one with: openssl rand -hex 32");
        };
        if crate::text::trim(words).is_empty() {
            return bad("the secret is empty", "make one with: openssl rand -hex 32");
        }
        let decoded = match words.strip_prefix("whsec_") {
            None => None,
            // The decoder's own error would tell something about the secret.
            Some(encoded) => match BASE64.decode(encoded.as_bytes()).map(Zeroizing::new) {
                Ok(key) if !key.is_empty() => Some(key),
                _ => {
                    return bad(
                        "the secret begins with whsec_, but what follows is no padded base64",
                        "make one with: echo whsec_$(openssl rand -base64 32)",
                    );
                }
            },
        };
        Ok(Secret { text, decoded, origin })
    }

    /// The key of `x-openclaw-signature`: the text as it is, `whsec_` included.
    pub fn text_key(&self) -> &[u8] {
        &self.text
    }

    /// The key of Standard Webhooks: the bytes encoded after `whsec_`, else the text.
    pub fn webhook_key(&self) -> &[u8] {
        self.decoded.as_ref().unwrap_or(&self.text)
    }

    /// Where it was found.
    pub fn origin(&self) -> &Origin {
        &self.origin
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Secret({})", self.origin)
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::File(path) | Origin::Credential(path) => path.display().fmt(f),
            Origin::Variable(name) => write!(f, "${name}"),
        }
    }
}

/// No core dump from here on, into a file or to whoever the kernel hands them; `RLIMIT_CORE` would stop only the
/// file. It also keeps `/proc/PID/mem` and `environ` from other processes of the same user.
fn keep_out_of_dumps() -> Result<()> {
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)
        .map_err(|it| Error::io("cannot keep secrets out of core dumps", Path::new("prctl"), it.into()))
}

fn refuse_readable_by_others(file: &File, path: &Path) -> Result<()> {
    // The open file is asked, not its name, behind which another file may stand by now.
    let metadata = file.metadata().map_err(|it| unreadable(path, it))?;
    let mode = metadata.mode() & 0o777;
    let by_others = mode & 0o007;
    // A folder is no secret whatever its mode; reading it will say so.
    if by_others == 0 || metadata.is_dir() {
        return Ok(());
    }
    let what = format!("everybody on this machine has access to this secret file (mode {mode:04o})");
    let cure = format!("chmod 640 {}, or allow it with {ALLOW_READABLE_FLAG}", path.display());
    Err(Error::new(Kind::Configuration, path.display(), what).cure(cure))
}

/// What the file holds, without one line end.
fn read(file: File, path: &Path) -> Result<Vec<u8>> {
    // Large enough at once: growing it would leave copies of the secret behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(BYTES_MAX + 2));
    file.take(BYTES_MAX as u64 + 1).read_to_end(&mut bytes).map_err(|it| unreadable(path, it))?;
    if bytes.len() <= BYTES_MAX && bytes.last() == Some(&b'\n') {
        bytes.pop();
        if bytes.last() == Some(&b'\r') {
            bytes.pop();
        }
    }
    Ok(std::mem::take(&mut *bytes))
}

/// A secret file that is missing or no file is a fault of the configuration; else errno decides.
fn unreadable(path: &Path, cause: io::Error) -> Error {
    let kind = match Kind::of_io(&cause) {
        Kind::NoInput | Kind::CannotCreate => Kind::Configuration,
        kind => kind,
    };
    let cure = match kind {
        Kind::Configuration => Some("name a file that holds the secret".to_owned()),
        Kind::Permission => Some(format!("let this user read it: chgrp and chmod 640 {}", path.display())),
        _ => None,
    };
    let error = Error::io("cannot read the secret", path, cause).kind_is(kind);
    match cure {
        Some(cure) => error.cure(cure),
        None => error,
    }
}

#[cfg(test)]
mod tests {
    use std::{fs::Permissions, io::Write, os::unix::fs::PermissionsExt};

    use super::*;

    const SOURCE: SecretSource<'static> = SecretSource::WEBHOOK;

    /// A folder with a file `name` that holds `bytes`.
    fn folder_with(name: &str, bytes: &[u8], mode: u32) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        let mut file = File::create_new(folder.path().join(name)).unwrap();
        file.write_all(bytes).unwrap();
        file.set_permissions(Permissions::from_mode(mode)).unwrap();
        folder
    }

    fn from_file(bytes: &[u8]) -> Result<Secret> {
        let folder = folder_with("s", bytes, 0o600);
        SOURCE.load(Some(&folder.path().join("s")), false)
    }

    fn secret(text: &str) -> Result<Secret> {
        Secret::from_bytes(text.as_bytes().to_vec(), Origin::Variable("S".to_owned()))
    }

    #[test]
    fn file_wins_over_credential_and_credential_over_variable() {
        let folder = folder_with(SOURCE.credential, b"from credential\n", 0o444);
        let file = folder_with("s", b"from file\n", 0o640);
        let file = file.path().join("s");
        let all = |name: &str| match name {
            "CREDENTIALS_DIRECTORY" => Some(folder.path().into()),
            "CLAWDBOT_MILESTONE_WEBHOOK_SECRET" => Some(OsString::from("from variable")),
            _ => None,
        };
        let found = SOURCE.find(Some(&file), false, all).unwrap().unwrap();
        assert_eq!(found.text_key(), b"from file");
        assert_eq!(found.origin(), &Origin::File(file));
        let found = SOURCE.find(None, false, all).unwrap().unwrap();
        assert_eq!(found.text_key(), b"from credential");
        assert!(matches!(found.origin(), Origin::Credential(_)));
        for folder in [None, Some(""), Some("/nonexistent")] {
            let found = SOURCE.find(None, false, |name| match name {
                "CREDENTIALS_DIRECTORY" => folder.map(OsString::from),
                _ => all(name),
            });
            let found = found.unwrap().unwrap();
            assert_eq!(found.text_key(), b"from variable");
            assert_eq!(found.origin().to_string(), "$CLAWDBOT_MILESTONE_WEBHOOK_SECRET");
        }
        assert!(SOURCE.find(None, false, |_| None).unwrap().is_none());
    }

    #[test]
    fn a_secret_given_in_place_of_its_file_is_not_said_again() {
        let error = SOURCE.load(Some(Path::new("whsec_aHVudGVyMg==")), false).unwrap_err();
        assert_eq!(error.kind(), Kind::Configuration);
        assert!(!error.to_string().contains("aHVudGVyMg"), "{error}");
        assert!(error.to_string().starts_with("--secret-file: was given a secret"), "{error}");
    }

    #[test]
    fn whoever_has_asked_for_a_secret_leaves_no_core_dump() {
        drop(from_file(b"secret\n").unwrap());
        let behavior = rustix::process::dumpable_behavior().unwrap();
        assert_eq!(behavior, DumpableBehavior::NotDumpable);
    }

    #[test]
    fn no_secret_is_a_fault_of_the_configuration_that_names_every_source() {
        let error = SOURCE.none();
        assert_eq!(error.kind(), Kind::Configuration);
        assert_eq!(
            error.to_string(),
            "milestone-webhook-secret: no secret found; give it by --secret-file FILE, or the systemd credential \
             milestone-webhook-secret, or $CLAWDBOT_MILESTONE_WEBHOOK_SECRET"
        );
        let audit_key = SecretSource { flag: None, credential: "milestone-audit-key", variable: None };
        assert!(
            audit_key.none().to_string().ends_with("give it by the systemd credential milestone-audit-key")
        );
    }

    #[test]
    fn one_line_end_of_a_file_is_removed_and_nothing_else() {
        let text = |bytes: &[u8]| from_file(bytes).unwrap().text_key().to_vec();
        assert_eq!(text(b"abc\n"), b"abc");
        assert_eq!(text(b"abc\r\n"), b"abc");
        assert_eq!(text(b"abc"), b"abc");
        assert_eq!(text(b"abc\r"), b"abc\r");
        assert_eq!(text(b" a b \n\n"), b" a b \n");
        assert_eq!(secret("abc\n").unwrap().text_key(), b"abc\n");
    }

    #[test]
    fn a_file_that_others_can_use_is_refused_unless_allowed() {
        for mode in [0o604, 0o602, 0o601, 0o644] {
            let folder = folder_with("s", b"abc", mode);
            let path = folder.path().join("s");
            let error = SOURCE.load(Some(&path), false).unwrap_err();
            assert_eq!(error.kind(), Kind::Configuration);
            assert_eq!(
                error.to_string(),
                format!(
                    "{0}: everybody on this machine has access to this secret file (mode {mode:04o}); \
                     chmod 640 {0}, or allow it with --allow-readable-secret",
                    path.display()
                )
            );
            assert!(SOURCE.load(Some(&path), true).is_ok());
        }
    }

    #[test]
    fn what_cannot_be_a_secret_is_refused_without_a_word_of_it() {
        let cases: [(&[u8], &str); 9] = [
            (b"", "the secret is empty"),
            (b"\n", "the secret is empty"),
            (b" \t\n\n", "the secret is empty"),
            (b"QQQ\xff", "no UTF-8"),
            (b"whsec_", "no padded base64"),
            (b"whsec_QQQ", "no padded base64"),
            (b"whsec_QQQ!", "no padded base64"),
            (b"whsec_QUJD QQQ=", "no padded base64"),
            (&[b'Q'; BYTES_MAX + 1], "longer than 4 KiB"),
        ];
        for (bytes, what) in cases {
            let folder = folder_with("s", bytes, 0o600);
            let error = SOURCE.load(Some(&folder.path().join("s")), false).unwrap_err();
            assert_eq!(error.kind(), Kind::Configuration);
            assert!(error.to_string().contains(what), "{error}");
            // The random name of the folder may hold anything.
            let said = format!("{error} {error:?}").replace(folder.path().to_str().unwrap(), "");
            assert!(!said.contains("QQ"), "{error}");
        }
        assert!(from_file(&[b'Q'; BYTES_MAX]).is_ok());
    }

    #[test]
    fn a_credential_of_nothing_but_a_line_end_is_none() {
        for bytes in [b"".as_slice(), b"\n", b"\r\n"] {
            let folder = folder_with(SOURCE.credential, bytes, 0o440);
            let find = |variable: Option<&str>| {
                SOURCE.find(None, false, |name| match name {
                    "CREDENTIALS_DIRECTORY" => Some(folder.path().into()),
                    _ => variable.map(OsString::from),
                })
            };
            assert!(find(None).unwrap().is_none());
            assert_eq!(find(Some("from variable")).unwrap().unwrap().text_key(), b"from variable");
        }
    }

    #[test]
    fn a_source_that_is_there_but_unusable_is_not_passed_over() {
        let folder = folder_with(SOURCE.credential, b" \n", 0o440);
        let find = |folder: &Path| {
            SOURCE.find(None, false, |name| match name {
                "CREDENTIALS_DIRECTORY" => Some(folder.into()),
                _ => Some("from variable".into()),
            })
        };
        assert!(find(folder.path()).unwrap_err().to_string().contains("the secret is empty"));
        // What should be the folder is a file.
        assert_eq!(find(&folder.path().join(SOURCE.credential)).unwrap_err().kind(), Kind::Configuration);
        let empty = SOURCE.find(None, false, |name| (name != "CREDENTIALS_DIRECTORY").then(OsString::new));
        assert_eq!(empty.unwrap_err().kind(), Kind::Configuration);
    }

    #[test]
    fn a_missing_file_is_named_and_a_folder_is_no_file() {
        let folder = folder_with("s", b"abc", 0o600);
        for path in [folder.path().join("absent"), folder.path().to_owned(), folder.path().join("s/x")] {
            let error = SOURCE.load(Some(&path), false).unwrap_err();
            assert_eq!(error.kind(), Kind::Configuration, "{error}");
            assert!(
                error.to_string().starts_with(&format!("{}: cannot read the secret: ", path.display())),
                "{error}"
            );
        }
    }

    #[test]
    fn a_whsec_secret_has_two_keys_and_another_has_one() {
        let it = secret("whsec_QUJDRA==").unwrap();
        assert_eq!((it.text_key(), it.webhook_key()), (&b"whsec_QUJDRA=="[..], &b"ABCD"[..]));
        let it = secret("QUJDRA==").unwrap();
        assert_eq!((it.text_key(), it.webhook_key()), (&b"QUJDRA=="[..], &b"QUJDRA=="[..]));
        assert_eq!(format!("{it:?}"), "Secret($S)");
    }
}
