//! Whom the receiver answers, and the headers that every answer carries.
//!
//! # Invariants
//! - On a loopback address a request names a loopback host, or one that the operator permits: a page of
//!   another site cannot reach us by pointing its own name at this machine (DNS rebinding).
//! - No page of ours runs or loads anything that is not ours.

use std::{net::IpAddr, sync::Arc};

use axum::{
    body::Body,
    extract::{Extension, Request, State},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    middleware::Next,
    response::Response,
};

use crate::{
    answer,
    app::{App, Site},
};

/// Everything is our own file, and nothing is inline.
const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; style-src 'self'; script-src 'self'; \
    connect-src 'self'; img-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'";

/// The door through which a request came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Door {
    /// A loopback address: programs of this machine, browsers among them, and a reverse proxy.
    Loopback,
    /// An address that other machines reach.
    Public,
    /// A Unix socket: a reverse proxy.
    Unix,
    /// The operator's own. A browser of this machine reaches it when it is on a loopback address.
    Admin {
        /// Whether it is.
        is_loopback: bool,
    },
}

impl Door {
    /// The door of a TCP address.
    pub fn of_tcp(is_loopback: bool, is_admin: bool) -> Door {
        match (is_admin, is_loopback) {
            (true, is_loopback) => Door::Admin { is_loopback },
            (false, true) => Door::Loopback,
            (false, false) => Door::Public,
        }
    }

    /// The door of a Unix socket.
    pub fn of_unix(is_admin: bool) -> Door {
        if is_admin { Door::Admin { is_loopback: false } } else { Door::Unix }
    }

    /// Whether only this machine, and nobody else through a proxy, can come in.
    pub fn is_for_this_machine(self) -> bool {
        matches!(self, Door::Loopback | Door::Admin { .. })
    }
}

/// Refuses foreign hosts, and adds the headers.
pub async fn guard(
    State(app): State<Arc<App>>,
    Extension(door): Extension<Door>,
    request: Request<Body>,
    next: Next,
) -> Response {
    // What hyper takes for the end of such a body another party may not: nothing behind it is a request.
    let is_last = request.headers().contains_key(header::TRANSFER_ENCODING);
    let checks_host = matches!(door, Door::Loopback | Door::Admin { is_loopback: true });
    let mut response = if checks_host && !is_host_known(&app.site, request.headers()) {
        let reason = "the Host header names neither a loopback address nor --public-host";
        answer::refused(StatusCode::MISDIRECTED_REQUEST, reason)
    } else {
        next.run(request).await
    };
    let headers = response.headers_mut();
    let mut set = |name, value| headers.insert(name, HeaderValue::from_static(value));
    set(header::CONTENT_SECURITY_POLICY, CONTENT_SECURITY_POLICY);
    set(header::X_CONTENT_TYPE_OPTIONS, "nosniff");
    set(header::REFERRER_POLICY, "no-referrer");
    if is_last {
        set(header::CONNECTION, "close");
    }
    if let Some(origin) = app.site.cors.as_deref().and_then(|it| HeaderValue::from_str(it).ok()) {
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
    }
    response
}

/// Whether the request is the operator's. Where the operator has a door of its own, it came through that; else it
/// is from this machine, as far as we can know: not to a public address, not to a public name, and not passed on
/// by a proxy that says so.
pub fn is_operator(site: &Site, door: Door, headers: &HeaderMap) -> bool {
    let is_forwarded =
        || ["forwarded", "x-forwarded-for", "x-real-ip"].iter().any(|it| headers.contains_key(*it));
    match door {
        Door::Admin { .. } => true,
        Door::Loopback if !site.has_admin_door => {
            !is_forwarded() && host(headers).is_some_and(|it| is_loopback_name(&it))
        }
        _ => false,
    }
}

/// Scheme and host under which readers know this receiver: the name that a proxy offers, else the one that was
/// asked for.
pub fn base(site: &Site, headers: &HeaderMap) -> String {
    if let Some(public) = site.public_hosts.first() {
        return format!("https://{public}");
    }
    let asked = headers.get(header::HOST).and_then(|it| it.to_str().ok()).unwrap_or_default();
    let is_plain = |it: &u8| it.is_ascii_alphanumeric() || b"-._:[]".contains(it);
    let host = if !asked.is_empty() && asked.as_bytes().iter().all(is_plain) { asked } else { "localhost" };
    format!("http://{host}")
}

fn is_host_known(site: &Site, headers: &HeaderMap) -> bool {
    host(headers).is_some_and(|it| is_loopback_name(&it) || site.public_hosts.contains(&it))
}

/// The name in the one Host header, lower case and without port.
fn host(headers: &HeaderMap) -> Option<String> {
    let mut hosts = headers.get_all(header::HOST).iter();
    let (Some(host), None) = (hosts.next(), hosts.next()) else { return None };
    let host = host.to_str().ok()?;
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|it| it.is_ascii_digit()) && !name.is_empty() => name,
        _ => host,
    };
    Some(name.trim_end_matches('.').to_ascii_lowercase())
}

fn is_loopback_name(name: &str) -> bool {
    let address = name.strip_prefix('[').and_then(|it| it.strip_suffix(']')).unwrap_or(name);
    name == "localhost"
        || name.ends_with(".localhost")
        || address.parse::<IpAddr>().is_ok_and(|it| it.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(host: &str) -> HeaderMap {
        HeaderMap::from_iter([(header::HOST, HeaderValue::from_str(host).unwrap())])
    }

    fn site() -> Site {
        Site { has_admin_door: false, public_hosts: vec!["feed.example".into()], cors: None }
    }

    #[test]
    fn loopback_names_and_the_public_host_are_known() {
        for host in [
            "localhost",
            "LocalHost:8787",
            "127.0.0.1:80",
            "127.8.9.1",
            "[::1]:8787",
            "feed.example",
            "Feed.Example:443",
            "a.localhost",
            "localhost.",
        ] {
            assert!(is_host_known(&site(), &headers(host)), "{host}");
        }
        for host in ["evil.example", "127.0.0.1.evil.example", "10.0.0.1", "", "localhost:x", "::1x", "[::2]"]
        {
            assert!(!is_host_known(&site(), &headers(host)), "{host}");
        }
        assert!(!is_host_known(&site(), &HeaderMap::new()));
    }

    #[test]
    fn the_operator_comes_from_this_machine_or_through_its_own_door() {
        let is_operator = |door, headers: &HeaderMap| is_operator(&site(), door, headers);
        assert!(is_operator(Door::Loopback, &headers("localhost:1")));
        assert!(!is_operator(Door::Loopback, &headers("feed.example")));
        let mut forwarded = headers("localhost");
        forwarded.insert("x-forwarded-for", HeaderValue::from_static("10.0.0.1"));
        assert!(!is_operator(Door::Loopback, &forwarded));
        assert!(
            !is_operator(Door::Public, &headers("localhost"))
                && !is_operator(Door::Unix, &headers("localhost"))
        );
        let admin = Door::Admin { is_loopback: false };
        assert!(is_operator(admin, &headers("10.0.0.1")));
        let separate = Site { has_admin_door: true, ..site() };
        assert!(!super::is_operator(&separate, Door::Loopback, &headers("localhost")));
        assert!(super::is_operator(&separate, admin, &headers("localhost")));
    }
}
