//! From a host's name to the addresses that may be connected to.
//!
//! # Invariants
//! - Addresses are judged after the look-up, so no spelling of a name or number gets around the rules.
//! - A look-up takes no longer than it may, and its answer serves for a while: no thread a request.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs},
    sync::{Arc, Mutex, PoisonError, mpsc},
    thread,
    time::{Duration, Instant},
};

use ureq::{
    config::Config,
    http::Uri,
    unversioned::{
        resolver::{ResolvedSocketAddrs, Resolver},
        transport::NextTimeout,
    },
};

/// How long an answer serves. Short, so that a moved host is found soon.
const CACHED: Duration = Duration::from_secs(30);
/// How many addresses are tried; what `ResolvedSocketAddrs` holds.
const ADDRESSES_MAX: usize = 16;

/// Which addresses may be connected to.
#[derive(Clone, Copy, Debug, Default)]
pub struct Rules {
    /// Only this machine: plain http.
    pub loopback_only: bool,
    /// Only addresses of the public internet.
    pub public_only: bool,
}

impl Rules {
    fn allow(self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        (!self.loopback_only || address.is_loopback()) && (!self.public_only || is_public(address))
    }
}

/// The addresses were found, but the rules allow none of them.
#[derive(Debug)]
pub struct Forbidden(String);

impl fmt::Display for Forbidden {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Forbidden {}

/// Looks names up by the rules.
#[derive(Clone, Debug, Default)]
pub struct Lookup {
    rules: Rules,
    last: Arc<Mutex<Option<Answer>>>,
}

#[derive(Debug)]
struct Answer {
    host: String,
    at: Instant,
    addresses: Vec<SocketAddr>,
}

impl Lookup {
    /// Look-ups by these rules.
    pub fn new(rules: Rules) -> Lookup {
        Lookup { rules, last: Arc::default() }
    }

    /// Forgets the last answer: nobody answered there.
    pub fn forget(&self) {
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    fn addresses(&self, host: &str, port: u16, timeout: NextTimeout) -> Result<Vec<SocketAddr>, ureq::Error> {
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        if let Ok(address) = bare.parse::<IpAddr>() {
            return Ok(vec![SocketAddr::new(address, port)]);
        }
        let place = format!("{bare}:{port}");
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(it) = last.as_ref().filter(|it| it.host == place && it.at.elapsed() < CACHED) {
            return Ok(it.addresses.clone());
        }
        let addresses = look_up(place.clone(), timeout)?;
        *last = Some(Answer { host: place, at: Instant::now(), addresses: addresses.clone() });
        Ok(addresses)
    }
}

impl Resolver for Lookup {
    fn resolve(
        &self,
        uri: &Uri,
        _: &Config,
        timeout: NextTimeout,
    ) -> Result<ResolvedSocketAddrs, ureq::Error> {
        let host = uri.host().ok_or(ureq::Error::HostNotFound)?;
        let port = uri.port_u16().unwrap_or(if uri.scheme_str() == Some("https") { 443 } else { 80 });
        let found = self.addresses(host, port, timeout)?;
        let mut allowed = self.empty();
        for address in found.iter().filter(|it| self.rules.allow(it.ip())).take(ADDRESSES_MAX) {
            allowed.push(*address);
        }
        if allowed.is_empty() {
            let Some(first) = found.first() else { return Err(ureq::Error::HostNotFound) };
            let is_elsewhere = self.rules.loopback_only && !first.ip().is_loopback();
            let rule = if is_elsewhere { "another machine" } else { "no public address" };
            let what = format!("{host} is at {}, which is {rule}", first.ip());
            return Err(ureq::Error::Other(Box::new(Forbidden(what))));
        }
        Ok(allowed)
    }
}

/// The system's look-up has no time limit of its own, so it runs in a thread that is left behind.
fn look_up(place: String, timeout: NextTimeout) -> Result<Vec<SocketAddr>, ureq::Error> {
    let (give, take) = mpsc::sync_channel(1);
    let started = thread::Builder::new().name("look-up".into()).spawn(move || {
        let found = place.to_socket_addrs().map(Iterator::collect::<Vec<_>>);
        // Nobody waits any more: the answer came too late.
        drop(give.send(found));
    });
    started.map_err(ureq::Error::Io)?;
    match take.recv_timeout(*timeout.after) {
        Ok(Ok(addresses)) => Ok(addresses),
        Ok(Err(_)) | Err(mpsc::RecvTimeoutError::Disconnected) => Err(ureq::Error::HostNotFound),
        Err(mpsc::RecvTimeoutError::Timeout) => Err(ureq::Error::Timeout(timeout.reason)),
    }
}

/// Whether an address is of the public internet (IANA special-purpose registries).
fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(it) => is_public_v4(it),
        IpAddr::V6(it) => is_public_v6(it),
    }
}

fn is_public_v4(it: Ipv4Addr) -> bool {
    let [a, b, c, _] = it.octets();
    let is_special = it.is_private()
        || it.is_loopback()
        || it.is_link_local()
        || it.is_documentation()
        || it.is_multicast()
        || a == 0
        || a >= 240
        || (a == 100 && (64..128).contains(&b))
        || (a == 192 && b == 0 && c == 0)
        || (a == 192 && b == 88 && c == 99)
        || (a == 198 && (b == 18 || b == 19));
    !is_special
}

fn is_public_v6(it: Ipv6Addr) -> bool {
    let [a, b, ..] = it.segments();
    // Global unicast, without documentation, and without what wraps an IPv4 address (Teredo, 6to4).
    (a & 0xe000) == 0x2000
        && !(a == 0x2001 && (b == 0xdb8 || b < 0x200))
        && a != 0x2002
        && (a & 0xfff0) != 0x3ff0
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each form of an address that is not of the public internet, and its neighbours that are.
    const NOT_PUBLIC: &[(&str, &[&str])] = &[
        ("this network", &["0.0.0.0", "0.1.2.3", "0.255.255.255"]),
        (
            "private",
            &["10.0.0.0", "10.255.255.255", "172.16.0.0", "172.31.255.255", "192.168.0.0", "192.168.255.255"],
        ),
        ("loopback", &["127.0.0.0", "127.0.0.1", "127.255.255.255", "::1"]),
        (
            "link-local, clouds' metadata",
            &["169.254.0.0", "169.254.169.254", "169.254.255.255", "fe80::1", "febf::1"],
        ),
        ("carrier-grade NAT", &["100.64.0.0", "100.127.255.255"]),
        ("protocol assignments", &["192.0.0.0", "192.0.0.8", "192.0.0.170"]),
        ("documentation", &["192.0.2.1", "198.51.100.1", "203.0.113.1", "2001:db8::1", "3fff::1"]),
        ("benchmarks", &["198.18.0.0", "198.19.255.255", "2001:2::1"]),
        ("multicast", &["224.0.0.1", "239.255.255.255", "ff01::1", "ff02::1", "ff0e::1"]),
        ("reserved, broadcast", &["240.0.0.0", "255.255.255.255"]),
        ("unspecified", &["::"]),
        ("unique local", &["fc00::1", "fd12:3456:789a::1"]),
        ("site-local", &["fec0::1"]),
        ("mapped", &["::ffff:10.0.0.1", "::ffff:127.0.0.1", "::ffff:169.254.169.254", "::ffff:0.0.0.0"]),
        ("compatible, translated", &["::127.0.0.1", "::10.0.0.1", "::8.8.8.8", "::ffff:0:127.0.0.1"]),
        ("NAT64", &["64:ff9b::7f00:1", "64:ff9b::a00:1", "64:ff9b::808:808", "64:ff9b:1::a00:1"]),
        ("6to4", &["2002:a00:1::", "2002:7f00:1::1", "2002:808:808::", "192.88.99.1"]),
        (
            "Teredo, ORCHID, other tunnels",
            &["2001::1", "2001:0:7f00:1::", "2001:10::1", "2001:20::1", "2001:1ff::1"],
        ),
        (
            "discard, segment routing, unassigned",
            &["100::1", "100:0:0:1::1", "5f00::1", "4000::1", "8000::1"],
        ),
    ];

    const PUBLIC: &[&str] = &[
        "1.1.1.1",
        "8.8.8.8",
        "9.255.255.255",
        "11.0.0.0",
        "100.63.255.255",
        "100.128.0.0",
        "126.255.255.255",
        "128.0.0.0",
        "169.253.255.255",
        "169.255.0.0",
        "172.15.255.255",
        "172.32.0.0",
        "192.0.1.0",
        "192.167.255.255",
        "192.169.0.0",
        "198.17.255.255",
        "198.20.0.0",
        "223.255.255.255",
        "::ffff:8.8.8.8",
        "2001:200::1",
        "2001:4860:4860::8888",
        "2003::1",
        "2606:4700::1111",
        "2a00:1450::5",
    ];

    #[test]
    fn only_public_addresses_are_public() {
        let allows = |it: &str| Rules { public_only: true, ..Rules::default() }.allow(it.parse().unwrap());
        for address in PUBLIC {
            assert!(allows(address), "{address}");
        }
        for (what, addresses) in NOT_PUBLIC {
            for address in *addresses {
                assert!(!allows(address), "{address}: {what}");
            }
        }
    }

    #[test]
    fn loopback_only_allows_loopback_in_every_form() {
        let rules = Rules { loopback_only: true, ..Rules::default() };
        for address in ["127.0.0.1", "127.1.2.3", "::1", "::ffff:127.0.0.1"] {
            assert!(rules.allow(address.parse().unwrap()), "{address}");
        }
        for address in ["10.0.0.1", "0.0.0.0", "8.8.8.8", "::", "fe80::1"] {
            assert!(!rules.allow(address.parse().unwrap()), "{address}");
        }
    }
}
