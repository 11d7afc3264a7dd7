//! Where is sent to: the URL, checked once, and what follows from it.
//!
//! | `--url` | milestones | other events |
//! | --- | --- | --- |
//! | `https://app.example` | `…/internal/milestones/ingest` | `…/internal/events/ingest` |
//! | `https://app.example/x/internal/milestones/ingest` | as given | `…/x/internal/events/ingest` |
//! | `https://app.example/x/internal/events/ingest` | `…/x/internal/milestones/ingest` | as given |
//! | `https://app.example/hook?a=b` | as given | as given |
//!
//! The last is for receivers that know nothing of the contract's paths: the body says what it is. Batches go to the
//! contract's paths with `-batch` behind them, and to no others.
//!
//! # Invariants
//! - A URL with credentials is refused, and no message shows it.
//! - Plain http goes to loopback only, unless it was allowed.

use std::net::IpAddr;

use milepost::{
    Error, Kind, Result,
    delivery::Route,
    ingest::{EVENTS_PATH, MILESTONES_PATH, batch},
    text,
};
use ureq::http::Uri;

/// The URLs of one receiver.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    milestones: Door,
    events: Door,
    is_plain: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Door {
    url: Address,
    /// Only the contract's paths have one.
    batch_url: Option<Address>,
}

/// A URL, and what was read of it, so that no attempt reads it again.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Address {
    text: String,
    uri: Uri,
}

impl Target {
    /// Checks a URL that came from `place`, a flag or a variable.
    ///
    /// # Errors
    /// [`Kind::Configuration`] when it cannot be sent to.
    pub fn new(url: &str, place: &str, allow_http: bool) -> Result<Target> {
        let refuse = |what: &str| Error::new(Kind::Configuration, place, what);
        // First of all, and without showing any of it.
        let authority = url.split_once("//").map_or(url, |(_, it)| it).split(['/', '?', '#']).next();
        if authority.is_some_and(|it| it.contains('@')) {
            return Err(
                refuse("has credentials in the URL").cure("take them out; requests are signed instead")
            );
        }
        let invalid = || {
            refuse(&format!("{} is no URL to post to", text::quoted(url)))
                .cure("write it like https://app.example/internal/milestones/ingest")
        };
        let uri: Uri = url.parse().map_err(|_| invalid())?;
        let (Some(scheme), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
            return Err(invalid());
        };
        if authority.host().is_empty() || !matches!(scheme, "http" | "https") {
            return Err(invalid());
        }
        // A port that is none would be taken for none given, and the scheme's own asked instead.
        if authority.as_str().len() > authority.host().len() && authority.port_u16().is_none_or(|it| it == 0)
        {
            return Err(invalid());
        }
        let is_plain = scheme == "http";
        if is_plain && !allow_http && !is_loopback_name(authority.host()) {
            return Err(refuse(&format!("{} is plain http to another machine", text::quoted(url)))
                .cure("use https, or allow it with --allow-http"));
        }
        let query = uri.query().map_or_else(String::new, |it| format!("?{it}"));
        let origin = format!("{scheme}://{authority}");
        let path = uri.path();
        let base = match path {
            "" | "/" => Some(""),
            _ => path.strip_suffix(MILESTONES_PATH).or_else(|| path.strip_suffix(EVENTS_PATH)),
        };
        let address = |path: &str| {
            let text = format!("{origin}{path}{query}");
            text.parse().map(|uri| Address { text, uri }).map_err(|_| invalid())
        };
        let door = |single: &str, many: &str| match base {
            Some(base) => Ok(Door {
                url: address(&format!("{base}{single}"))?,
                batch_url: Some(address(&format!("{base}{many}"))?),
            }),
            None => Ok(Door { url: address(path)?, batch_url: None }),
        };
        let milestones = door(MILESTONES_PATH, batch::MILESTONES_PATH)?;
        let events = door(EVENTS_PATH, batch::EVENTS_PATH)?;
        Ok(Target { milestones, events, is_plain })
    }

    /// The URL of a route.
    pub fn url(&self, route: Route) -> &str {
        &self.door(route).url.text
    }

    /// The same as it was read.
    pub fn uri(&self, route: Route) -> &Uri {
        &self.door(route).url.uri
    }

    /// The URL of a route for batches, if the receiver can have one.
    pub fn batch_uri(&self, route: Route) -> Option<&Uri> {
        self.door(route).batch_url.as_ref().map(|it| &it.uri)
    }

    fn door(&self, route: Route) -> &Door {
        match route {
            Route::Milestones => &self.milestones,
            Route::Events => &self.events,
        }
    }

    /// Whether nothing hides what is sent.
    pub fn is_plain(&self) -> bool {
        self.is_plain
    }
}

/// Whether a URL's host is this machine by its text alone.
fn is_loopback_name(host: &str) -> bool {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    if let Ok(address) = bare.parse::<IpAddr>() {
        return address.to_canonical().is_loopback();
    }
    let name = bare.trim_end_matches('.').to_ascii_lowercase();
    name == "localhost" || name.ends_with(".localhost")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn urls(url: &str) -> (String, String) {
        let target = Target::new(url, "--url", false).unwrap();
        (target.url(Route::Milestones).to_owned(), target.url(Route::Events).to_owned())
    }

    #[test]
    fn both_paths_follow_from_the_url() {
        let contract = |base: &str| {
            (format!("{base}/internal/milestones/ingest"), format!("{base}/internal/events/ingest"))
        };
        for base in
            ["https://app.example", "https://app.example:8443", "http://127.0.0.1:9", "http://[::1]:9"]
        {
            assert_eq!(urls(base), contract(base));
            assert_eq!(urls(&format!("{base}/")), contract(base));
            assert_eq!(urls(&format!("{base}/x/internal/milestones/ingest")), contract(&format!("{base}/x")));
            assert_eq!(urls(&format!("{base}/internal/events/ingest")), contract(base));
        }
        let target = Target::new("https://app.example/x/internal/events/ingest", "--url", false).unwrap();
        let batch = target.batch_uri(Route::Milestones).map(Uri::to_string);
        assert_eq!(batch.as_deref(), Some("https://app.example/x/internal/milestones/ingest-batch"));
        let custom = "https://app.example/hook?a=b".to_owned();
        assert_eq!(urls(&custom), (custom.clone(), custom.clone()));
        assert_eq!(Target::new(&custom, "--url", false).unwrap().batch_uri(Route::Events), None);
    }

    #[test]
    fn plain_http_goes_to_loopback_only() {
        for url in
            ["http://localhost:9/", "http://a.localhost/", "http://127.9.9.9", "http://[::ffff:127.0.0.1]/"]
        {
            assert!(Target::new(url, "--url", false).is_ok(), "{url}");
        }
        for url in ["http://app.example/", "http://10.0.0.1/", "http://2130706433/", "http://localhost.evil/"]
        {
            let error = Target::new(url, "--url", false).unwrap_err();
            assert_eq!(error.kind(), Kind::Configuration, "{url}");
            assert!(Target::new(url, "--url", true).is_ok(), "{url}");
        }
    }

    #[test]
    fn a_port_is_one_or_is_not_given() {
        for url in [
            "https://app.example:99999",
            "https://app.example:65536/x",
            "http://127.0.0.1:0",
            "http://[::1]:",
        ] {
            let error = Target::new(url, "--url", false).unwrap_err();
            assert!(error.to_string().contains("is no URL to post to"), "{error}");
        }
        assert!(Target::new("https://app.example:65535", "--url", false).is_ok());
    }

    #[test]
    fn credentials_are_refused_and_never_shown() {
        for url in ["https://me:hunter2@app.example/", "me:hunter2@app.example", "http://hunter2@127.0.0.1/"]
        {
            let error = Target::new(url, "--url", true).unwrap_err();
            assert!(!error.to_string().contains("hunter2"), "{error}");
        }
    }

    #[test]
    fn what_is_no_url_is_refused() {
        for url in [
            "",
            " ",
            "app.example",
            "/internal",
            "ftp://app.example/",
            "https://",
            "https:///x",
            "https://a b/",
        ] {
            let error = Target::new(url, "$MILESTONE_INGEST_URL", true).unwrap_err();
            assert_eq!(error.kind(), Kind::Configuration, "{url}");
            assert!(error.to_string().starts_with("$MILESTONE_INGEST_URL: "), "{error}");
        }
    }
}
