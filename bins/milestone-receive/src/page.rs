//! The page at `/` for people, complete without a script: the newest milestones, or one (`?milestone=`).
//!
//! The server writes what there is; `app.js` adds what comes while the page is open. Both make the same elements:
//! [`entry`] here, the template `#item` and `fill` there.
//!
//! # Invariants
//! - Events are foreign text: every piece of one goes through [`Escaped`], and stands alone in its direction
//!   (`dir="auto"`, `bdi`). Links go to `http` and `https` only.
//! - Nothing inline that runs or styles, and nothing from elsewhere: the content security policy forbids both.
//!
//! Parts: `entry` (a milestone), `chart` (milestones a day), `times` (times in words).

mod chart;
mod entry;
mod times;

use std::{
    collections::BTreeSet,
    fmt::{self, Write as _},
    sync::Arc,
};

use axum::{
    extract::{RawQuery, State},
    http::{HeaderValue, StatusCode, header},
    response::Response,
};
use milepost::{Timestamp, clock};

use self::{
    entry::{link_to, short, write_evidence, write_item},
    times::{day_in_words, in_full},
};
use crate::{
    answer,
    app::App,
    feed::{Days, Filter, Page},
    html::{Escaped, visible},
    item::Item,
    latest::TOP_MAX,
    query::{self, Query},
    reads::{cannot_read, find_one},
};

/// Milestones on the page when nothing is said.
const LIMIT: usize = 50;

const TOP: &str = include_str!("../assets/top.html");
const EMPTY: &str = include_str!("../assets/empty.html");
const BOTTOM: &str = include_str!("../assets/bottom.html");

/// `GET /`
pub async fn page(State(app): State<Arc<App>>, RawQuery(query): RawQuery) -> Response {
    if let Some(id) = query::milestone(query.as_deref()) {
        return one(&app, id).await;
    }
    let query = match Query::parse(query.as_deref(), LIMIT) {
        Ok(it) => it,
        Err(reason) => {
            let html = instead("This link asks for nothing that there is", &format!("{reason}."));
            return answer::with_type(StatusCode::BAD_REQUEST, HTML, html);
        }
    };
    // Before the items are read: what comes in between is in the stream too, and the page knows it by seq.
    let head = app.feed.head();
    let page = match app.feed.newest(query.filter.clone(), query.before, query.limit).await {
        Ok(it) => it,
        Err(error) => return cannot_show(&app, &error),
    };
    let mut html = String::with_capacity(16384 + page.items.len() * 2048);
    // Writing into memory cannot fail.
    let _ = write_page(&mut html, &query, &page, &app.feed.days(), &head, clock::now());
    answer::with_type(StatusCode::OK, HTML, html)
}

const HTML: &str = "text/html; charset=utf-8";

/// The page of one milestone, with its receipt.
async fn one(app: &Arc<App>, id: String) -> Response {
    let found = match find_one(app, id).await {
        Ok(it) => it,
        Err(error) => return cannot_show(app, &error),
    };
    let Some(item) = found else {
        let html = instead("There is no such milestone", "It may not have arrived yet.");
        return answer::with_type(StatusCode::NOT_FOUND, HTML, html);
    };
    let mut html = String::with_capacity(8192);
    // Writing into memory cannot fail.
    let _ = write_one(&mut html, &item, clock::now());
    answer::with_type(StatusCode::OK, HTML, html)
}

/// The feed cannot be read: the same answer as elsewhere, for people.
fn cannot_show(app: &App, error: &milepost::Error) -> Response {
    let mut response = cannot_read(app, error);
    *response.body_mut() =
        instead("The feed cannot be read at the moment", "Look again in a little while.").into();
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(HTML));
    response
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

fn write_page(
    html: &mut String,
    query: &Query,
    page: &Page,
    days: &Days,
    (seq, hash): &(u64, String),
    now: Timestamp,
) -> fmt::Result {
    let Page { items, next } = page;
    html.push_str(TOP);
    writeln!(
        html,
        "<p class=\"state\"><span id=\"state\" role=\"status\"></span> \
         <time id=\"updated\" datetime=\"{now}\">as of {} UTC</time></p>\n</header>",
        times::clock_time(now)
    )?;
    if *seq > 0 {
        chart::write(html, days, now)?;
    }
    write_filters(html, &query.filter, items)?;
    let Filter { scope, risk, words, since } = &query.filter;
    let risk = risk.map_or("", |it| query::words_of(it).0);
    let is_live = query.before.is_none() && since.is_none();
    let of = |it: &Option<String>| Escaped(it.as_deref().unwrap_or_default()).to_string();
    writeln!(
        html,
        "<main id=\"feed\" data-after=\"{seq}\" data-scope=\"{}\" data-risk=\"{risk}\" data-words=\"{}\" \
         data-live=\"{is_live}\">",
        of(scope),
        of(words),
    )?;
    if items.is_empty() {
        write_empty(html, query);
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
    if let Some(next) = next {
        let limit = Some(TOP_MAX).filter(|_| query.limit == TOP_MAX);
        let link = link_to(&query.filter, limit);
        let separator = if link.contains('?') { "&amp;" } else { "?" };
        writeln!(
            html,
            "<p class=\"more\"><a href=\"{link}{separator}cursor={}\">Older milestones</a></p>",
            query::cursor(*next)
        )?;
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

fn write_filters(html: &mut String, filter: &Filter, items: &[Arc<Item>]) -> fmt::Result {
    html.push_str("<div class=\"filters\">\n<nav aria-label=\"Risk status\">\n<ul>\n");
    let mut link = |filter: &Filter, slug: &str, words: &str, is_current: bool| {
        let current = if is_current { " aria-current=\"true\"" } else { "" };
        let href = link_to(filter, None);
        writeln!(html, "<li><a class=\"risk {slug}\" href=\"{href}\"{current}>{words}</a></li>")
    };
    link(&Filter { risk: None, ..filter.clone() }, "any", "All", filter.risk.is_none())?;
    for (risk, slug, words) in query::RISKS {
        link(&Filter { risk: Some(risk), ..filter.clone() }, slug, words, filter.risk == Some(risk))?;
    }
    html.push_str("</ul>\n</nav>\n");
    html.push_str("<form id=\"find\" role=\"search\" action=\"/\" method=\"get\">\n");
    let of = |it: &Option<String>| Escaped(it.as_deref().unwrap_or_default()).to_string();
    writeln!(
        html,
        "<input type=\"search\" name=\"q\" value=\"{}\" placeholder=\"Search\" aria-label=\"Search\" maxlength=\"200\">\n\
         <input name=\"scope\" value=\"{}\" placeholder=\"Any scope\" aria-label=\"Scope\" list=\"scopes\" \
         autocomplete=\"off\">\n<datalist id=\"scopes\">",
        of(&filter.words),
        of(&filter.scope),
    )?;
    let scopes: BTreeSet<&str> = items.iter().map(|it| it.event.scope.as_str()).collect();
    for scope in scopes {
        writeln!(html, "<option value=\"{}\"></option>", Escaped(scope))?;
    }
    html.push_str("</datalist>\n");
    if let Some(risk) = filter.risk {
        writeln!(html, "<input type=\"hidden\" name=\"riskStatus\" value=\"{}\">", query::words_of(risk).0)?;
    }
    html.push_str("<button>Find</button>\n</form>\n");
    if filter.scope.is_some() || filter.words.is_some() {
        let all = link_to(&Filter { risk: filter.risk, ..Filter::default() }, None);
        html.push_str("<p class=\"chosen\">Shown:");
        if let Some(words) = &filter.words {
            write!(html, " with <bdi>{}</bdi>", Escaped(&visible(words)))?;
        }
        if let Some(scope) = &filter.scope {
            write!(html, " in <bdi>{}</bdi>", Escaped(&visible(scope)))?;
        }
        writeln!(html, " <a href=\"{all}\" aria-label=\"Show all scopes and words\">×</a></p>")?;
    }
    html.push_str("</div>\n");
    Ok(())
}

fn write_empty(html: &mut String, query: &Query) {
    let Filter { scope, risk, words, since } = &query.filter;
    html.push_str("<section class=\"empty\" id=\"empty\">\n");
    if scope.is_some() || risk.is_some() || words.is_some() || since.is_some() || query.before.is_some() {
        html.push_str("<h2>Nothing here</h2>\n<p>No milestone fits. <a href=\"/\">Show all</a></p>\n");
    } else {
        html.push_str(EMPTY);
    }
    html.push_str("</section>\n");
}

fn write_one(html: &mut String, item: &Item, now: Timestamp) -> fmt::Result {
    let Item { seq, event, head, received_at, .. } = item;
    html.push_str(TOP);
    html.push_str("</header>\n");
    let (slug, words) = query::words_of(event.risk_status);
    let scope = link_to(&Filter { scope: Some(event.scope.clone()), ..Filter::default() }, None);
    writeln!(
        html,
        "<main id=\"one\">\n<p class=\"back\"><a href=\"/\">All milestones</a></p>\n<article class=\"one {slug}\">\n\
         <p class=\"what\"><a class=\"scope\" href=\"{scope}\"><bdi>{}</bdi></a> <span class=\"risk {slug}\">{words}</span> \
         <time datetime=\"{time}\" title=\"{}\">{}, {}</time></p>\n\
         <h2 class=\"claim\" dir=\"auto\">{}</h2>\n<h3>Evidence</h3>\n<ul class=\"evidence\">",
        Escaped(&visible(&event.scope)),
        in_full(event.timestamp_utc),
        day_in_words(event.timestamp_utc),
        times::relative(event.timestamp_utc, now),
        Escaped(&visible(&event.claim)),
        time = event.timestamp_utc,
    )?;
    event.evidence.iter().try_for_each(|it| write_evidence(html, it))?;
    let json = format!("/api/milestones/{}", query::encode(&event.milestone_id));
    writeln!(
        html,
        "</ul>\n<h3>Next</h3>\n<p class=\"then\" dir=\"auto\">{}</p>\n<h3>Receipt</h3>\n<dl class=\"receipt\">\n\
         <dt>Milestone</dt><dd><bdi>{}</bdi></dd>\n<dt>Reported by</dt><dd>{}</dd>\n\
         <dt>Happened</dt><dd>{}</dd>\n<dt>Received</dt><dd>{}</dd>\n<dt>Number</dt><dd>{seq}</dd>\n\
         <dt>Hash</dt><dd class=\"hash\">{head}</dd>\n</dl>\n\
         <p class=\"aside\">The hash is over this line of the feed and the hash of the line before. The sender keeps \
         number and hash in its audit, so neither side can change its history unseen. <a href=\"{json}\">As JSON</a></p>\n\
         </article>\n</main>\n<footer>",
        Escaped(&visible(&event.next_action)),
        Escaped(&visible(&event.milestone_id)),
        event.source.as_str(),
        in_full(event.timestamp_utc),
        in_full(*received_at),
    )?;
    html.push_str(BOTTOM);
    Ok(())
}

/// The page where there is no milestone to show.
fn instead(heading: &str, sentence: &str) -> String {
    let sentence = Escaped(sentence);
    format!(
        "{TOP}</header>\n<main id=\"one\">\n<section class=\"empty\"><h2>{heading}</h2>\n\
         <p>{sentence} <a href=\"/\">All milestones</a></p></section>\n</main>\n<footer>\n{BOTTOM}"
    )
}
