//! The page at `/`: the newest milestones for people, complete without a script.
//!
//! The server writes the newest ones; `app.js` adds those that come while the page is open. Both make the
//! same elements: [`write_item`] here, the template `#item` and `fill` there.
//!
//! # Invariants
//! - Events are foreign text: every piece of one goes through [`Escaped`], and stands alone in its direction
//!   (`dir="auto"`, `bdi`). Links go to `http` and `https` only.
//! - Nothing inline and nothing from elsewhere, so that the content security policy can forbid both.

use std::{
    borrow::Cow,
    fmt::{self, Display, Write as _},
    sync::Arc,
};

use axum::{
    extract::{RawQuery, State},
    http::{HeaderValue, StatusCode, header},
    response::Response,
};
use milepost::{
    Timestamp, clock,
    event::{Evidence, EvidenceType},
};

use crate::{
    answer,
    app::App,
    feed::Filter,
    item::{Item, is_web_address},
    query::{self, Query},
    reads::cannot_read,
};

/// Milestones on the page when nothing is said.
const LIMIT: usize = 50;
/// Pieces of evidence that are shown before the rest is folded away.
const EVIDENCE_SHOWN: usize = 3;

/// `GET /`
pub async fn page(State(app): State<Arc<App>>, RawQuery(query): RawQuery) -> Response {
    let query = match Query::parse(query.as_deref(), LIMIT) {
        Ok(it) => it,
        Err(reason) => return answer::refused(StatusCode::BAD_REQUEST, &reason),
    };
    // Before the items are read: what comes in between is in the stream too, and the page knows it by seq.
    let head = app.feed.head();
    let items = match app.feed.newest(query.filter.clone(), query.before, query.limit).await {
        Ok(it) => it.items,
        Err(error) => return cannot_read(&app, &error),
    };
    let mut html = String::with_capacity(4096 + items.len() * 2048);
    // Writing into memory cannot fail.
    let _ = write_page(&mut html, &query, &items, &head, clock::now());
    answer::with_type(StatusCode::OK, "text/html; charset=utf-8", html)
}

/// `GET /app.css`
pub async fn style() -> Response {
    own_file("text/css; charset=utf-8", include_str!("../assets/app.css"))
}

/// `GET /app.js`
pub async fn script() -> Response {
    own_file("text/javascript; charset=utf-8", include_str!("../assets/app.js"))
}

/// `GET /icon.svg`
pub async fn icon() -> Response {
    own_file("image/svg+xml", include_str!("../assets/icon.svg"))
}

fn own_file(content_type: &'static str, text: &'static str) -> Response {
    let mut response = answer::with_type(StatusCode::OK, content_type, text);
    // Short: after an update the page and its script must not be of two versions for long.
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("max-age=60"));
    response
}

/// Foreign text as people see it: what would turn the writing direction or is no character is spelled out.
/// Line ends are white space in HTML, and joiners make letters and signs what they are. As `visible` in app.js.
fn visible(text: &str) -> Cow<'_, str> {
    let is_unsafe = |it: char| {
        (it.is_control() && !matches!(it, '\t' | '\n' | '\r'))
            || matches!(it, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    if !text.contains(is_unsafe) {
        return Cow::Borrowed(text);
    }
    let spell = |it: char| if is_unsafe(it) { it.escape_unicode().to_string() } else { it.to_string() };
    Cow::Owned(text.chars().map(spell).collect())
}

/// Foreign text in HTML, as text or in a quoted attribute.
struct Escaped<'a>(&'a str);

impl Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest = self.0;
        while let Some(at) = rest.find(['&', '<', '>', '"', '\'', '\0']) {
            let (plain, from) = rest.split_at(at);
            f.write_str(plain)?;
            f.write_str(match from.as_bytes()[0] {
                b'&' => "&amp;",
                b'<' => "&lt;",
                b'>' => "&gt;",
                b'"' => "&quot;",
                b'\'' => "&#39;",
                // A zero byte is an error in HTML.
                _ => "\u{fffd}",
            })?;
            rest = &from[1..];
        }
        f.write_str(rest)
    }
}

fn write_page(
    html: &mut String,
    query: &Query,
    items: &[Arc<Item>],
    (seq, hash): &(u64, String),
    now: Timestamp,
) -> fmt::Result {
    let scope = query.filter.scope.as_deref();
    let risk = query.filter.risk.map_or("", |it| query::words_of(it).0);
    html.push_str(TOP);
    write_filters(html, &query.filter)?;
    let (scope, limit) = (Escaped(scope.unwrap_or_default()), query.limit);
    writeln!(
        html,
        "<main id=\"feed\" data-after=\"{seq}\" data-scope=\"{scope}\" data-risk=\"{risk}\" data-limit=\"{limit}\">"
    )?;
    if items.is_empty() {
        write_empty(html, &query.filter);
    }
    let mut day = String::new();
    for item in items {
        let its_day = item.event.timestamp_utc.to_string()[..10].to_owned();
        if its_day != day {
            if !day.is_empty() {
                html.push_str("</ol></section>\n");
            }
            let heading = day_in_words(item.event.timestamp_utc);
            writeln!(
                html,
                "<section class=\"day\" data-day=\"{its_day}\"><h2><time datetime=\"{its_day}\">{heading}</time></h2>\n<ol>"
            )?;
            day = its_day;
        }
        write_item(html, item, now)?;
    }
    if !day.is_empty() {
        html.push_str("</ol></section>\n");
    }
    html.push_str("</main>\n");
    if items.len() == query.limit && query.limit < crate::latest::TOP_MAX {
        let link = link_to(&query.filter, Some(crate::latest::TOP_MAX));
        writeln!(html, "<p class=\"more\"><a href=\"{link}\">Show older milestones</a></p>")?;
    }
    html.push_str("<footer>\n");
    if *seq > 0 {
        writeln!(
            html,
            "<p>Every milestone here came signed, and each line of the feed holds the hash of the one before. \
             Its head: <span title=\"{hash}\">№&#8239;{seq} <span class=\"hash\">{}</span></span></p>",
            short(hash)
        )?;
    }
    html.push_str(BOTTOM);
    Ok(())
}

fn write_filters(html: &mut String, filter: &Filter) -> fmt::Result {
    html.push_str("<nav class=\"filters\" aria-label=\"Filter\">\n<ul>\n");
    let mut link = |filter: &Filter, slug: &str, words: &str, is_current: bool| {
        let current = if is_current { " aria-current=\"true\"" } else { "" };
        let href = link_to(filter, None);
        writeln!(html, "<li><a class=\"risk {slug}\" href=\"{href}\"{current}>{words}</a></li>")
    };
    link(&Filter { risk: None, ..filter.clone() }, "any", "All", filter.risk.is_none())?;
    for (risk, slug, words) in query::RISKS {
        link(&Filter { risk: Some(risk), ..filter.clone() }, slug, words, filter.risk == Some(risk))?;
    }
    html.push_str("</ul>\n");
    if let Some(scope) = &filter.scope {
        let href = link_to(&Filter { scope: None, ..filter.clone() }, None);
        writeln!(
            html,
            "<p class=\"chosen\">in <bdi>{}</bdi> <a href=\"{href}\" aria-label=\"Show all scopes\">×</a></p>",
            Escaped(&visible(scope))
        )?;
    }
    html.push_str("</nav>\n");
    Ok(())
}

fn write_item(html: &mut String, item: &Item, now: Timestamp) -> fmt::Result {
    let Item { seq, event, head, received_at, .. } = item;
    let (slug, words) = query::words_of(event.risk_status);
    let time = event.timestamp_utc;
    let scope_link = link_to(&Filter { scope: Some(event.scope.clone()), ..Filter::default() }, None);
    write!(
        html,
        "<li id=\"seq-{seq}\" class=\"{slug}\" data-time=\"{time}\" data-seq=\"{seq}\"><article>\n\
         <p class=\"when\"><time datetime=\"{time}\" title=\"{}\">{}</time></p>\n\
         <p class=\"what\"><a class=\"scope\" href=\"{scope_link}\"><bdi>{}</bdi></a> \
         <span class=\"risk {slug}\">{words}</span></p>\n\
         <h3 class=\"claim\" dir=\"auto\">{}</h3>\n",
        in_full(time),
        relative(time, now),
        Escaped(&visible(&event.scope)),
        Escaped(&visible(&event.claim)),
    )?;
    let (first, rest) = event.evidence.split_at(event.evidence.len().min(EVIDENCE_SHOWN));
    html.push_str("<ul class=\"evidence\">\n");
    first.iter().try_for_each(|it| write_evidence(html, it))?;
    html.push_str("</ul>\n");
    if !rest.is_empty() {
        writeln!(html, "<details><summary>{} more</summary><ul class=\"evidence\">", rest.len())?;
        rest.iter().try_for_each(|it| write_evidence(html, it))?;
        html.push_str("</ul></details>\n");
    }
    write!(
        html,
        "<p class=\"next\"><span class=\"label\">Next</span> <span dir=\"auto\">{}</span></p>\n\
         <p class=\"proof\"><span class=\"source\">{}</span> <a href=\"#seq-{seq}\" \
         title=\"Received {}, hash {head}\">№&#8239;{seq} <span class=\"hash\">{}</span></a></p>\n\
         </article></li>\n",
        Escaped(&visible(&event.next_action)),
        event.source.as_str(),
        in_full(*received_at),
        short(head),
    )
}

fn write_evidence(html: &mut String, evidence: &Evidence) -> fmt::Result {
    let Evidence { kind, path, summary, reference } = evidence;
    write!(
        html,
        "<li><span class=\"type\">{}</span> <span class=\"summary\" dir=\"auto\">{}</span>",
        kind.as_str(),
        Escaped(&visible(summary))
    )?;
    html.push_str(" <span class=\"place\">");
    let path = visible(path);
    let path = Escaped(&path);
    if is_web_address(path.0) {
        write!(
            html,
            "<a class=\"path\" href=\"{path}\" rel=\"noopener noreferrer nofollow ugc\"><bdi>{path}</bdi></a> "
        )?;
    } else if !path.0.is_empty() {
        write!(html, "<span class=\"path\"><bdi>{path}</bdi></span> ")?;
    }
    if let Some(reference) = reference {
        let (full, short) = (visible(reference), short_reference(*kind, reference));
        let full = Escaped(&full);
        write!(html, "<span class=\"ref\" title=\"{full}\"><bdi>{}</bdi></span>", Escaped(&visible(&short)))?;
    }
    html.push_str("</span>");
    html.push_str("</li>\n");
    Ok(())
}

fn write_empty(html: &mut String, filter: &Filter) {
    html.push_str("<section class=\"empty\" id=\"empty\">\n");
    if filter.scope.is_some() || filter.risk.is_some() {
        html.push_str("<h2>Nothing here yet</h2>\n<p>No milestone fits. <a href=\"/\">Show all</a></p>\n");
    } else {
        html.push_str(EMPTY);
    }
    html.push_str("</section>\n");
}

/// The page with this filter.
fn link_to(filter: &Filter, limit: Option<usize>) -> String {
    let mut parts = Vec::new();
    if let Some(scope) = &filter.scope {
        parts.push(format!("scope={}", query::encode(scope)));
    }
    if let Some(risk) = filter.risk {
        parts.push(format!("riskStatus={}", query::words_of(risk).0));
    }
    if let Some(limit) = limit {
        parts.push(format!("limit={limit}"));
    }
    if parts.is_empty() { "/".to_owned() } else { format!("/?{}", parts.join("&amp;")) }
}

/// The first digits of a hash: enough to recognise it.
fn short(hash: &str) -> &str {
    hash.get(..8).unwrap_or(hash)
}

/// A commit's id as git shortens it, a file's hash likewise; anything else as it is.
fn short_reference(kind: EvidenceType, reference: &str) -> String {
    let digits = reference.strip_prefix("sha256:").unwrap_or(reference);
    let is_hash = digits.len() >= 16 && digits.bytes().all(|it| it.is_ascii_hexdigit());
    match kind {
        _ if !is_hash => reference.chars().take(60).collect(),
        EvidenceType::Commit => short(digits).to_owned(),
        _ => format!("sha256 {}", short(digits)),
    }
}

/// How long ago, for the last day; else the time of that day.
fn relative(time: Timestamp, now: Timestamp) -> String {
    let seconds = now.since(time).as_secs();
    match seconds {
        _ if time > now => clock_time(time),
        0..60 => "just now".to_owned(),
        60..3600 => format!("{}\u{a0}min ago", seconds / 60),
        3600..86400 => format!("{}\u{a0}h ago", seconds / 3600),
        _ => clock_time(time),
    }
}

fn clock_time(time: Timestamp) -> String {
    time.to_string()[11..16].to_owned()
}

/// `2026-03-01 09:05:00 UTC`
fn in_full(time: Timestamp) -> String {
    let text = time.to_string();
    format!("{} {} UTC", &text[..10], &text[11..19])
}

/// `Sunday, 1 March 2026`
fn day_in_words(time: Timestamp) -> String {
    const DAYS: [&str; 7] = ["Thursday", "Friday", "Saturday", "Sunday", "Monday", "Tuesday", "Wednesday"];
    const MONTHS: [&str; 12] = [
        "January",
        "February",
        "March",
        "April",
        "May",
        "June",
        "July",
        "August",
        "September",
        "October",
        "November",
        "December",
    ];
    // 1 January 1970 was a Thursday.
    let day = usize::try_from(time.unix_seconds().div_euclid(86_400).rem_euclid(7)).unwrap_or(0);
    let text = time.to_string();
    let month = text[5..7].parse::<usize>().unwrap_or(1);
    let month = MONTHS.get(month.wrapping_sub(1)).unwrap_or(&"");
    format!("{}, {} {month} {}", DAYS[day], text[8..10].trim_start_matches('0'), &text[..4])
}

const TOP: &str = include_str!("../assets/top.html");
const EMPTY: &str = include_str!("../assets/empty.html");
const BOTTOM: &str = include_str!("../assets/bottom.html");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn foreign_text_is_text() {
        assert_eq!(
            Escaped("<script>alert('x')</script> & \"q\" ü\0").to_string(),
            "&lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt; &amp; &quot;q&quot; ü\u{fffd}"
        );
    }

    #[test]
    fn text_cannot_turn_the_writing_direction() {
        assert_eq!(visible("a\u{202e}b\u{7}\u{2067}\n"), "a\\u{202e}b\\u{7}\\u{2067}\n");
        let family = "👩\u{200d}👧 می\u{200c}خواهم";
        assert_eq!(visible(family), family);
    }

    #[test]
    fn times_read_as_people_say_them() {
        let at = |text: &str| Timestamp::parse_utc(text).unwrap();
        let now = at("2026-03-01T12:00:00Z");
        assert_eq!(relative(at("2026-03-01T11:59:30Z"), now), "just now");
        assert_eq!(relative(at("2026-03-01T11:05:00Z"), now), "55\u{a0}min ago");
        assert_eq!(relative(at("2026-02-28T12:00:01Z"), now), "23\u{a0}h ago");
        assert_eq!(relative(at("2026-02-28T12:00:00Z"), now), "12:00");
        assert_eq!(relative(at("2026-03-02T08:30:00Z"), now), "08:30");
        assert_eq!(day_in_words(now), "Sunday, 1 March 2026");
        assert_eq!(day_in_words(at("1969-12-31T00:00Z")), "Wednesday, 31 December 1969");
        assert_eq!(day_in_words(at("2024-02-29T23:59Z")), "Thursday, 29 February 2024");
    }
}
