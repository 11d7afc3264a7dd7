//! TLS: certificates that are not to be trusted, handshakes that fail, and one that succeeds.

use milepost_testing::hostile::{Authority, Certificate, Early, Hostile, Mode, Part, Way};

use super::bench::{ACCEPTED, BROKEN, Bench, CONCURRENCY, Expected, endpoint};

const TLS: Expected = endpoint(&["tls"]);

/// A pass against a server with this certificate, whose authority is trusted; then a good one takes its place.
fn meet(mode: &Mode, certificate: Certificate, expected: &Expected) {
    for concurrency in CONCURRENCY {
        let authority = Authority::new();
        let server = Hostile::start_tls(mode.clone(), &authority, certificate);
        let bench = Bench::new(3).more(concurrency);
        let trusted = bench.scratch.write("authority.pem", &authority.pem);
        let bench = bench.env("SSL_CERT_FILE", trusted.to_str().unwrap().to_owned());
        bench.pass(&server.url(), expected, &[]);
        bench.expect(expected);
        if certificate == Certificate::Good {
            bench.recover(&server);
        } else {
            assert_eq!(server.count(), 0, "nothing is told to one who is not trusted");
            bench.recover(&Hostile::start_tls(Mode::Good, &authority, Certificate::Good));
        }
    }
}

#[test]
fn a_trusted_certificate_is_good() {
    meet(&Mode::Good, Certificate::Good, &ACCEPTED);
    meet(&Mode::GoodThen(Way::Close), Certificate::Good, &ACCEPTED);
}

#[test]
fn certificates_that_are_not_to_be_trusted() {
    for certificate in
        [Certificate::SelfSigned, Certificate::Expired, Certificate::NotYetValid, Certificate::WrongHost]
    {
        meet(&Mode::Good, certificate, &TLS);
    }
}

#[test]
fn an_authority_that_nobody_knows() {
    let (ours, theirs) = (Authority::new(), Authority::new());
    let server = Hostile::start_tls(Mode::Good, &theirs, Certificate::Good);
    let bench = Bench::new(2);
    let trusted = bench.scratch.write("authority.pem", &ours.pem);
    let bench = bench.env("SSL_CERT_FILE", trusted.to_str().unwrap().to_owned());
    bench.pass(&server.url(), &TLS, &[]);
    bench.expect(&TLS);
}

#[test]
fn plain_text_on_a_port_for_tls() {
    meet(&Mode::Early(Early::PlainText), Certificate::Good, &TLS);
}

#[test]
fn garbage_on_a_port_for_tls() {
    meet(&Mode::Early(Early::Garbage), Certificate::Good, &TLS);
}

#[test]
fn an_alert_instead_of_a_handshake() {
    meet(&Mode::Early(Early::Alert), Certificate::Good, &TLS);
}

#[test]
fn a_handshake_that_is_broken_off() {
    let expected = endpoint(&["connection", "tls"]);
    meet(&Mode::Early(Early::CloseInHandshake), Certificate::Good, &expected);
    meet(&Mode::Early(Early::Close), Certificate::Good, &expected);
    meet(&Mode::Early(Early::Reset), Certificate::Good, &expected);
}

#[test]
fn a_handshake_that_never_comes() {
    meet(&Mode::Early(Early::Silence), Certificate::Good, &endpoint(&["timeout"]));
}

#[test]
fn an_answer_that_is_cut_without_a_farewell() {
    // By TLS alone nobody could tell whether this was the end: the length does.
    meet(&Mode::Broken(Part::Body, Way::Close), Certificate::Good, &BROKEN);
    meet(&Mode::Broken(Part::Nothing, Way::Close), Certificate::Good, &endpoint(&["connection"]));
}

#[test]
fn without_any_authority_nothing_is_sent() {
    let server = Hostile::start_tls(Mode::Good, &Authority::new(), Certificate::Good);
    let bench = Bench::new(1);
    let nothing = bench.scratch.write("nothing.pem", "");
    let bench = bench.env("SSL_CERT_FILE", nothing.to_str().unwrap().to_owned());
    let run = bench.run(&server.url(), &[]).exits(0);
    assert_eq!(server.count(), 0);
    bench.expect(&TLS);
    assert!(!run.stderr.contains("a bug"), "{}", run.stderr);
}
