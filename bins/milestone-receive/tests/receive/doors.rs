//! Where it listens, and who is answered where.

use std::{
    io::{Read, Write},
    os::{
        fd::AsRawFd,
        unix::{net::UnixStream, process::CommandExt},
    },
    process::Command,
};

use serde_json::Value;

use crate::client::{Folder, Receiver, event, signed};

/// Asks over a Unix socket; the status line and what follows.
fn ask(path: &std::path::Path, request: &str) -> String {
    let mut stream = UnixStream::connect(path).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

const HEALTH: &str = "GET /healthz HTTP/1.1\r\nhost: feed.example\r\nconnection: close\r\n\r\n";
const METRICS: &str = "GET /metrics HTTP/1.1\r\nhost: feed.example\r\nconnection: close\r\n\r\n";

#[test]
fn it_listens_at_several_places_and_removes_its_socket_at_the_end() {
    let folder = Folder::new();
    let (public, admin) = (folder.file("public.sock"), folder.file("admin.sock"));
    let flags = ["--listen", public.to_str().unwrap(), "--admin-listen", admin.to_str().unwrap()];
    let receiver = folder.start_with(&flags);
    assert_eq!(receiver.post(&signed(&event("a", &Value::Null))).status, 200);
    assert!(ask(&public, HEALTH).ends_with("\r\n\r\n{\"ok\":true}"));
    assert!(ask(&admin, HEALTH).ends_with("{\"ok\":true,\"seq\":1}"));
    // With a door of its own the operator is served at no other.
    assert_eq!(receiver.get("/metrics").status, 403);
    assert_eq!(receiver.get("/api/milestones/dead-letter").status, 403);
    assert!(ask(&public, METRICS).starts_with("HTTP/1.1 403 "));
    assert!(ask(&admin, METRICS).starts_with("HTTP/1.1 200 "));
    assert_eq!(receiver.end(), 0);
    assert!(!public.exists() && !admin.exists());
}

#[test]
fn a_socket_that_a_killed_receiver_left_is_taken_over() {
    let folder = Folder::new();
    let path = folder.file("s");
    let flags = ["--listen", path.to_str().unwrap()];
    folder.start_with(&flags).kill();
    assert!(path.exists());
    let receiver = folder.start_with(&flags);
    assert!(ask(&path, HEALTH).starts_with("HTTP/1.1 200 "));
    drop(receiver);
}

#[test]
fn a_socket_of_systemd_is_served() {
    let folder = Folder::new();
    let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    // As systemd does it: the socket is descriptor 3, and the process is named.
    let script = format!("exec 3<&{} && export LISTEN_PID=$$ && exec \"$@\"", socket.as_raw_fd());
    rustix::io::fcntl_setfd(&socket, rustix::io::FdFlags::empty()).unwrap();
    let mut command = Command::new("sh");
    command
        .env_clear()
        .envs([("CLAWDBOT_MILESTONE_WEBHOOK_SECRET", crate::client::SECRET), ("LISTEN_FDS", "1")])
        .args(["-c", &script, "sh", env!("CARGO_BIN_EXE_milestone-receive"), "--logs"])
        .arg(folder.path())
        .arg0("sh");
    let receiver = Receiver::begin(&mut command);
    assert_eq!(receiver.address, address);
    assert_eq!(receiver.get("/healthz").status, 200);
    drop(socket);
    assert_eq!(receiver.end(), 0);
}

#[test]
fn without_a_socket_of_systemd_asking_for_one_is_an_error() {
    let folder = Folder::new();
    let output = Command::new(env!("CARGO_BIN_EXE_milestone-receive"))
        .env_clear()
        .env("CLAWDBOT_MILESTONE_WEBHOOK_SECRET", "s")
        .args(["--listen", "systemd", "--logs"])
        .arg(folder.path())
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(78));
    assert!(String::from_utf8_lossy(&output.stderr).contains("handed over no socket"));
}
