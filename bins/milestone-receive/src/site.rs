//! Whom the receiver answers, and the headers that every answer carries.
//!
//! # Invariants
//! - On a loopback address a request names a loopback host, or one that the operator permits: a page of
//!   another site cannot reach us by pointing its own name at this machine (DNS rebinding).
//! - No page of ours runs or loads anything that is not ours.

use std::{net::IpAddr, sync::Arc};

use axum::{
    body::Body,
    extract::{Request, State},
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
    connect-src 'self'; img-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// Refuses foreign hosts, and adds the headers.
pub async fn guard(State(app): State<Arc<App>>, request: Request<Body>, next: Next) -> Response {
    let mut response = if app.site.is_loopback && !is_host_known(&app.site, request.headers()) {
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
    if let Some(origin) = app.site.cors.as_deref().and_then(|it| HeaderValue::from_str(it).ok()) {
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
    }
    response
}

/// Whether the request comes from this machine, as far as we can know: not to a public address, not to a
/// public name, and not passed on by a proxy that says so.
pub fn is_local(site: &Site, headers: &HeaderMap) -> bool {
    let is_forwarded =
        ["forwarded", "x-forwarded-for", "x-real-ip"].iter().any(|it| headers.contains_key(*it));
    site.is_loopback && !is_forwarded && host(headers).is_some_and(|it| is_loopback_name(&it))
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
        Site { is_loopback: true, public_hosts: vec!["feed.example".into()], cors: None }
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
    fn what_came_through_a_proxy_is_not_local() {
        assert!(is_local(&site(), &headers("localhost:1")));
        assert!(!is_local(&site(), &headers("feed.example")));
        let mut forwarded = headers("localhost");
        forwarded.insert("x-forwarded-for", HeaderValue::from_static("10.0.0.1"));
        assert!(!is_local(&site(), &forwarded));
        assert!(!is_local(&Site { is_loopback: false, ..site() }, &headers("localhost")));
    }
}
