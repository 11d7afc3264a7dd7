//! Where the receiver listens: addresses, Unix sockets, and sockets that systemd opened.
//!
//! # Invariants
//! - A Unix socket that another process serves is not taken from it; one that nobody serves is what a kill left,
//!   and is replaced. Ours is removed at the end.
//!
//! Not here: connections (`http`), who is answered at which door (`site`).

use std::{
    env, fmt, fs, io,
    net::{SocketAddr, TcpListener},
    os::unix::{
        fs::FileTypeExt,
        net::{UnixListener, UnixStream},
    },
    path::{Path, PathBuf},
    str::FromStr,
};

use listenfd::ListenFd;
use milepost::{Error, Kind, Result};

use crate::site::Door;

/// The name of a systemd socket (`FileDescriptorName=`) that is the operator's.
const ADMIN_NAME: &str = "admin";

/// Connections that may wait to be accepted; the kernel cuts it to its own limit. The 128 of the standard library
/// are few when thousands come at once, and whoever does not fit waits for seconds.
const BACKLOG: i32 = 4096;

/// A place to listen at, as the operator names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// An address and port.
    Tcp(SocketAddr),
    /// A Unix socket.
    Unix(PathBuf),
    /// Whatever systemd hands over.
    Systemd,
}

/// A socket that is listened at, and which door of the house that is.
#[derive(Debug)]
pub struct Listener {
    /// The socket.
    pub socket: Socket,
    /// What is answered there.
    pub door: Door,
    /// What clients call it.
    pub name: String,
    /// The file to remove at the end.
    file: Option<PathBuf>,
}

/// A socket that listens.
#[derive(Debug)]
pub enum Socket {
    /// For TCP.
    Tcp(TcpListener),
    /// In the file system.
    Unix(UnixListener),
}

impl FromStr for Place {
    type Err = String;

    fn from_str(text: &str) -> Result<Place, String> {
        if text == "systemd" {
            return Ok(Place::Systemd);
        }
        let path = text.strip_prefix("unix:").or_else(|| text.starts_with(['/', '.']).then_some(text));
        if let Some(path) = path.filter(|it| !it.is_empty()) {
            return Ok(Place::Unix(path.into()));
        }
        let with_name = text.strip_prefix("localhost:").map(|port| format!("127.0.0.1:{port}"));
        with_name.as_deref().unwrap_or(text).parse().map(Place::Tcp).map_err(|_| {
            "is no place to listen at: write 127.0.0.1:8787, [::1]:8787 or localhost:8787 (port 0 takes a free \
             one), the path of a Unix socket, or systemd"
                .into()
        })
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Tcp(address) => address.fmt(f),
            Place::Unix(path) => write!(f, "unix:{}", path.display()),
            Place::Systemd => f.write_str("systemd"),
        }
    }
}

/// Opens all sockets. Without any `places`, those of systemd, else the default address.
pub fn open(places: &[Place], admin: Option<&Place>) -> Result<Vec<Listener>> {
    let mut handed = Handed::take();
    let by_default =
        if handed.is_empty() { Place::Tcp(([127, 0, 0, 1], 8787).into()) } else { Place::Systemd };
    let places = if places.is_empty() { &[by_default] } else { places };
    let mut listeners = Vec::new();
    for place in places {
        match place {
            Place::Systemd => listeners.extend(handed.open()?),
            other => listeners.push(Listener::open(other, false)?),
        }
    }
    if let Some(place) = admin {
        listeners.push(Listener::open(place, true)?);
    }
    Ok(listeners)
}

impl Listener {
    fn open(place: &Place, is_admin: bool) -> Result<Listener> {
        let failed = |cause: io::Error| cannot_listen(place, cause);
        match place {
            Place::Tcp(address) => {
                Listener::of_tcp(TcpListener::bind(address).map_err(failed)?, is_admin).map_err(failed)
            }
            Place::Unix(path) => {
                let socket = bind_unix(path).map_err(failed)?;
                let mut listener = Listener::of_unix(socket, is_admin).map_err(failed)?;
                listener.file = Some(path.clone());
                Ok(listener)
            }
            Place::Systemd => Err(Error::new(
                Kind::Usage,
                "--admin-listen",
                "takes an address or a path; a socket of systemd is the operator's by its name",
            )
            .cure("set FileDescriptorName=admin in the socket unit")),
        }
    }

    fn of_tcp(socket: TcpListener, is_admin: bool) -> io::Result<Listener> {
        socket.set_nonblocking(true)?;
        rustix::net::listen(&socket, BACKLOG)?;
        let address = socket.local_addr()?;
        let is_loopback = address.ip().to_canonical().is_loopback();
        let name = format!("http://{address}");
        Ok(Listener {
            socket: Socket::Tcp(socket),
            door: Door::of_tcp(is_loopback, is_admin),
            name,
            file: None,
        })
    }

    fn of_unix(socket: UnixListener, is_admin: bool) -> io::Result<Listener> {
        socket.set_nonblocking(true)?;
        rustix::net::listen(&socket, BACKLOG)?;
        let address = socket.local_addr()?;
        let name = format!("unix:{}", address.as_pathname().unwrap_or(Path::new("?")).display());
        Ok(Listener { socket: Socket::Unix(socket), door: Door::of_unix(is_admin), name, file: None })
    }

    /// The file to remove when it is not listened at any more.
    pub fn file(&self) -> Option<PathBuf> {
        self.file.clone()
    }
}

/// The sockets that systemd opened for us.
struct Handed {
    sockets: ListenFd,
    names: Vec<String>,
}

impl Handed {
    fn take() -> Handed {
        let names = env::var("LISTEN_FDNAMES").unwrap_or_default();
        // It looks whether they are meant for this process.
        let sockets = ListenFd::from_env();
        Handed { sockets, names: names.split(':').map(str::to_owned).collect() }
    }

    fn is_empty(&self) -> bool {
        self.sockets.len() == 0
    }

    fn open(&mut self) -> Result<Vec<Listener>> {
        let failed = |cause: io::Error| {
            Error::new(Kind::Configuration, "systemd", "cannot use a socket that was handed over")
                .because(cause)
                .cure("use ListenStream= with an address or a path")
        };
        if self.is_empty() {
            return Err(Error::new(Kind::Configuration, "systemd", "handed over no socket")
                .cure("start the socket unit, or give --listen an address"));
        }
        let mut listeners = Vec::new();
        for at in 0..self.sockets.len() {
            let is_admin = self.names.get(at).is_some_and(|it| it == ADMIN_NAME);
            let listener = match self.sockets.take_tcp_listener(at) {
                Ok(Some(it)) => Listener::of_tcp(it, is_admin),
                // Taken before.
                Ok(None) => continue,
                Err(_) => match self.sockets.take_unix_listener(at) {
                    Ok(Some(it)) => Listener::of_unix(it, is_admin),
                    Ok(None) => continue,
                    Err(cause) => Err(cause),
                },
            };
            listeners.push(listener.map_err(failed)?);
        }
        Ok(listeners)
    }
}

fn bind_unix(path: &Path) -> io::Result<UnixListener> {
    match UnixListener::bind(path) {
        Err(cause) if cause.kind() == io::ErrorKind::AddrInUse => {
            let is_socket = fs::symlink_metadata(path)?.file_type().is_socket();
            // Somebody answers there, or it is a file of another kind.
            if !is_socket || UnixStream::connect(path).is_ok() {
                return Err(cause);
            }
            fs::remove_file(path)?;
            UnixListener::bind(path)
        }
        other => other,
    }
}

fn cannot_listen(place: &Place, cause: io::Error) -> Error {
    use io::ErrorKind as E;
    let (kind, cure) = match (cause.kind(), place) {
        (E::AddrInUse, Place::Unix(_)) => {
            (Kind::Unavailable, "another program listens there, or it is no socket; choose another path")
        }
        (E::AddrInUse, _) => (Kind::Unavailable, "another program listens there; choose another port"),
        (E::PermissionDenied, Place::Unix(_)) => (Kind::Permission, "its folder must be ours to write in"),
        (E::PermissionDenied, _) => {
            (Kind::Permission, "ports below 1024 need a privilege; choose a higher one")
        }
        (E::AddrNotAvailable, _) => (Kind::Configuration, "this machine has no such address"),
        (E::NotFound, Place::Unix(_)) => (Kind::Configuration, "its folder must be there"),
        _ => (Kind::Unavailable, "choose another --listen"),
    };
    Error::new(kind, place, "cannot listen").because(cause).cure(cure)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_an_address_a_path_or_systemd() {
        let place = |text: &str| text.parse::<Place>().unwrap();
        assert_eq!(place("localhost:80"), Place::Tcp(([127, 0, 0, 1], 80).into()));
        assert_eq!(place("[::1]:0").to_string(), "[::1]:0");
        assert_eq!(place("/run/a.sock"), place("unix:/run/a.sock"));
        assert_eq!(place("unix:a.sock"), Place::Unix("a.sock".into()));
        assert_eq!(place("systemd"), Place::Systemd);
        for no in ["", "somewhere", "127.0.0.1", ":80", "unix:", "example.org:80"] {
            assert!(no.parse::<Place>().is_err(), "{no}");
        }
    }

    #[test]
    fn a_socket_that_nobody_serves_is_replaced_and_another_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let place = Place::Unix(path.clone());
        let first = Listener::open(&place, false).unwrap();
        let error = Listener::open(&place, false).unwrap_err();
        assert_eq!(error.kind(), Kind::Unavailable);
        drop(first);
        Listener::open(&place, false).unwrap();
    }
}
