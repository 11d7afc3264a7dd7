//! The feed for feed readers (JSON Feed 1.1, Atom), and for apps that pull signed milestones.
//!
//! # Invariants
//! - An entry's id never changes: it is made from the milestone's own, wherever the feed is read.
//! - Every piece of an event in XML goes through [`Xml`]: nothing is in it that XML 1.0 forbids.
//! - What is pulled is signed with a secret of its own: an entry is a valid ingest body, and whoever reads this
//!   feed must not be able to post.
//!
//! Not here: which milestones are the newest (`feed`), how people see them (`page`).

use std::{fmt::Write as _, sync::Arc};

use axum::{
    body::Bytes,
    extract::{RawQuery, State},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::Response,
};
use milepost::{Timestamp, canonical, signing::Signer};
use serde_json::{Value, json};

use crate::{
    answer,
    app::App,
    cache::{self, Version},
    html::{Escaped, visible},
    item::Item,
    query::{self, Query},
    reads::cannot_read,
    record, site,
};

/// Milestones when nothing is said.
const LIMIT: usize = 50;
/// Entries of what is pulled.
const PULLED: usize = 50;
/// Characters of a title; the whole claim is in the text.
const TITLE_CHARS: usize = 200;
/// Seconds for which a reader that polls need not ask again.
const FRESH: HeaderValue = HeaderValue::from_static("public, max-age=30");

/// Signs what is pulled.
pub struct PullFeed {
    signer: Signer,
}

impl PullFeed {
    /// Entries signed with this secret.
    pub fn new(secret: &milepost::secret::Secret) -> PullFeed {
        PullFeed { signer: Signer::new(secret, None) }
    }
}

/// `GET /feed.json`
pub async fn json_feed(State(app): State<Arc<App>>, headers: HeaderMap, query: RawQuery) -> Response {
    const TYPE: &str = "application/feed+json; charset=utf-8";
    feed(&app, &headers, query, "feed.json", TYPE, write_json).await
}

/// `GET /feed.atom`
pub async fn atom(State(app): State<Arc<App>>, headers: HeaderMap, query: RawQuery) -> Response {
    const TYPE: &str = "application/atom+xml; charset=utf-8";
    feed(&app, &headers, query, "feed.atom", TYPE, write_atom).await
}

/// `GET /milestones-feed.json`
pub async fn pulled(State(app): State<Arc<App>>, headers: HeaderMap) -> Response {
    const KEY: &str = "/milestones-feed.json";
    let Some(pull) = &app.pull_feed else {
        return answer::refused(StatusCode::NOT_FOUND, "there is nothing at this path");
    };
    let version = app.feed.head();
    if cache::is_known(&headers, &version) {
        return kept(cache::not_modified(&version));
    }
    let body = match app.cache.get(&version, KEY) {
        Some(body) => body,
        None => match app.feed.last_lines(PULLED).await {
            Ok(lines) => {
                let body = Bytes::from(write_pulled(&app, pull, &lines));
                app.cache.put(&version, KEY, &body);
                body
            }
            Err(error) => return cannot_read(&app, &error),
        },
    };
    kept(cache::found(&version, "application/json", body))
}

/// What a feed is about, besides its items.
struct About<'a> {
    /// Scheme and host, without a slash at the end.
    base: &'a str,
    /// The feed's own URL.
    own: String,
    /// The host alone, for ids.
    host: &'a str,
}

async fn feed(
    app: &Arc<App>,
    headers: &HeaderMap,
    RawQuery(raw): RawQuery,
    path: &str,
    content_type: &'static str,
    write: fn(&About<'_>, &[Arc<Item>]) -> String,
) -> Response {
    let version: Version = app.feed.head();
    if cache::is_known(headers, &version) {
        return kept(cache::not_modified(&version));
    }
    let base = site::base(&app.site, headers);
    let raw = raw.unwrap_or_default();
    let own = if raw.is_empty() { format!("{base}/{path}") } else { format!("{base}/{path}?{raw}") };
    if let Some(body) = app.cache.get(&version, &own) {
        return kept(cache::found(&version, content_type, body));
    }
    let Query { limit, filter, before } = match Query::parse(Some(&raw), LIMIT) {
        Ok(it) => it,
        Err(reason) => return answer::refused(StatusCode::BAD_REQUEST, &reason),
    };
    let items = match app.feed.newest(filter, before, limit).await {
        Ok(it) => it.items,
        Err(error) => return cannot_read(app, &error),
    };
    let host = base.split_once("://").map_or(base.as_str(), |it| it.1);
    // Of an IPv6 address the colons within the brackets stay.
    let host = host.rsplit_once(':').filter(|it| !it.1.ends_with(']')).map_or(host, |it| it.0);
    let about = About { base: &base, own: own.clone(), host };
    let body = Bytes::from(write(&about, &items));
    app.cache.put(&version, &own, &body);
    kept(cache::found(&version, content_type, body))
}

/// Feed readers poll: they, and proxies before them, may keep an answer for a moment.
fn kept(mut response: Response) -> Response {
    response.headers_mut().insert(header::CACHE_CONTROL, FRESH);
    response
}

fn write_json(about: &About<'_>, items: &[Arc<Item>]) -> String {
    let mut text = json!({
        "version": "https://jsonfeed.org/version/1.1",
        "title": "Milestones",
        "description": "Verified milestones, newest first.",
        "home_page_url": format!("{}/", about.base),
        "feed_url": about.own,
        "language": "en",
    })
    .to_string();
    text.pop();
    text.push_str(",\"items\":[");
    for (at, item) in items.iter().enumerate() {
        if at > 0 {
            text.push(',');
        }
        let entry = json!({
            "id": id_of(about, item),
            "url": url_of(about, item),
            "title": title_of(item),
            "content_text": text_of(item),
            "date_published": item.event.timestamp_utc,
            "tags": [item.event.scope, query::words_of(item.event.risk_status).0],
        });
        let mut entry = entry.to_string();
        entry.pop();
        // The item as everywhere else: it is JSON already.
        text.extend([entry.as_str(), ",\"_milestone\":", item.json(), "}"]);
    }
    text.push_str("]}");
    text
}

fn write_atom(about: &About<'_>, items: &[Arc<Item>]) -> String {
    let updated = items.iter().map(|it| it.received_at).max().unwrap_or(Timestamp::from_millis(0));
    let (own, base) = (Escaped(&about.own), Escaped(about.base));
    let mut xml = format!(
        "<?xml version=\"1.0\" encoding=\"utf-8\"?>\n<feed xmlns=\"http://www.w3.org/2005/Atom\" xml:lang=\"en\">\n\
         <title>Milestones</title>\n<subtitle>Verified milestones, newest first.</subtitle>\n\
         <id>tag:{},2026:milestones</id>\n<link rel=\"self\" type=\"application/atom+xml\" href=\"{own}\"/>\n\
         <link rel=\"alternate\" type=\"text/html\" href=\"{base}/\"/>\n<updated>{updated}</updated>\n\
         <generator uri=\"{base}/\">Milepost</generator>\n",
        Escaped(about.host),
    );
    for item in items {
        // Writing into memory cannot fail.
        let _ = write!(
            xml,
            "<entry>\n<title>{}</title>\n<id>{}</id>\n<link rel=\"alternate\" type=\"text/html\" href=\"{}\"/>\n\
             <published>{}</published>\n<updated>{}</updated>\n<author><name>{}</name></author>\n\
             <category term=\"{}\"/>\n<category term=\"{}\"/>\n<content type=\"text\">{}</content>\n</entry>\n",
            Xml(&title_of(item)),
            Xml(&id_of(about, item)),
            Xml(&url_of(about, item)),
            item.event.timestamp_utc,
            item.received_at,
            item.event.source.as_str(),
            Xml(&item.event.scope),
            query::words_of(item.event.risk_status).0,
            Xml(&text_of(item)),
        );
    }
    xml.push_str("</feed>\n");
    xml
}

fn write_pulled(app: &App, pull: &PullFeed, lines: &[Vec<u8>]) -> String {
    let mut last_updated = Value::Null;
    let mut entries = Vec::with_capacity(lines.len());
    for line in lines {
        let Some(entry) = record::to_pull(line, app.feed.show()) else { continue };
        last_updated = json!(entry.received_at);
        let mut body = json!({
            "idempotencyKey": entry.key, "sentAtUtc": entry.sent_at, "event": entry.event,
        });
        let signature = pull.signer.hex(&canonical::to_vec(&body));
        body["signature"] = signature.into();
        entries.push(body);
    }
    json!({ "lastUpdated": last_updated, "entries": entries }).to_string()
}

fn id_of(about: &About<'_>, item: &Item) -> String {
    format!("tag:{},2026:milestone/{}", about.host, query::encode(&item.event.milestone_id))
}

fn url_of(about: &About<'_>, item: &Item) -> String {
    format!("{}/?milestone={}", about.base, query::encode(&item.event.milestone_id))
}

fn title_of(item: &Item) -> String {
    let claim = &item.event.claim;
    match claim.char_indices().nth(TITLE_CHARS) {
        Some((at, _)) => format!("{}…", &claim[..at]),
        None => claim.clone(),
    }
}

/// The milestone as plain text.
fn text_of(item: &Item) -> String {
    let event = &item.event;
    let mut text = format!("{}\n\nStatus: {}\n", event.claim, query::words_of(event.risk_status).1);
    for it in &event.evidence {
        text.extend(["Evidence: ", it.kind.as_str(), ", ", &it.summary]);
        if !it.path.is_empty() {
            text.extend([" (", &it.path, ")"]);
        }
        text.push('\n');
    }
    text.extend(["Next: ", &event.next_action, "\n"]);
    text
}

/// Foreign text in XML, as text or in a quoted attribute.
struct Xml<'a>(&'a str);

impl std::fmt::Display for Xml<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let visible = visible(self.0);
        if visible.contains(['\u{fffe}', '\u{ffff}']) {
            return Escaped(&visible.replace(['\u{fffe}', '\u{ffff}'], "\u{fffd}")).fmt(f);
        }
        Escaped(&visible).fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_xml_forbids_comes_through() {
        let text = "a<b>&\"'\u{0}\u{1}\u{b}\u{1b}\u{7f}\u{85}\u{fffe}\u{ffff}\u{1f680}\t\n";
        let written = Xml(text).to_string();
        assert!(written.starts_with("a&lt;b&gt;&amp;&quot;&#39;"), "{written}");
        let is_fine = |it: char| matches!(it, '\t' | '\n' | '\r' | ' '..='\u{fffd}' | '\u{10000}'..);
        assert!(written.chars().all(is_fine) && written.contains('\u{1f680}'), "{written:?}");
    }
}
