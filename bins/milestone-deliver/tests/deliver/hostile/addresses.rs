//! `--public-only`: however an address is spelled, nothing is connected to that is not public.

use milepost_testing::hostile::{Hostile, Mode};

use super::bench::{Bench, configuration};

#[test]
fn no_spelling_of_a_private_address_is_connected_to() {
    let server = Hostile::start(Mode::Good);
    let port = server.port();
    for host in [
        "127.0.0.1",
        "127.1",
        "0x7f.1",
        "2130706433",
        "017700000001",
        "0.0.0.0",
        "0",
        "localhost",
        "[::1]",
        "[::]",
        "[::ffff:127.0.0.1]",
        "[::ffff:7f00:1]",
        "[::127.0.0.1]",
        "[64:ff9b::7f00:1]",
        "[2002:7f00:1::]",
        "[fe80::1]",
        "[fd00::1]",
        "10.0.0.1",
        "169.254.169.254",
        "100.64.0.1",
        "224.0.0.1",
        "255.255.255.255",
    ] {
        for scheme in ["https", "http"] {
            let bench = Bench::new(1);
            let url = format!("{scheme}://{host}:{port}/internal/milestones/ingest");
            let more = ["--public-only", "--allow-http", "--timeout", "5s"];
            bench.run(&url, &more).exits(0);
            bench.expect(&configuration(&["forbidden-address"]));
            let answer = bench.attempts()[0]["detail"]["answer"].as_str().unwrap().to_owned();
            assert!(answer.contains("no public address"), "{url}: {answer}");
        }
    }
    assert_eq!(server.connections(), 0);
}

#[test]
fn plain_http_goes_to_loopback_only_whatever_a_name_resolves_to() {
    let bench = Bench::new(1);
    for host in ["0.0.0.0", "10.0.0.1", "0", "2130706433"] {
        let url = format!("http://{host}/internal/milestones/ingest");
        let run = bench.run(&url, &[]).exits(78);
        assert!(run.stderr.contains("plain http to another machine"), "{}", run.stderr);
    }
    assert!(bench.attempts().is_empty());
}
